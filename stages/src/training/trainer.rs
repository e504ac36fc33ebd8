//! The training loop: forward, backward, step; logging, evaluations, checkpoints; the same bytes whether it is
//! interrupted or not.
//!
//! [`Position`] holds where a training is. What a step leaves to be done (a line of the history, an evaluation) stands there as
//! well until it is done, so that a training can be stopped between the two.

use std::time::{Duration, Instant};

use taper_engine::{Reporter, StageError, Unit};
use taper_nn::loss::Loss;
use taper_nn::optimizer::clip_scale;
use taper_nn::schedule::Schedule;
use taper_nn::{Dropout, Learning};

use super::batches::{StepBatches, Steps, Width, ahead};
use super::checkpoint::{Checkpoints, Means, Parts, Pending, Position, Snapshot};
use super::evaluation::{Evaluation, Reading, evaluate, predictions};
use super::history::Entry;
use super::order::Ordering;
use super::params::{Every, Keep};
use super::recorder::Recorder;
use super::watch::Mode;
use crate::artifact::tokens::TokenSplit;
use crate::device::Work;
use crate::metrics::Metric;

/// What to do when.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Rows a batch.
    pub batch_size: usize,
    /// Batches a step.
    pub accumulate: usize,
    /// How rows are padded.
    pub width: Width,
    /// The order of rows.
    pub ordering: Ordering,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How it goes over the steps; its total is the number of steps.
    pub schedule: Schedule,
    /// The highest norm of the gradient.
    pub clip_norm: Option<f64>,
    /// When to evaluate.
    pub evaluate_every: Every,
    /// Metrics of an evaluation, beside its loss.
    pub metrics: Vec<Metric>,
    /// When to log.
    pub log_every: u64,
    /// What decides which model is the best.
    pub monitor: Monitor,
    /// Which model is the result.
    pub keep: Keep,
    /// When to stop early.
    pub stopping: Option<Stopping>,
    /// When to write checkpoints; `None`, as often as costs little.
    pub checkpoint_every: Option<u64>,
}

/// A metric that is watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Monitor {
    /// Its name in the history: `eval_loss`.
    pub name: String,
    /// Which direction is better.
    pub mode: Mode,
}

/// When evaluations no longer get better.
#[derive(Clone, Debug, PartialEq)]
pub struct Stopping {
    /// What is watched.
    pub monitor: Monitor,
    /// How many evaluations in a row may bring nothing better.
    pub patience: u64,
    /// By how much an evaluation has to be better to count.
    pub min_delta: f64,
}

/// What is trained, and on what.
pub struct Training<'a> {
    /// The network with its weights and the optimizer, before the first step.
    pub learning: Box<dyn Learning>,
    /// What it is, for errors.
    pub work: Work<'a>,
    /// What is made small.
    pub loss: Loss,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// The rows to train on; at least one, each with a class.
    pub train: &'a TokenSplit,
    /// The rows to evaluate on; at least one, each with a class.
    pub validation: Option<&'a TokenSplit>,
    /// What to do when.
    pub plan: Plan,
}

/// A training's result.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The weights that were to be kept.
    pub weights: Vec<f32>,
    /// Where the training ended, with its history.
    pub position: Position,
}

/// Trains to the end, from the newest checkpoint where there is one.
///
/// # Errors
/// Where the user stops it (a checkpoint is left), the loss is not finite, or files cannot be written.
pub fn train(
    training: Training<'_>,
    checkpoints: &Checkpoints,
    record: &RecordSettings<'_>,
    reporter: &Reporter,
) -> Result<Trained, StageError> {
    let total = training.plan.schedule.total;
    let mut run = Run::resume(training, checkpoints, record, reporter)?;
    let (split, plan) = (run.training.train, run.training.plan.clone());
    let from = (run.position.epoch, run.position.rows);
    std::thread::scope(|scope| {
        let steps = Steps::new(
            split,
            plan.ordering,
            plan.width,
            plan.batch_size,
            plan.accumulate,
            from,
        );
        let left = total.saturating_sub(run.position.step);
        let steps = ahead(
            scope,
            steps.take(usize::try_from(left).unwrap_or(usize::MAX)),
        )?;
        let progress = reporter.progress("training", Some(total), Unit::Steps);
        progress.add(run.position.step);
        run.settle()?;
        while !run.position.stopped && run.position.step < total {
            if reporter.stopped() {
                run.checkpoint()?;
                reporter.note(format!(
                    "stopped after step {}; the next run goes on from there",
                    run.position.step
                ));
                return Err(StageError::interrupted());
            }
            let batches = steps
                .recv()
                .map_err(|_| StageError::failed("the thread that makes batches has ended"))?;
            run.step(&batches)?;
            progress.add(1);
            run.settle()?;
        }
        Ok(())
    })?;
    run.finish()
}

