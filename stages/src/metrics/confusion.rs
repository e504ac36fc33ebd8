//! The confusion matrix: how often each class was taken for each. Most metrics are read off it.

/// How many rows of each true class got each prediction: `counts[true][predicted]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    counts: Vec<Vec<u64>>,
}

impl ConfusionMatrix {
    /// Counts rows. `labels` and `predictions` have one class a row, each below `classes`.
    ///
    /// # Panics
    /// Where a class is not below `classes`, or there is not one prediction a label.
    pub fn new(labels: &[u32], predictions: &[u32], classes: usize) -> Self {
        assert_eq!(labels.len(), predictions.len(), "one prediction a label");
        let mut counts = vec![vec![0; classes]; classes];
        for (label, prediction) in labels.iter().zip(predictions) {
            counts[*label as usize][*prediction as usize] += 1;
        }
        Self { counts }
    }

    /// The counts, true classes in rows.
    pub fn counts(&self) -> &[Vec<u64>] {
        &self.counts
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.counts.len()
    }

    /// The number of rows counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Rows whose class was found.
    pub fn correct(&self) -> u64 {
        (0..self.classes()).map(|class| self.hits(class)).sum()
    }

    /// Rows of this class that were found.
    pub fn hits(&self, class: usize) -> u64 {
        self.counts[class][class]
    }

    /// Rows of this class.
    pub fn support(&self, class: usize) -> u64 {
        self.counts[class].iter().sum()
    }

    /// Rows taken for this class.
    pub fn predicted(&self, class: usize) -> u64 {
        self.counts.iter().map(|row| row[class]).sum()
    }

    /// Whether any row is of this class or was taken for it.
    pub fn present(&self, class: usize) -> bool {
        self.support(class) + self.predicted(class) > 0
    }
}

/// `part / whole`, and 0 of nothing.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_true_classes_in_rows() {
        let matrix = ConfusionMatrix::new(&[0, 0, 1, 2, 2], &[0, 1, 1, 0, 2], 3);
        assert_eq!(matrix.counts(), [[1, 1, 0], [0, 1, 0], [1, 0, 1]]);
        assert_eq!((matrix.total(), matrix.correct()), (5, 3));
        assert_eq!((matrix.support(2), matrix.predicted(0)), (2, 2));
    }
}
