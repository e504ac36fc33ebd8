//! The scheduler: brings the stages that are wanted up to date, independent ones side by side.
//!
//! One thread owns the state. A stage whose inputs are known gets its key; if the cache has what the key
//! made, the stage is done at once, without a thread and without a write. Otherwise it goes to a worker, which
//! takes the key's lock, looks again, verifies what the stage reads, and executes it. Since keys are made of
//! digests, a stage that makes the same bytes as before stops the change there.
//!
//! As many stages compute as there are jobs, or fewer where they need more of the machine (`resources`). What a stage
//! made has then to reach the disk; meanwhile another may compute, so that many wait for the disk together
//! (`taper_cache::commit`). What is left of its work is removed when it has been reported: those that wait for it begin
//! meanwhile. With one job nothing is done side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use taper_cache::{Action, Digest, Key, Lookup};

use crate::canonical::Value;
use crate::event::Event;
use crate::executor::{Executor, Job, arithmetic};
use crate::kind::{Device, StageError, StageErrorKind};
use crate::machine;
use crate::plan::{DeviceChoice, Plan, PlannedInput, PlannedStage};
use crate::resolve::{Resolution, Surroundings};
use crate::resources::{Demand, Queue};
use crate::worker::{End, FromCache, Report, Task, Watch, Worker};

/// What to do when a stage fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing new begins; what runs may end.
    #[default]
    Stop,
    /// Whatever does not depend on it goes on.
    KeepGoing,
}

/// What is done about the lock file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockUse {
    /// It is read, and written where something has changed.
    #[default]
    Update,
    /// It is read; a change is an error (`--locked`).
    Locked,
    /// It is read and never written: the pipeline was changed on the command line.
    ReadOnly,
}

/// How the stages are brought up to date.
pub(crate) struct Order<'a> {
    pub(crate) wanted: BTreeSet<usize>,
    pub(crate) force: BTreeSet<usize>,
    pub(crate) jobs: usize,
    pub(crate) on_failure: OnFailure,
    pub(crate) lock_use: LockUse,
    pub(crate) executor: &'a dyn Executor,
}

/// A stage that is up to date.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) key: Key,
    pub(crate) artifact: Digest,
    /// What it made; nothing where it is frozen and only its artifact is known.
    pub(crate) action: Option<Arc<Action>>,
    pub(crate) resolution: Resolution,
    pub(crate) locals: BTreeMap<String, Digest>,
    pub(crate) cached: bool,
    pub(crate) seconds: f64,
}

impl Settled {
    /// The digest of what a later stage reads.
    pub(crate) fn output(&self, input: &PlannedInput) -> Option<Digest> {
        match (&input.output, &self.action) {
            (None, _) => Some(self.artifact),
            (Some(name), Some(action)) => Some(action.output(Some(name))?.digest()),
            (Some(_), None) => None,
        }
    }
}

/// How a stage ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Settled(Settled),
    Failed {
        error: StageError,
        key: Option<Key>,
        seconds: f64,
    },
    Skipped,
}

/// A stage whose key is known.
pub(crate) struct Keyed {
    pub(crate) job: Job,
    pub(crate) key: Key,
    pub(crate) resolution: Resolution,
    pub(crate) locals: BTreeMap<String, Digest>,
}

/// How often the user's wish to stop and the deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// How often a stage is begun anew because its files are being edited, or because what it reads is taken away.
pub(crate) const ATTEMPTS: u32 = 5;

/// How many stages may wait for the disk while others compute.
const WAITING: usize = 32;

