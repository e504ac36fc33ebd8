//! The innermost loop: a tile of C in registers, one fused multiply-add an element and a step of k.

#![expect(
    unsafe_code,
    reason = "registers are held by intrinsics, and a tile of C is reached by its pointer"
)]

use crate::Real;

/// Computes one tile of C from packed panels.
pub(super) trait Tile<R> {
    /// The most rows of a tile.
    const ROWS: usize;
    /// The width of a panel of B.
    const COLUMNS: usize;

    /// The products of `rows` (at most `ROWS`) and `columns` (at most `COLUMNS`), each a chain of `depth`
    /// steps from 0, added to C or written over it.
    ///
    /// # Safety
    /// `a` holds `depth * rows` numbers as its layout says, `b` `depth * COLUMNS`, and `c` is a rectangle of
    /// `rows` and `columns`, a row beginning every `stride` numbers, that no other thread touches. The CPU
    /// has the features of the tile.
    unsafe fn compute(shape: Shape, a: Rows<R>, b: *const R, c: *mut R);

    /// Whether there is a [`Tile::transpose`].
    const TRANSPOSES: bool = false;

    /// Writes `source[i * stride + j]` to `target[j * width + i]` for i and j below the extent, at most
    /// [`super::pack::BLOCK`] each, and fetches the numbers that lie `ahead` of the source.
    ///
    /// # Safety
    /// All of these may be read and written, and the CPU has the features of the tile.
    unsafe fn transpose(
        _extent: (usize, usize),
        _source: (*const R, usize),
        _target: (*mut R, usize),
        _ahead: usize,
    ) {
        unreachable!("only where there is one");
    }
}

/// How the rows of A lie in memory.
#[derive(Clone, Copy)]
pub(super) enum Rows<R> {
    /// Packed: the rows of a step lie next to each other, steps follow each other.
    Packed(*const R),
    /// As they are: the steps of a row lie next to each other, a row begins every so many numbers.
    Strided(*const R, usize),
}

/// The extent of a tile and what becomes of it.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) depth: usize,
    pub(super) stride: usize,
    pub(super) adds: bool,
}

/// Any number on any CPU.
pub(super) struct Plain;

impl<R: Real> Tile<R> for Plain {
    const ROWS: usize = 4;
    const COLUMNS: usize = 16;

