//! The kernels of `cuda/`, by their arguments, and a module for each of its files. Each call is one launch.

mod attention;
mod columns;
mod norm;
mod optimizer;
mod other_networks;
mod products;
mod tables;

pub(super) use attention::{Extent, HeadGradients, Heads, WIDEST_HEAD};
pub(super) use columns::SumTask;
pub(super) use norm::{Norm, Places, WIDEST_NORM};
pub(super) use optimizer::Chunk;
pub(super) use other_networks::{Convolution, Recurrence, WIDEST_RECURRENCE};

use super::{Argument, Card, Fault, Grid, Plain};
use crate::kernels;

const ROW_THREADS: usize = 128;
/// The shared memory that a block can have on every device from compute capability 8.0 on. Attention asks for more where
/// heads are wide and `f32`; a device says if that is too much.
const MOST_SHARED: usize = 99 << 10;

/// As in `arithmetic.h`: which elements a dropout layer drops.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::device) struct Mask {
    key: [u32; 2],
    threshold: u32,
    scale: f32,
}

impl Mask {
    /// Drops nothing.
    pub const NONE: Self = Self {
        key: [0; 2],
        threshold: 0,
        scale: 1.0,
    };

    pub(in crate::device) fn of(mask: Option<&kernels::Mask>) -> Self {
        mask.map_or(Self::NONE, |mask| Self {
            key: mask.key(),
            threshold: u32::from(mask.threshold()),
            scale: mask.scale(),
        })
    }

    pub(in crate::device) fn drops_nothing(&self) -> bool {
        self.threshold == 0
    }
}

impl Plain for Mask {}

impl Card {
    fn run(
        &self,
        kernel: &str,
        blocks: [usize; 3],
        threads: usize,
        shared: usize,
        arguments: &[&dyn Argument],
    ) -> Result<(), Fault> {
        if blocks.contains(&0) {
            return Ok(());
        }
        let grid = Grid {
            blocks,
            threads,
            shared,
        };
        self.device.launch(kernel, grid, arguments)
    }

    /// A block for each row.
    fn rows(&self, kernel: &str, rows: usize, arguments: &[&dyn Argument]) -> Result<(), Fault> {
        self.run(kernel, [rows, 1, 1], ROW_THREADS, 0, arguments)
    }

    /// A thread for each number of each row.
    fn cells(
        &self,
        kernel: &str,
        (rows, width): (usize, usize),
        arguments: &[&dyn Argument],
    ) -> Result<(), Fault> {
        let blocks = [rows, width.div_ceil(ROW_THREADS), 1];
        self.run(kernel, blocks, ROW_THREADS, 0, arguments)
    }
}
