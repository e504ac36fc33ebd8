//! BERT on a device: `model/bert.rs` and `model/encoder.rs` say what is computed.
//!
//! Hidden states, sums before normalizations and gradients of hidden states are `f32`; what products read and write is of
//! the precision's sort. Biases are added by what reads a product: attention, gelu or normalization.

use super::batch::{Layout, Rows};
use super::head::{Head, Linear, Net, Pass, place};
use super::kernels::{Extent, HeadGradients, Heads, Mask, Norm, WIDEST_HEAD, WIDEST_NORM};
use super::{Address, Element, Fault};
use crate::model::bert::EMBEDDINGS_DROPOUT;
use crate::model::{BertConfig, Pooling};
use crate::{Batch, Parameters};

/// Where a normalization's tensors lie.
#[derive(Clone, Copy, Debug)]
struct NormPlaces {
    gamma: usize,
    beta: usize,
}

impl NormPlaces {
    fn new(parameters: &Parameters, name: &str) -> Self {
        Self {
            gamma: place(parameters, &format!("{name}.weight")),
            beta: place(parameters, &format!("{name}.bias")),
        }
    }
}

/// Hidden states, and the same as products read them: one and the same where that is `f32`.
#[derive(Clone, Copy, Debug, Default)]
struct States {
    wide: Address,
    product: Address,
}

impl States {
    fn new(pass: &mut Pass<'_>, count: usize) -> Result<Self, Fault> {
        let wide = pass.arena.floats(count)?;
        let product = match pass.card.element() {
            Element::F32 => wide,
            narrow => pass.arena.take(count, narrow)?,
        };
        Ok(Self { wide, product })
    }

    /// What a kernel writes them to: no second copy where both are one.
    fn targets(&self) -> (Address, Address) {
        if self.wide == self.product {
            (self.wide, Address::NONE)
        } else {
            (self.wide, self.product)
        }
    }
}

/// Queries, keys and values, or some of them: linear layers of the same numbers whose results lie side by side.
#[derive(Debug)]
struct Projection {
    /// Products: where their weights begin, their first column, how many they have.
    products: Vec<(usize, usize, usize)>,
    biases: Vec<usize>,
    hidden: usize,
}

impl Projection {
    fn new(parameters: &Parameters, name: &str, parts: &[&str], hidden: usize) -> Self {
        let mut products: Vec<(usize, usize, usize)> = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let weight = place(parameters, &format!("{name}.{part}.weight"));
            match products.last_mut() {
                // Where the tensors touch, one product does for both.
                Some((begin, _, columns)) if *begin + *columns * hidden == weight => {
                    *columns += hidden;
                }
                _ => products.push((weight, index * hidden, hidden)),
            }
        }
        Self {
            products,
            biases: parts
                .iter()
                .map(|part| place(parameters, &format!("{name}.{part}.bias")))
                .collect(),
            hidden,
        }
    }

    fn width(&self) -> usize {
        self.biases.len() * self.hidden
    }

    /// The products of x, without the biases.
    fn forward(&self, pass: &mut Pass<'_>, x: Address, rows: usize) -> Result<Address, Fault> {
        let element = pass.card.element();
        let out = pass.arena.take(rows * self.width(), element)?;
        for &(weight, column, columns) in &self.products {
            let w = pass.weights.product(weight);
            let to = (out.plus(column, element), self.width(), element);
            pass.card
                .multiply(element, (x, w), [rows, self.hidden, columns], to)?;
        }
        Ok(out)
    }

    /// The gradients of the tensors; adds that of x to `x_gradient`.
    fn backward(
        &self,
        pass: &mut Pass<'_>,
        (x, gradient): (Address, Address),
        rows: usize,
        x_gradient: Address,
        gradients: Address,
    ) -> Result<(), Fault> {
        let (card, element) = (pass.card, pass.card.element());
        for &(weight, column, columns) in &self.products {
            let part = (gradient.plus(column, element), self.width());
            let sizes = [rows, self.hidden, columns];
            let w = pass.weights.product(weight);
            card.multiply_back(element, (part, w), sizes, (x_gradient, Element::F32), true)?;
            let target = gradients.floats(weight);
            card.multiply_weights(element, (part, x), sizes, target, pass.sums.adds)?;
        }
        let targets: Vec<_> = self
            .biases
            .iter()
            .enumerate()
            .map(|(index, &bias)| (index * self.hidden, self.hidden, gradients.floats(bias)))
            .collect();
        pass.bias_gradient(gradient, element, (rows, self.width()), &targets)
    }
}

