//! Sums down columns, all of a backward pass finished in one launch: kernels leave the sums of 64 rows each, and where
//! they belong is written down here until [`Sums::finish`].

use std::sync::Arc;

use super::arena::Arena;
use super::kernels::SumTask;
use super::{Address, Card, Device, Element, Fault};

/// Rows that a kernel sums up: `COLUMN_ROWS` in `columns.cu`.
pub(super) const ROWS: usize = 64;
/// Columns of a task: the lanes of a warp.
const COLUMNS: usize = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct Sums {
    arena: Arena,
    tasks: Vec<SumTask>,
    /// Whether the sums are added to what is there.
    pub adds: bool,
}

impl Sums {
    pub fn new(device: &Arc<dyn Device>) -> Self {
        Self {
            arena: Arena::new(device),
            tasks: Vec::new(),
            adds: false,
        }
    }

    /// Forgets what is not finished.
    pub fn begin(&mut self, adds: bool) {
        self.arena.clear();
        self.tasks.clear();
        self.adds = adds;
    }

    /// Where a kernel leaves its sums of `rows` rows of `columns` columns.
    pub fn place(&mut self, rows: usize, columns: usize) -> Result<Address, Fault> {
        self.arena.floats(rows.div_ceil(ROWS).max(1) * columns)
    }

    /// Says that columns `first..first + count` of these sums, `stride` columns in all, belong to `target`.
    pub fn add(
        &mut self,
        sums: Address,
        rows: usize,
        stride: usize,
        (first, count): (usize, usize),
        target: Address,
    ) {
        for column in (0..count).step_by(COLUMNS) {
            self.tasks.push(SumTask {
                sums: sums.floats(first + column),
                target: target.floats(column),
                columns: COLUMNS.min(count - column) as u32,
                parts: rows.div_ceil(ROWS) as u32,
                stride: stride as u32,
                adds: u32::from(self.adds),
            });
        }
    }

    /// Adds everything up.
    pub fn finish(&mut self, card: &Card) -> Result<(), Fault> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = self.tasks.iter().flat_map(|task| task.to_bytes()).collect();
        let table = self.arena.take(bytes.len().div_ceil(4), Element::F32)?;
        card.device.upload(&bytes, table)?;
        card.finish_sums(table, self.tasks.len())?;
        self.tasks.clear();
        Ok(())
    }
}
