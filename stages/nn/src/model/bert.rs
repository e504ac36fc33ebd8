//! BERT (Devlin and others 2018, <https://arxiv.org/abs/1810.04805>) with a head for classification, on
//! packed rows: padding is never computed.
//!
//! The layers, their order and the names of the tensors are those of transformers'
//! `BertForSequenceClassification`: normalization behind each residual connection, gelu with erf.

use std::ops::Range;

use crate::batch::{Batch, Dropout};
use crate::kernels::{
    Buffer, Mask, Normalization, Packed, dropout, embedding, embedding_backward, layer_norm,
    layer_norm_backward, tanh, tanh_backward,
};
use crate::model::encoder::{EncoderLayer, Kept, LayerSizes, Pass, Reach, Scratch};
use crate::model::head::{Head, HeadConfig};
use crate::model::linear::Linear;
use crate::parameters::{Initial, Parameters, Tensor};
use crate::{Gradients, Network, Real};

/// The dropout of the embeddings among the network's; those of the layers follow. Part of the format.
pub(crate) const EMBEDDINGS_DROPOUT: u64 = 1;

/// What the head reads of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The last hidden state of the first token.
    Cls,
    /// The same through the pooler, a linear layer and tanh.
    Pooler,
    /// The mean of the last hidden states.
    Mean,
}

/// The sizes of a [`Bert`].
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// How many tokens there are.
    pub vocab_size: usize,
    /// The numbers of a hidden state.
    pub hidden_size: usize,
    /// The layers.
    pub layers: usize,
    /// The heads of attention; they share the hidden size evenly.
    pub heads: usize,
    /// The numbers between the two products of a layer.
    pub intermediate_size: usize,
    /// The most tokens of a row.
    pub max_positions: usize,
    /// How many segments there are.
    pub type_vocab_size: usize,
    /// The token whose embedding has no gradient.
    pub padding_id: Option<usize>,
    /// Added to variances.
    pub layer_norm_eps: f64,
    /// The standard deviation of initial weights.
    pub initializer_range: f64,
    /// Dropout of embeddings and of what is added to hidden states, from 0 to below 1.
    pub hidden_dropout: f64,
    /// Dropout of the attention's probabilities, from 0 to below 1.
    pub attention_dropout: f64,
    /// Dropout before the head, from 0 to below 1.
    pub head_dropout: f64,
    /// What the head reads.
    pub pooling: Pooling,
    /// The number of logits.
    pub outputs: usize,
}

impl BertConfig {
    /// BERT-base with a head of two logits, in the sizes of bert-base-uncased.
    pub fn base() -> Self {
        Self {
            vocab_size: 30_522,
            hidden_size: 768,
            layers: 12,
            heads: 12,
            intermediate_size: 3072,
            max_positions: 512,
            type_vocab_size: 2,
            padding_id: Some(0),
            layer_norm_eps: 1e-12,
            initializer_range: 0.02,
            hidden_dropout: 0.1,
            attention_dropout: 0.1,
            head_dropout: 0.1,
            pooling: Pooling::Pooler,
            outputs: 2,
        }
    }
}

/// Where a normalization's tensors lie.
#[derive(Clone, Debug)]
pub(crate) struct NormPlaces {
    gamma: Range<usize>,
    beta: Range<usize>,
    epsilon: f64,
}

impl NormPlaces {
    pub fn new(parameters: &mut Parameters, name: &str, width: usize, epsilon: f64) -> Self {
        Self {
            gamma: parameters.add(format!("{name}.weight"), &[width], Initial::Ones),
            beta: parameters.add(format!("{name}.bias"), &[width], Initial::Zeros),
            epsilon,
        }
    }

    pub fn of<'a, R: Real>(&self, weights: &'a [R]) -> Normalization<'a, R> {
        Normalization {
            gamma: &weights[self.gamma.clone()],
            beta: &weights[self.beta.clone()],
            epsilon: R::from_f64(self.epsilon),
        }
    }

    /// [`layer_norm_backward`] with the tensors' gradients in the network's.
    pub fn backward<R: Real>(
        &self,
        weights: &[R],
        x: &[R],
        statistics: &[R],
        gradient: &mut [R],
        gradients: &mut Gradients<'_, R>,
    ) {
        // gamma lies before beta: `new` adds them in this order.
        let (gamma, beta) = gradients
            .sums(&(self.gamma.start..self.beta.end))
            .split_at_mut(self.beta.start - self.gamma.start);
        layer_norm_backward(
            &self.of(weights),
            x,
            statistics,
            gradient,
            &mut gamma[..self.gamma.len()],
            beta,
        );
    }
}

