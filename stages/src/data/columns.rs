//! The types of columns: declared in the pipeline, or inferred from every row of every split; and the
//! building of columns of these types.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder,
};
use arrow_schema::{DataType, Field, Schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taper_engine::StageError;

use super::rows::{Cell, Place};
use crate::artifact::Features;
use crate::artifact::table::{list, nearest};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// Text.
    String,
    /// Whole numbers of 64 bits.
    Int64,
    /// Numbers with a fraction, of 64 bits.
    Float64,
    /// True or false.
    Bool,
    /// Classes: the different values of all splits, sorted (as numbers where all are whole numbers), become
    /// the classes 0, 1, … and their names; -1 among numbers stays -1, which stands for "not known".
    Class,
}

/// The types that the pipeline declares.
pub type Declared = BTreeMap<String, ColumnType>;

/// More different values than this are no classes.
const MOST_CLASSES: usize = 10_000;

/// A column whose type is settled.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub column_type: ColumnType,
    /// Of [`ColumnType::Class`]: the value of each class, as text.
    pub classes: Vec<String>,
}

/// What the rows say about the columns.
#[derive(Debug)]
pub struct Survey<'d> {
    declared: &'d Declared,
    columns: Vec<Seen>,
}

/// What was seen of a column.
#[derive(Debug)]
struct Seen {
    name: String,
    declared: Option<ColumnType>,
    /// The place of the first value of each sort that says its type.
    first: [Option<String>; 4],
    /// Of values that do not say their type: what all of them could be.
    untyped: Untyped,
    values: BTreeSet<String>,
}

#[derive(Debug)]
struct Untyped {
    some: bool,
    whole: bool,
    fraction: bool,
    truth: bool,
}

const SORTS: [&str; 4] = [
    "text",
    "a whole number",
    "a number with a fraction",
    "true or false",
];

impl<'d> Survey<'d> {
    /// Nothing seen yet.
    pub fn new(declared: &'d Declared) -> Self {
        Self {
            declared,
            columns: Vec::new(),
        }
    }

    /// Looks at a row.
    ///
    /// # Errors
    /// Where a column that is declared to hold classes has too many of them.
    pub fn see(&mut self, place: Place<'_>, cells: &[(&str, Cell<'_>)]) -> Result<(), StageError> {
        for (position, (name, cell)) in cells.iter().enumerate() {
            let known = match self.columns.get(position) {
                Some(column) if column.name == *name => Some(position),
                _ => self.columns.iter().position(|column| column.name == *name),
            };
            let index = known.unwrap_or_else(|| {
                self.columns.push(Seen {
                    name: (*name).to_owned(),
                    declared: self.declared.get(*name).copied(),
                    first: [None, None, None, None],
                    untyped: Untyped {
                        some: false,
                        whole: true,
                        fraction: true,
                        truth: true,
                    },
                    values: BTreeSet::new(),
                });
                self.columns.len() - 1
            });
            self.columns[index].see(place, *cell)?;
        }
        Ok(())
    }

    /// The columns in the order in which they were first seen.
    ///
    /// # Errors
    /// Where a column holds values of several sorts, and where a declared column was never seen.
    pub fn settle(self) -> Result<Vec<Column>, StageError> {
        let names: Vec<&str> = self
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        for declared in self.declared.keys() {
            if !names.contains(&declared.as_str()) {
                return Err(no_such_column(declared, &names));
            }
        }
        self.columns.into_iter().map(Seen::settle).collect()
    }
}

/// A declared column that the data does not have.
pub fn no_such_column(declared: &str, names: &[&str]) -> StageError {
    let error = StageError::invalid(format!("the data has no column `{declared}`"))
        .at(format!("columns.{declared}"));
    match nearest(declared, names.iter().copied()) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help(format!("it has {}", list(names.iter().copied()))),
    }
}

impl Seen {
    fn see(&mut self, place: Place<'_>, cell: Cell<'_>) -> Result<(), StageError> {
        let sort = match cell {
            Cell::Missing => return Ok(()),
            Cell::Untyped(text) => {
                self.untyped.see(text);
                None
            }
            Cell::Text(_) => Some(0),
            Cell::Whole(_) => Some(1),
            Cell::Fraction(_) => Some(2),
            Cell::Truth(_) => Some(3),
        };
        if let Some(first) = sort.map(|sort| &mut self.first[sort]) {
            first.get_or_insert_with(|| place.to_string());
        }
        if self.declared == Some(ColumnType::Class)
            && let Some(value) = class_value(cell)
            && !self.values.contains(value.as_ref())
        {
            self.values.insert(value.into_owned());
            if self.values.len() > MOST_CLASSES {
                return Err(StageError::invalid(format!(
                    "column `{}` has more than {MOST_CLASSES} different values, the last of them in {place}",
                    self.name
                ))
                .at(format!("columns.{}", self.name))
                .help("a column of classes has a few; is it meant to be `string` or `int64`?"));
            }
        }
        Ok(())
    }

