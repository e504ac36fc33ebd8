//! A run: every wanted stage brought up to date, then the exports, the lock and the record.
//!
//! Nothing is written where nothing has changed: a run of cached stages reads one small file a stage, looks at
//! their blobs, and ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use taper_cache::{
    ArtifactType, CacheError, Digest, Execution, Key, Manifest, RunId, RunRecord, StageExecution,
    StageRecord, planted,
};

use crate::error::EngineError;
use crate::event::Event;
use crate::executor::Executor;
use crate::kind::{StageError, StageErrorKind};
use crate::lock::{Lock, LockedStage};
use crate::machine;
use crate::memory::{self, Past};
use crate::plan::Plan;
use crate::resolve::Surroundings;
use crate::schedule::{ATTEMPTS, LockUse, OnFailure, Order, Outcome, Settled, bring_up_to_date};

/// Where a plan came from: what a record keeps of it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The pipeline file.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// What `--set` changed.
    pub overrides: BTreeMap<String, String>,
}

/// What to run and how.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The stages that are wanted, with all before them: names, or names with variants. None means all.
    pub stages: Vec<String>,
    /// Stages that run whatever the cache has.
    pub force: Vec<String>,
    /// How many stages run side by side; at least one does.
    pub jobs: usize,
    /// What to do when a stage fails.
    pub on_failure: OnFailure,
    /// What to do about the lock.
    pub lock_use: LockUse,
    /// The name of the memory that the run leaves for the next one; see [`Question`](crate::memory::Question).
    pub memory: Option<Digest>,
}

/// How a stage came out of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// It was executed.
    Ran,
    /// Its artifact was in the cache.
    Cached,
    /// It went wrong.
    Failed,
    /// It was not begun.
    Skipped,
}

/// What became of a stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// Its name, with its variant.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// How it came out.
    pub state: StageState,
    /// Its key, where that was known.
    pub key: Option<Key>,
    /// What it made.
    pub artifact: Option<Digest>,
    /// How long it took.
    pub seconds: f64,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// What went wrong in a stage.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// What sort of failure it is.
    #[serde(skip)]
    pub kind: StageErrorKind,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The parameter that it is about.
    pub param: Option<String>,
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        Self {
            kind: error.kind,
            message: error.message,
            help: error.help,
            param: error.param,
        }
    }
}

/// What a run did; its JSON is what `run --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// The run's id, where every wanted stage has its artifact.
    pub run: Option<RunId>,
    /// The pipeline's name.
    pub pipeline: String,
    /// The wanted stages, each after those it reads.
    pub stages: Vec<StageReport>,
    /// What stages measured: the contents of their `metrics` artifacts, by stage.
    pub metrics: BTreeMap<String, serde_json::Value>,
    /// How long it took.
    pub seconds: f64,
    /// Files that were written into the work tree, below the project's root.
    #[serde(skip)]
    pub exported: Vec<PathBuf>,
}

/// How a run ended: decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunEnd {
    /// Every wanted stage has its artifact.
    Done,
    /// A stage failed.
    Failed,
    /// A file of the cache is damaged and could not be made again.
    Damaged,
    /// The user stopped it.
    Interrupted,
}

impl RunReport {
    /// How it ended.
    pub fn end(&self) -> RunEnd {
        self.stages
            .iter()
            .map(|stage| match (&stage.error, stage.state) {
                (Some(error), _) => match error.kind {
                    StageErrorKind::Interrupted => RunEnd::Interrupted,
                    StageErrorKind::Damaged => RunEnd::Damaged,
                    _ => RunEnd::Failed,
                },
                (None, StageState::Skipped) => RunEnd::Failed,
                (None, _) => RunEnd::Done,
            })
            .max()
            .unwrap_or(RunEnd::Done)
    }

    /// Whether nothing had to run.
    pub fn is_cached(&self) -> bool {
        let mut states = self.stages.iter().map(|stage| stage.state);
        states.all(|state| state == StageState::Cached)
    }
}

