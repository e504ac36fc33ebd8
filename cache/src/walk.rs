//! Everything that is on the shelves: for `gc` and `verify`, which look at all of it.

use std::path::PathBuf;

use crate::error::CacheError;
use crate::layout::Shelf;
use crate::runs::names;
use crate::{Digest, Store};

/// The files of a shelf, in the order of their names.
pub(crate) struct Shelved {
    /// Where the name is a digest.
    pub(crate) named: Vec<Digest>,
    /// Where it is not.
    pub(crate) foreign: Vec<PathBuf>,
}

impl Store {
    pub(crate) fn shelved(&self, shelf: Shelf) -> Result<Shelved, CacheError> {
        let folder = self.layout().root().join(shelf.name());
        let mut shelved = Shelved {
            named: Vec::new(),
            foreign: Vec::new(),
        };
        for name in names(&folder)? {
            match name.parse() {
                Ok(digest) => shelved.named.push(digest),
                Err(_) => shelved.foreign.push(folder.join(name)),
            }
        }
        shelved.named.sort_unstable();
        shelved.foreign.sort_unstable();
        Ok(shelved)
    }

    /// The bytes of a blob; 0 where it is not there.
    pub(crate) fn size_of(&self, digest: &Digest) -> u64 {
        self.layout()
            .blob(digest)
            .symlink_metadata()
            .map_or(0, |metadata| metadata.len())
    }

    /// What the cache holds.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn usage(&self) -> Result<Usage, CacheError> {
        let blobs = self.shelved(Shelf::Blobs)?.named;
        Ok(Usage {
            blob_bytes: blobs.iter().map(|digest| self.size_of(digest)).sum(),
            blobs: blobs.len(),
            artifacts: self.shelved(Shelf::Manifests)?.named.len(),
            actions: self.shelved(Shelf::Actions)?.named.len(),
            runs: self.runs()?.len(),
            executions: self.executions()?.len(),
            unfinished: names(&self.layout().scratches())?.len(),
            quarantined: names(&self.layout().quarantine())?.len(),
        })
    }
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// Files by content.
    pub blobs: usize,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Artifacts, outputs of stages and files of projects among them.
    pub artifacts: usize,
    /// Stages that need not run again.
    pub actions: usize,
    /// Runs.
    pub runs: usize,
    /// Executions of runs.
    pub executions: usize,
    /// Stages with unfinished work to go on from.
    pub unfinished: usize,
    /// Damaged files that were set aside.
    pub quarantined: usize,
}
