//! Everything that a reporter sees. Workers send events; one thread owns what is shown: the progress
//! bars, the plain lines and the JSON are consumers of the same events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use taper_cache::{Digest, Key};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes, shown as KiB, MiB, GiB.
    Bytes,
    /// Rows of a data set.
    Rows,
    /// Optimizer steps.
    Steps,
    /// Files.
    Files,
}

/// Something that happened, in the order in which it did.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A stage begins to work; it was not in the cache.
    StageStarted {
        /// The stage.
        stage: String,
        /// Its kind.
        kind: &'static str,
        /// Its key.
        key: Key,
    },
    /// A stage could begin but for something that others have: the lock of its key, memory, a device.
    StageWaits {
        /// The stage.
        stage: String,
        /// What it waits for.
        reason: String,
    },
    /// A stage has its artifact.
    StageFinished {
        /// The stage.
        stage: String,
        /// Its kind.
        kind: &'static str,
        /// Its key.
        key: Key,
        /// What it made.
        artifact: Digest,
        /// True where nothing had to run.
        cached: bool,
        /// How long it took.
        seconds: f64,
    },
    /// A stage went wrong.
    StageFailed {
        /// The stage.
        stage: String,
        /// Its kind.
        kind: &'static str,
        /// What went wrong.
        message: String,
        /// What to do.
        help: Option<String>,
        /// True where it is tried again.
        retried: bool,
    },
    /// A stage did not run, because one before it failed or the run was stopped.
    StageSkipped {
        /// The stage.
        stage: String,
        /// The stage before it.
        because: String,
    },
    /// Work of a stage goes on.
    Progress {
        /// The stage.
        stage: String,
        /// What is being done: `downloading train.parquet`.
        label: String,
        /// How much is done.
        done: u64,
        /// How much there is, where that is known.
        total: Option<u64>,
        /// What is counted.
        unit: Unit,
    },
    /// Numbers that a training stage logs as it goes on.
    Metrics {
        /// The stage.
        stage: String,
        /// The optimizer step.
        step: u64,
        /// The numbers by name.
        values: BTreeMap<String, f64>,
    },
    /// A line for people.
    Note {
        /// The stage.
        stage: String,
        /// What there is to say.
        text: String,
    },
    /// A line for people that wants to be read.
    Warning {
        /// The stage, where it is about one.
        stage: Option<String>,
        /// What there is to say.
        text: String,
    },
}

/// Where events go. Cheap to clone; called from any thread.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(Event) + Send + Sync>);

impl Events {
    /// Sends every event to `consumer`.
    pub fn new(consumer: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(consumer))
    }

    /// Sends events nowhere.
    pub fn nowhere() -> Self {
        Self::new(|_| {})
    }

    /// Sends one event.
    pub fn send(&self, event: Event) {
        (self.0)(event);
    }
}

/// A piece of work whose progress is shown. Counted from any thread; events are sent at most ten times
/// a second.
pub struct Progress {
    events: Events,
    stage: String,
    label: String,
    total: Option<u64>,
    unit: Unit,
    done: AtomicU64,
    started: std::time::Instant,
    sent_at_millis: AtomicU64,
}

impl Progress {
    /// Begins a piece of work of `stage`.
    pub fn new(
        events: Events,
        stage: impl Into<String>,
        label: impl Into<String>,
        total: Option<u64>,
        unit: Unit,
    ) -> Self {
        let progress = Self {
            events,
            stage: stage.into(),
            label: label.into(),
            total,
            unit,
            done: AtomicU64::new(0),
            started: std::time::Instant::now(),
            sent_at_millis: AtomicU64::new(0),
        };
        progress.send();
        progress
    }

    /// Counts `amount` more.
    pub fn add(&self, amount: u64) {
        let done = self.done.fetch_add(amount, Ordering::Relaxed) + amount;
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let sent = self.sent_at_millis.load(Ordering::Relaxed);
        let due = now.saturating_sub(sent) >= Duration::from_millis(100).as_millis() as u64;
        if (due || Some(done) == self.total)
            && self
                .sent_at_millis
                .compare_exchange(sent, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.send();
        }
    }

    fn send(&self) {
        self.events.send(Event::Progress {
            stage: self.stage.clone(),
            label: self.label.clone(),
            done: self.done.load(Ordering::Relaxed),
            total: self.total,
            unit: self.unit,
        });
    }
}
