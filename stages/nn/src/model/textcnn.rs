//! TextCNN: embeddings, one convolution over them, ReLU, the greatest value of each filter, a linear head
//! (after Kim 2014, "Convolutional neural networks for sentence classification", with one width).
//!
//! Padding is read: a row is as wide as its batch, and the padding token has an embedding like any other.
//! It is computed once, though. The convolution is a product of the embeddings with each column of the
//! filters, `[tokens, width * filters]`, and then a sum of `width` neighbours at each position; all padding
//! tokens share one row of the product. Backward, only the position of each filter's greatest value has a
//! gradient.

use std::ops::Range;

use crate::batch::{Batch, Dropout};
use crate::kernels::{Buffer, embedding};
use crate::model::head::{Head, HeadConfig};
use crate::model::linear::product;
use crate::parameters::{Initial, Parameters};
use crate::{Gradients, Network, Real};

/// The sizes of a [`TextCnn`].
#[derive(Clone, Debug, PartialEq)]
pub struct TextCnnConfig {
    /// How many tokens there are.
    pub vocab_size: usize,
    /// The numbers of an embedding.
    pub embedding_dim: usize,
    /// The convolution's filters.
    pub filters: usize,
    /// How many tokens a filter spans.
    pub width: usize,
    /// How many zeros stand before and behind each row.
    pub padding: usize,
    /// Dropout before the head, from 0 to below 1.
    pub dropout: f64,
    /// The number of logits.
    pub outputs: usize,
}

/// Where the weights lie.
#[derive(Debug)]
struct Places {
    embeddings: Range<usize>,
    filters: Range<usize>,
    bias: Range<usize>,
}

/// The network; see the module.
#[derive(Debug)]
pub struct TextCnn<R> {
    config: TextCnnConfig,
    parameters: Parameters,
    places: Places,
    head: Head<R>,
    /// The filters as `[width * filters, embedding_dim]`.
    columns: Buffer<R>,
    /// All tokens' ids and, last, the padding token's.
    ids: Vec<u32>,
    /// Their embeddings.
    embedded: Buffer<R>,
    /// Their product with `columns`: `[tokens + 1, width * filters]`.
    products: Buffer<R>,
    /// The greatest value of each filter, `[rows, filters]`, after ReLU.
    features: Buffer<R>,
    /// Where it was found: the filter's place, from 0 at the first of the zeros before the row.
    positions: Vec<u32>,
    features_gradient: Buffer<R>,
    columns_gradient: Buffer<R>,
}

impl<R: Real> TextCnn<R> {
    /// A network of these sizes.
    pub fn new(config: TextCnnConfig) -> Self {
        let TextCnnConfig {
            vocab_size,
            embedding_dim,
            filters,
            width,
            ..
        } = config;
        let mut parameters = Parameters::default();
        let from_inputs = Initial::of_inputs(embedding_dim * width);
        let places = Places {
            embeddings: parameters.add_gathered(
                "embeddings.weight",
                [vocab_size, embedding_dim],
                Initial::Normal { deviation: 1.0 },
            ),
            filters: parameters.add(
                "convolution.weight",
                &[filters, embedding_dim, width],
                from_inputs,
            ),
            bias: parameters.add("convolution.bias", &[filters], from_inputs),
        };
        let head = Head::new(
            &mut parameters,
            "output_layer",
            HeadConfig {
                inputs: filters,
                outputs: config.outputs,
                dropout: config.dropout,
                weight: Initial::of_inputs(filters),
                bias: Initial::of_inputs(filters),
            },
        );
        Self {
            config,
            parameters,
            places,
            head,
            columns: Buffer::default(),
            ids: Vec::new(),
            embedded: Buffer::default(),
            products: Buffer::default(),
            features: Buffer::default(),
            positions: Vec::new(),
            features_gradient: Buffer::default(),
            columns_gradient: Buffer::default(),
        }
    }

    /// The width to which rows are padded: the batch's, or what the filters need for one position.
    fn row_width(&self, batch: &Batch) -> usize {
        let least = self.config.width.saturating_sub(2 * self.config.padding);
        batch.width.max(least).max(1)
    }

    /// The product of every token with every column of the filters.
    fn multiply(&mut self, weights: &[R], batch: &Batch) {
        let TextCnnConfig {
            embedding_dim,
            filters,
            width,
            ..
        } = self.config;
        let columns = width * filters;
        self.columns.resize(columns * embedding_dim);
        let convolution = &weights[self.places.filters.clone()];
        for (filter, weights) in convolution.chunks_exact(embedding_dim * width).enumerate() {
            for (dimension, weights) in weights.chunks_exact(width).enumerate() {
                for (column, &weight) in weights.iter().enumerate() {
                    self.columns[(column * filters + filter) * embedding_dim + dimension] = weight;
                }
            }
        }
        self.ids.clear();
        self.ids.extend_from_slice(&batch.ids);
        self.ids.push(batch.padding_id);
        self.embedded.resize(self.ids.len() * embedding_dim);
        let table = &weights[self.places.embeddings.clone()];
        embedding(&[(&self.ids, table)], embedding_dim, &mut self.embedded);
        self.products.resize(self.ids.len() * columns);
        product(
            &self.embedded,
            &self.columns,
            embedding_dim,
            &mut self.products,
        );
    }