/// A layer of the encoder.
#[derive(Debug)]
struct Layer {
    /// Where its tensors begin.
    begin: usize,
    /// Where only first tokens ask for attention, their queries.
    queries: Option<Projection>,
    projection: Projection,
    attention_output: Linear,
    attention_norm: NormPlaces,
    intermediate: Linear,
    output: Linear,
    output_norm: NormPlaces,
    /// The number of its first dropout.
    first_dropout: u64,
    kept: Kept,
}

/// What a layer keeps from forward for backward.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    x: States,
    /// The first tokens' states and queries, where they ask alone.
    firsts: States,
    query: Address,
    qkv: Address,
    statistics: Address,
    /// Which probabilities stayed.
    kept: Address,
    context: Address,
    attended: Address,
    attended_statistics: Address,
    middle: States,
    spread: Address,
    activated: Address,
    gathered: Address,
    gathered_statistics: Address,
}

/// The network; see the module.
#[derive(Debug)]
pub(super) struct Bert {
    config: BertConfig,
    words: usize,
    positions: usize,
    types: usize,
    norm: NormPlaces,
    layers: Vec<Layer>,
    pooler: Linear,
    head: Head,
    /// Where the lowest tensor lies that is trained.
    lowest: usize,
    embedded: Address,
    embedded_statistics: Address,
    last: Address,
    features: Address,
}

impl Bert {
    /// That with these parameters.
    ///
    /// # Errors
    /// Where it is wider than the kernels reach.
    pub fn new(config: BertConfig, parameters: &Parameters) -> Result<Self, Fault> {
        let hidden = config.hidden_size;
        let head_width = hidden / config.heads;
        if head_width > WIDEST_HEAD {
            return Err(Fault::Unfit(format!(
                "its heads have {head_width} numbers; on a GPU {WIDEST_HEAD} is the most"
            )));
        }
        if hidden > WIDEST_NORM {
            return Err(Fault::Unfit(format!(
                "its hidden states have {hidden} numbers; on a GPU {WIDEST_NORM} is the most"
            )));
        }
        let layers = (0..config.layers).map(|index| {
            let name = format!("bert.encoder.layer.{index}");
            let at = |part: &str| format!("{name}.{part}");
            let attention = at("attention.self");
            let project = |parts: &[&str]| Projection::new(parameters, &attention, parts, hidden);
            let reaches_all = config.pooling == Pooling::Mean || index + 1 < config.layers;
            let linear = |part, sizes| Linear::named(parameters, &at(part), sizes);
            let (queries, projection) = if reaches_all {
                (None, project(&["query", "key", "value"]))
            } else {
                (Some(project(&["query"])), project(&["key", "value"]))
            };
            Layer {
                begin: place(parameters, &at("attention.self.query.weight")),
                queries,
                projection,
                attention_output: linear("attention.output.dense", [hidden; 2]),
                attention_norm: NormPlaces::new(parameters, &at("attention.output.LayerNorm")),
                intermediate: linear("intermediate.dense", [hidden, config.intermediate_size]),
                output: linear("output.dense", [config.intermediate_size, hidden]),
                output_norm: NormPlaces::new(parameters, &at("output.LayerNorm")),
                first_dropout: EMBEDDINGS_DROPOUT + 1 + 3 * index as u64,
                kept: Kept::default(),
            }
        });
        let embeddings = |name: &str| {
            place(
                parameters,
                &format!("bert.embeddings.{name}_embeddings.weight"),
            )
        };
        Ok(Self {
            words: embeddings("word"),
            positions: embeddings("position"),
            types: embeddings("token_type"),
            norm: NormPlaces::new(parameters, "bert.embeddings.LayerNorm"),
            layers: layers.collect(),
            pooler: Linear::named(parameters, "bert.pooler.dense", [hidden; 2]),
            head: Head::new(
                parameters,
                "classifier",
                [hidden, config.outputs],
                config.head_dropout,
            ),
            lowest: parameters
                .tensors()
                .iter()
                .find(|tensor| tensor.trained)
                .map_or(usize::MAX, |tensor| tensor.offset),
            embedded: Address::NONE,
            embedded_statistics: Address::NONE,
            last: Address::NONE,
            features: Address::NONE,
            config,
        })
    }

