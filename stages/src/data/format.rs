//! The formats of files that data is read from.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a file holds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Comma-separated values, with the names of the columns in the first line.
    Csv,
    /// Tab-separated values, with the names of the columns in the first line.
    Tsv,
    /// One JSON object a line.
    Jsonl,
    /// An array of JSON objects, or one object a line.
    Json,
    /// Parquet.
    Parquet,
    /// Arrow IPC, the file format or the stream format.
    Arrow,
}

impl Format {
    /// The format of a file by its extension.
    pub fn of(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "json" => Some(Self::Json),
            "parquet" | "pq" => Some(Self::Parquet),
            "arrow" | "feather" | "ipc" => Some(Self::Arrow),
            _ => None,
        }
    }

    /// The extensions, for people.
    pub const EXTENSIONS: &'static str = "csv, tsv, jsonl, json, parquet, arrow";
}

/// A file to be read.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Where it is; this says nothing of its name.
    pub path: PathBuf,
    /// What it is called in messages.
    pub name: String,
    /// What it holds.
    pub format: Format,
}
