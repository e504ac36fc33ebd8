//! DistilBERT (Sanh et al. 2019, arXiv:1910.01108): BERT's layers without segments; its head has a ReLU where
//! BERT's has a pooler.

use candle_core::{Result, Tensor};
use serde::Deserialize;

use super::layers::{
    Activation, Built, Layer, LayerNames, LayerNorm, LayerSizes, Linear, Tensors, attend, look_up,
};
use super::{Architecture, Network, Row};
use crate::artifact::config::Limits;

/// What `config.json` says of the network.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    activation: Activation,
    dim: usize,
    hidden_dim: usize,
    max_position_embeddings: usize,
    n_heads: usize,
    n_layers: usize,
    vocab_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            activation: Activation::Gelu,
            dim: 768,
            hidden_dim: 3072,
            max_position_embeddings: 512,
            n_heads: 12,
            n_layers: 6,
            vocab_size: 30522,
        }
    }
}

/// Added to the variance in every layer norm.
const EPSILON: f64 = 1e-12;

const NAMES: LayerNames = LayerNames {
    projections: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    attended: ["attention.out_lin", "sa_layer_norm"],
    maps: ["ffn.lin1", "ffn.lin2"],
    norm: "output_layer_norm",
};

impl Architecture for Config {
    fn limits(&self) -> Limits {
        Limits {
            vocab_size: self.vocab_size,
            longest_row: Some(self.max_position_embeddings),
            segments: None,
        }
    }

    fn heads(&self) -> [usize; 2] {
        [self.dim, self.n_heads]
    }

    fn build(&self, tensors: &mut Tensors<'_>, classes: usize) -> Built<Box<dyn Network>> {
        let width = self.dim;
        let sizes = LayerSizes {
            width,
            heads: self.n_heads,
            inner: self.hidden_dim,
            activation: self.activation,
            epsilon: EPSILON,
        };
        let mut table = |name: &str, rows| {
            tensors.take(
                &format!("distilbert.embeddings.{name}.weight"),
                &[rows, width],
            )
        };
        Ok(Box::new(DistilBert {
            words: table("word_embeddings", self.vocab_size)?,
            positions: table("position_embeddings", self.max_position_embeddings)?,
            norm: LayerNorm::new(tensors, "distilbert.embeddings.LayerNorm", width, EPSILON)?,
            layers: (0..self.n_layers)
                .map(|index| {
                    let prefix = format!("distilbert.transformer.layer.{index}");
                    Layer::new(tensors, &prefix, &NAMES, sizes)
                })
                .collect::<Built<_>>()?,
            before_classifier: Linear::new(tensors, "pre_classifier", [width, width])?,
            classifier: Linear::new(tensors, "classifier", [width, classes])?,
        }))
    }
}

struct DistilBert {
    words: Tensor,
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    before_classifier: Linear,
    classifier: Linear,
}

impl Network for DistilBert {
    fn logits(&self, row: Row<'_>) -> Result<Tensor> {
        let words = look_up(&self.words, row.ids)?;
        let mut states = self
            .norm
            .forward(&(words + self.positions.narrow(0, 0, row.ids.len())?)?)?;
        for layer in &self.layers {
            states = layer.forward(&states, |q, k, v| attend(q, k, v, None))?;
        }
        let first = self.before_classifier.forward(&states.narrow(0, 0, 1)?)?;
        self.classifier.forward(&first.relu()?)
    }
}