    fn norm(
        &self,
        pass: &Pass<'_>,
        places: NormPlaces,
        (sum, statistics): (Address, Address),
        reach: Reach,
    ) -> Norm {
        Norm {
            gamma: pass.weights.at(places.gamma),
            beta: pass.weights.at(places.beta),
            epsilon: self.config.layer_norm_eps as f32,
            sum,
            statistics,
            places: match reach.firsts {
                false => pass.rows.tokens_places(),
                true => pass.rows.rows_places(),
            },
            tokens: reach.count,
            width: self.config.hidden_size,
        }
    }

    fn embed(&mut self, pass: &mut Pass<'_>) -> Result<States, Fault> {
        let (rows, width) = (pass.rows, self.config.hidden_size);
        let count = rows.tokens * width;
        self.embedded = pass.arena.floats(count)?;
        self.embedded_statistics = pass.arena.floats(2 * rows.tokens)?;
        let out = States::new(pass, count)?;
        let tables = [
            (rows.ids, pass.weights.at(self.words)),
            (rows.types, pass.weights.at(self.types)),
            (rows.positions, pass.weights.at(self.positions)),
        ];
        pass.card.embed(rows.tokens, tables, width, self.embedded)?;
        let kept = (self.embedded, self.embedded_statistics);
        let norm = self.norm(pass, self.norm, kept, Reach::all(&rows));
        let behind = pass.mask(EMBEDDINGS_DROPOUT, self.config.hidden_dropout);
        let nothing = (Address::NONE, Address::NONE);
        let masks = [Mask::NONE, behind];
        pass.card
            .add_norm(&norm, nothing, masks, self.embedded, out.targets())?;
        Ok(out)
    }

    fn embed_backward(
        &self,
        pass: &mut Pass<'_>,
        gradient: Address,
        gradients: Address,
    ) -> Result<(), Fault> {
        let (rows, width) = (pass.rows, self.config.hidden_size);
        let mask = pass.mask(EMBEDDINGS_DROPOUT, self.config.hidden_dropout);
        let sizes = (rows.tokens, width);
        pass.card
            .drop(gradient, mask, rows.tokens_places(), sizes)?;
        let kept = (self.embedded, self.embedded_statistics);
        let norm = self.norm(pass, self.norm, kept, Reach::all(&rows));
        norm_backward(
            pass,
            self.norm,
            &norm,
            gradient,
            (Mask::NONE, Address::NONE),
            gradients,
        )?;
        let card = pass.card;
        card.embed_backward(gradient, &rows, width, gradients.floats(self.words))?;
        let classes = self.config.type_vocab_size;
        let sums = pass.sums.place(rows.tokens, classes * width)?;
        card.class_sums(gradient, (rows.types, classes), sizes, sums)?;
        let all = classes * width;
        let target = gradients.floats(self.types);
        pass.sums.add(sums, rows.tokens, all, (0, all), target);
        let positions = (self.config.max_positions, width);
        let target = gradients.floats(self.positions);
        card.positions_backward(gradient, &rows, positions, pass.sums.adds, target)
    }

    fn heads(&self, pass: &Pass<'_>, layer: &Layer, kept: &Kept) -> (Heads, Extent) {
        let (rows, hidden, element) = (&pass.rows, self.config.hidden_size, pass.card.element());
        let width = hidden / self.config.heads;
        let mask = pass.mask(layer.first_dropout, self.config.attention_dropout);
        let biases = layer.queries.iter().chain([&layer.projection]);
        let mut biases = biases.flat_map(|projection| &projection.biases);
        let biases = [(); 3].map(|()| {
            biases
                .next()
                .map_or(Address::NONE, |&bias| pass.weights.at(bias))
        });
        let reach = Reach::of(layer, rows);
        let stride = layer.projection.width() as u32;
        let extent = reach.extent(rows);
        let heads = Heads {
            operands: match reach.firsts {
                false => [0, 1, 2].map(|part| kept.qkv.plus(part * hidden, element)),
                true => [kept.query, kept.qkv, kept.qkv.plus(hidden, element)],
            },
            biases,
            query_offsets: if reach.firsts {
                rows.firsts
            } else {
                rows.offsets
            },
            offsets: rows.offsets,
            rows: rows.rows,
            kept: kept.kept,
            query_stride: if reach.firsts { hidden as u32 } else { stride },
            key_stride: stride,
            heads: self.config.heads as u32,
            width: width as u32,
            groups: extent.groups() as u32,
            scale: 1.0 / (width as f32).sqrt(),
            mask,
        };
        (heads, extent)
    }

