//! Accuracy: the share of rows whose class was found.

use super::confusion::{ConfusionMatrix, ratio};

/// The share of rows whose class was found; 0 of no rows.
pub fn accuracy(matrix: &ConfusionMatrix) -> f64 {
    ratio(matrix.correct(), matrix.total())
}
