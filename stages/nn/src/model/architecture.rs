//! Which network, of which sizes: what a training chooses from.

use crate::model::{Bert, BertConfig, Recurrent, RecurrentConfig, TextCnn, TextCnnConfig};
use crate::{Network, Parameters, Real};

/// A family of networks with the sizes of one.
#[derive(Clone, Debug, PartialEq)]
pub enum Architecture {
    /// See [`TextCnn`].
    TextCnn(TextCnnConfig),
    /// See [`Recurrent`].
    Recurrent(RecurrentConfig),
    /// See [`Bert`].
    Bert(BertConfig),
}

impl Architecture {
    /// The network, without weights: [`crate::Parameters::initialize`] makes those that it begins with.
    pub fn build<R: Real>(&self) -> Box<dyn Network<R>> {
        match self {
            Self::TextCnn(config) => Box::new(TextCnn::new(config.clone())),
            Self::Recurrent(config) => Box::new(Recurrent::new(config.clone())),
            Self::Bert(config) => Box::new(Bert::new(config.clone())),
        }
    }

    /// Its tensors.
    pub fn parameters(&self) -> Parameters {
        self.build::<f32>().parameters().clone()
    }

    /// Whether results depend on how wide rows are padded ([`crate::Batch::width`]).
    pub fn reads_padding(&self) -> bool {
        !matches!(self, Self::Bert(_))
    }

    /// The most tokens that a row may have, where there is a limit.
    pub fn longest_row(&self) -> Option<usize> {
        match self {
            Self::Bert(config) => Some(config.max_positions),
            _ => None,
        }
    }

    /// The logits of a row.
    pub fn outputs(&self) -> usize {
        match self {
            Self::TextCnn(config) => config.outputs,
            Self::Recurrent(config) => config.outputs,
            Self::Bert(config) => config.outputs,
        }
    }

    /// How many tokens it knows.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::TextCnn(config) => config.vocab_size,
            Self::Recurrent(config) => config.vocab_size,
            Self::Bert(config) => config.vocab_size,
        }
    }
}
