//! How many rows: a number of them, a fraction of what there is, for all splits or for each.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use taper_engine::StageError;

use super::strata::rows_of_fraction;

/// A whole number is a number of rows; a number with a point is a fraction (`1.0`: everything).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many rows.
    Rows(u64),
    /// This part of the rows, above 0 and at most 1.
    Fraction(f64),
}

impl Amount {
    /// The number of rows that it means of `rows`.
    ///
    /// # Errors
    /// Where it asks for more than there are.
    pub fn of(self, rows: usize, split: &str) -> Result<usize, StageError> {
        match self {
            Self::Fraction(fraction) => Ok(rows_of_fraction(rows, fraction)),
            Self::Rows(wanted) => usize::try_from(wanted)
                .ok()
                .filter(|wanted| *wanted <= rows)
                .ok_or_else(|| {
                    StageError::invalid(format!(
                        "{wanted} rows of split `{split}` are asked for, but it has only {rows}"
                    ))
                    .help(format!("ask for at most {rows}, or give a `fraction`"))
                }),
        }
    }

    /// What is wrong with it, if anything.
    pub fn fault(self) -> Option<StageError> {
        match self {
            Self::Fraction(fraction) if !(fraction > 0.0 && fraction <= 1.0) => Some(
                StageError::invalid(format!("{fraction} is no fraction"))
                    .help("a fraction is above 0 and at most 1; a number of rows is written without a point"),
            ),
            Self::Rows(0) => {
                Some(StageError::invalid("0 rows would make an empty split").help("ask for at least 1"))
            }
            _ => None,
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Rows(rows) => serializer.serialize_u64(*rows),
            Self::Fraction(fraction) => serializer.serialize_f64(*fraction),
        }
    }
}

struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of rows (1000) or a fraction (0.1)")
    }

    fn visit_u64<E: de::Error>(self, rows: u64) -> Result<Amount, E> {
        Ok(Amount::Rows(rows))
    }

    fn visit_i64<E: de::Error>(self, rows: i64) -> Result<Amount, E> {
        u64::try_from(rows)
            .map(Amount::Rows)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(rows), &self))
    }

    fn visit_f64<E: de::Error>(self, fraction: f64) -> Result<Amount, E> {
        Ok(Amount::Fraction(fraction))
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "A number of rows (1000), or with a point a fraction (0.1).",
        })
    }
}

/// One value for all splits, or one for each split that is named.
#[derive(Clone, Debug, PartialEq)]
pub enum PerSplit<T> {
    /// For every split.
    All(T),
    /// For these splits.
    Each(BTreeMap<String, T>),
}

impl<T> PerSplit<T> {
    /// The value for `split`, where there is one.
    pub fn get(&self, split: &str) -> Option<&T> {
        match self {
            Self::All(value) => Some(value),
            Self::Each(values) => values.get(split),
        }
    }

    /// The splits that are named.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let values = match self {
            Self::All(_) => None,
            Self::Each(values) => Some(values),
        };
        values
            .into_iter()
            .flat_map(|values| values.keys().map(String::as_str))
    }

    /// Every value, with the split that it is for.
    pub fn values(&self) -> impl Iterator<Item = (Option<&str>, &T)> {
        let (all, each) = match self {
            Self::All(value) => (Some(value), None),
            Self::Each(values) => (None, Some(values)),
        };
        all.into_iter()
            .map(|value| (None, value))
            .chain(each.into_iter().flat_map(|values| {
                values
                    .iter()
                    .map(|(split, value)| (Some(split.as_str()), value))
            }))
    }
}

impl<T: Serialize> Serialize for PerSplit<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All(value) => value.serialize(serializer),
            Self::Each(values) => values.serialize(serializer),
        }
    }
}

struct PerSplitVisitor<T>(PhantomData<T>);

impl<'de, T: From<u64> + TryFromFraction + Deserialize<'de>> Visitor<'de> for PerSplitVisitor<T> {
    type Value = PerSplit<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or one for each split: `{ train: 1000, test: 500 }`")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<PerSplit<T>, E> {
        Ok(PerSplit::All(T::from(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<PerSplit<T>, E> {
        u64::try_from(value)
            .map(|value| PerSplit::All(T::from(value)))
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<PerSplit<T>, E> {
        T::try_from_fraction(value)
            .map(PerSplit::All)
            .ok_or_else(|| E::invalid_type(de::Unexpected::Float(value), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PerSplit<T>, A::Error> {
        BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(PerSplit::Each)
    }
}

/// Values that a number with a point can stand for.
pub trait TryFromFraction: Sized {
    /// The value, where there is one.
    fn try_from_fraction(value: f64) -> Option<Self>;
}

/// A number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Rows(pub u64);

impl From<u64> for Rows {
    fn from(rows: u64) -> Self {
        Self(rows)
    }
}

impl TryFromFraction for Rows {
    fn try_from_fraction(_: f64) -> Option<Self> {
        None
    }
}

/// A part of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Fraction(pub f64);

impl From<u64> for Fraction {
    fn from(value: u64) -> Self {
        Self(value as f64)
    }
}

impl TryFromFraction for Fraction {
    fn try_from_fraction(value: f64) -> Option<Self> {
        Some(Self(value))
    }
}

impl<'de, T: From<u64> + TryFromFraction + Deserialize<'de>> Deserialize<'de> for PerSplit<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PerSplitVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for PerSplit<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("PerSplit_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({
            "anyOf": [one, { "type": "object", "additionalProperties": one }],
        })
    }
}
