//! One layer of BERT's encoder: attention over each row's tokens, then two products with gelu between them,
//! each with dropout, a residual connection and a normalization behind it.

use crate::batch::{Batch, Dropout};
use crate::kernels::{
    Attention, Buffer, Epilogue, Mask, Matrix, MatrixMut, Packed, Qkv, add_layer_norm, attention,
    attention_backward, column_sums, dropout, gelu_backward, gemm,
};
use crate::model::bert::NormPlaces;
use crate::model::linear::Linear;
use crate::parameters::{Initial, Parameters};
use crate::{Gradients, Real};

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
    /// The first of each row: all that a head reads which looks at the first token alone. Only they ask for
    /// attention then, and what stands behind it is computed for them only.
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
    /// Queries, keys and values, `[tokens, 3 * hidden]`, or keys and values alone.
    qkv: Buffer<R>,
    attention_statistics: Buffer<R>,
    /// What the attention gives, a row for each token that is reached.
    context: Buffer<R>,
    firsts: Firsts<R>,
    transformed: Transformed<R>,
}

/// What the part behind the attention keeps.
#[derive(Debug, Default)]
struct Transformed<R> {
    /// What the first normalization reads, its statistics, and what it gives.
    attended: Buffer<R>,
    attended_statistics: Buffer<R>,
    middle: Buffer<R>,
    /// Before gelu, `[tokens, intermediate]`; what gelu makes of it is computed again.
    spread: Buffer<R>,
    /// What the second normalization reads, and its statistics.
    gathered: Buffer<R>,
    gathered_statistics: Buffer<R>,
}

/// The first tokens of the rows, as rows of one token.
#[derive(Debug, Default)]
struct Firsts<R> {
    offsets: Vec<u32>,
    x: Buffer<R>,
    query: Buffer<R>,
}

impl<R: Real> Firsts<R> {
    /// Copies them; those of a row without tokens are 0.
    fn gather(&mut self, batch: &Batch, width: usize, x: &[R]) {
        self.offsets.clear();
        self.offsets.extend(0..=batch.len() as u32);
        self.x.resize(batch.len() * width);
        for (row, to) in self.x.chunks_exact_mut(width).enumerate() {
            let tokens = batch.range(row);
            if tokens.is_empty() {
                to.fill(R::ZERO);
            } else {
                to.copy_from_slice(&x[tokens.start * width..][..width]);
            }
        }
    }

    /// Puts rows where the first tokens are in `to`, and zeros elsewhere.
    fn scatter(batch: &Batch, width: usize, from: &[R], to: &mut Buffer<R>) {
        to.resize(batch.tokens() * width);
        to.fill(R::ZERO);
        for (row, from) in from.chunks_exact(width).enumerate() {
            let tokens = batch.range(row);
            if !tokens.is_empty() {
                to[tokens.start * width..][..width].copy_from_slice(from);
            }
        }
    }
}

/// Numbers that live only within a layer's forward or backward: all but the first are gradients.
#[derive(Debug, Default)]
pub(crate) struct Scratch<R> {
    activated: Buffer<R>,
    hidden: Buffer<R>,
    context: Buffer<R>,
    query: Buffer<R>,
    qkv: Buffer<R>,
    spread: Buffer<R>,
}

/// Linear layers of the same numbers side by side, as one product where their tensors touch, which sizes
/// that are multiples of [`Parameters::ALIGNMENT`] give; as one each otherwise: a choice that the sizes alone
/// make.
#[derive(Debug)]
struct Projection {
    parts: Vec<Linear>,
    inputs: usize,
    outputs: usize,
}

impl Projection {
    fn new(layers: &[Linear]) -> Self {
        let mut parts: Vec<Linear> = Vec::new();
        for layer in layers {
            match parts.last_mut() {
                Some(last)
                    if last.weight.end == layer.weight.start
                        && last.bias.end == layer.bias.start =>
                {
                    last.weight.end = layer.weight.end;
                    last.bias.end = layer.bias.end;
                    last.outputs += layer.outputs;
                }
                _ => parts.push(layer.clone()),
            }
        }
        Self {
            inputs: layers[0].inputs,
            outputs: parts.iter().map(|part| part.outputs).sum(),
            parts,
        }
    }

    /// Each part and the column at which it begins.
    fn parts(&self) -> impl Iterator<Item = (usize, &Linear)> {
        self.parts.iter().scan(0, |column, part| {
            let begin = *column;
            *column += part.outputs;
            Some((begin, part))
        })
    }

