//! Typed views of artifacts: what a stage sees of the files of another.

pub mod config;
pub mod dataset;
pub mod features;
pub mod files;
mod mapping;
pub mod metrics;
pub mod model;
pub mod predictions;
pub mod table;
pub mod tokens;
pub mod weights;

pub use dataset::Dataset;
pub use features::Features;
pub use files::Files;
pub use metrics::Metrics;
pub use model::Model;
pub use predictions::Predictions;
pub use table::{Labels, Table, TableWriter, Text, write_table};
pub use tokens::Tokens;