    fn layer_forward(
        &self,
        pass: &mut Pass<'_>,
        layer: &Layer,
        x: States,
        out: States,
    ) -> Result<Kept, Fault> {
        let (rows, hidden) = (pass.rows, self.config.hidden_size);
        let (card, element) = (pass.card, pass.card.element());
        let reach = Reach::of(layer, &rows);
        let count = reach.count;
        let mut kept = Kept {
            x,
            ..Kept::default()
        };
        kept.qkv = layer.projection.forward(pass, x.product, rows.tokens)?;
        let mut residual = x.wide;
        if let Some(queries) = &layer.queries {
            kept.firsts = States::new(pass, count * hidden)?;
            card.gather_firsts(x.wide, &rows, hidden, kept.firsts.targets())?;
            kept.query = queries.forward(pass, kept.firsts.product, count)?;
            residual = kept.firsts.wide;
        }
        kept.context = pass.arena.take(count * hidden, element)?;
        kept.statistics = pass.arena.floats(2 * count * self.config.heads)?;
        if pass.dropout.is_some() && self.config.attention_dropout > 0.0 {
            let groups = count * self.config.heads * reach.extent(&rows).groups();
            kept.kept = pass.arena.floats(4 * groups)?;
        }
        let (heads, extent) = self.heads(pass, layer, &kept);
        card.attention(&heads, extent, kept.context, kept.statistics)?;

        let drops = |pass: &Pass<'_>, index| {
            let mask = pass.mask(layer.first_dropout + index, self.config.hidden_dropout);
            [mask, Mask::NONE]
        };
        let product = pass.arena.take(count * hidden, element)?;
        kept.attended = pass.arena.floats(count * hidden)?;
        kept.attended_statistics = pass.arena.floats(2 * count)?;
        kept.middle = States::new(pass, count * hidden)?;
        let dense = layer.attention_output;
        let both = (kept.context, pass.weights.product(dense.weight));
        card.multiply(
            element,
            both,
            dense.sizes(count),
            (product, hidden, element),
        )?;
        let sums = (kept.attended, kept.attended_statistics);
        let norm = self.norm(pass, layer.attention_norm, sums, reach);
        let changed = (product, pass.weights.at(dense.bias));
        let masks = drops(pass, 1);
        card.add_norm(&norm, changed, masks, residual, kept.middle.targets())?;

        let dense = layer.intermediate;
        kept.spread = pass.arena.take(count * dense.outputs, element)?;
        kept.activated = pass.arena.take(count * dense.outputs, element)?;
        let both = (kept.middle.product, pass.weights.product(dense.weight));
        card.multiply(
            element,
            both,
            dense.sizes(count),
            (kept.spread, dense.outputs, element),
        )?;
        let spread = (kept.spread, pass.weights.at(dense.bias));
        card.bias_gelu(spread, kept.activated, (count, dense.outputs))?;

