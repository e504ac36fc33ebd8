//! A pipeline with its surroundings: what `plan`, `run`, `explain` and `graph` begin with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use taper_cache::{Digest, Store};
use taper_engine::devices::{any_is_missing, missing};
use taper_engine::memory::Question;
use taper_engine::{
    DeviceChoice, Devices, Events, Forecast, Lock, Origin, Plan, PlanReport, Project, Report,
    RunOptions, RunReport, Surroundings, check_file, forecast,
};

use crate::args::PipelineArgs;
use crate::failure::Failure;
use crate::workplace::KINDS;

/// A pipeline that can run, and what surrounds it.
pub struct Prepared {
    /// What it asks for.
    pub plan: Plan,
    /// Where it came from.
    pub origin: Origin,
    /// The project, the cache, the lock.
    pub surroundings: Surroundings,
    /// Its warnings.
    pub report: Report,
}

impl Prepared {
    /// Checks a pipeline file and opens what surrounds it.
    ///
    /// # Errors
    /// Where it cannot run (every problem), or the project, the cache or the lock cannot be used.
    pub fn open(args: &PipelineArgs, events: Events) -> Result<Self, Failure> {
        // Of a file that cannot be looked at, reading says what is wrong.
        if !args.file.try_exists().unwrap_or(true) {
            // Its folder may not exist either: the check says so better.
            let checked = check_file(KINDS, &args.file, Path::new("."), &args.options());
            return Err(Failure::invalid(checked.report));
        }
        let cache = std::env::var_os("TAPER_CACHE").map(PathBuf::from);
        let mut surroundings = Surroundings::open(&args.file, cache, events)?;
        surroundings.offline = is_offline();
        let checked = check_file(KINDS, &args.file, &surroundings.root, &args.options());
        let Some(plan) = checked.plan else {
            return Err(Failure::invalid(checked.report));
        };
        if plan.stages.iter().any(|stage| stage.kind.computes()) {
            surroundings.devices = devices();
        }
        let text = checked.report.sources.first();
        let origin = Origin {
            file: args.file.clone(),
            text: text.map(|source| source.text.clone()).unwrap_or_default(),
            overrides: overrides(&args.set),
        };
        Ok(Self {
            plan,
            origin,
            surroundings,
            report: checked.report,
        })
    }

    /// With the user's wishes.
    pub fn wishes(&mut self, offline: bool, device: Option<DeviceChoice>, stop: Arc<AtomicBool>) {
        self.surroundings.offline |= offline;
        self.surroundings.device = device;
        self.surroundings.stop = stop;
    }

    /// Sees that every device is there that a stage has to run on; what is cached needs none.
    ///
    /// # Errors
    /// Where one is not, and those of [`Prepared::forecast`].
    pub fn check_devices(&self, options: &RunOptions) -> Result<(), Failure> {
        let (wished, devices) = (self.surroundings.device, &self.surroundings.devices);
        if !any_is_missing(&self.plan, wished, devices) {
            return Ok(());
        }
        let forecast = self.forecast(options)?;
        let problems = missing(&self.plan, &forecast, wished, devices);
        if problems.is_empty() {
            return Ok(());
        }
        let sources = self.report.sources.clone();
        Err(Failure::invalid(Report::new(sources, problems)))
    }

    /// What a run would do.
    ///
    /// # Errors
    /// Where a name means no stage, or the cache cannot be read.
    pub fn forecast(&self, options: &RunOptions) -> Result<PlanReport, Failure> {
        Ok(forecast(
            &self.plan,
            &self.origin,
            &self.surroundings,
            options,
        )?)
    }

    /// The stages before one of the plan, by the places in the plan.
    pub fn before(&self, name: &str) -> Vec<&str> {
        let stage = self.plan.stages.iter().find(|stage| stage.name == name);
        let inputs = stage
            .map(|stage| stage.inputs.as_slice())
            .unwrap_or_default();
        let mut names: Vec<&str> = inputs
            .iter()
            .map(|input| self.plan.stages[input.stage].name.as_str())
            .collect();
        names.dedup();
        names
    }
}

/// The devices of this machine.
fn devices() -> Devices {
    Devices {
        cuda: taper_nn::device::cuda_count().map_err(|fault| fault.to_string()),
        metal: Err("this program has no Metal in it".to_owned()),
    }
}

/// What was remembered of a pipeline: where nothing has changed since, it need not be read.
pub struct Remembered {
    /// The project and its cache; the lock is not read.
    surroundings: Surroundings,
    /// The name of the memory.
    pub name: Digest,
}

impl Remembered {
    /// Opens what surrounds a pipeline file; nothing where there is no such file.
    pub fn open(args: &PipelineArgs, question: &Question<'_>) -> Option<Self> {
        let cache = std::env::var_os("TAPER_CACHE").map(PathBuf::from);
        let project = Project::find(&args.file, cache).ok()?;
        let store = Store::open(project.cache).ok()?;
        let (lock, events) = (Lock::default(), Events::nowhere());
        let surroundings = Surroundings::new(project.root, store, lock, events);
        let name = question.name(&surroundings);
        Some(Self { surroundings, name })
    }

    /// The run, if nothing has changed since.
    pub fn run(&self, question: &Question<'_>) -> Option<RunReport> {
        question.recall(KINDS, &self.surroundings)
    }

    /// What a run would do, if nothing has changed since.
    pub fn plan(&self, question: &Question<'_>) -> Option<PlanReport> {
        question.recall_plan(KINDS, &self.surroundings)
    }
}

/// What the command line asks of a pipeline.
pub fn question<'a>(
    args: &'a PipelineArgs,
    stages: &'a [String],
    device: Option<DeviceChoice>,
) -> Question<'a> {
    Question {
        file: &args.file,
        set: &args.set,
        variant: &args.variant,
        stages,
        device,
        variables: own_variables(),
        best: || devices().best(),
    }
}

/// The variables of the environment that begin with the program's name.
fn own_variables() -> Vec<(OsString, OsString)> {
    let is_own = |name: &OsString| name.as_encoded_bytes().starts_with(b"TAPER_");
    let mut own: Vec<_> = std::env::vars_os()
        .filter(|(name, _)| is_own(name))
        .collect();
    own.sort_unstable();
    own
}

/// Whether the environment says that the network must not be used.
pub fn is_offline() -> bool {
    std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| !matches!(value.as_str(), "" | "0"))
}

/// `NAME=VALUE` by name; the check has seen that they are of that form.
fn overrides(set: &[String]) -> BTreeMap<String, String> {
    set.iter()
        .filter_map(|one| one.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

/// Why a stage runs, in words: `lr 0.001 -> 0.01`.
pub fn reasons(stage: &Forecast) -> String {
    let parts: Vec<String> = stage.because.iter().map(reason).collect();
    match parts.len() {
        0..=3 => parts.join(", "),
        count => format!("{}, and {} more", parts[..3].join(", "), count - 3),
    }
}

fn reason(change: &taper_engine::Change) -> String {
    let name = change
        .ingredient
        .strip_prefix("params.")
        .unwrap_or(&change.ingredient);
    match (name, &change.old, &change.new) {
        ("stage", None, _) => "never run".to_owned(),
        ("forced", ..) => "forced".to_owned(),
        ("cache", Some(old), None) => format!("{old} is no longer in the cache"),
        (name, Some(old), Some(new)) => format!("{name} {old} -> {new}"),
        (name, None, Some(new)) => format!("{name} is new: {new}"),
        (name, Some(old), None) => format!("{name} is gone: {old}"),
        (name, None, None) => name.to_owned(),
    }
}
