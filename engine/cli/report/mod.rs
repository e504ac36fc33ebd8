//! What is shown while stages run: bars on a terminal, plain lines elsewhere, JSON for programs.

mod bars;
mod lines;
mod reporter;
mod words;

pub use reporter::{Mode, Reporter};
