//! DeBERTa-v2 and -v3 (He et al. 2021, arXiv:2006.03654 and arXiv:2111.09543): BERT's layers, but attention also
//! asks how far apart two tokens are, once for what the one says and once for what the other says.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use serde::{Deserialize, Deserializer};
use taper_engine::StageError;

use super::layers::{
    Activation, Bias, Built, Layer, LayerNames, LayerNorm, LayerSizes, Linear, Tensors, look_up,
    split_heads,
};
use super::{Architecture, Network, Row};
use crate::artifact::config::Limits;

/// What `config.json` says of the network.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    attention_head_size: Option<usize>,
    conv_act: Activation,
    conv_groups: usize,
    conv_kernel_size: usize,
    embedding_size: Option<usize>,
    hidden_act: Activation,
    hidden_size: usize,
    intermediate_size: usize,
    layer_norm_eps: f64,
    max_position_embeddings: usize,
    max_relative_positions: i64,
    norm_rel_ebd: String,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    pooler_hidden_act: Activation,
    pooler_hidden_size: Option<usize>,
    #[serde(deserialize_with = "names")]
    pos_att_type: Vec<String>,
    position_biased_input: bool,
    position_buckets: i64,
    relative_attention: bool,
    share_att_key: bool,
    type_vocab_size: usize,
    vocab_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attention_head_size: None,
            conv_act: Activation::Tanh,
            conv_groups: 1,
            conv_kernel_size: 0,
            embedding_size: None,
            hidden_act: Activation::Gelu,
            hidden_size: 1536,
            intermediate_size: 6144,
            layer_norm_eps: 1e-7,
            max_position_embeddings: 512,
            max_relative_positions: -1,
            norm_rel_ebd: "none".to_owned(),
            num_attention_heads: 24,
            num_hidden_layers: 24,
            pooler_hidden_act: Activation::Gelu,
            pooler_hidden_size: None,
            pos_att_type: Vec::new(),
            position_biased_input: true,
            position_buckets: -1,
            relative_attention: false,
            share_att_key: false,
            type_vocab_size: 0,
            vocab_size: 128_100,
        }
    }
}

/// A list of names, or one text with `|` between them, or nothing.
fn names<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<String>, D::Error> {
    use serde_json::Value;
    let name = |name: &str| name.trim().to_lowercase();
    match Value::deserialize(from)? {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(text.split('|').map(name).collect()),
        Value::Array(list) => Ok(list.iter().filter_map(Value::as_str).map(name).collect()),
        _ => Err(serde::de::Error::custom(
            "`pos_att_type` is no list of names",
        )),
    }
}

const NAMES: LayerNames = LayerNames::of_bert([
    "attention.self.query_proj",
    "attention.self.key_proj",
    "attention.self.value_proj",
]);

impl Config {
    /// Whether attention asks this of distances: `c2p`, or `p2c`.
    fn asks(&self, what: &str) -> bool {
        self.pos_att_type.iter().any(|name| name == what)
    }

    /// How distances are told, where they are.
    fn distances(&self) -> Option<Distances> {
        let farthest = match usize::try_from(self.max_relative_positions) {
            Ok(farthest) if farthest > 0 => farthest,
            _ => self.max_position_embeddings,
        };
        let buckets = usize::try_from(self.position_buckets).ok();
        self.relative_attention.then_some(Distances {
            farthest,
            buckets: buckets.filter(|&buckets| buckets > 0),
        })
    }

    /// Whether this is a variant that is computed here.
    fn check(&self) -> Built<()> {
        let refuse = |what: String| Err(StageError::invalid(format!("this DeBERTa {what}")));
        let [width, heads] = self.heads();
        if self
            .attention_head_size
            .is_some_and(|size| size * heads != width)
        {
            return refuse(format!(
                "has heads whose sizes do not add up to its hidden_size of {width}"
            ));
        }
        if self.pooler_hidden_size.is_some_and(|size| size != width) {
            return refuse("has a pooler of another size than its hidden states".to_owned());
        }
        if self.conv_kernel_size > 0
            && (self.conv_kernel_size.is_multiple_of(2)
                || self.conv_groups == 0
                || !width.is_multiple_of(self.conv_groups))
        {
            return refuse(format!(
                "has a convolution of width {} in {} groups",
                self.conv_kernel_size, self.conv_groups
            ));
        }
        Ok(())
    }
}

