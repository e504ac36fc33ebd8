//! Agreement: with PyTorch's results in `shared/goldens`, with finite differences, with the committed
//! digests of small trainings.
#![expect(
    clippy::unwrap_used,
    reason = "references of another shape fail the test"
)]

mod common;
mod goldens;
mod gradients;
mod minilm;
mod recurrent;
mod references;
mod schedules;
mod slopes;
mod trainings;
