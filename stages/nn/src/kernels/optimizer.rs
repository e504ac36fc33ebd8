//! One step of an optimizer over one tensor, in place and in one pass over memory.
//!
//! The order of operations is torch's (`torch/optim/adam.py`, `adamw.py`, `sgd.py`, the plain path); what
//! is the same for all numbers is computed in `f64` and rounded once. Adam reads 16 bytes a number and
//! writes 12.

use crate::Real;
use crate::kernels::reduce;
use crate::parallel::{Shared, TILE, tiles};

/// Adam (Kingma and Ba 2014) or, with decoupled weight decay, AdamW (Loshchilov and Hutter 2017).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// The decay rates of the two moments.
    pub betas: [f64; 2],
    /// What is added to the corrected root of the second moment.
    pub epsilon: f64,
    /// AdamW: parameters are first multiplied by `1 - learning_rate * weight_decay`.
    pub weight_decay: f64,
    /// Adam: `l2 * parameter` is first added to the gradient.
    pub l2: f64,
    /// The number of this step, from 1.
    pub step: u64,
    /// What gradients are first multiplied by: 1, or less where they are clipped.
    pub gradient_scale: f64,
}

/// One step of stochastic gradient descent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// The share of the velocity that is kept.
    pub momentum: f64,
    /// `l2 * parameter` is first added to the gradient.
    pub l2: f64,
    /// What gradients are first multiplied by.
    pub gradient_scale: f64,
}

/// The same tile of the four buffers.
#[doc(hidden)]
pub struct AdamTile<'a, R> {
    parameters: &'a mut [R],
    gradients: &'a [R],
    first: &'a mut [R],
    second: &'a mut [R],
}

/// `base` to the power of `exponent`, by squaring.
fn power(base: f64, exponent: u64) -> f64 {
    libm::pow(base, exponent as f64)
}

/// Numbers that are looked at together for having nothing to do.
const REST: usize = 64;

/// Whether all of `x` are 0, of either sign.
#[inline(always)]
fn rests<R: Real>(x: &[R; REST]) -> bool {
    x[0] == R::ZERO && reduce::magnitudes(x) == R::ZERO
}

/// What is the same for all numbers of a step, rounded.
struct Scalars<R> {
    scale: R,
    l2: R,
    keep: R,
    kept: [R; 2],
    new: [R; 2],
    root: R,
    epsilon: R,
    step_size: R,
}

#[inline(always)]
fn update<R: Real>(with: &Scalars<R>, tensors: AdamTile<'_, R>) {
    let moments = tensors.first.iter_mut().zip(tensors.second.iter_mut());
    let numbers = tensors.parameters.iter_mut().zip(tensors.gradients);
    for ((parameter, &gradient), (first, second)) in numbers.zip(moments) {
        let gradient = with.l2.mul_add(*parameter, gradient * with.scale);
        let decayed = *parameter * with.keep;
        *first = *first * with.kept[0] + gradient * with.new[0];
        *second = *second * with.kept[1] + gradient * gradient * with.new[1];
        let denominator = second.sqrt() / with.root + with.epsilon;
        *parameter = decayed + with.step_size * (*first / denominator);
    }
}