impl Architecture for Config {
    fn limits(&self) -> Limits {
        Limits {
            vocab_size: self.vocab_size,
            longest_row: Some(self.max_position_embeddings),
            segments: (self.type_vocab_size > 0).then_some(self.type_vocab_size),
        }
    }

    fn heads(&self) -> [usize; 2] {
        [self.hidden_size, self.num_attention_heads]
    }

    fn build(&self, tensors: &mut Tensors<'_>, classes: usize) -> Built<Box<dyn Network>> {
        self.check()?;
        let (width, epsilon) = (self.hidden_size, self.layer_norm_eps);
        let embedded = self.embedding_size.unwrap_or(width);
        let sizes = LayerSizes {
            width,
            heads: self.num_attention_heads,
            inner: self.intermediate_size,
            activation: self.hidden_act,
            epsilon,
        };
        let distances = self.distances();
        let mut table = |name: &str, rows: usize| match rows {
            0 => Ok(None),
            _ => {
                let name = format!("deberta.embeddings.{name}.weight");
                tensors.take(&name, &[rows, embedded]).map(Some)
            }
        };
        let positions = match self.position_biased_input {
            true => self.max_position_embeddings,
            false => 0,
        };
        let words = table("word_embeddings", self.vocab_size)?;
        let positions = table("position_embeddings", positions)?;
        let segments = table("token_type_embeddings", self.type_vocab_size)?;
        let norm = LayerNorm::new(tensors, "deberta.embeddings.LayerNorm", width, epsilon)?;
        let projection = match embedded == width {
            true => None,
            false => {
                let name = "deberta.embeddings.embed_proj";
                Some(Linear::with(
                    Bias::Absent,
                    tensors,
                    name,
                    [embedded, width],
                )?)
            }
        };
        let distance_table = match distances {
            None => None,
            Some(distances) => {
                let shape = [2 * distances.span(), width];
                let table = tensors.take("deberta.encoder.rel_embeddings.weight", &shape)?;
                Some(
                    match self.norm_rel_ebd.to_lowercase().contains("layer_norm") {
                        false => table,
                        true => {
                            LayerNorm::new(tensors, "deberta.encoder.LayerNorm", width, epsilon)?
                                .forward(&table)
                                .map_err(super::cannot_compute)?
                        }
                    },
                )
            }
        };
        let mut layers = Vec::new();
        for index in 0..self.num_hidden_layers {
            let prefix = format!("deberta.encoder.layer.{index}");
            let layer = Layer::new(tensors, &prefix, &NAMES, sizes)?;
            let asked = match &distance_table {
                None => Asked::default(),
                Some(table) => self.asked(tensors, &prefix, &layer, table)?,
            };
            layers.push((layer, asked));
        }
        Ok(Box::new(Deberta {
            words: words.ok_or_else(|| StageError::invalid("the model has an empty vocabulary"))?,
            positions,
            segments,
            projection,
            norm,
            layers,
            convolution: match self.conv_kernel_size {
                0 => None,
                kernel => Some(Convolution::new(self, tensors, kernel)?),
            },
            distances,
            parts: 1 + usize::from(self.asks("c2p")) + usize::from(self.asks("p2c")),
            pooler: Linear::new(tensors, "pooler.dense", [width, width])?,
            pooler_activation: self.pooler_hidden_act,
            classifier: Linear::new(tensors, "classifier", [width, classes])?,
        }))
    }
}

