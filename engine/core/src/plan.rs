//! The plan: what a pipeline file asks for, checked, stage by stage, in an order in which it can run.
//!
//! A plan knows nothing of what is cached; keys need the digests of what runs before. It is the whole
//! answer of the check, and all that a run needs of the pipeline file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use taper_cache::{ArtifactType, Digest};

use crate::canonical::{CanonicalError, Found, FoundAt, Value};
use crate::diagnostic::suggest;
use crate::key::Ingredients;
use crate::kind::{Device, Makes, Reference};
use crate::node::{Node, Span};
use crate::registry::{AnyKind, AnyParams};

/// A pipeline that can run.
#[derive(Clone)]
pub struct Plan {
    /// The pipeline's name; without one, that of its file.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The params, as they are when nothing varies, for people: `lr` -> `1e-3`.
    pub params: BTreeMap<String, String>,
    /// What the matrix varies, with the values as written; empty without a matrix.
    pub matrix: Vec<(String, Vec<String>)>,
    /// The stages, each after those whose artifacts it reads; otherwise in the order of the file.
    pub stages: Vec<PlannedStage>,
}

/// A stage, or one variant of it.
#[derive(Clone)]
pub struct PlannedStage {
    /// Its name with its variant: `model[lr=1e-3]`. No two of a plan have the same.
    pub name: String,
    /// Its name in the file.
    pub stage: String,
    /// Its variant: the values of the matrix that it or a stage before it depends on, as written.
    pub variant: Vec<(String, String)>,
    /// Its kind.
    pub kind: &'static dyn AnyKind,
    /// Its parameters and the kind's own settings.
    pub params: Arc<dyn AnyParams>,
    /// What it makes.
    pub makes: Makes,
    /// The artifacts that it reads, in the order of its parameters.
    pub inputs: Vec<PlannedInput>,
    /// The files of the project that it reads, in the order of its parameters.
    pub locals: Vec<PlannedLocal>,
    /// The seed of its random choices: its own, else the pipeline's.
    pub seed: u64,
    /// What stands beside the kind.
    pub settings: StageSettings,
    /// Where its name stands in the file.
    pub span: Span,
    /// What stands below its kind, for those who say what is wrong with it.
    pub(crate) body: Node,
}

/// An artifact that a stage reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedInput {
    /// As written: `STAGE` or `STAGE.OUTPUT`.
    pub reference: String,
    /// The dotted path of the parameter that names it.
    pub param: String,
    /// The stage that makes it, by its place in [`Plan::stages`].
    pub stage: usize,
    /// Which of its parts, where it makes several.
    pub output: Option<String>,
    /// The artifact's type.
    pub artifact_type: ArtifactType,
}

/// Files of the project that a stage reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLocal {
    /// As written: a file, a folder or a glob, relative to the project's root.
    pub path: String,
    /// The dotted path of the parameter that names it.
    pub param: String,
    /// Whether names are relative to the project's root.
    pub named: bool,
}

/// What stands beside the kind; none of it enters the key, but the device's class where the kind computes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageSettings {
    /// Where to compute.
    pub device: DeviceChoice,
    /// Where that stands in the file; nowhere if it does not.
    pub device_span: Option<Span>,
    /// How often a failure that may pass is tried again.
    pub retries: u32,
    /// After how long the stage is stopped.
    pub timeout: Option<Duration>,
    /// How many cores it keeps busy: it counts as that many of `--jobs`; 0, for 1, where nothing is said.
    pub cores: usize,
    /// How many bytes of memory it needs; 0 where nothing is said.
    pub memory: u64,
    /// Where in the work tree the artifact is put: a relative path that stays in the project, `/` between
    /// its parts.
    pub export: Option<String>,
    /// Whether to use what the lock has instead of running.
    pub frozen: bool,
    /// What it is for.
    pub description: Option<String>,
}

