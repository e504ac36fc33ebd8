//! Models, their gradients and the kernels under them: the same bits on every CPU, with any number of threads.
//!
//! A network is a pair of explicit functions, forward and backward, over flat buffers; there is no graph
//! and no autograd. All parameters of a network lie in one buffer ([`Parameters`] says where each tensor
//! is), their gradients and the optimizer's moments in buffers of the same layout. Everything is generic
//! over [`Real`]: `f32` is what trains, `f64` is what the tests check it with.

use std::ops::Range;

pub mod batch;
pub mod device;
pub mod gradients;
pub mod kernels;
pub mod learner;
pub mod learning;
pub mod loss;
pub mod math;
pub mod model;
pub mod optimizer;
pub mod pages;
pub mod parallel;
pub mod parameters;
pub mod proof;
pub mod random;
pub mod real;
pub mod schedule;

pub use batch::{Batch, Dropout};
pub use gradients::Gradients;
pub use learner::Learner;
pub use learning::{Learning, OnHost};
pub use parameters::{Initial, Parameters, Tensor};
pub use real::Real;

/// A model that can be trained.
pub trait Network<R: Real>: Send {
    /// The names and shapes of its tensors, in the order in which they lie in the buffer.
    fn parameters(&self) -> &Parameters;

    /// The same, to change what is trained.
    fn parameters_mut(&mut self) -> &mut Parameters;

    /// The number of outputs a row: classes, or 1.
    fn outputs(&self) -> usize;

    /// Computes the logits `[rows, outputs]` of a batch. With `dropout` it is in training mode and keeps
    /// what [`Network::backward`] needs; without, it is in evaluation mode and keeps nothing.
    fn forward(&mut self, weights: &[R], batch: &Batch, dropout: Option<&Dropout>) -> Vec<R>;

    /// The parts of the parameters whose gradients are computed one after the other, in this order: together all
    /// of the buffer. Once a part's gradient is there, its weights are not read again.
    fn parts(&self) -> Vec<Range<usize>> {
        let all = 0..self.parameters().buffer_len();
        vec![all]
    }

    /// Adds the gradient of the batch last seen by [`Network::forward`] in training mode to those of part number
    /// `part`, given that of its logits `[rows, outputs]`. What it leaves in the places of tensors that are not
    /// trained is of no meaning.
    fn backward_part(
        &mut self,
        part: usize,
        weights: &[R],
        batch: &Batch,
        logits_gradient: &[R],
        gradients: Gradients<'_, R>,
    );

    /// All parts.
    fn backward(
        &mut self,
        weights: &[R],
        batch: &Batch,
        logits_gradient: &[R],
        mut gradients: Gradients<'_, R>,
    ) {
        for part in 0..self.parts().len() {
            self.backward_part(part, weights, batch, logits_gradient, gradients.borrowed());
        }
    }
}
