//! Matthews' correlation coefficient: the correlation of labels and predictions, from -1 over 0 (chance) to 1.

use super::confusion::ConfusionMatrix;

/// Gorodkin's R_K, which for two classes is Matthews' coefficient (J. Gorodkin, "Comparing two K-category
/// assignments by a K-category correlation coefficient", 2004): the covariances are whole numbers and
/// are computed as such. 0 where all labels or all predictions are of one class.
pub fn mcc(matrix: &ConfusionMatrix) -> f64 {
    let total = i128::from(matrix.total());
    let (mut both, mut labels, mut predictions) = (0, 0, 0);
    for class in 0..matrix.classes() {
        let support = i128::from(matrix.support(class));
        let predicted = i128::from(matrix.predicted(class));
        both += support * predicted;
        labels += support * support;
        predictions += predicted * predicted;
    }
    let covariance = i128::from(matrix.correct()) * total - both;
    let of_labels = total * total - labels;
    let of_predictions = total * total - predictions;
    match of_labels == 0 || of_predictions == 0 {
        true => 0.0,
        false => covariance as f64 / ((of_labels as f64).sqrt() * (of_predictions as f64).sqrt()),
    }
}
