//! Operands laid out for the registers: panels of neighbouring lanes, one group of lanes a step of k.

#![expect(
    unsafe_code,
    reason = "the compiler does not transpose well by itself; bounds are checked a panel at a time"
)]

use super::tile::Tile;
use crate::Real;

/// Lanes and steps that [`Tile::transpose`] moves at a time: a line of the cache.
pub(super) const BLOCK: usize = 16;

/// An operand as the packing sees it: lane `i` at step `k` is `data[i * lane_stride + k * depth_stride]`.
#[derive(Clone, Copy)]
pub(super) struct Lanes<'a, R> {
    pub(super) data: &'a [R],
    pub(super) lane_stride: usize,
    pub(super) depth_stride: usize,
}

impl<R: Real> Lanes<'_, R> {
    /// Writes lanes `first..first + lanes` of steps `start..start + depth` as panels of `width` lanes, one behind
    /// the other: a step of a panel takes `width` numbers. The last panel may have fewer lanes: then its steps
    /// take as many numbers as it has lanes, or, `padded`, zeros follow them.
    #[inline(always)]
    pub(super) fn pack<T: Tile<R>>(
        self,
        (first, lanes): (usize, usize),
        (start, depth): (usize, usize),
        (width, padded): (usize, bool),
        packed: &mut [R],
    ) {
        if lanes == 0 || depth == 0 {
            return;
        }
        if self.lane_stride == 1 {
            let begin = first + start * self.depth_stride;
            let (lanes, packed) = ((lanes, padded), &mut packed[..]);
            return match width {
                32 => self.copy::<32>(begin, lanes, depth, packed),
                16 => self.copy::<16>(begin, lanes, depth, packed),
                12 => self.copy::<12>(begin, lanes, depth, packed),
                6 => self.copy::<6>(begin, lanes, depth, packed),
                _ => self.copy::<4>(begin, lanes, depth, packed),
            };
        }
        for (panel, lane) in (0..lanes).step_by(width).enumerate() {
            let count = width.min(lanes - lane);
            let panel = &mut packed[panel * width * depth..];
            let width = if padded { width } else { count };
            self.pack_panel::<T>((first + lane, count), (start, depth), width, panel);
        }
    }

    /// Packs one panel of lanes that do not lie next to each other.
    #[inline(always)]
    fn pack_panel<T: Tile<R>>(
        self,
        (first, lanes): (usize, usize),
        (start, depth): (usize, usize),
        width: usize,
        panel: &mut [R],
    ) {
        let panel = &mut panel[..depth * width];
        let begin = first * self.lane_stride + start * self.depth_stride;
        let end = begin + (lanes - 1) * self.lane_stride + (depth - 1) * self.depth_stride;
        assert!(
            lanes <= width && end < self.data.len(),
            "lanes within the operand and the panel"
        );
        if lanes < width {
            panel.fill(R::ZERO);
        }
        if self.depth_stride == 1 && T::TRANSPOSES {
            for lane in (0..lanes).step_by(BLOCK) {
                let count = BLOCK.min(lanes - lane);
                for chunk in (0..depth).step_by(BLOCK) {
                    let extent = (count, BLOCK.min(depth - chunk));
                    let place = begin + lane * self.lane_stride + chunk;
                    // SAFETY: these lanes and steps are within those that were asserted to lie within the operand
                    // and the panel; `T` is that of the level.
                    unsafe {
                        let source = self.data.as_ptr().add(place);
                        let target = panel.as_mut_ptr().add(chunk * width + lane);
                        let ahead = count * self.lane_stride;
                        T::transpose(extent, (source, self.lane_stride), (target, width), ahead);
                    }
                }
            }
        } else if self.depth_stride == 1 && lanes >= 4 && depth >= 4 {
            // One line of the cache at a time, so that lanes whose strides are powers of 2 do not push each
            // other out before the line is used up. Where 4 do not divide the lanes or steps, the last 4
            // overlap those before.
            for chunk in (0..depth).step_by(16) {
                let ahead = if chunk + AHEAD < depth { AHEAD } else { 0 };
                for lane in (0..lanes).step_by(4) {
                    let lane = lane.min(lanes - 4);
                    let row = begin + lane * self.lane_stride;
                    for lane in 0..4 {
                        self.prefetch(row + lane * self.lane_stride + chunk + ahead);
                    }
                    for step in (chunk..depth.min(chunk + 16)).step_by(4) {
                        let step = step.min(depth - 4);
                        // SAFETY: 4 lanes and 4 steps from here are within those that were asserted to lie
                        // within the operand and the panel.
                        unsafe {
                            let source = self.data.as_ptr().add(row + step);
                            let target = panel.as_mut_ptr().add(step * width + lane);
                            transpose(source, self.lane_stride, target, width);
                        }
                    }
                }
            }
        } else {
            for lane in 0..lanes {
                for step in 0..depth {
                    let place = begin + lane * self.lane_stride + step * self.depth_stride;
                    panel[step * width + lane] = self.data[place];
                }
            }
        }
    }
}

impl<R: Real> Lanes<'_, R> {
    /// Copies panels of `N` neighbouring lanes: a step of all of them at a time, since steps may lie a page apart.
    #[inline(always)]
    fn copy<const N: usize>(
        self,
        begin: usize,
        (lanes, padded): (usize, bool),
        depth: usize,
        packed: &mut [R],
    ) {
        let rest = lanes % N;
        let width = if padded { N } else { rest };
        let (whole, last) = packed.split_at_mut(lanes / N * N * depth);
        let (whole, _) = whole.as_chunks_mut::<N>();
        for step in 0..depth {
            let place = begin + step * self.depth_stride;
            for line in (0..lanes).step_by(16) {
                self.prefetch(place + 8 * self.depth_stride + line);
            }
            let (source, tail) = self.data[place..place + lanes].as_chunks::<N>();
            for (target, source) in whole.iter_mut().skip(step).step_by(depth).zip(source) {
                *target = *source;
            }
            if rest > 0 {
                let target = &mut last[step * width..][..width];
                target[rest..].fill(R::ZERO);
                target[..rest].copy_from_slice(tail);
            }
        }
    }
}

/// Numbers by which the packing fetches ahead along k.
const AHEAD: usize = 64;

impl<R> Lanes<'_, R> {
    /// Brings a number's line to the cache.
    #[inline(always)]
    fn prefetch(&self, place: usize) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: prefetching is safe anywhere, and every x86-64 CPU can.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.data.as_ptr().wrapping_add(place).cast());
        }
    }
}

/// Writes `source[i * stride + j]` to `target[j * width + i]` for i and j below 4.
///
/// # Safety
/// All of these may be read and written.
#[inline(always)]
unsafe fn transpose<R: Real>(source: *const R, stride: usize, target: *mut R, width: usize) {
    for step in 0..4 {
        for lane in 0..4 {
            // SAFETY: the caller's promise.
            unsafe { *target.add(step * width + lane) = *source.add(lane * stride + step) };
        }
    }
}