/// A step of Adam. Where neither a gradient nor a moment was ever anything but 0, as in the rows of an
/// embedding that no token has named yet, the update is exactly 0 and only the decay is left to do.
#[inline(always)]
pub(crate) fn adam_tile<R: Real>(step: &AdamStep, tensors: AdamTile<'_, R>) {
    let [beta1, beta2] = step.betas;
    let corrections = [1.0 - power(beta1, step.step), 1.0 - power(beta2, step.step)];
    let with = Scalars {
        scale: R::from_f64(step.gradient_scale),
        l2: R::from_f64(step.l2),
        keep: R::from_f64(1.0 - step.learning_rate * step.weight_decay),
        kept: step.betas.map(R::from_f64),
        new: step.betas.map(|beta| R::from_f64(1.0 - beta)),
        root: R::from_f64(corrections[1].sqrt()),
        epsilon: R::from_f64(step.epsilon),
        step_size: R::from_f64(-(step.learning_rate / corrections[0])),
    };
    let may_rest = step.l2 == 0.0 && step.epsilon > 0.0 && step.gradient_scale.is_finite();
    if !may_rest {
        return update(&with, tensors);
    }
    let (parameters, parameters_rest) = tensors.parameters.as_chunks_mut::<REST>();
    let (gradients, gradients_rest) = tensors.gradients.as_chunks::<REST>();
    let (first, first_rest) = tensors.first.as_chunks_mut::<REST>();
    let (second, second_rest) = tensors.second.as_chunks_mut::<REST>();
    let moments = first.iter_mut().zip(second);
    for ((parameters, gradients), (first, second)) in
        parameters.iter_mut().zip(gradients).zip(moments)
    {
        if rests(gradients) && rests(first) && rests(second) {
            if with.keep != R::ONE {
                for parameter in parameters {
                    *parameter *= with.keep;
                }
            }
        } else {
            for place in 0..REST {
                let gradient = with
                    .l2
                    .mul_add(parameters[place], gradients[place] * with.scale);
                let decayed = parameters[place] * with.keep;
                first[place] = first[place] * with.kept[0] + gradient * with.new[0];
                second[place] = second[place] * with.kept[1] + gradient * gradient * with.new[1];
                let denominator = second[place].sqrt() / with.root + with.epsilon;
                parameters[place] = decayed + with.step_size * (first[place] / denominator);
            }
        }
    }
    let tensors = AdamTile {
        parameters: parameters_rest,
        gradients: gradients_rest,
        first: first_rest,
        second: second_rest,
    };
    update(&with, tensors);
}

#[inline(always)]
pub(crate) fn sgd_tile<R: Real>(
    step: &SgdStep,
    parameters: &mut [R],
    gradients: &[R],
    velocity: Option<&mut [R]>,
) {
    let rate = R::from_f64(-step.learning_rate);
    let (l2, scale) = (R::from_f64(step.l2), R::from_f64(step.gradient_scale));
    let momentum = R::from_f64(step.momentum);
    match velocity {
        None => {
            for (parameter, &gradient) in parameters.iter_mut().zip(gradients) {
                let gradient = l2.mul_add(*parameter, gradient * scale);
                *parameter += rate * gradient;
            }
        }
        Some(velocity) => {
            let numbers = parameters.iter_mut().zip(gradients);
            for ((parameter, &gradient), velocity) in numbers.zip(velocity) {
                let gradient = l2.mul_add(*parameter, gradient * scale);
                *velocity = *velocity * momentum + gradient;
                *parameter += rate * *velocity;
            }
        }
    }
}

/// A step of Adam or AdamW over one tensor; `first` and `second` are its moments, 0 before the first step.
pub fn adam<R: Real>(
    step: &AdamStep,
    parameters: &mut [R],
    gradients: &[R],
    first: &mut [R],
    second: &mut [R],
) {
    let len = parameters.len();
    assert!(
        gradients.len() == len && first.len() == len && second.len() == len,
        "buffers of one length"
    );
    let (parameters, first, second) = (
        Shared::new(parameters),
        Shared::new(first),
        Shared::new(second),
    );
    tiles(len.div_ceil(TILE), len * 4, |tile| {
        let start = tile * TILE;
        let count = TILE.min(len - start);
        R::adam_tile(
            step,
            AdamTile {
                parameters: part(parameters, start, count),
                gradients: &gradients[start..start + count],
                first: part(first, start, count),
                second: part(second, start, count),
            },
        );
    });
}

/// A step of gradient descent over one tensor; `velocity`, 0 before the first step, where there is momentum.
pub fn sgd<R: Real>(
    step: &SgdStep,
    parameters: &mut [R],
    gradients: &[R],
    velocity: Option<&mut [R]>,
) {
    let len = parameters.len();
    assert_eq!(gradients.len(), len, "buffers of one length");
    let parameters = Shared::new(parameters);
    let velocity = velocity.map(|velocity| {
        assert_eq!(velocity.len(), len, "buffers of one length");
        Shared::new(velocity)
    });
    tiles(len.div_ceil(TILE), len * 2, |tile| {
        let start = tile * TILE;
        let count = TILE.min(len - start);
        R::sgd_tile(
            step,
            part(parameters, start, count),
            &gradients[start..start + count],
            velocity.map(|velocity| part(velocity, start, count)),
        );
    });
}