/// Brings the wanted stages up to date. Failures of stages stand in the report; what is done is kept, in the
/// cache and in the lock, whatever failed.
///
/// # Errors
/// Where a name means no stage, the cache or the lock cannot be used, or the lock would change and must not.
pub fn run(
    plan: &Plan,
    origin: &Origin,
    surroundings: &Surroundings,
    executor: &dyn Executor,
    options: &RunOptions,
) -> Result<RunReport, EngineError> {
    let started = Instant::now();
    let clock = SystemTime::now();
    let order = order(plan, executor, options)?;
    let mut order = order;
    let mut outcomes = bring_up_to_date(plan, surroundings, &order);
    let mut report = RunReport {
        run: None,
        pipeline: plan.name.clone(),
        stages: Vec::new(),
        metrics: BTreeMap::new(),
        seconds: 0.0,
        exported: Vec::new(),
    };
    let mut attempt = 1;
    while export(plan, surroundings, &mut outcomes, &mut report.exported) == Exports::Damaged
        && attempt < ATTEMPTS
    {
        // What was damaged has been set aside, so that it is made again now.
        order.force.clear();
        outcomes = bring_up_to_date(plan, surroundings, &order);
        attempt += 1;
    }
    for (index, outcome) in &outcomes {
        let stage = &plan.stages[*index];
        report
            .stages
            .push(stage_report(&stage.name, stage.kind.name(), outcome));
        if let Outcome::Settled(settled) = outcome {
            read_metrics(surroundings, &stage.name, settled, &mut report.metrics);
        }
    }
    let locked = updated_lock(plan, origin, surroundings, &outcomes, options.lock_use);
    let path = Lock::path_of(&origin.file);
    let outside = match &locked {
        Ok((_, Some(text))) => Some((path.as_path(), text.as_bytes())),
        _ => None,
    };
    report.run = run_id(&report.stages).filter(|_| !surroundings.smoke);
    report.seconds = started.elapsed().as_secs_f64();
    let new = report
        .run
        .filter(|id| !(report.is_cached() && surroundings.store.has_run(id)));
    let record = new.and_then(|_| record(plan, origin, &outcomes));
    let ended = match &record {
        Some(record) => {
            let started = clock
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs());
            let execution = execution(&report, origin, surroundings, options, started);
            let recorded = surroundings.store.record(record, outside, execution);
            recorded.map(drop)
        }
        None => {
            let concluded = surroundings.store.conclude(None, outside);
            concluded.and_then(|()| surroundings.store.sync())
        }
    };
    if let Err(error) = ended {
        // What is done is locked, and a cache that cannot be written to still serves those who read.
        let written = outside.map(|(path, text)| surroundings.store.write_outside(path, text));
        let is_served = report.is_cached() && error.is_read_only();
        if !(is_served || planted("record-error-dropped")) {
            return Err(error.into());
        }
        written.unwrap_or(Ok(()))?;
    }
    let (lock, _) = &locked?;
    if let (Some(name), Some(_), true) = (&options.memory, report.run, options.force.is_empty()) {
        let past = Past {
            plan,
            origin,
            surroundings,
            outcomes: &outcomes,
            report: &report,
            lock,
        };
        memory::remember(&past, name);
    }
    if !planted("edit-untold") {
        for path in surroundings.edited() {
            surroundings.events.send(Event::Warning {
                stage: None,
                text: format!("`{path}` changed while taper ran: these are the results of what it was before; run again"),
            });
        }
    }
    Ok(report)
}

fn order<'a>(
    plan: &Plan,
    executor: &'a dyn Executor,
    options: &RunOptions,
) -> Result<Order<'a>, EngineError> {
    let wanted = if options.stages.is_empty() {
        (0..plan.stages.len()).collect()
    } else {
        plan.with_all_before(&options.stages)
            .map_err(EngineError::NoStage)?
    };
    let mut force = std::collections::BTreeSet::new();
    for name in &options.force {
        force.extend(plan.named(name).map_err(EngineError::NoStage)?);
    }
    Ok(Order {
        wanted,
        force,
        jobs: options.jobs.max(1),
        on_failure: options.on_failure,
        lock_use: options.lock_use,
        executor,
    })
}

