//! What networks share on a device: what a pass is given, and the head.

use super::arena::Arena;
use super::batch::{Layout, Rows};
use super::kernels::Mask;
use super::sums::Sums;
use super::{Address, Card, Element, Fault};
use crate::model::head::HEAD_DROPOUT;
use crate::{Batch, Dropout, Parameters, kernels};

/// A network on a device.
pub(super) trait Net: std::fmt::Debug + Send {
    /// A batch as it reads it.
    fn layout(&self, batch: &Batch) -> Layout;

    /// Computes the logits `[rows, outputs]`, as `f32`; in training it keeps what [`Net::backward`] needs.
    fn forward(&mut self, pass: &mut Pass<'_>) -> Result<Address, Fault>;

    /// Writes the gradients of the pass last seen by [`Net::forward`], or adds them, as [`Sums::adds`] says.
    fn backward(
        &mut self,
        pass: &mut Pass<'_>,
        logits_gradient: Address,
        gradients: Address,
    ) -> Result<(), Fault>;
}

/// What a network is given.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pub card: &'a Card,
    pub arena: &'a mut Arena,
    pub sums: &'a mut Sums,
    pub weights: Weights,
    pub rows: Rows,
    /// The width to which rows are padded, by those that read padding.
    pub width: usize,
    /// In training.
    pub dropout: Option<Dropout>,
}

impl Pass<'_> {
    /// The mask of dropout layer `layer`; of none in evaluation.
    pub fn mask(&self, layer: u64, probability: f64) -> Mask {
        let mask = self.dropout.as_ref();
        let mask = mask.map(|dropout| kernels::Mask::new(dropout, layer, probability));
        Mask::of(mask.as_ref())
    }

    /// Floats as products read them: where the precision asks for it, rounded, in a place of their own.
    pub fn rounded(&mut self, x: Address, count: usize) -> Result<Address, Fault> {
        match self.card.element() {
            Element::F32 => Ok(x),
            narrow => {
                let to = self.arena.take(count, narrow)?;
                self.card.narrow_all(x, to, count)?;
                Ok(to)
            }
        }
    }

    /// Leaves the gradient of a bias, the sums of the columns `[rows, columns]` of `gradient`, to be finished.
    pub fn bias_gradient(
        &mut self,
        gradient: Address,
        element: Element,
        (rows, columns): (usize, usize),
        targets: &[(usize, usize, Address)],
    ) -> Result<(), Fault> {
        let sums = self.sums.place(rows, columns)?;
        self.card
            .column_sums(gradient, element, (rows, columns), sums)?;
        for &(first, count, target) in targets {
            self.sums.add(sums, rows, columns, (first, count), target);
        }
        Ok(())
    }
}

/// The weights, and, where products read others, the same rounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    pub wide: Address,
    pub narrow: Option<Address>,
}

impl Weights {
    /// For all but products.
    pub fn at(&self, offset: usize) -> Address {
        self.wide.floats(offset)
    }

    /// For products.
    pub fn product(&self, offset: usize) -> Address {
        match self.narrow {
            None => self.at(offset),
            Some(narrow) => narrow.plus(offset, Element::Bf16),
        }
    }
}

/// Where a tensor of a network lies.
///
/// # Panics
/// Where there is none: the names are the network's own.
pub(super) fn place(parameters: &Parameters, name: &str) -> usize {
    let tensor = parameters.get(name);
    tensor.expect("a network has its own tensors").offset
}

/// A linear layer with a bias: where its tensors lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linear {
    pub weight: usize,
    pub bias: usize,
    pub inputs: usize,
    pub outputs: usize,
}

impl Linear {
    pub fn new(
        parameters: &Parameters,
        [weight, bias]: [&str; 2],
        [inputs, outputs]: [usize; 2],
    ) -> Self {
        Self {
            weight: place(parameters, weight),
            bias: place(parameters, bias),
            inputs,
            outputs,
        }
    }

