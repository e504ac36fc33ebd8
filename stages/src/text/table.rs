//! Texts of a table to a table of tokens, on all cores, a block of rows at a time.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int8Array, Int32Array, Int64Array, ListArray, RecordBatch};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use rayon::prelude::*;
use taper_engine::{Progress, Reporter, StageError};

use super::encoder::{Encoded, Encoder};
use super::words::{Memory, Words, remember};
use crate::artifact::features::Features;
use crate::artifact::table::{Table, TableWriter, Text};
use crate::artifact::tokens::{ATTENTION_MASK, INPUT_IDS, LABEL, Padding, TOKEN_TYPE_IDS};

/// Rows that one thread tokenizes at a time.
const CHUNK: usize = 256;

/// Rows that are in memory at a time.
const BLOCK: usize = 32 * CHUNK;

/// The classes of rows, with the names of all classes.
#[derive(Clone, Debug)]
pub struct Classes<'a> {
    /// One a row; -1 where it is not known.
    pub values: &'a [i64],
    /// The names of the classes.
    pub names: &'a [String],
}

/// The columns of text that `encoder` tokenizes together.
///
/// # Errors
/// Those of [`Table::text`].
pub fn text_columns(table: &Table, encoder: &Encoder) -> Result<Vec<Text>, StageError> {
    let columns = encoder.settings().text.iter();
    columns
        .map(|column| table.text(column).map_err(|error| error.at("text")))
        .collect()
}

/// Tokenizes rows, in parallel; `rows` are numbers of rows. `memory` grows by the words that were new.
///
/// # Errors
/// Where a row cannot be tokenized; the message has its number.
pub fn encode_rows(
    encoder: &Encoder,
    texts: &[Text],
    rows: std::ops::Range<usize>,
    memory: &mut Memory,
) -> Result<Vec<Encoded>, StageError> {
    let starts: Vec<usize> = rows.clone().step_by(CHUNK).collect();
    let shared = &*memory;
    let chunks: Vec<_> = starts
        .into_par_iter()
        .map(|start| {
            let mut words = Words::knowing(shared);
            let encode = |row| {
                let row_texts: Vec<&str> = texts.iter().map(|column| column.get(row)).collect();
                encoder
                    .encode_with(&row_texts, &mut words)
                    .map_err(|mut error| {
                        error.message = format!("row {row} (counted from 0): {}", error.message);
                        error
                    })
            };
            let end = (start + CHUNK).min(rows.end);
            let encoded: Result<Vec<Encoded>, StageError> = (start..end).map(encode).collect();
            (encoded, words.found())
        })
        .collect();
    let mut encoded = Vec::with_capacity(rows.len());
    for (chunk, found) in chunks {
        encoded.extend(chunk?);
        remember(memory, found);
    }
    Ok(encoded)
}

/// Writes the tokens of a table's rows to the file at `path`; answers their number, without padding.
///
/// # Errors
/// Where a row cannot be tokenized, where the user stops it, and those of writing.
pub fn write_tokens(
    encoder: &Encoder,
    table: &Table,
    classes: Option<Classes<'_>>,
    path: &Path,
    memory: &mut Memory,
    reporter: &Reporter,
    progress: &Progress,
) -> Result<u64, StageError> {
    let texts = text_columns(table, encoder)?;
    let mut writer = TableWriter::create(path, &schema(classes.as_ref()))?;
    let mut tokens = 0;
    for start in (0..table.rows()).step_by(BLOCK) {
        reporter.check()?;
        let rows = start..(start + BLOCK).min(table.rows());
        let encoded = encode_rows(encoder, &texts, rows.clone(), memory)?;
        tokens += encoded.iter().map(|row| row.ids.len() as u64).sum::<u64>();
        let labels = classes.as_ref().map(|classes| &classes.values[rows]);
        let batch = batch(encoder, &encoded, labels)
            .map_err(|error| StageError::failed(format!("cannot write tokens: {error}")))?;
        writer.write(&batch)?;
        progress.add(encoded.len() as u64);
    }
    writer.finish()?;
    Ok(tokens)
}

fn schema(classes: Option<&Classes<'_>>) -> Schema {
    let list = |name: &str, item: DataType| {
        Field::new(
            name,
            DataType::List(Arc::new(Field::new_list_field(item, false))),
            false,
        )
    };
    let mut fields = vec![
        list(INPUT_IDS, DataType::Int32),
        list(TOKEN_TYPE_IDS, DataType::Int8),
        list(ATTENTION_MASK, DataType::Int8),
    ];
    let Some(classes) = classes else {
        return Schema::new(fields);
    };
    fields.push(Field::new(LABEL, DataType::Int64, false));
    let schema = Schema::new(fields);
    Features::of(&schema)
        .with_classes(LABEL, classes.names)
        .describe(&schema)
}

fn batch(
    encoder: &Encoder,
    rows: &[Encoded],
    labels: Option<&[i64]>,
) -> Result<RecordBatch, ArrowError> {
    let settings = encoder.settings();
    let widths: Vec<usize> = rows
        .iter()
        .map(|row| match settings.padding {
            Padding::None => row.ids.len(),
            Padding::MaxLength => settings.max_length,
        })
        .collect();
    let total = widths.iter().sum();
    let mut ids: Vec<i32> = Vec::with_capacity(total);
    let mut type_ids: Vec<i8> = Vec::with_capacity(total);
    let mut mask: Vec<i8> = Vec::with_capacity(total);
    for (row, width) in rows.iter().zip(&widths) {
        let end = ids.len() + width;
        ids.extend(row.ids.iter().map(|id| *id as i32));
        type_ids.extend(row.type_ids.iter().map(|segment| *segment as i8));
        mask.resize(ids.len(), 1);
        ids.resize(end, settings.pad_token_id as i32);
        type_ids.resize(end, 0);
        mask.resize(end, 0);
    }
    let schema = schema(labels.map(|values| Classes { values, names: &[] }).as_ref());
    let offsets = OffsetBuffer::<i32>::from_lengths(widths);
    let list = |column: usize, values: ArrayRef| {
        let DataType::List(item) = schema.field(column).data_type() else {
            return Err(ArrowError::SchemaError("not a list".to_owned()));
        };
        let list = ListArray::try_new(item.clone(), offsets.clone(), values, None)?;
        Ok(Arc::new(list) as ArrayRef)
    };
    let mut columns = vec![
        list(0, Arc::new(Int32Array::from(ids)))?,
        list(1, Arc::new(Int8Array::from(type_ids)))?,
        list(2, Arc::new(Int8Array::from(mask)))?,
    ];
    if let Some(labels) = labels {
        columns.push(Arc::new(Int64Array::from(labels.to_vec())));
    }
    RecordBatch::try_new(Arc::new(schema), columns)
}
