//! Recurrent networks: embeddings, layers of RNN, LSTM or GRU cells in one direction or both, dropout
//! between the layers, and a linear head on the output at the last position.
//!
//! Padding is read: a row is as wide as its batch, and the last position is the last *column*, whatever the
//! row's own length, as in `rnn_outputs[:, -1, :]`. The reverse direction has made one step there, so of the
//! top layer's only that step is computed.
//!
//! Buffers are ordered by position, then by row: a position's rows are one block for the products.

use std::ops::Range;

use crate::batch::{Batch, Dropout};
use crate::kernels::{Buffer, Mask, add, embedding, embedding_backward};
use crate::model::cell::RecurrentKind;
use crate::model::head::{Head, HeadConfig};
use crate::model::sequence::Run;
use crate::parameters::{Initial, Parameters};
use crate::{Gradients, Network, Real};

/// The dropout behind the first layer among the network's; part of the format.
pub(crate) const FIRST_LAYER_DROPOUT: u64 = 1;

/// The sizes of a [`Recurrent`].
#[derive(Clone, Debug, PartialEq)]
pub struct RecurrentConfig {
    /// The cell.
    pub kind: RecurrentKind,
    /// How many tokens there are.
    pub vocab_size: usize,
    /// The numbers of an embedding.
    pub embedding_dim: usize,
    /// The numbers of a hidden state.
    pub hidden_size: usize,
    /// The layers, at least one.
    pub layers: usize,
    /// Whether each layer also runs from the end.
    pub bidirectional: bool,
    /// Dropout between layers, from 0 to below 1.
    pub dropout: f64,
    /// Dropout before the head, from 0 to below 1.
    pub head_dropout: f64,
    /// The number of logits.
    pub outputs: usize,
}

/// The network; see the module.
#[derive(Debug)]
pub struct Recurrent<R> {
    config: RecurrentConfig,
    parameters: Parameters,
    embeddings: Range<usize>,
    /// For each layer its directions: forward, and reverse where there are both.
    layers: Vec<Vec<Run<R>>>,
    head: Head<R>,
    ids: Vec<u32>,
    /// What a layer reads, `[positions, rows, inputs]`; backward its gradient.
    flow: Buffer<R>,
    features: Buffer<R>,
    dropout: Option<Dropout>,
}

impl<R: Real> Recurrent<R> {
    /// A network of these sizes.
    pub fn new(config: RecurrentConfig) -> Self {
        let mut parameters = Parameters::default();
        let embeddings = parameters.add_gathered(
            "embeddings.weight",
            [config.vocab_size, config.embedding_dim],
            Initial::Normal { deviation: 1.0 },
        );
        let suffixes: &[&str] = if config.bidirectional {
            &["", "_reverse"]
        } else {
            &[""]
        };
        let width = suffixes.len() * config.hidden_size;
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let inputs = if layer == 0 {
                config.embedding_dim
            } else {
                width
            };
            let runs = suffixes.iter().map(|suffix| {
                Run::new(
                    &mut parameters,
                    &config,
                    inputs,
                    &format!("l{layer}{suffix}"),
                )
            });
            layers.push(runs.collect());
        }
        let head = Head::new(
            &mut parameters,
            "output_layer",
            HeadConfig {
                inputs: width,
                outputs: config.outputs,
                dropout: config.head_dropout,
                weight: Initial::of_inputs(width),
                bias: Initial::of_inputs(width),
            },
        );
        Self {
            config,
            parameters,
            embeddings,
            layers,
            head,
            ids: Vec::new(),
            flow: Buffer::default(),
            features: Buffer::default(),
            dropout: None,
        }
    }

    fn positions(batch: &Batch) -> usize {
        batch.width.max(1)
    }

    /// The mask behind layer `layer`, in training and where another layer follows.
    fn mask(&self, layer: usize) -> Option<Mask> {
        let dropout = self
            .dropout
            .as_ref()
            .filter(|_| layer + 1 < self.layers.len())?;
        let number = FIRST_LAYER_DROPOUT + layer as u64;
        Some(Mask::new(dropout, number, self.config.dropout))
    }

    /// Drops numbers of `x` `[positions, rows, width]`.
    fn drop(mask: &Mask, batch: &Batch, x: &mut [R]) {
        if mask.drops_nothing() {
            return;
        }
        let width = x.len() / (Self::positions(batch) * batch.len());
        for (index, x) in x.chunks_exact_mut(width).enumerate() {
            let (position, row) = (index / batch.len(), index % batch.len());
            R::dropout_token(mask, batch.rows[row], position as u32, x);
        }
    }

    fn embed(&mut self, weights: &[R], batch: &Batch) {
        self.ids.clear();
        for position in 0..Self::positions(batch) {
            self.ids.extend((0..batch.len()).map(|row| {
                let range = batch.range(row);
                if position < range.len() {
                    batch.ids[range.start + position]
                } else {
                    batch.padding_id
                }
            }));
        }
        let width = self.config.embedding_dim;
        self.flow.resize(self.ids.len() * width);
        let table = &weights[self.embeddings.clone()];
        embedding(&[(&self.ids, table)], width, &mut self.flow);
    }
}

