//! How the learning rate goes over the steps of a training: the arithmetic of transformers' `get_scheduler`.

/// The course of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Course {
    /// It stays.
    Constant,
    /// It falls to 0 in a straight line.
    Linear,
    /// It falls to 0 along half a cosine.
    Cosine,
    /// It falls to `end` as a power of what is left.
    Polynomial {
        /// The exponent; 1 in transformers.
        power: f64,
        /// The last learning rate; 1e-7 in transformers.
        end: f64,
    },
}

/// A course over a number of steps, behind a warm-up in a straight line from 0.
///
/// Source: `transformers/optimization.py`, `get_{constant,linear,cosine,polynomial}…_schedule…`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// What happens after the warm-up.
    pub course: Course,
    /// The steps of the warm-up; the first has a learning rate of 0.
    pub warmup: u64,
    /// The optimizer's steps of the whole training, warm-up included.
    pub total: u64,
}

impl Schedule {
    /// The steps of a warm-up given as a share of `total`: rounded up, as transformers' Trainer does.
    pub fn warmup_of_ratio(ratio: f64, total: u64) -> u64 {
        (total as f64 * ratio).ceil() as u64
    }

    /// The learning rate of the optimizer's step `step`, counted from 0, where `base` is its highest.
    pub fn learning_rate(&self, base: f64, step: u64) -> f64 {
        base * self.factor(base, step)
    }

    fn factor(&self, base: f64, step: u64) -> f64 {
        if step < self.warmup {
            return step as f64 / self.warmup.max(1) as f64;
        }
        let decaying = self.total.saturating_sub(self.warmup).max(1) as f64;
        let progress = (step - self.warmup) as f64 / decaying;
        match self.course {
            Course::Constant => 1.0,
            Course::Linear => self.total.saturating_sub(step) as f64 / decaying,
            Course::Cosine => (0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress))).max(0.0),
            Course::Polynomial { end, .. } if step > self.total => end / base,
            Course::Polynomial { power, end } => {
                let left = (1.0 - progress).max(0.0);
                ((base - end) * libm::pow(left, power) + end) / base
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_rounded_up() {
        assert_eq!(Schedule::warmup_of_ratio(0.1, 1377), 138);
        assert_eq!(Schedule::warmup_of_ratio(0.0, 1377), 0);
        assert_eq!(Schedule::warmup_of_ratio(0.06, 50), 3);
    }

    #[test]
    fn a_warm_up_as_long_as_the_training_divides_by_nothing() {
        for course in [
            Course::Linear,
            Course::Cosine,
            Course::Polynomial {
                power: 2.0,
                end: 0.0,
            },
        ] {
            let schedule = Schedule {
                course,
                warmup: 7,
                total: 7,
            };
            for step in 0..10 {
                assert!(schedule.learning_rate(1e-3, step).is_finite());
            }
        }
    }

    #[test]
    fn the_middle_of_each_course() {
        let at = |course| {
            Schedule {
                course,
                warmup: 2,
                total: 10,
            }
            .learning_rate(2.0, 6)
        };
        assert_eq!(at(Course::Constant), 2.0);
        assert_eq!(at(Course::Linear), 1.0);
        assert!((at(Course::Cosine) - 1.0).abs() < 1e-15);
        assert_eq!(
            at(Course::Polynomial {
                power: 2.0,
                end: 1.0
            }),
            1.25
        );
    }
}