    /// Of `NAME.weight` and `NAME.bias`.
    pub fn named(parameters: &Parameters, name: &str, sizes: [usize; 2]) -> Self {
        let names = [format!("{name}.weight"), format!("{name}.bias")];
        Self::new(parameters, [&names[0], &names[1]], sizes)
    }

    pub fn sizes(&self, rows: usize) -> [usize; 3] {
        [rows, self.inputs, self.outputs]
    }

    /// y with its bias, all in `f32`.
    pub fn forward_wide(
        &self,
        pass: &mut Pass<'_>,
        x: Address,
        rows: usize,
        tanh: bool,
    ) -> Result<Address, Fault> {
        let y = pass.arena.floats(rows * self.outputs)?;
        let (card, w) = (pass.card, pass.weights.at(self.weight));
        let to = (y, self.outputs, Element::F32);
        card.multiply(Element::F32, (x, w), self.sizes(rows), to)?;
        let bias = pass.weights.at(self.bias);
        card.add_bias(y, bias, (rows, self.outputs), tanh)?;
        Ok(y)
    }

    /// The gradients of the tensors and, answered, that of x, all in `f32`.
    pub fn backward_wide(
        &self,
        pass: &mut Pass<'_>,
        (x, gradient): (Address, Address),
        rows: usize,
        gradients: Address,
    ) -> Result<Address, Fault> {
        let x_gradient = pass.arena.floats(rows * self.inputs)?;
        let (card, sizes) = (pass.card, self.sizes(rows));
        let of_y = (gradient, self.outputs);
        let target = gradients.floats(self.weight);
        card.multiply_weights(Element::F32, (of_y, x), sizes, target, pass.sums.adds)?;
        let w = pass.weights.at(self.weight);
        let to = (x_gradient, Element::F32);
        card.multiply_back(Element::F32, (of_y, w), sizes, to, false)?;
        let targets = [(0, self.outputs, gradients.floats(self.bias))];
        pass.bias_gradient(gradient, Element::F32, (rows, self.outputs), &targets)?;
        Ok(x_gradient)
    }
}

/// The head of a classifier: dropout, then one linear layer. In `f32`, whatever stands before it.
#[derive(Debug)]
pub(super) struct Head {
    pub linear: Linear,
    dropout: f64,
    dropped: Address,
}

impl Head {
    pub fn new(parameters: &Parameters, name: &str, sizes: [usize; 2], dropout: f64) -> Self {
        Self {
            linear: Linear::named(parameters, name, sizes),
            dropout,
            dropped: Address::NONE,
        }
    }

    /// The logits of features `[rows, inputs]`.
    pub fn forward(&mut self, pass: &mut Pass<'_>, features: Address) -> Result<Address, Fault> {
        let (rows, inputs) = (pass.rows.len, self.linear.inputs);
        let mask = pass.mask(HEAD_DROPOUT, self.dropout);
        self.dropped = features;
        if !mask.drops_nothing() {
            self.dropped = pass.arena.floats(rows * inputs)?;
            let device = &pass.card.device;
            device.copy(features, self.dropped, rows * inputs * 4)?;
            let places = pass.rows.rows_places();
            pass.card.drop(self.dropped, mask, places, (rows, inputs))?;
        }
        self.linear.forward_wide(pass, self.dropped, rows, false)
    }

    /// The gradients of its tensors and, answered, that of the features.
    pub fn backward(
        &self,
        pass: &mut Pass<'_>,
        logits_gradient: Address,
        gradients: Address,
    ) -> Result<Address, Fault> {
        let rows = pass.rows.len;
        let both = (self.dropped, logits_gradient);
        let gradient = self.linear.backward_wide(pass, both, rows, gradients)?;
        let mask = pass.mask(HEAD_DROPOUT, self.dropout);
        let places = pass.rows.rows_places();
        let sizes = (rows, self.linear.inputs);
        pass.card.drop(gradient, mask, places, sizes)?;
        Ok(gradient)
    }
}
