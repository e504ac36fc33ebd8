//! Precision: of the rows taken for a class, the share that is of it.

use super::average::{Average, precision as of_class};
use super::confusion::ConfusionMatrix;

/// Averaged over the classes; 0 where a class has nothing to divide by.
pub fn precision(matrix: &ConfusionMatrix, average: Average) -> f64 {
    average.of(matrix, of_class)
}
