//! What the families are built of: named tensors, linear maps, layer norms, attention.

use std::collections::BTreeMap;

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use taper_engine::StageError;

use crate::artifact::weights::{Weights, read_into};

/// What building a network gives.
pub type Built<T> = std::result::Result<T, StageError>;

/// The tensors of a model's files, to be taken by name. What is missing is told at the end, all at once.
pub struct Tensors<'w> {
    given: BTreeMap<String, TensorView<'w>>,
    missing: Vec<String>,
}

impl<'w> Tensors<'w> {
    /// Those of `weights`.
    ///
    /// # Errors
    /// Where the files cannot be read.
    pub fn of(weights: &'w Weights) -> Built<Self> {
        Ok(Self {
            given: weights.tensors()?.into_iter().collect(),
            missing: Vec::new(),
        })
    }

    /// The tensor `name`, widened to `f32`.
    ///
    /// # Errors
    /// Where its shape is another, or its numbers are no floating-point numbers.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Built<Tensor> {
        let mut values = vec![0.0; shape.iter().product()];
        match self.given.get(name) {
            None => self.missing.push(name.to_owned()),
            Some(view) if view.shape() == shape => read_into(name, view, &mut values)?,
            Some(view) => {
                return Err(StageError::invalid(format!(
                    "tensor `{name}` has the shape {:?}; `config.json` asks for {shape:?}",
                    view.shape()
                ))
                .help("the weights and `config.json` have to belong together"));
            }
        }
        Tensor::from_vec(values, shape, &Device::Cpu).map_err(super::cannot_compute)
    }

    /// The names of tensors that were asked for and are not there.
    pub fn into_missing(self) -> Vec<String> {
        self.missing
    }
}

/// A linear map `x Wᵀ + b`.
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// The map `name` from so many numbers to so many.
    ///
    /// # Errors
    /// Those of [`Tensors::take`].
    pub fn new(tensors: &mut Tensors<'_>, name: &str, sizes: [usize; 2]) -> Built<Self> {
        Self::with(Bias::There, tensors, name, sizes)
    }

    /// The same, perhaps without a bias.
    ///
    /// # Errors
    /// Those of [`Tensors::take`].
    pub fn with(
        bias: Bias,
        tensors: &mut Tensors<'_>,
        name: &str,
        [inputs, outputs]: [usize; 2],
    ) -> Built<Self> {
        Ok(Self {
            weight: tensors.take(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: bias.take(tensors, name, outputs)?,
        })
    }

    /// The map of each row of `[rows, inputs]`.
    ///
    /// # Errors
    /// Candle's.
    pub fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        let product = rows.matmul(&self.weight.t()?)?;
        match &self.bias {
            None => Ok(product),
            Some(bias) => product.broadcast_add(bias),
        }
    }
}

/// Whether a layer has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// It has.
    There,
    /// It has none.
    Absent,
}

impl Bias {
    /// As a config says.
    pub fn where_said(said: bool) -> Self {
        match said {
            true => Self::There,
            false => Self::Absent,
        }
    }

    fn take(self, tensors: &mut Tensors<'_>, name: &str, len: usize) -> Built<Option<Tensor>> {
        match self {
            Self::There => Ok(Some(tensors.take(&format!("{name}.bias"), &[len])?)),
            Self::Absent => Ok(None),
        }
    }
}

/// A layer norm, in two passes: candle's fused one takes the variance as the difference of two means, which
/// loses digits.
pub struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    epsilon: f64,
}

impl LayerNorm {
    /// The norm `name` over `width` numbers.
    ///
    /// # Errors
    /// Those of [`Tensors::take`].
    pub fn new(tensors: &mut Tensors<'_>, name: &str, width: usize, epsilon: f64) -> Built<Self> {
        Self::with(Bias::There, tensors, name, width, epsilon)
    }

    /// The same, perhaps without a bias.
    ///
    /// # Errors
    /// Those of [`Tensors::take`].
    pub fn with(
        bias: Bias,
        tensors: &mut Tensors<'_>,
        name: &str,
        width: usize,
        epsilon: f64,
    ) -> Built<Self> {
        Ok(Self {
            weight: tensors.take(&format!("{name}.weight"), &[width])?,
            bias: bias.take(tensors, name, width)?,
            epsilon,
        })
    }

    /// The norm of each row.
    ///
    /// # Errors
    /// Candle's.
    pub fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        let centred = rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let deviation = (variance + self.epsilon)?.sqrt()?;
        let scaled = centred
            .broadcast_div(&deviation)?
            .broadcast_mul(&self.weight)?;
        match &self.bias {
            None => Ok(scaled),
            Some(bias) => scaled.broadcast_add(bias),
        }
    }
}

/// The functions between layers, by the names that Transformers gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x Φ(x), with the exact Φ.
    Gelu,
    /// The same with a hyperbolic tangent in place of Φ.
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    /// max(x, 0).
    Relu,
    /// x σ(x).
    #[serde(alias = "swish")]
    Silu,
    /// The hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// The function of each number.
    ///
    /// # Errors
    /// Candle's.
    pub fn of(self, values: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => values.gelu_erf(),
            Self::GeluNew => values.gelu(),
            Self::Relu => values.relu(),
            Self::Silu => values.silu(),
            Self::Tanh => values.tanh(),
        }
    }
}

/// Rows `ids` of a table.
///
/// # Errors
/// Candle's: where an id is beyond the table.
pub fn look_up(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    table.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)
}

/// `[tokens, heads · width]` as `[heads, tokens, width]`.
///
/// # Errors
/// Candle's.
pub fn split_heads(states: &Tensor, heads: usize) -> Result<Tensor> {
    let (tokens, width) = states.dims2()?;
    states
        .reshape((tokens, heads, width / heads))?
        .transpose(0, 1)?
        .contiguous()
}

