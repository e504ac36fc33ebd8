//! Where each tensor of a network lies in its one buffer.

use std::ops::Range;

use crate::Real;
use crate::pages::zeros;
use crate::parallel::over;
use crate::random::{Purpose, Stream};

/// What a tensor holds before any training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// Zeros everywhere.
    Zeros,
    /// Ones everywhere.
    Ones,
    /// Numbers of the normal distribution around 0.
    Normal {
        /// Its standard deviation.
        deviation: f64,
    },
    /// The same, but for one row of zeros: that of the padding token.
    NormalWithZeroRow {
        /// Its standard deviation.
        deviation: f64,
        /// The row.
        row: usize,
    },
    /// Numbers between `-bound` and `bound`.
    Uniform {
        /// The largest absolute value.
        bound: f64,
    },
}

impl Initial {
    /// As PyTorch begins linear and convolutional layers whose outputs are made of `inputs` numbers each.
    pub fn of_inputs(inputs: usize) -> Self {
        Self::Uniform {
            bound: 1.0 / libm::sqrt(inputs as f64),
        }
    }
}

/// A named tensor in the buffer, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name, as PyTorch or Hugging Face names it.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where it begins, counted in numbers.
    pub offset: usize,
    /// Whether the network computes a gradient for it: optimizers leave the others alone altogether.
    pub trained: bool,
    /// What it holds before any training.
    pub initial: Initial,
    /// Whether a batch reads only the rows that its tokens name, and gives only them a gradient
    /// ([`crate::Batch::named`]).
    pub gathered: bool,
}

impl Tensor {
    /// How many numbers it has.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no number.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it lies.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }

    /// Fills `values` with what the tensor holds before any training. Each number is addressed by the
    /// seed, the tensor's name and its place: other tensors have no say in it.
    pub fn initialize<R: Real>(&self, seed: u64, values: &mut [R]) {
        let stream = Stream::new(seed, Purpose::Initialization).named(&self.name);
        let normal = |index, deviation| R::from_f64(stream.normal(index) * deviation);
        let columns = self.shape.last().copied().unwrap_or(1) as u64;
        over(values, |start, values| {
            for (index, value) in (start as u64..).zip(values) {
                *value = match self.initial {
                    Initial::Zeros => R::ZERO,
                    Initial::Ones => R::ONE,
                    Initial::Normal { deviation } => normal(index, deviation),
                    Initial::NormalWithZeroRow { row, .. } if index / columns == row as u64 => {
                        R::ZERO
                    }
                    Initial::NormalWithZeroRow { deviation, .. } => normal(index, deviation),
                    Initial::Uniform { bound } => {
                        R::from_f64((2.0 * stream.uniform_f64(index) - 1.0) * bound)
                    }
                };
            }
        });
    }
}

/// The tensors of a network, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    tensors: Vec<Tensor>,
    len: usize,
}

impl Parameters {
    /// Every tensor begins at a multiple of this many numbers (a cache line of `f32`).
    pub const ALIGNMENT: usize = 16;

    /// Adds a tensor behind the others; answers its place.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        initial: Initial,
    ) -> Range<usize> {
        let tensor = Tensor {
            name: name.into(),
            shape: shape.to_vec(),
            offset: self.len,
            trained: true,
            initial,
            gathered: false,
        };
        let range = tensor.range();
        self.len = range.end.next_multiple_of(Self::ALIGNMENT);
        self.tensors.push(tensor);
        range
    }

    /// [`Parameters::add`] for word embeddings: see [`Tensor::gathered`].
    pub fn add_gathered(
        &mut self,
        name: impl Into<String>,
        shape: [usize; 2],
        initial: Initial,
    ) -> Range<usize> {
        let range = self.add(name, &shape, initial);
        if let Some(tensor) = self.tensors.last_mut() {
            tensor.gathered = true;
        }
        range
    }

    /// The tensors in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The same, to change what is trained.
    pub fn tensors_mut(&mut self) -> &mut [Tensor] {
        &mut self.tensors
    }

    /// The tensor `name`, where there is one.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// All weights before any training.
    pub fn initialize<R: Real>(&self, seed: u64) -> Vec<R> {
        let mut weights = zeros(self.len);
        for tensor in &self.tensors {
            tensor.initialize(seed, &mut weights[tensor.range()]);
        }
        weights
    }

    /// Where the last gathered tensor ends.
    pub(crate) fn gathered_end(&self) -> usize {
        let gathered = self.tensors.iter().filter(|tensor| tensor.gathered);
        gathered.map(|tensor| tensor.range().end).max().unwrap_or(0)
    }

    /// The length of the buffer, gaps for alignment included.
    pub fn buffer_len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_aligned_and_begin_as_they_should() {
        let mut parameters = Parameters::default();
        let first = parameters.add("first", &[3, 5], Initial::Ones);
        let second = parameters.add("second", &[4, 8], Initial::of_inputs(16));
        let third = parameters.add(
            "third",
            &[50, 40],
            Initial::NormalWithZeroRow {
                deviation: 0.02,
                row: 1,
            },
        );
        assert_eq!((first.start, second.start, third.start), (0, 16, 48));
        let weights: Vec<f32> = parameters.initialize(7);
        assert_eq!(weights.len(), parameters.buffer_len());
        assert!(weights[first].iter().all(|&weight| weight == 1.0));
        let uniform = &weights[second];
        assert!(uniform.iter().all(|weight| weight.abs() <= 0.25));
        assert!(uniform.iter().any(|&weight| weight > 0.1) && uniform.iter().any(|&w| w < -0.1));
        let normal = &weights[third];
        assert!(normal[40..80].iter().all(|&weight| weight == 0.0));
        let squares: f32 = normal.iter().map(|weight| weight * weight).sum();
        assert!(((squares / 1960.0).sqrt() - 0.02).abs() < 0.002);
    }

    #[test]
    fn a_tensor_begins_the_same_whatever_stands_before_it() {
        let normal = Initial::Normal { deviation: 1.0 };
        let mut alone = Parameters::default();
        let place = alone.add("head", &[7], normal);
        let mut behind = Parameters::default();
        behind.add("body", &[100], normal);
        let other = behind.add("head", &[7], normal);
        assert_eq!(
            alone.initialize::<f64>(3)[place],
            behind.initialize::<f64>(3)[other]
        );
    }
}
