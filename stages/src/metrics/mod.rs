//! Metrics of classifiers, one file each. Conventions are scikit-learn's with `zero_division=0`.

pub mod accuracy;
pub mod auroc;
pub mod average;
pub mod average_precision;
pub mod balanced_accuracy;
pub mod confusion;
pub mod f1;
pub mod glue;
pub mod mcc;
pub mod metric;
pub mod outcome;
pub mod precision;
pub mod recall;
pub mod report;
pub mod value;

pub use average::Average;
pub use confusion::ConfusionMatrix;
pub use metric::Metric;
pub use outcome::Outcome;
pub use report::{ClassReport, Report};
pub use value::{ConfusionTable, MetricValue, MetricValues};
