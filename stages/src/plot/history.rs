//! What training logged, as a figure reads it: `history.jsonl` of a model.

use std::collections::{BTreeMap, BTreeSet};

use taper_cache::ArtifactType;
use taper_engine::{Artifact, ArtifactFiles, StageError};

const FILE: &str = "history.jsonl";

/// The logged steps of a training, each its numbers by name.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// In the order in which they were logged.
    pub rows: Vec<BTreeMap<String, f64>>,
}

impl Artifact for History {
    const TYPES: &'static [ArtifactType] = &[ArtifactType::Model];

    fn open(files: ArtifactFiles) -> Result<Self, StageError> {
        let path = files.path(FILE).ok_or_else(|| {
            StageError::invalid(format!(
                "the model has no `{FILE}`: it was not trained here"
            ))
            .help("learning curves show a model that a `train` stage made")
        })?;
        Self::parse(&fs_err::read_to_string(path)?)
    }
}

impl History {
    /// Reads one JSON object a line; what is not a number (a loss that was not finite) is left out.
    ///
    /// # Errors
    /// Where a line is not a JSON object.
    pub fn parse(text: &str) -> Result<Self, StageError> {
        let mut rows = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line)
                .map_err(|error| {
                    StageError::failed(format!("line {} of `{FILE}`: {error}", index + 1))
                })?;
            let numbers = object
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_f64()?)));
            rows.push(numbers.collect());
        }
        Ok(Self { rows })
    }

    /// The points of `y` over `x`.
    ///
    /// # Errors
    /// Where nothing was logged under one of the names; the message lists those there are.
    pub fn points(&self, x: &str, y: &str) -> Result<Vec<(f64, f64)>, StageError> {
        let points: Vec<(f64, f64)> = self
            .rows
            .iter()
            .filter_map(|row| Some((*row.get(x)?, *row.get(y)?)))
            .collect();
        if !points.is_empty() {
            return Ok(points);
        }
        let known: BTreeSet<&str> = self
            .rows
            .iter()
            .flatten()
            .map(|(k, _)| k.as_str())
            .collect();
        let known: Vec<&str> = known.into_iter().collect();
        Err(
            StageError::invalid(format!("training logged no `{y}`")).help(if known.is_empty() {
                "nothing was logged at all: lower `log_every` or `evaluate_every`".to_owned()
            } else {
                format!("it logged {}", known.join(", "))
            }),
        )
    }
}
