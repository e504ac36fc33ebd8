//! Layer normalization: `y = (x - mean) / sqrt(variance + epsilon) * gamma + beta` over each row
//! (Ba, Kiros and Hinton 2016, <https://arxiv.org/abs/1607.06450>).
//!
//! Sums over a row go by the 32 lanes of [`reduce`]; the gradients of gamma and beta are column sums in
//! blocks of 256 rows, as in `column_sums`.

use crate::Real;
use crate::kernels::column_sums::BLOCK;
use crate::kernels::dropout::{Mask, Packed};
use crate::kernels::gemm::Matrix;
use crate::kernels::reduce;
use crate::parallel::{Shared, tiles};

/// Rows in a tile.
const ROWS: usize = 16;
/// Columns in a tile of the column sums.
const WIDTH: usize = 64;

/// What a layer normalization normalizes with.
#[derive(Clone, Copy, Debug)]
pub struct Normalization<'a, R> {
    /// The factor of each column.
    pub gamma: &'a [R],
    /// The term of each column.
    pub beta: &'a [R],
    /// What is added to the variance.
    pub epsilon: R,
}

#[inline(always)]
pub(crate) fn layer_norm_tile<R: Real>(
    norm: &Normalization<'_, R>,
    x: &[R],
    y: &mut [R],
    statistics: &mut [R],
) {
    let width = norm.gamma.len();
    let count = R::from_f64(width as f64);
    let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
    for ((x, y), statistics) in rows.zip(statistics.chunks_exact_mut(2)) {
        let mean = reduce::sum(x) / count;
        let variance = reduce::squares_around(x, mean) / count;
        let deviation = R::ONE / (variance + norm.epsilon).sqrt();
        statistics[0] = mean;
        statistics[1] = deviation;
        let columns = norm.gamma.iter().zip(norm.beta);
        for ((y, &x), (&gamma, &beta)) in y.iter_mut().zip(x).zip(columns) {
            *y = ((x - mean) * deviation).mul_add(gamma, beta);
        }
    }
}

#[inline(always)]
pub(crate) fn layer_norm_backward_tile<R: Real>(
    norm: &Normalization<'_, R>,
    x: &[R],
    statistics: &[R],
    gradient: &mut [R],
) {
    let width = norm.gamma.len();
    let count = R::from_f64(width as f64);
    let rows = x.chunks_exact(width).zip(gradient.chunks_exact_mut(width));
    for ((x, gradient), statistics) in rows.zip(statistics.chunks_exact(2)) {
        let (mean, deviation) = (statistics[0], statistics[1]);
        for (gradient, &gamma) in gradient.iter_mut().zip(norm.gamma) {
            *gradient *= gamma;
        }
        let shift = reduce::sum(gradient) / count;
        let slope = reduce::dot_normalized(gradient, x, mean, deviation) / count;
        for (gradient, &x) in gradient.iter_mut().zip(x) {
            let normalized = (x - mean) * deviation;
            *gradient = deviation * (*gradient - normalized.mul_add(slope, shift));
        }
    }
}

/// At most 64 columns of what the gradients of gamma and beta are made from.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Columns<'a, R> {
    x: Matrix<'a, R>,
    gradient: Matrix<'a, R>,
    statistics: &'a [R],
}

/// The same columns of the gradients of gamma and beta.
#[doc(hidden)]
pub struct ColumnSums<'a, R> {
    gamma: &'a mut [R],
    beta: &'a mut [R],
}

#[inline(always)]
pub(crate) fn layer_norm_columns_tile<R: Real>(rows: Columns<'_, R>, sums: ColumnSums<'_, R>) {
    let Columns {
        x,
        gradient,
        statistics,
    } = rows;
    for start in (0..x.rows).step_by(BLOCK) {
        let end = x.rows.min(start + BLOCK);
        let mut gamma = [R::ZERO; WIDTH];
        let mut beta = [R::ZERO; WIDTH];
        for row in start..end {
            let (mean, deviation) = (statistics[2 * row], statistics[2 * row + 1]);
            let numbers = gradient.row(row).iter().zip(x.row(row));
            let sums = gamma.iter_mut().zip(beta.iter_mut());
            for ((gamma, beta), (&gradient, &x)) in sums.zip(numbers) {
                *gamma = gradient.mul_add((x - mean) * deviation, *gamma);
                *beta += gradient;
            }
        }
        for (sum, block) in sums.gamma.iter_mut().zip(gamma) {
            *sum += block;
        }
        for (sum, block) in sums.beta.iter_mut().zip(beta) {
            *sum += block;
        }
    }
}