    fn settle(self) -> Result<Column, StageError> {
        let column_type = match self.declared {
            Some(declared) => declared,
            None => self.infer()?,
        };
        Ok(Column {
            classes: sorted_classes(&self.values),
            name: self.name,
            column_type,
        })
    }

    fn infer(&self) -> Result<ColumnType, StageError> {
        let sorts: Vec<usize> = (0..4).filter(|sort| self.first[*sort].is_some()).collect();
        match sorts.as_slice() {
            [] => Ok(self.untyped.infer()),
            [0] => Ok(ColumnType::String),
            [1] => Ok(ColumnType::Int64),
            [2] | [1, 2] => Ok(ColumnType::Float64),
            [3] => Ok(ColumnType::Bool),
            [first, .., last] => {
                let place = |sort: &usize| self.first[*sort].clone().unwrap_or_default();
                Err(StageError::invalid(format!(
                    "column `{}` is {} in {}, but {} in {}",
                    self.name,
                    SORTS[*first],
                    place(first),
                    SORTS[*last],
                    place(last)
                ))
                .help(format!(
                    "make its values of one sort, or say what they are to be: `columns: {{ {}: string }}`",
                    self.name
                )))
            }
            [_] => unreachable!("there are four sorts"),
        }
    }
}

impl Untyped {
    fn see(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.some = true;
        self.whole = self.whole && whole(text).is_some();
        self.fraction = self.fraction && fraction(text).is_some();
        self.truth = self.truth && truth(text).is_some();
    }

    fn infer(&self) -> ColumnType {
        match self {
            Self { some: false, .. } => ColumnType::String,
            Self { whole: true, .. } => ColumnType::Int64,
            Self { fraction: true, .. } => ColumnType::Float64,
            Self { truth: true, .. } => ColumnType::Bool,
            _ => ColumnType::String,
        }
    }
}

/// A whole number as programs write it: `007` is a text.
fn whole(text: &str) -> Option<i64> {
    let value: i64 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

/// A number in digits: no `nan`, `inf` or `007`.
fn fraction(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && !(digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit()));
    let value: f64 = text.parse().ok().filter(|_| plain)?;
    value.is_finite().then_some(value)
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn class_value(cell: Cell<'_>) -> Option<std::borrow::Cow<'_, str>> {
    match cell {
        Cell::Untyped("") | Cell::Missing => None,
        Cell::Untyped(text) | Cell::Text(text) => Some(text.into()),
        Cell::Whole(value) => Some(value.to_string().into()),
        Cell::Fraction(value) => Some(value.to_string().into()),
        Cell::Truth(value) => Some(value.to_string().into()),
    }
}

/// Ascending; as numbers where all are whole numbers, and then without -1.
fn sorted_classes(values: &BTreeSet<String>) -> Vec<String> {
    let numbers: Option<BTreeSet<i64>> = values.iter().map(|value| whole(value)).collect();
    match numbers {
        None => values.iter().cloned().collect(),
        Some(numbers) => numbers
            .into_iter()
            .filter(|value| *value != UNKNOWN)
            .map(|value| value.to_string())
            .collect(),
    }
}

/// The class of rows whose class is not known, by the hub's convention.
const UNKNOWN: i64 = -1;

/// The schema of columns.
pub fn schema_of(columns: &[Column]) -> Schema {
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| {
            let data_type = match column.column_type {
                ColumnType::String => DataType::Utf8,
                ColumnType::Int64 | ColumnType::Class => DataType::Int64,
                ColumnType::Float64 => DataType::Float64,
                ColumnType::Bool => DataType::Boolean,
            };
            Field::new(&column.name, data_type, true)
        })
        .collect();
    let schema = Schema::new(fields);
    let mut features = Features::of(&schema);
    for column in columns {
        if column.column_type == ColumnType::Class {
            features = features.with_classes(&column.name, &column.classes);
        }
    }
    features.describe(&schema)
}

/// Builds the values of a column.
pub struct Builder<'c> {
    column: &'c Column,
    values: Values,
}

enum Values {
    Text(StringBuilder),
    Whole(Int64Builder),
    Fraction(Float64Builder),
    Truth(BooleanBuilder),
    Class(Int64Builder, BTreeMap<String, i64>),
}

