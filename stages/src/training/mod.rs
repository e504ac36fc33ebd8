//! The training loop and what it keeps.

pub mod batches;
pub mod check;
pub mod checkpoint;
pub mod evaluation;
#[cfg(test)]
pub(crate) mod fixture;
pub mod history;
pub mod network;
pub mod order;
pub mod params;
pub mod recorder;
pub mod tensorboard;
pub mod trainer;
pub mod watch;
#[cfg(test)]
mod whole;
