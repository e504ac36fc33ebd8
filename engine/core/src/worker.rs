//! Workers: they ask the world outside and execute stages, and tell the scheduler what came of it.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, Builder, Scope};
use std::time::{Duration, Instant};

use taper_cache::{Action, Digest, Key, KeyLock, Lookup, Scratch, Staging};

use crate::event::Event;
use crate::executor::{Executor, Made};
use crate::kind::{StageError, StageErrorKind};
use crate::local;
use crate::plan::{Plan, PlannedStage};
use crate::resolve::{Resolution, Surroundings};
use crate::schedule::{Keyed, Order, TICK, look_up, warn};

/// What workers do.
pub(crate) enum Task {
    /// Asks the world outside.
    Resolve(usize),
    /// Executes.
    Execute(usize, Box<Keyed>, Arc<Watch>, FromCache),
}

/// Whether the cache may answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromCache {
    Allowed,
    Forced,
}

/// What workers tell of a stage.
pub(crate) enum Report {
    /// All that is left to do is to wait for the disk.
    Computed(usize),
    /// The task has ended.
    Ended(usize, Box<End>),
}

/// How a task ended.
pub(crate) enum End {
    Resolved(Result<Resolution, StageError>),
    /// Files of the project changed after they were hashed.
    Edited,
    /// Artifacts of the stages before it are damaged.
    Damaged(BTreeSet<Digest>),
    Done {
        keyed: Box<Keyed>,
        cached: bool,
        seconds: f64,
        result: Result<Action, StageError>,
    },
}

/// What ends a running stage from outside.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) deadline: Mutex<Option<Instant>>,
    pub(crate) timed_out: AtomicBool,
}

/// Who does tasks and reports.
pub(crate) struct Worker<'env> {
    pub(crate) surroundings: &'env Surroundings,
    pub(crate) plan: &'env Plan,
    pub(crate) order: &'env Order<'env>,
    pub(crate) tasks: &'env Mutex<Receiver<Task>>,
    pub(crate) reports: Sender<Report>,
    /// How many tasks are not behind those who do them.
    pub(crate) busy: &'env AtomicUsize,
}

impl<'env> Worker<'env> {
    /// Does tasks on a thread of its own, as long as there are any to come.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(crate) fn start<'scope>(self, scope: &'scope Scope<'scope, 'env>) -> io::Result<()>
    where
        'env: 'scope,
    {
        Builder::new().spawn_scoped(scope, move || while self.do_next() {})?;
        Ok(())
    }

    /// Waits for a task, does it and reports; answers whether there may be another.
    pub(crate) fn do_next(&self) -> bool {
        let task = self.tasks.lock().map(|tasks| tasks.recv());
        let mut rest = Rest::default();
        let report = match task {
            Ok(Ok(Task::Resolve(index))) => {
                let resolution = self.surroundings.resolve(&self.plan.stages[index]);
                Report::Ended(index, Box::new(End::Resolved(resolution)))
            }
            Ok(Ok(Task::Execute(index, keyed, watch, lookup))) => {
                let work = Work {
                    stage: &self.plan.stages[index],
                    surroundings: self.surroundings,
                    executor: self.order.executor,
                    watch: &watch,
                    lookup,
                    reports: &self.reports,
                };
                Report::Ended(index, Box::new(work.end(index, keyed, &mut rest)))
            }
            _ => return false,
        };
        let heard = self.reports.send(report).is_ok();
        // Other stages begin meanwhile.
        drop(rest.leftovers);
        drop(rest.lock);
        self.busy.fetch_sub(1, Ordering::Relaxed);
        heard
    }
}

/// What is left to be given up when a stage has ended.
#[derive(Default)]
struct Rest {
    leftovers: Option<(Scratch, Staging)>,
    lock: Option<KeyLock>,
}

/// One stage in the hands of a worker.
struct Work<'a> {
    stage: &'a PlannedStage,
    surroundings: &'a Surroundings,
    executor: &'a dyn Executor,
    watch: &'a Watch,
    lookup: FromCache,
    reports: &'a Sender<Report>,
}

/// What keeps a worker from executing a stage.
enum Obstacle {
    Edited,
    Damaged(BTreeSet<Digest>),
    Failed(StageError),
}

impl<E: Into<StageError>> From<E> for Obstacle {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Work<'_> {
    fn end(&self, index: usize, keyed: Box<Keyed>, rest: &mut Rest) -> End {
        let mut started = Instant::now();
        let done = self.make(index, &keyed, &mut started, rest);
        let (cached, result) = match done {
            Ok((action, cached)) => (cached, Ok(action)),
            Err(Obstacle::Edited) => return End::Edited,
            Err(Obstacle::Damaged(digests)) => return End::Damaged(digests),
            Err(Obstacle::Failed(error)) => (false, Err(error)),
        };
        End::Done {
            keyed,
            cached,
            seconds: started.elapsed().as_secs_f64(),
            result,
        }
    }

