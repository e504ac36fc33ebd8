//! Rows of text formats: CSV, TSV, JSON lines, an array of JSON objects. One row in memory at a time.

use std::fmt;
use std::io::{BufRead, BufReader};

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use taper_engine::{Reporter, StageError};

use super::format::{Format, SourceFile};

/// The value of one column in one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Text whose type has yet to be found out.
    Untyped(&'a str),
    /// Nothing.
    Missing,
    /// Text.
    Text(&'a str),
    /// A whole number.
    Whole(i64),
    /// A number with a fraction.
    Fraction(f64),
    /// True or false.
    Truth(bool),
}

/// Where a row stands: `line 3 of reviews.csv`.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What is counted.
    pub unit: &'static str,
    /// Counted from 1.
    pub number: u64,
    /// The file.
    pub file: &'a str,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of `{}`", self.unit, self.number, self.file)
    }
}

/// What is done with each row: its place, and its columns by name.
pub type RowVisitor<'v> = dyn FnMut(Place<'_>, &[(&str, Cell<'_>)]) -> Result<(), StageError> + 'v;

/// Visits the rows of a file of a text format in order.
///
/// # Errors
/// Those of the visitor, of reading, and where the file is not what its format says, with the place.
///
/// # Panics
/// Where the format is no text format.
pub fn visit_rows(
    source: &SourceFile,
    reporter: &Reporter,
    visitor: &mut RowVisitor<'_>,
) -> Result<(), StageError> {
    let file = BufReader::with_capacity(1 << 16, fs_err::File::open(&source.path)?);
    let mut rows = 0_u64;
    let mut counted = |place: Place<'_>, cells: &[(&str, Cell<'_>)]| {
        rows += 1;
        if rows.is_multiple_of(1024) {
            reporter.check()?;
        }
        visitor(place, cells)
    };
    match source.format {
        Format::Csv => separated(file, b',', &source.name, &mut counted),
        Format::Tsv => separated(file, b'\t', &source.name, &mut counted),
        Format::Jsonl => json_lines(file, &source.name, &mut counted),
        Format::Json => json(file, &source.name, &mut counted),
        Format::Parquet | Format::Arrow => unreachable!("tables are not read row by row"),
    }
}

const UTF8_HELP: &str = "save it as UTF-8 (`iconv -f latin1 -t utf-8 OLD > NEW`, for example)";

fn separated(
    file: impl BufRead,
    separator: u8,
    name: &str,
    visitor: &mut RowVisitor<'_>,
) -> Result<(), StageError> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .from_reader(file);
    let header = reader
        .byte_headers()
        .map_err(|error| csv_error(&error, name))?
        .clone();
    let at = |number| Place {
        unit: "line",
        number,
        file: name,
    };
    let columns = texts(&header, at(1), |index| format!("name {}", index + 1))?;
    if columns.is_empty() {
        return Err(StageError::invalid(format!("`{name}` is empty"))
            .help("its first line has to name the columns"));
    }
    for (index, column) in columns.iter().enumerate() {
        if column.is_empty() || columns[..index].contains(column) {
            let fault = match column.is_empty() {
                true => format!(
                    "the first line of `{name}` has no name for column {}",
                    index + 1
                ),
                false => format!("the first line of `{name}` names `{column}` twice"),
            };
            return Err(StageError::invalid(fault).help("give every column a name of its own"));
        }
    }
    let mut record = csv::ByteRecord::new();
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| csv_error(&error, name))?
    {
        let place = at(record.position().map_or(0, csv::Position::line));
        let fields = texts(&record, place, |index| {
            format!("column `{}`", columns[index])
        })?;
        let cells: Vec<_> = columns
            .iter()
            .copied()
            .zip(fields.into_iter().map(Cell::Untyped))
            .collect();
        visitor(place, &cells)?;
    }
    Ok(())
}

fn texts<'r>(
    record: &'r csv::ByteRecord,
    place: Place<'_>,
    field_name: impl Fn(usize) -> String,
) -> Result<Vec<&'r str>, StageError> {
    record
        .iter()
        .enumerate()
        .map(|(index, field)| {
            std::str::from_utf8(field).map_err(|error| {
                StageError::invalid(format!(
                    "{place} is not UTF-8: byte {} of {}",
                    error.valid_up_to() + 1,
                    field_name(index)
                ))
                .help(UTF8_HELP)
            })
        })
        .collect()
}

fn csv_error(error: &csv::Error, name: &str) -> StageError {
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            StageError::invalid(format!(
                "line {line} of `{name}` has {len} field{}, but the first line names {expected_len} column{}",
                if *len == 1 { "" } else { "s" },
                if *expected_len == 1 { "" } else { "s" },
            ))
            .help("put fields that hold the separator or a line break in double quotes, and double the quotes in them")
        }
        _ => StageError::failed(format!("cannot read `{name}`: {error}")),
    }
}