/// The network; see the module.
#[derive(Debug)]
pub struct Bert<R> {
    config: BertConfig,
    parameters: Parameters,
    words: Range<usize>,
    positions: Range<usize>,
    types: Range<usize>,
    norm: NormPlaces,
    layers: Vec<EncoderLayer>,
    pooler: Linear,
    head: Head<R>,
    position_ids: Vec<u32>,
    type_ids: Vec<u32>,
    /// The sum of the three embeddings, and its statistics.
    embedded: Buffer<R>,
    embedded_statistics: Buffer<R>,
    /// The hidden states: those of the embeddings, then each layer's. In evaluation two take turns.
    hidden: Vec<Buffer<R>>,
    kept: Vec<Kept<R>>,
    scratch: Scratch<R>,
    gradient: Buffer<R>,
    features: Buffer<R>,
    features_gradient: Buffer<R>,
    dropout: Option<Dropout>,
}

impl<R: Real> Bert<R> {
    /// A network of these sizes.
    ///
    /// # Panics
    /// Where the heads do not share the hidden size evenly, or there is no layer.
    pub fn new(config: BertConfig) -> Self {
        let hidden = config.hidden_size;
        assert!(
            config.heads > 0 && hidden.is_multiple_of(config.heads),
            "{} heads share a hidden size of {hidden}",
            config.heads
        );
        assert!(config.layers > 0, "BERT has layers");
        let normal = Initial::Normal {
            deviation: config.initializer_range,
        };
        let mut parameters = Parameters::default();
        let words = parameters.add_gathered(
            "bert.embeddings.word_embeddings.weight",
            [config.vocab_size, hidden],
            match config.padding_id {
                None => normal,
                Some(row) => Initial::NormalWithZeroRow {
                    deviation: config.initializer_range,
                    row,
                },
            },
        );
        let positions = parameters.add(
            "bert.embeddings.position_embeddings.weight",
            &[config.max_positions, hidden],
            normal,
        );
        let types = parameters.add(
            "bert.embeddings.token_type_embeddings.weight",
            &[config.type_vocab_size, hidden],
            normal,
        );
        let epsilon = config.layer_norm_eps;
        let norm = NormPlaces::new(
            &mut parameters,
            "bert.embeddings.LayerNorm",
            hidden,
            epsilon,
        );
        let sizes = LayerSizes {
            hidden,
            heads: config.heads,
            intermediate: config.intermediate_size,
            epsilon,
            hidden_dropout: config.hidden_dropout,
            attention_dropout: config.attention_dropout,
            initial: normal,
        };
        let layers = (0..config.layers)
            .map(|layer| {
                let first_dropout = EMBEDDINGS_DROPOUT + 1 + 3 * layer as u64;
                let name = format!("bert.encoder.layer.{layer}");
                let reach = match config.pooling {
                    Pooling::Mean => Reach::AllTokens,
                    _ if layer + 1 < config.layers => Reach::AllTokens,
                    Pooling::Cls | Pooling::Pooler => Reach::FirstTokens,
                };
                EncoderLayer::new(&mut parameters, &name, &sizes, first_dropout, reach)
            })
            .collect();
        let before_pooler = parameters.tensors().len();
        let pooler = Linear::new(
            &mut parameters,
            "bert.pooler.dense",
            [hidden, hidden],
            [normal, Initial::Zeros],
        );
        for tensor in &mut parameters.tensors_mut()[before_pooler..] {
            tensor.trained = config.pooling == Pooling::Pooler;
        }
        let head = Head::new(
            &mut parameters,
            "classifier",
            HeadConfig {
                inputs: hidden,
                outputs: config.outputs,
                dropout: config.head_dropout,
                weight: normal,
                bias: Initial::Zeros,
            },
        );
        Self {
            config,
            parameters,
            words,
            positions,
            types,
            norm,
            layers,
            pooler,
            head,
            position_ids: Vec::new(),
            type_ids: Vec::new(),
            embedded: Buffer::default(),
            embedded_statistics: Buffer::default(),
            hidden: Vec::new(),
            kept: Vec::new(),
            scratch: Scratch::default(),
            gradient: Buffer::default(),
            features: Buffer::default(),
            features_gradient: Buffer::default(),
            dropout: None,
        }
    }

