//! How a figure of each class becomes one: precision, recall and F1 are averaged alike.

use super::confusion::{ConfusionMatrix, ratio};

/// How the figures of the classes become one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Average {
    /// That of class 1, the positive one.
    Binary,
    /// The mean over the classes that are among the labels or the predictions.
    Macro,
    /// Of all rows together, whatever their class.
    Micro,
    /// The mean over the classes, weighted by their rows.
    Weighted,
}

/// Hits, predictions and rows of a class, or of all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Rows of the class that were found.
    pub hits: u64,
    /// Rows taken for the class.
    pub predicted: u64,
    /// Rows of the class.
    pub support: u64,
}

impl Counts {
    /// Those of one class.
    pub fn of(matrix: &ConfusionMatrix, class: usize) -> Self {
        Self {
            hits: matrix.hits(class),
            predicted: matrix.predicted(class),
            support: matrix.support(class),
        }
    }
}

impl Average {
    /// What `f1`, `precision` and `recall` mean without saying: that of class 1 where there are two
    /// classes, else the macro average.
    pub fn default_for(classes: usize) -> Self {
        match classes {
            2 => Self::Binary,
            _ => Self::Macro,
        }
    }

    /// Averages `figure` over the classes of `matrix`.
    pub fn of(self, matrix: &ConfusionMatrix, figure: impl Fn(Counts) -> f64) -> f64 {
        let class = |class| figure(Counts::of(matrix, class));
        let classes = 0..matrix.classes();
        match self {
            Self::Binary => classes.clone().nth(1).map_or(0.0, class),
            Self::Macro => {
                let present: Vec<f64> = classes
                    .filter(|class| matrix.present(*class))
                    .map(class)
                    .collect();
                match present.len() {
                    0 => 0.0,
                    count => present.iter().sum::<f64>() / count as f64,
                }
            }
            Self::Micro => figure(Counts {
                hits: matrix.correct(),
                predicted: matrix.total(),
                support: matrix.total(),
            }),
            Self::Weighted => match matrix.total() {
                0 => 0.0,
                total => {
                    let sum: f64 = classes
                        .map(|index| class(index) * matrix.support(index) as f64)
                        .sum();
                    sum / total as f64
                }
            },
        }
    }
}

/// Of the rows taken for a class, the share that is of it.
pub(crate) fn precision(counts: Counts) -> f64 {
    ratio(counts.hits, counts.predicted)
}

/// Of the rows of a class, the share that was found.
pub(crate) fn recall(counts: Counts) -> f64 {
    ratio(counts.hits, counts.support)
}

/// The harmonic mean of precision and recall.
pub(crate) fn f1(counts: Counts) -> f64 {
    ratio(2 * counts.hits, counts.predicted + counts.support)
}
