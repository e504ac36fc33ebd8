//! ModernBERT (Warner et al. 2024, arXiv:2412.13663): norms before the layers, rotated positions, gated linear
//! units, and attention that reaches over the whole row in some layers and over its neighbours in the others.

use std::collections::BTreeMap;

use candle_core::{D, Device, Result, Tensor};
use serde::Deserialize;
use taper_engine::StageError;

use super::layers::{
    Activation, Bias, Built, LayerNorm, Linear, Tensors, attend, join_heads, look_up, split_heads,
};
use super::{Architecture, Network, Row};
use crate::artifact::config::Limits;

/// What `config.json` says of the network.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    attention_bias: bool,
    classifier_activation: Activation,
    classifier_bias: bool,
    classifier_pooling: Pooling,
    global_attn_every_n_layers: usize,
    global_rope_theta: f64,
    hidden_activation: Activation,
    hidden_size: usize,
    intermediate_size: usize,
    layer_types: Option<Vec<LayerType>>,
    local_attention: usize,
    local_rope_theta: Option<f64>,
    max_position_embeddings: usize,
    mlp_bias: bool,
    norm_bias: bool,
    norm_eps: f64,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    rope_parameters: Option<BTreeMap<LayerType, Option<Rope>>>,
    vocab_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attention_bias: false,
            classifier_activation: Activation::Gelu,
            classifier_bias: false,
            classifier_pooling: Pooling::Cls,
            global_attn_every_n_layers: 3,
            global_rope_theta: 160_000.0,
            hidden_activation: Activation::Gelu,
            hidden_size: 768,
            intermediate_size: 1152,
            layer_types: None,
            local_attention: 128,
            local_rope_theta: Some(10_000.0),
            max_position_embeddings: 8192,
            mlp_bias: false,
            norm_bias: false,
            norm_eps: 1e-5,
            num_attention_heads: 12,
            num_hidden_layers: 22,
            rope_parameters: None,
            vocab_size: 50368,
        }
    }
}

/// How far attention reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    FullAttention,
    SlidingAttention,
}

/// How positions are rotated, as newer configs say.
#[derive(Debug, Deserialize)]
struct Rope {
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_type: Option<String>,
}

/// What the head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Pooling {
    /// The first token.
    Cls,
    /// The mean of all tokens.
    Mean,
}

impl Config {
    fn layer_type(&self, layer: usize) -> Option<LayerType> {
        match &self.layer_types {
            Some(types) => types.get(layer).copied(),
            None => Some(
                match layer.is_multiple_of(self.global_attn_every_n_layers) {
                    true => LayerType::FullAttention,
                    false => LayerType::SlidingAttention,
                },
            ),
        }
    }

    /// The base of the rotations' wavelengths.
    fn theta(&self, layer_type: LayerType) -> Built<f64> {
        let rope = self
            .rope_parameters
            .as_ref()
            .and_then(|ropes| ropes.get(&layer_type)?.as_ref());
        let kind = rope.and_then(|rope| rope.rope_type.as_deref());
        if let Some(kind) = kind.filter(|kind| *kind != "default") {
            return Err(StageError::invalid(format!(
                "this ModernBERT rotates its positions by `{kind}`, which is not computed here"
            )));
        }
        let said = rope.and_then(|rope| rope.rope_theta);
        Ok(said.unwrap_or(match layer_type {
            LayerType::FullAttention => self.global_rope_theta,
            LayerType::SlidingAttention => self.local_rope_theta.unwrap_or(self.global_rope_theta),
        }))
    }
}

impl Architecture for Config {
    fn limits(&self) -> Limits {
        Limits {
            vocab_size: self.vocab_size,
            longest_row: Some(self.max_position_embeddings),
            segments: None,
        }
    }

    fn heads(&self) -> [usize; 2] {
        [self.hidden_size, self.num_attention_heads]
    }

    fn build(&self, tensors: &mut Tensors<'_>, classes: usize) -> Built<Box<dyn Network>> {
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        let norm = |name: &str, tensors: &mut Tensors<'_>| {
            let bias = Bias::where_said(self.norm_bias);
            LayerNorm::with(bias, tensors, name, width, self.norm_eps)
        };
        let layer = |index: usize, tensors: &mut Tensors<'_>| {
            let name = |part: &str| format!("model.layers.{index}.{part}");
            let layer_type = self.layer_type(index).ok_or_else(|| {
                StageError::invalid(
                    "`layer_types` of `config.json` has fewer layers than the model",
                )
            })?;
            let mut linear = |part: &str, said, sizes| {
                Linear::with(Bias::where_said(said), tensors, &name(part), sizes)
            };
            Ok(Layer {
                projections: linear("attn.Wqkv", self.attention_bias, [width, 3 * width])?,
                attended: linear("attn.Wo", self.attention_bias, [width, width])?,
                inner: linear("mlp.Wi", self.mlp_bias, [width, 2 * inner])?,
                outer: linear("mlp.Wo", self.mlp_bias, [inner, width])?,
                // What goes into the first layer is normed already.
                norm: match index {
                    0 => None,
                    _ => Some(norm(&name("attn_norm"), tensors)?),
                },
                inner_norm: norm(&name("mlp_norm"), tensors)?,
                layer_type,
                activation: self.hidden_activation,
                heads: self.num_attention_heads,
            })
        };
        let words = "model.embeddings.tok_embeddings.weight";
        let dense = Bias::where_said(self.classifier_bias);
        Ok(Box::new(ModernBert {
            words: tensors.take(words, &[self.vocab_size, width])?,
            norm: norm("model.embeddings.norm", tensors)?,
            layers: (0..self.num_hidden_layers)
                .map(|index| layer(index, tensors))
                .collect::<Built<_>>()?,
            final_norm: norm("model.final_norm", tensors)?,
            dense: Linear::with(dense, tensors, "head.dense", [width, width])?,
            head_norm: norm("head.norm", tensors)?,
            classifier: Linear::new(tensors, "classifier", [width, classes])?,
            activation: self.classifier_activation,
            pooling: self.classifier_pooling,
            thetas: [
                self.theta(LayerType::FullAttention)?,
                self.theta(LayerType::SlidingAttention)?,
            ],
            reach: self.local_attention / 2,
            head_width: width / self.num_attention_heads,
        }))
    }
}

