//! What tests of training need: tokens of a few rows.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Int8Builder, Int32Builder, ListBuilder};
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use taper_cache::{ArtifactType, Digest};

use crate::artifact::tokens::{SETTINGS_FILE, TokenSettings, TokenSplit};
use crate::artifact::{Features, Table, write_table};
use crate::testing::Workshop;

/// A row of tokens.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its token ids.
    pub ids: Vec<i32>,
    /// Its segments, as many.
    pub segments: Vec<i8>,
    /// Its class; none, -1.
    pub label: Option<u32>,
}

/// Rows that can be learnt: class 1 has a token of the upper half of the vocabulary somewhere.
pub fn learnable(count: usize, vocab_size: i32) -> Vec<Row> {
    let half = vocab_size / 2;
    (0..count)
        .map(|row| {
            let mut ids: Vec<i32> = (0..3 + row % 5)
                .map(|place| 1 + (row * 7 + place * 3) as i32 % (half - 1))
                .collect();
            let label = (row * 5 / 3 % 2) as u32;
            if label == 1 {
                let place = row % ids.len();
                ids[place] = half + (row * 11) as i32 % half;
            }
            Row {
                segments: vec![0; ids.len()],
                ids,
                label: Some(label),
            }
        })
        .collect()
}

/// The rows as a split with the classes `zero` and `one`.
pub fn split(rows: &[Row]) -> TokenSplit {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("train.arrow");
    write(&path, rows);
    let table = Table::open(&path, "train.arrow").expect("a table");
    TokenSplit::new(&table, 1000).expect("tokens")
}

/// The splits as an artifact.
pub fn tokens(workshop: &Workshop, vocab_size: usize, splits: &[(&str, &[Row])]) -> Digest {
    let folder = workshop.fresh();
    for (name, rows) in splits {
        write(&folder.join(format!("{name}.arrow")), rows);
    }
    let settings = TokenSettings {
        max_length: 16,
        padding: Default::default(),
        truncation: Default::default(),
        pad_token_id: 0,
        vocab_size,
        text: vec!["text".to_owned()],
        label: Some("label".to_owned()),
    };
    settings
        .write(&folder.join(SETTINGS_FILE))
        .expect("written");
    fs_err::write(folder.join("tokenizer.json"), "{}").expect("written");
    workshop.keep(&folder, ArtifactType::Tokens)
}

fn write(path: &Path, rows: &[Row]) {
    let mut ids = ListBuilder::new(Int32Builder::new());
    let mut segments = ListBuilder::new(Int8Builder::new());
    let mut mask = ListBuilder::new(Int8Builder::new());
    for row in rows {
        ids.append_value(row.ids.iter().map(|&id| Some(id)));
        segments.append_value(row.segments.iter().map(|&segment| Some(segment)));
        mask.append_value(row.ids.iter().map(|_| Some(1)));
    }
    let labels: Int64Array = rows
        .iter()
        .map(|row| Some(row.label.map_or(-1, i64::from)))
        .collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("input_ids", Arc::new(ids.finish())),
        ("token_type_ids", Arc::new(segments.finish())),
        ("attention_mask", Arc::new(mask.finish())),
        ("label", Arc::new(labels)),
    ];
    let fields: Vec<_> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, DataType::clone(column.data_type()), true))
        .collect();
    let schema = Schema::new(fields);
    let names = ["zero".to_owned(), "one".to_owned()];
    let schema = Features::of(&schema)
        .with_classes("label", &names)
        .describe(&schema);
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let batch = RecordBatch::try_new(Arc::new(schema.clone()), columns).expect("columns fit");
    write_table(path, &schema, [Ok(batch)]).expect("written");
}
