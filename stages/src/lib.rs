//! The stages: one file a kind, and what they share.

pub mod artifact;
pub mod classifier;
pub mod command;
pub mod copying;
pub mod data;
pub mod device;
pub mod download;
pub mod evaluate;
pub mod figure;
pub mod foreign;
#[cfg(test)]
mod golden;
pub mod inference;
pub mod metrics;
pub mod plot;
pub mod predict;
pub mod shuffle;
pub mod split;
pub mod subsample;
#[cfg(test)]
mod testing;
pub mod text;
pub mod tokenize;
pub mod train;
pub mod training;

/// Every kind, one line each, in the order in which people are shown them.
pub static KINDS: &[&dyn taper_engine::AnyKind] = &[
    &download::Download,
    &shuffle::Shuffle,
    &subsample::Subsample,
    &split::Split,
    &tokenize::Tokenize,
    &train::Train,
    &evaluate::Evaluate,
    &predict::Predict,
    &plot::Plot,
    &command::Command,
];
