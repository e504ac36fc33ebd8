//! How work is split: over tiles whose borders follow from the shapes alone.
//!
//! Which thread computes a tile, and how many threads there are, changes nothing: tiles write to disjoint
//! places, and sums over several tiles are added afterwards in the order of the tiles.
#![expect(
    unsafe_code,
    reason = "tiles write to disjoint, strided parts of one buffer, which slices cannot say"
)]

use std::marker::PhantomData;

use rayon::prelude::*;

/// Elementwise work is cut in tiles of this many numbers.
pub const TILE: usize = 16 * 1024;

/// Work below this many simple operations is not worth waking another thread.
const WORTHWHILE: usize = 64 * 1024;

/// The number of threads that work may be spread over.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `work` on one of the threads that work is spread over. From any other thread, every spreading would wake one
/// of them first and wait for it.
pub fn within<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| work())
}

/// Calls `work` with each of `0..count`, on several threads where the `operations` of all are enough.
pub fn tiles(count: usize, operations: usize, work: impl Fn(usize) + Send + Sync) {
    if count <= 1 || operations < WORTHWHILE || threads() == 1 {
        (0..count).for_each(work);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(work);
    }
}

/// Calls `work` on tiles of `x`, with the place where each begins.
pub fn over<R: Send>(x: &mut [R], work: impl Fn(usize, &mut [R]) + Send + Sync) {
    if x.len() < WORTHWHILE || threads() == 1 {
        x.chunks_mut(TILE)
            .enumerate()
            .for_each(|(index, x)| work(index * TILE, x));
    } else {
        x.par_chunks_mut(TILE)
            .enumerate()
            .for_each(|(index, x)| work(index * TILE, x));
    }
}

/// Calls `work` on tiles of `x` and the same places of `y`.
pub fn zip<R: Send + Sync>(x: &mut [R], y: &[R], work: impl Fn(&mut [R], &[R]) + Send + Sync) {
    assert_eq!(x.len(), y.len(), "buffers of one length");
    over(x, |start, x| work(x, &y[start..start + x.len()]));
}

/// Calls `work` on tiles of `x` and the same places of `y`, to change both.
pub fn zip_mut<R: Send>(x: &mut [R], y: &mut [R], work: impl Fn(&mut [R], &mut [R]) + Send + Sync) {
    assert_eq!(x.len(), y.len(), "buffers of one length");
    if x.len() < WORTHWHILE || threads() == 1 {
        x.chunks_mut(TILE)
            .zip(y.chunks_mut(TILE))
            .for_each(|(x, y)| work(x, y));
    } else {
        x.par_chunks_mut(TILE)
            .zip(y.par_chunks_mut(TILE))
            .for_each(|(x, y)| work(x, y));
    }
}

/// Calls `work` with each index and element of `results`; an element stands for `operations`, and `group` of
/// them are computed together.
pub fn over_blocks<R: Send>(
    results: &mut [R],
    group: usize,
    operations: usize,
    work: impl Fn(usize, &mut R) + Send + Sync,
) {
    let each = |(number, results): (usize, &mut [R])| {
        for (index, result) in results.iter_mut().enumerate() {
            work(number * group + index, result);
        }
    };
    if results.len() * operations < WORTHWHILE || threads() == 1 {
        results.chunks_mut(group).enumerate().for_each(each);
    } else {
        results.par_chunks_mut(group).enumerate().for_each(each);
    }
}

/// A buffer that tiles write to at the same time, each its own part.
#[derive(Clone, Copy)]
pub struct Shared<'a, R> {
    data: *mut R,
    len: usize,
    life: PhantomData<&'a mut [R]>,
}

// SAFETY: it is a `&mut [R]`, given to one thread or another; `part` makes its callers keep parts apart.
unsafe impl<R: Send> Send for Shared<'_, R> {}
// SAFETY: as above.
unsafe impl<R: Send> Sync for Shared<'_, R> {}

impl<'a, R> Shared<'a, R> {
    /// Shares `data` until the result is gone.
    pub fn new(data: &'a mut [R]) -> Self {
        Self {
            data: data.as_mut_ptr(),
            len: data.len(),
            life: PhantomData,
        }
    }

    /// The numbers `start..start + len`.
    ///
    /// # Safety
    /// No other part that is alive may overlap it.
    #[inline(always)]
    pub unsafe fn part(self, start: usize, len: usize) -> &'a mut [R] {
        assert!(
            start <= self.len && len <= self.len - start,
            "a part within the buffer"
        );
        // SAFETY: it lies within the buffer (asserted), which is borrowed for 'a; no other part overlaps
        // it (the caller's promise).
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }

    /// The length of the buffer.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(self) -> usize {
        self.len
    }

    /// Where the buffer begins.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut R {
        self.data
    }
}

/// Runs `work` in a pool of `count` threads of its own: tests show with it that the number changes nothing.
#[cfg(test)]
pub fn with_threads<T: Send>(count: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(count)
        .build()
        .expect("threads can be started")
        .install(work)
}