impl<'c> Builder<'c> {
    /// No value yet.
    pub fn new(column: &'c Column) -> Self {
        let values = match column.column_type {
            ColumnType::String => Values::Text(StringBuilder::new()),
            ColumnType::Int64 => Values::Whole(Int64Builder::new()),
            ColumnType::Float64 => Values::Fraction(Float64Builder::new()),
            ColumnType::Bool => Values::Truth(BooleanBuilder::new()),
            ColumnType::Class => {
                let classes = column.classes.iter().cloned().zip(0..);
                let unknown = column.classes.iter().all(|class| whole(class).is_some());
                let unknown = unknown.then(|| (UNKNOWN.to_string(), UNKNOWN));
                Values::Class(Int64Builder::new(), classes.chain(unknown).collect())
            }
        };
        Self { column, values }
    }

    /// Adds a value.
    ///
    /// # Errors
    /// Where it is not of the column's type.
    pub fn push(&mut self, place: Place<'_>, cell: Cell<'_>) -> Result<(), StageError> {
        let wrong = |wanted: &str| {
            let value = class_value(cell).unwrap_or_default();
            let value: String = value.chars().take(40).collect();
            StageError::invalid(format!(
                "{place}: column `{}` is `{value}`, not {wanted}",
                self.column.name
            ))
            .at(format!("columns.{}", self.column.name))
            .help("correct the value, or declare another type in `columns`")
        };
        match (&mut self.values, cell) {
            (Values::Text(values), Cell::Missing) => values.append_null(),
            (Values::Text(values), Cell::Untyped(text) | Cell::Text(text)) => {
                values.append_value(text)
            }
            (Values::Text(values), other) => {
                values.append_value(class_value(other).unwrap_or_default())
            }
            (Values::Whole(values), Cell::Missing | Cell::Untyped("")) => values.append_null(),
            (Values::Whole(values), Cell::Whole(value)) => values.append_value(value),
            (Values::Whole(values), Cell::Untyped(text) | Cell::Text(text)) => {
                values.append_value(text.parse().map_err(|_| wrong("a whole number"))?);
            }
            (Values::Whole(_), _) => return Err(wrong("a whole number")),
            (Values::Fraction(values), Cell::Missing | Cell::Untyped("")) => values.append_null(),
            (Values::Fraction(values), Cell::Fraction(value)) => values.append_value(value),
            (Values::Fraction(values), Cell::Whole(value)) => values.append_value(value as f64),
            (Values::Fraction(values), Cell::Untyped(text) | Cell::Text(text)) => {
                values.append_value(text.parse().map_err(|_| wrong("a number"))?);
            }
            (Values::Fraction(_), _) => return Err(wrong("a number")),
            (Values::Truth(values), Cell::Missing | Cell::Untyped("")) => values.append_null(),
            (Values::Truth(values), Cell::Truth(value)) => values.append_value(value),
            (Values::Truth(values), Cell::Untyped(text) | Cell::Text(text)) => {
                values.append_value(truth(text).ok_or_else(|| wrong("true or false"))?);
            }
            (Values::Truth(_), _) => return Err(wrong("true or false")),
            (Values::Class(values, classes), cell) => match class_value(cell) {
                None => values.append_null(),
                Some(value) => {
                    let class = classes.get(value.as_ref());
                    values.append_value(*class.ok_or_else(|| wrong("one of the classes"))?);
                }
            },
        }
        Ok(())
    }

    /// The number of values so far.
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Text(values) => values.len(),
            Values::Whole(values) | Values::Class(values, _) => values.len(),
            Values::Fraction(values) => values.len(),
            Values::Truth(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values so far; begins anew.
    pub fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Text(values) => Arc::new(values.finish()),
            Values::Whole(values) | Values::Class(values, _) => Arc::new(values.finish()),
            Values::Fraction(values) => Arc::new(values.finish()),
            Values::Truth(values) => Arc::new(values.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_programs_write_is_a_number() {
        assert_eq!(whole("-12"), Some(-12));
        assert!(
            [whole("007"), whole("+1"), whole("-0"), whole("1.0")]
                .iter()
                .all(Option::is_none)
        );
        assert_eq!(fraction("-0.5e-3"), Some(-0.0005));
        assert!(
            ["nan", "inf", ".5", "00.5", "1e999", "-"]
                .into_iter()
                .all(|text| fraction(text).is_none())
        );
    }

    #[test]
    fn classes_are_sorted_as_numbers_where_they_are_numbers() {
        let classes = |values: &[&str]| {
            sorted_classes(&values.iter().map(|value| (*value).to_owned()).collect())
        };
        assert_eq!(classes(&["10", "9", "-1"]), ["9", "10"]);
        assert_eq!(classes(&["10", "9", "x"]), ["10", "9", "x"]);
    }
}
