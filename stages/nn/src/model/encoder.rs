//! One layer of BERT's encoder: attention over each row's tokens, then two products with gelu between them,
//! each with dropout, a residual connection and a normalization behind it.

use std::ops::Range;

use crate::Real;
use crate::batch::{Batch, Dropout};
use crate::kernels::{
    Attention, Epilogue, Mask, Matrix, MatrixMut, Packed, add_layer_norm, attention,
    attention_backward, column_sums, dropout, gelu_backward, gemm,
};
use crate::model::bert::NormPlaces;
use crate::model::linear::{Linear, resize};
use crate::parameters::{Initial, Parameters};

/// The sizes that all layers share.
#[derive(Debug)]
pub(crate) struct LayerSizes {
    pub hidden: usize,
    pub heads: usize,
    pub intermediate: usize,
    pub epsilon: f64,
    pub hidden_dropout: f64,
    pub attention_dropout: f64,
    pub initial: Initial,
}

/// Of which tokens the hidden states behind a layer are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All.
    AllTokens,
    /// The first of each row: all that a head reads which looks at the first token alone. What stands
    /// behind the attention is then computed for them only.
    FirstTokens,
}

/// What all layers are given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a, R> {
    pub weights: &'a [R],
    pub batch: &'a Batch,
    /// In training.
    pub dropout: Option<&'a Dropout>,
}

/// What a layer keeps from forward for backward.
#[derive(Debug, Default)]
pub(crate) struct Kept<R> {
    /// Queries, keys and values, `[tokens, 3 * hidden]`.
    qkv: Vec<R>,
    attention_statistics: Vec<R>,
    /// What the attention gives, `[tokens, hidden]`.
    context: Vec<R>,
    firsts: Firsts<R>,
    transformed: Transformed<R>,
}

/// What the part behind the attention keeps.
#[derive(Debug, Default)]
struct Transformed<R> {
    /// What the first normalization reads, its statistics, and what it gives.
    attended: Vec<R>,
    attended_statistics: Vec<R>,
    middle: Vec<R>,
    /// Before and after gelu, `[tokens, intermediate]`.
    spread: Vec<R>,
    activated: Vec<R>,
    /// What the second normalization reads, and its statistics.
    gathered: Vec<R>,
    gathered_statistics: Vec<R>,
}

/// The first tokens of the rows, as rows of one token.
#[derive(Debug, Default)]
struct Firsts<R> {
    offsets: Vec<u32>,
    context: Vec<R>,
    x: Vec<R>,
}

impl<R: Real> Firsts<R> {
    /// Copies them; those of a row without tokens are 0.
    fn gather(&mut self, batch: &Batch, width: usize, context: &[R], x: &[R]) {
        self.offsets.clear();
        self.offsets.extend(0..=batch.len() as u32);
        for (to, from) in [(&mut self.context, context), (&mut self.x, x)] {
            resize(to, batch.len() * width);
            for (row, to) in to.chunks_exact_mut(width).enumerate() {
                let tokens = batch.range(row);
                if tokens.is_empty() {
                    to.fill(R::ZERO);
                } else {
                    to.copy_from_slice(&from[tokens.start * width..][..width]);
                }
            }
        }
    }

    /// Puts rows where the first tokens are in `to`, and zeros elsewhere.
    fn scatter(batch: &Batch, width: usize, from: &[R], to: &mut Vec<R>) {
        resize(to, batch.tokens() * width);
        to.fill(R::ZERO);
        for (row, from) in from.chunks_exact(width).enumerate() {
            let tokens = batch.range(row);
            if !tokens.is_empty() {
                to[tokens.start * width..][..width].copy_from_slice(from);
            }
        }
    }
}

/// Gradients that live only within a layer's backward.
#[derive(Debug, Default)]
pub(crate) struct Scratch<R> {
    hidden: Vec<R>,
    context: Vec<R>,
    qkv: Vec<R>,
    spread: Vec<R>,
}