/// `[heads, tokens, width]` as `[tokens, heads · width]`.
///
/// # Errors
/// Candle's.
pub fn join_heads(states: &Tensor) -> Result<Tensor> {
    states.transpose(0, 1)?.flatten_from(1)
}

/// Tokens that attend at once: their scores have to fit into memory beside each other.
const BLOCK: usize = 512;

/// Attention among the tokens of one row: `softmax(Q Kᵀ / √width) V`, all `[heads, tokens, width]`. With a `reach`,
/// a token sees those that are at most so far away.
///
/// # Errors
/// Candle's.
pub fn attend(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    reach: Option<usize>,
) -> Result<Tensor> {
    let (_, tokens, width) = query.dims3()?;
    let query = (query * (width as f64).sqrt().recip())?;
    let block = |start: usize| {
        let end = (start + BLOCK).min(tokens);
        let seen = match reach {
            None => 0..tokens,
            Some(reach) => start.saturating_sub(reach)..(end + reach).min(tokens),
        };
        let of = |states: &Tensor| states.narrow(1, seen.start, seen.len());
        let query = query.narrow(1, start, end - start)?;
        let mut scores = query.matmul(&of(key)?.t()?)?;
        if let Some(reach) = reach {
            let far = |(from, to): (usize, usize)| from.abs_diff(to) > reach;
            let pairs = (start..end).flat_map(|from| seen.clone().map(move |to| (from, to)));
            let mask: Vec<f32> = pairs
                .map(|pair| if far(pair) { f32::NEG_INFINITY } else { 0.0 })
                .collect();
            let mask = Tensor::from_vec(mask, (end - start, seen.len()), &Device::Cpu)?;
            scores = scores.broadcast_add(&mask)?;
        }
        softmax_last_dim(&scores)?.matmul(&of(value)?)
    };
    let blocks: Result<Vec<Tensor>> = (0..tokens).step_by(BLOCK).map(block).collect();
    Tensor::cat(&blocks?, 1)
}

/// A layer as BERT has it: attention, then two linear maps with a function between them; behind each of the two
/// what went in is added, and the sum normed.
pub struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attended: Linear,
    attended_norm: LayerNorm,
    inner: Linear,
    outer: Linear,
    norm: LayerNorm,
    activation: Activation,
    heads: usize,
}

/// The sizes of a [`Layer`].
#[derive(Clone, Copy, Debug)]
pub struct LayerSizes {
    /// Numbers a token.
    pub width: usize,
    /// Heads of attention, which share them.
    pub heads: usize,
    /// Numbers a token between the two linear maps.
    pub inner: usize,
    /// Between the two linear maps.
    pub activation: Activation,
    /// Added to the variance in layer norms.
    pub epsilon: f64,
}

/// What a family calls the parts of a [`Layer`].
pub struct LayerNames {
    /// Queries, keys and values.
    pub projections: [&'static str; 3],
    /// What is made of the attended values, and the norm behind it.
    pub attended: [&'static str; 2],
    /// The two linear maps.
    pub maps: [&'static str; 2],
    /// The norm at the end.
    pub norm: &'static str,
}

impl LayerNames {
    /// Those that descend from BERT, but for the projections.
    pub const fn of_bert(projections: [&'static str; 3]) -> Self {
        Self {
            projections,
            attended: ["attention.output.dense", "attention.output.LayerNorm"],
            maps: ["intermediate.dense", "output.dense"],
            norm: "output.LayerNorm",
        }
    }
}

impl Layer {
    /// The layer whose tensors begin with `prefix`.
    ///
    /// # Errors
    /// Those of [`Tensors::take`].
    pub fn new(
        tensors: &mut Tensors<'_>,
        prefix: &str,
        names: &LayerNames,
        sizes: LayerSizes,
    ) -> Built<Self> {
        let LayerSizes {
            width,
            inner,
            epsilon,
            ..
        } = sizes;
        let mut linear =
            |part: &str, sizes| Linear::new(tensors, &format!("{prefix}.{part}"), sizes);
        let [query, key, value] = names.projections;
        let [attended, attended_norm] = names.attended;
        let [first, second] = names.maps;
        Ok(Self {
            query: linear(query, [width, width])?,
            key: linear(key, [width, width])?,
            value: linear(value, [width, width])?,
            attended: linear(attended, [width, width])?,
            inner: linear(first, [width, inner])?,
            outer: linear(second, [inner, width])?,
            attended_norm: {
                let name = format!("{prefix}.{attended_norm}");
                LayerNorm::new(tensors, &name, width, epsilon)?
            },
            norm: LayerNorm::new(tensors, &format!("{prefix}.{}", names.norm), width, epsilon)?,
            activation: sizes.activation,
            heads: sizes.heads,
        })
    }

    /// The states behind the layer, given those before it, `[tokens, width]`. `attention` makes of queries, keys
    /// and values, `[heads, tokens, width / heads]`, what is attended.
    ///
    /// # Errors
    /// Candle's.
    pub fn forward(
        &self,
        states: &Tensor,
        attention: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let of = |map: &Linear| split_heads(&map.forward(states)?, self.heads);
        let attended = attention(&of(&self.query)?, &of(&self.key)?, &of(&self.value)?)?;
        let attended = self.attended.forward(&join_heads(&attended)?)?;
        let attended = self.attended_norm.forward(&(attended + states)?)?;
        let inner = self.activation.of(&self.inner.forward(&attended)?)?;
        let outer = self.outer.forward(&inner)?;
        self.norm.forward(&(outer + attended)?)
    }

    /// What makes queries and keys of states.
    pub fn query_and_key(&self) -> [&Linear; 2] {
        [&self.query, &self.key]
    }
}
