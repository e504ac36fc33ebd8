//! The engine: a pipeline file becomes a plan, a plan becomes a run. No machine learning, no printing.
//!
//! Data flows one way: file -> pipeline -> plan -> run -> record.

pub mod canonical;
pub mod check;
#[cfg(test)]
mod check_tests;
pub mod deserialize;
pub mod diagnostic;
pub mod event;
pub mod key;
#[cfg(test)]
mod key_vectors;
pub mod kind;
mod matrix;
pub mod node;
mod params;
pub mod pipeline;
pub mod plan;
pub mod registry;
mod schema;
#[cfg(test)]
mod toy;
mod wiring;
pub mod yaml;

pub use canonical::{CanonicalError, Found, FoundAt, Map, Value};
pub use check::{Checked, Options, check, check_file};
pub use diagnostic::{Diagnostic, Look, Report, Severity, Source};
pub use event::{Event, Events, Progress, Unit};
pub use key::{Change, Ingredients, IngredientsError};
pub use kind::{
    Artifact, ArtifactFiles, Context, Device, Folders, Input, InputKind, Kind, LocalKind,
    LocalPath, Makes, NoSettings, Outside, Reference, Reporter, Stage, StageError, StageErrorKind,
};
pub use plan::{
    DeviceChoice, Needed, Plan, PlannedInput, PlannedLocal, PlannedStage, StageSettings,
};
pub use registry::{AnyKind, AnyParams, KindSchemas, Kinds, Recipe};
