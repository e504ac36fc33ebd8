//! What recurrent networks do at one position: forward and backward, for a block of rows at once.
//!
//! The equations and the order of the gates are those of `torch.nn.{RNN,LSTM,GRU}`. A cell is given both
//! linear parts of its gates, `[rows, gates * hidden]`: that of the input, and that of the hidden state
//! before.

use crate::Real;

/// Which equations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecurrentKind {
    /// `h' = tanh(a)` (Elman 1990).
    RnnTanh,
    /// `h' = max(a, 0)`.
    RnnRelu,
    /// Gates i, f, g, o: `c' = f c + i g`, `h' = o tanh(c')`.
    Lstm,
    /// Gates r, z, n, where r stands before the hidden state's part of n: `h' = (1 - z) n + z h`.
    Gru,
}

impl RecurrentKind {
    /// The blocks of `hidden` rows in its weights.
    pub fn gates(self) -> usize {
        match self {
            Self::RnnTanh | Self::RnnRelu => 1,
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }

    /// Whether there is a cell state beside the hidden one.
    pub fn has_cell(self) -> bool {
        self == Self::Lstm
    }
}

/// One position of a block of rows, before or after [`forward`].
#[derive(Debug)]
pub(crate) struct Step<'a, R> {
    /// The numbers of a hidden state.
    pub hidden_size: usize,
    /// Before: the input's part of the gates. After: the gates.
    pub gates: &'a mut [R],
    /// The hidden state's part of the gates. After, a GRU reads that of n in [`backward`].
    pub recurrent: &'a mut [R],
    /// The hidden state before.
    pub hidden_before: &'a [R],
    /// The cell state before; empty where there is none.
    pub cell_before: &'a [R],
    /// After: the cell state.
    pub cell: &'a mut [R],
    /// After: tanh of the cell state.
    pub cell_tanh: &'a mut [R],
}

/// Computes gates and states; writes the hidden state to `hidden` `[rows, hidden_size]`.
pub(crate) fn forward<R: Real>(kind: RecurrentKind, step: Step<'_, R>, hidden: &mut [R]) {
    let size = step.hidden_size;
    match kind {
        RecurrentKind::RnnTanh => {
            R::add_tile(step.gates, step.recurrent);
            R::tanh_tile(step.gates);
            hidden.copy_from_slice(step.gates);
        }
        RecurrentKind::RnnRelu => {
            R::add_tile(step.gates, step.recurrent);
            R::relu_tile(step.gates);
            hidden.copy_from_slice(step.gates);
        }
        RecurrentKind::Lstm => {
            R::add_tile(step.gates, step.recurrent);
            for (row, gates) in step.gates.chunks_exact_mut(4 * size).enumerate() {
                R::sigmoid_tile(&mut gates[..2 * size]);
                R::tanh_tile(&mut gates[2 * size..3 * size]);
                R::sigmoid_tile(&mut gates[3 * size..]);
                let place = row * size..(row + 1) * size;
                let (cell, before) = (&mut step.cell[place.clone()], &step.cell_before[place]);
                for i in 0..size {
                    cell[i] = gates[size + i] * before[i] + gates[i] * gates[2 * size + i];
                }
            }
            step.cell_tanh.copy_from_slice(step.cell);
            R::tanh_tile(step.cell_tanh);
            for (row, gates) in step.gates.chunks_exact(4 * size).enumerate() {
                let place = row * size..(row + 1) * size;
                let (hidden, tanh) = (&mut hidden[place.clone()], &step.cell_tanh[place]);
                for i in 0..size {
                    hidden[i] = gates[3 * size + i] * tanh[i];
                }
            }
        }
        RecurrentKind::Gru => {
            let rows = step.gates.chunks_exact_mut(3 * size);
            for (row, (gates, recurrent)) in
                rows.zip(step.recurrent.chunks_exact(3 * size)).enumerate()
            {
                let (doors, candidate) = gates.split_at_mut(2 * size);
                R::add_tile(doors, &recurrent[..2 * size]);
                R::sigmoid_tile(doors);
                for i in 0..size {
                    candidate[i] += doors[i] * recurrent[2 * size + i];
                }
                R::tanh_tile(candidate);
                let place = row * size..(row + 1) * size;
                let before = &step.hidden_before[place.clone()];
                let hidden = &mut hidden[place];
                for i in 0..size {
                    let z = doors[size + i];
                    hidden[i] = (R::ONE - z) * candidate[i] + z * before[i];
                }
            }
        }
    }
}

