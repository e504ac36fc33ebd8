//! RoBERTa (Liu et al. 2019, arXiv:1907.11692) and XLM-RoBERTa (Conneau et al. 2020, arXiv:1911.02116): BERT's
//! layers, positions that begin behind the padding token's id, and a head of its own.

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
    hidden_act: Activation,
    hidden_size: usize,
    intermediate_size: usize,
    layer_norm_eps: f64,
    max_position_embeddings: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    pad_token_id: u32,
    type_vocab_size: usize,
    vocab_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hidden_act: Activation::Gelu,
            hidden_size: 768,
            intermediate_size: 3072,
            layer_norm_eps: 1e-12,
            max_position_embeddings: 512,
            num_attention_heads: 12,
            num_hidden_layers: 12,
            pad_token_id: 1,
            type_vocab_size: 2,
            vocab_size: 30522,
        }
    }
}

const NAMES: LayerNames = LayerNames::of_bert([
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
]);

impl Architecture for Config {
    fn limits(&self) -> Limits {
        Limits {
            vocab_size: self.vocab_size,
            longest_row: Some(
                self.max_position_embeddings
                    .saturating_sub(self.pad_token_id as usize + 1),
            ),
            segments: None,
        }
    }

    fn heads(&self) -> [usize; 2] {
        [self.hidden_size, self.num_attention_heads]
    }

    fn build(&self, tensors: &mut Tensors<'_>, classes: usize) -> Built<Box<dyn Network>> {
        let (width, epsilon) = (self.hidden_size, self.layer_norm_eps);
        let sizes = LayerSizes {
            width,
            heads: self.num_attention_heads,
            inner: self.intermediate_size,
            activation: self.hidden_act,
            epsilon,
        };
        let mut table = |name: &str, rows| {
            tensors.take(&format!("roberta.embeddings.{name}.weight"), &[rows, width])
        };
        Ok(Box::new(Roberta {
            words: table("word_embeddings", self.vocab_size)?,
            positions: table("position_embeddings", self.max_position_embeddings)?,
            segments: table("token_type_embeddings", self.type_vocab_size)?,
            norm: LayerNorm::new(tensors, "roberta.embeddings.LayerNorm", width, epsilon)?,
            layers: (0..self.num_hidden_layers)
                .map(|index| {
                    let prefix = format!("roberta.encoder.layer.{index}");
                    Layer::new(tensors, &prefix, &NAMES, sizes)
                })
                .collect::<Built<_>>()?,
            dense: Linear::new(tensors, "classifier.dense", [width, width])?,
            classifier: Linear::new(tensors, "classifier.out_proj", [width, classes])?,
            padding: self.pad_token_id,
        }))
    }
}

struct Roberta {
    words: Tensor,
    positions: Tensor,
    segments: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    dense: Linear,
    classifier: Linear,
    padding: u32,
}

/// The place of each token in the table of positions: counted from behind the padding token's id. A padding
/// token in the text itself has the id as its place, and is not counted.
fn places(ids: &[u32], padding: u32) -> Vec<u32> {
    let mut last = padding;
    let place = |id: &u32| match *id == padding {
        true => padding,
        false => {
            last += 1;
            last
        }
    };
    ids.iter().map(place).collect()
}

impl Network for Roberta {
    fn logits(&self, row: Row<'_>) -> Result<Tensor> {
        let words = look_up(&self.words, row.ids)?;
        // Its tokenizers know no segments: every token is of the first.
        let words = words.broadcast_add(&self.segments.narrow(0, 0, 1)?)?;
        let positions = look_up(&self.positions, &places(row.ids, self.padding))?;
        let mut states = self.norm.forward(&(words + positions)?)?;
        for layer in &self.layers {
            states = layer.forward(&states, |q, k, v| attend(q, k, v, None))?;
        }
        let first = self.dense.forward(&states.narrow(0, 0, 1)?)?;
        self.classifier.forward(&first.tanh()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_counted_behind_the_padding_token() {
        assert_eq!(places(&[0, 7, 9, 2], 1), [2, 3, 4, 5]);
        assert_eq!(places(&[0, 1, 9, 1, 2], 1), [2, 1, 3, 1, 4]);
    }
}
