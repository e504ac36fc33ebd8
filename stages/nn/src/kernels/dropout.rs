//! Dropout whose mask is addressed: seed, layer, epoch, row in the epoch's order, position, element.
//!
//! So a mask follows no packing, no batch, no thread and no step, and the backward pass makes it again
//! instead of keeping it. 16 random bits decide about an element: it stays where they are not below a
//! threshold, `round(p * 65536)`; what stays is scaled by `65536 / (65536 - threshold)`.
//!
//! A position's elements are cut in groups of 128, the bits of 16 Philox blocks: element `e` of a group has
//! word `e / 32` of block `e % 16`, its lower half where `e / 16` is even. A register of elements so finds
//! its bits in one register.

use crate::parallel::{Shared, tiles};
use crate::random::{Purpose, Stream};
use crate::{Dropout, Real};

/// Elements that one group of Philox blocks serves.
pub const GROUP: usize = 128;
/// Philox blocks in a group.
const BLOCKS: u32 = 16;

/// Where the random bits of one dropout layer come from, and how many elements stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    stream: Stream,
    threshold: u16,
}

impl Mask {
    /// The mask of layer number `layer` that drops elements with `probability`, of [0, 1).
    pub fn new(dropout: &Dropout, layer: u64, probability: f64) -> Self {
        let threshold = (probability * 65536.0).round() as u32;
        Self {
            stream: Stream::new(dropout.seed, Purpose::Dropout)
                .child(layer)
                .child(dropout.epoch),
            threshold: threshold.min(65535) as u16,
        }
    }

    /// What the elements that stay are multiplied by.
    pub fn scale<R: Real>(&self) -> R {
        R::from_f64(65536.0 / (65536.0 - f64::from(self.threshold)))
    }

    /// Whether nothing is dropped.
    pub fn drops_nothing(&self) -> bool {
        self.threshold == 0
    }

    /// The key of its stream.
    pub(crate) fn key(&self) -> [u32; 2] {
        self.stream.key()
    }

    /// Elements whose random bits are below this are dropped.
    pub(crate) fn threshold(&self) -> u16 {
        self.threshold
    }

    /// For the elements `group * 128..` of a position (of an attention head, else 0): the random 16 bits.
    #[inline(always)]
    pub(crate) fn group(&self, row: u64, position: u32, head: u32, group: u32) -> [u16; GROUP] {
        let first = group * BLOCKS + (head << 20);
        self.stream
            .halves(first, [position, row as u32, (row >> 32) as u32])
    }

    /// Whether an element with these random bits stays.
    #[inline(always)]
    pub(crate) fn keeps(&self, bits: u16) -> bool {
        bits >= self.threshold
    }
}

/// Which row and position each token of a packed batch is.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// Where each row begins, and the end.
    pub offsets: &'a [u32],
    /// Each row's index in the epoch's order.
    pub rows: &'a [u64],
}

impl<'a> Packed<'a> {
    /// Those of a batch.
    pub fn of(batch: &'a crate::Batch) -> Self {
        Self {
            offsets: &batch.offsets,
            rows: &batch.rows,
        }
    }

    /// The tokens of all rows.
    pub fn tokens(&self) -> usize {
        self.offsets.last().map_or(0, |&end| end as usize)
    }

    /// The row of a token, counted in the batch.
    pub(crate) fn row_of(&self, token: usize) -> usize {
        self.offsets
            .partition_point(|&start| start as usize <= token)
            - 1
    }

    /// Calls `each(token, row, position)` for tokens `first..end`, where `row` is the index in the epoch.
    pub(crate) fn walk(&self, first: usize, end: usize, mut each: impl FnMut(usize, u64, u32)) {
        if first >= end {
            return;
        }
        let mut row = self.row_of(first);
        for token in first..end {
            while self.offsets[row + 1] as usize <= token {
                row += 1;
            }
            each(token, self.rows[row], token as u32 - self.offsets[row]);
        }
    }
}

#[inline(always)]
pub(crate) fn dropout_token<R: Real>(mask: &Mask, row: u64, position: u32, x: &mut [R]) {
    let scale = mask.scale::<R>();
    for (group, x) in x.chunks_mut(GROUP).enumerate() {
        let bits = mask.group(row, position, 0, group as u32);
        for (x, &bits) in x.iter_mut().zip(&bits) {
            *x = if mask.keeps(bits) {
                *x * scale
            } else {
                R::ZERO
            };
        }
    }
}

/// Tokens that one tile of packed rows holds.
pub(crate) const TOKENS: usize = 16;

