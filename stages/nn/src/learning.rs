//! A network in training, wherever it is computed.

use crate::device::Fault;
use crate::loss::{Loss, LossSum};
use crate::optimizer::State;
use crate::{Batch, Dropout, Learner, Network};

/// A network with its weights, their gradients and the optimizer, on the CPU ([`OnHost`]) or on a device of its own
/// ([`crate::device::DeviceLearner`]). The CPU has no faults.
pub trait Learning: Send {
    /// The number of logits a row.
    fn outputs(&self) -> usize;

    /// Goes on from a checkpoint; answers `false`, and changes nothing, where it is of another layout.
    ///
    /// # Errors
    /// Those of the device.
    fn restore(&mut self, weights: Vec<f32>, state: State<f32>) -> Result<bool, Fault>;

    /// Adds the gradient of `share` times the batch's loss to the step's; answers the loss and the logits.
    ///
    /// # Errors
    /// Those of the device.
    fn add_batch(
        &mut self,
        batch: &Batch,
        dropout: &Dropout,
        loss: &Loss,
        share: f64,
    ) -> Result<(LossSum, Vec<f32>), Fault>;

    /// The norm of the step's gradient.
    ///
    /// # Errors
    /// Those of the device.
    fn gradient_norm(&mut self) -> Result<f64, Fault>;

    /// Makes a step against the gradient, multiplied by `scale`, and forgets it.
    ///
    /// # Errors
    /// Those of the device.
    fn step(&mut self, learning_rate: f64, scale: f64) -> Result<(), Fault>;

    /// [`Learning::add_batch`] of one batch, the norm where it `measures`, and [`Learning::step`]. Where the loss is not
    /// finite, no step is made.
    ///
    /// # Errors
    /// Those of the device.
    fn step_at_once(
        &mut self,
        batch: &Batch,
        (dropout, loss): (&Dropout, &Loss),
        learning_rate: f64,
        measures: bool,
    ) -> Result<(LossSum, Vec<f32>, Option<f64>), Fault> {
        let (sum, logits) = self.add_batch(batch, dropout, loss, 1.0)?;
        if !sum.mean().is_finite() {
            return Ok((sum, logits, None));
        }
        let norm = match measures {
            true => Some(self.gradient_norm()?),
            false => None,
        };
        self.step(learning_rate, 1.0)?;
        Ok((sum, logits, norm))
    }

    /// The logits `[rows, outputs]` of a batch, without dropout.
    ///
    /// # Errors
    /// Those of the device.
    fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>, Fault>;

    /// All weights and the optimizer's state, to be read.
    ///
    /// # Errors
    /// Those of the device.
    fn settle(&mut self) -> Result<(&[f32], &State<f32>), Fault>;
}

/// A network in training on the CPU.
pub struct OnHost {
    network: Box<dyn Network<f32>>,
    learner: Learner<f32>,
}

impl OnHost {
    /// That of a network and what is kept in step with it.
    pub fn new(network: Box<dyn Network<f32>>, learner: Learner<f32>) -> Self {
        Self { network, learner }
    }
}

impl Learning for OnHost {
    fn outputs(&self) -> usize {
        self.network.outputs()
    }

    fn restore(&mut self, weights: Vec<f32>, state: State<f32>) -> Result<bool, Fault> {
        Ok(self.learner.restore(weights, state))
    }

    fn add_batch(
        &mut self,
        batch: &Batch,
        dropout: &Dropout,
        loss: &Loss,
        share: f64,
    ) -> Result<(LossSum, Vec<f32>), Fault> {
        let network = self.network.as_mut();
        Ok(self.learner.add_batch(network, batch, dropout, loss, share))
    }

    fn gradient_norm(&mut self) -> Result<f64, Fault> {
        Ok(self.learner.gradient_norm())
    }

    fn step(&mut self, learning_rate: f64, scale: f64) -> Result<(), Fault> {
        self.learner.step(learning_rate, scale);
        Ok(())
    }

    fn step_at_once(
        &mut self,
        batch: &Batch,
        with: (&Dropout, &Loss),
        learning_rate: f64,
        measures: bool,
    ) -> Result<(LossSum, Vec<f32>, Option<f64>), Fault> {
        let network = self.network.as_mut();
        Ok(self
            .learner
            .step_at_once(network, batch, with, learning_rate, measures))
    }

    fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>, Fault> {
        let (weights, _) = self.learner.settle();
        Ok(self.network.forward(weights, batch, None))
    }

    fn settle(&mut self) -> Result<(&[f32], &State<f32>), Fault> {
        Ok(self.learner.settle())
    }
}
