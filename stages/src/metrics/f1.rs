//! F1: the harmonic mean of precision and recall, `2 hits / (predicted + rows)`.

use super::average::{Average, f1 as of_class};
use super::confusion::ConfusionMatrix;

/// Averaged over the classes; 0 where a class has nothing to divide by.
pub fn f1(matrix: &ConfusionMatrix, average: Average) -> f64 {
    average.of(matrix, of_class)
}
