//! What a model said of rows whose classes are known: all that metrics are computed from.

use super::average::Average;
use super::confusion::ConfusionMatrix;
use super::metric::Metric;
use super::value::{ConfusionTable, MetricValue, MetricValues};
use super::{
    accuracy, auroc, average_precision, balanced_accuracy, f1, mcc, precision, recall, report,
};

/// What a model said of rows whose classes are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The names of the classes.
    pub classes: Vec<String>,
    /// The true class of each row.
    pub labels: Vec<u32>,
    /// The class that each row was taken for.
    pub predictions: Vec<u32>,
    /// The probability of each class, `[rows, classes]`.
    pub probabilities: Vec<f64>,
    /// The loss of each row.
    pub losses: Vec<f64>,
}

impl Outcome {
    /// The confusion matrix.
    pub fn matrix(&self) -> ConfusionMatrix {
        ConfusionMatrix::new(&self.labels, &self.predictions, self.classes.len())
    }

    /// Computes metrics; of sets, their members.
    pub fn metrics(&self, metrics: &[Metric]) -> MetricValues {
        let matrix = self.matrix();
        metrics
            .iter()
            .flat_map(|metric| metric.members())
            .map(|(name, metric)| (name.to_owned(), self.compute(metric, &matrix)))
            .collect()
    }

    fn compute(&self, metric: Metric, matrix: &ConfusionMatrix) -> MetricValue {
        let average = |average: Option<Average>| {
            average.unwrap_or_else(|| Average::default_for(self.classes.len()))
        };
        MetricValue::Number(match metric {
            Metric::Accuracy => accuracy::accuracy(matrix),
            Metric::Auroc => auroc::of_outcome(self),
            Metric::AveragePrecision => average_precision::of_outcome(self),
            Metric::BalancedAccuracy => balanced_accuracy::balanced_accuracy(matrix),
            Metric::F1(chosen) => f1::f1(matrix, average(chosen)),
            Metric::Loss => self.losses.iter().sum::<f64>() / self.losses.len() as f64,
            Metric::Mcc => mcc::mcc(matrix),
            Metric::Precision(chosen) => precision::precision(matrix, average(chosen)),
            Metric::Recall(chosen) => recall::recall(matrix, average(chosen)),
            Metric::ConfusionMatrix => {
                return MetricValue::Confusion(ConfusionTable {
                    labels: self.classes.clone(),
                    counts: matrix.counts().to_vec(),
                });
            }
            Metric::Report => return MetricValue::Report(report::report(matrix, &self.classes)),
            Metric::Glue(_) => f64::NAN,
        })
    }

    /// The figure of class 1 where there are two classes; else the mean of the figures of each class
    /// against the rest. `figure` takes the scores of all rows and whether each is of the class.
    pub fn one_against_rest(&self, figure: impl Fn(&[f64], &[bool]) -> f64) -> f64 {
        let classes = self.classes.len();
        let of_class = |class: usize| {
            let scores: Vec<f64> = self
                .probabilities
                .chunks_exact(classes)
                .map(|row| row[class])
                .collect();
            let positive: Vec<bool> = self
                .labels
                .iter()
                .map(|label| *label as usize == class)
                .collect();
            figure(&scores, &positive)
        };
        match classes {
            0 | 1 => f64::NAN,
            2 => of_class(1),
            _ => (0..classes).map(of_class).sum::<f64>() / classes as f64,
        }
    }
}

/// Rows by falling score.
#[derive(Clone, Debug)]
pub(crate) struct Ranked {
    rows: Vec<(f64, bool)>,
    /// Rows of the class.
    pub hits: u64,
    /// The other rows.
    pub others: u64,
}

/// Rows at or above a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Those of the class.
    pub hits_above: u64,
    /// The others.
    pub others_above: u64,
}

impl Ranked {
    pub fn new(scores: &[f64], positive: &[bool]) -> Self {
        let mut rows: Vec<(f64, bool)> = scores
            .iter()
            .copied()
            .zip(positive.iter().copied())
            .collect();
        rows.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let hits = positive.iter().filter(|positive| **positive).count() as u64;
        Self {
            others: rows.len() as u64 - hits,
            rows,
            hits,
        }
    }

    /// One step for each distinct score, falling.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
        let mut step = Step {
            hits_above: 0,
            others_above: 0,
        };
        self.rows
            .chunk_by(|(a, _), (b, _)| a == b)
            .map(move |ties| {
                let hits = ties.iter().filter(|(_, positive)| *positive).count() as u64;
                step.hits_above += hits;
                step.others_above += ties.len() as u64 - hits;
                step
            })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::golden;
    use taper_nn::loss::Loss;

    fn close(got: f64, expected: &Value, what: &str) {
        let expected = expected
            .as_f64()
            .unwrap_or_else(|| panic!("{what}: no number in the golden"));
        assert!(
            (got - expected).abs() <= 1e-12,
            "{what}: {got} is not {expected}"
        );
    }

