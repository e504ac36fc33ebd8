//! Sums whose order is fixed: 32 virtual lanes and one tree.
//!
//! Element `i` goes to lane `i mod 32`; each lane is one chain in ascending order; then lane `i` takes lane
//! `i + 16`, and so on with 8, 4, 2 and 1. So 4 registers of 8, 2 of 16 or a plain loop all give the same
//! bits. What is missing at the end is as if it were not there.

use crate::Real;

/// The number of virtual lanes.
pub const LANES: usize = 32;

/// Adds the lanes up by the tree.
#[inline(always)]
pub fn tree<R: Real>(mut lanes: [R; LANES]) -> R {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Folds the elements of `x` and `y` into the lanes with `step(lane, x, y)` and adds them up.
#[inline(always)]
fn fold<R: Real>(x: &[R], y: &[R], step: impl Fn(R, R, R) -> R) -> R {
    let mut lanes = [R::ZERO; LANES];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            lanes[lane] = step(lanes[lane], x[lane], y[lane]);
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane = step(*lane, x, y);
    }
    tree(lanes)
}

/// The sum of `x`.
#[inline(always)]
pub fn sum<R: Real>(x: &[R]) -> R {
    fold(x, x, |lane, x, _| lane + x)
}

/// The sum of `x * y`, each product fused with its addition.
#[inline(always)]
pub fn dot<R: Real>(x: &[R], y: &[R]) -> R {
    fold(x, y, |lane, x, y| x.mul_add(y, lane))
}

/// The sum of `(x - center)²`.
#[inline(always)]
pub fn squares_around<R: Real>(x: &[R], center: R) -> R {
    fold(x, x, |lane, x, _| {
        let difference = x - center;
        difference.mul_add(difference, lane)
    })
}

/// The sum of `x * ((y - center) * factor)`, the outer product fused with its addition.
#[inline(always)]
pub fn dot_normalized<R: Real>(x: &[R], y: &[R], center: R, factor: R) -> R {
    fold(x, y, |lane, x, y| x.mul_add((y - center) * factor, lane))
}

/// The greatest of `x`, minus infinity where there is none. NaN is passed over.
#[inline(always)]
pub fn greatest<R: Real>(x: &[R]) -> R {
    let mut lanes = [R::LEAST; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = chunk[lane].greater(lanes[lane]);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = value.greater(*lane);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = lanes[lane + half].greater(lanes[lane]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Long sums are cut in blocks of this many numbers, each by the 32 lanes.
const BLOCK: usize = 4096;

#[inline(always)]
pub(crate) fn sum_of_squares_tile<R: Real>(x: &[R]) -> R {
    dot(x, x)
}

/// The sum of the squares of all numbers: blocks of 4096, each in `R` by the 32 lanes, added in `f64` in
/// ascending order. Reads 4 bytes a number.
pub fn sum_of_squares<R: Real>(x: &[R]) -> f64 {
    let blocks = x.len().div_ceil(BLOCK);
    let mut sums = vec![R::ZERO; blocks];
    crate::parallel::over_blocks(&mut sums, 16, BLOCK, |index, sum| {
        *sum = R::sum_of_squares_tile(&x[index * BLOCK..x.len().min((index + 1) * BLOCK)]);
    });
    sums.iter().fold(0.0, |total, sum| total + sum.to_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_goes_lane_by_lane_and_then_up_the_tree() {
        let x: Vec<f32> = (0..1000)
            .map(|i| ((i * 7919) % 1000) as f32 * 1e-3 + 1e-7)
            .collect();
        for len in [0, 1, 31, 32, 33, 64, 100, 1000] {
            let mut lanes = [0f32; 32];
            for (index, value) in x[..len].iter().enumerate() {
                lanes[index % 32] += value;
            }
            for half in [16, 8, 4, 2, 1] {
                for lane in 0..half {
                    lanes[lane] += lanes[lane + half];
                }
            }
            assert_eq!(sum(&x[..len]).to_bits(), lanes[0].to_bits());
        }
    }

    #[test]
    fn the_greatest_is_found_anywhere() {
        for len in [1, 5, 32, 70] {
            for place in 0..len {
                let mut x = vec![-3f64; len];
                x[place] = 2.0;
                assert_eq!(greatest(&x), 2.0);
            }
        }
        assert_eq!(greatest::<f32>(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn sums_of_squares_do_not_follow_the_threads() {
        let x: Vec<f32> = (0..300_001).map(|i| (i as f32).sqrt() * 0.01).collect();
        let one = crate::parallel::with_threads(1, || sum_of_squares(&x));
        let exact: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        assert!((one / exact - 1.0).abs() < 1e-6);
        for threads in 2..=8 {
            let many = crate::parallel::with_threads(threads, || sum_of_squares(&x));
            assert_eq!(one.to_bits(), many.to_bits());
        }
    }
}
