//! Attention, of `attention.cu`.

use super::Mask;
use crate::device::{Address, Argument, Card, Element, Fault, Plain};

/// As in `attention.cu`: what the kernels of one layer read.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::device) struct Heads {
    pub operands: [Address; 3],
    pub biases: [Address; 3],
    pub query_offsets: Address,
    pub offsets: Address,
    pub rows: Address,
    pub kept: Address,
    pub query_stride: u32,
    pub key_stride: u32,
    pub heads: u32,
    pub width: u32,
    pub groups: u32,
    pub scale: f32,
    pub mask: Mask,
}

/// As in `attention.cu`: what the way back reads besides, and where its results go.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::device) struct HeadGradients {
    pub gradient: Address,
    pub statistics: Address,
    pub common: Address,
    pub targets: [Address; 3],
    pub slopes: Address,
    pub slope_stride: u32,
}

impl Plain for Heads {}

impl Plain for HeadGradients {}

/// How many rows an attention is over, and how long the longest are.
#[derive(Clone, Copy, Debug)]
pub(in crate::device) struct Extent {
    pub rows: usize,
    pub queries: usize,
    pub longest_queries: usize,
    pub longest: usize,
}

impl Extent {
    /// Groups of 128 keys that share random numbers.
    pub fn groups(&self) -> usize {
        self.longest.div_ceil(128)
    }

    /// Keys of the longest row, in whole tiles.
    pub fn padded_keys(&self) -> usize {
        self.longest.next_multiple_of(TILE)
    }
}

/// The widths of heads that there are kernels for; others take the next greater one.
const HEAD_WIDTHS: [usize; 4] = [16, 32, 64, 128];

/// The widest head.
pub(in crate::device) const WIDEST_HEAD: usize = 128;

/// Queries or keys of a tile of attention.
const TILE: usize = 64;

const ATTENTION_THREADS: usize = 128;

impl Card {
    fn attention_kernel(
        &self,
        kernel: &str,
        (tiles, extent): (usize, Extent),
        (inputs, scores): (usize, usize),
        heads: &Heads,
        more: &[&dyn Argument],
    ) -> Result<(), Fault> {
        let width = HEAD_WIDTHS
            .into_iter()
            .find(|&width| width >= heads.width as usize)
            .unwrap_or(WIDEST_HEAD);
        let (size, element) = (self.element().bytes(), self.element().name());
        let row = |columns: usize| columns * size + 16;
        let shared = TILE * (inputs * row(width) + scores * row(TILE));
        let tiles = tiles.div_ceil(TILE);
        let mut arguments: Vec<&dyn Argument> = vec![heads];
        arguments.extend(more);
        self.run(
            &format!("{kernel}_{element}_{width}"),
            [extent.rows, heads.heads as usize, tiles],
            ATTENTION_THREADS,
            shared,
            &arguments,
        )
    }

    pub(in crate::device) fn attention(
        &self,
        heads: &Heads,
        extent: Extent,
        out: Address,
        statistics: Address,
    ) -> Result<(), Fault> {
        let stride = heads.heads * heads.width;
        self.attention_kernel(
            "attention",
            (extent.longest_queries, extent),
            (3, 1),
            heads,
            &[&out, &stride, &statistics],
        )
    }

    /// `gradients.common` is written first, from the context `out` and its gradient; the keys' pass leaves
    /// `gradients.slopes` for the queries'.
    pub(in crate::device) fn attention_backward(
        &self,
        heads: &Heads,
        extent: Extent,
        out: Address,
        gradients: &HeadGradients,
    ) -> Result<(), Fault> {
        let count = extent.queries * heads.heads as usize;
        let size = count as u32;
        let arguments: [&dyn Argument; 5] = [
            &out,
            &gradients.gradient,
            &size,
            &heads.width,
            &gradients.common,
        ];
        let name = format!("attention_common_{}", self.element().name());
        let blocks = [count.div_ceil(ATTENTION_THREADS / 32), 1, 1];
        self.run(&name, blocks, ATTENTION_THREADS, 0, &arguments)?;
        // In f32, slopes and probabilities share a place.
        let scores = match self.element() {
            Element::F32 => 1,
            Element::Bf16 => 2,
        };
        let read = (extent.longest, extent);
        self.attention_kernel("attention_keys", read, (4, scores), heads, &[gradients])?;
        let asked = (extent.longest_queries, extent);
        self.attention_kernel("attention_queries", asked, (1, 1), heads, &[gradients])
    }
}