/// Normalizes each row of `x` `[rows, width]` into `y`; `statistics` `[rows, 2]` keeps each row's mean and
/// `1 / sqrt(variance + epsilon)` for the way back.
pub fn layer_norm<R: Real>(
    norm: &Normalization<'_, R>,
    x: &[R],
    y: &mut [R],
    statistics: &mut [R],
) {
    let width = norm.gamma.len();
    let rows = rows_of(norm, x.len());
    assert_eq!(y.len(), x.len(), "y has x's shape");
    assert_eq!(statistics.len(), 2 * rows, "statistics are [rows, 2]");
    let (y, statistics) = (Shared::new(y), Shared::new(statistics));
    tiles(rows.div_ceil(ROWS), x.len() * 4, |tile| {
        let first = tile * ROWS;
        let count = ROWS.min(rows - first);
        R::layer_norm_tile(
            norm,
            &x[first * width..][..count * width],
            part(y, first * width, count * width),
            part(statistics, 2 * first, 2 * count),
        );
    });
}

/// Dropout, the residual connection and the normalization behind them at once: `x = dropout(x) + residual`,
/// `y` its normalization. `x` then is what [`layer_norm_backward`] asks for; the gradient it gives is the
/// residual's, and, by `dropout` with the same mask, that of `x` as it was given.
pub fn add_layer_norm<R: Real>(
    norm: &Normalization<'_, R>,
    dropout: Option<(&Mask, Packed<'_>)>,
    x: &mut [R],
    residual: &[R],
    y: &mut [R],
    statistics: &mut [R],
) {
    let width = norm.gamma.len();
    let rows = rows_of(norm, x.len());
    assert_eq!(residual.len(), x.len(), "the residual has x's shape");
    assert_eq!(y.len(), x.len(), "y has x's shape");
    assert_eq!(statistics.len(), 2 * rows, "statistics are [rows, 2]");
    if let Some((_, packed)) = dropout {
        assert_eq!(packed.tokens(), rows, "x is [tokens, width]");
    }
    let operations = x.len() * 8;
    let (x, y, statistics) = (Shared::new(x), Shared::new(y), Shared::new(statistics));
    tiles(rows.div_ceil(ROWS), operations, |tile| {
        let first = tile * ROWS;
        let count = ROWS.min(rows - first);
        let x = part(x, first * width, count * width);
        if let Some((mask, packed)) = dropout.filter(|(mask, _)| !mask.drops_nothing()) {
            packed.walk(first, first + count, |token, row, position| {
                R::dropout_token(
                    mask,
                    row,
                    position,
                    &mut x[(token - first) * width..][..width],
                );
            });
        }
        R::add_tile(x, &residual[first * width..][..count * width]);
        R::layer_norm_tile(
            norm,
            x,
            part(y, first * width, count * width),
            part(statistics, 2 * first, 2 * count),
        );
    });
}

/// Turns the gradient of `y` into that of `x` in place, and adds those of gamma and beta to
/// `gamma_gradient` and `beta_gradient`. `x` and `statistics` are those of the way forward.
pub fn layer_norm_backward<R: Real>(
    norm: &Normalization<'_, R>,
    x: &[R],
    statistics: &[R],
    gradient: &mut [R],
    gamma_gradient: &mut [R],
    beta_gradient: &mut [R],
) {
    let width = norm.gamma.len();
    let rows = rows_of(norm, x.len());
    assert_eq!(gradient.len(), x.len(), "the gradient has x's shape");
    assert_eq!(statistics.len(), 2 * rows, "statistics are [rows, 2]");
    assert_eq!(
        gamma_gradient.len(),
        width,
        "gamma's gradient has its shape"
    );
    assert_eq!(beta_gradient.len(), width, "beta's gradient has its shape");
    let (gamma, beta) = (Shared::new(gamma_gradient), Shared::new(beta_gradient));
    let columns = Columns {
        x: Matrix::new(x, rows, width),
        gradient: Matrix::new(gradient, rows, width),
        statistics,
    };
    tiles(width.div_ceil(WIDTH), x.len() * 4, |tile| {
        let first = tile * WIDTH;
        let count = WIDTH.min(width - first);
        R::layer_norm_columns_tile(
            Columns {
                x: columns.x.part(0, rows, first, count),
                gradient: columns.gradient.part(0, rows, first, count),
                statistics,
            },
            ColumnSums {
                gamma: part(gamma, first, count),
                beta: part(beta, first, count),
            },
        );
    });
    let gradient = Shared::new(gradient);
    tiles(rows.div_ceil(ROWS), x.len() * 4, |tile| {
        let first = tile * ROWS;
        let count = ROWS.min(rows - first);
        R::layer_norm_backward_tile(
            norm,
            &x[first * width..][..count * width],
            &statistics[2 * first..][..2 * count],
            part(gradient, first * width, count * width),
        );
    });
}

fn rows_of<R>(norm: &Normalization<'_, R>, len: usize) -> usize {
    let width = norm.gamma.len();
    assert!(width > 0, "rows that are not empty");
    assert_eq!(norm.beta.len(), width, "beta has gamma's shape");
    assert_eq!(len % width, 0, "x is [rows, width]");
    len / width
}

#[expect(unsafe_code, reason = "tiles write to their own rows or columns")]
fn part<'a, R>(buffer: Shared<'a, R>, start: usize, len: usize) -> &'a mut [R] {
    // SAFETY: each row, and in the column sums each column, belongs to one tile, which takes its part of a
    // buffer once.
    unsafe { buffer.part(start, len) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dropout;
    use crate::kernels::dispatch::{Level, with_level};
    use crate::kernels::dropout;
    use crate::kernels::gemm::tests::numbers;
    use crate::parallel::with_threads;

    fn by_lanes(len: usize, value: impl Fn(usize, f32) -> f32) -> f32 {
        let mut lanes = [0f32; 32];
        for index in 0..len {
            lanes[index % 32] = value(index, lanes[index % 32]);
        }
        for half in [16, 8, 4, 2, 1] {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
        }
        lanes[0]
    }

    /// The formulas, spelled out.
    fn oracle(gamma: &[f32], beta: &[f32], x: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let width = gamma.len();
        let (mut y, mut statistics) = (Vec::new(), Vec::new());
        for x in x.chunks(width) {
            let mean = by_lanes(width, |i, sum| sum + x[i]) / width as f32;
            let variance =
                by_lanes(width, |i, sum| (x[i] - mean).mul_add(x[i] - mean, sum)) / width as f32;
            let deviation = 1.0 / (variance + 1e-5).sqrt();
            statistics.extend([mean, deviation]);
            y.extend((0..width).map(|i| ((x[i] - mean) * deviation).mul_add(gamma[i], beta[i])));
        }
        (y, statistics)
    }

    #[test]
    fn every_level_gives_the_bits_of_the_formulas() {
        for (rows, width) in [(1, 1), (3, 31), (40, 33), (17, 128), (300, 100)] {
            let (gamma, beta) = (numbers::<f32>(width, 1), numbers::<f32>(width, 2));
            let x = numbers::<f32>(rows * width, 3);
            let upstream = numbers::<f32>(rows * width, 4);
            let (expected, statistics) = oracle(&gamma, &beta, &x);
            let norm = Normalization {
                gamma: &gamma,
                beta: &beta,
                epsilon: 1e-5,
            };
            let mut first: Option<[Vec<f32>; 3]> = None;
            for level in Level::ALL {
                for threads in [1, 2, 8] {
                    with_level(level, || {
                        with_threads(threads, || {
                            let mut y = vec![0.0; x.len()];
                            let mut kept = vec![0.0; 2 * rows];
                            layer_norm(&norm, &x, &mut y, &mut kept);
                            assert_eq!(y, expected);
                            assert_eq!(kept, statistics);
                            let mut back = [upstream.clone(), vec![0.5; width], vec![0.0; width]];
                            let [dx, dgamma, dbeta] = &mut back;
                            layer_norm_backward(&norm, &x, &kept, dx, dgamma, dbeta);
                            assert_eq!(&back, first.get_or_insert(back.clone()));
                        });
                    });
                }
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for (rows, width) in [(1, 2), (3, 5), (2, 40)] {
            let gamma = numbers::<f64>(width, 1);
            let beta = numbers::<f64>(width, 2);
            let x = numbers::<f64>(rows * width, 3);
            let upstream = numbers::<f64>(rows * width, 4);
            let loss = |gamma: &[f64], beta: &[f64], x: &[f64]| {
                let norm = Normalization {
                    gamma,
                    beta,
                    epsilon: 1e-12,
                };
                let (mut y, mut statistics) = (vec![0.0; x.len()], vec![0.0; 2 * rows]);
                layer_norm(&norm, x, &mut y, &mut statistics);
                let loss: f64 = y.iter().zip(&upstream).map(|(y, u)| y * u).sum();
                (loss, statistics)
            };
            let (_, statistics) = loss(&gamma, &beta, &x);
            let norm = Normalization {
                gamma: &gamma,
                beta: &beta,
                epsilon: 1e-12,
            };
            let mut dx = upstream.clone();
            let (mut dgamma, mut dbeta) = (vec![0.0; width], vec![0.0; width]);
            layer_norm_backward(&norm, &x, &statistics, &mut dx, &mut dgamma, &mut dbeta);
            let step = 1e-6;
            let difference = |place: usize, which: usize| {
                let mut sides = [0.0; 2];
                for (side, sign) in sides.iter_mut().zip([1.0, -1.0]) {
                    let mut inputs = [gamma.clone(), beta.clone(), x.clone()];
                    inputs[which][place] += sign * step;
                    *side = loss(&inputs[0], &inputs[1], &inputs[2]).0;
                }
                (sides[0] - sides[1]) / (2.0 * step)
            };
            for (which, gradient) in [(0, &dgamma), (1, &dbeta), (2, &dx)] {
                for (place, &got) in gradient.iter().enumerate() {
                    let expected = difference(place, which);
                    assert!(
                        (got - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                        "{got} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn at_once_is_one_after_the_other() {
        let (rows, width) = (37, 70);
        let (gamma, beta) = (numbers::<f32>(width, 1), numbers::<f32>(width, 2));
        let norm = Normalization {
            gamma: &gamma,
            beta: &beta,
            epsilon: 1e-12,
        };
        let (z, residual) = (
            numbers::<f32>(rows * width, 3),
            numbers::<f32>(rows * width, 4),
        );
        let mask = Mask::new(&Dropout { seed: 1, epoch: 0 }, 5, 0.3);
        let packed = Packed {
            offsets: &[0, 10, 11, 37],
            rows: &[3, 2, 1],
        };
        let mut expected = z.clone();
        dropout(&mask, packed, width, &mut expected);
        crate::kernels::add(&mut expected, &residual);
        let (mut y, mut statistics) = (vec![0.0; z.len()], vec![0.0; 2 * rows]);
        layer_norm(&norm, &expected, &mut y, &mut statistics);
        for level in Level::ALL {
            with_level(level, || {
                let mut x = z.clone();
                let (mut got, mut kept) = (vec![0.0; z.len()], vec![0.0; 2 * rows]);
                add_layer_norm(
                    &norm,
                    Some((&mask, packed)),
                    &mut x,
                    &residual,
                    &mut got,
                    &mut kept,
                );
                assert_eq!((&x, &got, &kept), (&expected, &y, &statistics));
            });
        }
    }
}
