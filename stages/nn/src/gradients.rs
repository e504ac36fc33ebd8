//! Where a network puts the gradients of its tensors.
//!
//! They may be new: then what the memory holds is of no meaning, and each tensor is written instead of added
//! to, once in a backward, so that nobody has to clear them. Gathered tensors alone are always added to.

use std::ops::Range;

use crate::Real;
use crate::kernels::{Epilogue, Matrix, MatrixMut, gemm};

/// The gradients of all tensors of a network, or of one of its parts.
#[derive(Debug)]
pub struct Gradients<'a, R> {
    data: &'a mut [R],
    /// The place of the first in the layout of the parameters.
    begin: usize,
    new: bool,
}

impl<'a, R: Real> Gradients<'a, R> {
    /// Gradients that are added to: all of them.
    pub fn added(data: &'a mut [R]) -> Self {
        Self {
            data,
            begin: 0,
            new: false,
        }
    }

    /// Those of the part of the parameters from `begin` on, `new` or added to.
    pub fn part(data: &'a mut [R], begin: usize, new: bool) -> Self {
        Self { data, begin, new }
    }

    /// The same, for a function that adds some of them.
    pub fn borrowed(&mut self) -> Gradients<'_, R> {
        Gradients {
            data: self.data,
            begin: self.begin,
            new: self.new,
        }
    }

    /// Those of a gathered tensor, to add to.
    pub(crate) fn gathered(&mut self, place: &Range<usize>) -> &mut [R] {
        &mut self.data[place.start - self.begin..place.end - self.begin]
    }

    /// Those of a tensor, or of neighbours, to add to.
    pub(crate) fn sums(&mut self, place: &Range<usize>) -> &mut [R] {
        let new = self.new;
        let sums = self.gathered(place);
        if new {
            sums.fill(R::ZERO);
        }
        sums
    }

    /// Adds the product of A and B to those of a matrix.
    pub(crate) fn add_product(&mut self, place: &Range<usize>, a: Matrix<'_, R>, b: Matrix<'_, R>) {
        let epilogue = if self.new {
            Epilogue::Overwrite
        } else {
            Epilogue::Add
        };
        let target = MatrixMut::new(self.gathered(place), a.rows(), b.columns());
        gemm(a, b, target, epilogue);
    }
}
