//! A table: one Arrow IPC file, memory-mapped and read without copying; and the writer of such files.
//!
//! Data sets, tokens and predictions are tables named by their splits. The writer cuts rows into record
//! batches of one size, whatever batches they came in, and writes arrays afresh: the same rows under the
//! same schema are the same bytes.

use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, LargeStringArray, RecordBatch, StringArray, make_array};
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_ipc::{Block, root_as_footer, root_as_message};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use arrow_select::interleave::interleave_record_batch;
use taper_engine::StageError;

use super::features::Features;
use super::mapping;

/// Rows of a record batch as [`TableWriter`] writes it.
pub const BATCH_ROWS: usize = 1024;

/// One Arrow IPC file: a split of a data set, of tokens, of predictions.
#[derive(Clone, Debug)]
pub struct Table {
    /// What people are told when something is wrong with it: `train.arrow`.
    name: String,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// The row at which each batch begins, and the number of rows at the end.
    starts: Vec<usize>,
}

impl Table {
    /// Maps the file at `path`; `name` is what it is called in messages. Columns point into the mapped
    /// file; texts are checked to be UTF-8 here, once.
    ///
    /// # Errors
    /// Where the file cannot be read or is not a whole Arrow IPC file.
    pub fn open(path: &Path, name: impl Into<String>) -> Result<Self, StageError> {
        let name = name.into();
        let buffer = Buffer::from(mapping::map(path)?);
        let (schema, batches) = decode(&buffer).map_err(|error| {
            StageError::failed(format!("`{name}` is not a whole Arrow IPC file: {error}"))
                .help("write it again, or download it again; it has to be in the file format (not the stream format), not cut")
        })?;
        let mut starts = vec![0];
        for batch in &batches {
            starts.push(starts[starts.len() - 1] + batch.num_rows());
        }
        Ok(Self {
            name,
            schema,
            batches,
            starts,
        })
    }

    /// The first rows alone; all where there are no more. Nothing is copied.
    #[must_use]
    pub fn first(&self, rows: usize) -> Self {
        let mut first = self.clone();
        if rows < self.rows() {
            let batches = self.starts.partition_point(|start| *start < rows);
            first.batches.truncate(batches);
            first.starts.truncate(batches);
            if let (Some(last), Some(start)) = (first.batches.last_mut(), first.starts.last()) {
                *last = last.slice(0, rows - start);
            }
            first.starts.push(rows);
        }
        first
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// The columns and their types; the names of classes are in its metadata, see [`Table::features`].
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The names of the columns, in order.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
    }

    /// What the schema's metadata says of the columns.
    pub fn features(&self) -> Features {
        Features::of(&self.schema)
    }

    /// The rows, as they are cut in the file. Cloning a batch copies no data.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// The chunks of a column, one a batch.
    ///
    /// # Errors
    /// Where there is no such column; the message names the nearest one.
    pub fn column(&self, column: &str) -> Result<impl Iterator<Item = &ArrayRef>, StageError> {
        let index = self
            .schema
            .index_of(column)
            .map_err(|_| self.no_column(column))?;
        Ok(self.batches.iter().map(move |batch| batch.column(index)))
    }

    /// A column of text.
    ///
    /// # Errors
    /// Where there is no such column, where it is not text, and where it has nulls (the message counts them).
    pub fn text(&self, column: &str) -> Result<Text, StageError> {
        let mut chunks = Vec::with_capacity(self.batches.len());
        for chunk in self.column(column)? {
            chunks.push(match chunk.data_type() {
                DataType::Utf8 => TextChunk::Small(chunk.as_string::<i32>().clone()),
                DataType::LargeUtf8 => TextChunk::Large(chunk.as_string::<i64>().clone()),
                other => {
                    return Err(StageError::invalid(format!(
                        "column `{column}` of `{}` is {}, not text",
                        self.name,
                        type_name(other)
                    ))
                    .help(self.columns_help(|data_type| {
                        matches!(data_type, DataType::Utf8 | DataType::LargeUtf8)
                    })));
                }
            });
        }
        self.no_nulls(column)?;
        Ok(Text {
            chunks,
            starts: self.starts.clone(),
        })
    }