        let dense = layer.output;
        kept.gathered = pass.arena.floats(count * hidden)?;
        kept.gathered_statistics = pass.arena.floats(2 * count)?;
        let both = (kept.activated, pass.weights.product(dense.weight));
        card.multiply(
            element,
            both,
            dense.sizes(count),
            (product, hidden, element),
        )?;
        let sums = (kept.gathered, kept.gathered_statistics);
        let norm = self.norm(pass, layer.output_norm, sums, reach);
        let changed = (product, pass.weights.at(dense.bias));
        let masks = drops(pass, 2);
        card.add_norm(&norm, changed, masks, kept.middle.wide, out.targets())?;
        Ok(kept)
    }

    /// Turns the gradient of the states behind a layer into that of those before it, in `before`: the same place
    /// where the layer reaches all tokens.
    fn layer_backward(
        &self,
        pass: &mut Pass<'_>,
        layer: &Layer,
        (gradient, before): (Address, Address),
        gradients: Address,
    ) -> Result<(), Fault> {
        let (rows, hidden, kept) = (pass.rows, self.config.hidden_size, layer.kept);
        let (card, element) = (pass.card, pass.card.element());
        let reach = Reach::of(layer, &rows);
        let count = reach.count;
        let adds = pass.sums.adds;
        let dropped = pass.arena.take(count * hidden, element)?;
        let mask = |pass: &Pass<'_>, index| {
            pass.mask(layer.first_dropout + index, self.config.hidden_dropout)
        };

        let sums = (kept.gathered, kept.gathered_statistics);
        let norm = self.norm(pass, layer.output_norm, sums, reach);
        let drop = (mask(pass, 2), dropped);
        norm_backward(pass, layer.output_norm, &norm, gradient, drop, gradients)?;
        let dense = layer.output;
        let of_y = (dropped, hidden);
        let target = gradients.floats(dense.weight);
        let sizes = dense.sizes(count);
        card.multiply_weights(element, (of_y, kept.activated), sizes, target, adds)?;
        let targets = [(0, hidden, gradients.floats(dense.bias))];
        pass.bias_gradient(dropped, element, (count, hidden), &targets)?;
        let inner = layer.intermediate;
        let spread = pass.arena.take(count * inner.outputs, element)?;
        let w = pass.weights.product(dense.weight);
        card.multiply_back(element, (of_y, w), sizes, (spread, element), false)?;
        let sums = pass.sums.place(count, inner.outputs)?;
        let read = (kept.spread, pass.weights.at(inner.bias));
        card.bias_gelu_backward(spread, read, (count, inner.outputs), sums)?;
        let target = gradients.floats(inner.bias);
        let all = (0, inner.outputs);
        pass.sums.add(sums, count, inner.outputs, all, target);
        let of_y = (spread, inner.outputs);
        let sizes = inner.sizes(count);
        let target = gradients.floats(inner.weight);
        card.multiply_weights(element, (of_y, kept.middle.product), sizes, target, adds)?;
        let w = pass.weights.product(inner.weight);
        card.multiply_back(element, (of_y, w), sizes, (gradient, Element::F32), true)?;

        let sums = (kept.attended, kept.attended_statistics);
        let norm = self.norm(pass, layer.attention_norm, sums, reach);
        let drop = (mask(pass, 1), dropped);
        norm_backward(pass, layer.attention_norm, &norm, gradient, drop, gradients)?;
        let dense = layer.attention_output;
        let of_y = (dropped, hidden);
        let sizes = dense.sizes(count);
        let target = gradients.floats(dense.weight);
        card.multiply_weights(element, (of_y, kept.context), sizes, target, adds)?;
        let targets = [(0, hidden, gradients.floats(dense.bias))];
        pass.bias_gradient(dropped, element, (count, hidden), &targets)?;
        let context = pass.arena.take(count * hidden, element)?;
        let w = pass.weights.product(dense.weight);
        card.multiply_back(element, (of_y, w), sizes, (context, element), false)?;

        let width = layer.projection.width();
        let qkv = pass.arena.take(rows.tokens * width, element)?;
        let query = match &layer.queries {
            None => qkv,
            Some(_) => pass.arena.take(count * hidden, element)?,
        };
        let behind = |parts: usize| qkv.plus(parts * hidden, element);
        let keys = reach.extent(&rows).padded_keys();
        let scores = count * self.config.heads * keys;
        let head_gradients = HeadGradients {
            slopes: pass.arena.take(scores, element)?,
            slope_stride: keys as u32,
            gradient: context,
            statistics: kept.statistics,
            common: pass.arena.floats(count * self.config.heads)?,
            targets: match &layer.queries {
                None => [qkv, behind(1), behind(2)],
                Some(_) => [query, qkv, behind(1)],
            },
        };
        let (heads, extent) = self.heads(pass, layer, &kept);
        card.attention_backward(&heads, extent, kept.context, &head_gradients)?;
        if let Some(queries) = &layer.queries {
            let both = (kept.firsts.product, query);
            queries.backward(pass, both, count, gradient, gradients)?;
            card.scatter_firsts(gradient, &rows, hidden, before)?;
        }
        let both = (kept.x.product, qkv);
        layer
            .projection
            .backward(pass, both, rows.tokens, before, gradients)
    }

    fn pool(&mut self, pass: &mut Pass<'_>) -> Result<(), Fault> {
        let (rows, hidden) = (pass.rows, self.config.hidden_size);
        self.features = match self.config.pooling {
            Pooling::Cls => self.last,
            Pooling::Pooler => self.pooler.forward_wide(pass, self.last, rows.len, true)?,
            Pooling::Mean => {
                let means = pass.arena.floats(rows.len * hidden)?;
                pass.card.mean_rows(self.last, &rows, hidden, means)?;
                means
            }
        };
        Ok(())
    }

    fn pool_backward(
        &self,
        pass: &mut Pass<'_>,
        gradient: Address,
        gradients: Address,
    ) -> Result<Address, Fault> {
        let (rows, hidden) = (pass.rows, self.config.hidden_size);
        match self.config.pooling {
            Pooling::Cls => Ok(gradient),
            Pooling::Pooler => {
                pass.card
                    .tanh_backward(gradient, self.features, rows.len * hidden)?;
                let both = (self.last, gradient);
                self.pooler.backward_wide(pass, both, rows.len, gradients)
            }
            Pooling::Mean => {
                let states = pass.arena.floats(rows.tokens * hidden)?;
                pass.card
                    .mean_rows_backward(gradient, &rows, hidden, states)?;
                Ok(states)
            }
        }
    }
}

