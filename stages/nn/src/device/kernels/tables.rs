//! Embeddings and other passes by rows, of `tables.cu`.

use super::ROW_THREADS;
use crate::device::batch::Rows;
use crate::device::{Address, Argument, Card, Fault};

impl Card {
    /// The sum of the embeddings of words and, where they are given, of two other tables, each with its ids.
    pub(in crate::device) fn embed(
        &self,
        tokens: usize,
        [words, types, positions]: [(Address, Address); 3],
        width: usize,
        out: Address,
    ) -> Result<(), Fault> {
        let size = width as u32;
        self.rows(
            "embed",
            tokens,
            &[
                &words.0,
                &words.1,
                &types.0,
                &types.1,
                &positions.0,
                &positions.1,
                &size,
                &out,
            ],
        )
    }

    /// Adds the gradients of words to their table.
    pub(in crate::device) fn embed_backward(
        &self,
        gradient: Address,
        rows: &Rows,
        width: usize,
        table: Address,
    ) -> Result<(), Fault> {
        let size = width as u32;
        self.cells(
            "embed_backward",
            (rows.named_count, width),
            &[
                &gradient,
                &rows.named,
                &rows.starts,
                &rows.order,
                &size,
                &table,
            ],
        )
    }

    /// The gradients of `positions` embeddings.
    pub(in crate::device) fn positions_backward(
        &self,
        gradient: Address,
        rows: &Rows,
        (positions, width): (usize, usize),
        adds: bool,
        table: Address,
    ) -> Result<(), Fault> {
        let sizes = (rows.len as u32, width as u32, u32::from(adds));
        self.cells(
            "positions_backward",
            (positions, width),
            &[
                &gradient,
                &rows.offsets,
                &sizes.0,
                &sizes.1,
                &sizes.2,
                &table,
            ],
        )
    }

    pub(in crate::device) fn gather_firsts(
        &self,
        x: Address,
        rows: &Rows,
        width: usize,
        (firsts, copy): (Address, Address),
    ) -> Result<(), Fault> {
        let size = width as u32;
        self.rows(
            &format!("gather_firsts_{}", self.element().name()),
            rows.len,
            &[&x, &rows.offsets, &size, &firsts, &copy],
        )
    }

    pub(in crate::device) fn scatter_firsts(
        &self,
        firsts: Address,
        rows: &Rows,
        width: usize,
        x: Address,
    ) -> Result<(), Fault> {
        let size = width as u32;
        self.rows(
            "scatter_firsts",
            rows.tokens,
            &[&firsts, &rows.row_of, &rows.positions, &size, &x],
        )
    }

    pub(in crate::device) fn mean_rows(
        &self,
        x: Address,
        rows: &Rows,
        width: usize,
        means: Address,
    ) -> Result<(), Fault> {
        let size = width as u32;
        self.rows("mean_rows", rows.len, &[&x, &rows.offsets, &size, &means])
    }

    pub(in crate::device) fn mean_rows_backward(
        &self,
        gradient: Address,
        rows: &Rows,
        width: usize,
        x_gradient: Address,
    ) -> Result<(), Fault> {
        let size = width as u32;
        self.rows(
            "mean_rows_backward",
            rows.tokens,
            &[&gradient, &rows.row_of, &rows.offsets, &size, &x_gradient],
        )
    }

    /// x + bias, with `tanh` through it.
    pub(in crate::device) fn add_bias(
        &self,
        x: Address,
        bias: Address,
        (rows, width): (usize, usize),
        tanh: bool,
    ) -> Result<(), Fault> {
        let sizes = (width as u32, u32::from(tanh));
        self.rows("add_bias", rows, &[&x, &bias, &sizes.0, &sizes.1])
    }

    pub(in crate::device) fn tanh_backward(
        &self,
        gradient: Address,
        y: Address,
        count: usize,
    ) -> Result<(), Fault> {
        let size = count as u32;
        let blocks = [count.div_ceil(ROW_THREADS), 1, 1];
        let arguments: [&dyn Argument; 3] = [&gradient, &y, &size];
        self.run("tanh_backward", blocks, ROW_THREADS, 0, &arguments)
    }
}