    #[inline(always)]
    unsafe fn compute(shape: Shape, a: Rows<R>, b: *const R, c: *mut R) {
        // SAFETY: the caller's promise.
        let b = unsafe { std::slice::from_raw_parts(b, shape.depth * 16) };
        let (a, row_stride, step_stride) = match a {
            Rows::Packed(a) => (a, 1, shape.rows),
            Rows::Strided(a, stride) => (a, stride, 1),
        };
        let mut sums = [[R::ZERO; 16]; 4];
        for (step, b) in b.as_chunks::<16>().0.iter().enumerate() {
            for (row, sums) in sums.iter_mut().enumerate().take(shape.rows) {
                // SAFETY: the caller's promise.
                let a = unsafe { *a.add(row * row_stride + step * step_stride) };
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum = a.mul_add(b, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate().take(shape.rows) {
            // SAFETY: the caller's promise.
            let c =
                unsafe { std::slice::from_raw_parts_mut(c.add(row * shape.stride), shape.columns) };
            for (c, &sum) in c.iter_mut().zip(sums) {
                *c = if shape.adds { *c + sum } else { sum };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Rows, Shape, Tile};

    /// A variant of a tile, by rows (1 to the most), registers a row (1 or 2), layout of A (packed, strided).
    type Compute = unsafe fn(Shape, *const f32, usize, *const f32, *mut f32);

    /// Writes the tile for one register width. `$some` loads, `$put` stores the first few lanes.
    macro_rules! tile {
        ($name:ident, $features:literal, $vector:ty, $lanes:literal, $rows:literal, [$($row:literal)*],
         $zero:ident, $load:ident, $store:ident, $set:ident, $fma:ident, $add:ident, $some:ident, $put:ident, $mask:ident,
         $transpose:ident) => {
            #[doc = concat!("`f32` by registers of ", $lanes, ".")]
            pub(in super::super) struct $name;

            impl $name {
                const VARIANTS: [[[Compute; 2]; 2]; $rows] = [$([
                    [Self::fixed::<$row, 1, 0>, Self::fixed::<$row, 1, 1>],
                    [Self::fixed::<$row, 2, 0>, Self::fixed::<$row, 2, 1>],
                ]),*];

                /// # Safety
                /// As [`Tile::compute`].
                #[target_feature(enable = $features)]
                unsafe fn fixed<const ROWS: usize, const REGISTERS: usize, const STRIDED: usize>(
                    shape: Shape,
                    mut a: *const f32,
                    stride: usize,
                    mut b: *const f32,
                    c: *mut f32,
                ) {
                    // SAFETY: panels and C are as large as the caller promises; prefetching is safe anywhere.
                    unsafe {
                        let mut sums = [[$zero(); REGISTERS]; ROWS];
                        for row in 0..ROWS {
                            for register in 0..REGISTERS {
                                let place = c.wrapping_add(row * shape.stride + register * $lanes);
                                _mm_prefetch::<_MM_HINT_T0>(place.cast());
                            }
                        }
                        for _ in 0..shape.depth {
                            let mut columns = [$zero(); REGISTERS];
                            for (register, column) in columns.iter_mut().enumerate() {
                                *column = $load(b.add(register * $lanes));
                            }
                            for (row, sums) in sums.iter_mut().enumerate() {
                                let place = if STRIDED == 1 { row * stride } else { row };
                                let factor = $set(*a.add(place));
                                for (sum, &column) in sums.iter_mut().zip(&columns) {
                                    *sum = $fma(factor, column, *sum);
                                }
                            }
                            a = a.add(if STRIDED == 1 { 1 } else { ROWS });
                            b = b.add(2 * $lanes);
                        }
                        if shape.columns == REGISTERS * $lanes {
                            for (row, sums) in sums.iter().enumerate() {
                                for (register, &sum) in sums.iter().enumerate() {
                                    let place = c.add(row * shape.stride + register * $lanes);
                                    let sum = if shape.adds { $add($load(place), sum) } else { sum };
                                    $store(place, sum);
                                }
                            }
                        } else {
                            for (row, sums) in sums.iter().enumerate() {
                                for (register, &sum) in sums.iter().enumerate() {
                                    let place = c.wrapping_add(row * shape.stride + register * $lanes);
                                    let mask = $mask(shape.columns.saturating_sub(register * $lanes));
                                    let sum = if shape.adds { $add($some(mask, place), sum) } else { sum };
                                    $put(place, mask, sum);
                                }
                            }
                        }
                    }
                }
            }

            impl Tile<f32> for $name {
                const ROWS: usize = $rows;
                const COLUMNS: usize = 2 * $lanes;

                #[inline(always)]
                unsafe fn compute(shape: Shape, a: Rows<f32>, b: *const f32, c: *mut f32) {
                    let registers = usize::from(shape.columns > $lanes);
                    let variants = &Self::VARIANTS[shape.rows - 1][registers];
                    // SAFETY: the caller's promise.
                    unsafe {
                        match a {
                            Rows::Packed(a) => variants[0](shape, a, 0, b, c),
                            Rows::Strided(a, stride) => variants[1](shape, a, stride, b, c),
                        }
                    }
                }

                const TRANSPOSES: bool = true;

                #[inline(always)]
                unsafe fn transpose(
                    extent: (usize, usize),
                    source: (*const f32, usize),
                    target: (*mut f32, usize),
                    ahead: usize,
                ) {
                    // SAFETY: the caller's promise.
                    unsafe { $transpose(extent, source, target, ahead) }
                }
            }
        };
    }

    /// The first `count` lanes of 16.
    fn mask16(count: usize) -> __mmask16 {
        if count >= 16 {
            0xffff
        } else {
            (1 << count) - 1
        }
    }

    /// The first `count` lanes of 8.
    #[target_feature(enable = "avx2,fma")]
    fn mask8(count: usize) -> __m256i {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), lanes)
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn some8(mask: __m256i, place: *const f32) -> __m256 {
        // SAFETY: lanes outside the mask are not read.
        unsafe { _mm256_maskload_ps(place, mask) }
    }

    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn put16(place: *mut f32, mask: __mmask16, value: __m512) {
        // SAFETY: lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(place, mask, value) }
    }

    /// A block of 16 steps of `LANES`, a multiple of 4, in registers. Quarters of four lanes come together as they
    /// are read, which leaves half of the shuffles; fours change over within quarters.
    ///
    /// # Safety
    /// As [`Tile::transpose`].
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn transpose_whole<const LANES: usize>(
        (source, stride): (*const f32, usize),
        (target, width): (*mut f32, usize),
        ahead: usize,
    ) {
        // SAFETY: all of the block is read and written; prefetching is safe anywhere.
        unsafe {
            for lane in 0..LANES {
                let place = source.wrapping_add(lane * stride + ahead);
                _mm_prefetch::<_MM_HINT_T0>(place.cast());
            }
            for four in 0..4 {
                let mut rows = [_mm512_setzero_ps(); 4];
                for (lane, row) in rows.iter_mut().enumerate() {
                    let quarter = |quarter: usize| {
                        _mm_loadu_ps(source.add((4 * quarter + lane) * stride + 4 * four))
                    };
                    *row = _mm512_castps128_ps512(quarter(0));
                    if LANES > 4 {
                        *row = _mm512_insertf32x4::<1>(*row, quarter(1));
                    }
                    if LANES > 8 {
                        *row = _mm512_insertf32x4::<2>(*row, quarter(2));
                    }
                    if LANES > 12 {
                        *row = _mm512_insertf32x4::<3>(*row, quarter(3));
                    }
                }
                let [a, b, c, d] = rows;
                let pairs = [
                    _mm512_unpacklo_ps(a, b),
                    _mm512_unpackhi_ps(a, b),
                    _mm512_unpacklo_ps(c, d),
                    _mm512_unpackhi_ps(c, d),
                ]
                .map(|pair| _mm512_castps_pd(pair));
                let columns = [
                    _mm512_unpacklo_pd(pairs[0], pairs[2]),
                    _mm512_unpackhi_pd(pairs[0], pairs[2]),
                    _mm512_unpacklo_pd(pairs[1], pairs[3]),
                    _mm512_unpackhi_pd(pairs[1], pairs[3]),
                ];
                for (step, column) in columns.into_iter().enumerate() {
                    let place = target.add((4 * four + step) * width);
                    let column = _mm512_castpd_ps(column);
                    if LANES == 16 {
                        _mm512_storeu_ps(place, column);
                    } else {
                        _mm512_mask_storeu_ps(place, mask16(LANES), column);
                    }
                }
            }
        }
    }

    /// Blocks of whole lines by [`transpose_whole`], others through one.
    ///
    /// # Safety
    /// As [`Tile::transpose`].
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn transpose16(
        (lanes, steps): (usize, usize),
        (source, stride): (*const f32, usize),
        (target, width): (*mut f32, usize),
        ahead: usize,
    ) {
        // SAFETY: only what lies within the extent is read and written.
        unsafe {
            match (lanes, steps) {
                (16, 16) => transpose_whole::<16>((source, stride), (target, width), ahead),
                (12, 16) => transpose_whole::<12>((source, stride), (target, width), ahead),
                _ => {
                    let (mut rows, mut columns) = ([0f32; 256], [0f32; 256]);
                    for lane in 0..lanes {
                        let row = _mm512_maskz_loadu_ps(mask16(steps), source.add(lane * stride));
                        _mm512_storeu_ps(rows[16 * lane..].as_mut_ptr(), row);
                    }
                    transpose_whole::<16>((rows.as_ptr(), 16), (columns.as_mut_ptr(), 16), 0);
                    for step in 0..steps {
                        let column = _mm512_loadu_ps(columns[16 * step..].as_ptr());
                        _mm512_mask_storeu_ps(target.add(step * width), mask16(lanes), column);
                    }
                }
            }
        }
    }

    /// 4 steps of 8 lanes, or of 6, in registers: two fours of lanes come together as they are read, of 6 the last four
    /// of them, and change over with steps beside each other.
    ///
    /// # Safety
    /// As [`Tile::transpose`].
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn transpose_four<const LANES: usize>(
        (source, stride): (*const f32, usize),
        (target, width): (*mut f32, usize),
    ) {
        // SAFETY: these lanes and steps are read and written, and no others.
        unsafe {
            let mut rows = [_mm256_setzero_ps(); 4];
            for (lane, row) in rows.iter_mut().enumerate() {
                let first = _mm_loadu_ps(source.add(lane * stride));
                let last = _mm_loadu_ps(source.add((LANES - 4 + lane) * stride));
                *row = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(first), last);
            }
            let [a, b, c, d] = rows;
            let pairs = [
                _mm256_unpacklo_ps(a, b),
                _mm256_unpackhi_ps(a, b),
                _mm256_unpacklo_ps(c, d),
                _mm256_unpackhi_ps(c, d),
            ]
            .map(|pair| _mm256_castps_pd(pair));
            let columns = [
                _mm256_unpacklo_pd(pairs[0], pairs[2]),
                _mm256_unpackhi_pd(pairs[0], pairs[2]),
                _mm256_unpacklo_pd(pairs[1], pairs[3]),
                _mm256_unpackhi_pd(pairs[1], pairs[3]),
            ];
            for (step, column) in columns.into_iter().enumerate() {
                let (place, column) = (target.add(step * width), _mm256_castpd_ps(column));
                if LANES == 8 {
                    _mm256_storeu_ps(place, column);
                } else {
                    _mm_storeu_ps(place, _mm256_castps256_ps128(column));
                    let last = _mm256_extractf128_ps::<1>(column);
                    _mm_storeu_ps(place.add(LANES - 4), last);
                }
            }
        }
    }

    /// Blocks of 16 steps of whole panels by [`transpose_four`], others number by number.
    ///
    /// # Safety
    /// As [`Tile::transpose`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn transpose8(
        (lanes, steps): (usize, usize),
        (source, stride): (*const f32, usize),
        (target, width): (*mut f32, usize),
        ahead: usize,
    ) {
        // SAFETY: only what lies within the extent is read and written; prefetching is safe anywhere.
        unsafe {
            for lane in 0..lanes {
                let place = source.wrapping_add(lane * stride + ahead);
                _mm_prefetch::<_MM_HINT_T0>(place.cast());
            }
            match (lanes, steps) {
                (16, 16) => {
                    for lane in [0, 8] {
                        for step in [0, 4, 8, 12] {
                            let source = source.add(lane * stride + step);
                            let target = target.add(step * width + lane);
                            transpose_four::<8>((source, stride), (target, width));
                        }
                    }
                }
                (6, 16) => {
                    for step in [0, 4, 8, 12] {
                        let target = target.add(step * width);
                        transpose_four::<6>((source.add(step), stride), (target, width));
                    }
                }
                _ => {
                    for lane in 0..lanes {
                        for step in 0..steps {
                            *target.add(step * width + lane) = *source.add(lane * stride + step);
                        }
                    }
                }
            }
        }
    }

    tile!(
        Avx2, "avx2,fma", __m256, 8, 6, [1 2 3 4 5 6],
        _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps,
        _mm256_add_ps, some8, _mm256_maskstore_ps, mask8, transpose8
    );
    tile!(
        Avx512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl", __m512, 16, 12, [1 2 3 4 5 6 7 8 9 10 11 12],
        _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps,
        _mm512_add_ps, _mm512_maskz_loadu_ps, put16, mask16, transpose16
    );
}
