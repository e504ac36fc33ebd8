//! Balanced accuracy: the mean recall of the classes that have rows.

use super::average::{Counts, recall};
use super::confusion::ConfusionMatrix;

/// The mean recall of the classes that have rows; 0 of no rows.
pub fn balanced_accuracy(matrix: &ConfusionMatrix) -> f64 {
    let recalls: Vec<f64> = (0..matrix.classes())
        .filter(|class| matrix.support(*class) > 0)
        .map(|class| recall(Counts::of(matrix, class)))
        .collect();
    match recalls.len() {
        0 => 0.0,
        count => recalls.iter().sum::<f64>() / count as f64,
    }
}
