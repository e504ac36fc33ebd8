//! One thread's share of a product: blocks of k and of columns, panels of rows, tiles.
//!
//! A block of B (256 by at most 512) is packed and stays in the second cache; panels of A go through the
//! first. None of these sizes but the 256 shows in the result.

#![expect(
    unsafe_code,
    reason = "a rectangle of C is shared by its pointer, and a level's code needs its CPU"
)]

use super::pack::Lanes;
use super::tile::{Plain, Shape, Tile};
use super::{BLOCK, Matrix, Task};
use crate::Real;
use crate::kernels::dispatch::{Level, level};

/// Columns of a packed block of B.
pub(super) const COLUMNS: usize = 512;
/// Panels of A that are packed at a time.
const PANELS: usize = 8;

/// What computes a task.
#[doc(hidden)]
pub trait Product: Sized {
    #[doc(hidden)]
    fn gemm_task(task: &Task<'_, Self>);
}

macro_rules! product {
    ($number:ty, $avx2:ident, $avx512:ident) => {
        impl Product for $number {
            fn gemm_task(task: &Task<'_, Self>) {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma")]
                fn avx2(task: &Task<'_, $number>) {
                    run::<$number, $avx2>(task);
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512(task: &Task<'_, $number>) {
                    run::<$number, $avx512>(task);
                }
                match level() {
                    // SAFETY: the level is never above what was detected.
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => unsafe { avx2(task) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 => unsafe { avx512(task) },
                    _ => run::<$number, Plain>(task),
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use super::tile::{Avx2, Avx512};
product!(f32, Avx2, Avx512);
product!(f64, Plain, Plain);

#[inline(always)]
fn run<R: Real, T: Tile<R>>(task: &Task<'_, R>) {
    let (rows, columns, depth) = (task.a.rows, task.b.columns, task.a.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    task.c.check(rows, columns);
    let deepest = BLOCK.min(depth);
    let width = columns.min(COLUMNS).next_multiple_of(T::COLUMNS);
    let high = rows.min(PANELS * T::ROWS);
    R::with_scratch((width + high) * deepest, |scratch| {
        let (packed_b, packed_a) = scratch.split_at_mut(width * deepest);
        blocks::<R, T>(task, packed_a, packed_b);
    });
}

#[inline(always)]
fn blocks<R: Real, T: Tile<R>>(task: &Task<'_, R>, packed_a: &mut [R], packed_b: &mut [R]) {
    let (rows, columns, depth) = (task.a.rows, task.b.columns, task.a.columns);
    let a = lanes(task.a);
    let b = lanes(task.b.transposed());
    for left in (0..columns).step_by(COLUMNS) {
        let right = columns.min(left + COLUMNS);
        if depth == 0 && !task.adds {
            for row in 0..rows {
                task.c.row(row, left, right - left).fill(R::ZERO);
            }
        }
        for start in (0..depth).step_by(BLOCK) {
            let deep = BLOCK.min(depth - start);
            for (panel, first) in (left..right).step_by(T::COLUMNS).enumerate() {
                let count = T::COLUMNS.min(right - first);
                let panel = &mut packed_b[panel * T::COLUMNS * deep..];
                b.pack((first, count), (start, deep), T::COLUMNS, panel);
            }
            for top in (0..rows).step_by(PANELS * T::ROWS) {
                let bottom = rows.min(top + PANELS * T::ROWS);
                for (panel, first) in (top..bottom).step_by(T::ROWS).enumerate() {
                    let count = T::ROWS.min(bottom - first);
                    let panel = &mut packed_a[panel * T::ROWS * deep..];
                    a.pack((first, count), (start, deep), count, panel);
                }
                for (panel, row) in (top..bottom).step_by(T::ROWS).enumerate() {
                    let packed_a = &packed_a[panel * T::ROWS * deep..];
                    for (panel, column) in (left..right).step_by(T::COLUMNS).enumerate() {
                        let packed_b = &packed_b[panel * T::COLUMNS * deep..];
                        let shape = Shape {
                            rows: T::ROWS.min(bottom - row),
                            columns: T::COLUMNS.min(right - column),
                            depth: deep,
                            stride: task.c.stride,
                            adds: task.adds || start > 0,
                        };
                        // SAFETY: the panels were packed for this shape; the rectangle lies within C
                        // (checked above) and belongs to this task; `T` is that of the level.
                        unsafe {
                            let c = task.c.place(row, column);
                            T::compute(shape, packed_a.as_ptr(), packed_b.as_ptr(), c);
                        }
                    }
                }
                if start + deep == depth {
                    finish(task, top..bottom, left..right);
                }
            }
        }
        if depth == 0 {
            finish(task, 0..rows, left..right);
        }
    }
}

/// Bias and activation of a finished rectangle, while it is in the cache.
#[inline(always)]
fn finish<R: Real>(
    task: &Task<'_, R>,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
) {
    let Some(bias) = task.bias else { return };
    let bias = &bias[columns.clone()];
    for row in rows {
        let c = task.c.row(row, columns.start, columns.len());
        for (c, &bias) in c.iter_mut().zip(bias) {
            *c += bias;
        }
        if let Some(activation) = task.activation {
            let y = activation.row(row, columns.start, columns.len());
            for (y, &x) in y.iter_mut().zip(&*c) {
                *y = x.gelu();
            }
        }
    }
}

fn lanes<R: Real>(matrix: Matrix<'_, R>) -> Lanes<'_, R> {
    Lanes {
        data: matrix.data,
        lane_stride: matrix.row_stride,
        depth_stride: matrix.column_stride,
    }
}
