//! Tokens: rows of token ids, and how text became them.
//!
//! ```text
//! SPLIT.arrow      input_ids List<Int32>, token_type_ids List<Int8>, attention_mask List<Int8>,
//!                  label Int64 (absent where the data has none; -1 where a row's class is not known)
//! tokens.json      see TokenSettings
//! tokenizer.json   the tokenizer as it was used, with its truncation and padding
//! ```
//! Ids and lengths are read from the mapped files without copying.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int8Type, Int32Type};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::{ArrowNativeType, OffsetBuffer, ScalarBuffer};
use arrow_schema::DataType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taper_cache::ArtifactType;
use taper_engine::{Artifact, ArtifactFiles, StageError};

use super::dataset::{find_split, open_splits};
use super::table::Table;

/// The name of the file that holds [`TokenSettings`].
pub const SETTINGS_FILE: &str = "tokens.json";
/// The name of the tokenizer's file.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The column of token ids.
pub const INPUT_IDS: &str = "input_ids";
/// The column of segment ids.
pub const TOKEN_TYPE_IDS: &str = "token_type_ids";
/// The column that tells tokens (1) from padding (0).
pub const ATTENTION_MASK: &str = "attention_mask";
/// The column of classes.
pub const LABEL: &str = "label";

/// Whether rows are padded when they are tokenized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Not at all: batches pad where a model reads padding.
    #[default]
    None,
    /// To `max_length`, behind the tokens.
    MaxLength,
}

/// What is cut from a row that is too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// The longer of two texts first, token by token.
    #[default]
    LongestFirst,
    /// The first text.
    OnlyFirst,
    /// The second text.
    OnlySecond,
}

/// How text became tokens: all that is needed, beside `tokenizer.json`, to do the same with other text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSettings {
    /// The most tokens a row has, special tokens counted.
    pub max_length: usize,
    /// Whether rows are padded to it.
    #[serde(default)]
    pub padding: Padding,
    /// What is cut from a row that is too long.
    #[serde(default)]
    pub truncation: Truncation,
    /// The id of the padding token.
    #[serde(default)]
    pub pad_token_id: u32,
    /// One more than the greatest id.
    pub vocab_size: usize,
    /// The one or two columns of text.
    pub text: Vec<String>,
    /// The column of classes, where the data had one.
    #[serde(default)]
    pub label: Option<String>,
}

impl TokenSettings {
    /// Reads `tokens.json`.
    ///
    /// # Errors
    /// Where the file is not what it should be.
    pub fn read(files: &ArtifactFiles) -> Result<Option<Self>, StageError> {
        let Some(path) = files.path(SETTINGS_FILE) else {
            return Ok(None);
        };
        serde_json::from_slice(&fs_err::read(path)?)
            .map(Some)
            .map_err(|error| {
                StageError::failed(format!("`{SETTINGS_FILE}` cannot be read: {error}"))
            })
    }

    /// Writes them, in one stable form.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, path: &std::path::Path) -> Result<(), StageError> {
        let text = serde_json::to_string_pretty(self).map_err(|error| {
            StageError::failed(format!("cannot write `{SETTINGS_FILE}`: {error}"))
        })?;
        Ok(fs_err::write(path, text + "\n")?)
    }
}

/// Rows of token ids, by split.
#[derive(Clone, Debug)]
pub struct Tokens {
    settings: TokenSettings,
    tokenizer: Option<PathBuf>,
    splits: BTreeMap<String, TokenSplit>,
}

impl Artifact for Tokens {
    const TYPES: &'static [ArtifactType] = &[ArtifactType::Tokens];

    fn open(files: ArtifactFiles) -> Result<Self, StageError> {
        let settings = TokenSettings::read(&files)?.ok_or_else(|| {
            StageError::failed(format!("tokens without `{SETTINGS_FILE}`"))
                .help("it says how text became tokens; a `tokenize` stage writes it")
        })?;
        let mut splits = BTreeMap::new();
        for (name, table) in open_splits(&files)? {
            let split = TokenSplit::new(&table, settings.vocab_size)?;
            splits.insert(name, split);
        }
        Ok(Self {
            tokenizer: files.path(TOKENIZER_FILE),
            settings,
            splits,
        })
    }
}

impl Tokens {
    /// How text became tokens.
    pub fn settings(&self) -> &TokenSettings {
        &self.settings
    }

    /// Where `tokenizer.json` is.
    pub fn tokenizer(&self) -> Option<&std::path::Path> {
        self.tokenizer.as_deref()
    }

    /// The splits, by name ascending.
    pub fn splits(&self) -> impl Iterator<Item = (&str, &TokenSplit)> {
        self.splits
            .iter()
            .map(|(name, split)| (name.as_str(), split))
    }

