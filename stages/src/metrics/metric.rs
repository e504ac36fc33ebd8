//! The metrics by name: what `metrics: [accuracy, f1]` may say.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::average::Average;
use super::glue::{self, Glue};
use crate::artifact::table::nearest;

/// A metric, or an official set of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// See [`super::accuracy`].
    Accuracy,
    /// See [`super::auroc`].
    Auroc,
    /// See [`super::average_precision`].
    AveragePrecision,
    /// See [`super::balanced_accuracy`].
    BalancedAccuracy,
    /// See [`super::confusion`].
    ConfusionMatrix,
    /// See [`super::f1`]; without an average, [`Average::default_for`] the classes.
    F1(Option<Average>),
    /// The mean loss of the rows, as the model was trained: cross entropy, or binary cross entropy.
    Loss,
    /// See [`super::mcc`].
    Mcc,
    /// See [`super::precision`]; averages as for F1.
    Precision(Option<Average>),
    /// See [`super::recall`]; averages as for F1.
    Recall(Option<Average>),
    /// See [`super::report`].
    Report,
    /// See [`super::glue`].
    Glue(&'static Glue),
}

const NAMES: &[(&str, Metric)] = &[
    ("accuracy", Metric::Accuracy),
    ("auroc", Metric::Auroc),
    ("average_precision", Metric::AveragePrecision),
    ("balanced_accuracy", Metric::BalancedAccuracy),
    ("confusion_matrix", Metric::ConfusionMatrix),
    ("f1", Metric::F1(None)),
    ("f1_binary", Metric::F1(Some(Average::Binary))),
    ("f1_macro", Metric::F1(Some(Average::Macro))),
    ("f1_micro", Metric::F1(Some(Average::Micro))),
    ("f1_weighted", Metric::F1(Some(Average::Weighted))),
    ("loss", Metric::Loss),
    ("mcc", Metric::Mcc),
    ("precision", Metric::Precision(None)),
    ("precision_binary", Metric::Precision(Some(Average::Binary))),
    ("precision_macro", Metric::Precision(Some(Average::Macro))),
    ("precision_micro", Metric::Precision(Some(Average::Micro))),
    (
        "precision_weighted",
        Metric::Precision(Some(Average::Weighted)),
    ),
    ("recall", Metric::Recall(None)),
    ("recall_binary", Metric::Recall(Some(Average::Binary))),
    ("recall_macro", Metric::Recall(Some(Average::Macro))),
    ("recall_micro", Metric::Recall(Some(Average::Micro))),
    ("recall_weighted", Metric::Recall(Some(Average::Weighted))),
    ("report", Metric::Report),
];

/// What other programs call some of them.
const ALIASES: &[(&str, &str)] = &[
    ("cross_entropy", "loss"),
    ("classification_report", "report"),
    ("f1_score", "f1"),
    ("log_loss", "loss"),
    ("matthews_correlation", "mcc"),
    ("matthews_corrcoef", "mcc"),
    ("roc_auc", "auroc"),
];

fn aliases() -> impl Iterator<Item = &'static str> {
    ALIASES.iter().map(|(alias, _)| *alias)
}

impl Metric {
    /// Every name, in the order in which they are listed to people.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let names = NAMES.iter().map(|(name, _)| *name);
        names.chain(glue::TASKS.iter().map(|task| task.name))
    }

    /// Its name in pipeline files, and in `metrics.json` where it is no set.
    pub fn name(self) -> &'static str {
        match self {
            Self::Glue(task) => task.name,
            other => NAMES
                .iter()
                .find(|(_, metric)| *metric == other)
                .map_or("", |(name, _)| name),
        }
    }

    /// The metrics that it stands for: itself, or those of its set.
    pub fn members(self) -> Vec<(&'static str, Self)> {
        match self {
            Self::Glue(task) => task
                .metrics
                .iter()
                .map(|metric| match metric {
                    Self::F1(_) => ("f1", *metric),
                    other => (other.name(), *other),
                })
                .collect(),
            other => vec![(other.name(), other)],
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = ALIASES
            .iter()
            .find(|(alias, _)| *alias == text)
            .map_or(text, |(_, name)| name);
        if let Some((_, metric)) = NAMES.iter().find(|(candidate, _)| *candidate == name) {
            return Ok(*metric);
        }
        if let Some(task) = glue::TASKS.iter().find(|task| task.name == name) {
            return Ok(Self::Glue(task));
        }
        Err(match nearest(text, Self::names().chain(aliases())) {
            Some(near) => format!("unknown metric `{text}`, did you mean `{near}`?"),
            None => {
                let names: Vec<_> = Self::names().collect();
                format!("unknown metric `{text}`, there are {}", names.join(", "))
            }
        })
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl JsonSchema for Metric {
    fn schema_name() -> Cow<'static, str> {
        "Metric".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A metric, or the official set of a GLUE task.",
            "enum": Self::names().chain(aliases()).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_its_metric() {
        for name in Metric::names() {
            let metric: Metric = name.parse().unwrap();
            assert_eq!(metric.name(), name);
        }
        for (alias, name) in ALIASES {
            assert_eq!(alias.parse::<Metric>().unwrap().name(), *name);
        }
    }

    #[test]
    fn an_unknown_name_has_a_nearest_one() {
        insta::assert_snapshot!("acuracy".parse::<Metric>().unwrap_err(), @"unknown metric `acuracy`, did you mean `accuracy`?");
        insta::assert_snapshot!("glue/cloa".parse::<Metric>().unwrap_err(), @"unknown metric `glue/cloa`, did you mean `glue/cola`?");
        assert!(
            "perplexity"
                .parse::<Metric>()
                .unwrap_err()
                .contains("there are accuracy, auroc")
        );
    }
}