/// For each step of a direction the position that it reads. Of the top layer's reverse direction only the
/// first step is wanted.
fn positions_of_steps(direction: usize, is_top: bool, positions: usize) -> Vec<usize> {
    match (direction, is_top) {
        (0, _) => (0..positions).collect(),
        (_, true) => vec![positions - 1],
        (_, false) => (0..positions).rev().collect(),
    }
}

impl<R: Real> Network<R> for Recurrent<R> {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    fn outputs(&self) -> usize {
        self.head.outputs()
    }

    fn forward(&mut self, weights: &[R], batch: &Batch, dropout: Option<&Dropout>) -> Vec<R> {
        if batch.is_empty() {
            return Vec::new();
        }
        self.dropout = dropout.copied();
        self.embed(weights, batch);
        let (rows, positions) = (batch.len(), Self::positions(batch));
        let hidden = self.config.hidden_size;
        let top = self.layers.len() - 1;
        for layer in 0..=top {
            let mask = self.mask(layer);
            let runs = &mut self.layers[layer];
            let width = runs.len() * hidden;
            for (direction, run) in runs.iter_mut().enumerate() {
                let block = rows * run.input.inputs;
                run.x.clear();
                for position in positions_of_steps(direction, layer == top, positions) {
                    let start = position * block;
                    run.x.extend_from_slice(&self.flow[start..start + block]);
                }
                run.forward(weights, rows);
            }
            if layer == top {
                break;
            }
            self.flow.resize(positions * rows * width);
            for (direction, run) in runs.iter().enumerate() {
                let steps = positions_of_steps(direction, false, positions);
                for (position, block) in steps
                    .into_iter()
                    .zip(run.outputs(rows).chunks_exact(rows * hidden))
                {
                    let flow = &mut self.flow[position * rows * width..][..rows * width];
                    for (to, from) in flow.chunks_exact_mut(width).zip(block.chunks_exact(hidden)) {
                        to[direction * hidden..][..hidden].copy_from_slice(from);
                    }
                }
            }
            if let Some(mask) = mask {
                Self::drop(&mask, batch, &mut self.flow);
            }
        }
        let runs = &self.layers[top];
        let width = runs.len() * hidden;
        self.features.resize(rows * width);
        for (direction, run) in runs.iter().enumerate() {
            let outputs = run.outputs(rows);
            let last = &outputs[outputs.len() - rows * hidden..];
            for (to, from) in self
                .features
                .chunks_exact_mut(width)
                .zip(last.chunks_exact(hidden))
            {
                to[direction * hidden..][..hidden].copy_from_slice(from);
            }
        }
        self.head.forward(weights, batch, &self.features, dropout)
    }

    fn backward_part(
        &mut self,
        _: usize,
        weights: &[R],
        batch: &Batch,
        logits_gradient: &[R],
        mut gradients: Gradients<'_, R>,
    ) {
        if batch.is_empty() {
            return;
        }
        let (rows, positions) = (batch.len(), Self::positions(batch));
        let hidden = self.config.hidden_size;
        let top = self.layers.len() - 1;
        let features = &mut self.features;
        self.head
            .backward(weights, batch, logits_gradient, &mut gradients, features);
        for layer in (0..=top).rev() {
            let mask = self.mask(layer);
            let runs = &mut self.layers[layer];
            let width = runs.len() * hidden;
            if let Some(mask) = mask {
                Self::drop(&mask, batch, &mut self.flow);
            }
            for (direction, run) in runs.iter_mut().enumerate() {
                let steps = positions_of_steps(direction, layer == top, positions);
                run.hidden_gradient.resize(steps.len() * rows * hidden);
                run.hidden_gradient.fill(R::ZERO);
                let blocks = run.hidden_gradient.chunks_exact_mut(rows * hidden);
                for (step, (&position, block)) in steps.iter().zip(blocks).enumerate() {
                    let above = match layer == top {
                        true if step + 1 == steps.len() => &self.features[..],
                        true => continue,
                        false => &self.flow[position * rows * width..][..rows * width],
                    };
                    for (to, from) in block
                        .chunks_exact_mut(hidden)
                        .zip(above.chunks_exact(width))
                    {
                        to.copy_from_slice(&from[direction * hidden..][..hidden]);
                    }
                }
                run.backward(weights, rows, &mut gradients);
            }
            let inputs = runs[0].input.inputs;
            self.flow.resize(positions * rows * inputs);
            for (direction, run) in runs.iter().enumerate() {
                let block = rows * inputs;
                let steps = positions_of_steps(direction, layer == top, positions);
                for (position, gradient) in
                    steps.into_iter().zip(run.x_gradient.chunks_exact(block))
                {
                    let flow = &mut self.flow[position * block..][..block];
                    match direction {
                        0 => flow.copy_from_slice(gradient),
                        _ => add(flow, gradient),
                    }
                }
            }
        }
        let table = gradients.gathered(&self.embeddings);
        embedding_backward(&self.ids, &self.flow, self.config.embedding_dim, table);
    }
}
