//! What a training makes small: the loss of a batch's logits, and its gradient.
//!
//! Computed in `f64` whatever the network computes in, row after row, so that its bits depend on nothing
//! but the logits.

use crate::Real;

/// A loss over the rows of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// Softmax and the negative logarithm of the true class, as `torch.nn.functional.cross_entropy`.
    CrossEntropy {
        /// A weight per class, or none: then the mean is that of the rows' losses weighted by the weight
        /// of the true class.
        class_weights: Option<Vec<f64>>,
        /// The share of the target that is spread over all classes, from 0 to 1.
        label_smoothing: f64,
    },
    /// A sigmoid for each output, as `torch.nn.functional.binary_cross_entropy_with_logits`: with one
    /// output the target is the label itself, with more it is 1 at the label and 0 elsewhere.
    BceWithLogits,
}

/// The loss of some rows, such that those of several batches can be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// The sum over rows.
    pub sum: f64,
    /// What the sum is divided by for a mean.
    pub weight: f64,
}

impl LossSum {
    /// The mean loss.
    pub fn mean(&self) -> f64 {
        self.sum / self.weight
    }
}

impl std::ops::AddAssign for LossSum {
    fn add_assign(&mut self, other: Self) {
        self.sum += other.sum;
        self.weight += other.weight;
    }
}

impl Loss {
    /// Cross entropy without weights and smoothing.
    pub const CROSS_ENTROPY: Self = Self::CrossEntropy {
        class_weights: None,
        label_smoothing: 0.0,
    };

    /// The number of logits a row for data with `classes` classes.
    pub fn outputs(&self, classes: usize) -> usize {
        match self {
            Self::BceWithLogits if classes <= 2 => 1,
            _ => classes,
        }
    }

    /// The loss of `logits` `[rows, outputs]`, where row `i` belongs to class `labels[i]`.
    pub fn value<R: Real>(&self, logits: &[R], labels: &[u32]) -> LossSum {
        let mut total = LossSum::default();
        for (row, &label) in rows(logits, labels) {
            total += self.row(row, label, None);
        }
        total
    }

    /// The same, and `scale` times the gradient of its mean with respect to the logits, written to
    /// `gradient` `[rows, outputs]`. Where gradients of `n` batches are accumulated, `scale` is `1 / n`.
    pub fn gradient<R: Real>(
        &self,
        logits: &[R],
        labels: &[u32],
        scale: f64,
        gradient: &mut [R],
    ) -> LossSum {
        let outputs = logits.len() / labels.len().max(1);
        let mut total = LossSum::default();
        let mut buffer = vec![0.0; logits.len()];
        for (i, (row, &label)) in rows(logits, labels).enumerate() {
            let part = &mut buffer[i * outputs..(i + 1) * outputs];
            total += self.row(row, label, Some(part));
        }
        for (target, value) in gradient.iter_mut().zip(&buffer) {
            *target = R::from_f64(value / total.weight * scale);
        }
        total
    }

    /// The probability of each class for each row: `[rows, classes]`. A single output answers for two
    /// classes.
    pub fn probabilities<R: Real>(&self, logits: &[R], outputs: usize) -> Vec<f64> {
        let mut probabilities = Vec::with_capacity(logits.len());
        for row in logits.chunks_exact(outputs.max(1)) {
            match self {
                Self::CrossEntropy { .. } => {
                    let logarithms = log_softmax(row);
                    probabilities.extend(logarithms.into_iter().map(libm::exp));
                }
                Self::BceWithLogits if outputs == 1 => {
                    let logit = row[0].to_f64();
                    probabilities.extend([sigmoid(-logit), sigmoid(logit)]);
                }
                Self::BceWithLogits => {
                    probabilities.extend(row.iter().map(|logit| sigmoid(logit.to_f64())));
                }
            }
        }
        probabilities
    }

    fn row<R: Real>(&self, logits: &[R], label: u32, gradient: Option<&mut [f64]>) -> LossSum {
        match self {
            Self::CrossEntropy {
                class_weights,
                label_smoothing,
            } => {
                let weights = class_weights.as_deref();
                cross_entropy(logits, label as usize, weights, *label_smoothing, gradient)
            }
            Self::BceWithLogits => binary_cross_entropy(logits, label, gradient),
        }
    }
}

fn rows<'a, R: Real>(
    logits: &'a [R],
    labels: &'a [u32],
) -> impl Iterator<Item = (&'a [R], &'a u32)> {
    let outputs = logits.len() / labels.len().max(1);
    logits.chunks_exact(outputs.max(1)).zip(labels)
}