    /// A column of classes: whole numbers, with the names that the metadata has for them.
    ///
    /// # Errors
    /// Where there is no such column, where it is not of whole numbers, and where it has nulls.
    pub fn labels(&self, column: &str) -> Result<Labels, StageError> {
        use arrow_array::types::{
            Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
        };
        let mut values = Vec::with_capacity(self.rows());
        for chunk in self.column(column)? {
            macro_rules! widen {
                ($type:ty) => {
                    values.extend(
                        chunk
                            .as_primitive::<$type>()
                            .values()
                            .iter()
                            .map(|value| i64::from(*value)),
                    )
                };
            }
            match chunk.data_type() {
                DataType::Int8 => widen!(Int8Type),
                DataType::Int16 => widen!(Int16Type),
                DataType::Int32 => widen!(Int32Type),
                DataType::Int64 => widen!(Int64Type),
                DataType::UInt8 => widen!(UInt8Type),
                DataType::UInt16 => widen!(UInt16Type),
                DataType::UInt32 => widen!(UInt32Type),
                DataType::Boolean => {
                    values.extend(chunk.as_boolean().values().iter().map(i64::from))
                }
                other => {
                    return Err(StageError::invalid(format!(
                        "column `{column}` of `{}` is {}, not classes (whole numbers)",
                        self.name,
                        type_name(other)
                    ))
                    .help(format!(
                        "where the data is read, say `columns: {{ {column}: class }}`"
                    )));
                }
            }
        }
        self.no_nulls(column)?;
        Ok(Labels {
            values,
            names: self.features().class_names(column),
        })
    }

    /// The rows with these numbers, in this order, in batches of [`BATCH_ROWS`]: never more than one batch
    /// of them is in memory.
    ///
    /// # Panics
    /// Where a row is past the end.
    pub fn take<'a>(
        &'a self,
        rows: &'a [usize],
    ) -> impl Iterator<Item = Result<RecordBatch, StageError>> + 'a {
        let sources: Vec<&RecordBatch> = self.batches.iter().collect();
        rows.chunks(BATCH_ROWS).map(move |rows| {
            let places: Vec<_> = rows.iter().map(|row| self.place(*row)).collect();
            interleave_record_batch(&sources, &places).map_err(|error| self.broken(&error))
        })
    }

    /// The batch in which a row lies, and its place in there.
    fn place(&self, row: usize) -> (usize, usize) {
        assert!(row < self.rows(), "row {row} of {}", self.rows());
        place(&self.starts, row)
    }

    fn no_nulls(&self, column: &str) -> Result<(), StageError> {
        let mut nulls = 0;
        let mut first = None;
        for (chunk, start) in self.column(column)?.zip(&self.starts) {
            nulls += chunk.null_count();
            if first.is_none() && chunk.null_count() > 0 {
                first = (0..chunk.len())
                    .find(|row| chunk.is_null(*row))
                    .map(|row| start + row);
            }
        }
        match first {
            None => Ok(()),
            Some(first) => Err(StageError::invalid(format!(
                "column `{column}` of `{}` has no value in {nulls} of {} rows; the first is row {first} (counted from 0)",
                self.name,
                self.rows(),
            ))
            .help("remove or fill these rows before they come here, in a `command` stage or at the source")),
        }
    }

    fn no_column(&self, column: &str) -> StageError {
        let error = StageError::invalid(format!("`{}` has no column `{column}`", self.name));
        let names: Vec<_> = self.columns().collect();
        match nearest(column, names.iter().copied()) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help(format!("it has {}", list(names))),
        }
    }

    fn columns_help(&self, fits: impl Fn(&DataType) -> bool) -> String {
        let fitting: Vec<_> = self
            .schema
            .fields()
            .iter()
            .filter(|field| fits(field.data_type()))
            .map(|field| field.name().as_str())
            .collect();
        match fitting.is_empty() {
            true => format!("it has {}", list(self.columns())),
            false => format!("of this type: {}", list(fitting)),
        }
    }

    fn broken(&self, error: &ArrowError) -> StageError {
        StageError::failed(format!("cannot read rows of `{}`: {error}", self.name))
    }
}

/// `a`, `b` and `c`.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
    }
}

/// The candidate that `name` is most likely a misspelling of.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(name.len()).div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// What people call a type.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Boolean => "true or false".to_owned(),
        integer if integer.is_integer() => "whole numbers".to_owned(),
        float if float.is_floating() => "numbers with a fraction".to_owned(),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            "lists".to_owned()
        }
        DataType::Binary | DataType::LargeBinary => "raw bytes".to_owned(),
        other => other.to_string(),
    }
}

