//! A run again, from its record alone: restored from the cache, or executed again and compared.
//!
//! A record has the ingredients of every key, and they have everything that can change a byte; so neither the
//! pipeline file nor the project is needed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;
use taper_cache::{
    Action, Digest, Lookup, Manifest, RunId, RunRecord, StageRecord, Staging, Store,
};

use crate::canonical::{Map, Value};
use crate::error::EngineError;
use crate::event::{Event, Events};
use crate::executor::{Executor, Job};
use crate::key::Ingredients;
use crate::kind::{Device, Reporter, StageError};
use crate::lock::Lock;
use crate::run::RunReport;

/// What came out of a stage, beside what was expected.
#[derive(Clone, Debug, Serialize)]
pub struct Reproduced {
    /// The stage.
    pub name: String,
    /// The artifact that is recorded.
    pub expected: Digest,
    /// The artifact that there is now; nothing where there is none.
    pub got: Option<Digest>,
    /// Whether they are the same.
    pub identical: bool,
    /// What is wrong: a damaged file, a failure of the stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A run beside its record; its JSON is what `reproduce --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Reproduction {
    /// The run; nothing where a lock was reproduced.
    pub run: Option<RunId>,
    /// Whether every stage is identical.
    pub identical: bool,
    /// The stages, each after those it reads.
    pub stages: Vec<Reproduced>,
}

/// Which stages are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rerun {
    /// Those whose artifacts are damaged or missing.
    Missing,
    /// All, in a fresh cache, whatever this one has.
    All,
}

/// How to reproduce.
pub struct ReproduceOptions {
    /// Which stages are executed.
    pub rerun: Rerun,
    /// Whether the network must not be used.
    pub offline: bool,
    /// Set when the user wants it to end.
    pub stop: Arc<AtomicBool>,
    /// Where events go.
    pub events: Events,
}

impl Reproduction {
    fn new(run: Option<RunId>, stages: Vec<Reproduced>) -> Self {
        Self {
            run,
            identical: stages.iter().all(|stage| stage.identical),
            stages,
        }
    }
}

/// Looks whether the cache has every artifact of a run, each file as its digest says. Damaged files are set
/// aside.
///
/// # Errors
/// Where the file system refuses.
pub fn restore(store: &Store, record: &RunRecord) -> Result<Reproduction, EngineError> {
    let stages = record.stages.iter().map(|stage| {
        let wrong = what_is_wrong(store, stage)?;
        Ok(Reproduced {
            name: stage.name.clone(),
            expected: stage.artifact,
            got: wrong.is_none().then_some(stage.artifact),
            identical: wrong.is_none(),
            error: wrong,
        })
    });
    let stages = stages.collect::<Result<_, EngineError>>()?;
    Ok(Reproduction::new(Some(record.id), stages))
}

/// What is wrong with the artifact of a recorded stage, if anything is.
fn what_is_wrong(store: &Store, stage: &StageRecord) -> Result<Option<String>, EngineError> {
    let action = store.action(&stage.key)?.found();
    let manifest = match action.filter(|action| action.artifact == stage.artifact) {
        Some(action) => action.manifest,
        None => match store.manifest(&stage.artifact)? {
            Lookup::Found(manifest) => manifest,
            Lookup::Missing => return Ok(Some("the cache does not have it".to_owned())),
            Lookup::Damaged(damage) => return Ok(Some(damage.to_string())),
        },
    };
    let damages = store.verify_artifact(&manifest)?;
    Ok(damages.first().map(ToString::to_string))
}

/// Executes the stages of a run again, in their order, and compares what they make with the record. A stage
/// whose inputs came out otherwise runs on what came out. Bytes that come out as recorded replace damaged
/// ones in `store`.
///
/// # Errors
/// Where the cache cannot be used, or the record is of a newer program.
pub fn rerun(
    store: &Store,
    record: &RunRecord,
    executor: &dyn Executor,
    options: &ReproduceOptions,
) -> Result<Reproduction, EngineError> {
    let fresh = match options.rerun {
        Rerun::All => Some(fresh_store(store)?),
        Rerun::Missing => None,
    };
    let place = fresh.as_ref().map_or(store, |(_, fresh)| fresh);
    // What stages made this time in the place of what is recorded.
    let mut instead: BTreeMap<Digest, Digest> = BTreeMap::new();
    let mut stages = Vec::new();
    for stage in &record.stages {
        let reporter = Reporter::new(
            stage.name.clone(),
            options.events.clone(),
            options.stop.clone(),
        );
        let wrong = match options.rerun {
            Rerun::Missing => what_is_wrong(store, stage)?,
            Rerun::All => Some(String::new()),
        };
        let unchanged = stage.needs.iter().all(|need| !instead.contains_key(need));
        let made = if wrong.is_none() && unchanged {
            store.action(&stage.key)?.found().map(Ok)
        } else {
            None
        };
        let (got, error) = match made
            .unwrap_or_else(|| execute(store, place, stage, &instead, executor, options, &reporter))
        {
            Ok(action) => {
                note_differences(store, stage, &action, &mut instead)?;
                if action.artifact == stage.artifact {
                    heal(store, place, stage, &action)?;
                }
                (Some(action.artifact), None)
            }
            Err(error) => (None, Some(error.message)),
        };
        stages.push(Reproduced {
            name: stage.name.clone(),
            expected: stage.artifact,
            got,
            identical: got == Some(stage.artifact),
            error,
        });
    }
    store.sync()?;
    Ok(Reproduction::new(Some(record.id), stages))
}

