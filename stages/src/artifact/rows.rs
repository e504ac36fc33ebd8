//! Rows of a table as JSON, for people and programs that look into an artifact.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use serde_json::{Map, Value, json};

use super::Table;

impl Table {
    /// The first `count` rows, each an object by column. A value of a type that has no JSON form is named by
    /// its type.
    pub fn first_rows(&self, count: usize) -> Vec<Map<String, Value>> {
        let names: Vec<&str> = self.columns().collect();
        let mut rows = Vec::new();
        for batch in self.batches() {
            for row in 0..batch.num_rows().min(count - rows.len()) {
                let columns = names.iter().zip(batch.columns());
                rows.push(
                    columns
                        .map(|(name, column)| ((*name).to_owned(), value(column, row)))
                        .collect(),
                );
            }
        }
        rows
    }
}

fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let list = |items: ArrayRef| (0..items.len()).map(|index| value(&items, index)).collect();
    match column.data_type() {
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => json!(column.as_string::<i64>().value(row)),
        DataType::Boolean => json!(column.as_boolean().value(row)),
        DataType::Int8 => json!(column.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => json!(column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => json!(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => json!(column.as_primitive::<UInt8Type>().value(row)),
        DataType::UInt16 => json!(column.as_primitive::<UInt16Type>().value(row)),
        DataType::UInt32 => json!(column.as_primitive::<UInt32Type>().value(row)),
        DataType::UInt64 => json!(column.as_primitive::<UInt64Type>().value(row)),
        DataType::Float32 => json!(column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => json!(column.as_primitive::<Float64Type>().value(row)),
        DataType::List(_) => list(column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(column.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => list(column.as_fixed_size_list().value(row)),
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            let entries = fields.iter().zip(columns);
            Value::Object(
                entries
                    .map(|(field, column)| (field.name().clone(), value(column, row)))
                    .collect(),
            )
        }
        other => json!(format!("<{other}>")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int32Type;
    use arrow_array::{BooleanArray, Int64Array, ListArray, RecordBatch, StringArray};

    use super::super::TableWriter;
    use super::*;

    #[test]
    fn rows_become_objects_and_no_more_than_asked_for() {
        let lists = vec![Some(vec![Some(1), Some(2)]), Some(vec![]), None];
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("text", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
            ("label", Arc::new(Int64Array::from(vec![1, 0, 1]))),
            (
                "long",
                Arc::new(BooleanArray::from(vec![true, false, true])),
            ),
            (
                "ids",
                Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
            ),
        ];
        let nullable = columns
            .into_iter()
            .map(|(name, column)| (name, column, true));
        let batch = RecordBatch::try_from_iter_with_nullable(nullable).expect("equal lengths");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.arrow");
        let mut writer = TableWriter::create(&path, &batch.schema()).expect("created");
        writer.write(&batch).expect("written");
        writer.finish().expect("finished");
        let table = Table::open(&path, "a").expect("whole");
        assert_eq!(
            serde_json::json!(table.first_rows(2)),
            serde_json::json!([
                {"ids": [1, 2], "label": 1, "long": true, "text": "a"},
                {"ids": [], "label": 0, "long": false, "text": "b"},
            ])
        );
        assert_eq!(table.first_rows(9).len(), 3);
        assert_eq!(table.first_rows(9)[2]["ids"], Value::Null);
    }
}
