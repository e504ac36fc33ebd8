//! Convolutions and recurrent layers, of `other_networks.cu`.

use super::{MOST_SHARED, ROW_THREADS};
use crate::device::{Address, Argument, Card, Fault, Plain};

/// As in `other_networks.cu`: how a convolution goes over rows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::device) struct Convolution {
    pub offsets: Address,
    pub rows: u32,
    pub tokens: u32,
    pub filters: u32,
    pub width: u32,
    pub padding: u32,
    pub row_width: u32,
}

/// As in `other_networks.cu`: one direction of one recurrent layer.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::device) struct Recurrence {
    pub gates: Address,
    pub recurrent: Address,
    pub hidden: Address,
    pub cell: Address,
    pub cell_tanh: Address,
    pub weights: Address,
    pub bias: Address,
    pub hidden_gradient: Address,
    pub kind: u32,
    pub size: u32,
    pub gate_size: u32,
    pub rows: u32,
    pub steps: u32,
    pub first: u32,
    pub reverse: u32,
}

impl Plain for Convolution {}

impl Plain for Recurrence {}

/// The most numbers of a hidden state of a recurrent network, and of its gates: both lie in shared memory.
pub(in crate::device) const WIDEST_RECURRENCE: usize = MOST_SHARED / 4;

impl Card {
    /// Filters `[filters, dimensions, width]` as columns `[width * filters, dimensions]`.
    pub(in crate::device) fn filters_to_columns(
        &self,
        weights: Address,
        [filters, dimensions, width]: [usize; 3],
        columns: Address,
    ) -> Result<(), Fault> {
        let sizes = [filters, dimensions, width].map(|size| size as u32);
        self.rows(
            "filters_to_columns",
            width * filters,
            &[&weights, &sizes[0], &sizes[1], &sizes[2], &columns],
        )
    }

    /// The same back, for gradients.
    pub(in crate::device) fn columns_to_filters(
        &self,
        columns: Address,
        [filters, dimensions, width]: [usize; 3],
        adds: bool,
        weights: Address,
    ) -> Result<(), Fault> {
        let sizes = [filters, dimensions, width].map(|size| size as u32);
        let adds = u32::from(adds);
        self.rows(
            "columns_to_filters",
            width * filters,
            &[&columns, &sizes[0], &sizes[1], &sizes[2], &adds, &weights],
        )
    }

    /// The greatest values and their places, `[rows, filters]` both.
    pub(in crate::device) fn convolve(
        &self,
        with: &Convolution,
        (products, bias): (Address, Address),
        (features, places): (Address, Address),
    ) -> Result<(), Fault> {
        let count = (with.rows * with.filters) as usize;
        let arguments: [&dyn Argument; 5] = [with, &products, &bias, &features, &places];
        let blocks = [count.div_ceil(ROW_THREADS / 32), 1, 1];
        self.run("convolve", blocks, ROW_THREADS, 0, &arguments)
    }

    /// The gradients of the products, cleared before.
    pub(in crate::device) fn convolve_backward(
        &self,
        with: &Convolution,
        gradient: Address,
        (features, places): (Address, Address),
        products: Address,
    ) -> Result<(), Fault> {
        let count = (with.rows * with.filters) as usize;
        let arguments: [&dyn Argument; 5] = [with, &gradient, &features, &places, &products];
        let blocks = [count.div_ceil(ROW_THREADS), 1, 1];
        self.run("convolve_backward", blocks, ROW_THREADS, 0, &arguments)
    }

    /// Columns `first..first + count` of `[rows, width]` as a buffer of their own, or, where `back`, from one.
    pub(in crate::device) fn copy_columns(
        &self,
        from: Address,
        [rows, width, first, count]: [usize; 4],
        to: Address,
        back: bool,
    ) -> Result<(), Fault> {
        let name = if back { "put_columns" } else { "take_columns" };
        let sizes = [width, first, count].map(|size| size as u32);
        let arguments: [&dyn Argument; 5] = [&from, &sizes[0], &sizes[1], &sizes[2], &to];
        self.rows(name, rows, &arguments)
    }

    /// x `[rows, columns]`, transposed.
    pub(in crate::device) fn transpose(
        &self,
        x: Address,
        (rows, columns): (usize, usize),
        y: Address,
    ) -> Result<(), Fault> {
        let sizes = (rows as u32, columns as u32);
        self.rows("transpose", rows, &[&x, &sizes.0, &sizes.1, &y])
    }

    /// All steps of a recurrent layer's direction, or, `backward`, all the way back.
    pub(in crate::device) fn recur(&self, with: &Recurrence, backward: bool) -> Result<(), Fault> {
        let name = if backward { "recur_backward" } else { "recur" };
        let shared = (2 * with.size + with.gate_size) as usize * 4;
        self.run(name, [with.rows as usize, 1, 1], 256, shared, &[with])
    }
}
