//! The report: precision, recall, F1 and the number of rows of each class.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::average::{Counts, f1, precision, recall};
use super::confusion::ConfusionMatrix;

/// The figures of each class, by its name.
pub type Report = BTreeMap<String, ClassReport>;

/// The figures of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassReport {
    /// Of the rows taken for it, the share that is of it.
    pub precision: f64,
    /// Of its rows, the share that was found.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// Its rows.
    pub support: u64,
}

/// The figures of each class of `matrix`; `names` has as many names as there are classes.
pub fn report(matrix: &ConfusionMatrix, names: &[String]) -> Report {
    names
        .iter()
        .enumerate()
        .map(|(class, name)| {
            let counts = Counts::of(matrix, class);
            let figures = ClassReport {
                precision: precision(counts),
                recall: recall(counts),
                f1: f1(counts),
                support: counts.support,
            };
            (name.clone(), figures)
        })
        .collect()
}
