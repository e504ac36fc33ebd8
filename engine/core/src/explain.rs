//! What a run would do, and why: today's ingredients beside those of the last time.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use serde::Serialize;
use taper_cache::{Digest, Key, StageRecord, Wanted};

use crate::error::EngineError;
use crate::key::{Change, Ingredients};
use crate::kind::StageError;
use crate::plan::{Plan, PlannedStage};
use crate::resolve::Surroundings;
use crate::run::{Failure, Origin, RunOptions};
use crate::schedule::{Settled, key_of, look_up};

/// What a run would do with a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedState {
    /// Nothing: its artifact is in the cache.
    Cached,
    /// Execute it.
    Run,
    /// That depends on what a stage before it makes.
    Unknown,
}

/// What a run would do with a stage, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// The stage.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// What would be done.
    pub state: PlannedState,
    /// Its key, where that is known already.
    pub key: Option<Key>,
    /// What changed since the last time; empty where it is cached or unknown.
    pub because: Vec<Change>,
    /// Why its key cannot be made: a file of the project is missing, the network is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// What a run would do; its JSON is what `plan --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The wanted stages, each after those it reads.
    pub stages: Vec<Forecast>,
}

/// Says what [`run`](crate::run::run) would do. Executes and records nothing; the world outside is asked what
/// the lock does not say, and what is fetched for that is kept for the run.
///
/// # Errors
/// Where a name means no stage, or the cache cannot be read.
pub fn forecast(
    plan: &Plan,
    origin: &Origin,
    surroundings: &Surroundings,
    options: &RunOptions,
) -> Result<PlanReport, EngineError> {
    let wanted = if options.stages.is_empty() {
        (0..plan.stages.len()).collect()
    } else {
        plan.with_all_before(&options.stages)
            .map_err(EngineError::NoStage)?
    };
    let mut forced = std::collections::BTreeSet::new();
    for name in &options.force {
        forced.extend(plan.named(name).map_err(EngineError::NoStage)?);
    }
    let past = Past::new(surroundings, origin);
    let mut settled: BTreeMap<usize, Settled> = BTreeMap::new();
    let mut stages = Vec::new();
    for index in wanted {
        let stage = &plan.stages[index];
        let mut forecast = Forecast {
            name: stage.name.clone(),
            kind: stage.kind.name(),
            state: PlannedState::Unknown,
            key: None,
            because: Vec::new(),
            error: None,
        };
        let known = stage
            .inputs
            .iter()
            .all(|input| settled.contains_key(&input.stage));
        if known {
            match look_ahead(surroundings, stage, &settled) {
                Ok(Ahead::Cached(found)) if !forced.contains(&index) => {
                    forecast.key = Some(found.key);
                    forecast.state = PlannedState::Cached;
                    settled.insert(index, *found);
                }
                Ok(Ahead::Cached(found)) => {
                    forecast.key = Some(found.key);
                    forecast.state = PlannedState::Run;
                    forecast.because.push(change("forced", None, Some("yes")));
                }
                Ok(Ahead::Run(key, ingredients)) => {
                    forecast.key = Some(key);
                    forecast.state = PlannedState::Run;
                    forecast.because = past.changes(&stage.name, &ingredients)?;
                }
                Err(error) => forecast.error = Some(error.into()),
            }
        }
        stages.push(forecast);
    }
    Ok(PlanReport { stages })
}

enum Ahead {
    Cached(Box<Settled>),
    Run(Key, Box<Ingredients>),
}

fn look_ahead(
    surroundings: &Surroundings,
    stage: &PlannedStage,
    settled: &BTreeMap<usize, Settled>,
) -> Result<Ahead, StageError> {
    if stage.settings.frozen {
        return crate::schedule::thaw(surroundings, stage)
            .map(|found| Ahead::Cached(Box::new(found)));
    }
    let resolution = surroundings.resolve(stage)?;
    let keyed = key_of(surroundings, stage, resolution, &mut |input| {
        settled.get(&input.stage)?.output(input)
    })?;
    Ok(match look_up(surroundings, stage, &keyed.key)? {
        Some(action) => Ahead::Cached(Box::new(keyed.settled(action, 0.0))),
        None => Ahead::Run(keyed.key, Box::new(keyed.job.ingredients)),
    })
}

fn change(ingredient: &str, old: Option<&str>, new: Option<&str>) -> Change {
    Change {
        ingredient: ingredient.to_owned(),
        old: old.map(str::to_owned),
        new: new.map(str::to_owned),
    }
}

/// What stages were made of the last time: in this cache's last run of the same file, else by the lock.
struct Past<'a> {
    surroundings: &'a Surroundings,
    file: String,
    /// The stages of the last run, by name; none where there was no run.
    last: OnceCell<BTreeMap<String, StageRecord>>,
}

impl<'a> Past<'a> {
    fn new(surroundings: &'a Surroundings, origin: &Origin) -> Self {
        Self {
            surroundings,
            file: surroundings.relative(&origin.file),
            last: OnceCell::new(),
        }
    }

    fn changes(&self, name: &str, new: &Ingredients) -> Result<Vec<Change>, EngineError> {
        let Some((bytes, artifact)) = self.ingredients(name)? else {
            return Ok(vec![change("stage", None, Some("new"))]);
        };
        let Ok(old) = Ingredients::from_bytes(&bytes) else {
            return Ok(vec![change(
                "taper",
                Some("another version"),
                Some("this version"),
            )]);
        };
        let changes = new.changes_since(&old);
        if changes.is_empty() {
            let gone = artifact.short();
            return Ok(vec![change("cache", Some(&gone), None)]);
        }
        Ok(changes)
    }

    fn ingredients(&self, name: &str) -> Result<Option<(Vec<u8>, Digest)>, EngineError> {
        if let Some(stage) = self.last_stages()?.get(name) {
            return Ok(Some((stage.ingredients.clone(), stage.artifact)));
        }
        let Some(locked) = self.surroundings.lock.stages.get(name) else {
            return Ok(None);
        };
        let action = self.surroundings.store.action(&locked.key)?.found();
        Ok(action.map(|action| (action.ingredients, action.artifact)))
    }

    fn last_stages(&self) -> Result<&BTreeMap<String, StageRecord>, EngineError> {
        if let Some(last) = self.last.get() {
            return Ok(last);
        }
        let store = &self.surroundings.store;
        let mut stages = Vec::new();
        if let Some(last) = store.summaries(Wanted::File(self.file.clone()))?.next() {
            let run = store.run(&last?.run)?.found();
            stages = run.map(|run| run.stages).unwrap_or_default();
        }
        let by_name = stages.into_iter().map(|stage| (stage.name.clone(), stage));
        Ok(self.last.get_or_init(|| by_name.collect()))
    }
}