fn json_lines(
    mut file: impl BufRead,
    name: &str,
    visitor: &mut RowVisitor<'_>,
) -> Result<(), StageError> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let place = Place {
            unit: "line",
            number,
            file: name,
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let text = std::str::from_utf8(&line).map_err(|error| {
            StageError::invalid(format!(
                "{place} is not UTF-8: byte {}",
                error.valid_up_to() + 1
            ))
            .help(UTF8_HELP)
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
        let row: JsonRow = serde_json::from_str(text).map_err(|error| {
            let column = error.column();
            let message = message_of(&error);
            StageError::invalid(format!("{place}, column {column}: {message}"))
                .help("each line has to be one JSON object")
        })?;
        visitor(place, &row.cells())?;
    }
    Ok(())
}

fn json(
    mut file: impl BufRead,
    name: &str,
    visitor: &mut RowVisitor<'_>,
) -> Result<(), StageError> {
    let lines = loop {
        match file.fill_buf()?.first() {
            None => break true,
            Some(byte) if byte.is_ascii_whitespace() => file.consume(1),
            Some(byte) => break *byte == b'{',
        }
    };
    if lines {
        return json_lines(file, name, visitor);
    }
    let mut fault = None;
    let rows = Rows {
        name,
        visitor,
        fault: &mut fault,
    };
    let mut reader = serde_json::Deserializer::from_reader(file);
    let read = rows.deserialize(&mut reader).and_then(|()| reader.end());
    match (fault, read) {
        (Some(fault), _) => Err(fault),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(StageError::invalid(format!(
            "line {}, column {} of `{name}`: {}",
            error.line(),
            error.column(),
            message_of(&error)
        ))
        .help("the file has to be an array of JSON objects, or one object a line")),
    }
}

/// The message without the place that `serde_json` adds.
fn message_of(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

/// Visits the elements of an array as they are read.
struct Rows<'r, 'v> {
    name: &'r str,
    visitor: &'r mut RowVisitor<'v>,
    fault: &'r mut Option<StageError>,
}

impl<'de> DeserializeSeed<'de> for Rows<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        for number in 1.. {
            let Some(row) = rows.next_element::<JsonRow>()? else {
                break;
            };
            let place = Place {
                unit: "element",
                number,
                file: self.name,
            };
            if let Err(error) = (self.visitor)(place, &row.cells()) {
                *self.fault = Some(error);
                return Err(de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// An object's fields in their order.
struct JsonRow(Vec<(String, JsonCell)>);

enum JsonCell {
    Missing,
    Text(String),
    Whole(i64),
    Fraction(f64),
    Truth(bool),
}

impl JsonRow {
    fn cells(&self) -> Vec<(&str, Cell<'_>)> {
        let cell = |cell| match cell {
            &JsonCell::Missing => Cell::Missing,
            JsonCell::Text(text) => Cell::Text(text),
            &JsonCell::Whole(value) => Cell::Whole(value),
            &JsonCell::Fraction(value) => Cell::Fraction(value),
            &JsonCell::Truth(value) => Cell::Truth(value),
        };
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), cell(value)))
            .collect()
    }
}

impl<'de> Deserialize<'de> for JsonRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowVisitor;

        impl<'de> Visitor<'de> for RowVisitor {
            type Value = JsonRow;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonRow, A::Error> {
                let mut fields: Vec<(String, JsonCell)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if fields.iter().any(|(other, _)| *other == name) {
                        return Err(de::Error::custom(format!("`{name}` stands there twice")));
                    }
                    let cell = map.next_value()?;
                    fields.push((name, cell));
                }
                Ok(JsonRow(fields))
            }
        }
        deserializer.deserialize_map(RowVisitor)
    }
}

impl<'de> Deserialize<'de> for JsonCell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CellVisitor;

        impl Visitor<'_> for CellVisitor {
            type Value = JsonCell;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true, false or null")
            }

            fn visit_unit<E: de::Error>(self) -> Result<JsonCell, E> {
                Ok(JsonCell::Missing)
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<JsonCell, E> {
                Ok(JsonCell::Truth(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<JsonCell, E> {
                Ok(JsonCell::Whole(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<JsonCell, E> {
                i64::try_from(value)
                    .map(JsonCell::Whole)
                    .map_err(|_| E::custom(format!("{value} does not fit 64 bits with a sign")))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<JsonCell, E> {
                Ok(JsonCell::Fraction(value))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<JsonCell, E> {
                Ok(JsonCell::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(CellVisitor)
    }
}