/// Which tokens stand behind a layer's attention: all, or the first of each row.
#[derive(Clone, Copy, Debug)]
struct Reach {
    firsts: bool,
    count: usize,
}

impl Reach {
    fn all(rows: &Rows) -> Self {
        Self {
            firsts: false,
            count: rows.tokens,
        }
    }

    fn of(layer: &Layer, rows: &Rows) -> Self {
        match layer.queries {
            None => Self::all(rows),
            Some(_) => Self {
                firsts: true,
                count: rows.len,
            },
        }
    }

    fn extent(self, rows: &Rows) -> Extent {
        Extent {
            rows: rows.len,
            queries: self.count,
            longest_queries: if self.firsts { 1 } else { rows.longest },
            longest: rows.longest,
        }
    }
}

/// The way back through a normalization: leaves the gradients of its tensors to be finished.
fn norm_backward(
    pass: &mut Pass<'_>,
    places: NormPlaces,
    norm: &Norm,
    gradient: Address,
    (mask, dropped): (Mask, Address),
    gradients: Address,
) -> Result<(), Fault> {
    let (tokens, width) = (norm.tokens, norm.width);
    let gamma = pass.sums.place(tokens, width)?;
    let beta = pass.sums.place(tokens, width)?;
    pass.card.norm_columns(norm, gradient, [gamma, beta])?;
    for (sums, target) in [(gamma, places.gamma), (beta, places.beta)] {
        let target = gradients.floats(target);
        pass.sums.add(sums, tokens, width, (0, width), target);
    }
    pass.card.add_norm_backward(norm, gradient, mask, dropped)
}

impl Net for Bert {
    fn layout(&self, batch: &Batch) -> Layout {
        Layout::packed(batch, self.config.padding_id.map(|id| id as u32))
    }

    fn forward(&mut self, pass: &mut Pass<'_>) -> Result<Address, Fault> {
        let (rows, hidden) = (pass.rows, self.config.hidden_size);
        let mut layers = std::mem::take(&mut self.layers);
        let mut walk = || {
            let mut x = self.embed(pass)?;
            // In evaluation two hidden states take turns, and one layer's place serves all.
            let mut spare = match pass.dropout {
                None => Some(States::new(pass, rows.tokens * hidden)?),
                Some(_) => None,
            };
            for layer in &mut layers {
                let count = Reach::of(layer, &rows).count;
                let out = match spare {
                    None => States::new(pass, count * hidden)?,
                    Some(spare) => spare,
                };
                let mark = pass.arena.mark();
                layer.kept = self.layer_forward(pass, layer, x, out)?;
                if let Some(spare) = &mut spare {
                    pass.arena.back_to(mark);
                    *spare = x;
                }
                x = out;
            }
            self.last = x.wide;
            self.pool(pass)
        };
        let walked = walk();
        self.layers = layers;
        walked?;
        self.head.forward(pass, self.features)
    }

    fn backward(
        &mut self,
        pass: &mut Pass<'_>,
        logits_gradient: Address,
        gradients: Address,
    ) -> Result<(), Fault> {
        let features_gradient = self.head.backward(pass, logits_gradient, gradients)?;
        if self.lowest >= self.head.linear.weight {
            return Ok(());
        }
        let mut gradient = self.pool_backward(pass, features_gradient, gradients)?;
        let mut end = self.pooler.weight;
        for layer in self.layers.iter().rev() {
            if self.lowest >= end {
                return Ok(());
            }
            end = layer.begin;
            let before = match layer.queries {
                None => gradient,
                Some(_) => pass
                    .arena
                    .floats(pass.rows.tokens * self.config.hidden_size)?,
            };
            let mark = pass.arena.mark();
            self.layer_backward(pass, layer, (gradient, before), gradients)?;
            pass.arena.back_to(mark);
            gradient = before;
        }
        if self.lowest < end {
            self.embed_backward(pass, gradient, gradients)?;
        }
        Ok(())
    }
}