impl Config {
    /// What a layer asks of distances: nothing of the row enters it.
    fn asked(
        &self,
        tensors: &mut Tensors<'_>,
        prefix: &str,
        layer: &Layer,
        table: &Tensor,
    ) -> Built<Asked> {
        let [width, heads] = self.heads();
        let mut project = |what: &str, name: &str, shared: &Linear| {
            if !self.asks(what) {
                return Ok(None);
            }
            let projected = match self.share_att_key {
                true => shared.forward(table),
                false => {
                    let name = format!("{prefix}.attention.self.{name}");
                    Linear::new(tensors, &name, [width, width])?.forward(table)
                }
            };
            projected
                .and_then(|projected| split_heads(&projected, heads))
                .map(Some)
                .map_err(super::cannot_compute)
        };
        let [query, key] = layer.query_and_key();
        Ok(Asked {
            keys: project("c2p", "pos_key_proj", key)?,
            queries: project("p2c", "pos_query_proj", query)?,
        })
    }
}

/// How far apart tokens are, as rows of a table.
#[derive(Clone, Copy, Debug)]
struct Distances {
    farthest: usize,
    /// Where small distances have a row each and greater ones share rows, ever more of them.
    buckets: Option<usize>,
}

impl Distances {
    /// Half the rows of the table.
    fn span(&self) -> usize {
        self.buckets.unwrap_or(self.farthest)
    }

    /// The distance of two tokens, or its bucket. In `f32`, as models are trained: where a bucket begins
    /// depends on how logarithms round.
    fn bucket(&self, distance: i64) -> i64 {
        let Some(buckets) = self.buckets else {
            return distance;
        };
        let middle = (buckets / 2) as i64;
        if distance.abs() <= middle {
            return distance;
        }
        let logarithm = |value: f32| libm::log(f64::from(value)) as f32;
        let share = logarithm(distance.abs() as f32 / middle as f32)
            / logarithm(((self.farthest as f64 - 1.0) / middle as f64) as f32);
        let bucket = (share * (middle - 1) as f32).ceil() as i64 + middle;
        bucket * distance.signum()
    }

    /// For each two of so many tokens, the row of the table for what the first asks of the second, and for what
    /// the second asks of the first: both `[tokens, tokens]`.
    fn rows(&self, tokens: usize) -> Result<[Tensor; 2]> {
        let span = self.span() as i64;
        let row = |bucket: i64| (bucket + span).clamp(0, 2 * span - 1) as u32;
        let table = |sign: i64| {
            let buckets: Vec<i64> = (0..tokens as i64)
                .map(|distance| self.bucket(distance))
                .collect();
            let pairs = (0..tokens).flat_map(|i| (0..tokens).map(move |j| (i, j)));
            let rows: Vec<u32> = pairs
                .map(|(i, j)| match i >= j {
                    true => row(sign * buckets[i - j]),
                    false => row(-sign * buckets[j - i]),
                })
                .collect();
            Tensor::from_vec(rows, (1, tokens, tokens), &Device::Cpu)
        };
        Ok([table(1)?, table(-1)?])
    }
}

/// The table of distances as a layer sees it: `[heads, 2 · span, width]`.
#[derive(Default)]
struct Asked {
    /// Asked by what a token says.
    keys: Option<Tensor>,
    /// Asking what a token says.
    queries: Option<Tensor>,
}

impl Asked {
    fn attend(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        rows: Option<&[Tensor; 2]>,
        parts: usize,
    ) -> Result<Tensor> {
        let (heads, tokens, width) = query.dims3()?;
        let scale = ((width * parts) as f64).sqrt().recip();
        let mut scores = query.matmul(&key.t()?)?;
        if let Some(rows) = rows {
            let picked = |states: &Tensor, table: &Tensor, rows: &Tensor| {
                let rows = rows.broadcast_as((heads, tokens, tokens))?.contiguous()?;
                states.matmul(&table.t()?)?.gather(&rows, D::Minus1)
            };
            if let Some(keys) = &self.keys {
                scores = (scores + picked(query, keys, &rows[0])?)?;
            }
            if let Some(queries) = &self.queries {
                let asking = picked(key, queries, &rows[1])?;
                scores = (scores + asking.transpose(1, 2)?)?;
            }
        }
        softmax_last_dim(&(scores * scale)?)?.matmul(value)
    }
}

