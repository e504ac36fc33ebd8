//! One direction of one layer of a recurrent network, over all steps.
//!
//! Rows know nothing of each other, so that each thread takes its block of them through the whole sequence:
//! threads meet once a sequence instead of once a step, and the recurrent weights are laid out for the
//! products once. Per step and row it reads and writes `4 gates hidden` numbers, and `2 gates hidden²`
//! operations find the weights in the second cache.

use std::ops::Range;

use crate::kernels::{Buffer, Epilogue, Matrix, MatrixMut, PackedOperand, gemm_packed};
use crate::model::cell::{self, RecurrentKind, Step};
use crate::model::linear::Linear;
use crate::model::recurrent::RecurrentConfig;
use crate::parallel::{Shared, threads, tiles};
use crate::parameters::{Initial, Parameters};
use crate::{Gradients, Real};

/// One direction of one layer, with what it keeps for backward. Its buffers go by step: in the reverse
/// direction the first step is the last position.
#[derive(Debug)]
pub(crate) struct Run<R> {
    kind: RecurrentKind,
    hidden_size: usize,
    pub input: Linear,
    recurrent: Linear,
    /// `[steps, rows, inputs]`.
    pub x: Vec<R>,
    pub x_gradient: Buffer<R>,
    /// `[steps, rows, gates * hidden]`; backward turns gates into gradients.
    gates: Buffer<R>,
    /// The hidden state's part of the gates, alike.
    gates_recurrent: Buffer<R>,
    /// `[1 + steps, rows, hidden]`, from zeros on.
    hidden: Buffer<R>,
    /// The same for an LSTM's cell state.
    cell: Buffer<R>,
    /// `[steps, rows, hidden]`.
    cell_tanh: Buffer<R>,
    /// The gradient that comes from above, `[steps, rows, hidden]`.
    pub hidden_gradient: Buffer<R>,
    flowing: [Buffer<R>; 3],
    /// The recurrent weights, laid out for the products of all steps.
    packed: PackedOperand<R>,
}

impl<R: Real> Run<R> {
    pub fn new(
        parameters: &mut Parameters,
        config: &RecurrentConfig,
        inputs: usize,
        name: &str,
    ) -> Self {
        let hidden = config.hidden_size;
        let outputs = config.kind.gates() * hidden;
        let uniform = [Initial::of_inputs(hidden); 2];
        let names = |side: &str| {
            [
                format!("rnn.weight_{side}_{name}"),
                format!("rnn.bias_{side}_{name}"),
            ]
        };
        Self {
            kind: config.kind,
            hidden_size: hidden,
            input: Linear::with_names(parameters, names("ih"), [inputs, outputs], uniform),
            recurrent: Linear::with_names(parameters, names("hh"), [hidden, outputs], uniform),
            x: Vec::new(),
            x_gradient: Buffer::default(),
            gates: Buffer::default(),
            gates_recurrent: Buffer::default(),
            hidden: Buffer::default(),
            cell: Buffer::default(),
            cell_tanh: Buffer::default(),
            hidden_gradient: Buffer::default(),
            flowing: Default::default(),
            packed: PackedOperand::default(),
        }
    }

    /// Runs over `x`, which is there, in blocks of `rows`.
    pub fn forward(&mut self, weights: &[R], rows: usize) {
        let kind = self.kind;
        let steps = self.x.len() / (rows * self.input.inputs);
        let state = rows * self.hidden_size;
        let gates = rows * self.input.outputs;
        self.gates.resize(steps * gates);
        self.gates_recurrent.resize(steps * gates);
        self.hidden.resize((1 + steps) * state);
        self.hidden[..state].fill(R::ZERO);
        if self.kind.has_cell() {
            self.cell.resize((1 + steps) * state);
            self.cell_tanh.resize(steps * state);
            self.cell[..state].fill(R::ZERO);
        }
        self.input.forward(weights, &self.x, &mut self.gates);
        let matrix = self.recurrent.matrix(weights);
        self.packed.pack(matrix.transposed());
        let bias = &weights[self.recurrent.bias.clone()];
        let operations = steps * gates * self.hidden_size;
        let (buffers, packed) = self.buffers(rows);
        blocks(rows, operations, |block| {
            for step in 0..steps {
                let (step, hidden) = buffers.step(step, &block);
                gemm_packed(
                    Matrix::new(step.hidden_before, block.len(), step.hidden_size),
                    packed,
                    MatrixMut::new(step.recurrent, block.len(), packed.columns()),
                    Epilogue::Bias(bias),
                );
                cell::forward(kind, step, hidden);
            }
        });
    }

