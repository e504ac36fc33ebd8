//! Recurrent networks on a device: `model/recurrent.rs` and `model/cell.rs` say what is computed. Products read what the
//! precision says; a direction's steps are one launch, a block for each row, and `f32` throughout.
//!
//! Buffers are ordered by position, then by row, in both directions.

use super::batch::Layout;
use super::head::{Head, Linear, Net, Pass, place};
use super::kernels::{Recurrence, WIDEST_RECURRENCE};
use super::{Address, Element, Fault};
use crate::model::recurrent::FIRST_LAYER_DROPOUT;
use crate::model::{RecurrentConfig, RecurrentKind};
use crate::{Batch, Parameters};

/// One direction of one layer, and what it keeps for backward: all `[positions, rows, …]`.
#[derive(Debug)]
struct Run {
    input: Linear,
    recurrent: Linear,
    x: Address,
    gates: Address,
    gates_recurrent: Address,
    hidden: Address,
    cell: Address,
    cell_tanh: Address,
}

/// Where a direction goes: its steps, the position of the first, and whether it goes down.
#[derive(Clone, Copy, Debug)]
struct Walk {
    steps: usize,
    first: usize,
    reverse: bool,
}

impl Walk {
    /// Of the top layer's reverse direction only the first step is wanted.
    fn new(direction: usize, is_top: bool, positions: usize) -> Self {
        let reverse = direction == 1;
        Self {
            steps: if reverse && is_top { 1 } else { positions },
            first: if reverse { positions - 1 } else { 0 },
            reverse,
        }
    }

    /// The lowest position that it visits.
    fn lowest(&self) -> usize {
        if self.reverse {
            self.first + 1 - self.steps
        } else {
            self.first
        }
    }
}

/// The network; see the module.
#[derive(Debug)]
pub(super) struct Recurrent {
    config: RecurrentConfig,
    embeddings: usize,
    layers: Vec<Vec<Run>>,
    head: Head,
    /// Whether anything below the head is trained.
    reaches: bool,
}

impl Recurrent {
    /// That with these parameters.
    ///
    /// # Errors
    /// Where its states are larger than a block's memory.
    pub fn new(config: RecurrentConfig, parameters: &Parameters) -> Result<Self, Fault> {
        let (hidden, gates) = (config.hidden_size, config.kind.gates() * config.hidden_size);
        if 2 * hidden + gates > WIDEST_RECURRENCE {
            return Err(Fault::Unfit(format!(
                "its hidden states have {hidden} numbers; on a GPU {} is the most",
                WIDEST_RECURRENCE / (2 + config.kind.gates())
            )));
        }
        let suffixes: &[&str] = if config.bidirectional {
            &["", "_reverse"]
        } else {
            &[""]
        };
        let width = suffixes.len() * hidden;
        let layers = (0..config.layers).map(|layer| {
            let inputs = if layer == 0 {
                config.embedding_dim
            } else {
                width
            };
            let runs = suffixes.iter().map(|suffix| {
                let linear = |side: &str, inputs| {
                    let weight = format!("rnn.weight_{side}_l{layer}{suffix}");
                    let bias = format!("rnn.bias_{side}_l{layer}{suffix}");
                    Linear::new(parameters, [&weight, &bias], [inputs, gates])
                };
                Run {
                    input: linear("ih", inputs),
                    recurrent: linear("hh", hidden),
                    x: Address::NONE,
                    gates: Address::NONE,
                    gates_recurrent: Address::NONE,
                    hidden: Address::NONE,
                    cell: Address::NONE,
                    cell_tanh: Address::NONE,
                }
            });
            runs.collect()
        });
        let sizes = [width, config.outputs];
        let head = Head::new(parameters, "output_layer", sizes, config.head_dropout);
        Ok(Self {
            embeddings: place(parameters, "embeddings.weight"),
            layers: layers.collect(),
            reaches: parameters
                .tensors()
                .iter()
                .any(|tensor| tensor.trained && tensor.offset < head.linear.weight),
            head,
            config,
        })
    }

    fn recurrence(&self, run: &Run, walk: Walk, rows: usize) -> Recurrence {
        Recurrence {
            gates: run.gates,
            recurrent: run.gates_recurrent,
            hidden: run.hidden,
            cell: run.cell,
            cell_tanh: run.cell_tanh,
            weights: Address::NONE,
            bias: Address::NONE,
            hidden_gradient: Address::NONE,
            kind: match self.config.kind {
                RecurrentKind::RnnTanh => 0,
                RecurrentKind::RnnRelu => 1,
                RecurrentKind::Lstm => 2,
                RecurrentKind::Gru => 3,
            },
            size: self.config.hidden_size as u32,
            gate_size: run.input.outputs as u32,
            rows: rows as u32,
            steps: walk.steps as u32,
            first: walk.first as u32,
            reverse: u32::from(walk.reverse),
        }
    }