/// Brings the stages up to date; the outcome of each that is wanted.
pub(crate) fn bring_up_to_date(
    plan: &Plan,
    surroundings: &Surroundings,
    order: &Order<'_>,
) -> BTreeMap<usize, Outcome> {
    let (to_workers, tasks) = mpsc::channel();
    let (to_owner, reports) = mpsc::channel();
    let tasks = Mutex::new(tasks);
    let busy = AtomicUsize::new(0);
    let mut state = State {
        plan,
        surroundings,
        order,
        dependents: plan.dependents(),
        outcomes: BTreeMap::new(),
        waiting: BTreeMap::new(),
        ready: BTreeSet::new(),
        queue: Queue::new(order.jobs.max(1), memory(plan, order)),
        active: BTreeMap::new(),
        again: order.force.clone(),
        resolutions: BTreeMap::new(),
        edits: BTreeMap::new(),
        losses: BTreeMap::new(),
        halted: None,
    };
    for &index in &order.wanted {
        let before: BTreeSet<usize> = plan.stages[index].inputs.iter().map(|i| i.stage).collect();
        if before.is_empty() {
            state.ready.insert(index);
        } else {
            state.waiting.insert(index, before);
        }
    }
    let worker = || Worker {
        surroundings,
        plan,
        order,
        tasks: &tasks,
        reports: to_owner.clone(),
        busy: &busy,
    };
    let most = match order.jobs {
        0 | 1 => 1,
        jobs => jobs + WAITING,
    };
    thread::scope(|scope| {
        let mut workers = 0;
        // Dropped at the end, which ends the workers.
        let to_workers = to_workers;
        loop {
            state.take_ready();
            while let Some(task) = state.next_task() {
                // Some may still be removing what a stage has left that is over.
                let idle = workers > busy.fetch_add(1, Ordering::Relaxed);
                if !idle && workers < most && worker().start(scope).is_ok() {
                    workers += 1;
                }
                to_workers.send(task).expect("workers listen until the end");
                if workers == 0 {
                    // No thread is to be had: this one does it.
                    worker().do_next();
                }
            }
            if state.active.is_empty() {
                break;
            }
            match reports.recv_timeout(TICK) {
                Ok(report) => state.take_report(report),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            state.look_at_watches();
        }
    });
    state.finish()
}

struct State<'a> {
    plan: &'a Plan,
    surroundings: &'a Surroundings,
    order: &'a Order<'a>,
    dependents: Vec<Vec<usize>>,
    outcomes: BTreeMap<usize, Outcome>,
    /// The stages that each one waits for.
    waiting: BTreeMap<usize, BTreeSet<usize>>,
    ready: BTreeSet<usize>,
    /// To be done as soon as the machine has room; those that have begun hold what they take until all that is left
    /// to do is to wait for the disk.
    queue: Queue<Task>,
    /// In the hands of workers.
    active: BTreeMap<usize, Option<Arc<Watch>>>,
    /// To be run whatever the cache has.
    again: BTreeSet<usize>,
    resolutions: BTreeMap<usize, Resolution>,
    edits: BTreeMap<usize, u32>,
    /// How often what a stage reads was not there.
    losses: BTreeMap<usize, u32>,
    /// The stage whose failure ended it all, or the user.
    halted: Option<String>,
}