/// Where and what to record.
#[derive(Clone, Copy, Debug)]
pub struct RecordSettings<'a> {
    /// The folder of the run's record.
    pub folder: &'a std::path::Path,
    /// Whether to write TensorBoard's event files.
    pub tensorboard: bool,
}

/// A training that goes on.
struct Run<'a> {
    training: Training<'a>,
    position: Position,
    best: Option<Vec<f32>>,
    checkpoints: &'a Checkpoints,
    cadence: Cadence,
    recorder: Recorder,
    reporter: &'a Reporter,
}

impl<'a> Run<'a> {
    fn resume(
        mut training: Training<'a>,
        checkpoints: &'a Checkpoints,
        record: &RecordSettings<'_>,
        reporter: &'a Reporter,
    ) -> Result<Self, StageError> {
        let mut position = Position::default();
        let mut best = None;
        let mut last = None;
        if let Some(Snapshot {
            position: reached,
            weights,
            optimizer,
            best: kept,
        }) = checkpoints.newest(reporter)?
            && training
                .learning
                .restore(weights, optimizer)
                .map_err(|fault| training.work.failed(fault))?
        {
            reporter.note(format!(
                "going on from the checkpoint of step {} of {}",
                reached.step, training.plan.schedule.total
            ));
            last = Some(reached.step);
            position = reached;
            best = kept;
        }
        let recorder = Recorder::begin(record.folder, record.tensorboard, &position.history)?;
        Ok(Self {
            cadence: Cadence::new(training.plan.checkpoint_every, last),
            training,
            position,
            best,
            checkpoints,
            recorder,
            reporter,
        })
    }

    /// One optimizer step.
    fn step(&mut self, step: &StepBatches) -> Result<(), StageError> {
        let Training {
            learning,
            work,
            loss,
            plan,
            ..
        } = &mut self.training;
        let work = *work;
        let dropout = Dropout {
            seed: plan.ordering.seed,
            epoch: step.epoch,
        };
        let due = plan.due(self.position.step + 1, step.ends_epoch);
        let measures = plan.clip_norm.is_some() || due.logs;
        let learning_rate = plan
            .schedule
            .learning_rate(plan.learning_rate, self.position.step);
        let at_once = step.batches.len() == 1 && plan.clip_norm.is_none();
        let share = 1.0 / step.batches.len() as f64;
        let mut norm = None;
        let (mut step_loss, mut right, mut rows, mut tokens) = (0.0, 0, 0, 0);
        for batch in &step.batches {
            let failed = |fault| work.with(batch).failed(fault);
            let (sum, logits) = if at_once {
                let with = (&dropout, &*loss);
                let (sum, logits, measured) = learning
                    .step_at_once(batch, with, learning_rate, measures)
                    .map_err(failed)?;
                norm = measured;
                (sum, logits)
            } else {
                learning
                    .add_batch(batch, &dropout, loss, share)
                    .map_err(failed)?
            };
            if !sum.mean().is_finite() {
                return Err(self.not_finite("loss", sum.mean()));
            }
            step_loss += sum.mean() * share;
            right += predictions(&logits, learning.outputs())
                .zip(&batch.labels)
                .filter(|(prediction, label)| prediction == *label)
                .count() as u64;
            rows += batch.len() as u64;
            tokens += batch.tokens() as u64;
        }
        let failed = |fault| work.failed(fault);
        if !at_once && measures {
            norm = Some(learning.gradient_norm().map_err(failed)?);
        }
        if let Some(norm) = norm.filter(|norm| !norm.is_finite()) {
            return Err(self.not_finite("norm of the gradient", norm));
        }
        if !at_once {
            let scale = match (plan.clip_norm, norm) {
                (Some(limit), Some(norm)) => clip_scale(norm, limit),
                _ => 1.0,
            };
            learning.step(learning_rate, scale).map_err(failed)?;
        }
        self.recorder.count(rows, tokens);
        let position = &mut self.position;
        position.step += 1;
        position.epoch = step.epoch + u64::from(step.ends_epoch);
        position.rows = if step.ends_epoch { 0 } else { step.rows_done };
        position.since_log.add(step_loss, right, rows);
        position.since_epoch.add(step_loss, right, rows);
        position.pending = Some(Pending {
            learning_rate,
            gradient_norm: norm,
            ends_epoch: step.ends_epoch,
        });
        Ok(())
    }

