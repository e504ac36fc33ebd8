//! Elementary functions of `f32` as fixed sequences of `+ - * /`, fused multiply-adds and choices.
//!
//! They hold no branch, no table and no reduction, so the compiler may compute 1, 8 or 16 of them at once
//! and the bits stay the same. Each is within 2 units in the last place (the tests compare with the `libm`
//! crate in `f64` over dense grids). The coefficients are Chebyshev fits made for this file with 40 digits
//! of working precision; each polynomial's largest error stands beside it.
#![expect(
    clippy::excessive_precision,
    reason = "coefficients are written as they were fitted"
)]

/// `polynomial(x, [a, b, c])` is `(a * x + b) * x + c`, by Horner with fused multiply-adds.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[0];
    let mut index = 1;
    while index < N {
        sum = sum.mul_add(x, coefficients[index]);
        index += 1;
    }
    sum
}

/// e to the power of `x`: 0 below -104, infinity above 89, subnormal results rounded once, NaN for NaN.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2` and ln 2 in two parts (Cody and Waite), then
/// `1 + r + r² P(r)` times `2^n` in two steps, since `2^n` itself may be out of range.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Added and taken away again, it rounds to an integer, which its lowest bits then are.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_375;
    const LN_2_LOW: f32 = -2.121_944_400_546_905_8e-4;

    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_HIGH, x);
    let r = n.mul_add(-LN_2_LOW, r);
    // error 6.5e-8 of r² P(r)
    let p = polynomial(
        r,
        [
            0.00139261835877,
            0.00836317905272,
            0.0416665546172,
            0.166665769897,
            0.5,
        ],
    );
    let value = (r * r).mul_add(p, r) + 1.0;
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let rest = n.wrapping_sub(half);
    value * power_of_two(half) * power_of_two(rest)
}

/// `2^n` for `n` from -126 to 127; some number for others, which only NaN asks for.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// The natural logarithm, computed in `f64` by the `libm` crate and rounded: losses take few of them.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    libm::log(f64::from(x)) as f32
}

/// The hyperbolic tangent: `x + x³ P(x²)` up to 0.625, `1 - 2 / (exp(2 |x|) + 1)` beyond.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let magnitude = x.abs();
    let square = x * x;
    // error 4.3e-8 of x³ P(x²)
    let p = polynomial(
        square,
        [
            -0.00609671416591,
            0.0209971789991,
            -0.0538509095785,
            0.13332769737,
            -0.333333289441,
        ],
    );
    let small = (square * x).mul_add(p, x);
    let large = 1.0 - 2.0 / (exp(magnitude + magnitude) + 1.0);
    let value = if magnitude < 0.625 { small } else { large };
    value.copysign(x)
}

/// The error function: `x + x P(x²)` up to 1, `1 - exp(-Q(|x|))` beyond, where Q is fitted to
/// `-ln(erfc)` and from 4 on the result is 1.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let magnitude = x.abs();
    let square = x * x;
    // error 1.2e-9
    let p = polynomial(
        square,
        [
            7.87587506269e-5,
            -0.000801686428717,
            0.00518908742343,
            -0.0268542120106,
            0.112835947152,
            -0.376126266667,
            0.128379165848,
        ],
    );
    let small = x.mul_add(p, x);
    let bounded = if magnitude > 4.0 { 4.0 } else { magnitude };
    // error 1.7e-8
    let q = polynomial(
        bounded,
        [
            -1.63715141459e-6,
            4.60580426892e-5,
            -0.000596805625661,
            0.00475959629327,
            -0.0264211360057,
            0.110080082949,
            0.631826051559,
            1.13023343484,
            -0.000320138049678,
        ],
    );
    let large = 1.0 - exp(-q);
    let value = if magnitude < 1.0 { small } else { large };
    value.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance of `got` from `exact` in units of the last place of an `f32` there.
    fn units(got: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        if got == nearest {
            return 0.0;
        }
        let next = f32::from_bits(nearest.abs().to_bits() + 1);
        let unit = f64::from(next) - f64::from(nearest.abs());
        (f64::from(got) - exact).abs() / unit
    }

    fn worst(
        function: impl Fn(f32) -> f32,
        exact: impl Fn(f64) -> f64,
        from: f32,
        to: f32,
    ) -> (f64, f32) {
        let steps = 400_000;
        let mut worst = (0.0, from);
        for step in 0..=steps {
            let x = from + (to - from) * (step as f32 / steps as f32);
            let error = units(function(x), exact(f64::from(x)));
            if error > worst.0 {
                worst = (error, x);
            }
        }
        worst
    }

    #[test]
    fn exp_is_within_one_unit() {
        for (from, to) in [(-104.0, 88.8), (-1.0, 1.0), (-87.4, -87.2), (-1e-6, 1e-6)] {
            let (error, at) = worst(exp, libm::exp, from, to);
            assert!(error < 1.1, "{error} units at {at}");
        }
    }

    #[test]
    fn tanh_is_within_two_units() {
        for (from, to) in [(-10.0, 10.0), (-0.7, 0.7), (-1e-5, 1e-5)] {
            let (error, at) = worst(tanh, libm::tanh, from, to);
            assert!(error < 2.0, "{error} units at {at}");
        }
    }

    #[test]
    fn erf_is_within_two_units() {
        for (from, to) in [(-5.0, 5.0), (-1.1, 1.1), (-1e-5, 1e-5)] {
            let (error, at) = worst(erf, libm::erf, from, to);
            assert!(error < 2.0, "{error} units at {at}");
        }
    }

    #[test]
    fn ln_is_within_half_a_unit() {
        let (error, at) = worst(ln, libm::log, 1e-3, 100.0);
        assert!(error < 0.51, "{error} units at {at}");
    }

    #[test]
    fn the_ends_are_as_in_the_textbook() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(0.0).to_bits(), 1f32.to_bits());
        assert_eq!(exp(-0.0).to_bits(), 1f32.to_bits());
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-100.0) > 0.0);
        for sign in [1.0, -1.0] {
            assert_eq!(tanh(sign * f32::INFINITY), sign);
            assert_eq!(erf(sign * f32::INFINITY), sign);
            assert_eq!(tanh(sign * 0.0).to_bits(), (sign * 0.0).to_bits());
            assert_eq!(erf(sign * 0.0).to_bits(), (sign * 0.0).to_bits());
        }
        assert!(tanh(f32::NAN).is_nan());
        assert!(erf(f32::NAN).is_nan());
        assert_eq!(ln(0.0), f32::NEG_INFINITY);
        assert!(ln(-1.0).is_nan());
    }
}