struct ModernBert {
    words: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
    dense: Linear,
    head_norm: LayerNorm,
    classifier: Linear,
    activation: Activation,
    pooling: Pooling,
    /// Of full attention, and of sliding.
    thetas: [f64; 2],
    /// How far sliding attention reaches.
    reach: usize,
    head_width: usize,
}

impl Network for ModernBert {
    fn logits(&self, row: Row<'_>) -> Result<Tensor> {
        let rotation = |theta| Rotation::new(theta, row.ids.len(), self.head_width);
        let [full, sliding] = [rotation(self.thetas[0])?, rotation(self.thetas[1])?];
        let mut states = self.norm.forward(&look_up(&self.words, row.ids)?)?;
        for layer in &self.layers {
            states = match layer.layer_type {
                LayerType::FullAttention => layer.forward(&states, &full, None)?,
                LayerType::SlidingAttention => {
                    layer.forward(&states, &sliding, Some(self.reach))?
                }
            };
        }
        let states = self.final_norm.forward(&states)?;
        let pooled = match self.pooling {
            Pooling::Cls => states.narrow(0, 0, 1)?,
            Pooling::Mean => states.mean_keepdim(0)?,
        };
        let dense = self.activation.of(&self.dense.forward(&pooled)?)?;
        self.classifier.forward(&self.head_norm.forward(&dense)?)
    }
}

struct Layer {
    norm: Option<LayerNorm>,
    projections: Linear,
    attended: Linear,
    inner_norm: LayerNorm,
    /// To what is bent, and to what it gates.
    inner: Linear,
    outer: Linear,
    layer_type: LayerType,
    activation: Activation,
    heads: usize,
}

impl Layer {
    fn forward(
        &self,
        states: &Tensor,
        rotation: &Rotation,
        reach: Option<usize>,
    ) -> Result<Tensor> {
        let normed = match &self.norm {
            None => states.clone(),
            Some(norm) => norm.forward(states)?,
        };
        let projected = self.projections.forward(&normed)?.chunk(3, D::Minus1)?;
        let [query, key, value] = [0, 1, 2].map(|part| split_heads(&projected[part], self.heads));
        let (query, key) = (rotation.of(&query?)?, rotation.of(&key?)?);
        let attended = join_heads(&attend(&query, &key, &value?, reach)?)?;
        let states = (states + self.attended.forward(&attended)?)?;
        let inner = self.inner.forward(&self.inner_norm.forward(&states)?)?;
        let inner = inner.chunk(2, D::Minus1)?;
        let gated = (self.activation.of(&inner[0])? * &inner[1])?;
        states + self.outer.forward(&gated)?
    }
}

/// Turns each pair of numbers, one of the first half and one of the second, by an angle that grows with the
/// position (Su et al. 2021, arXiv:2104.09864).
struct Rotation {
    sines: Tensor,
    cosines: Tensor,
}

impl Rotation {
    /// For so many tokens, heads of `width` numbers. Angles are products in `f32`, as models are trained.
    fn new(theta: f64, tokens: usize, width: usize) -> Result<Self> {
        let half = width / 2;
        let frequency = |pair: usize| {
            let exponent = (2 * pair) as f32 / width as f32;
            1.0 / (libm::pow(theta, f64::from(exponent)) as f32)
        };
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let angles = (0..tokens)
            .flat_map(|position| frequencies.iter().map(move |each| position as f32 * each));
        let (sines, cosines): (Vec<f32>, Vec<f32>) = angles
            .map(|angle| {
                let (sine, cosine) = libm::sincos(f64::from(angle));
                (sine as f32, cosine as f32)
            })
            .unzip();
        let table = |values| Tensor::from_vec(values, (tokens, half), &Device::Cpu);
        Ok(Self {
            sines: table(sines)?,
            cosines: table(cosines)?,
        })
    }

    /// Of states `[heads, tokens, width]`.
    fn of(&self, states: &Tensor) -> Result<Tensor> {
        let half = states.dim(D::Minus1)? / 2;
        let first = states.narrow(D::Minus1, 0, half)?;
        let second = states.narrow(D::Minus1, half, half)?;
        let by = |states: &Tensor, table: &Tensor| states.broadcast_mul(table);
        let turned = [
            (by(&first, &self.cosines)? - by(&second, &self.sines)?)?,
            (by(&second, &self.cosines)? + by(&first, &self.sines)?)?,
        ];
        Tensor::cat(&turned, D::Minus1)
    }
}
