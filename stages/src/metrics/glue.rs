//! The official metrics of the tasks of GLUE that are classifications.

use super::average::Average;
use super::metric::Metric;

/// A task of GLUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glue {
    /// Its name as a metric: `glue/cola`.
    pub name: &'static str,
    /// What is reported of it; the official figure first.
    pub metrics: &'static [Metric],
}

const ACCURACY: &[Metric] = &[Metric::Accuracy];
const ACCURACY_AND_F1: &[Metric] = &[Metric::Accuracy, Metric::F1(Some(Average::Binary))];

/// The tasks, by name. CoLA's official figure is the coefficient; accuracy is shown beside it. STS-B is a
/// regression and is not among them.
pub const TASKS: &[Glue] = &[
    task("glue/ax", ACCURACY),
    task("glue/cola", &[Metric::Mcc, Metric::Accuracy]),
    task("glue/mnli", ACCURACY),
    task("glue/mnli_matched", ACCURACY),
    task("glue/mnli_mismatched", ACCURACY),
    task("glue/mrpc", ACCURACY_AND_F1),
    task("glue/qnli", ACCURACY),
    task("glue/qqp", ACCURACY_AND_F1),
    task("glue/rte", ACCURACY),
    task("glue/sst2", ACCURACY),
    task("glue/wnli", ACCURACY),
];

const fn task(name: &'static str, metrics: &'static [Metric]) -> Glue {
    Glue { name, metrics }
}