    /// Does what the last step left to be done: a line of the history, an evaluation, a checkpoint.
    fn settle(&mut self) -> Result<(), StageError> {
        let Some(pending) = self.position.pending else {
            return Ok(());
        };
        let step = self.position.step;
        let due = self.training.plan.due(step, pending.ends_epoch);
        let rows = self.training.train.len() as f64;
        let epoch = self.position.epoch as f64 + self.position.rows as f64 / rows;
        let mut entry = Entry::new(step, epoch);
        if due.logs {
            entry.push("loss", self.position.since_log.loss());
            entry.push("lr", pending.learning_rate);
            entry.values.extend(
                pending
                    .gradient_norm
                    .map(|norm| ("grad_norm".to_owned(), norm)),
            );
        }
        if pending.ends_epoch {
            entry.push("train_loss", self.position.since_epoch.loss());
            entry.push("train_accuracy", self.position.since_epoch.accuracy());
        }
        if due.evaluates
            && let Some(split) = self.training.validation
        {
            self.evaluate(split, &mut entry)?;
        }
        let position = &mut self.position;
        position.pending = None;
        if due.logs {
            position.since_log = Means::default();
        }
        if pending.ends_epoch {
            position.since_epoch = Means::default();
        }
        if !entry.values.is_empty() {
            self.recorder.add(&entry, self.reporter)?;
            position.history.push(entry);
        }
        let ended = position.stopped || step == self.training.plan.schedule.total;
        if !ended && self.cadence.due(step) {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Evaluates, adds the figures to `entry`, and decides what they mean for the best model and the end.
    fn evaluate(&mut self, split: &TokenSplit, entry: &mut Entry) -> Result<(), StageError> {
        self.check_weights()?;
        let training = &mut self.training;
        let plan = &training.plan;
        let progress = self
            .reporter
            .progress("evaluating", Some(split.len() as u64), Unit::Rows);
        let reading = Reading {
            loss: &training.loss,
            classes: &training.classes,
            batch_size: plan.batch_size,
            width: plan.width,
        };
        let evaluation = evaluate(
            training.learning.as_mut(),
            training.work,
            split,
            reading,
            &progress,
            self.reporter,
        );
        let Evaluation { outcome, loss } = match evaluation {
            Err(error) if self.reporter.stopped() => {
                self.checkpoint()?;
                return Err(error);
            }
            other => other?,
        };
        if !loss.is_finite() {
            return Err(self.not_finite("loss of the evaluation", loss));
        }
        entry.push("eval_loss", loss);
        for (name, value) in outcome.metrics(&plan.metrics) {
            if let Some(value) = value.number() {
                entry.push(format!("eval_{name}"), value);
            }
        }
        let figure = |monitor: &Monitor| entry.get(&monitor.name).unwrap_or(f64::NAN);
        let position = &mut self.position;
        let value = figure(&plan.monitor);
        let better = position
            .best
            .observe(entry.step, value, plan.monitor.mode, 0.0);
        if better && plan.keep == Keep::Best {
            let settled = training.learning.settle();
            let (weights, _) = settled.map_err(|fault| training.work.failed(fault))?;
            self.best = Some(weights.to_vec());
        }
        if let Some(stopping) = &plan.stopping {
            let value = figure(&stopping.monitor);
            let Monitor { name, mode } = &stopping.monitor;
            position
                .stopping
                .observe(entry.step, value, *mode, stopping.min_delta);
            if position.stopping.since >= stopping.patience {
                position.stopped = true;
                self.reporter.note(format!(
                    "stopped early after step {}: `{name}` has not been better for {} evaluations",
                    entry.step, stopping.patience
                ));
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StageError> {
        self.check_weights()?;
        let begun = Instant::now();
        let work = self.training.work;
        let settled = self.training.learning.settle();
        let (weights, optimizer) = settled.map_err(|fault| work.failed(fault))?;
        self.checkpoints.write(Parts {
            position: &self.position,
            weights,
            optimizer,
            best: self.best.as_deref(),
        })?;
        self.cadence.written(self.position.step, begun.elapsed());
        Ok(())
    }

    /// What is evaluated or kept is finite: what an infinite gradient has spoilt would go unnoticed in a
    /// tensor that no batch reads.
    fn check_weights(&mut self) -> Result<(), StageError> {
        let work = self.training.work;
        let settled = self.training.learning.settle();
        let (weights, _) = settled.map_err(|fault| work.failed(fault))?;
        match weights.iter().find(|weight| !weight.is_finite()) {
            Some(&weight) => Err(self.not_finite("value of a weight", f64::from(weight))),
            None => Ok(()),
        }
    }

    fn not_finite(&self, what: &str, value: f64) -> StageError {
        let kept = match self.cadence.last {
            Some(step) => format!("; the checkpoint of step {step} is kept"),
            None => String::new(),
        };
        let step = self.position.step + u64::from(self.position.pending.is_none());
        StageError::failed(format!("the {what} is {value} at step {step}{kept}"))
            .help("lower the learning rate, set `clip_norm: 1.0`, or let the learning rate rise with a warm-up")
            .at("optimizer")
    }

    fn finish(mut self) -> Result<Trained, StageError> {
        let weights = match (self.training.plan.keep, self.best) {
            (Keep::Best, Some(best)) => best,
            _ => {
                let settled = self.training.learning.settle();
                let (weights, _) = settled.map_err(|fault| self.training.work.failed(fault))?;
                weights.to_vec()
            }
        };
        Ok(Trained {
            weights,
            position: self.position,
        })
    }
}

/// What falls due with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    /// An evaluation.
    evaluates: bool,
    /// A line of the history with the training loss; every evaluation has one.
    logs: bool,
}

impl Plan {
    /// What falls due when `step` steps are done.
    fn due(&self, step: u64, ends_epoch: bool) -> Due {
        let last = step == self.schedule.total;
        let evaluates = last
            || match self.evaluate_every {
                Every::Epoch => ends_epoch,
                Every::Steps(steps) => step.is_multiple_of(steps),
            };
        Due {
            evaluates,
            logs: evaluates || step.is_multiple_of(self.log_every),
        }
    }
}

/// When to write checkpoints. What it decides changes no byte of the result, so it may look at the clock.
#[derive(Clone, Copy, Debug)]
struct Cadence {
    every: Option<u64>,
    /// The step of the last checkpoint.
    last: Option<u64>,
    written: Instant,
    cost: Duration,
}

impl Cadence {
    /// No more often than this.
    const SHORTEST: Duration = Duration::from_secs(1);
    /// Checkpoints take at most one part in so many of the time.
    const SHARE: u32 = 20;

    fn new(every: Option<u64>, last: Option<u64>) -> Self {
        Self {
            every,
            last,
            written: Instant::now(),
            cost: Duration::ZERO,
        }
    }

    fn due(&self, step: u64) -> bool {
        match self.every {
            Some(every) => step.is_multiple_of(every),
            None => self.written.elapsed() >= Self::SHORTEST.max(self.cost * Self::SHARE),
        }
    }

    fn written(&mut self, step: u64, cost: Duration) {
        self.last = Some(step);
        self.written = Instant::now();
        self.cost = cost;
    }
}