fn stage_report(name: &str, kind: &'static str, outcome: &Outcome) -> StageReport {
    let (state, key, artifact, seconds, error) = match outcome {
        Outcome::Settled(settled) => {
            let state = if settled.cached {
                StageState::Cached
            } else {
                StageState::Ran
            };
            let seconds = settled.seconds;
            (
                state,
                Some(settled.key),
                Some(settled.artifact),
                seconds,
                None,
            )
        }
        Outcome::Failed {
            error,
            key,
            seconds,
        } => {
            let failure = Failure {
                kind: error.kind,
                message: error.message.clone(),
                help: error.help.clone(),
                param: error.param.clone(),
            };
            (StageState::Failed, *key, None, *seconds, Some(failure))
        }
        Outcome::Skipped => (StageState::Skipped, None, None, 0.0, None),
    };
    StageReport {
        name: name.to_owned(),
        kind,
        state,
        key,
        artifact,
        seconds,
        error,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Exports {
    Whole,
    Damaged,
}

/// Puts artifacts where the pipeline wants them. A stage whose export fails has failed.
fn export(
    plan: &Plan,
    surroundings: &Surroundings,
    outcomes: &mut BTreeMap<usize, Outcome>,
    exported: &mut Vec<PathBuf>,
) -> Exports {
    let mut exports = Exports::Whole;
    if surroundings.smoke {
        return exports;
    }
    for (index, outcome) in outcomes {
        let stage = &plan.stages[*index];
        let (Some(target), Outcome::Settled(settled)) = (&stage.settings.export, &*outcome) else {
            continue;
        };
        let written = manifest_of(surroundings, settled).and_then(|manifest| {
            surroundings
                .store
                .export(&manifest, &surroundings.root, target)
        });
        match written {
            Ok(written) => {
                exported.extend(written.written);
                if let Some(foreign) = written.foreign.first() {
                    surroundings.events.send(Event::Warning {
                        stage: Some(stage.name.clone()),
                        text: format!(
                            "{} is in the exported folder but not part of it",
                            foreign.display()
                        ),
                    });
                }
            }
            Err(error) => {
                if matches!(error, CacheError::Damaged(_)) {
                    exports = Exports::Damaged;
                }
                let (key, seconds) = (Some(settled.key), settled.seconds);
                let error = StageError::from(error).at("export");
                surroundings.events.send(Event::StageFailed {
                    stage: stage.name.clone(),
                    kind: stage.kind.name(),
                    message: error.message.clone(),
                    help: None,
                    retried: exports == Exports::Damaged,
                });
                *outcome = Outcome::Failed {
                    error,
                    key,
                    seconds,
                };
            }
        }
    }
    exports
}

fn manifest_of(surroundings: &Surroundings, settled: &Settled) -> Result<Manifest, CacheError> {
    match &settled.action {
        Some(action) => Ok(action.manifest.clone()),
        None => surroundings
            .store
            .manifest(&settled.artifact)?
            .required("artifact", settled.artifact.short()),
    }
}

/// Reads what a stage measured, from every artifact of type `metrics` that it made.
fn read_metrics(
    surroundings: &Surroundings,
    name: &str,
    settled: &Settled,
    metrics: &mut BTreeMap<String, serde_json::Value>,
) {
    let Some(action) = &settled.action else {
        return;
    };
    let parts = action.parts.iter();
    let whole = (
        name.to_owned(),
        "metrics.json".to_owned(),
        action.manifest.artifact_type,
    );
    let candidates = parts
        .map(|(part, artifact_type)| {
            (
                format!("{name}.{part}"),
                format!("{part}/metrics.json"),
                *artifact_type,
            )
        })
        .chain([whole]);
    for (name, file, artifact_type) in candidates {
        if artifact_type != ArtifactType::Metrics {
            continue;
        }
        let read = taper_cache::BlobName::new(file)
            .ok()
            .and_then(|file| action.manifest.blobs.get(&file))
            .and_then(|blob| surroundings.store.verify_blob(blob).ok()?.found())
            .and_then(|path| fs_err::read(path).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match read {
            Some(value) => {
                metrics.insert(name, value);
            }
            None => surroundings.events.send(Event::Warning {
                stage: Some(name),
                text: "its metrics cannot be read: run again to make them anew".to_owned(),
            }),
        }
    }
}

/// The run's id, where every stage has its artifact.
fn run_id(stages: &[StageReport]) -> Option<RunId> {
    let stages = stages
        .iter()
        .map(|stage| Some((stage.name.as_str(), stage.key?, stage.artifact?)));
    let stages: Vec<_> = stages.collect::<Option<_>>()?;
    Some(RunId::of_stages(stages))
}

/// The lock file as it is after the run, and its text where that differs from what it was.
fn updated_lock(
    plan: &Plan,
    origin: &Origin,
    surroundings: &Surroundings,
    outcomes: &BTreeMap<usize, Outcome>,
    lock_use: LockUse,
) -> Result<(Lock, Option<String>), EngineError> {
    let mut lock = Lock::default();
    for (index, stage) in plan.stages.iter().enumerate() {
        let old = surroundings.lock.stages.get(&stage.name);
        let locked = match outcomes.get(&index) {
            Some(Outcome::Settled(settled)) => {
                let new = locked_stage(stage.kind.name(), settled);
                if let Some(old) = old
                    && old.key == new.key
                    && old.artifact != new.artifact
                {
                    surroundings.events.send(Event::Warning {
                        stage: Some(stage.name.clone()),
                        text: format!(
                            "it made {} where the lock has {}, from the same ingredients: it does not repeat",
                            new.artifact.short(),
                            old.artifact.short()
                        ),
                    });
                }
                Some(new)
            }
            _ => old.cloned(),
        };
        if let Some(locked) = locked {
            lock.stages.insert(stage.name.clone(), locked);
        }
    }
    if lock_use == LockUse::ReadOnly || lock == surroundings.lock {
        return Ok((surroundings.lock.clone(), None));
    }
    if lock_use == LockUse::Locked {
        let path = Lock::path_of(&origin.file);
        return match surroundings.lock.difference(&lock) {
            Some(what) => Err(EngineError::WouldChange { path, what }),
            None => Ok((lock, None)),
        };
    }
    let file = origin.file.file_name().unwrap_or_default();
    let text = lock.to_text(&file.to_string_lossy());
    Ok((lock, Some(text)))
}

fn locked_stage(kind: &str, settled: &Settled) -> LockedStage {
    LockedStage {
        kind: kind.to_owned(),
        key: settled.key,
        artifact: settled.artifact,
        request: settled.resolution.request,
        resolved: settled.resolution.resolved.clone(),
        local: settled.locals.clone(),
    }
}

/// The record of a run; `None` where a frozen stage is known by its artifact alone.
fn record(plan: &Plan, origin: &Origin, outcomes: &BTreeMap<usize, Outcome>) -> Option<RunRecord> {
    let stages = outcomes
        .iter()
        .map(|(index, outcome)| {
            let stage = &plan.stages[*index];
            let Outcome::Settled(settled) = outcome else {
                return None;
            };
            let action = settled.action.as_ref()?;
            Some(StageRecord {
                name: stage.name.clone(),
                kind: stage.kind.name().to_owned(),
                key: settled.key,
                artifact: settled.artifact,
                needs: action.needs.clone(),
                ingredients: action.ingredients.clone(),
            })
        })
        .collect::<Option<_>>()?;
    Some(RunRecord::new(
        plan.name.clone(),
        origin.text.clone(),
        origin.overrides.clone(),
        stages,
    ))
}

fn execution(
    report: &RunReport,
    origin: &Origin,
    surroundings: &Surroundings,
    options: &RunOptions,
    started: u64,
) -> Execution {
    let stages = report.stages.iter().map(|stage| StageExecution {
        name: stage.name.clone(),
        cached: stage.state == StageState::Cached,
        seconds: stage.seconds,
    });
    Execution {
        sequence: 0,
        run: RunId(Digest::of(b"")),
        pipeline: report.pipeline.clone(),
        file: surroundings.relative(&origin.file),
        started,
        seconds: report.seconds,
        jobs: options.jobs.max(1),
        threads: taper_cache::threads::cores(),
        processor: machine::processor(),
        stages: stages.collect(),
        metrics: report.metrics.clone(),
    }
}
