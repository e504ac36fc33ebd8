//! One thread's share of a product: blocks of k and of columns, panels of rows, tiles.
//!
//! A block of B (256 by at most 384) is packed and stays in the second cache; panels of A go through the
//! first. Of a wide product they stay packed until all columns were there. None of these sizes but the 256 shows
//! in the result.

#![expect(
    unsafe_code,
    reason = "a rectangle of C is shared by its pointer, and a level's code needs its CPU"
)]

use super::pack::Lanes;
use super::tile::{Plain, Rows, Shape, Tile};
use super::{BLOCK, Finish, Matrix, Task};
use crate::Real;
use crate::kernels::Scratch as _;
use crate::kernels::dispatch::{Level, level};

/// Columns of a packed block of B.
pub(super) const COLUMNS: usize = 384;
/// Panels of A that are packed at a time.
const PANELS: usize = 8;
/// Rows of A that stay packed while blocks of B pass by: whole groups of panels at every level.
const ROWS: usize = 4032;

/// What computes a task.
#[doc(hidden)]
pub trait Product: Sized {
    #[doc(hidden)]
    fn gemm_task(task: &Task<'_, Self>);

    /// Lays out all of B: blocks of columns and of k in the order in which a task comes to them, panels
    /// within. `packed` has room for `k * n` numbers with n rounded up to 32.
    #[doc(hidden)]
    fn pack_operand(b: Matrix<'_, Self>, packed: &mut [Self]);
}

macro_rules! product {
    ($number:ty, $avx2:ident, $avx512:ident) => {
        impl Product for $number {
            fn gemm_task(task: &Task<'_, Self>) {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma")]
                fn avx2(task: &Task<'_, $number>, scratch: &mut [$number]) {
                    run::<$number, $avx2>(task, scratch);
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512(task: &Task<'_, $number>, scratch: &mut [$number]) {
                    run::<$number, $avx512>(task, scratch);
                }
                Self::with_scratch(numbers(task), |scratch| match level() {
                    // SAFETY: the level is never above what was detected.
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => unsafe { avx2(task, scratch) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 => unsafe { avx512(task, scratch) },
                    _ => run::<$number, Plain>(task, scratch),
                });
            }

            fn pack_operand(b: Matrix<'_, Self>, packed: &mut [Self]) {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma")]
                fn avx2(b: Matrix<'_, $number>, packed: &mut [$number]) {
                    pack_all::<$number, $avx2>(b, packed);
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512(b: Matrix<'_, $number>, packed: &mut [$number]) {
                    pack_all::<$number, $avx512>(b, packed);
                }
                match level() {
                    // SAFETY: the level is never above what was detected.
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => unsafe { avx2(b, packed) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 => unsafe { avx512(b, packed) },
                    _ => pack_all::<$number, Plain>(b, packed),
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use super::tile::{Avx2, Avx512};
product!(f32, Avx2, Avx512);
product!(f64, Plain, Plain);

/// The width of the packed block of B that a task needs, for the widest panels there are.
fn packed_columns<R>(task: &Task<'_, R>) -> usize {
    task.b.columns.min(COLUMNS).next_multiple_of(32)
}

/// Whether packed rows of A serve several blocks of columns.
fn keeps_rows<R>(task: &Task<'_, R>) -> bool {
    task.b.columns > COLUMNS
}

/// How many numbers a task packs at a time, for the highest and widest panels there are.
fn numbers<R>(task: &Task<'_, R>) -> usize {
    let columns = if task.packed.is_some() {
        0
    } else {
        packed_columns(task)
    };
    let rows = if keeps_rows(task) { ROWS } else { 12 * PANELS };
    (columns + task.a.rows.min(rows)) * BLOCK.min(task.a.columns)
}

/// Whether rows of A are read where they lie: they are used too few times to be worth packing, and they do
/// not all fall on the same lines of the first cache.
fn reads_strided<R: Real>(task: &Task<'_, R>) -> bool {
    let a = &task.a;
    a.column_stride == 1
        && task.b.columns <= 256
        && !(a.row_stride * size_of::<R>()).is_multiple_of(4096)
        && (a.rows - 1) * a.row_stride + a.columns <= a.data.len()
}

/// The part of a packed operand, of `depth` rows in all, that belongs to the columns `left..right` and to
/// `deep` rows from `start`.
fn block(
    (left, right): (usize, usize),
    (start, deep): (usize, usize),
    depth: usize,
) -> std::ops::Range<usize> {
    let wide = (right - left).next_multiple_of(32);
    let begin = left * depth + wide * start;
    begin..begin + wide * deep
}

#[inline(always)]
fn pack_all<R: Real, T: Tile<R>>(b: Matrix<'_, R>, packed: &mut [R]) {
    let lanes = lanes(b.transposed());
    for left in (0..b.columns).step_by(COLUMNS) {
        let right = b.columns.min(left + COLUMNS);
        for start in (0..b.rows).step_by(BLOCK) {
            let deep = BLOCK.min(b.rows - start);
            let block = &mut packed[block((left, right), (start, deep), b.rows)];
            pack_block::<R, T>(lanes, (left, right), (start, deep), block);
        }
    }
}

#[inline(always)]
fn pack_block<R: Real, T: Tile<R>>(
    b: Lanes<'_, R>,
    (left, right): (usize, usize),
    (start, deep): (usize, usize),
    packed: &mut [R],
) {
    let lanes = (left, right - left);
    b.pack::<T>(lanes, (start, deep), (T::COLUMNS, true), packed);
}

#[inline(always)]
fn run<R: Real, T: Tile<R>>(task: &Task<'_, R>, scratch: &mut [R]) {
    let (rows, columns, depth) = (task.a.rows, task.b.columns, task.a.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    task.c.check(rows, columns);
    let strided = reads_strided(task);
    let a = lanes(task.a);
    let b = lanes(task.b.transposed());
    let own = match task.packed {
        Some(_) => 0,
        None => packed_columns(task) * BLOCK.min(depth),
    };
    let (own_b, packed_a) = scratch.split_at_mut(own);
    if depth == 0 {
        if !task.adds {
            for row in 0..rows {
                task.c.row(row, 0, columns).fill(R::ZERO);
            }
        }
        finish(task, 0..rows, 0..columns);
    }
    let group = PANELS * T::ROWS;
    let keeps = keeps_rows(task);
    for top in (0..rows).step_by(ROWS) {
        let bottom = rows.min(top + ROWS);
        for start in (0..depth).step_by(BLOCK) {
            let deep = BLOCK.min(depth - start);
            for left in (0..columns).step_by(COLUMNS) {
                let right = columns.min(left + COLUMNS);
                let packed_b = match task.packed {
                    Some(packed) => &packed[block((left, right), (start, deep), depth)],
                    None => {
                        pack_block::<R, T>(b, (left, right), (start, deep), own_b);
                        &*own_b
                    }
                };
                for first in (top..bottom).step_by(group) {
                    let last = bottom.min(first + group);
                    let packed_a = &mut packed_a[if keeps { (first - top) * deep } else { 0 }..];
                    if !strided && left == 0 {
                        let lanes = (first, last - first);
                        a.pack::<T>(lanes, (start, deep), (T::ROWS, false), packed_a);
                    }
                    for row in (first..last).step_by(T::ROWS) {
                        let panel_a = if strided {
                            let place = row * task.a.row_stride + start;
                            Rows::Strided(task.a.data[place..].as_ptr(), task.a.row_stride)
                        } else {
                            Rows::Packed(packed_a[(row - first) * deep..].as_ptr())
                        };
                        for (panel, column) in (left..right).step_by(T::COLUMNS).enumerate() {
                            let packed_b = &packed_b[panel * T::COLUMNS * deep..];
                            let shape = Shape {
                                rows: T::ROWS.min(last - row),
                                columns: T::COLUMNS.min(right - column),
                                depth: deep,
                                stride: task.c.stride,
                                adds: task.adds || start > 0,
                            };
                            // SAFETY: the panels were packed for this shape; the rectangle lies within C
                            // (checked above) and belongs to this task; `T` is that of the level.
                            unsafe {
                                let c = task.c.place(row, column);
                                T::compute(shape, panel_a, packed_b.as_ptr(), c);
                            }
                        }
                    }
                    if start + deep == depth {
                        finish(task, first..last, left..right);
                    }
                }
            }
        }
    }
}

/// Bias and gelu of a finished rectangle, while it is in the cache.
#[inline(always)]
fn finish<R: Real>(
    task: &Task<'_, R>,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
) {
    let (bias, argument) = match task.finish {
        Finish::Nothing => return,
        Finish::Bias(bias) => (bias, None),
        Finish::BiasGelu(bias, argument) => (bias, Some(argument)),
    };
    let bias = &bias[columns.clone()];
    for row in rows {
        let c = task.c.row(row, columns.start, columns.len());
        for (c, &bias) in c.iter_mut().zip(bias) {
            *c += bias;
        }
        let Some(argument) = argument else { continue };
        if let Some(argument) = argument {
            let kept = argument.row(row, columns.start, columns.len());
            kept.copy_from_slice(c);
        }
        for c in c {
            *c = c.gelu();
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
