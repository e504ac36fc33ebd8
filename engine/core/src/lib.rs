//! The engine: a pipeline file becomes a plan, a plan becomes a run. No machine learning, no printing.
//!
//! Data flows one way: file -> pipeline -> plan -> run -> record.

pub mod event;
pub mod kind;

pub use event::{Event, Events, Progress, Unit};
pub use kind::{
    Artifact, ArtifactFiles, Context, Device, Folders, Input, InputKind, Kind, LocalKind,
    LocalPath, Makes, NoSettings, Outside, Reference, Reporter, Stage, StageError, StageErrorKind,
};