/// Where the user wants a stage to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best that there is.
    #[default]
    Auto,
    /// This one.
    This(Device),
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let device = match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => Device::Cpu,
            "metal" => Device::Metal,
            "cuda" => Device::Cuda(0),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Device::Cuda)
                .ok_or_else(|| format!("there is no device `{text}`"))?,
        };
        Ok(Self::This(device))
    }
}

impl PlannedStage {
    /// What the key is made of, but for the arithmetic: that needs the artifacts themselves. `digest_of` gives the digest of an input (by [`PlannedInput::reference`]) and
    /// of files of the project.
    ///
    /// # Errors
    /// Where a parameter has no canonical form, and those of `digest_of`.
    pub fn ingredients(
        &self,
        device: Device,
        resolved: Option<Value>,
        digest_of: &mut dyn FnMut(Needed<'_>) -> Result<Digest, CanonicalError>,
    ) -> Result<Ingredients, CanonicalError> {
        let params = self.params.params(&mut |at| match needed(at) {
            Ok(needed) => digest_of(needed),
            Err(digest) => Ok(digest),
        })?;
        Ok(Ingredients {
            kind: self.kind.name().to_owned(),
            version: self.kind.version(),
            params,
            resolved,
            seed: self.kind.seeded().then_some(self.seed),
            device: self.kind.computes().then(|| device.class().to_owned()),
            arithmetic: None,
            smoke: false,
        })
    }
}

/// What a key needs the digest of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed<'n> {
    /// An artifact: the one of [`PlannedInput::reference`].
    Input(&'n str),
    /// Files of the project: those of [`PlannedLocal`].
    Local {
        /// The path, as written.
        path: &'n str,
        /// Whether names are relative to the project's root.
        named: bool,
    },
}

fn needed(at: &FoundAt) -> Result<Needed<'_>, Digest> {
    match &at.found {
        Found::Input(input) => match &input.reference {
            Reference::Name(name) => Ok(Needed::Input(name)),
            Reference::Artifact(digest) => Err(*digest),
        },
        Found::Local(local) => match &local.reference {
            Reference::Name(path) => Ok(Needed::Local {
                path,
                named: local.named,
            }),
            Reference::Artifact(digest) => Err(*digest),
        },
    }
}

impl Plan {
    /// The stages that `names` mean and all before them. A name is a stage's, for all its variants, or one with
    /// its variant.
    ///
    /// # Errors
    /// A message for people about the first name that means nothing.
    pub fn with_all_before(&self, names: &[String]) -> Result<BTreeSet<usize>, String> {
        let mut chosen = BTreeSet::new();
        for name in names {
            let indices = self.named(name)?;
            chosen.extend(indices);
        }
        for index in (0..self.stages.len()).rev() {
            if chosen.contains(&index) {
                chosen.extend(self.stages[index].inputs.iter().map(|input| input.stage));
            }
        }
        Ok(chosen)
    }

    /// The stages that a name means: all variants of a stage, or one.
    ///
    /// # Errors
    /// A message for people where it means nothing.
    pub fn named(&self, name: &str) -> Result<Vec<usize>, String> {
        let stages = self.stages.iter().enumerate();
        let found: Vec<usize> = stages
            .filter(|(_, stage)| stage.name == name || stage.stage == name)
            .map(|(index, _)| index)
            .collect();
        if found.is_empty() {
            let known: BTreeSet<&str> = self.stages.iter().map(|s| s.stage.as_str()).collect();
            let help = suggest(name, "there are", known).unwrap_or_default();
            return Err(format!("there is no stage `{name}`: {help}"));
        }
        Ok(found)
    }

    /// For each stage, those that read its artifact, ascending.
    pub fn dependents(&self) -> Vec<Vec<usize>> {
        let mut dependents = vec![Vec::new(); self.stages.len()];
        for (index, stage) in self.stages.iter().enumerate() {
            for input in &stage.inputs {
                if dependents[input.stage].last() != Some(&index) {
                    dependents[input.stage].push(index);
                }
            }
        }
        dependents
    }
}
