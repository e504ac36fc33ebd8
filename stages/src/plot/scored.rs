//! What `plot` takes of metrics and predictions: counts of confusions, and scores with the true class.

use taper_engine::StageError;

use crate::artifact::predictions::PredictionSplit;
use crate::artifact::{Metrics, Predictions};
use crate::metrics::{ConfusionMatrix, ConfusionTable, MetricValue};

/// The confusion matrix of metrics.
///
/// # Errors
/// Where they have none, or its rows and columns are not those of its classes.
pub fn confusion(metrics: &Metrics) -> Result<ConfusionTable, StageError> {
    let found = metrics.values.values().find_map(|value| match value {
        MetricValue::Confusion(table) => Some(table.clone()),
        _ => None,
    });
    let table = found.ok_or_else(|| {
        StageError::invalid("the metrics have no confusion matrix")
            .help("name it in the `evaluate` stage: `metrics: [accuracy, confusion_matrix]`")
            .at("metrics")
    })?;
    let classes = table.labels.len();
    let square =
        table.counts.len() == classes && table.counts.iter().all(|row| row.len() == classes);
    if !square {
        return Err(StageError::invalid(format!(
            "the confusion matrix of the metrics is not square: {} rows for {classes} classes",
            table.counts.len()
        ))
        .at("metrics"));
    }
    Ok(table)
}

/// The rows of one split whose true classes are known.
pub struct Scored<'p> {
    split: &'p PredictionSplit,
    /// The true class of each row.
    truth: Vec<u32>,
    /// The predicted class of each row.
    predicted: Vec<u32>,
}

impl<'p> Scored<'p> {
    /// The rows of the split `name`; of the only one where none is named.
    ///
    /// # Errors
    /// Where there is no such split, where several could be meant, and where a true class is not known.
    pub fn of(predictions: &'p Predictions, name: Option<&str>) -> Result<Self, StageError> {
        let mut splits = predictions.splits();
        let (name, split) = match (name, splits.next(), splits.next()) {
            (Some(name), ..) => {
                let split = predictions.split(name).map_err(|error| error.at("split"))?;
                (name, split)
            }
            (None, Some(only), None) => only,
            (None, ..) => {
                let names: Vec<&str> = predictions.splits().map(|(name, _)| name).collect();
                return Err(StageError::invalid("the predictions have several splits")
                    .help(format!(
                        "name one: `split: {}`",
                        names.join("` or `split: ")
                    ))
                    .at("split"));
            }
        };
        let classes = |values: &[i64]| {
            let class = |value: &i64| {
                let class = u32::try_from(*value).ok()?;
                ((class as usize) < split.classes.len()).then_some(class)
            };
            values.iter().map(class).collect::<Option<Vec<u32>>>()
        };
        let known = split.labels.as_ref().and_then(|labels| classes(labels));
        let truth = known.ok_or_else(|| {
            StageError::invalid(format!(
                "the predictions of `{name}` do not know the true class of every row"
            ))
            .help("the figure compares them with labels: predict data that has a label column")
            .at("predictions")
        })?;
        let predicted = classes(&split.predictions).ok_or_else(|| {
            StageError::failed(format!(
                "the predictions of `{name}` are not of its classes"
            ))
        })?;
        Ok(Self {
            split,
            truth,
            predicted,
        })
    }

    /// The names of the classes.
    pub fn classes(&self) -> &'p [String] {
        &self.split.classes
    }

    /// How often each class was taken for which.
    pub fn confusion(&self) -> ConfusionTable {
        let classes = self.split.classes.len();
        let matrix = ConfusionMatrix::new(&self.truth, &self.predicted, classes);
        ConfusionTable {
            labels: self.split.classes.clone(),
            counts: matrix.counts().to_vec(),
        }
    }

    /// The score of one class, and whether it is the true one, of each row.
    pub fn against_rest(&self, class: usize) -> Vec<(f32, bool)> {
        let truth = self.truth.iter().map(|truth| *truth as usize == class);
        self.split.scores_of(class).zip(truth).collect()
    }
}
