//! Kinds that are small enough to see through, and that count how often they run.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taper_cache::ArtifactType;
use taper_engine::{
    AnyKind, Artifact, ArtifactFiles, Context, Input, Kind, Kinds, LocalPath, Makes, NoSettings,
    Outside, Stage, StageError, StageErrorKind,
};

pub const KINDS: Kinds = Kinds::new(ALL);
static ALL: &[&dyn AnyKind] = &[
    &Say, &Concat, &Parity, &Sleep, &Dream, &Fail, &Vary, &Ask, &Halves, &Measure,
];

/// How often something happened, by a tag that each test has for itself.
static COUNTS: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

/// How often something with this tag has happened before.
fn count(tag: &str) -> u32 {
    let mut counts = COUNTS.lock().expect("no test panics with it");
    let count = counts.entry(tag.to_owned()).or_default();
    *count += 1;
    *count - 1
}

pub fn counted(tag: &str) -> u32 {
    let counts = COUNTS.lock().expect("no test panics with it");
    counts.get(tag).copied().unwrap_or(0)
}

pub struct Any(ArtifactFiles);

impl Artifact for Any {
    const TYPES: &'static [ArtifactType] = &ArtifactType::ALL;

    fn open(files: ArtifactFiles) -> Result<Self, StageError> {
        Ok(Self(files))
    }
}

impl Any {
    fn text(&self) -> Result<String, StageError> {
        text_of(&self.0)
    }
}

fn text_of(files: &ArtifactFiles) -> Result<String, StageError> {
    let mut text = String::new();
    for path in files.names().filter_map(|name| files.path(name)) {
        text.push_str(&fs_err::read_to_string(path)?);
    }
    Ok(text)
}

fn write(context: &Context, text: &str) -> Result<(), StageError> {
    Ok(fs_err::write(context.create("text")?, text)?)
}