    /// The split `name`.
    ///
    /// # Errors
    /// Where there is none of this name; the message names the nearest one.
    pub fn split(&self, name: &str) -> Result<&TokenSplit, StageError> {
        find_split(&self.splits, name)
    }
}

/// One split: rows of token ids.
#[derive(Clone, Debug)]
pub struct TokenSplit {
    parts: Vec<Part>,
    /// The row at which each part begins, and the number of rows at the end.
    starts: Vec<usize>,
    /// Empty where there is no column.
    labels: Vec<i64>,
    classes: Option<Vec<String>>,
}

/// A row: its tokens without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRow<'a> {
    /// Token ids; none is negative, or past the vocabulary.
    pub ids: &'a [i32],
    /// Segment ids, as many.
    pub type_ids: &'a [i8],
    /// The class, where it is known.
    pub label: Option<u32>,
}

impl TokenSplit {
    /// Reads a table of tokens.
    ///
    /// # Errors
    /// Where columns are missing or of other types, rows of different columns differ in length, padding
    /// stands before tokens, an id lies outside the vocabulary, or a label outside the classes.
    pub fn new(table: &Table, vocab_size: usize) -> Result<Self, StageError> {
        let ids = lists::<Int32Type>(table, INPUT_IDS)?;
        let type_ids = lists::<Int8Type>(table, TOKEN_TYPE_IDS)?;
        let mask = lists::<Int8Type>(table, ATTENTION_MASK)?;
        let mut starts = vec![0];
        let mut parts = Vec::with_capacity(ids.len());
        for ((ids, type_ids), mask) in ids.into_iter().zip(type_ids).zip(mask) {
            let start = starts[starts.len() - 1];
            parts.push(
                Part::new(ids, type_ids, &mask, vocab_size).map_err(|(row, what)| {
                    let row = start + row;
                    StageError::failed(format!(
                        "row {row} (counted from 0) of `{}` {what}",
                        table.name()
                    ))
                })?,
            );
            starts.push(start + parts[parts.len() - 1].lengths.len());
        }
        let has_labels = table.columns().any(|column| column == LABEL);
        let (labels, classes) = match has_labels {
            false => (Vec::new(), None),
            true => {
                let labels = table.labels(LABEL)?;
                (labels.values, labels.names)
            }
        };
        let count = classes.as_ref().map_or(u32::MAX as usize, Vec::len);
        let outside = labels
            .iter()
            .position(|label| *label != -1 && !usize::try_from(*label).is_ok_and(|l| l < count));
        if let Some(row) = outside {
            return Err(StageError::invalid(format!(
                "row {row} (counted from 0) of `{}` has the label {}, outside its {count} classes",
                table.name(),
                labels[row]
            )));
        }
        Ok(Self {
            parts,
            starts,
            labels,
            classes,
        })
    }

    /// Rows that are in no file: `ids` and segments of each, of classes that are not known.
    pub fn of_rows(rows: &[(Vec<i32>, Vec<i8>)]) -> Self {
        let lengths = || rows.iter().map(|(ids, _)| ids.len());
        let ids: Vec<i32> = rows.iter().flat_map(|(ids, _)| ids).copied().collect();
        let type_ids: Vec<i8> = rows
            .iter()
            .flat_map(|(_, type_ids)| type_ids)
            .copied()
            .collect();
        let part = Part {
            ids: Lists {
                offsets: OffsetBuffer::from_lengths(lengths()),
                values: ids.into(),
            },
            type_ids: Lists {
                offsets: OffsetBuffer::from_lengths(lengths()),
                values: type_ids.into(),
            },
            lengths: lengths().map(|length| length as u32).collect(),
        };
        Self {
            parts: vec![part],
            starts: vec![0, rows.len()],
            labels: Vec::new(),
            classes: None,
        }
    }

    /// The first rows alone; all where there are no more.
    pub fn first(&self, rows: usize) -> Cow<'_, Self> {
        if rows >= self.len() {
            return Cow::Borrowed(self);
        }
        let parts = self.starts.partition_point(|start| *start < rows);
        let mut starts = self.starts[..parts].to_vec();
        starts.push(rows);
        Cow::Owned(Self {
            parts: self.parts[..parts].to_vec(),
            starts,
            labels: self.labels.iter().copied().take(rows).collect(),
            classes: self.classes.clone(),
        })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the classes 0, 1, …, where the labels have them.
    pub fn classes(&self) -> Option<&[String]> {
        self.classes.as_deref()
    }

    /// Whether there is a column of labels.
    pub fn has_labels(&self) -> bool {
        !self.labels.is_empty() || (self.is_empty() && self.classes.is_some())
    }