/// Drops elements of `x` `[tokens, width]` and scales the others, in place: forward for activations,
/// backward for their gradients.
pub fn dropout<R: Real>(mask: &Mask, packed: Packed<'_>, width: usize, x: &mut [R]) {
    let tokens = packed.tokens();
    assert_eq!(x.len(), tokens * width, "x is [tokens, width]");
    if mask.drops_nothing() {
        return;
    }
    let operations = x.len() * 8;
    let x = Shared::new(x);
    tiles(tokens.div_ceil(TOKENS), operations, |tile| {
        let first = tile * TOKENS;
        packed.walk(first, tokens.min(first + TOKENS), |token, row, position| {
            R::dropout_token(mask, row, position, row_part(x, token, width));
        });
    });
}

/// The same for one vector a row, `x` `[rows, width]`: its position is 0.
pub fn dropout_rows<R: Real>(mask: &Mask, rows: &[u64], x: &mut [R]) {
    if mask.drops_nothing() || rows.is_empty() {
        return;
    }
    let width = x.len() / rows.len();
    assert_eq!(x.len(), rows.len() * width, "x is [rows, width]");
    if width == 0 {
        return;
    }
    for (&row, x) in rows.iter().zip(x.chunks_exact_mut(width)) {
        R::dropout_token(mask, row, 0, x);
    }
}

#[expect(unsafe_code, reason = "tiles of tokens write to their own tokens")]
fn row_part<'a, R>(x: Shared<'a, R>, token: usize, width: usize) -> &'a mut [R] {
    // SAFETY: each token belongs to one tile, and a tile holds one token's part at a time.
    unsafe { x.part(token * width, width) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::dispatch::{Level, with_level};
    use crate::parallel::with_threads;

    const DROPOUT: Dropout = Dropout { seed: 9, epoch: 2 };

    #[test]
    fn an_element_is_decided_by_its_address_alone() {
        let mask = Mask::new(&DROPOUT, 3, 0.1);
        let (width, offsets, rows) = (200, [0, 3, 10, 11], [70, 5, 1 << 33]);
        let packed = Packed {
            offsets: &offsets,
            rows: &rows,
        };
        let mut x = vec![1f32; 11 * width];
        dropout(&mask, packed, width, &mut x);
        for (row, range) in [(70u64, 0..3), (5, 3..10), (1 << 33, 10..11)] {
            for (position, token) in range.enumerate() {
                for element in 0..width {
                    let (group, within) = (element / 128, element % 128);
                    let block = mask.stream.block([
                        (group * 16 + within % 16) as u32,
                        position as u32,
                        row as u32,
                        (row >> 32) as u32,
                    ]);
                    let word = block[within / 32];
                    let bits = if within / 16 % 2 == 0 {
                        word & 0xffff
                    } else {
                        word >> 16
                    };
                    let expected = if bits < 6554 { 0.0 } else { 65536.0 / 58982.0 };
                    assert_eq!(x[token * width + element], expected as f32);
                }
            }
        }
    }

    #[test]
    fn the_share_that_stays_is_right_and_nothing_else_enters() {
        let mask = Mask::new(&DROPOUT, 3, 0.1);
        let offsets: Vec<u32> = (0..=64).map(|row| row * 16).collect();
        let rows: Vec<u64> = (0..64).collect();
        let packed = Packed {
            offsets: &offsets,
            rows: &rows,
        };
        let run = |level, threads| {
            with_level(level, || {
                with_threads(threads, || {
                    let mut x = vec![1f32; 1024 * 128];
                    dropout(&mask, packed, 128, &mut x);
                    x
                })
            })
        };
        let reference = run(Level::Scalar, 1);
        let kept = reference.iter().filter(|&&x| x != 0.0).count() as f64 / (1024.0 * 128.0);
        assert!((kept - 0.9).abs() < 0.003, "{kept}");
        let mean = reference.iter().sum::<f32>() / reference.len() as f32;
        assert!((mean - 1.0).abs() < 0.004, "{mean}");
        for level in Level::ALL {
            for threads in [1, 2, 5] {
                assert_eq!(reference, run(level, threads));
            }
        }
    }

    #[test]
    fn one_vector_a_row_is_position_0() {
        let mask = Mask::new(&DROPOUT, 1, 0.5);
        let rows = [4, 9];
        let mut x = vec![1f64; 2 * 33];
        dropout_rows(&mask, &rows, &mut x);
        let mut y = vec![1f64; 2 * 33];
        let packed = Packed {
            offsets: &[0, 1, 2],
            rows: &rows,
        };
        dropout(&mask, packed, 33, &mut y);
        assert_eq!(x, y);
        assert!(x.contains(&2.0) && x.contains(&0.0));
    }
}
