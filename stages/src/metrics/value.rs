//! What a metric comes to, and how `metrics.json` writes it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::report::{ClassReport, Report};

/// The metrics by name, as `metrics.json` has them: names ascending, so that the same values are the same
/// bytes; numbers in the shortest form that reads back as the same bits, undefined ones as `null`.
pub type MetricValues = BTreeMap<String, MetricValue>;

/// What a metric comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// A number; not a number where the metric is undefined on the rows.
    Number(f64),
    /// How often each class was taken for each.
    Confusion(ConfusionTable),
    /// The figures of each class.
    Report(Report),
}

/// A confusion matrix with the names of its classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfusionTable {
    /// The names of the classes.
    pub labels: Vec<String>,
    /// `counts[true][predicted]`.
    pub counts: Vec<Vec<u64>>,
}

impl MetricValue {
    /// The number, where it is one and is defined.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) if number.is_finite() => Some(*number),
            _ => None,
        }
    }
}

impl Serialize for MetricValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) if number.is_finite() => serializer.serialize_f64(*number),
            Self::Number(_) => serializer.serialize_unit(),
            Self::Confusion(table) => table.serialize(serializer),
            Self::Report(report) => report.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for MetricValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> de::Visitor<'de> for ValueVisitor {
    type Value = MetricValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a confusion matrix or a report")
    }

    fn visit_unit<E>(self) -> Result<MetricValue, E> {
        Ok(MetricValue::Number(f64::NAN))
    }

    fn visit_f64<E>(self, number: f64) -> Result<MetricValue, E> {
        Ok(MetricValue::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<MetricValue, E> {
        Ok(MetricValue::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<MetricValue, E> {
        Ok(MetricValue::Number(number as f64))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<MetricValue, A::Error> {
        let mut fields: BTreeMap<String, serde_json::Value> = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            fields.insert(name, value);
        }
        // A class may be called `counts`, but its report is no list.
        let table = fields
            .get("counts")
            .is_some_and(serde_json::Value::is_array);
        if table {
            let table = serde_json::Value::from_iter(fields);
            return serde_json::from_value(table)
                .map(MetricValue::Confusion)
                .map_err(A::Error::custom);
        }
        let class = |(name, value)| {
            let figures: ClassReport = serde_json::from_value(value).map_err(A::Error::custom)?;
            Ok((name, figures))
        };
        let report: Result<Report, A::Error> = fields.into_iter().map(class).collect();
        report.map(MetricValue::Report)
    }
}
