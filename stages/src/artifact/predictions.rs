//! Predictions: what a model said of each row of a split.
//!
//! ```text
//! SPLIT.arrow   label Int64 (absent where no class is known), prediction Int64,
//!               scores FixedSizeList<Float32> (the probability of each class),
//!               and columns of the data that were copied, such as the text
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Array, ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use taper_cache::ArtifactType;
use taper_engine::{Artifact, ArtifactFiles, StageError};

use super::dataset::{find_split, open_splits};
use super::features::Features;
use super::table::Table;

/// The column of true classes.
pub const LABEL: &str = "label";
/// The column of predicted classes.
pub const PREDICTION: &str = "prediction";
/// The column of probabilities.
pub const SCORES: &str = "scores";

/// What a model said, by split.
#[derive(Clone, Debug)]
pub struct Predictions {
    splits: BTreeMap<String, PredictionSplit>,
}

/// What a model said of each row of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictionSplit {
    /// The names of the classes.
    pub classes: Vec<String>,
    /// The true classes, where they are known: -1 where one is not.
    pub labels: Option<Vec<i64>>,
    /// The predicted classes.
    pub predictions: Vec<i64>,
    /// The probability of each class, `[rows, classes]`.
    pub scores: Vec<f32>,
}

impl Artifact for Predictions {
    const TYPES: &'static [ArtifactType] = &[ArtifactType::Predictions];

    fn open(files: ArtifactFiles) -> Result<Self, StageError> {
        let splits = open_splits(&files)?;
        let read = |(name, table): (String, Table)| Ok((name, PredictionSplit::read(&table)?));
        let splits: Result<_, StageError> = splits.into_iter().map(read).collect();
        Ok(Self { splits: splits? })
    }
}

impl Predictions {
    /// Predictions of these splits.
    pub fn new(splits: BTreeMap<String, PredictionSplit>) -> Self {
        Self { splits }
    }

    /// The splits, by name ascending.
    pub fn splits(&self) -> impl Iterator<Item = (&str, &PredictionSplit)> {
        self.splits
            .iter()
            .map(|(name, split)| (name.as_str(), split))
    }

    /// The split `name`.
    ///
    /// # Errors
    /// Where there is none of this name; the message names the nearest one.
    pub fn split(&self, name: &str) -> Result<&PredictionSplit, StageError> {
        find_split(&self.splits, name)
    }
}

impl PredictionSplit {
    /// Reads a table of predictions.
    ///
    /// # Errors
    /// Where columns are missing, of other types, or do not fit each other.
    pub fn read(table: &Table) -> Result<Self, StageError> {
        let predictions = table.labels(PREDICTION)?;
        let labels = match table.columns().any(|column| column == LABEL) {
            true => Some(table.labels(LABEL)?.values),
            false => None,
        };
        let mut scores = Vec::new();
        for chunk in table.column(SCORES)? {
            let values = match chunk.data_type() {
                DataType::FixedSizeList(..) => chunk.as_fixed_size_list().values(),
                DataType::List(_) => chunk.as_list::<i32>().values(),
                _ => chunk,
            };
            let values = values.as_primitive_opt::<Float32Type>().ok_or_else(|| {
                StageError::failed(format!(
                    "column `{SCORES}` of `{}` is {}, not lists of 32-bit numbers",
                    table.name(),
                    chunk.data_type()
                ))
            })?;
            scores.extend_from_slice(values.values());
        }
        let rows = predictions.values.len();
        let width = scores.len().checked_div(rows).unwrap_or(0);
        let classes = predictions
            .names
            .unwrap_or_else(|| (0..width).map(|class| class.to_string()).collect());
        if scores.len() != rows * classes.len() {
            return Err(StageError::failed(format!(
                "`{}` has {} scores for {rows} rows of {} classes",
                table.name(),
                scores.len(),
                classes.len()
            )));
        }
        Ok(Self {
            classes,
            labels,
            predictions: predictions.values,
            scores,
        })
    }

    /// The probability of `class` of each row.
    pub fn scores_of(&self, class: usize) -> impl Iterator<Item = f32> + '_ {
        self.scores
            .chunks_exact(self.classes.len().max(1))
            .map(move |row| row[class])
    }

    /// As a table, with columns of the data before it.
    ///
    /// # Errors
    /// Where the columns do not have as many rows.
    pub fn to_batch(&self, copied: &[(Field, ArrayRef)]) -> Result<RecordBatch, ArrowError> {
        let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = copied.iter().cloned().unzip();
        if let Some(labels) = &self.labels {
            fields.push(Field::new(LABEL, DataType::Int64, false));
            columns.push(Arc::new(Int64Array::from(labels.clone())));
        }
        fields.push(Field::new(PREDICTION, DataType::Int64, false));
        columns.push(Arc::new(Int64Array::from(self.predictions.clone())));
        let item = Arc::new(Field::new_list_field(DataType::Float32, false));
        let width = self.classes.len() as i32;
        fields.push(Field::new(
            SCORES,
            DataType::FixedSizeList(item.clone(), width),
            false,
        ));
        let scores = Arc::new(Float32Array::from(self.scores.clone()));
        columns.push(Arc::new(FixedSizeListArray::try_new(
            item, width, scores, None,
        )?));
        let schema = Schema::new(fields);
        let mut features = Features::of(&schema).with_classes(PREDICTION, &self.classes);
        if self.labels.is_some() {
            features = features.with_classes(LABEL, &self.classes);
        }
        RecordBatch::try_new(Arc::new(features.describe(&schema)), columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::write_table;

    #[test]
    fn predictions_read_back() {
        let split = PredictionSplit {
            classes: vec!["no".to_owned(), "yes".to_owned()],
            labels: Some(vec![1, -1, 0]),
            predictions: vec![1, 0, 1],
            scores: vec![0.25, 0.75, 1.0, 0.0, 0.5, 0.5],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.arrow");
        let batch = split.to_batch(&[]).unwrap();
        write_table(&path, &batch.schema(), [Ok(batch.clone())]).unwrap();
        let table = Table::open(&path, "test.arrow").unwrap();
        assert_eq!(PredictionSplit::read(&table).unwrap(), split);
        assert_eq!(split.scores_of(1).collect::<Vec<_>>(), [0.75, 0.0, 0.5]);
    }
}
