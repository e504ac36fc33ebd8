//! Passes down the columns of a buffer and the sums that they leave, of `columns.cu`.

use super::Norm;
use crate::device::{Address, Argument, Card, Element, Fault, sums};

/// As in `columns.cu`: sums to be added up.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::device) struct SumTask {
    pub sums: Address,
    pub target: Address,
    pub columns: u32,
    pub parts: u32,
    pub stride: u32,
    pub adds: u32,
}

impl SumTask {
    pub(in crate::device) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.sums.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.target.0.to_le_bytes());
        let words = [self.columns, self.parts, self.stride, self.adds];
        for (to, word) in bytes[16..].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

const COLUMN_THREADS: usize = 128;

impl Card {
    fn columns(
        &self,
        kernel: &str,
        (rows, columns): (usize, usize),
        arguments: &[&dyn Argument],
    ) -> Result<(), Fault> {
        self.some_columns(kernel, 1, (rows, columns), arguments)
    }

    /// With `some` columns a thread.
    fn some_columns(
        &self,
        kernel: &str,
        some: usize,
        (rows, columns): (usize, usize),
        arguments: &[&dyn Argument],
    ) -> Result<(), Fault> {
        let blocks = [
            columns.div_ceil(COLUMN_THREADS * some),
            rows.div_ceil(sums::ROWS),
            1,
        ];
        self.run(kernel, blocks, COLUMN_THREADS, 0, arguments)
    }

    /// A kernel of gelu, over four columns a thread where rows allow it.
    fn gelu(
        &self,
        kernel: &str,
        sizes: (usize, usize),
        arguments: &[&dyn Argument],
    ) -> Result<(), Fault> {
        let some = if sizes.1.is_multiple_of(4) { 4 } else { 1 };
        let name = format!("{kernel}_{}_{some}", self.element().name());
        self.some_columns(&name, some, sizes, arguments)
    }

    /// Sums for the gradients of gamma and beta, from that of y.
    pub(in crate::device) fn norm_columns(
        &self,
        norm: &Norm,
        gradient: Address,
        [gamma, beta]: [Address; 2],
    ) -> Result<(), Fault> {
        let (rows, columns) = (norm.tokens as u32, norm.width as u32);
        self.columns(
            "norm_columns",
            (norm.tokens, norm.width),
            &[
                &gradient,
                &norm.sum,
                &norm.statistics,
                &rows,
                &columns,
                &gamma,
                &beta,
            ],
        )
    }

    pub(in crate::device) fn column_sums(
        &self,
        x: Address,
        element: Element,
        (rows, columns): (usize, usize),
        sums: Address,
    ) -> Result<(), Fault> {
        let sizes = (rows as u32, columns as u32);
        self.columns(
            &format!("column_sums_{}", element.name()),
            (rows, columns),
            &[&x, &sizes.0, &sizes.1, &sums],
        )
    }

    pub(in crate::device) fn bias_gelu(
        &self,
        (x, bias): (Address, Address),
        y: Address,
        (rows, columns): (usize, usize),
    ) -> Result<(), Fault> {
        let sizes = (rows as u32, columns as u32);
        self.gelu(
            "bias_gelu",
            (rows, columns),
            &[&x, &bias, &y, &sizes.0, &sizes.1],
        )
    }

    pub(in crate::device) fn bias_gelu_backward(
        &self,
        gradient: Address,
        (x, bias): (Address, Address),
        (rows, columns): (usize, usize),
        sums: Address,
    ) -> Result<(), Fault> {
        let sizes = (rows as u32, columns as u32);
        self.gelu(
            "bias_gelu_backward",
            (rows, columns),
            &[&gradient, &x, &bias, &sizes.0, &sizes.1, &sums],
        )
    }

    /// Sums of the rows of each class, `[classes, columns]`.
    pub(in crate::device) fn class_sums(
        &self,
        gradient: Address,
        (class_of, classes): (Address, usize),
        (rows, columns): (usize, usize),
        sums: Address,
    ) -> Result<(), Fault> {
        let sizes = (classes as u32, rows as u32, columns as u32);
        self.columns(
            "class_sums",
            (rows, columns),
            &[&gradient, &class_of, &sizes.0, &sizes.1, &sizes.2, &sums],
        )
    }

    pub(in crate::device) fn finish_sums(&self, table: Address, tasks: usize) -> Result<(), Fault> {
        self.run("finish_sums", [tasks, 1, 1], 256, 0, &[&table])
    }
}
