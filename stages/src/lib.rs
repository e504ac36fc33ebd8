//! The stages: one file a kind, and what they share.

pub mod artifact;
pub mod data;
pub mod figure;
pub mod metrics;
pub mod text;
pub mod training;
