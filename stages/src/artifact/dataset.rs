//! A data set: one table a split.

use std::collections::BTreeMap;

use taper_cache::ArtifactType;
use taper_engine::{Artifact, ArtifactFiles, StageError};

use super::table::{Table, list, nearest};

/// The extension of a split's file.
pub const EXTENSION: &str = ".arrow";

/// A data set of raw columns: `SPLIT.arrow`, one Arrow IPC file a split.
#[derive(Clone, Debug)]
pub struct Dataset {
    splits: BTreeMap<String, Table>,
}

impl Artifact for Dataset {
    const TYPES: &'static [ArtifactType] = &[ArtifactType::Dataset];

    fn open(files: ArtifactFiles) -> Result<Self, StageError> {
        Ok(Self {
            splits: open_splits(&files)?,
        })
    }
}

/// Opens every `SPLIT.arrow` at the root of an artifact.
///
/// # Errors
/// Where one is not a whole Arrow IPC file, and where there is none.
pub fn open_splits(files: &ArtifactFiles) -> Result<BTreeMap<String, Table>, StageError> {
    let mut splits = BTreeMap::new();
    for name in files.names() {
        let Some(split) = name.strip_suffix(EXTENSION) else {
            continue;
        };
        if let Some(path) = files.path(name).filter(|_| !split.contains('/')) {
            splits.insert(split.to_owned(), Table::open(&path, name)?);
        }
    }
    match splits.is_empty() {
        true => Err(
            StageError::failed("there is no split: no file at its root ends in `.arrow`")
                .help("a data set has one Arrow IPC file a split, `train.arrow` for example"),
        ),
        false => Ok(splits),
    }
}

/// The split `name` of several.
///
/// # Errors
/// Where there is none of this name; the message names the nearest one.
pub fn find_split<'a, T>(splits: &'a BTreeMap<String, T>, name: &str) -> Result<&'a T, StageError> {
    splits.get(name).ok_or_else(|| {
        let error = StageError::invalid(format!("the data has no split `{name}`"));
        let names = || splits.keys().map(String::as_str);
        match nearest(name, names()) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help(format!("it has {}", list(names()))),
        }
    })
}

impl Dataset {
    /// The splits, by name ascending.
    pub fn splits(&self) -> impl Iterator<Item = (&str, &Table)> {
        self.splits
            .iter()
            .map(|(name, table)| (name.as_str(), table))
    }

    /// The split `name`.
    ///
    /// # Errors
    /// Where there is none of this name; the message names the nearest one.
    pub fn split(&self, name: &str) -> Result<&Table, StageError> {
        find_split(&self.splits, name)
    }
}
