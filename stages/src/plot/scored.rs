//! What `plot` reads of metrics and predictions: counts of confusions, and scores with the true class.

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use serde::Deserialize;
use taper_cache::ArtifactType;
use taper_engine::{Artifact, ArtifactFiles, StageError};

use crate::artifact::Table;
use crate::artifact::dataset::{find_split, open_splits};

/// The confusion matrix of an `evaluate` stage.
#[derive(Clone, Debug, Deserialize)]
pub struct Confusion {
    /// The classes.
    pub labels: Vec<String>,
    /// A row for each true class, a column for each predicted one.
    pub counts: Vec<Vec<u64>>,
}

#[derive(Deserialize)]
struct MetricsFile {
    #[serde(default)]
    confusion_matrix: Option<Confusion>,
}

impl Artifact for Confusion {
    const TYPES: &'static [ArtifactType] = &[ArtifactType::Metrics];

    fn open(files: ArtifactFiles) -> Result<Self, StageError> {
        let path = files
            .path("metrics.json")
            .ok_or_else(|| StageError::failed("metrics without `metrics.json`"))?;
        let file: MetricsFile = serde_json::from_slice(&fs_err::read(path)?)
            .map_err(|error| StageError::failed(format!("`metrics.json`: {error}")))?;
        let confusion = file.confusion_matrix.ok_or_else(|| {
            StageError::invalid("the metrics have no confusion matrix")
                .help("name it in the `evaluate` stage: `metrics: [accuracy, confusion_matrix]`")
                .at("metrics")
        })?;
        let classes = confusion.labels.len();
        let square = confusion.counts.len() == classes
            && confusion.counts.iter().all(|row| row.len() == classes);
        if !square {
            return Err(StageError::failed(format!(
                "the confusion matrix of `metrics.json` has {} rows for {classes} classes",
                confusion.counts.len()
            )));
        }
        Ok(confusion)
    }
}

/// Predictions by split.
#[derive(Clone, Debug)]
pub struct Predicted {
    splits: std::collections::BTreeMap<String, Table>,
}

impl Artifact for Predicted {
    const TYPES: &'static [ArtifactType] = &[ArtifactType::Predictions];

    fn open(files: ArtifactFiles) -> Result<Self, StageError> {
        Ok(Self {
            splits: open_splits(&files)?,
        })
    }
}

/// The rows of one split: the true class, and the score of every class.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The names of the classes.
    pub classes: Vec<String>,
    /// Of each row.
    pub truth: Vec<usize>,
    /// Of each row.
    pub predicted: Vec<usize>,
    /// Of each row, one for each class.
    pub scores: Vec<Vec<f32>>,
}

impl Predicted {
    /// The rows of the split `name`; of the only one where none is named.
    ///
    /// # Errors
    /// Where there is no such split, where several could be meant, and where the true classes are not known.
    pub fn scored(&self, name: Option<&str>) -> Result<Scored, StageError> {
        let table = match (name, self.splits.iter().next()) {
            (Some(name), _) => find_split(&self.splits, name).map_err(|error| error.at("split"))?,
            (None, Some((_, table))) if self.splits.len() == 1 => table,
            (None, _) => {
                let names: Vec<&str> = self.splits.keys().map(String::as_str).collect();
                return Err(StageError::invalid("the predictions have several splits")
                    .help(format!(
                        "name one: `split: {}`",
                        names.join("` or `split: ")
                    ))
                    .at("split"));
            }
        };
        if !table.columns().any(|column| column == "label") {
            return Err(StageError::invalid(format!(
                "the predictions of `{}` do not know the true classes",
                table.name()
            ))
            .help(
                "the figure compares predictions with labels: predict data that has a label column",
            )
            .at("predictions"));
        }
        let labels = table.labels("label")?;
        let predictions = table.labels("prediction")?;
        let scores = scores(table)?;
        let count = scores.first().map_or(0, Vec::len);
        let classes = labels
            .names
            .clone()
            .or_else(|| predictions.names.clone())
            .unwrap_or_else(|| (0..count).map(|class| class.to_string()).collect());
        let class = |label: &i64| {
            usize::try_from(*label)
                .ok()
                .filter(|class| *class < classes.len())
                .ok_or_else(|| {
                    StageError::invalid(format!(
                        "`{}` has the class {label}, outside its {} classes",
                        table.name(),
                        classes.len()
                    ))
                    .at("predictions")
                })
        };
        let truth = labels.values.iter().map(class).collect::<Result<_, _>>()?;
        let predicted = predictions
            .values
            .iter()
            .map(class)
            .collect::<Result<_, _>>()?;
        if scores.iter().any(|row| row.len() != classes.len()) {
            return Err(StageError::failed(format!(
                "`{}` has rows without a score for each of its {} classes",
                table.name(),
                classes.len()
            )));
        }
        Ok(Scored {
            classes,
            truth,
            predicted,
            scores,
        })
    }
}

impl Scored {
    /// How often each class was taken for which.
    pub fn confusion(&self) -> Confusion {
        let mut counts = vec![vec![0; self.classes.len()]; self.classes.len()];
        for (truth, predicted) in self.truth.iter().zip(&self.predicted) {
            counts[*truth][*predicted] += 1;
        }
        Confusion {
            labels: self.classes.clone(),
            counts,
        }
    }

    /// The score of one class, and whether it is the true one, of each row.
    pub fn against_rest(&self, class: usize) -> Vec<(f32, bool)> {
        self.truth
            .iter()
            .zip(&self.scores)
            .map(|(truth, scores)| (scores[class], *truth == class))
            .collect()
    }
}

fn scores(table: &Table) -> Result<Vec<Vec<f32>>, StageError> {
    let mut rows = Vec::with_capacity(table.rows());
    for chunk in table.column("scores")? {
        let row = |values: ArrayRef| {
            values
                .as_primitive_opt::<Float32Type>()
                .map(|values| values.values().to_vec())
                .ok_or_else(|| StageError::failed("the column `scores` is not of 32-bit numbers"))
        };
        match chunk.data_type() {
            DataType::FixedSizeList(..) => {
                let lists = chunk.as_fixed_size_list();
                for index in 0..lists.len() {
                    rows.push(row(lists.value(index))?);
                }
            }
            DataType::List(_) => {
                let lists = chunk.as_list::<i32>();
                for index in 0..lists.len() {
                    rows.push(row(lists.value(index))?);
                }
            }
            other => {
                return Err(StageError::failed(format!(
                    "the column `scores` is of {other}, not of lists"
                )));
            }
        }
    }
    Ok(rows)
}