/// An empty cache in a folder of `store` that goes when the first of the two is dropped.
///
/// # Errors
/// Where `store` cannot be written to.
pub fn fresh_store(store: &Store) -> Result<(Staging, Store), EngineError> {
    let staging = store.stage()?;
    let fresh = Store::open(staging.out().join("cache"))?;
    Ok((staging, fresh))
}

/// A run of the pipeline in a fresh cache, beside the lock that it was run with.
pub fn compare_with_lock(report: &RunReport, lock: &Lock) -> Reproduction {
    let now = report.stages.iter().map(|stage| (&stage.name, stage));
    let now: BTreeMap<_, _> = now.collect();
    let stages = lock.stages.iter().map(|(name, locked)| {
        let now = now.get(name);
        let got = now.and_then(|stage| stage.artifact);
        Reproduced {
            name: name.clone(),
            expected: locked.artifact,
            got,
            identical: got == Some(locked.artifact),
            error: now.and_then(|stage| Some(stage.error.as_ref()?.message.clone())),
        }
    });
    Reproduction::new(report.run, stages.collect())
}

/// Executes a recorded stage in `place`, with `store` for the files of the project that it reads.
fn execute(
    store: &Store,
    place: &Store,
    stage: &StageRecord,
    instead: &BTreeMap<Digest, Digest>,
    executor: &dyn Executor,
    options: &ReproduceOptions,
    reporter: &Reporter,
) -> Result<Action, StageError> {
    reporter.check()?;
    let mut ingredients = Ingredients::from_bytes(&stage.ingredients).map_err(|error| {
        StageError::failed(format!("its record cannot be read: {error}"))
            .help("use the version of taper that made it")
    })?;
    ingredients.params = replace(&ingredients.params, instead);
    let device = match ingredients.device.as_deref() {
        None | Some("cpu") => Device::Cpu,
        Some("metal") => Device::Metal,
        Some(_) => Device::Cuda(0),
    };
    let job = Job {
        ingredients,
        settings: Value::Map(Map::default()),
        device,
        offline: options.offline,
    };
    for need in job.needs() {
        bring(store, place, &need)?;
    }
    options.events.send(Event::Note {
        stage: stage.name.clone(),
        text: "runs again".to_owned(),
    });
    let lock = place.try_lock(&job.key())?;
    let made = executor.execute(place, &job, lock.as_ref(), reporter)?;
    Ok(made.action)
}

/// The value with other artifacts in the place of some.
fn replace(value: &Value, instead: &BTreeMap<Digest, Digest>) -> Value {
    match value {
        Value::Input(digest) => Value::Input(*instead.get(digest).unwrap_or(digest)),
        Value::List(items) => {
            Value::List(items.iter().map(|item| replace(item, instead)).collect())
        }
        Value::Map(map) => {
            let entries = map
                .iter()
                .map(|(key, value)| (key.clone(), replace(value, instead)));
            Value::Map(Map::new(entries.collect()).expect("the keys stay as they are"))
        }
        other => other.clone(),
    }
}

/// Copies an artifact from `store` to `place`, where it is missing there: files of the project. What a stage
/// made is there already.
fn bring(store: &Store, place: &Store, digest: &Digest) -> Result<(), StageError> {
    if let Lookup::Found(manifest) = place.manifest(digest)?
        && place.verify_artifact(&manifest)?.is_empty()
    {
        return Ok(());
    }
    let files = crate::executor::open_artifact(store, digest)?;
    copy(store, place, &files.manifest)
}

fn copy(from: &Store, to: &Store, manifest: &Manifest) -> Result<(), StageError> {
    let mut batch = to.batch()?;
    for blob in manifest.blobs.values() {
        if !matches!(to.verify_blob(blob)?, Lookup::Found(_)) {
            to.copy_in(&from.layout().blob(&blob.digest), &mut batch)?;
        }
    }
    to.add_manifest(manifest, &mut batch)?;
    Ok(to.commit(batch)?)
}

/// Remembers which artifacts came out otherwise: the whole, and each output.
fn note_differences(
    store: &Store,
    stage: &StageRecord,
    action: &Action,
    instead: &mut BTreeMap<Digest, Digest>,
) -> Result<(), EngineError> {
    if action.artifact == stage.artifact {
        return Ok(());
    }
    instead.insert(stage.artifact, action.artifact);
    let Some(old) = store.manifest(&stage.artifact)?.found() else {
        return Ok(());
    };
    for (name, artifact_type) in &action.parts {
        let (before, now) = (old.part(name, *artifact_type), action.output(Some(name)));
        if let (Some(before), Some(now)) = (before, now) {
            instead.insert(before.digest(), now.digest());
        }
    }
    Ok(())
}

/// Puts what came out as recorded in the place of what is damaged or missing in `store`.
fn heal(
    store: &Store,
    place: &Store,
    stage: &StageRecord,
    action: &Action,
) -> Result<(), EngineError> {
    if what_is_wrong(store, stage)?.is_none() && store.action(&stage.key)?.found().is_some() {
        return Ok(());
    }
    copy(place, store, &action.manifest).map_err(|error| EngineError::Unknown(error.message))?;
    if action.key == stage.key {
        store.put_action(action)?;
    }
    Ok(())
}