    fn run_forward(
        &self,
        pass: &mut Pass<'_>,
        run: &mut Run,
        walk: Walk,
        (x, positions): (Address, usize),
    ) -> Result<(), Fault> {
        let (rows, hidden, gates) = (pass.rows.len, self.config.hidden_size, run.input.outputs);
        let all = positions * rows;
        run.x = x;
        run.gates = pass.arena.floats(all * gates)?;
        run.gates_recurrent = pass.arena.floats(all * gates)?;
        run.hidden = pass.arena.floats(all * hidden)?;
        if self.config.kind.has_cell() {
            run.cell = pass.arena.floats(all * hidden)?;
            run.cell_tanh = pass.arena.floats(all * hidden)?;
        }
        let card = pass.card;
        // Only the positions that it visits.
        let (skipped, visited) = (walk.lowest() * rows, walk.steps * rows);
        let from = x.plus(skipped * run.input.inputs, card.element());
        let to = run.gates.floats(skipped * gates);
        let both = (from, pass.weights.product(run.input.weight));
        let sizes = run.input.sizes(visited);
        card.multiply(card.element(), both, sizes, (to, gates, Element::F32))?;
        card.add_bias(to, pass.weights.at(run.input.bias), (visited, gates), false)?;
        let turned = pass.arena.floats(gates * hidden)?;
        let weights = pass.weights.at(run.recurrent.weight);
        card.transpose(weights, (gates, hidden), turned)?;
        let with = Recurrence {
            weights: turned,
            bias: pass.weights.at(run.recurrent.bias),
            ..self.recurrence(run, walk, rows)
        };
        card.recur(&with, false)
    }

    /// The gradients of a direction's tensors; writes or adds that of x to `x_gradient`.
    fn run_backward(
        &self,
        pass: &mut Pass<'_>,
        run: &Run,
        walk: Walk,
        hidden_gradient: Address,
        (x_gradient, adds_x): (Address, bool),
        gradients: Address,
    ) -> Result<(), Fault> {
        let (rows, hidden, gates) = (pass.rows.len, self.config.hidden_size, run.input.outputs);
        let (card, adds) = (pass.card, pass.sums.adds);
        let element = card.element();
        let with = Recurrence {
            weights: pass.weights.at(run.recurrent.weight),
            hidden_gradient,
            ..self.recurrence(run, walk, rows)
        };
        card.recur(&with, true)?;
        // A step's gates read the hidden state of the position before it; the first step's is 0.
        let (skipped, visited) = (walk.lowest() * rows, walk.steps * rows);
        let (of_gates, of_hidden) = if walk.reverse { (0, rows) } else { (rows, 0) };
        let read = visited - rows;
        let part = run.gates_recurrent.floats((skipped + of_gates) * gates);
        let part = pass.rounded(part, read * gates)?;
        let before = run.hidden.floats((skipped + of_hidden) * hidden);
        let before = pass.rounded(before, read * hidden)?;
        let target = gradients.floats(run.recurrent.weight);
        let sizes = run.recurrent.sizes(read);
        card.multiply_weights(element, ((part, gates), before), sizes, target, adds)?;
        let part = run.gates_recurrent.floats(skipped * gates);
        let targets = [(0, gates, gradients.floats(run.recurrent.bias))];
        pass.bias_gradient(part, Element::F32, (visited, gates), &targets)?;
        let part = run.gates.floats(skipped * gates);
        let targets = [(0, gates, gradients.floats(run.input.bias))];
        pass.bias_gradient(part, Element::F32, (visited, gates), &targets)?;
        let (inputs, sizes) = (run.input.inputs, run.input.sizes(visited));
        let part = pass.rounded(part, visited * gates)?;
        let x = run.x.plus(skipped * inputs, element);
        let target = gradients.floats(run.input.weight);
        card.multiply_weights(element, ((part, gates), x), sizes, target, adds)?;
        let to = (x_gradient.floats(skipped * inputs), Element::F32);
        let w = pass.weights.product(run.input.weight);
        card.multiply_back(element, ((part, gates), w), sizes, to, adds_x)
    }
}