/// Turns the gates into the gradients of the input's part of them, and `step.recurrent` into those of the
/// hidden state's part. `hidden_gradient` and `cell_gradient` are those of the states after the step;
/// afterwards they are those of the states before it, the part that does not go through the gates
/// (0 for the hidden state but in a GRU). Answers `step.recurrent`.
pub(crate) fn backward<'a, R: Real>(
    kind: RecurrentKind,
    step: Step<'a, R>,
    hidden_gradient: &mut [R],
    cell_gradient: &mut [R],
) -> &'a [R] {
    let size = step.hidden_size;
    let door = |y: R| y * (R::ONE - y);
    let bend = |y: R| R::ONE - y * y;
    match kind {
        RecurrentKind::RnnTanh | RecurrentKind::RnnRelu => {
            for (gate, gradient) in step.gates.iter_mut().zip(hidden_gradient.iter_mut()) {
                let slope = match kind {
                    RecurrentKind::RnnTanh => bend(*gate),
                    _ if *gate > R::ZERO => R::ONE,
                    _ => R::ZERO,
                };
                *gate = slope * *gradient;
                *gradient = R::ZERO;
            }
            step.recurrent.copy_from_slice(step.gates);
        }
        RecurrentKind::Lstm => {
            for (row, gates) in step.gates.chunks_exact_mut(4 * size).enumerate() {
                let place = row * size..(row + 1) * size;
                let tanh = &step.cell_tanh[place.clone()];
                let before = &step.cell_before[place.clone()];
                let hidden_gradient = &mut hidden_gradient[place.clone()];
                let cell_gradient = &mut cell_gradient[place];
                for at in 0..size {
                    let [i, f, g, o] = [0, 1, 2, 3].map(|gate| gates[gate * size + at]);
                    let cell = cell_gradient[at] + hidden_gradient[at] * o * bend(tanh[at]);
                    gates[at] = cell * g * door(i);
                    gates[size + at] = cell * before[at] * door(f);
                    gates[2 * size + at] = cell * i * bend(g);
                    gates[3 * size + at] = hidden_gradient[at] * tanh[at] * door(o);
                    cell_gradient[at] = cell * f;
                    hidden_gradient[at] = R::ZERO;
                }
            }
            step.recurrent.copy_from_slice(step.gates);
        }
        RecurrentKind::Gru => {
            let rows = step.gates.chunks_exact_mut(3 * size);
            for (row, (gates, recurrent)) in rows
                .zip(step.recurrent.chunks_exact_mut(3 * size))
                .enumerate()
            {
                let place = row * size..(row + 1) * size;
                let before = &step.hidden_before[place.clone()];
                let hidden_gradient = &mut hidden_gradient[place];
                for at in 0..size {
                    let [r, z, n] = [0, 1, 2].map(|gate| gates[gate * size + at]);
                    let gradient = hidden_gradient[at];
                    let candidate = gradient * (R::ONE - z) * bend(n);
                    let reset = candidate * recurrent[2 * size + at] * door(r);
                    let update = gradient * (before[at] - n) * door(z);
                    gates[at] = reset;
                    gates[size + at] = update;
                    gates[2 * size + at] = candidate;
                    recurrent[at] = reset;
                    recurrent[size + at] = update;
                    recurrent[2 * size + at] = candidate * r;
                    hidden_gradient[at] = gradient * z;
                }
            }
        }
    }
    step.recurrent
}