macro_rules! kind {
    ($kind:ident, $params:ident, $name:literal, $example:literal, |$stage:ident, $context:ident| $run:block) => {
        kind!($kind, $params, $name, $example, Makes::One(ArtifactType::Files), |$stage, $context| $run);
    };
    ($kind:ident, $params:ident, $name:literal, $example:literal, $makes:expr, |$stage:ident, $context:ident| $run:block) => {
        pub struct $kind;

        impl Kind for $kind {
            type Params = $params;
            type Settings = NoSettings;
            type Resolved = ();
            const NAME: &'static str = $name;
            const VERSION: u32 = 1;
            const EXAMPLE: &'static str = $example;

            fn makes(&self, _: &$params) -> Makes {
                $makes
            }

            fn run(&self, $stage: &Stage<Self>, $context: &Context) -> Result<(), StageError> $run
        }
    };
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SayParams {
    text: String,
    #[serde(default)]
    tag: String,
}

kind!(
    Say,
    SayParams,
    "say",
    "say: { text: hello }",
    |stage, context| {
        count(&stage.params.tag);
        write(context, &stage.params.text)
    }
);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConcatParams {
    #[serde(default)]
    of: Vec<Input<Any>>,
    file: Option<LocalPath>,
    #[serde(default)]
    tag: String,
}

kind!(
    Concat,
    ConcatParams,
    "concat",
    "concat: { of: [a, b] }",
    |stage, context| {
        count(&stage.params.tag);
        let mut text = String::new();
        for input in &stage.params.of {
            text.push_str(&context.open(input)?.text()?);
        }
        if let Some(file) = &stage.params.file {
            text.push_str(&text_of(&context.local(file)?)?);
        }
        write(context, &text)
    }
);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParityParams {
    of: Input<Any>,
}

kind!(
    Parity,
    ParityParams,
    "parity",
    "parity: { of: a }",
    |stage, context| {
        let text = context.open(&stage.params.of)?.text()?;
        write(
            context,
            if text.len().is_multiple_of(2) {
                "even"
            } else {
                "odd"
            },
        )
    }
);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SleepParams {
    ms: u64,
    #[serde(default)]
    text: String,
    #[serde(default)]
    tag: String,
}

kind!(
    Sleep,
    SleepParams,
    "sleep",
    "sleep: { ms: 100 }",
    |stage, context| {
        count(&stage.params.tag);
        let _among = Among::those(&stage.params.tag);
        let end = Instant::now() + Duration::from_millis(stage.params.ms);
        while Instant::now() < end {
            context.reporter.check()?;
            std::thread::sleep(Duration::from_millis(2));
        }
        write(context, &stage.params.text)
    }
);

/// Sleeps where it computes.
pub struct Dream;

impl Kind for Dream {
    type Params = SleepParams;
    type Settings = NoSettings;
    type Resolved = ();
    const NAME: &'static str = "dream";
    const VERSION: u32 = 1;
    const COMPUTES: bool = true;
    const EXAMPLE: &'static str = "dream: { ms: 100 }";

    fn makes(&self, params: &SleepParams) -> Makes {
        Kind::makes(&Sleep, params)
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let _among = Among::those(&stage.params.tag);
        std::thread::sleep(Duration::from_millis(stage.params.ms));
        write(context, &stage.params.text)
    }
}

/// By tag: how many stages are asleep, and how many were at most.
static ASLEEP: Mutex<BTreeMap<String, (usize, usize)>> = Mutex::new(BTreeMap::new());

/// One more is asleep as long as this lives.
struct Among(String);

impl Among {
    fn those(tag: &str) -> Self {
        let mut all = ASLEEP.lock().expect("no panic");
        let (now, most) = all.entry(tag.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        Self(tag.to_owned())
    }
}

impl Drop for Among {
    fn drop(&mut self) {
        let mut all = ASLEEP.lock().expect("no panic");
        all.entry(self.0.clone()).or_default().0 -= 1;
    }
}

/// How many stages with this tag were asleep at most.
pub fn asleep(tag: &str) -> usize {
    ASLEEP.lock().expect("no panic")[tag].1
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FailParams {
    how: String,
    #[serde(default)]
    times: u32,
    #[serde(default)]
    tag: String,
}

kind!(
    Fail,
    FailParams,
    "fail",
    "fail: { how: failed }",
    |stage, context| {
        let params = &stage.params;
        if params.times > 0 && count(&params.tag) >= params.times {
            return write(context, "at last");
        }
        match params.how.as_str() {
            "transient" => Err(StageError::transient("the server is busy").help("wait")),
            "panic" => panic!("a bug"),
            "nothing" => Ok(()),
            "link" => Ok(std::os::unix::fs::symlink(
                "/etc/hostname",
                context.create("l")?,
            )?),
            _ => Err(StageError::failed("the disk is full")),
        }
    }
);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaryParams {
    tag: String,
}

kind!(
    Vary,
    VaryParams,
    "vary",
    "vary: { tag: a }",
    |stage, context| { write(context, &format!("time {}", count(&stage.params.tag))) }
);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HalvesParams {
    of: Input<Any>,
}

fn halves() -> Makes {
    let names = ["left", "right"];
    Makes::Parts(names.map(|n| (n.to_owned(), ArtifactType::Files)).into())
}

kind!(
    Halves,
    HalvesParams,
    "halves",
    "halves: { of: a }",
    halves(),
    |stage, context| {
        let text = context.open(&stage.params.of)?.text()?;
        let (left, right) = text.split_at(text.len() / 2);
        fs_err::write(context.create("left/text")?, left)?;
        Ok(fs_err::write(context.create("right/text")?, right)?)
    }
);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeasureParams {
    of: Input<Any>,
}

kind!(
    Measure,
    MeasureParams,
    "measure",
    "measure: { of: a }",
    Makes::One(ArtifactType::Metrics),
    |stage, context| {
        let length = context.open(&stage.params.of)?.text()?.len();
        Ok(fs_err::write(
            context.create("metrics.json")?,
            format!("{{\"length\": {length}}}"),
        )?)
    }
);

/// Asks the world outside, which answers with a number.
pub struct Ask;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskParams {
    tag: String,
    /// Read by nobody.
    of: Option<Input<Any>>,
    /// How long the answer takes, in milliseconds.
    #[serde(default)]
    ms: u64,
}

#[derive(Serialize, Deserialize)]
pub struct Answer {
    number: u32,
}

impl Kind for Ask {
    type Params = AskParams;
    type Settings = NoSettings;
    type Resolved = Answer;
    const NAME: &'static str = "ask";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "ask: { tag: a }";

    fn makes(&self, _: &AskParams) -> Makes {
        Makes::One(ArtifactType::Files)
    }

    fn resolve(
        &self,
        params: &AskParams,
        outside: &Outside<Answer>,
    ) -> Result<Option<Answer>, StageError> {
        if params.tag.starts_with("nothing") {
            count(&params.tag);
            return Ok(None);
        }
        if let Some(Answer { number }) = outside.locked {
            return Ok(Some(Answer { number }));
        }
        if outside.offline {
            return Err(StageError::new(
                StageErrorKind::Failed,
                "nobody can be asked offline",
            ));
        }
        std::thread::sleep(Duration::from_millis(params.ms));
        fs_err::write(outside.scratch.join("fetched"), "fetched")?;
        Ok(Some(Answer {
            number: count(&params.tag),
        }))
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        if context.scratch.join("fetched").exists() {
            count(&format!("{} handed on", stage.params.tag));
        }
        let number = stage.resolved.as_ref().map(|answer| answer.number);
        write(context, &format!("{number:?}"))
    }
}
