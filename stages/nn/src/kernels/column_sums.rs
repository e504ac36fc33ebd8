//! Sums down the columns of a matrix: gradients of biases.
//!
//! Rows are added in ascending order in blocks of 256; each block begins at 0 and is then added to the
//! result, in ascending order. Reads the matrix once.

use crate::Real;
use crate::kernels::gemm::Matrix;
use crate::parallel::{Shared, tiles};

/// Rows in a block: a constant of the format.
pub const BLOCK: usize = 256;
/// Columns in a tile.
const WIDTH: usize = 64;

/// Adds the sums of the columns of `x` (at most 64 of them, next to each other) to `sums`.
#[inline(always)]
pub(crate) fn column_sums_tile<R: Real>(x: Matrix<'_, R>, sums: &mut [R]) {
    for start in (0..x.rows).step_by(BLOCK) {
        let end = x.rows.min(start + BLOCK);
        let mut block = [R::ZERO; WIDTH];
        if x.columns == WIDTH {
            for row in start..end {
                let row: &[R] = x.row(row);
                for (sum, &x) in block.iter_mut().zip(&row[..WIDTH]) {
                    *sum += x;
                }
            }
        } else {
            for row in start..end {
                for (sum, &x) in block.iter_mut().zip(x.row(row)) {
                    *sum += x;
                }
            }
        }
        for (sum, block) in sums.iter_mut().zip(block) {
            *sum += block;
        }
    }
}

/// Adds the sums of the columns of `x` to `sums`. The columns of `x` lie next to each other.
pub fn column_sums<R: Real>(x: Matrix<'_, R>, sums: &mut [R]) {
    assert_eq!(sums.len(), x.columns, "one sum a column");
    assert_eq!(x.column_stride, 1, "columns next to each other");
    let operations = x.rows * x.columns;
    let sums = Shared::new(sums);
    tiles(x.columns.div_ceil(WIDTH), operations, |tile| {
        let first = tile * WIDTH;
        let width = WIDTH.min(x.columns - first);
        R::column_sums_tile(x.part(0, x.rows, first, width), part(sums, first, width));
    });
}

#[expect(unsafe_code, reason = "tiles of columns write to their own columns")]
fn part<'a, R>(sums: Shared<'a, R>, first: usize, width: usize) -> &'a mut [R] {
    // SAFETY: each column belongs to one tile.
    unsafe { sums.part(first, width) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::dispatch::{Level, with_level};
    use crate::kernels::gemm::tests::numbers;
    use crate::parallel::with_threads;

    #[test]
    fn columns_are_added_in_blocks_of_256_rows() {
        for (rows, columns, stride) in [
            (1, 1, 1),
            (700, 130, 131),
            (256, 64, 64),
            (0, 3, 3),
            (257, 65, 70),
        ] {
            let x = numbers::<f32>(rows * stride, 1);
            let initial = numbers::<f32>(columns, 2);
            let mut expected = initial.clone();
            for column in 0..columns {
                for start in (0..rows).step_by(256) {
                    let mut block = 0.0;
                    for row in start..rows.min(start + 256) {
                        block += x[row * stride + column];
                    }
                    expected[column] += block;
                }
            }
            for level in Level::ALL {
                for threads in [1, 2, 3, 8] {
                    let mut sums = initial.clone();
                    with_level(level, || {
                        with_threads(threads, || {
                            column_sums(Matrix::with_stride(&x, rows, columns, stride), &mut sums);
                        });
                    });
                    assert_eq!(sums, expected, "{rows} x {columns} at {level:?}");
                }
            }
        }
    }
}
