//! Files that know their types: Parquet and Arrow, read in batches.

use std::io::Read;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use taper_engine::StageError;

use super::format::{Format, SourceFile};
use super::rows::Cell;
use crate::artifact::Table;
use crate::artifact::features::METADATA_KEY;
use crate::artifact::table::BATCH_ROWS;

/// Batches as they are read.
type Batches = Box<dyn Iterator<Item = Result<RecordBatch, StageError>>>;

/// Opens a file; answers its schema and its rows, which are read as they are asked for.
///
/// # Errors
/// Where the file is not what its format says.
///
/// # Panics
/// Where the format is a text format.
pub fn open(source: &SourceFile) -> Result<(SchemaRef, Batches), StageError> {
    let (schema, batches): (SchemaRef, Batches) = match source.format {
        Format::Parquet => open_parquet(source)?,
        Format::Arrow if is_arrow_file(source)? => {
            let table = Table::open(&source.path, &source.name)?;
            let batches = table.batches().to_vec();
            (
                table.schema().clone(),
                Box::new(batches.into_iter().map(Ok)),
            )
        }
        Format::Arrow => open_stream(source)?,
        _ => unreachable!("text formats are read row by row"),
    };
    let plain = Arc::new(plain_schema(&schema));
    let target = plain.clone();
    let name = source.name.clone();
    let batches = batches.map(move |batch| {
        let columns: Result<Vec<_>, _> = batch?.columns().iter().map(plain_array).collect();
        columns
            .and_then(|columns| RecordBatch::try_new(target.clone(), columns))
            .map_err(|error| StageError::failed(format!("cannot read `{name}`: {error}")))
    });
    Ok((plain, Box::new(batches)))
}

fn open_parquet(source: &SourceFile) -> Result<(SchemaRef, Batches), StageError> {
    let name = source.name.clone();
    let broken = move |error: &dyn std::fmt::Display| {
        let message = error.to_string();
        let help = match message.contains("feature") {
            true => "write it with the compression `snappy`, which every tool knows",
            false => "write it again, or download it again: it is cut or damaged",
        };
        StageError::failed(format!("`{name}` is not a whole Parquet file: {message}")).help(help)
    };
    let file = fs_err::File::open(&source.path)?.into_file();
    // Types as Parquet has them, whatever Arrow types the writer had: the same data is the same schema.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .map_err(|error| broken(&error))?;
    let described = reader
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .into_iter()
        .flatten()
        .find(|entry| entry.key == METADATA_KEY)
        .and_then(|entry| entry.value.clone());
    let fields = reader.schema().fields().clone();
    let metadata = described.map(|text| (METADATA_KEY.to_owned(), text));
    let schema = Arc::new(match metadata {
        Some(metadata) => Schema::new(fields).with_metadata([metadata]),
        None => Schema::new(fields),
    });
    let batches = reader
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| broken(&error))?;
    let batches = batches.map(move |batch| batch.map_err(|error| broken(&error)));
    Ok((schema, Box::new(batches)))
}

fn is_arrow_file(source: &SourceFile) -> Result<bool, StageError> {
    let mut magic = [0; 6];
    let mut file = fs_err::File::open(&source.path)?;
    Ok(file.read_exact(&mut magic).is_ok() && magic == *b"ARROW1")
}

fn open_stream(source: &SourceFile) -> Result<(SchemaRef, Batches), StageError> {
    let name = source.name.clone();
    let broken = move |error: &ArrowError| {
        StageError::failed(format!(
            "`{name}` is not a whole Arrow file or stream: {error}"
        ))
        .help("write it again, or download it again: it is cut or damaged")
    };
    let file = fs_err::File::open(&source.path)?;
    let reader = StreamReader::try_new_buffered(file, None).map_err(|error| broken(&error))?;
    let schema = reader.schema();
    let batches = reader.map(move |batch| batch.map_err(|error| broken(&error)));
    Ok((schema, Box::new(batches)))
}

/// The same columns without encodings: dictionaries as their values, views as texts.
fn plain_schema(schema: &Schema) -> Schema {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| {
            let data_type = match field.data_type() {
                DataType::Dictionary(_, values) => values.as_ref().clone(),
                DataType::Utf8View => DataType::Utf8,
                other => other.clone(),
            };
            Field::new(field.name(), data_type, field.is_nullable())
        })
        .collect();
    Schema::new(fields).with_metadata(schema.metadata().clone())
}

fn plain_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            arrow_select::take::take(dictionary.values(), dictionary.keys(), None)
        }
        DataType::Utf8View => {
            let texts: StringArray = array.as_string_view().iter().collect();
            Ok(Arc::new(texts))
        }
        _ => Ok(array.clone()),
    }
}

/// Whether [`cell`] knows the values of this type.
pub fn has_cells(data_type: &DataType) -> bool {
    let number = data_type.is_integer() && *data_type != DataType::UInt64;
    number
        || matches!(
            data_type,
            DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Boolean
                | DataType::Float32
                | DataType::Float64
        )
}

/// The value of a row; `None` where its type is none that can be declared.
pub fn cell(array: &dyn Array, row: usize) -> Option<Cell<'_>> {
    if array.is_null(row) {
        return Some(Cell::Missing);
    }
    macro_rules! whole {
        ($type:ty) => {
            Cell::Whole(i64::from(array.as_primitive::<$type>().value(row)))
        };
    }
    Some(match array.data_type() {
        DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Cell::Text(array.as_string::<i64>().value(row)),
        DataType::Boolean => Cell::Truth(array.as_boolean().value(row)),
        DataType::Int8 => whole!(Int8Type),
        DataType::Int16 => whole!(Int16Type),
        DataType::Int32 => whole!(Int32Type),
        DataType::Int64 => whole!(Int64Type),
        DataType::UInt8 => whole!(UInt8Type),
        DataType::UInt16 => whole!(UInt16Type),
        DataType::UInt32 => whole!(UInt32Type),
        DataType::Float32 => {
            Cell::Fraction(f64::from(array.as_primitive::<Float32Type>().value(row)))
        }
        DataType::Float64 => Cell::Fraction(array.as_primitive::<Float64Type>().value(row)),
        _ => return None,
    })
}