    /// The token under column `column` of a filter at `position` of a row, padding included; none where
    /// the zeros before and behind the row are.
    fn token(
        &self,
        row: Range<usize>,
        width: usize,
        position: usize,
        column: usize,
    ) -> Option<usize> {
        let at = (position + column).checked_sub(self.config.padding)?;
        if at < row.len() {
            Some(row.start + at)
        } else if at < width {
            Some(self.ids.len() - 1)
        } else {
            None
        }
    }

    /// For each row and filter the greatest value and the first place that has it.
    fn find_greatest(&mut self, weights: &[R], batch: &Batch) {
        let TextCnnConfig {
            filters,
            width: columns,
            padding,
            ..
        } = self.config;
        let width = self.row_width(batch);
        let bias = &weights[self.places.bias.clone()];
        let mut values = vec![R::ZERO; filters];
        self.features.resize(batch.len() * filters);
        self.positions.clear();
        self.positions.resize(batch.len() * filters, 0);
        for row in 0..batch.len() {
            let places = row * filters..(row + 1) * filters;
            for position in 0..=width + 2 * padding - columns {
                values.copy_from_slice(bias);
                for column in 0..columns {
                    if let Some(token) = self.token(batch.range(row), width, position, column) {
                        let start = (token * columns + column) * filters;
                        let products = &self.products[start..start + filters];
                        for (value, &product) in values.iter_mut().zip(products) {
                            *value += product;
                        }
                    }
                }
                let greatest = &mut self.features[places.clone()];
                let found = &mut self.positions[places.clone()];
                for (filter, &value) in values.iter().enumerate() {
                    if position == 0 || value > greatest[filter] {
                        greatest[filter] = value;
                        found[filter] = position as u32;
                    }
                }
            }
        }
        for feature in &mut self.features {
            if *feature < R::ZERO {
                *feature = R::ZERO;
            }
        }
    }
}

impl<R: Real> Network<R> for TextCnn<R> {
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
        self.multiply(weights, batch);
        self.find_greatest(weights, batch);
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
        let TextCnnConfig {
            embedding_dim,
            filters,
            width: columns,
            ..
        } = self.config;
        self.features_gradient.resize(batch.len() * filters);
        self.head.backward(
            weights,
            batch,
            logits_gradient,
            &mut gradients,
            &mut self.features_gradient,
        );
        let width = self.row_width(batch);
        self.columns_gradient
            .resize(columns * filters * embedding_dim);
        self.columns_gradient.fill(R::ZERO);
        // ReLU: what is not above 0 has no gradient.
        let of_features = self.features_gradient.iter().zip(&self.features);
        let reached = of_features
            .enumerate()
            .filter(|(_, (_, feature))| **feature > R::ZERO)
            .map(|(index, (&gradient, _))| (index, gradient));
        let bias = gradients.sums(&self.places.bias);
        for (index, gradient) in reached.clone() {
            bias[index % filters] += gradient;
        }
        let table = gradients.gathered(&self.places.embeddings);
        for (index, gradient) in reached {
            let (row, filter) = (index / filters, index % filters);
            let position = self.positions[index] as usize;
            for column in 0..columns {
                let Some(token) = self.token(batch.range(row), width, position, column) else {
                    continue;
                };
                let embedded = &self.embedded[token * embedding_dim..][..embedding_dim];
                let place = (column * filters + filter) * embedding_dim;
                let column = place..place + embedding_dim;
                R::axpy_tile(
                    &mut self.columns_gradient[column.clone()],
                    gradient,
                    embedded,
                );
                let id = self.ids[token] as usize;
                let embedding = &mut table[id * embedding_dim..][..embedding_dim];
                R::axpy_tile(embedding, gradient, &self.columns[column]);
            }
        }
        let convolution = gradients.sums(&self.places.filters);
        for (filter, gradients) in convolution
            .chunks_exact_mut(embedding_dim * columns)
            .enumerate()
        {
            for (dimension, gradients) in gradients.chunks_exact_mut(columns).enumerate() {
                for (column, gradient) in gradients.iter_mut().enumerate() {
                    let place = (column * filters + filter) * embedding_dim + dimension;
                    *gradient += self.columns_gradient[place];
                }
            }
        }
    }
}