/// With weights w, smoothing s, C classes and log-probabilities l, a row of class y has the loss
/// `-(1 - s) w_y l_y - s / C Σ w_c l_c` and the weight w_y (torch, `cross_entropy_loss_label_smoothing`).
fn cross_entropy<R: Real>(
    logits: &[R],
    label: usize,
    weights: Option<&[f64]>,
    smoothing: f64,
    gradient: Option<&mut [f64]>,
) -> LossSum {
    let logarithms = log_softmax(logits);
    let spread = smoothing / logits.len() as f64;
    let weight_of = |class: usize| weights.map_or(1.0, |weights| weights[class]);
    let share_of = |class: usize| {
        let own = if class == label { 1.0 - smoothing } else { 0.0 };
        (own + spread) * weight_of(class)
    };
    let mut sum = 0.0;
    let mut shares = 0.0;
    for (class, logarithm) in logarithms.iter().enumerate() {
        let share = share_of(class);
        if share != 0.0 {
            sum -= share * logarithm;
            shares += share;
        }
    }
    if let Some(gradient) = gradient {
        for (class, target) in gradient.iter_mut().enumerate() {
            *target = shares * libm::exp(logarithms[class]) - share_of(class);
        }
    }
    LossSum {
        sum,
        weight: weight_of(label),
    }
}

fn binary_cross_entropy<R: Real>(
    logits: &[R],
    label: u32,
    gradient: Option<&mut [f64]>,
) -> LossSum {
    let target_of = |output: usize| match logits.len() {
        1 => f64::from(label),
        _ if output == label as usize => 1.0,
        _ => 0.0,
    };
    let mut sum = 0.0;
    for (output, logit) in logits.iter().enumerate() {
        let logit = logit.to_f64();
        let softplus = logit.max(0.0) + libm::log1p(libm::exp(-logit.abs()));
        sum += softplus - logit * target_of(output);
    }
    if let Some(gradient) = gradient {
        for (output, target) in gradient.iter_mut().enumerate() {
            *target = sigmoid(logits[output].to_f64()) - target_of(output);
        }
    }
    LossSum {
        sum,
        weight: logits.len() as f64,
    }
}

fn log_softmax<R: Real>(logits: &[R]) -> Vec<f64> {
    let highest = logits.iter().fold(f64::NEG_INFINITY, |highest, logit| {
        highest.max(logit.to_f64())
    });
    let shifted = logits.iter().map(|logit| logit.to_f64() - highest);
    let sum: f64 = shifted.clone().map(libm::exp).sum();
    let logarithm = libm::log(sum);
    shifted.map(|value| value - logarithm).collect()
}

/// `1 / (1 + e^-x)` without overflow.
fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + libm::exp(-x))
    } else {
        let exponential = libm::exp(x);
        exponential / (1.0 + exponential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_gradient(loss: &Loss, outputs: usize) {
        let labels = [1, 0, 1];
        let logits: Vec<f64> = (0..3 * outputs).map(|i| (i * 7 % 5) as f64 - 1.7).collect();
        let mut gradient = vec![0.0; logits.len()];
        let value = loss.gradient(&logits, &labels, 0.5, &mut gradient);
        assert_eq!(value, loss.value(&logits, &labels));
        for i in 0..logits.len() {
            let at = |step: f64| {
                let mut moved = logits.clone();
                moved[i] += step;
                loss.value(&moved, &labels).mean()
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((0.5 * slope - gradient[i]).abs() < 1e-9, "{loss:?} {i}");
        }
    }

    #[test]
    fn gradients_are_slopes() {
        check_gradient(&Loss::CROSS_ENTROPY, 2);
        check_gradient(&Loss::CROSS_ENTROPY, 5);
        check_gradient(
            &Loss::CrossEntropy {
                class_weights: Some(vec![0.3, 2.0, 1.0]),
                label_smoothing: 0.1,
            },
            3,
        );
        check_gradient(&Loss::BceWithLogits, 1);
        check_gradient(&Loss::BceWithLogits, 4);
    }

    /// Worked by hand from torch's definition: two rows, logits 0, so that every log-probability is
    /// -ln 2.
    #[test]
    fn class_weights_and_smoothing_are_those_of_torch() {
        let loss = Loss::CrossEntropy {
            class_weights: Some(vec![1.0, 3.0]),
            label_smoothing: 0.2,
        };
        let value = loss.value(&[0.0; 4], &[0, 1]);
        let expected = (0.8 * 4.0 + 0.1 * 8.0) / 4.0 * std::f64::consts::LN_2;
        assert!((value.mean() - expected).abs() < 1e-15);
    }

    #[test]
    fn large_logits_overflow_nowhere() {
        let mut gradient = [0.0_f32; 2];
        let logits = [3000.0_f32, -3000.0];
        let value = Loss::CROSS_ENTROPY.gradient(&logits, &[1], 1.0, &mut gradient);
        assert_eq!(value.mean(), 6000.0);
        assert_eq!(gradient, [1.0, -1.0]);
        let value = Loss::BceWithLogits.gradient(&logits, &[0, 0], 1.0, &mut gradient);
        assert_eq!(value.mean(), 1500.0);
        assert_eq!(gradient, [0.5, 0.0]);
    }

    #[test]
    fn probabilities_of_one_output_are_those_of_two_classes() {
        let probabilities = Loss::BceWithLogits.probabilities(&[0.0_f32, 800.0], 1);
        assert_eq!(probabilities, [0.5, 0.5, 0.0, 1.0]);
        let probabilities = Loss::CROSS_ENTROPY.probabilities(&[1.0_f64, 1.0, 1.0, 1.0], 4);
        assert!(probabilities.iter().all(|p| (p - 0.25).abs() < 1e-15));
    }
}
