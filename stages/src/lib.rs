//! The stages: one file a kind, and what they share.

pub mod artifact;
pub mod data;
pub mod figure;
pub mod metrics;
pub mod shuffle;
pub mod split;
pub mod subsample;
#[cfg(test)]
mod testing;
pub mod text;
pub mod training;