    /// Takes the key's lock, looks again, and executes; whether the artifact was there by then.
    fn make(
        &self,
        index: usize,
        keyed: &Keyed,
        started: &mut Instant,
        rest: &mut Rest,
    ) -> Result<(Action, bool), Obstacle> {
        let reports = self.reports.clone();
        let computed = Arc::new(AtomicBool::new(false));
        let is_computed = computed.clone();
        let reporter = self
            .surroundings
            .reporter(self.stage, self.watch.stop.clone())
            .on_computed(move || {
                is_computed.store(true, Ordering::Relaxed);
                // The end of the run, which nobody listens to any more, is no matter of this stage.
                let _ = reports.send(Report::Computed(index));
            });
        let lock = &*rest.lock.insert(self.wait_for_lock(&keyed.key)?);
        let look_up = || match self.lookup {
            FromCache::Allowed => look_up(self.surroundings, self.stage, &keyed.key),
            FromCache::Forced => Ok(None),
        };
        if let Some(action) = look_up()? {
            return Ok((action, true));
        }
        *started = Instant::now();
        self.keep_locals(keyed)?;
        self.verify_inputs(keyed)?;
        self.surroundings
            .hand_over_scratch(keyed.resolution.request, &keyed.key);
        self.surroundings.events.send(Event::StageStarted {
            stage: self.stage.name.clone(),
            kind: self.stage.kind.name(),
            key: keyed.key,
        });
        if let (Some(timeout), Ok(mut deadline)) =
            (self.stage.settings.timeout, self.watch.deadline.lock())
        {
            *deadline = Some(Instant::now() + timeout);
        }
        let mut attempt = 0;
        loop {
            let store = &self.surroundings.store;
            let executed = self
                .executor
                .execute(store, &keyed.job, Some(lock), &reporter);
            let error = match executed {
                Ok(Made { action, leftovers }) => {
                    rest.leftovers = Some(leftovers);
                    return Ok((action, false));
                }
                Err(error) => self.explain_end(error),
            };
            // Something that it reads may have gone meanwhile: then it is no failure of the stage.
            if error.kind != StageErrorKind::Interrupted {
                self.verify_inputs(keyed)?;
            }
            // What fails once it has computed is the cache's part, and what it took of the machine is given back.
            let worth = !computed.load(Ordering::Relaxed)
                && matches!(
                    error.kind,
                    StageErrorKind::Transient | StageErrorKind::Failed
                );
            let stopped = self.watch.stop.load(Ordering::Relaxed);
            if !worth || stopped || attempt >= self.stage.settings.retries {
                return Err(Obstacle::Failed(error));
            }
            self.surroundings.events.send(Event::StageFailed {
                stage: self.stage.name.clone(),
                kind: self.stage.kind.name(),
                message: error.message.clone(),
                help: error.help.clone(),
                retried: true,
            });
            self.back_off(attempt);
            attempt += 1;
        }
    }

    /// An interruption by the deadline is a failure that says so.
    fn explain_end(&self, error: StageError) -> StageError {
        let timed_out = self.watch.timed_out.load(Ordering::Relaxed);
        match self.stage.settings.timeout {
            Some(timeout) if timed_out && error.kind == StageErrorKind::Interrupted => {
                StageError::failed(format!("it took longer than its timeout of {timeout:?}"))
                    .help("raise `timeout`, or see why it takes so long")
            }
            _ => error,
        }
    }

    /// Waits longer after each attempt: 0.2 s, 0.4 s, … up to 30 s.
    fn back_off(&self, attempt: u32) {
        let pause = Duration::from_millis(200).saturating_mul(1 << attempt.min(10));
        let end = Instant::now() + pause.min(Duration::from_secs(30));
        while Instant::now() < end && !self.watch.stop.load(Ordering::Relaxed) {
            thread::sleep(TICK.min(end.saturating_duration_since(Instant::now())));
        }
    }

    fn wait_for_lock(&self, key: &Key) -> Result<KeyLock, Obstacle> {
        let mut pause = Duration::from_millis(5);
        let mut told = false;
        loop {
            if let Some(lock) = self.surroundings.store.try_lock(key)? {
                return Ok(lock);
            }
            if self.watch.stop.load(Ordering::Relaxed) {
                return Err(Obstacle::Failed(StageError::interrupted()));
            }
            if !told {
                self.surroundings.events.send(Event::StageWaits {
                    stage: self.stage.name.clone(),
                    reason: format!("the same stage, {}, is running elsewhere", key.short()),
                });
                told = true;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Copies the files of the project that the stage reads into the cache.
    fn keep_locals(&self, keyed: &Keyed) -> Result<(), Obstacle> {
        for planned in &self.stage.locals {
            let hashed = self.surroundings.local(planned)?;
            if Some(&hashed.digest) != keyed.locals.get(&planned.path)
                && !keyed.job.needs().contains(&hashed.digest)
            {
                return Err(Obstacle::Edited);
            }
            let store = &self.surroundings.store;
            let same = match local::keep(store, &hashed.files, &hashed.manifest) {
                Ok(same) => same,
                // A file may have gone meanwhile, or have become something else.
                Err(_) if !self.surroundings.edited().is_empty() => false,
                Err(error) => return Err(Obstacle::Failed(error)),
            };
            if !same {
                return Err(Obstacle::Edited);
            }
        }
        Ok(())
    }

    /// Reads the artifacts that the stage will read, and compares them with their digests.
    fn verify_inputs(&self, keyed: &Keyed) -> Result<(), Obstacle> {
        let store = &self.surroundings.store;
        let mut damaged = BTreeSet::new();
        for digest in keyed.job.needs() {
            let whole = match store.manifest(&digest)? {
                Lookup::Found(manifest) => {
                    let damages = store.verify_artifact(&manifest)?;
                    for damage in &damages {
                        warn(
                            self.surroundings,
                            self.stage,
                            format!("{damage}; it is made again"),
                        );
                    }
                    damages.is_empty()
                }
                Lookup::Missing => false,
                Lookup::Damaged(damage) => {
                    warn(
                        self.surroundings,
                        self.stage,
                        format!("{damage}; it is made again"),
                    );
                    false
                }
            };
            if !whole {
                damaged.insert(digest);
            }
        }
        if damaged.is_empty() {
            Ok(())
        } else {
            Err(Obstacle::Damaged(damaged))
        }
    }
}