impl State<'_> {
    /// Settles what the cache has; what it has not is to be done.
    fn take_ready(&mut self) {
        while let Some(index) = self.ready.pop_first() {
            if self.surroundings.stop.load(Ordering::Relaxed) {
                self.halted.get_or_insert_with(|| "interrupted".to_owned());
            }
            if self.halted.is_some() {
                self.ready.insert(index);
                break;
            }
            let stage = &self.plan.stages[index];
            let is_asked = stage.settings.frozen || self.resolutions.contains_key(&index);
            if !is_asked && self.surroundings.asks(stage) {
                let demand = Demand {
                    cores: 1,
                    memory: 0,
                    device: Device::Cpu,
                };
                self.queue.push(index, demand, Task::Resolve(index));
                continue;
            }
            match self.prepare(index) {
                Ok(Prepared::Settled(settled)) => self.settle(index, *settled),
                Ok(Prepared::ToDo(keyed)) => {
                    let watch = Arc::new(Watch::default());
                    let lookup = if self.again.contains(&index) {
                        FromCache::Forced
                    } else {
                        FromCache::Allowed
                    };
                    let demand = demand(stage, keyed.job.device);
                    let task = Task::Execute(index, keyed, watch, lookup);
                    self.queue.push(index, demand, task);
                }
                Err((key, error)) => self.fail(index, key, error, 0.0),
            }
        }
    }

    /// A task for a worker, if the machine has room for one more.
    fn next_task(&mut self) -> Option<Task> {
        if self.surroundings.stop.load(Ordering::Relaxed) {
            self.halted.get_or_insert_with(|| "interrupted".to_owned());
        }
        if self.halted.is_some() {
            // What has not begun is skipped in the end.
            self.queue.clear();
        }
        let task = self.queue.pop(&mut |(index, reason)| {
            self.surroundings.events.send(Event::StageWaits {
                stage: self.plan.stages[index].name.clone(),
                reason,
            });
        })?;
        let (index, watch) = match &task {
            Task::Resolve(index) => (*index, None),
            Task::Execute(index, _, watch, _) => (*index, Some(watch.clone())),
        };
        self.active.insert(index, watch);
        Some(task)
    }

    /// Makes the key of a stage and looks it up.
    fn prepare(&mut self, index: usize) -> Result<Prepared, (Option<Key>, StageError)> {
        let stage = &self.plan.stages[index];
        if stage.settings.frozen {
            return match thaw(self.surroundings, stage) {
                Ok(settled) => Ok(Prepared::Settled(Box::new(settled))),
                Err(error) => Err((None, error)),
            };
        }
        let keyed = self.key(index).map_err(|error| (None, error))?;
        let refuse = |error: StageError| (Some(keyed.key), error);
        self.check_lock(stage, &keyed).map_err(refuse)?;
        if self.again.contains(&index) {
            return Ok(Prepared::ToDo(Box::new(keyed)));
        }
        match look_up(self.surroundings, stage, &keyed.key).map_err(refuse)? {
            Some(action) => Ok(Prepared::Settled(Box::new(keyed.settled(action, 0.0)))),
            None => Ok(Prepared::ToDo(Box::new(keyed))),
        }
    }

    fn key(&self, index: usize) -> Result<Keyed, StageError> {
        let stage = &self.plan.stages[index];
        let resolution = match self.resolutions.get(&index) {
            Some(resolution) => resolution.clone(),
            None => self.surroundings.resolve(stage)?,
        };
        key_of(
            self.surroundings,
            stage,
            resolution,
            &mut |input| match self.outcomes.get(&input.stage) {
                Some(Outcome::Settled(settled)) => settled.output(input),
                _ => None,
            },
        )
    }

    /// With `--locked`: whether the stage is as the lock has it.
    fn check_lock(&self, stage: &PlannedStage, keyed: &Keyed) -> Result<(), StageError> {
        if self.order.lock_use != LockUse::Locked {
            return Ok(());
        }
        let changed = match self.surroundings.lock.stages.get(&stage.name) {
            None => "the stage is new",
            Some(locked) if locked.key != keyed.key => "its key is another",
            Some(locked) if locked.local != keyed.locals => "its files are others",
            Some(_) => return Ok(()),
        };
        Err(
            StageError::invalid(format!("the lock would change: {changed}"))
                .help("run without --locked, look at what changed, and commit the lock"),
        )
    }

    fn settle(&mut self, index: usize, settled: Settled) {
        let stage = &self.plan.stages[index];
        self.surroundings.events.send(Event::StageFinished {
            stage: stage.name.clone(),
            kind: stage.kind.name(),
            key: settled.key,
            artifact: settled.artifact,
            cached: settled.cached,
            seconds: settled.seconds,
        });
        self.again.remove(&index);
        self.outcomes.insert(index, Outcome::Settled(settled));
        for &next in &self.dependents[index] {
            let Some(waiting) = self.waiting.get_mut(&next) else {
                continue;
            };
            waiting.remove(&index);
            if waiting.is_empty() {
                self.waiting.remove(&next);
                self.ready.insert(next);
            }
        }
    }

    fn fail(&mut self, index: usize, key: Option<Key>, error: StageError, seconds: f64) {
        let stage = &self.plan.stages[index];
        self.surroundings.events.send(Event::StageFailed {
            stage: stage.name.clone(),
            kind: stage.kind.name(),
            message: error.message.clone(),
            help: error.help.clone(),
            retried: false,
        });
        let interrupted = error.kind == StageErrorKind::Interrupted;
        if interrupted || self.order.on_failure == OnFailure::Stop {
            let why = if interrupted {
                "interrupted"
            } else {
                &stage.name
            };
            self.halted.get_or_insert_with(|| why.to_owned());
        }
        let failed = Outcome::Failed {
            error,
            key,
            seconds,
        };
        self.outcomes.insert(index, failed);
        self.skip_after(index, &stage.name);
    }

    /// Skips all that depends on a stage that failed.
    fn skip_after(&mut self, index: usize, because: &str) {
        let mut skipped = self.dependents[index].clone();
        while let Some(next) = skipped.pop() {
            if self.waiting.remove(&next).is_some() {
                self.skip(next, because);
                skipped.extend(&self.dependents[next]);
            }
        }
    }

    fn skip(&mut self, index: usize, because: &str) {
        self.surroundings.events.send(Event::StageSkipped {
            stage: self.plan.stages[index].name.clone(),
            because: because.to_owned(),
        });
        self.outcomes.insert(index, Outcome::Skipped);
    }

    fn take_report(&mut self, report: Report) {
        match report {
            Report::Computed(index) => self.queue.give_back(index),
            Report::Ended(index, end) => {
                self.queue.give_back(index);
                self.active.remove(&index);
                self.take_end(index, *end);
            }
        }
    }

    fn take_end(&mut self, index: usize, end: End) {
        match end {
            End::Resolved(resolution) => match resolution {
                Ok(resolution) => {
                    self.resolutions.insert(index, resolution);
                    self.begin(index);
                }
                Err(error) => self.fail(index, None, error, 0.0),
            },
            End::Edited => self.key_again(index),
            End::Damaged(digests) => self.make_again(index, &digests),
            End::Done {
                keyed,
                cached,
                seconds,
                result,
            } => match result {
                Ok(action) => {
                    let mut settled = keyed.settled(action, seconds);
                    settled.cached = cached;
                    self.settle(index, settled);
                }
                Err(error) => self.fail(index, Some(keyed.key), error, seconds),
            },
        }
    }

    fn key_again(&mut self, index: usize) {
        let stage = &self.plan.stages[index];
        for planned in &stage.locals {
            self.surroundings.forget_local(planned);
        }
        let edits = self.edits.entry(index).or_default();
        *edits += 1;
        if *edits > ATTEMPTS {
            let error = StageError::failed("its files change while taper reads them")
                .help("let whatever writes them end, and run again");
            return self.fail(index, None, error, 0.0);
        }
        self.surroundings.events.send(Event::Warning {
            stage: Some(stage.name.clone()),
            text: "its files changed while taper ran: they are read again".to_owned(),
        });
        self.begin(index);
    }

    /// Lets a stage begin as soon as what it reads is there: that may be on its way again itself, or have failed.
    fn begin(&mut self, index: usize) {
        let mut unsettled = BTreeSet::new();
        for input in &self.plan.stages[index].inputs {
            match self.outcomes.get(&input.stage) {
                Some(Outcome::Settled(_)) => {}
                Some(Outcome::Failed { .. } | Outcome::Skipped) => {
                    let because = &self.plan.stages[input.stage].name;
                    self.skip(index, because);
                    return self.skip_after(index, because);
                }
                None => {
                    unsettled.insert(input.stage);
                }
            }
        }
        if unsettled.is_empty() {
            self.ready.insert(index);
        } else {
            self.waiting.insert(index, unsettled);
        }
    }

    /// Runs the stages again whose artifacts turned out to be damaged, and then the one that reads them.
    fn make_again(&mut self, index: usize, digests: &BTreeSet<Digest>) {
        let stage = &self.plan.stages[index];
        let losses = self.losses.entry(index).or_default();
        *losses += 1;
        if *losses > ATTEMPTS {
            let what = digests.first().map(Digest::short).unwrap_or_default();
            let error = StageError::new(
                StageErrorKind::Damaged,
                format!("the artifact {what}, which it reads, is lost again and again"),
            );
            let help = "is another program removing files from the cache, or is the disk failing?";
            return self.fail(index, None, error.help(help), 0.0);
        }
        let makers: BTreeSet<usize> = stage
            .inputs
            .iter()
            .filter(|input| match self.outcomes.get(&input.stage) {
                Some(Outcome::Settled(settled)) => settled
                    .output(input)
                    .is_some_and(|digest| digests.contains(&digest)),
                _ => true,
            })
            .map(|input| input.stage)
            .collect();
        if let Some(frozen) = makers
            .iter()
            .find(|&&m| self.plan.stages[m].settings.frozen)
        {
            let name = &self.plan.stages[*frozen].name;
            let error = StageError::new(
                StageErrorKind::Damaged,
                format!("the artifact of the frozen stage `{name}` is damaged"),
            );
            return self.fail(
                index,
                None,
                error.help("remove `frozen` to make it again"),
                0.0,
            );
        }
        for &maker in &makers {
            let settled = matches!(self.outcomes.get(&maker), Some(Outcome::Settled(_)));
            if settled {
                self.outcomes.remove(&maker);
                self.again.insert(maker);
                self.begin(maker);
            }
            for &next in &self.dependents[maker] {
                if self.ready.remove(&next) {
                    self.waiting.entry(next).or_default();
                }
                if let Some(waiting) = self.waiting.get_mut(&next) {
                    waiting.insert(maker);
                }
            }
        }
        if makers.is_empty() {
            self.begin(index);
        } else {
            self.waiting.insert(index, makers);
        }
    }

    /// Passes on the user's wish to stop, and stops what takes too long.
    fn look_at_watches(&mut self) {
        let stop = self.surroundings.stop.load(Ordering::Relaxed);
        for watch in self.active.values().flatten() {
            let late = watch
                .deadline
                .lock()
                .is_ok_and(|deadline| deadline.is_some_and(|d| d <= Instant::now()));
            if late {
                watch.timed_out.store(true, Ordering::Relaxed);
            }
            if stop || late {
                watch.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Skips what was never begun.
    fn finish(mut self) -> BTreeMap<usize, Outcome> {
        let because = self
            .halted
            .take()
            .unwrap_or_else(|| "interrupted".to_owned());
        for &index in &self.order.wanted {
            if !self.outcomes.contains_key(&index) {
                self.skip(index, &because);
            }
        }
        self.outcomes
    }
}

/// What a stage takes that would compute there. One whose kind does not compute may run a program that does: it says so.
fn demand(stage: &PlannedStage, device: Device) -> Demand {
    Demand {
        cores: stage.settings.cores,
        memory: stage.settings.memory,
        device: match (stage.settings.device, stage.kind.computes()) {
            (_, true) => device,
            (DeviceChoice::This(device), false) => device,
            (DeviceChoice::Auto, false) => Device::Cpu,
        },
    }
}

/// How much memory there is for the stages; nobody asks where none of them says what it needs.
fn memory(plan: &Plan, order: &Order<'_>) -> u64 {
    let mut wanted = order.wanted.iter().map(|&index| &plan.stages[index]);
    match wanted.any(|stage| stage.settings.memory > 0) {
        true => machine::memory().unwrap_or(u64::MAX),
        false => u64::MAX,
    }
}

enum Prepared {
    Settled(Box<Settled>),
    ToDo(Box<Keyed>),
}

impl Keyed {
    pub(crate) fn settled(&self, action: Action, seconds: f64) -> Settled {
        Settled {
            key: self.key,
            artifact: action.artifact,
            action: Some(Arc::new(action)),
            resolution: self.resolution.clone(),
            locals: self.locals.clone(),
            cached: true,
            seconds,
        }
    }
}

/// The key of a stage whose inputs are known.
pub(crate) fn key_of(
    surroundings: &Surroundings,
    stage: &PlannedStage,
    resolution: Resolution,
    made: &mut dyn FnMut(&PlannedInput) -> Option<Digest>,
) -> Result<Keyed, StageError> {
    let mut unknown = None;
    let mut ingredients =
        surroundings.ingredients(stage, resolution.resolved.clone(), &mut |input| {
            made(input).unwrap_or_else(|| {
                unknown = Some(input.reference.clone());
                Digest::of(b"")
            })
        })?;
    if let Some(reference) = unknown {
        return Err(StageError::failed(format!(
            "what `{reference}` made is not known"
        )));
    }
    ingredients.arithmetic = arithmetic(&surroundings.store, stage.kind, &ingredients.params)?;
    let mut device = surroundings.device_of(stage);
    // What follows the processor is computed on it, where nobody wants it elsewhere.
    if ingredients.arithmetic.is_some() && surroundings.choice_of(stage) == DeviceChoice::Auto {
        device = Device::Cpu;
        ingredients.device = Some(device.class().to_owned());
    }
    let locals = stage
        .locals
        .iter()
        .map(|planned| Ok((planned.path.clone(), surroundings.local(planned)?.digest)))
        .collect::<Result<_, StageError>>()?;
    let settings: Value = stage.params.settings()?;
    let job = Job {
        settings,
        device,
        offline: surroundings.offline,
        ingredients,
    };
    Ok(Keyed {
        key: job.key(),
        job,
        resolution,
        locals,
    })
}

/// What the cache has for a key, with every blob in its place. Damage is told.
pub(crate) fn look_up(
    surroundings: &Surroundings,
    stage: &PlannedStage,
    key: &Key,
) -> Result<Option<Action>, StageError> {
    match surroundings.store.action(key)? {
        Lookup::Found(action) if surroundings.store.has_blobs(&action.manifest) => Ok(Some(action)),
        Lookup::Found(_) | Lookup::Missing => Ok(None),
        Lookup::Damaged(damage) => {
            warn(surroundings, stage, format!("{damage}; it is made again"));
            Ok(None)
        }
    }
}

pub(crate) fn warn(surroundings: &Surroundings, stage: &PlannedStage, text: String) {
    surroundings.events.send(Event::Warning {
        stage: Some(stage.name.clone()),
        text,
    });
}

/// A frozen stage is what the lock says.
pub(crate) fn thaw(
    surroundings: &Surroundings,
    stage: &PlannedStage,
) -> Result<Settled, StageError> {
    let store = &surroundings.store;
    let Some(locked) = surroundings.lock.stages.get(&stage.name) else {
        return Err(
            StageError::invalid("it is frozen, and the lock does not have it")
                .help("run it once without `frozen`"),
        );
    };
    let action = store.action(&locked.key)?.found();
    let action = action.filter(|action| action.artifact == locked.artifact);
    let manifest = match &action {
        Some(action) => Some(action.manifest.clone()),
        None => store.manifest(&locked.artifact)?.found(),
    };
    if !manifest.is_some_and(|manifest| store.has_blobs(&manifest)) {
        return Err(StageError::failed(format!(
            "it is frozen, and its artifact {} is not in the cache",
            locked.artifact.short()
        ))
        .help("get the artifact from a cache that has it, or remove `frozen`"));
    }
    Ok(Settled {
        key: locked.key,
        artifact: locked.artifact,
        action: action.map(Arc::new),
        resolution: Resolution {
            request: locked.request,
            resolved: locked.resolved.clone(),
        },
        locals: locked.local.clone(),
        cached: true,
        seconds: 0.0,
    })
}
