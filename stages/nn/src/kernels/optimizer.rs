//! One step of an optimizer over one tensor, in place and in one pass over memory.
//!
//! The order of operations is torch's (`torch/optim/adam.py`, `adamw.py`, `sgd.py`, the plain path); what
//! is the same for all numbers is computed in `f64` and rounded once. Adam reads 16 bytes a number and
//! writes 12.

use crate::Real;
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
    pub(super) parameters: &'a mut [R],
    pub(super) gradients: &'a [R],
    pub(super) first: &'a mut [R],
    pub(super) second: &'a mut [R],
}

/// `base` to the power of `exponent`, by squaring.
fn power(base: f64, exponent: u64) -> f64 {
    libm::pow(base, exponent as f64)
}

/// What is the same for all numbers of a step, rounded.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Scalars<R> {
    scale: R,
    l2: R,
    kept: [R; 2],
    new: [R; 2],
    epsilon: R,
    pub(super) rate: Rate<R>,
}

/// The same for a device, as `optimizer.cu` reads it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct AdamScalars {
    scale: f32,
    l2: f32,
    kept: [f32; 2],
    new: [f32; 2],
    epsilon: f32,
    keep: f32,
    root: f32,
    step_size: f32,
}

/// What is the same for all numbers of a step of descent, as `optimizer.cu` reads it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct SgdScalars {
    scale: f32,
    l2: f32,
    momentum: f32,
    rate: f32,
}

/// What changes from step to step even where nothing else does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate<R> {
    pub(super) keep: R,
    root: R,
    pub(super) step_size: R,
}

impl SgdStep {
    /// For a device.
    pub(crate) fn device_scalars(&self) -> SgdScalars {
        SgdScalars {
            scale: self.gradient_scale as f32,
            l2: self.l2 as f32,
            momentum: self.momentum as f32,
            rate: -self.learning_rate as f32,
        }
    }
}

impl AdamStep {
    /// For a device.
    pub(crate) fn device_scalars(&self) -> AdamScalars {
        let with = self.scalars::<f32>();
        AdamScalars {
            scale: with.scale,
            l2: with.l2,
            kept: with.kept,
            new: with.new,
            epsilon: with.epsilon,
            keep: with.rate.keep,
            root: with.rate.root,
            step_size: with.rate.step_size,
        }
    }

    pub(super) fn scalars<R: Real>(&self) -> Scalars<R> {
        let [beta1, beta2] = self.betas;
        let corrections = [1.0 - power(beta1, self.step), 1.0 - power(beta2, self.step)];
        Scalars {
            scale: R::from_f64(self.gradient_scale),
            l2: R::from_f64(self.l2),
            kept: self.betas.map(R::from_f64),
            new: self.betas.map(|beta| R::from_f64(1.0 - beta)),
            epsilon: R::from_f64(self.epsilon),
            rate: Rate {
                keep: R::from_f64(1.0 - self.learning_rate * self.weight_decay),
                root: R::from_f64(corrections[1].sqrt()),
                step_size: R::from_f64(-(self.learning_rate / corrections[0])),
            },
        }
    }
}

/// What a parameter becomes, given its moments after this step.
#[inline(always)]
pub(super) fn moved<R: Real>(parameter: R, first: R, second: R, epsilon: R, rate: &Rate<R>) -> R {
    let denominator = second.sqrt() / rate.root + epsilon;
    parameter * rate.keep + rate.step_size * (first / denominator)
}

#[inline(always)]
pub(crate) fn adam_tile<R: Real>(with: &Scalars<R>, tensors: AdamTile<'_, R>) {
    let moments = tensors.first.iter_mut().zip(tensors.second.iter_mut());
    let numbers = tensors.parameters.iter_mut().zip(tensors.gradients);
    for ((parameter, &gradient), (first, second)) in numbers.zip(moments) {
        let gradient = with.l2.mul_add(*parameter, gradient * with.scale);
        *first = *first * with.kept[0] + gradient * with.new[0];
        *second = *second * with.kept[1] + gradient * gradient * with.new[1];
        *parameter = moved(*parameter, *first, *second, with.epsilon, &with.rate);
    }
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
    let with = step.scalars();
    tiles(len.div_ceil(TILE), len * 4, |tile| {
        let start = tile * TILE;
        let count = TILE.min(len - start);
        R::adam_tile(
            &with,
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