struct Deberta {
    words: Tensor,
    positions: Option<Tensor>,
    segments: Option<Tensor>,
    projection: Option<Linear>,
    norm: LayerNorm,
    layers: Vec<(Layer, Asked)>,
    convolution: Option<Convolution>,
    distances: Option<Distances>,
    /// How many products a score is the sum of.
    parts: usize,
    pooler: Linear,
    pooler_activation: Activation,
    classifier: Linear,
}

impl Network for Deberta {
    fn logits(&self, row: Row<'_>) -> Result<Tensor> {
        let tokens = row.ids.len();
        let mut embedded = look_up(&self.words, row.ids)?;
        if let Some(positions) = &self.positions {
            embedded = (embedded + positions.narrow(0, 0, tokens)?)?;
        }
        if let Some(segments) = &self.segments {
            embedded = match row.segments.is_empty() {
                true => embedded.broadcast_add(&segments.narrow(0, 0, 1)?)?,
                false => (embedded + look_up(segments, row.segments)?)?,
            };
        }
        if let Some(projection) = &self.projection {
            embedded = projection.forward(&embedded)?;
        }
        let embedded = self.norm.forward(&embedded)?;
        let rows = match &self.distances {
            None => None,
            Some(distances) => Some(distances.rows(tokens)?),
        };
        let mut states = embedded.clone();
        for (index, (layer, asked)) in self.layers.iter().enumerate() {
            states = layer.forward(&states, |query, key, value| {
                asked.attend(query, key, value, rows.as_ref(), self.parts)
            })?;
            if let (0, Some(convolution)) = (index, &self.convolution) {
                states = convolution.forward(&embedded, &states)?;
            }
        }
        let first = self.pooler.forward(&states.narrow(0, 0, 1)?)?;
        self.classifier.forward(&self.pooler_activation.of(&first)?)
    }
}

/// A convolution of the embeddings, added to what the first layer makes of them.
struct Convolution {
    weight: Tensor,
    bias: Tensor,
    norm: LayerNorm,
    activation: Activation,
    groups: usize,
}

impl Convolution {
    fn new(config: &Config, tensors: &mut Tensors<'_>, kernel: usize) -> Built<Self> {
        let (width, groups) = (config.hidden_size, config.conv_groups);
        let name = |part: &str| format!("deberta.encoder.conv.{part}");
        Ok(Self {
            weight: tensors.take(&name("conv.weight"), &[width, width / groups, kernel])?,
            bias: tensors.take(&name("conv.bias"), &[width])?,
            norm: LayerNorm::new(tensors, &name("LayerNorm"), width, config.layer_norm_eps)?,
            activation: config.conv_act,
            groups,
        })
    }

    fn forward(&self, embedded: &Tensor, states: &Tensor) -> Result<Tensor> {
        let padding = (self.weight.dim(2)? - 1) / 2;
        let channels = embedded.t()?.unsqueeze(0)?.contiguous()?;
        let convolved = channels.conv1d(&self.weight, padding, 1, 1, self.groups)?;
        let convolved = convolved.squeeze(0)?.t()?.broadcast_add(&self.bias)?;
        let bent = self.activation.of(&convolved.contiguous()?)?;
        self.norm.forward(&(states + bent)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What torch computes for distances from 0: the sum tells every one of them.
    #[test]
    fn buckets_begin_where_torch_has_them_begin() {
        let buckets = |buckets, farthest| {
            let distances = Distances {
                farthest,
                buckets: Some(buckets),
            };
            (0..farthest as i64).map(move |distance| distances.bucket(distance))
        };
        let large: Vec<i64> = buckets(256, 512).collect();
        assert_eq!(
            large[127..137],
            [127, 128, 129, 130, 131, 131, 132, 133, 133, 134]
        );
        assert_eq!(large.iter().sum::<i64>(), 87297);
        assert_eq!(buckets(32, 300).sum::<i64>(), 7845);
        let small = Distances {
            farthest: 300,
            buckets: Some(32),
        };
        assert_eq!(
            [small.bucket(-299), small.bucket(-20)],
            [-31, -small.bucket(20)]
        );
        let none = Distances {
            farthest: 300,
            buckets: None,
        };
        assert_eq!(none.bucket(-299), -299);
    }
}
