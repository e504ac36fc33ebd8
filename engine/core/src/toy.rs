//! Kinds for the engine's own tests: small, and with every sort of parameter that there is.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taper_cache::ArtifactType;

use crate::kind::{
    Artifact, ArtifactFiles, Context, Input, Kind, LocalPath, Makes, NoSettings, Stage, StageError,
};
use crate::registry::{AnyKind, Kinds};

/// All of them.
pub(crate) static TOYS: Kinds = Kinds::new(KINDS);
static KINDS: &[&dyn AnyKind] = &[&Words, &Mix, &Fit, &Tool];

macro_rules! view {
    ($name:ident, $($artifact_type:ident),+) => {
        /// Files of these types.
        pub(crate) struct $name(pub ArtifactFiles);

        impl Artifact for $name {
            const TYPES: &'static [ArtifactType] = &[$(ArtifactType::$artifact_type),+];

            fn open(files: ArtifactFiles) -> Result<Self, StageError> {
                Ok(Self(files))
            }
        }
    };
}

view!(Rows, Dataset);
view!(RowsOrTokens, Dataset, Tokens);
view!(
    Anything,
    Dataset,
    Tokens,
    Model,
    Metrics,
    Predictions,
    Plot,
    Files
);

fn read_all(files: &ArtifactFiles) -> Result<String, StageError> {
    let mut text = String::new();
    for name in files.names() {
        if let Some(path) = files.path(name) {
            text.push_str(&fs_err::read_to_string(path)?);
        }
    }
    Ok(text)
}

/// Writes words, or the words of a file.
pub(crate) struct Words;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WordsParams {
    text: Option<String>,
    path: Option<LocalPath>,
    #[serde(default = "one")]
    rows: u32,
}

fn one() -> u32 {
    1
}

impl Kind for Words {
    type Params = WordsParams;
    type Settings = NoSettings;
    type Resolved = ();
    const NAME: &'static str = "words";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "words: { text: hello, rows: 3 }";

    fn makes(&self, _: &WordsParams) -> Makes {
        Makes::One(ArtifactType::Dataset)
    }

    fn check(&self, params: &WordsParams) -> Vec<StageError> {
        let mut errors = Vec::new();
        if params.rows == 0 {
            let error = StageError::invalid("no rows are asked for");
            errors.push(error.at("rows").help("ask for one at least"));
        }
        if params.text.is_none() && params.path.is_none() {
            errors.push(StageError::invalid("neither `text` nor `path` is given"));
        }
        errors
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let mut text = stage.params.text.clone().unwrap_or_default();
        if let Some(path) = &stage.params.path {
            text.push_str(&read_all(&context.local(path)?)?);
        }
        let rows = text.repeat(stage.params.rows as usize);
        Ok(fs_err::write(context.create("train.txt")?, rows)?)
    }
}

/// Mixes rows: seeded.
pub(crate) struct Mix;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MixParams {
    data: Input<Rows>,
}

impl Kind for Mix {
    type Params = MixParams;
    type Settings = NoSettings;
    type Resolved = ();
    const NAME: &'static str = "mix";
    const VERSION: u32 = 1;
    const SEEDED: bool = true;
    const EXAMPLE: &'static str = "mix: { data: corpus }";

    fn makes(&self, _: &MixParams) -> Makes {
        Makes::One(ArtifactType::Dataset)
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let Rows(files) = context.open(&stage.params.data)?;
        let text = format!("{}{}", context.seed, read_all(&files)?);
        Ok(fs_err::write(context.create("train.txt")?, text)?)
    }
}

/// Fits a model: seeded, computing, with choices and settings.
pub(crate) struct Fit;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FitParams {
    data: Input<RowsOrTokens>,
    #[serde(default)]
    optimizer: Optimizer,
    #[serde(default)]
    shape: Shape,
    #[serde(default)]
    weights: Vec<f32>,
    #[serde(default)]
    rows: BTreeMap<String, u64>,
    #[serde(default)]
    fast: bool,
    limit: Option<u8>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Optimizer {
    /// With defaults throughout.
    Adamw(Adamw),
    /// Without a default.
    Sgd(Sgd),
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adamw(Adamw::default())
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Adamw {
    lr: f64,
}

impl Default for Adamw {
    fn default() -> Self {
        Self { lr: 1e-3 }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sgd {
    lr: f64,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// Narrow.
    #[default]
    Narrow,
    /// Wide.
    Wide,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FitSettings {
    checkpoint_every: Option<u32>,
}

impl Kind for Fit {
    type Params = FitParams;
    type Settings = FitSettings;
    type Resolved = ();
    const NAME: &'static str = "fit";
    const VERSION: u32 = 1;
    const SEEDED: bool = true;
    const COMPUTES: bool = true;
    const EXAMPLE: &'static str = "fit: { data: mixed, optimizer: { adamw: { lr: 1e-3 } } }";

    fn makes(&self, _: &FitParams) -> Makes {
        Makes::One(ArtifactType::Model)
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let RowsOrTokens(files) = context.open(&stage.params.data)?;
        let text = format!("{:?}{}", stage.params.optimizer, read_all(&files)?);
        Ok(fs_err::write(context.create("model.txt")?, text)?)
    }
}

/// Any inputs, several outputs.
pub(crate) struct Tool;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolParams {
    #[serde(default)]
    inputs: BTreeMap<String, Input<Anything>>,
    #[serde(default)]
    files: Vec<LocalPath<true>>,
    #[serde(default)]
    outputs: BTreeMap<String, String>,
}

impl Kind for Tool {
    type Params = ToolParams;
    type Settings = NoSettings;
    type Resolved = ();
    const NAME: &'static str = "tool";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "tool: { inputs: { a: corpus }, outputs: { b: dataset } }";

    fn makes(&self, params: &ToolParams) -> Makes {
        let outputs = params.outputs.iter();
        Makes::Parts(
            outputs
                .filter_map(|(name, made)| Some((name.clone(), made.parse().ok()?)))
                .collect(),
        )
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let mut text = String::new();
        for input in stage.params.inputs.values() {
            let Anything(files) = context.open(input)?;
            text.push_str(&read_all(&files)?);
        }
        for output in stage.params.outputs.keys() {
            fs_err::write(context.create(format!("{output}/out.txt"))?, &text)?;
        }
        Ok(())
    }
}