fn place(starts: &[usize], row: usize) -> (usize, usize) {
    let batch = starts.partition_point(|start| *start <= row) - 1;
    (batch, row - starts[batch])
}

fn decode(buffer: &Buffer) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    let broken = |what: &str| ArrowError::ParseError(what.to_owned());
    let trailer = buffer
        .len()
        .checked_sub(10)
        .ok_or_else(|| broken("it is shorter than its own footer"))?;
    let mut length = [0; 10];
    length.copy_from_slice(&buffer[trailer..]);
    let footer = trailer
        .checked_sub(read_footer_length(length)?)
        .ok_or_else(|| broken("it is shorter than its own footer"))?;
    let footer = root_as_footer(&buffer[footer..trailer])
        .map_err(|error| ArrowError::ParseError(format!("its footer does not parse: {error}")))?;
    let schema = footer.schema().ok_or_else(|| broken("it has no schema"))?;
    if !schema.endianness().equals_to_target_endianness() {
        return Err(broken("its numbers have another byte order"));
    }
    let schema = Arc::new(try_fb_to_schema(schema)?);
    let mut decoder = FileDecoder::new(schema.clone(), footer.version());
    let slice = |block: &Block| {
        let end = |start: usize, length: usize| start.checked_add(length);
        let start = usize::try_from(block.offset()).ok();
        let head = usize::try_from(block.metaDataLength()).ok();
        let body = usize::try_from(block.bodyLength()).ok();
        match (start, head, body) {
            (Some(start), Some(head), Some(body)) => end(head, body)
                .filter(|length| end(start, *length).is_some_and(|end| end <= buffer.len()))
                .map(|length| buffer.slice_with_length(start, length)),
            _ => None,
        }
        .ok_or_else(|| broken("a block lies outside of it"))
    };
    for block in footer.dictionaries().iter().flatten() {
        decoder.read_dictionary(block, &slice(block)?)?;
    }
    let mut batches = Vec::new();
    for block in footer.recordBatches().iter().flatten() {
        let bytes = slice(block)?;
        refuse_compression(&bytes)?;
        batches.extend(decoder.read_record_batch(block, &bytes)?);
    }
    Ok((schema, batches))
}

/// Compressed bodies are not built into this program; say so in words.
fn refuse_compression(block: &[u8]) -> Result<(), ArrowError> {
    let message = match block {
        [0xff, 0xff, 0xff, 0xff, _, _, _, _, message @ ..] => message,
        [_, _, _, _, message @ ..] => message,
        _ => return Err(ArrowError::ParseError("a block is cut".to_owned())),
    };
    let compressed = root_as_message(message)
        .ok()
        .and_then(|message| message.header_as_record_batch())
        .is_some_and(|batch| batch.compression().is_some());
    match compressed {
        true => Err(ArrowError::ParseError(
            "its batches are compressed; write it uncompressed, or as parquet".to_owned(),
        )),
        false => Ok(()),
    }
}

/// A column of text without nulls.
#[derive(Clone, Debug)]
pub struct Text {
    chunks: Vec<TextChunk>,
    starts: Vec<usize>,
}

#[derive(Clone, Debug)]
enum TextChunk {
    Small(StringArray),
    Large(LargeStringArray),
}

impl TextChunk {
    fn get(&self, row: usize) -> &str {
        match self {
            Self::Small(texts) => texts.value(row),
            Self::Large(texts) => texts.value(row),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Small(texts) => texts.len(),
            Self::Large(texts) => texts.len(),
        }
    }
}

impl Text {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text of a row.
    ///
    /// # Panics
    /// Where the row is past the end.
    pub fn get(&self, row: usize) -> &str {
        assert!(row < self.len(), "row {row} of {}", self.len());
        let (chunk, row) = place(&self.starts, row);
        self.chunks[chunk].get(row)
    }

    /// The texts in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.chunks
            .iter()
            .flat_map(|chunk| (0..chunk.len()).map(|row| chunk.get(row)))
    }
}

/// A column of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The class of each row, as it stands in the data: where it is not known, the hub has -1.
    pub values: Vec<i64>,
    /// The names of the classes 0, 1, …, where the data has them.
    pub names: Option<Vec<String>>,
}

