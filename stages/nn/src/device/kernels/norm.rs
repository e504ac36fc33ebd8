//! Normalizations and what lies around them, of `norm.cu`.

use super::{MOST_SHARED, Mask};
use crate::device::{Address, Card, Fault, Plain};

/// As in `norm.cu`: where each row of a buffer stands in the data.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(in crate::device) struct Places {
    pub row_of: Address,
    pub positions: Address,
    pub rows: Address,
}

impl Plain for Places {}

const NORM_WARPS: usize = 4;

/// The widest row that is normalized.
pub(in crate::device) const WIDEST_NORM: usize = MOST_SHARED / (2 * NORM_WARPS * 4);

/// What a normalization reads and leaves.
#[derive(Clone, Copy, Debug)]
pub(in crate::device) struct Norm {
    pub gamma: Address,
    pub beta: Address,
    pub epsilon: f32,
    /// What is normalized, and for each row its mean and inverse deviation.
    pub sum: Address,
    pub statistics: Address,
    pub places: Places,
    pub tokens: usize,
    pub width: usize,
}

impl Card {
    /// Where there is a `product`, `norm.sum = dropout(product + bias) + residual`; else the residual is
    /// normalized as it is. `y` is the normalization after the dropout behind it, `copy` the same for products.
    pub(in crate::device) fn add_norm(
        &self,
        norm: &Norm,
        (product, bias): (Address, Address),
        [before, behind]: [Mask; 2],
        residual: Address,
        (y, copy): (Address, Address),
    ) -> Result<(), Fault> {
        let (tokens, width) = (norm.tokens as u32, norm.width as u32);
        self.run(
            &format!("add_norm_{}", self.element().name()),
            [norm.tokens.div_ceil(NORM_WARPS), 1, 1],
            NORM_WARPS * 32,
            NORM_WARPS * norm.width * 4,
            &[
                &product,
                &bias,
                &before,
                &residual,
                &norm.sum,
                &norm.gamma,
                &norm.beta,
                &norm.epsilon,
                &norm.statistics,
                &behind,
                &y,
                &copy,
                &norm.places,
                &tokens,
                &width,
            ],
        )
    }

    /// Turns the gradient of y, before the dropout behind, into that of the sum; `dropped` becomes that of
    /// the product, where it is wanted.
    pub(in crate::device) fn add_norm_backward(
        &self,
        norm: &Norm,
        gradient: Address,
        before: Mask,
        dropped: Address,
    ) -> Result<(), Fault> {
        let (tokens, width) = (norm.tokens as u32, norm.width as u32);
        self.run(
            &format!("add_norm_backward_{}", self.element().name()),
            [norm.tokens.div_ceil(NORM_WARPS), 1, 1],
            NORM_WARPS * 32,
            2 * NORM_WARPS * norm.width * 4,
            &[
                &gradient,
                &norm.sum,
                &norm.statistics,
                &norm.gamma,
                &before,
                &dropped,
                &norm.places,
                &tokens,
                &width,
            ],
        )
    }

    /// Drops numbers of x `[tokens, width]`.
    pub(in crate::device) fn drop(
        &self,
        x: Address,
        mask: Mask,
        places: Places,
        (tokens, width): (usize, usize),
    ) -> Result<(), Fault> {
        if mask.drops_nothing() {
            return Ok(());
        }
        let blocks = [tokens.div_ceil(NORM_WARPS), 1, 1];
        let sizes = (tokens as u32, width as u32);
        self.run(
            "drop",
            blocks,
            NORM_WARPS * 32,
            0,
            &[&x, &mask, &places, &sizes.0, &sizes.1],
        )
    }
}
