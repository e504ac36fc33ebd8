//! The optimizer's step and the norm of gradients, of `optimizer.cu`.

use crate::device::{Address, Card, Fault, Plain};
use crate::kernels::optimizer::{AdamScalars, SgdScalars};

/// As in `optimizer.cu`: a part of a tensor.
#[derive(Clone, Copy, Debug)]
pub(in crate::device) struct Chunk {
    pub offset: u64,
    pub length: u32,
    pub decays: bool,
    pub clears: bool,
}

impl Chunk {
    /// The most numbers of a chunk; that of `sum_of_squares`.
    pub const LENGTH: usize = 4096;

    pub(in crate::device) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let flags = u32::from(self.decays) | u32::from(self.clears) << 1;
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..].copy_from_slice(&flags.to_le_bytes());
        bytes
    }
}

impl Plain for AdamScalars {}

impl Plain for SgdScalars {}

const STEP_THREADS: usize = 256;

impl Card {
    /// A step of Adam over all chunks.
    pub(in crate::device) fn adam(
        &self,
        (chunks, count): (Address, usize),
        scalars: &AdamScalars,
        [weights, gradients, first, second, copy]: [Address; 5],
    ) -> Result<(), Fault> {
        self.run(
            "adam",
            [count, 1, 1],
            STEP_THREADS,
            0,
            &[
                &chunks, scalars, &weights, &gradients, &first, &second, &copy,
            ],
        )
    }

    /// A step of gradient descent over all chunks.
    pub(in crate::device) fn sgd(
        &self,
        (chunks, count): (Address, usize),
        scalars: &SgdScalars,
        [weights, gradients, velocity, copy]: [Address; 4],
    ) -> Result<(), Fault> {
        self.run(
            "sgd",
            [count, 1, 1],
            STEP_THREADS,
            0,
            &[&chunks, scalars, &weights, &gradients, &velocity, &copy],
        )
    }

    /// The sum of the squares of all chunks of x, a double, in `total`.
    pub(in crate::device) fn sum_of_squares(
        &self,
        (chunks, count): (Address, usize),
        x: Address,
        sums: Address,
        total: Address,
    ) -> Result<(), Fault> {
        let size = count as u32;
        let blocks = [count.div_ceil(STEP_THREADS / 32), 1, 1];
        self.run(
            "squares",
            blocks,
            STEP_THREADS,
            0,
            &[&chunks, &size, &x, &sums],
        )?;
        self.run("squares_total", [1, 1, 1], 1024, 0, &[&sums, &size, &total])
    }

    /// Copies floats as bf16.
    pub(in crate::device) fn narrow_all(
        &self,
        from: Address,
        to: Address,
        count: usize,
    ) -> Result<(), Fault> {
        let size = count as u64;
        let blocks = [count.div_ceil(STEP_THREADS), 1, 1];
        self.run("narrow_all", blocks, STEP_THREADS, 0, &[&from, &to, &size])
    }
}