    fn integers(value: &Value) -> Vec<u32> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_u64().unwrap() as u32)
            .collect()
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap())
            .collect()
    }

    #[test]
    fn agrees_with_scikit_learn_on_every_case() {
        let golden = golden::json("metrics.json");
        let cases = golden["classification"].as_array().unwrap();
        assert!(cases.len() > 5);
        for case in cases {
            let name = case["name"].as_str().unwrap();
            let classes = case["num_classes"].as_u64().unwrap() as usize;
            let outcome = Outcome {
                classes: (0..classes).map(|class| class.to_string()).collect(),
                labels: integers(&case["references"]),
                predictions: integers(&case["predictions"]),
                ..Outcome::default()
            };
            let matrix = outcome.matrix();
            assert_eq!(
                serde_json::to_value(matrix.counts()).unwrap(),
                case["confusion_matrix"],
                "{name}"
            );
            let names = ["accuracy", "balanced_accuracy", "matthews_correlation"];
            let averaged = ["f1", "precision", "recall"]
                .iter()
                .flat_map(|m| ["binary", "macro", "micro", "weighted"].map(|a| format!("{m}_{a}")));
            for metric in names.map(str::to_owned).into_iter().chain(averaged) {
                let Some(expected) = case.get(&metric) else {
                    continue;
                };
                let parsed: Metric = metric.parse().unwrap();
                let got = outcome.metrics(&[parsed])[parsed.name()].number().unwrap();
                close(got, expected, &format!("{name} {metric}"));
            }
            let report = report::report(&matrix, &outcome.classes);
            for (class, figures) in report.values().enumerate() {
                let per_class = &case["per_class"];
                close(figures.precision, &per_class["precision"][class], name);
                close(figures.recall, &per_class["recall"][class], name);
                close(figures.f1, &per_class["f1"][class], name);
                close(figures.support as f64, &per_class["support"][class], name);
            }
        }
    }

    #[test]
    fn agrees_with_scikit_learn_and_torch_on_scores() {
        let golden = golden::json("metrics.json");
        let scores = &golden["scores"];
        let labels = integers(&scores["labels"]);
        let positive: Vec<bool> = labels.iter().map(|label| *label == 1).collect();
        let p1 = numbers(&scores["softmax_p1"]);
        close(auroc::auroc(&p1, &positive), &scores["roc_auc"], "auroc");
        let precision = average_precision::average_precision(&p1, &positive);
        close(precision, &scores["average_precision"], "average precision");
        // The losses are the networks' own, in float64.
        let logits: Vec<f64> = scores["logits"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(numbers)
            .collect();
        let loss = Loss::CROSS_ENTROPY.value(&logits, &labels).mean();
        close(loss, &scores["cross_entropy_mean"], "cross entropy");
        close(loss, &scores["log_loss"], "log loss");
        for (row, p1) in Loss::CROSS_ENTROPY
            .probabilities(&logits, 2)
            .chunks(2)
            .zip(&p1)
        {
            assert!((row[1] - p1).abs() < 1e-12);
        }
        let bce = Loss::BceWithLogits
            .value(&numbers(&scores["bce_logits"]), &labels)
            .mean();
        close(bce, &scores["bce_mean"], "bce");
    }

    #[test]
    fn metrics_json_is_stable_and_reads_back() {
        let outcome = Outcome {
            classes: vec!["neg".to_owned(), "pos".to_owned()],
            labels: vec![1, 1, 1],
            predictions: vec![1, 0, 1],
            probabilities: vec![0.25, 0.75, 0.5, 0.5, 0.1, 0.9],
            losses: vec![0.1, 0.7, 0.3],
        };
        let metrics = ["report", "glue/mrpc", "auroc", "confusion_matrix", "loss"];
        let metrics: Vec<Metric> = metrics.iter().map(|name| name.parse().unwrap()).collect();
        let values = outcome.metrics(&metrics);
        let text = serde_json::to_string(&values).unwrap();
        insta::assert_snapshot!(text, @r#"{"accuracy":0.6666666666666666,"auroc":null,"confusion_matrix":{"labels":["neg","pos"],"counts":[[0,0],[1,2]]},"f1":0.8,"loss":0.36666666666666664,"report":{"neg":{"precision":0.0,"recall":0.0,"f1":0.0,"support":0},"pos":{"precision":1.0,"recall":0.6666666666666666,"f1":0.8,"support":3}}}"#);
        let back: MetricValues = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }

    #[test]
    fn three_classes_are_each_held_against_the_rest() {
        let outcome = Outcome {
            classes: ["a", "b", "c"].map(str::to_owned).to_vec(),
            labels: vec![0, 1, 2, 2],
            predictions: vec![0, 1, 2, 1],
            probabilities: vec![0.8, 0.1, 0.1, 0.2, 0.6, 0.2, 0.1, 0.2, 0.7, 0.2, 0.7, 0.1],
            losses: vec![0.0; 4],
        };
        let values = outcome.metrics(&[Metric::Auroc, Metric::F1(None)]);
        // a: 1; b: above 2 of 3 others; c: of 4 pairs 2 and two halves (ties), so 3/4... as written out.
        let by_hand = (1.0 + 2.0 / 3.0 + 2.5 / 4.0) / 3.0;
        assert!((values["auroc"].number().unwrap() - by_hand).abs() < 1e-12);
        let f1 = (1.0 + 2.0 / 3.0 + 2.0 / 3.0) / 3.0;
        assert!((values["f1"].number().unwrap() - f1).abs() < 1e-12);
    }
}
