//! A network in training: its weights, their gradients and the optimizer, kept in step with each other.
//!
//! Of a gathered tensor (word embeddings) a step touches the rows that its batches name and no others:
//! they are brought up to date before the network reads them, their gradients are cleared when the step is
//! made, and everything else is left where it lies in memory. [`Learner::settle`] brings up the rest.

use crate::loss::{Loss, LossSum};
use crate::optimizer::{Optimizer, State, gradient_norm};
use crate::pages::in_large_pages;
use crate::parameters::Parameters;
use crate::{Batch, Dropout, Network, Real};

/// See the module.
#[derive(Debug)]
pub struct Learner<R> {
    parameters: Parameters,
    weights: Vec<R>,
    gradients: Vec<R>,
    optimizer: Optimizer<R>,
    /// The rows of gathered tensors that batches have named since the last step, ascending.
    named: Vec<u32>,
    logits_gradient: Vec<R>,
}

impl<R: Real> Learner<R> {
    /// Begins with these weights, in the layout of `parameters`.
    pub fn new(parameters: Parameters, weights: Vec<R>, optimizer: Optimizer<R>) -> Self {
        assert_eq!(weights.len(), parameters.buffer_len(), "weights in layout");
        let mut gradients = vec![R::ZERO; weights.len()];
        // Of gathered tensors only a few rows are ever touched: no more than those shall be there.
        let gathered = parameters.tensors().iter().filter(|tensor| tensor.gathered);
        let behind = gathered.map(|tensor| tensor.range().end).max().unwrap_or(0);
        in_large_pages(&mut gradients[behind..]);
        Self {
            gradients,
            parameters,
            weights,
            optimizer,
            named: Vec::new(),
            logits_gradient: Vec::new(),
        }
    }

    /// Goes on from a checkpoint; answers `false`, and changes nothing, where it is of another layout.
    pub fn restore(&mut self, weights: Vec<R>, state: State<R>) -> bool {
        let fits = weights.len() == self.weights.len() && self.optimizer.restore(state);
        if fits {
            self.weights = weights;
        }
        fits
    }

    /// Adds the gradient of `share` times the batch's loss to the step's; answers the loss and the logits.
    pub fn add_batch(
        &mut self,
        network: &mut dyn Network<R>,
        batch: &Batch,
        dropout: &Dropout,
        loss: &Loss,
        share: f64,
    ) -> (LossSum, Vec<R>) {
        let named = batch.named();
        self.optimizer
            .catch_up(&self.parameters, &mut self.weights, &named);
        let logits = network.forward(&self.weights, batch, Some(dropout));
        self.logits_gradient.clear();
        self.logits_gradient.resize(logits.len(), R::ZERO);
        let sum = loss.gradient(&logits, &batch.labels, share, &mut self.logits_gradient);
        network.backward(
            &self.weights,
            batch,
            &self.logits_gradient,
            &mut self.gradients,
        );
        if self.named.is_empty() {
            self.named = named;
        } else {
            self.named.extend(named);
            self.named.sort_unstable();
            self.named.dedup();
        }
        (sum, logits)
    }

    /// The norm of the step's gradient.
    pub fn gradient_norm(&self) -> f64 {
        gradient_norm(&self.parameters, &self.gradients)
    }

    /// Makes a step against the gradient, multiplied by `scale`, and clears it.
    pub fn step(&mut self, learning_rate: f64, scale: f64) {
        let (weights, gradients) = (&mut self.weights, &self.gradients);
        self.optimizer.step(
            &self.parameters,
            weights,
            gradients,
            &self.named,
            learning_rate,
            scale,
        );
        for tensor in self.parameters.tensors() {
            let gradients = &mut self.gradients[tensor.range()];
            match tensor.shape[..] {
                [_, width] if tensor.gathered => {
                    for &row in &self.named {
                        gradients[row as usize * width..][..width].fill(R::ZERO);
                    }
                }
                _ => gradients.fill(R::ZERO),
            }
        }
        self.named.clear();
    }

    /// Brings all weights and moments up to date, to be read.
    pub fn settle(&mut self) -> (&[R], &State<R>) {
        self.optimizer.settle(&self.parameters, &mut self.weights);
        (&self.weights, self.optimizer.state())
    }

    /// The weights at the end.
    pub fn into_weights(mut self) -> Vec<R> {
        self.settle();
        self.weights
    }
}
