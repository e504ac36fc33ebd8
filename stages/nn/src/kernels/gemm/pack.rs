//! Operands laid out for the registers: panels of neighbouring lanes, one group of lanes a step of k.

#![expect(
    unsafe_code,
    reason = "the compiler does not transpose well by itself; bounds are checked a panel at a time"
)]

use crate::Real;

/// An operand as the packing sees it: lane `i` at step `k` is `data[i * lane_stride + k * depth_stride]`.
#[derive(Clone, Copy)]
pub(super) struct Lanes<'a, R> {
    pub(super) data: &'a [R],
    pub(super) lane_stride: usize,
    pub(super) depth_stride: usize,
}

impl<R: Real> Lanes<'_, R> {
    /// Writes lanes `first..first + lanes` of steps `start..start + depth` to `panel`, where a step takes
    /// `width` numbers; those behind the last lane become 0.
    #[inline(always)]
    pub(super) fn pack(
        self,
        (first, lanes): (usize, usize),
        (start, depth): (usize, usize),
        width: usize,
        panel: &mut [R],
    ) {
        let panel = &mut panel[..depth * width];
        let begin = first * self.lane_stride + start * self.depth_stride;
        if self.lane_stride == 1 {
            for (step, panel) in panel.chunks_exact_mut(width).enumerate() {
                let source = &self.data[begin + step * self.depth_stride..][..lanes];
                if lanes == width {
                    copy(source, panel);
                } else {
                    panel[..lanes].copy_from_slice(source);
                    panel[lanes..].fill(R::ZERO);
                }
            }
            return;
        }
        if lanes < width {
            for panel in panel.chunks_exact_mut(width) {
                panel[lanes..].fill(R::ZERO);
            }
        }
        let whole = if self.depth_stride == 1 {
            lanes - lanes % 4
        } else {
            0
        };
        let deep = depth - depth % 4;
        // One line of the cache at a time, so that lanes whose strides are powers of 2 do not push each
        // other out before the line is used up.
        for chunk in (0..deep).step_by(16) {
            let end = deep.min(chunk + 16);
            for lane in (0..whole).step_by(4) {
                for step in (chunk..end).step_by(4) {
                    let source = &self.data[begin + lane * self.lane_stride + step..];
                    let target = &mut panel[step * width + lane..];
                    transpose(source, self.lane_stride, target, width);
                }
            }
        }
        let one = |panel: &mut [R], lane: usize, step: usize| {
            let place = begin + lane * self.lane_stride + step * self.depth_stride;
            panel[step * width + lane] = self.data[place];
        };
        for step in deep..depth {
            for lane in 0..whole {
                one(panel, lane, step);
            }
        }
        for lane in whole..lanes {
            for step in 0..depth {
                one(panel, lane, step);
            }
        }
    }
}

/// `copy_from_slice` for the few lengths that panels have, without a call.
#[inline(always)]
fn copy<R: Copy>(source: &[R], target: &mut [R]) {
    match target.len() {
        32 => target[..32].copy_from_slice(&source[..32]),
        16 => target[..16].copy_from_slice(&source[..16]),
        12 => target[..12].copy_from_slice(&source[..12]),
        6 => target[..6].copy_from_slice(&source[..6]),
        _ => target.copy_from_slice(source),
    }
}

/// Writes `source[i * stride + j]` to `target[j * width + i]` for i and j below 4.
#[inline(always)]
fn transpose<R: Real>(source: &[R], stride: usize, target: &mut [R], width: usize) {
    assert!(source.len() >= 3 * stride + 4 && target.len() >= 3 * width + 4);
    #[cfg(target_arch = "x86_64")]
    if size_of::<R>() == 4 {
        use std::arch::x86_64::{
            _mm_loadu_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_storeu_ps, _mm_unpackhi_ps,
            _mm_unpacklo_ps,
        };
        let (source, target) = (
            source.as_ptr().cast::<f32>(),
            target.as_mut_ptr().cast::<f32>(),
        );
        // SAFETY: of 4 bytes there is no Real but f32; what is read and written was asserted to lie within
        // the slices; every x86-64 CPU has SSE.
        unsafe {
            let a = _mm_loadu_ps(source);
            let b = _mm_loadu_ps(source.add(stride));
            let c = _mm_loadu_ps(source.add(2 * stride));
            let d = _mm_loadu_ps(source.add(3 * stride));
            let (ab_low, ab_high) = (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
            _mm_storeu_ps(target, _mm_movelh_ps(ab_low, cd_low));
            _mm_storeu_ps(target.add(width), _mm_movehl_ps(cd_low, ab_low));
            _mm_storeu_ps(target.add(2 * width), _mm_movelh_ps(ab_high, cd_high));
            _mm_storeu_ps(target.add(3 * width), _mm_movehl_ps(cd_high, ab_high));
        }
        return;
    }
    for step in 0..4 {
        for lane in 0..4 {
            target[step * width + lane] = source[lane * stride + step];
        }
    }
}
