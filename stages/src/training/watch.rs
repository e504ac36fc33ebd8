//! Which evaluation was the best, and whether it is time to stop.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a metric is better when it is lower or higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Lower is better.
    Min,
    /// Higher is better.
    Max,
}

impl Mode {
    /// The direction of a metric by its name: what ends in `loss` is better when it is lower.
    pub fn of(metric: &str) -> Self {
        if metric.ends_with("loss") {
            Self::Min
        } else {
            Self::Max
        }
    }

    /// Whether `value` beats `other` by more than `min_delta`. What is not a number beats nothing.
    fn beats(self, value: f64, other: f64, min_delta: f64) -> bool {
        match self {
            Self::Min => value < other - min_delta,
            Self::Max => value > other + min_delta,
        }
    }
}

/// The best of the evaluations seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After which step it was.
    pub step: u64,
    /// What the metric was.
    pub value: f64,
}

/// Follows one metric: part of what a checkpoint keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// The best that counted.
    pub best: Option<Best>,
    /// Evaluations since then.
    pub since: u64,
}

impl Watch {
    /// Takes the next evaluation; answers whether it counts as an improvement: the first one does, and every
    /// one that beats the last that counted by more than `min_delta`.
    pub fn observe(&mut self, step: u64, value: f64, mode: Mode, min_delta: f64) -> bool {
        let better = match self.best {
            None => !value.is_nan(),
            Some(best) => mode.beats(value, best.value, min_delta),
        };
        if better {
            self.best = Some(Best { step, value });
            self.since = 0;
        } else {
            self.since += 1;
        }
        better
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn improvements(values: &[f64], mode: Mode, min_delta: f64) -> (Vec<bool>, Watch) {
        let mut watch = Watch::default();
        let seen = (1..)
            .zip(values)
            .map(|(step, &value)| watch.observe(step, value, mode, min_delta))
            .collect();
        (seen, watch)
    }

    #[test]
    fn ties_and_small_gains_do_not_count() {
        let (seen, watch) = improvements(&[0.5, 0.5, 0.45, 0.38, 0.6], Mode::Min, 0.1);
        assert_eq!(seen, [true, false, false, true, false]);
        assert_eq!(watch.best.unwrap().step, 4);
        assert_eq!(watch.since, 1);
    }

    #[test]
    fn direction_follows_the_name() {
        assert_eq!(Mode::of("eval_loss"), Mode::Min);
        assert_eq!(Mode::of("eval_accuracy"), Mode::Max);
        let (seen, _) = improvements(&[f64::NAN, 0.1, f64::NAN, 0.2], Mode::Max, 0.0);
        assert_eq!(seen, [false, true, false, true]);
    }
}
