//! The head of a classifier: dropout, then one linear layer from each row's features to its logits.

use std::ops::Range;

use crate::batch::{Batch, Dropout};
use crate::kernels::{Buffer, Mask, dropout_rows};
use crate::model::linear::Linear;
use crate::parameters::{Initial, Parameters};
use crate::{Gradients, Real};

/// The number of the head's dropout among a network's; part of the format.
pub(crate) const HEAD_DROPOUT: u64 = 0;

/// The sizes of a [`Head`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadConfig {
    /// The features of a row.
    pub inputs: usize,
    /// The logits of a row.
    pub outputs: usize,
    /// The probability with which a feature is dropped, from 0 to below 1.
    pub dropout: f64,
    /// What the layer's weights begin with.
    pub weight: Initial,
    /// What its bias begins with.
    pub bias: Initial,
}

/// See the module.
#[derive(Debug)]
pub struct Head<R> {
    linear: Linear,
    dropout: f64,
    mask: Option<Mask>,
    /// The features after dropout, `[rows, inputs]`.
    features: Buffer<R>,
}

impl<R: Real> Head<R> {
    /// A head whose tensors are `NAME.weight` and `NAME.bias`.
    pub fn new(parameters: &mut Parameters, name: &str, config: HeadConfig) -> Self {
        Self {
            linear: Linear::new(
                parameters,
                name,
                [config.inputs, config.outputs],
                [config.weight, config.bias],
            ),
            dropout: config.dropout,
            mask: None,
            features: Buffer::default(),
        }
    }

    /// The logits a row.
    pub fn outputs(&self) -> usize {
        self.linear.outputs
    }

    /// Where its tensors lie: weights, bias.
    pub fn places(&self) -> [Range<usize>; 2] {
        [self.linear.weight.clone(), self.linear.bias.clone()]
    }

    /// The logits `[rows, outputs]` of features `[rows, inputs]`.
    pub fn forward(
        &mut self,
        weights: &[R],
        batch: &Batch,
        features: &[R],
        dropout: Option<&Dropout>,
    ) -> Vec<R> {
        self.features.resize(features.len());
        self.features.copy_from_slice(features);
        self.mask = dropout.map(|dropout| Mask::new(dropout, HEAD_DROPOUT, self.dropout));
        if let Some(mask) = &self.mask {
            dropout_rows(mask, &batch.rows, &mut self.features);
        }
        let mut logits = vec![R::ZERO; batch.len() * self.linear.outputs];
        self.linear.forward(weights, &self.features, &mut logits);
        logits
    }

    /// Adds the gradients of its own tensors and writes that of the features to `features_gradient`.
    pub fn backward(
        &mut self,
        weights: &[R],
        batch: &Batch,
        logits_gradient: &[R],
        gradients: &mut Gradients<'_, R>,
        features_gradient: &mut [R],
    ) {
        self.linear
            .add_gradients(&self.features, logits_gradient, gradients);
        self.linear
            .backward(weights, logits_gradient, features_gradient);
        if let Some(mask) = &self.mask {
            dropout_rows(mask, &batch.rows, features_gradient);
        }
    }
}
