//! Recall: of the rows of a class, the share that was found.

use super::average::{Average, recall as of_class};
use super::confusion::ConfusionMatrix;

/// Averaged over the classes; 0 where a class has nothing to divide by.
pub fn recall(matrix: &ConfusionMatrix, average: Average) -> f64 {
    average.of(matrix, of_class)
}