    /// What the head read of each row of the last batch, before dropout: `[rows, hidden_size]`.
    pub fn features(&self) -> &[R] {
        &self.features
    }

    /// Hidden states of the last batch, `[tokens, hidden_size]`: for 0 the embeddings', for `l` those behind
    /// layer `l`. Only training keeps them. Where the head reads first tokens, those behind the last layer
    /// are theirs alone, `[rows, hidden_size]`.
    pub fn hidden_states(&self, layer: usize) -> &[R] {
        &self.hidden[layer]
    }

    fn embeddings_mask(&self) -> Option<Mask> {
        let dropout = self.dropout.as_ref()?;
        Some(Mask::new(
            dropout,
            EMBEDDINGS_DROPOUT,
            self.config.hidden_dropout,
        ))
    }

    fn embed(&mut self, weights: &[R], batch: &Batch) {
        let (tokens, width) = (batch.tokens(), self.config.hidden_size);
        self.position_ids.clear();
        for row in 0..batch.len() {
            self.position_ids.extend(0..batch.range(row).len() as u32);
        }
        self.type_ids.clear();
        self.type_ids.extend_from_slice(&batch.type_ids);
        self.type_ids.resize(tokens, 0);
        self.embedded.resize(tokens * width);
        self.embedded_statistics.resize(2 * tokens);
        self.hidden[0].resize(tokens * width);
        let tables = [
            (&batch.ids[..], &weights[self.words.clone()]),
            (&self.type_ids[..], &weights[self.types.clone()]),
            (&self.position_ids[..], &weights[self.positions.clone()]),
        ];
        embedding(&tables, width, &mut self.embedded);
        layer_norm(
            &self.norm.of(weights),
            &self.embedded,
            &mut self.hidden[0],
            &mut self.embedded_statistics,
        );
        if let Some(mask) = self.embeddings_mask() {
            dropout(&mask, Packed::of(batch), width, &mut self.hidden[0]);
        }
    }

    fn embed_backward(&mut self, weights: &[R], batch: &Batch, gradients: &mut Gradients<'_, R>) {
        let width = self.config.hidden_size;
        if let Some(mask) = self.embeddings_mask() {
            dropout(&mask, Packed::of(batch), width, &mut self.gradient);
        }
        self.norm.backward(
            weights,
            &self.embedded,
            &self.embedded_statistics,
            &mut self.gradient,
            gradients,
        );
        for (ids, place) in [
            (&self.type_ids, &self.types),
            (&self.position_ids, &self.positions),
        ] {
            embedding_backward(ids, &self.gradient, width, gradients.sums(place));
        }
        let words = gradients.gathered(&self.words);
        embedding_backward(&batch.ids, &self.gradient, width, words);
        if let Some(id) = self.config.padding_id {
            words[id * width..][..width].fill(R::ZERO);
        }
    }

    /// Writes the features of each row from the last hidden states, `hidden[last]`.
    fn pool(&mut self, weights: &[R], batch: &Batch, last: usize) {
        let width = self.config.hidden_size;
        let hidden = &self.hidden[last];
        self.features.resize(batch.len() * width);
        match self.config.pooling {
            Pooling::Cls => self.features.copy_from_slice(hidden),
            Pooling::Pooler => {
                self.pooler.forward(weights, hidden, &mut self.features);
                tanh(&mut self.features);
            }
            Pooling::Mean => {
                for (row, features) in self.features.chunks_exact_mut(width).enumerate() {
                    let tokens = batch.range(row);
                    features.fill(R::ZERO);
                    let states = &hidden[tokens.start * width..tokens.end * width];
                    for state in states.chunks_exact(width) {
                        R::add_tile(features, state);
                    }
                    R::scale_tile(features, share(tokens.len()));
                }
            }
        }
    }

