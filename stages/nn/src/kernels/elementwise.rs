//! Kernels in which every number stands for itself: no sums, so nothing but the formula fixes the bits.
//!
//! Each reads and writes its buffers once; beyond the cache memory is their roof.

use crate::Real;
use crate::parallel::{over, zip, zip_mut};

#[inline(always)]
pub(crate) fn add_tile<R: Real>(x: &mut [R], y: &[R]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[inline(always)]
pub(crate) fn scale_tile<R: Real>(x: &mut [R], factor: R) {
    for x in x {
        *x *= factor;
    }
}

#[inline(always)]
pub(crate) fn axpy_tile<R: Real>(x: &mut [R], factor: R, y: &[R]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x = factor.mul_add(y, *x);
    }
}

#[inline(always)]
pub(crate) fn gelu_tile<R: Real>(y: &mut [R], x: &[R]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = x.gelu();
    }
}

#[inline(always)]
pub(crate) fn gelu_backward_tile<R: Real>(gradient: &mut [R], x: &mut [R]) {
    for (gradient, x) in gradient.iter_mut().zip(x) {
        *gradient *= x.gelu_derivative();
        *x = x.gelu();
    }
}

#[inline(always)]
pub(crate) fn tanh_tile<R: Real>(x: &mut [R]) {
    for x in x {
        *x = x.tanh();
    }
}

#[inline(always)]
pub(crate) fn tanh_backward_tile<R: Real>(gradient: &mut [R], y: &[R]) {
    for (gradient, &y) in gradient.iter_mut().zip(y) {
        *gradient *= (-y).mul_add(y, R::ONE);
    }
}

#[inline(always)]
pub(crate) fn relu_tile<R: Real>(x: &mut [R]) {
    for x in x {
        *x = if *x < R::ZERO { R::ZERO } else { *x };
    }
}

#[inline(always)]
pub(crate) fn relu_backward_tile<R: Real>(gradient: &mut [R], y: &[R]) {
    for (gradient, &y) in gradient.iter_mut().zip(y) {
        *gradient = if y > R::ZERO { *gradient } else { R::ZERO };
    }
}

#[inline(always)]
pub(crate) fn sigmoid_tile<R: Real>(x: &mut [R]) {
    for x in x {
        *x = x.sigmoid();
    }
}

#[inline(always)]
pub(crate) fn sigmoid_backward_tile<R: Real>(gradient: &mut [R], y: &[R]) {
    for (gradient, &y) in gradient.iter_mut().zip(y) {
        *gradient *= y * (R::ONE - y);
    }
}

/// `x += y`.
pub fn add<R: Real>(x: &mut [R], y: &[R]) {
    zip(x, y, R::add_tile);
}

/// `x *= factor`.
pub fn scale<R: Real>(x: &mut [R], factor: R) {
    over(x, |_, x| R::scale_tile(x, factor));
}

/// `x += factor * y`, fused.
pub fn axpy<R: Real>(x: &mut [R], factor: R, y: &[R]) {
    zip(x, y, |x, y| R::axpy_tile(x, factor, y));
}

/// `y = gelu(x)`, the form with erf.
pub fn gelu<R: Real>(y: &mut [R], x: &[R]) {
    zip(y, x, R::gelu_tile);
}

/// Turns the gradient of gelu's result into that of its argument `x`, and `x` into the result, both in place: so
/// that nobody has to keep the result, whose costly part the derivative needs anyway.
pub fn gelu_backward<R: Real>(gradient: &mut [R], x: &mut [R]) {
    zip_mut(gradient, x, R::gelu_backward_tile);
}

/// `x = tanh(x)`.
pub fn tanh<R: Real>(x: &mut [R]) {
    over(x, |_, x| R::tanh_tile(x));
}

/// Turns the gradient of tanh's result `y` into that of its argument, in place.
pub fn tanh_backward<R: Real>(gradient: &mut [R], y: &[R]) {
    zip(gradient, y, R::tanh_backward_tile);
}

/// `x = max(x, 0)`; NaN stays NaN.
pub fn relu<R: Real>(x: &mut [R]) {
    over(x, |_, x| R::relu_tile(x));
}

/// Turns the gradient of relu's result `y` into that of its argument, in place: 0 where `y` is 0.
pub fn relu_backward<R: Real>(gradient: &mut [R], y: &[R]) {
    zip(gradient, y, R::relu_backward_tile);
}

/// `x = 1 / (1 + exp(-x))`.
pub fn sigmoid<R: Real>(x: &mut [R]) {
    over(x, |_, x| R::sigmoid_tile(x));
}

/// Turns the gradient of sigmoid's result `y` into that of its argument, in place.
pub fn sigmoid_backward<R: Real>(gradient: &mut [R], y: &[R]) {
    zip(gradient, y, R::sigmoid_backward_tile);
}