#[expect(unsafe_code, reason = "tiles write to their own numbers")]
fn part<'a, R>(buffer: Shared<'a, R>, start: usize, len: usize) -> &'a mut [R] {
    // SAFETY: tiles do not overlap, and each takes its part of a buffer once.
    unsafe { buffer.part(start, len) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::dispatch::{Level, with_level};
    use crate::kernels::gemm::tests::numbers;
    use crate::parallel::with_threads;

    const STEP: AdamStep = AdamStep {
        learning_rate: 1e-3,
        betas: [0.9, 0.999],
        epsilon: 1e-8,
        weight_decay: 0.01,
        l2: 0.0,
        step: 3,
        gradient_scale: 1.0,
    };

    #[test]
    fn every_level_and_number_of_threads_takes_the_same_step() {
        let len = 70_003;
        let run = |level, threads| {
            let mut tensors = [1, 2, 3, 4].map(|seed| numbers::<f32>(len, seed));
            tensors[3].iter_mut().for_each(|second| *second *= *second);
            with_level(level, || {
                with_threads(threads, || {
                    let [parameters, gradients, first, second] = &mut tensors;
                    adam(&STEP, parameters, gradients, first, second);
                    let step = SgdStep {
                        learning_rate: 0.1,
                        momentum: 0.9,
                        l2: 0.01,
                        gradient_scale: 0.5,
                    };
                    sgd(&step, parameters, gradients, Some(first));
                    sgd(&step, parameters, gradients, None);
                });
            });
            tensors
        };
        let reference = run(Level::Scalar, 1);
        for level in Level::ALL {
            for threads in [1, 2, 7] {
                assert_eq!(reference, run(level, threads));
            }
        }
    }

    #[test]
    fn the_first_step_of_adam_has_the_size_of_the_learning_rate() {
        let step = AdamStep {
            step: 1,
            weight_decay: 0.0,
            ..STEP
        };
        let (mut parameters, gradients) = ([1f64, -2.0, 0.5], [3.0, -1e-3, 0.0]);
        let (mut first, mut second) = ([0.0; 3], [0.0; 3]);
        adam(&step, &mut parameters, &gradients, &mut first, &mut second);
        assert!((parameters[0] - (1.0 - 1e-3)).abs() < 1e-9);
        assert!((parameters[1] - (-2.0 + 1e-3)).abs() < 1e-7);
        assert_eq!(parameters[2], 0.5);
    }

    #[test]
    fn what_has_nothing_to_do_does_as_all_others() {
        let len = 1000;
        for (weight_decay, l2) in [(0.0, 0.0), (0.01, 0.0), (0.0, 0.01)] {
            let mut tensors = [1, 2, 3, 4].map(|seed| numbers::<f32>(len, seed));
            tensors[3].iter_mut().for_each(|second| *second *= *second);
            let [parameters, gradients, first, second] = &mut tensors;
            // A stretch without gradient, within it one without moments too, and zeros of both signs.
            gradients[100..900].fill(0.0);
            gradients[300..350].fill(-0.0);
            first[200..800].fill(0.0);
            second[200..800].fill(0.0);
            parameters[400..420].fill(0.0);
            parameters[420..440].fill(-0.0);
            let step = AdamStep {
                weight_decay,
                l2,
                ..STEP
            };
            let expected: Vec<u32> = (0..len)
                .map(|i| {
                    let one = |x: f64| x as f32;
                    let gradient = one(l2).mul_add(parameters[i], gradients[i]);
                    let m = first[i] * 0.9 + gradient * one(1.0 - 0.9);
                    let v = second[i] * 0.999 + gradient * gradient * one(1.0 - 0.999);
                    let root = one((1.0 - libm::pow(0.999, 3.0)).sqrt());
                    let size = one(-(1e-3 / (1.0 - libm::pow(0.9, 3.0))));
                    let decayed = parameters[i] * one(1.0 - 1e-3 * weight_decay);
                    (decayed + size * (m / (v.sqrt() / root + 1e-8))).to_bits()
                })
                .collect();
            adam(&step, parameters, gradients, first, second);
            let got: Vec<u32> = parameters.iter().map(|x| x.to_bits()).collect();
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn a_row_without_gradient_or_moments_stays() {
        let step = AdamStep {
            weight_decay: 0.0,
            ..STEP
        };
        let mut parameters = numbers::<f32>(100, 1);
        let before = parameters.clone();
        let (mut first, mut second) = (vec![0.0; 100], vec![0.0; 100]);
        adam(&step, &mut parameters, &[0.0; 100], &mut first, &mut second);
        assert_eq!(parameters, before);
    }
}