/// Queries, keys and values as one product where their tensors touch, which sizes that are multiples of
/// [`Parameters::ALIGNMENT`] give; as three otherwise: a choice that the sizes alone make.
#[derive(Debug)]
struct Qkv {
    parts: Vec<Linear>,
    hidden: usize,
}

impl Qkv {
    fn new(parameters: &mut Parameters, name: &str, hidden: usize, initial: Initial) -> Self {
        let names = ["query", "key", "value"];
        let weights = names.map(|part| {
            parameters.add(format!("{name}.{part}.weight"), &[hidden, hidden], initial)
        });
        let biases = names
            .map(|part| parameters.add(format!("{name}.{part}.bias"), &[hidden], Initial::Zeros));
        let touch = |places: &[Range<usize>; 3]| {
            places[0].end == places[1].start && places[1].end == places[2].start
        };
        let parts = if touch(&weights) && touch(&biases) {
            vec![Linear {
                weight: weights[0].start..weights[2].end,
                bias: biases[0].start..biases[2].end,
                inputs: hidden,
                outputs: 3 * hidden,
            }]
        } else {
            let pairs = weights.into_iter().zip(biases);
            let linear = |(weight, bias)| Linear {
                weight,
                bias,
                inputs: hidden,
                outputs: hidden,
            };
            pairs.map(linear).collect()
        };
        Self { parts, hidden }
    }

    fn forward<R: Real>(&self, weights: &[R], x: &[R], qkv: &mut [R]) {
        let (rows, stride) = (x.len() / self.hidden, 3 * self.hidden);
        for (index, part) in self.parts.iter().enumerate() {
            let first = (index * self.hidden).min(qkv.len());
            let weight = &weights[part.weight.clone()];
            gemm(
                Matrix::new(x, rows, self.hidden),
                Matrix::new(weight, part.outputs, self.hidden).transposed(),
                MatrixMut::with_stride(&mut qkv[first..], rows, part.outputs, stride),
                Epilogue::Bias(&weights[part.bias.clone()]),
            );
        }
    }