/// Drops numbers of what flows from layer `layer` to the next, `[positions, rows, width]`, or of its gradient.
fn drop_between(
    pass: &Pass<'_>,
    (layer, probability): (usize, f64),
    x: Address,
    sizes: (usize, usize),
) -> Result<(), Fault> {
    let mask = pass.mask(FIRST_LAYER_DROPOUT + layer as u64, probability);
    let places = pass.rows.tokens_places();
    pass.card.drop(x, mask, places, sizes)
}

impl Net for Recurrent {
    fn layout(&self, batch: &Batch) -> Layout {
        let mut layout = Layout {
            ids: Vec::new(),
            positions: Vec::new(),
            row_of: Vec::new(),
            without: None,
        };
        for position in 0..batch.width.max(1) {
            for row in 0..batch.len() {
                let range = batch.range(row);
                layout.ids.push(if position < range.len() {
                    batch.ids[range.start + position]
                } else {
                    batch.padding_id
                });
                layout.positions.push(position as u32);
                layout.row_of.push(row as u32);
            }
        }
        layout
    }

    fn forward(&mut self, pass: &mut Pass<'_>) -> Result<Address, Fault> {
        let (rows, positions) = (pass.rows, pass.width.max(1));
        let (hidden, dimensions) = (self.config.hidden_size, self.config.embedding_dim);
        let all = positions * rows.len;
        let mut flow = pass.arena.floats(all * dimensions)?;
        let nothing = (Address::NONE, Address::NONE);
        let words = (rows.ids, pass.weights.at(self.embeddings));
        pass.card
            .embed(all, [words, nothing, nothing], dimensions, flow)?;
        let top = self.layers.len() - 1;
        let mut layers = std::mem::take(&mut self.layers);
        let mut walk_all = || {
            for (layer, runs) in layers.iter_mut().enumerate() {
                let width = runs.len() * hidden;
                let x = pass.rounded(flow, all * runs[0].input.inputs)?;
                for (direction, run) in runs.iter_mut().enumerate() {
                    let walk = Walk::new(direction, layer == top, positions);
                    self.run_forward(pass, run, walk, (x, positions))?;
                }
                let (skipped, read) = match layer == top {
                    true => ((positions - 1) * rows.len, rows.len),
                    false => (0, all),
                };
                flow = pass.arena.floats(read * width)?;
                for (direction, run) in runs.iter().enumerate() {
                    let from = run.hidden.floats(skipped * hidden);
                    let sizes = [read, width, direction * hidden, hidden];
                    pass.card.copy_columns(from, sizes, flow, true)?;
                }
                if layer < top {
                    drop_between(pass, (layer, self.config.dropout), flow, (all, width))?;
                }
            }
            Ok(flow)
        };
        let features = walk_all();
        self.layers = layers;
        self.head.forward(pass, features?)
    }

    fn backward(
        &mut self,
        pass: &mut Pass<'_>,
        logits_gradient: Address,
        gradients: Address,
    ) -> Result<(), Fault> {
        let features_gradient = self.head.backward(pass, logits_gradient, gradients)?;
        if !self.reaches {
            return Ok(());
        }
        let (rows, positions) = (pass.rows, pass.width.max(1));
        let hidden = self.config.hidden_size;
        let all = positions * rows.len;
        let top = self.layers.len() - 1;
        let mut flow = features_gradient;
        for (layer, runs) in self.layers.iter().enumerate().rev() {
            let width = runs.len() * hidden;
            if layer < top {
                drop_between(pass, (layer, self.config.dropout), flow, (all, width))?;
            }
            let inputs = runs[0].input.inputs;
            let x_gradient = pass.arena.floats(all * inputs)?;
            for (direction, run) in runs.iter().enumerate() {
                let above = pass.arena.floats(all * hidden)?;
                let (skipped, read) = match layer == top {
                    true => ((positions - 1) * rows.len, rows.len),
                    false => (0, all),
                };
                // Of the top layer's states the head reads only the last.
                pass.card.device.clear(above, skipped * hidden * 4)?;
                let to = above.floats(skipped * hidden);
                let sizes = [read, width, direction * hidden, hidden];
                pass.card.copy_columns(flow, sizes, to, false)?;
                let walk = Walk::new(direction, layer == top, positions);
                let x = (x_gradient, direction > 0);
                self.run_backward(pass, run, walk, above, x, gradients)?;
            }
            flow = x_gradient;
        }
        let dimensions = self.config.embedding_dim;
        let table = gradients.floats(self.embeddings);
        pass.card.embed_backward(flow, &rows, dimensions, table)
    }
}