impl Labels {
    /// The first row whose class is not one of `classes`, and that class.
    pub fn first_outside(&self, classes: usize) -> Option<(usize, i64)> {
        self.values
            .iter()
            .copied()
            .enumerate()
            .find(|(_, value)| !usize::try_from(*value).is_ok_and(|value| value < classes))
    }
}

/// Writes one Arrow IPC file, uncompressed, in batches of [`BATCH_ROWS`].
pub struct TableWriter {
    writer: FileWriter<BufWriter<fs_err::File>>,
    schema: SchemaRef,
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    rows: usize,
}

impl TableWriter {
    /// Begins the file at `path`. Of the schema's metadata only what [`Features`] writes is kept.
    ///
    /// # Errors
    /// Those of creating the file.
    pub fn create(path: &Path, schema: &Schema) -> Result<Self, StageError> {
        let schema = Arc::new(Features::canonical(schema));
        let file = BufWriter::new(fs_err::File::create(path)?);
        let writer = FileWriter::try_new_with_options(file, &schema, IpcWriteOptions::default())
            .map_err(|error| cannot_write(&error))?;
        Ok(Self {
            writer,
            schema,
            pending: Vec::new(),
            pending_rows: 0,
            rows: 0,
        })
    }

    /// The schema that is written.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Adds rows. Their columns have to have the schema's types; names and metadata are the schema's.
    ///
    /// # Errors
    /// Where the types differ, where a column without nulls has some, and those of writing.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), StageError> {
        let batch = RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())
            .map_err(|error| cannot_write(&error))?;
        let mut offset = 0;
        while offset < batch.num_rows() {
            let length = (batch.num_rows() - offset).min(BATCH_ROWS - self.pending_rows);
            self.pending.push(batch.slice(offset, length));
            self.pending_rows += length;
            offset += length;
            if self.pending_rows == BATCH_ROWS {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is left and the footer; answers the number of rows.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> Result<usize, StageError> {
        self.flush()?;
        self.writer.finish().map_err(|error| cannot_write(&error))?;
        Ok(self.rows)
    }

    fn flush(&mut self) -> Result<(), StageError> {
        if self.pending_rows == 0 {
            return Ok(());
        }
        let places: Vec<_> = self
            .pending
            .iter()
            .enumerate()
            .flat_map(|(batch, rows)| (0..rows.num_rows()).map(move |row| (batch, row)))
            .collect();
        let sources: Vec<_> = self.pending.iter().collect();
        let fresh = interleave_record_batch(&sources, &places)
            .and_then(|batch| {
                let columns = batch.columns().iter().map(without_empty_nulls).collect();
                RecordBatch::try_new(self.schema.clone(), columns)
            })
            .map_err(|error| cannot_write(&error))?;
        self.writer
            .write(&fresh)
            .map_err(|error| cannot_write(&error))?;
        self.rows += self.pending_rows;
        self.pending.clear();
        self.pending_rows = 0;
        Ok(())
    }
}

/// A mask of nulls that masks nothing would be written differently from none.
fn without_empty_nulls(array: &ArrayRef) -> ArrayRef {
    if array.null_count() > 0 || array.nulls().is_none() {
        return array.clone();
    }
    let data = array.to_data().into_builder().nulls(None);
    data.build().map_or_else(|_| array.clone(), make_array)
}

fn cannot_write(error: &ArrowError) -> StageError {
    StageError::failed(format!("cannot write rows: {error}"))
}

/// Writes `batches` as the file at `path`; answers the number of rows.
///
/// # Errors
/// Those of the batches and of writing.
pub fn write_table(
    path: &Path,
    schema: &Schema,
    batches: impl IntoIterator<Item = Result<RecordBatch, StageError>>,
) -> Result<usize, StageError> {
    let mut writer = TableWriter::create(path, schema)?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use arrow_array::Int64Array;
    use arrow_schema::Field;

    use super::*;

    fn schema() -> Schema {
        Features::of(&Schema::new(vec![
            Field::new("text", DataType::Utf8, true),
            Field::new("label", DataType::Int64, true),
        ]))
        .with_classes("label", &["no".to_owned(), "yes".to_owned()])
        .describe(&Schema::new(vec![
            Field::new("text", DataType::Utf8, true),
            Field::new("label", DataType::Int64, true),
        ]))
    }

    fn rows(range: std::ops::Range<i64>) -> RecordBatch {
        let texts: StringArray = range
            .clone()
            .map(|row| Some(format!("row {row}")))
            .collect();
        let labels: Int64Array = range.map(|row| Some(row % 2)).collect();
        RecordBatch::try_new(Arc::new(schema()), vec![Arc::new(texts), Arc::new(labels)])
            .expect("columns fit")
    }

    fn written(folder: &Path, name: &str, batches: &[RecordBatch]) -> Vec<u8> {
        let path = folder.join(name);
        write_table(&path, &schema(), batches.iter().cloned().map(Ok)).expect("written");
        fs_err::read(path).expect("read")
    }

    #[test]
    fn the_same_rows_are_the_same_bytes_however_they_came() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let whole = written(folder.path(), "a", &[rows(0..3000)]);
        let cut = written(
            folder.path(),
            "b",
            &[
                rows(0..1),
                rows(1..1500),
                rows(1500..2049),
                rows(2049..3000),
            ],
        );
        assert_eq!(whole, cut);
        let sliced = written(folder.path(), "c", &[rows(0..3500).slice(0, 3000)]);
        assert_eq!(whole, sliced);
    }

    #[test]
    fn what_is_written_is_read_and_taken() {
        let folder = tempfile::tempdir().expect("temporary folder");
        written(folder.path(), "t.arrow", &[rows(0..2500)]);
        let table = Table::open(&folder.path().join("t.arrow"), "t.arrow").expect("opens");
        assert_eq!(table.rows(), 2500);
        let text = table.text("text").expect("text");
        assert_eq!(text.get(2047), "row 2047");
        assert_eq!(text.iter().nth(1024), Some("row 1024"));
        let labels = table.labels("label").expect("labels");
        assert_eq!(labels.values[..3], [0, 1, 0]);
        assert_eq!(labels.names, Some(vec!["no".to_owned(), "yes".to_owned()]));
        assert_eq!(labels.first_outside(1), Some((1, 1)));

        let taken: Vec<_> = table
            .take(&[2499, 0, 1024])
            .collect::<Result<_, _>>()
            .expect("rows there are");
        let texts = taken[0].column(0).as_string::<i32>();
        let texts: Vec<_> = texts.iter().flatten().collect();
        assert_eq!(texts, ["row 2499", "row 0", "row 1024"]);
    }

    #[test]
    fn errors_name_the_column_and_the_remedy() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let texts: StringArray = [Some("a"), None, Some("c"), None].into_iter().collect();
        let labels: Int64Array = [0, 1, 0, 1].into_iter().map(Some).collect();
        let batch =
            RecordBatch::try_new(Arc::new(schema()), vec![Arc::new(texts), Arc::new(labels)])
                .expect("columns fit");
        written(folder.path(), "t.arrow", &[batch]);
        let table = Table::open(&folder.path().join("t.arrow"), "t.arrow").expect("opens");
        let told =
            |error: StageError| format!("{error}. {}", error.help.clone().unwrap_or_default());
        insta::assert_snapshot!(told(table.text("text").expect_err("nulls")), @"column `text` of `t.arrow` has no value in 2 of 4 rows; the first is row 1 (counted from 0). remove or fill these rows before they come here, in a `command` stage or at the source");
        insta::assert_snapshot!(told(table.text("txt").expect_err("missing")), @"`t.arrow` has no column `txt`. did you mean `text`?");
        insta::assert_snapshot!(told(table.text("label").expect_err("type")), @"column `label` of `t.arrow` is whole numbers, not text. of this type: `text`");
        insta::assert_snapshot!(told(table.labels("text").expect_err("type")), @"column `text` of `t.arrow` is text, not classes (whole numbers). where the data is read, say `columns: { text: class }`");
    }

    #[test]
    fn a_cut_file_is_an_error_wherever_it_is_cut() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let bytes = written(folder.path(), "t.arrow", &[rows(0..50)]);
        for length in (0..bytes.len()).step_by(37) {
            let path = folder.path().join("cut.arrow");
            fs_err::write(&path, &bytes[..length]).expect("written");
            assert!(Table::open(&path, "cut.arrow").is_err(), "{length}");
        }
    }
}