    fn backward<R: Real>(
        &self,
        weights: &[R],
        x: &[R],
        qkv_gradient: &[R],
        x_gradient: &mut [R],
        gradients: &mut [R],
    ) {
        let (rows, stride) = (x.len() / self.hidden, 3 * self.hidden);
        let qkv_gradient = Matrix::new(qkv_gradient, rows, stride);
        for (index, part) in self.parts.iter().enumerate() {
            let gradient = qkv_gradient.part(0, rows, index * self.hidden, part.outputs);
            gemm(
                gradient,
                Matrix::new(&weights[part.weight.clone()], part.outputs, self.hidden),
                MatrixMut::new(x_gradient, rows, self.hidden),
                Epilogue::Add,
            );
            gemm(
                gradient.transposed(),
                Matrix::new(x, rows, self.hidden),
                MatrixMut::new(
                    &mut gradients[part.weight.clone()],
                    part.outputs,
                    self.hidden,
                ),
                Epilogue::Add,
            );
            column_sums(gradient, &mut gradients[part.bias.clone()]);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct EncoderLayer {
    heads: usize,
    hidden: usize,
    intermediate: usize,
    reach: Reach,
    qkv: Qkv,
    attention_output: Linear,
    attention_norm: NormPlaces,
    intermediate_dense: Linear,
    output: Linear,
    output_norm: NormPlaces,
    /// The number of its first dropout and what each drops: probabilities, attention, output.
    first_dropout: u64,
    dropouts: [f64; 3],
}

impl EncoderLayer {
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        sizes: &LayerSizes,
        first_dropout: u64,
        reach: Reach,
    ) -> Self {
        let LayerSizes {
            hidden,
            intermediate,
            epsilon,
            initial,
            ..
        } = *sizes;
        let initials = [initial, Initial::Zeros];
        let at = |part: &str| format!("{name}.{part}");
        Self {
            heads: sizes.heads,
            hidden,
            intermediate,
            reach,
            qkv: Qkv::new(parameters, &at("attention.self"), hidden, initial),
            attention_output: Linear::new(
                parameters,
                &at("attention.output.dense"),
                [hidden, hidden],
                initials,
            ),
            attention_norm: NormPlaces::new(
                parameters,
                &at("attention.output.LayerNorm"),
                hidden,
                epsilon,
            ),
            intermediate_dense: Linear::new(
                parameters,
                &at("intermediate.dense"),
                [hidden, intermediate],
                initials,
            ),
            output: Linear::new(
                parameters,
                &at("output.dense"),
                [intermediate, hidden],
                initials,
            ),
            output_norm: NormPlaces::new(parameters, &at("output.LayerNorm"), hidden, epsilon),
            first_dropout,
            dropouts: [
                sizes.attention_dropout,
                sizes.hidden_dropout,
                sizes.hidden_dropout,
            ],
        }
    }

    /// Where its tensors begin.
    pub fn begin(&self) -> usize {
        self.qkv.parts[0].weight.start
    }

    fn masks(&self, dropout: &Dropout) -> [Mask; 3] {
        [0, 1, 2].map(|index| {
            Mask::new(
                dropout,
                self.first_dropout + index as u64,
                self.dropouts[index],
            )
        })
    }

    fn attention<'a>(&self, batch: &'a Batch, mask: Option<&'a Mask>) -> Attention<'a> {
        Attention {
            packed: Packed::of(batch),
            heads: self.heads,
            hidden: self.hidden,
            mask,
        }
    }

    /// Writes the hidden states behind the layer to `out`, given those before it: `[tokens, hidden]`, or
    /// `[rows, hidden]` where it reaches first tokens only.
    pub fn forward<R: Real>(
        &self,
        pass: Pass<'_, R>,
        x: &[R],
        kept: &mut Kept<R>,
        out: &mut Vec<R>,
    ) {
        let batch = pass.batch;
        let masks = pass.dropout.map(|dropout| self.masks(dropout));
        resize(&mut kept.qkv, 3 * x.len());
        resize(&mut kept.context, x.len());
        resize(
            &mut kept.attention_statistics,
            2 * batch.tokens() * self.heads,
        );
        self.qkv.forward(pass.weights, x, &mut kept.qkv);
        attention(
            &self.attention(
                batch,
                masks.as_ref().map(|[probabilities, ..]| probabilities),
            ),
            &kept.qkv,
            &mut kept.context,
            &mut kept.attention_statistics,
        );
        let (context, residual, packed) = match self.reach {
            Reach::AllTokens => (&kept.context[..], x, Packed::of(batch)),
            Reach::FirstTokens => {
                let firsts = &mut kept.firsts;
                firsts.gather(batch, self.hidden, &kept.context, x);
                let packed = Packed {
                    offsets: &firsts.offsets,
                    rows: &batch.rows,
                };
                (&firsts.context[..], &firsts.x[..], packed)
            }
        };
        let masks = masks.as_ref().map(|masks| (masks, packed));
        self.transform(
            pass.weights,
            masks,
            context,
            residual,
            &mut kept.transformed,
            out,
        );
    }

    /// What stands behind the attention.
    fn transform<R: Real>(
        &self,
        weights: &[R],
        masks: Option<(&[Mask; 3], Packed<'_>)>,
        context: &[R],
        residual: &[R],
        kept: &mut Transformed<R>,
        out: &mut Vec<R>,
    ) {
        let tokens = context.len() / self.hidden;
        for buffer in [
            &mut kept.attended,
            &mut kept.middle,
            &mut kept.gathered,
            out,
        ] {
            resize(buffer, tokens * self.hidden);
        }
        resize(&mut kept.attended_statistics, 2 * tokens);
        resize(&mut kept.gathered_statistics, 2 * tokens);
        resize(&mut kept.spread, tokens * self.intermediate);
        resize(&mut kept.activated, tokens * self.intermediate);

        self.attention_output
            .forward(weights, context, &mut kept.attended);
        add_layer_norm(
            &self.attention_norm.of(weights),
            masks.map(|([_, attended, _], packed)| (attended, packed)),
            &mut kept.attended,
            residual,
            &mut kept.middle,
            &mut kept.attended_statistics,
        );
        self.intermediate_dense.forward_gelu(
            weights,
            &kept.middle,
            &mut kept.spread,
            &mut kept.activated,
        );
        self.output
            .forward(weights, &kept.activated, &mut kept.gathered);
        add_layer_norm(
            &self.output_norm.of(weights),
            masks.map(|([.., gathered], packed)| (gathered, packed)),
            &mut kept.gathered,
            &kept.middle,
            out,
            &mut kept.gathered_statistics,
        );
    }

    /// Turns the `gradient` of the hidden states behind the layer into that of those before it, `x`, and
    /// adds the gradients of its tensors.
    pub fn backward<R: Real>(
        &self,
        pass: Pass<'_, R>,
        x: &[R],
        kept: &Kept<R>,
        scratch: &mut Scratch<R>,
        gradient: &mut Vec<R>,
        gradients: &mut [R],
    ) {
        let Some(dropout) = pass.dropout else {
            return;
        };
        let batch = pass.batch;
        let masks = self.masks(dropout);
        let (context, packed) = match self.reach {
            Reach::AllTokens => (&kept.context, Packed::of(batch)),
            Reach::FirstTokens => {
                let packed = Packed {
                    offsets: &kept.firsts.offsets,
                    rows: &batch.rows,
                };
                (&kept.firsts.context, packed)
            }
        };
        let transformed = (&context[..], &kept.transformed);
        self.transform_backward(
            pass.weights,
            (&masks, packed),
            transformed,
            scratch,
            gradient,
            gradients,
        );
        if self.reach == Reach::FirstTokens {
            for buffer in [&mut scratch.context, gradient] {
                Firsts::scatter(batch, self.hidden, buffer, &mut scratch.hidden);
                std::mem::swap(buffer, &mut scratch.hidden);
            }
        }
        resize(&mut scratch.qkv, kept.qkv.len());
        attention_backward(
            &self.attention(batch, Some(&masks[0])),
            &kept.qkv,
            &kept.context,
            &kept.attention_statistics,
            &scratch.context,
            &mut scratch.qkv,
        );
        self.qkv
            .backward(pass.weights, x, &scratch.qkv, gradient, gradients);
    }

    /// Leaves the gradient of the context in `scratch.context`, and in `gradient` that of the residual.
    fn transform_backward<R: Real>(
        &self,
        weights: &[R],
        ([_, attended, gathered], packed): (&[Mask; 3], Packed<'_>),
        (context, kept): (&[R], &Transformed<R>),
        scratch: &mut Scratch<R>,
        gradient: &mut [R],
        gradients: &mut [R],
    ) {
        resize(&mut scratch.hidden, gradient.len());
        resize(&mut scratch.context, gradient.len());
        resize(&mut scratch.spread, kept.spread.len());

        self.output_norm.backward(
            weights,
            &kept.gathered,
            &kept.gathered_statistics,
            gradient,
            gradients,
        );
        scratch.hidden.copy_from_slice(gradient);
        dropout(gathered, packed, self.hidden, &mut scratch.hidden);
        self.output
            .add_gradients(&kept.activated, &scratch.hidden, gradients);
        self.output
            .backward(weights, &scratch.hidden, &mut scratch.spread);
        gelu_backward(&mut scratch.spread, &kept.spread);
        self.intermediate_dense
            .add_gradients(&kept.middle, &scratch.spread, gradients);
        self.intermediate_dense
            .backward_adding(weights, &scratch.spread, gradient);

        self.attention_norm.backward(
            weights,
            &kept.attended,
            &kept.attended_statistics,
            gradient,
            gradients,
        );
        scratch.hidden.copy_from_slice(gradient);
        dropout(attended, packed, self.hidden, &mut scratch.hidden);
        self.attention_output
            .add_gradients(context, &scratch.hidden, gradients);
        self.attention_output
            .backward(weights, &scratch.hidden, &mut scratch.context);
    }
}