    fn forward<R: Real>(&self, weights: &[R], x: &[R], out: &mut Buffer<R>) {
        let rows = x.len() / self.inputs;
        out.resize(rows * self.outputs);
        for (column, part) in self.parts() {
            let out = &mut out[column.min(rows * self.outputs)..];
            gemm(
                Matrix::new(x, rows, self.inputs),
                part.matrix(weights).transposed(),
                MatrixMut::with_stride(out, rows, part.outputs, self.outputs),
                Epilogue::Bias(&weights[part.bias.clone()]),
            );
        }
    }

    /// Adds the gradient of x to `x_gradient` and those of the tensors to the network's.
    fn backward<R: Real>(
        &self,
        weights: &[R],
        x: &[R],
        gradient: &[R],
        x_gradient: &mut [R],
        gradients: &mut Gradients<'_, R>,
    ) {
        let rows = x.len() / self.inputs;
        let gradient = Matrix::new(gradient, rows, self.outputs);
        for (column, part) in self.parts() {
            let gradient = gradient.part(0, rows, column, part.outputs);
            gemm(
                gradient,
                part.matrix(weights),
                MatrixMut::new(x_gradient, rows, self.inputs),
                Epilogue::Add,
            );
            let x = Matrix::new(x, rows, self.inputs);
            gradients.add_product(&part.weight, gradient.transposed(), x);
            column_sums(gradient, gradients.sums(&part.bias));
        }
    }
}

/// The linear layers of queries, keys and values. All weights lie before all biases, so that they touch.
fn query_key_value(
    parameters: &mut Parameters,
    name: &str,
    hidden: usize,
    initial: Initial,
) -> [Linear; 3] {
    let names = ["query", "key", "value"];
    let weights = names
        .map(|part| parameters.add(format!("{name}.{part}.weight"), &[hidden, hidden], initial));
    let biases =
        names.map(|part| parameters.add(format!("{name}.{part}.bias"), &[hidden], Initial::Zeros));
    let [query, key, value] = weights;
    let [query_bias, key_bias, value_bias] = biases;
    [(query, query_bias), (key, key_bias), (value, value_bias)].map(|(weight, bias)| Linear {
        weight,
        bias,
        inputs: hidden,
        outputs: hidden,
    })
}

/// See the module.
#[derive(Debug)]
pub(crate) struct EncoderLayer {
    /// Where its tensors begin.
    pub begin: usize,
    heads: usize,
    hidden: usize,
    intermediate: usize,
    reach: Reach,
    /// Where only first tokens ask, their queries.
    queries: Option<Projection>,
    /// Keys and values, and queries before them where all tokens ask.
    projection: Projection,
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
        let layers = query_key_value(parameters, &at("attention.self"), hidden, initial);
        let (queries, projection) = match reach {
            Reach::AllTokens => (None, Projection::new(&layers)),
            Reach::FirstTokens => (
                Some(Projection::new(&layers[..1])),
                Projection::new(&layers[1..]),
            ),
        };
        Self {
            begin: layers[0].weight.start,
            queries,
            projection,
            heads: sizes.heads,
            hidden,
            intermediate,
            reach,
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
        scratch: &mut Scratch<R>,
        out: &mut Buffer<R>,
    ) {
        let batch = pass.batch;
        let masks = pass.dropout.map(|dropout| self.masks(dropout));
        self.projection.forward(pass.weights, x, &mut kept.qkv);
        let firsts = &mut kept.firsts;
        if let Some(queries) = &self.queries {
            firsts.gather(batch, self.hidden, x);
            queries.forward(pass.weights, &firsts.x, &mut firsts.query);
        }
        let (residual, packed) = self.reached(batch, firsts, x);
        kept.context.resize(residual.len());
        let asking = residual.len() / self.hidden;
        kept.attention_statistics.resize(2 * asking * self.heads);
        attention(
            &self.attention(
                batch,
                masks.as_ref().map(|[probabilities, ..]| probabilities),
            ),
            self.operands(&kept.qkv, firsts),
            &mut kept.context,
            &mut kept.attention_statistics,
        );
        let masks = masks.as_ref().map(|masks| (masks, packed));
        self.transform(
            pass.weights,
            masks,
            &kept.context,
            residual,
            (&mut kept.transformed, &mut scratch.activated),
            out,
        );
    }