    /// Writes the gradient of the last hidden states to `gradient`, given that of the features.
    fn pool_backward(&mut self, weights: &[R], batch: &Batch, gradients: &mut Gradients<'_, R>) {
        let width = self.config.hidden_size;
        let from = &mut self.features_gradient;
        let last = &self.hidden[self.layers.len()];
        self.gradient.resize(last.len());
        match self.config.pooling {
            Pooling::Cls => self.gradient.copy_from_slice(from),
            Pooling::Pooler => {
                tanh_backward(from, &self.features);
                self.pooler.add_gradients(last, from, gradients);
                self.pooler.backward(weights, from, &mut self.gradient);
            }
            Pooling::Mean => {
                self.gradient.fill(R::ZERO);
                for (row, from) in from.chunks_exact(width).enumerate() {
                    let tokens = batch.range(row);
                    let share = share(tokens.len());
                    let states = &mut self.gradient[tokens.start * width..tokens.end * width];
                    for state in states.chunks_exact_mut(width) {
                        R::axpy_tile(state, share, from);
                    }
                }
            }
        }
    }
}

/// One of `count` equal parts.
fn share<R: Real>(count: usize) -> R {
    R::ONE / R::from_f64(count.max(1) as f64)
}

impl<R: Real> Network<R> for Bert<R> {
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
        self.dropout = dropout.copied();
        // In evaluation two hidden states take turns, and one layer's place serves all.
        let (states, places) = match dropout {
            Some(_) => (self.layers.len() + 1, self.layers.len()),
            None => (2, 1),
        };
        if self.hidden.len() < states {
            self.hidden.resize_with(states, Buffer::default);
        }
        if self.kept.len() < places {
            self.kept.resize_with(places, Kept::default);
        }
        self.embed(weights, batch);
        let pass = Pass {
            weights,
            batch,
            dropout,
        };
        for (index, layer) in self.layers.iter().enumerate() {
            let (from, to) = (index % states, (index + 1) % states);
            let mut out = std::mem::take(&mut self.hidden[to]);
            let kept = &mut self.kept[index % places];
            let scratch = &mut self.scratch;
            layer.forward(pass, &self.hidden[from], kept, scratch, &mut out);
            self.hidden[to] = out;
        }
        self.pool(weights, batch, self.layers.len() % states);
        self.head.forward(weights, batch, &self.features, dropout)
    }

    /// The head and the pooler, the layers from the last to the first, the embeddings.
    fn parts(&self) -> Vec<Range<usize>> {
        let mut parts = Vec::with_capacity(self.layers.len() + 2);
        let mut end = self.parameters.buffer_len();
        let layers = self.layers.iter().rev().map(|layer| layer.begin);
        for begin in [self.pooler.weight.start]
            .into_iter()
            .chain(layers)
            .chain([0])
        {
            parts.push(begin..end);
            end = begin;
        }
        parts
    }

    fn backward_part(
        &mut self,
        part: usize,
        weights: &[R],
        batch: &Batch,
        logits_gradient: &[R],
        mut gradients: Gradients<'_, R>,
    ) {
        // Below the lowest tensor that is trained nobody wants a gradient.
        let trained = |tensor: &&Tensor| tensor.trained;
        let lowest = self.parameters.tensors().iter().find(trained);
        let lowest = lowest.map_or(usize::MAX, |tensor| tensor.offset);
        if part == 0 {
            self.features_gradient.resize(self.features.len());
            self.head.backward(
                weights,
                batch,
                logits_gradient,
                &mut gradients,
                &mut self.features_gradient,
            );
            if lowest < self.head.places()[0].start {
                self.pool_backward(weights, batch, &mut gradients);
            }
            return;
        }
        // The layers of the parts from this one on.
        let left = self.layers.len() + 1 - part;
        let end = match self.layers.get(left) {
            Some(above) => above.begin,
            None => self.pooler.weight.start,
        };
        if lowest >= end {
            return;
        }
        let Some(index) = left.checked_sub(1) else {
            return self.embed_backward(weights, batch, &mut gradients);
        };
        let dropout = self.dropout;
        let pass = Pass {
            weights,
            batch,
            dropout: dropout.as_ref(),
        };
        self.layers[index].backward(
            pass,
            &self.hidden[index],
            &mut self.kept[index],
            &mut self.scratch,
            &mut self.gradient,
            &mut gradients,
        );
    }
}
