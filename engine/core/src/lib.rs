//! The engine: a pipeline file becomes a plan, a plan becomes a run. No machine learning, no printing.
//!
//! Data flows one way: file -> pipeline -> plan -> run -> record.
//!
//! What a program does with it:
//!
//! 1. [`check_file`] reads a pipeline file and gives every problem there is, and a [`Plan`].
//! 2. [`Surroundings::open`] finds the project, its cache and the pipeline's lock. Before it is shared, set
//!    [`Surroundings::offline`], [`Surroundings::device`], and [`Surroundings::stop`], a flag that ends
//!    the run at the next safe point. [`Events`] are all that a reporter sees.
//! 3. [`run()`] brings stages up to date with an [`Executor`] ([`LocalExecutor`] for this process), and gives
//!    a [`RunReport`]; [`RunReport::end`] decides the exit code. [`forecast`] says what it would do, and why:
//!    `plan` and `explain`.
//! 4. [`restore`] and [`rerun`] reproduce a run from its record, which
//!    [`Store::find_run`](taper_cache::Store::find_run) and [`Store::run`](taper_cache::Store::run) find;
//!    [`compare_with_lock`] compares a run in a [`fresh_store`] with a lock.
//! 5. [`execute_job`] executes one [`Job`], from its bytes and the cache alone.
//!
//! Gathering what the cache must keep for `gc`: [`Lock::roots`].

pub mod canonical;
pub mod check;
#[cfg(test)]
mod check_tests;
pub mod deserialize;
pub mod devices;
pub mod diagnostic;
pub mod error;
pub mod event;
pub mod executor;
pub mod explain;
pub mod key;
#[cfg(test)]
mod key_vectors;
pub mod kind;
pub mod local;
pub mod lock;
pub mod machine;
mod matrix;
pub mod memory;
pub mod node;
mod params;
pub mod pipeline;
pub mod plan;
pub mod project;
pub mod reference;
pub mod registry;
pub mod reproduce;
pub mod resolve;
mod resources;
pub mod run;
mod schedule;
mod schema;
pub mod size;
#[cfg(test)]
mod toy;
pub mod watch;
mod wiring;
mod worker;
pub mod yaml;

pub use canonical::{CanonicalError, Found, FoundAt, Map, Value};
pub use check::{Checked, Options, check, check_file};
pub use devices::Devices;
pub use diagnostic::{Diagnostic, Look, Report, Severity, Source};
pub use error::EngineError;
pub use event::{Event, Events, Progress, Unit};
pub use executor::{Executor, Job, LocalExecutor, Made, execute_job, need_threads, open_artifact};
pub use explain::{Forecast, PlanReport, PlannedState, forecast};
pub use key::{Change, Ingredients, IngredientsError};
pub use kind::{
    Artifact, ArtifactFiles, Context, Device, Folders, Input, InputKind, Inputs, Kind, LocalKind,
    LocalPath, Makes, NoSettings, Outside, Reference, Reporter, Stage, StageError, StageErrorKind,
};
pub use lock::{Lock, LockedStage};
pub use plan::{
    DeviceChoice, Needed, Plan, PlannedInput, PlannedLocal, PlannedStage, StageSettings,
};
pub use project::Project;
pub use reference::{Parameter, pipeline_schema};
pub use registry::{AnyKind, AnyParams, Catalogue, KindSchemas, Kinds, Recipe};
pub use reproduce::{
    ReproduceOptions, Reproduced, Reproduction, Rerun, compare_with_lock, fresh_store, rerun,
    restore,
};
pub use resolve::Surroundings;
pub use run::{Failure, Origin, RunEnd, RunOptions, RunReport, StageReport, StageState, run};
pub use schedule::{LockUse, OnFailure};