    /// The numbers before the layer of the tokens that are reached, and which rows these are.
    fn reached<'a, R>(
        &self,
        batch: &'a Batch,
        firsts: &'a Firsts<R>,
        x: &'a [R],
    ) -> (&'a [R], Packed<'a>) {
        match self.reach {
            Reach::AllTokens => (x, Packed::of(batch)),
            Reach::FirstTokens => {
                let packed = Packed {
                    offsets: &firsts.offsets,
                    rows: &batch.rows,
                };
                (&firsts.x, packed)
            }
        }
    }

    fn operands<'a, R>(&self, projected: &'a [R], firsts: &'a Firsts<R>) -> Qkv<&'a [R]> {
        match self.reach {
            Reach::AllTokens => Qkv::AllQueries(projected),
            Reach::FirstTokens => Qkv::FirstQueries {
                query: &firsts.query,
                key_value: projected,
            },
        }
    }

    /// What stands behind the attention.
    fn transform<R: Real>(
        &self,
        weights: &[R],
        masks: Option<(&[Mask; 3], Packed<'_>)>,
        context: &[R],
        residual: &[R],
        (kept, activated): (&mut Transformed<R>, &mut Buffer<R>),
        out: &mut Buffer<R>,
    ) {
        let tokens = context.len() / self.hidden;
        for buffer in [
            &mut kept.attended,
            &mut kept.middle,
            &mut kept.gathered,
            out,
        ] {
            buffer.resize(tokens * self.hidden);
        }
        kept.attended_statistics.resize(2 * tokens);
        kept.gathered_statistics.resize(2 * tokens);
        // Backward alone asks for it.
        let spread = masks.is_some().then(|| {
            kept.spread.resize(tokens * self.intermediate);
            &mut kept.spread[..]
        });
        activated.resize(tokens * self.intermediate);

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
        self.intermediate_dense
            .forward_gelu(weights, &kept.middle, spread, activated);
        self.output.forward(weights, activated, &mut kept.gathered);
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
        kept: &mut Kept<R>,
        scratch: &mut Scratch<R>,
        gradient: &mut Buffer<R>,
        gradients: &mut Gradients<'_, R>,
    ) {
        let Some(dropout) = pass.dropout else {
            return;
        };
        let batch = pass.batch;
        let masks = self.masks(dropout);
        let (_, packed) = self.reached(batch, &kept.firsts, x);
        self.transform_backward(
            pass.weights,
            (&masks, packed),
            (&kept.context, &mut kept.transformed),
            scratch,
            gradient,
            gradients,
        );
        scratch.qkv.resize(kept.qkv.len());
        scratch.query.resize(kept.firsts.query.len());
        let targets = match self.reach {
            Reach::AllTokens => Qkv::AllQueries(&mut scratch.qkv[..]),
            Reach::FirstTokens => Qkv::FirstQueries {
                query: &mut scratch.query[..],
                key_value: &mut scratch.qkv[..],
            },
        };
        attention_backward(
            &self.attention(batch, Some(&masks[0])),
            self.operands(&kept.qkv, &kept.firsts),
            &kept.context,
            &kept.attention_statistics,
            &scratch.context,
            targets,
        );
        if let Some(queries) = &self.queries {
            let (x, query) = (&kept.firsts.x, &scratch.query);
            queries.backward(pass.weights, x, query, gradient, gradients);
            Firsts::scatter(batch, self.hidden, gradient, &mut scratch.hidden);
            std::mem::swap(gradient, &mut scratch.hidden);
        }
        self.projection
            .backward(pass.weights, x, &scratch.qkv, gradient, gradients);
    }

    /// Leaves the gradient of the context in `scratch.context`, and in `gradient` that of the residual.
    fn transform_backward<R: Real>(
        &self,
        weights: &[R],
        ([_, attended, gathered], packed): (&[Mask; 3], Packed<'_>),
        (context, kept): (&[R], &mut Transformed<R>),
        scratch: &mut Scratch<R>,
        gradient: &mut [R],
        gradients: &mut Gradients<'_, R>,
    ) {
        scratch.hidden.resize(gradient.len());
        scratch.context.resize(gradient.len());
        scratch.spread.resize(kept.spread.len());

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
            .backward(weights, &scratch.hidden, &mut scratch.spread);
        gelu_backward(&mut scratch.spread, &mut kept.spread);
        self.output
            .add_gradients(&kept.spread, &scratch.hidden, gradients);
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
