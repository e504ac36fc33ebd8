//! The numbers that networks compute with.

use crate::kernels::Scratch;
use crate::kernels::dispatch::Kernels;
use crate::kernels::gemm::Product;
use crate::math;

/// `f32`, which trains, or `f64`, which checks it.
///
/// No function of the platform's mathematical library stands behind these: each is a fixed sequence of
/// `+ - * /`, square roots and fused multiply-adds ([`math`]).
pub trait Real:
    Copy
    + Send
    + Sync
    + PartialOrd
    + Default
    + std::fmt::Debug
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + Kernels<Self>
    + Product
    + Scratch
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Minus infinity: what a maximum begins with.
    const LEAST: Self;
    /// What of a number can be added to it, or subtracted, and is lost in rounding.
    const NEGLIGIBLE: Self;

    /// The nearest value.
    fn from_f64(value: f64) -> Self;
    /// The same value.
    fn to_f64(self) -> f64;
    /// `self * factor + term`, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// The absolute value.
    fn abs(self) -> Self;
    /// e to the power of `self`; 0 and infinity where it leaves the range, NaN for NaN.
    fn exp(self) -> Self;
    /// The natural logarithm; minus infinity for 0, NaN below.
    fn ln(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;

    /// The greater of two; `self` where `other` is NaN, `other` where `self` is.
    #[inline(always)]
    fn greater(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    /// e to the power of `self`, and 0 where that is below 2^-64. What a softmax divides by is at least 1, so that
    /// such a part is lost in rounding; kept, it would turn what is multiplied with it into subnormal
    /// numbers, for which a processor takes a hundred times as long.
    #[inline(always)]
    fn exp_or_nothing(self) -> Self {
        let value = self.exp();
        if self < Self::from_f64(-44.361_419_555_836_5) {
            Self::ZERO
        } else {
            value
        }
    }

    /// `1 / (1 + exp(-self))`.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::ONE / (Self::ONE + (-self).exp())
    }

    /// The Gaussian error linear unit in its exact form, `x / 2 * (1 + erf(x / sqrt(2)))`
    /// (Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>).
    #[inline(always)]
    fn gelu(self) -> Self {
        let half = Self::from_f64(0.5);
        let scaled = self * Self::from_f64(std::f64::consts::FRAC_1_SQRT_2);
        (half * self) * (Self::ONE + scaled.erf())
    }

    /// The derivative of [`Real::gelu`]: `(1 + erf(x / sqrt(2))) / 2 + x * exp(-x² / 2) / sqrt(2π)`.
    #[inline(always)]
    fn gelu_derivative(self) -> Self {
        let half = Self::from_f64(0.5);
        let scaled = self * Self::from_f64(std::f64::consts::FRAC_1_SQRT_2);
        let cumulative = half * (Self::ONE + scaled.erf());
        let density = ((-half * self) * self).exp() * Self::from_f64(0.398_942_280_401_432_7);
        self.mul_add(density, cumulative)
    }
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LEAST: Self = Self::NEG_INFINITY;
    const NEGLIGIBLE: Self = 1.0 / (1_u32 << 26) as Self;

    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as Self
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        Self::mul_add(self, factor, term)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self::sqrt(self)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self::abs(self)
    }

    #[inline(always)]
    fn exp(self) -> Self {
        math::exp(self)
    }

    #[inline(always)]
    fn ln(self) -> Self {
        math::ln(self)
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        math::tanh(self)
    }

    #[inline(always)]
    fn erf(self) -> Self {
        math::erf(self)
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LEAST: Self = Self::NEG_INFINITY;
    const NEGLIGIBLE: Self = 1.0 / (1_u64 << 55) as Self;

    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        Self::mul_add(self, factor, term)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self::sqrt(self)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self::abs(self)
    }

    fn exp(self) -> Self {
        libm::exp(self)
    }

    fn ln(self) -> Self {
        libm::log(self)
    }

    fn tanh(self) -> Self {
        libm::tanh(self)
    }

    fn erf(self) -> Self {
        libm::erf(self)
    }
}
