//! Metrics: one `metrics.json`.

use std::path::Path;

use taper_cache::ArtifactType;
use taper_engine::{Artifact, ArtifactFiles, StageError};

use crate::metrics::MetricValues;

/// The name of the file.
pub const METRICS_FILE: &str = "metrics.json";

/// What an evaluation came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The metrics by name.
    pub values: MetricValues,
}

impl Artifact for Metrics {
    const TYPES: &'static [ArtifactType] = &[ArtifactType::Metrics];

    fn open(files: ArtifactFiles) -> Result<Self, StageError> {
        let path = files.path(METRICS_FILE).ok_or_else(|| {
            StageError::failed(format!("metrics without `{METRICS_FILE}`"))
                .help("write the metrics to a file of this name")
        })?;
        Self::read(&path)
    }
}

impl Metrics {
    /// Reads `metrics.json`.
    ///
    /// # Errors
    /// Where it is not an object of numbers, confusion matrices and reports.
    pub fn read(path: &Path) -> Result<Self, StageError> {
        let values = serde_json::from_slice(&fs_err::read(path)?).map_err(|error| {
            StageError::failed(format!("`{METRICS_FILE}` cannot be read: {error}"))
                .help("it is an object of numbers: `{\"accuracy\": 0.91}`")
        })?;
        Ok(Self { values })
    }

    /// Writes `metrics.json`; the same values are the same bytes.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, path: &Path) -> Result<(), StageError> {
        let text = serde_json::to_string_pretty(&self.values)
            .map_err(|error| StageError::failed(format!("cannot write metrics: {error}")))?;
        Ok(fs_err::write(path, text + "\n")?)
    }
}