    /// Adds the gradients of its tensors, and leaves that of `x` in `x_gradient`, given that of its hidden
    /// states in `hidden_gradient`.
    pub fn backward(&mut self, weights: &[R], rows: usize, gradients: &mut Gradients<'_, R>) {
        let kind = self.kind;
        let steps = self.x.len() / (rows * self.input.inputs);
        let state = rows * self.hidden_size;
        let gates = rows * self.input.outputs;
        for buffer in &mut self.flowing {
            buffer.resize(state);
            buffer.fill(R::ZERO);
        }
        self.packed.pack(self.recurrent.matrix(weights));
        let operations = steps * gates * self.hidden_size;
        let (buffers, packed) = self.buffers(rows);
        blocks(rows, operations, |block| {
            for step in (0..steps).rev() {
                let (hidden_gradient, [hidden, cell, through]) = buffers.flowing(step, &block);
                R::add_tile(hidden, hidden_gradient);
                let (step, _) = buffers.step(step, &block);
                let recurrent = cell::backward(kind, step, hidden, cell);
                gemm_packed(
                    Matrix::new(recurrent, block.len(), recurrent.len() / block.len()),
                    packed,
                    MatrixMut::new(through, block.len(), packed.columns()),
                    Epilogue::Overwrite,
                );
                R::add_tile(hidden, through);
            }
        });
        let before = &self.hidden[..steps * state];
        self.recurrent
            .add_gradients(before, &self.gates_recurrent, gradients);
        self.input.add_gradients(&self.x, &self.gates, gradients);
        self.x_gradient.resize(self.x.len());
        self.input
            .backward(weights, &self.gates, &mut self.x_gradient);
    }

    /// The hidden states after each step, `[steps, rows, hidden]`.
    pub fn outputs(&self, rows: usize) -> &[R] {
        &self.hidden[rows * self.hidden_size..]
    }

    /// Its buffers, shared by blocks of rows, and the packed weights.
    fn buffers(&mut self, rows: usize) -> (Buffers<'_, R>, &PackedOperand<R>) {
        let buffers = Buffers {
            rows,
            hidden_size: self.hidden_size,
            gate_size: self.input.outputs,
            has_cell: self.kind.has_cell(),
            gates: Shared::new(&mut self.gates),
            gates_recurrent: Shared::new(&mut self.gates_recurrent),
            hidden: Shared::new(&mut self.hidden),
            cell: Shared::new(&mut self.cell),
            cell_tanh: Shared::new(&mut self.cell_tanh),
            hidden_gradient: Shared::new(&mut self.hidden_gradient),
            flowing: self.flowing.each_mut().map(|buffer| Shared::new(buffer)),
        };
        (buffers, &self.packed)
    }
}

/// Calls `work` with blocks of rows: one a thread where there is enough to do. Each row's numbers are its own,
/// so that the blocks do not show.
fn blocks(rows: usize, operations: usize, work: impl Fn(Range<usize>) + Send + Sync) {
    let size = rows.div_ceil(threads()).max(1);
    tiles(rows.div_ceil(size), operations, |block| {
        work(block * size..rows.min((block + 1) * size));
    });
}

/// The buffers of a [`Run`], which blocks of rows share.
struct Buffers<'a, R> {
    rows: usize,
    hidden_size: usize,
    gate_size: usize,
    has_cell: bool,
    gates: Shared<'a, R>,
    gates_recurrent: Shared<'a, R>,
    hidden: Shared<'a, R>,
    cell: Shared<'a, R>,
    cell_tanh: Shared<'a, R>,
    hidden_gradient: Shared<'a, R>,
    flowing: [Shared<'a, R>; 3],
}

impl<'a, R: Copy> Buffers<'a, R> {
    /// What belongs to a step and a block of rows, and where its hidden state goes.
    fn step(&self, step: usize, block: &Range<usize>) -> (Step<'a, R>, &'a mut [R]) {
        let gates = |buffer| self.part(buffer, self.gate_size, step, block);
        let states = |buffer, step| self.part(buffer, self.hidden_size, step, block);
        let (cell_before, cell, cell_tanh): (&[R], &mut [R], &mut [R]) = if self.has_cell {
            (
                states(self.cell, step),
                states(self.cell, step + 1),
                states(self.cell_tanh, step),
            )
        } else {
            (&[], &mut [], &mut [])
        };
        let parts = Step {
            hidden_size: self.hidden_size,
            gates: gates(self.gates),
            recurrent: gates(self.gates_recurrent),
            hidden_before: states(self.hidden, step),
            cell_before,
            cell,
            cell_tanh,
        };
        (parts, states(self.hidden, step + 1))
    }

    /// The gradient that comes to a step from above, and those that flow from step to step.
    fn flowing(&self, step: usize, block: &Range<usize>) -> (&'a [R], [&'a mut [R]; 3]) {
        (
            self.part(self.hidden_gradient, self.hidden_size, step, block),
            self.flowing
                .map(|buffer| self.part(buffer, self.hidden_size, 0, block)),
        )
    }

    #[expect(unsafe_code, reason = "blocks of rows write to their own rows")]
    fn part(
        &self,
        buffer: Shared<'a, R>,
        width: usize,
        step: usize,
        block: &Range<usize>,
    ) -> &'a mut [R] {
        let start = (step * self.rows + block.start) * width;
        // SAFETY: blocks do not overlap; a block asks for each part once a step, and holds no step's parts
        // beyond it.
        unsafe { buffer.part(start, block.len() * width) }
    }
}
