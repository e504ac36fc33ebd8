//! Where each tensor of a network lies in its one buffer.

use std::ops::Range;

/// A named tensor in the buffer, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, as PyTorch or Hugging Face names it.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where it begins, counted in numbers.
    pub offset: usize,
    /// Whether the network computes a gradient for it: optimizers leave the others alone altogether.
    pub trained: bool,
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
}

/// The tensors of a network, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    tensors: Vec<Tensor>,
    len: usize,
}

impl Parameters {
    /// Every tensor begins at a multiple of this many numbers (a cache line of `f32`).
    pub const ALIGNMENT: usize = 16;

    /// Adds a tensor behind the others; answers its place.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize]) -> Range<usize> {
        let tensor = Tensor {
            name: name.into(),
            shape: shape.to_vec(),
            offset: self.len,
            trained: true,
        };
        let range = tensor.range();
        self.len = range.end.next_multiple_of(Self::ALIGNMENT);
        self.tensors.push(tensor);
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

    /// The length of the buffer, gaps for alignment included.
    pub fn buffer_len(&self) -> usize {
        self.len
    }
}