    /// The first row whose class is not known.
    pub fn first_unlabelled(&self) -> Option<usize> {
        (0..self.len()).find(|row| self.label(*row).is_none())
    }

    /// The class of a row, where it is known.
    pub fn label(&self, row: usize) -> Option<u32> {
        self.labels
            .get(row)
            .and_then(|label| u32::try_from(*label).ok())
    }

    /// The number of tokens of a row, without padding.
    ///
    /// # Panics
    /// Where the row is past the end.
    pub fn length(&self, row: usize) -> usize {
        let (part, row) = self.place(row);
        part.lengths[row] as usize
    }

    /// The number of tokens of the longest row, without padding.
    pub fn longest(&self) -> usize {
        let lengths = self.parts.iter().flat_map(|part| &part.lengths);
        lengths.copied().max().unwrap_or(0) as usize
    }

    /// A row.
    ///
    /// # Panics
    /// Where it is past the end.
    pub fn row(&self, row: usize) -> TokenRow<'_> {
        let label = self.label(row);
        let (part, row) = self.place(row);
        let length = part.lengths[row] as usize;
        TokenRow {
            ids: &part.ids.row(row)[..length],
            type_ids: &part.type_ids.row(row)[..length],
            label,
        }
    }

    /// The rows in order.
    pub fn rows(&self) -> impl Iterator<Item = TokenRow<'_>> {
        (0..self.len()).map(|row| self.row(row))
    }

    fn place(&self, row: usize) -> (&Part, usize) {
        assert!(row < self.len(), "row {row} of {}", self.len());
        let part = self.starts.partition_point(|start| *start <= row) - 1;
        (&self.parts[part], row - self.starts[part])
    }
}

/// The rows of one record batch.
#[derive(Clone, Debug)]
struct Part {
    ids: Lists<i32>,
    type_ids: Lists<i8>,
    /// Tokens of each row, without padding.
    lengths: Vec<u32>,
}

impl Part {
    /// Checks the columns against each other; an error names the row in this part and says what it has.
    fn new(
        ids: Lists<i32>,
        type_ids: Lists<i8>,
        mask: &Lists<i8>,
        vocab_size: usize,
    ) -> Result<Self, (usize, String)> {
        let mut lengths = Vec::with_capacity(ids.len());
        for row in 0..ids.len() {
            let width = ids.row(row).len();
            if type_ids.row(row).len() != width || mask.row(row).len() != width {
                let what = format!("has {width} ids, but not as many segments and masks");
                return Err((row, what));
            }
            let length = mask.row(row).partition_point(|mask| *mask != 0);
            if mask.row(row)[length..].iter().any(|mask| *mask != 0) {
                return Err((row, "has padding before or between its tokens".to_owned()));
            }
            let known = |id: &i32| usize::try_from(*id).is_ok_and(|id| id < vocab_size);
            if let Some(id) = ids.row(row)[..length].iter().find(|id| !known(id)) {
                let what = format!("has the token {id}, outside the vocabulary of {vocab_size}");
                return Err((row, what));
            }
            if type_ids.row(row).iter().any(|segment| *segment < 0) {
                return Err((row, "has a negative segment".to_owned()));
            }
            lengths.push(length as u32);
        }
        Ok(Self {
            ids,
            type_ids,
            lengths,
        })
    }
}

/// A column of lists, as it lies in the mapped file.
#[derive(Clone, Debug)]
struct Lists<T: ArrowNativeType> {
    offsets: OffsetBuffer<i32>,
    values: ScalarBuffer<T>,
}

impl<T: ArrowNativeType> Lists<T> {
    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn row(&self, row: usize) -> &[T] {
        &self.values[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

fn lists<P: ArrowPrimitiveType>(
    table: &Table,
    column: &str,
) -> Result<Vec<Lists<P::Native>>, StageError> {
    let read = |chunk: &ArrayRef| {
        let lists = match chunk.data_type() {
            DataType::List(item) if *item.data_type() == P::DATA_TYPE => chunk.as_list::<i32>(),
            other => {
                return Err(StageError::failed(format!(
                    "column `{column}` of `{}` is {other}, not lists of {}",
                    table.name(),
                    P::DATA_TYPE
                )));
            }
        };
        if lists.null_count() + lists.values().null_count() > 0 {
            return Err(StageError::failed(format!(
                "column `{column}` of `{}` has nulls",
                table.name()
            )));
        }
        Ok(Lists {
            offsets: lists.offsets().clone(),
            values: lists.values().as_primitive::<P>().values().clone(),
        })
    };
    table.column(column)?.map(read).collect()
}
