//! Every folder below a cache's root.
//!
//! ```text
//! .taper/
//!   CACHEDIR.TAG            backup programs leave the folder out
//!   .gitignore              `*`
//!   format                  `taper cache 2`
//!   blobs/abcdef…           a file named by the BLAKE3 of its bytes; read-only
//!   manifests/abcdef…       an artifact's canonical manifest, named by its digest; read-only
//!   actions/abcdef…         what a key made, with the key's pre-image and the manifest
//!   records/abcdef…/        logs and event files of the execution that made a key's artifact
//!   runs/abcdef….run        what was run and what came out, named by the run's id
//!   executions/000000000042 one execution of a run: times, states, machine; numbered in order
//!   index/000000000100      what lists say of executions 1 to 100; made again where it is lost
//!   memories/BOOT/abcdef…   what a run in which nothing has changed needs to know, in this boot of the machine
//!   pins/NAME               a run or an artifact that `gc` keeps
//!   scratch/abcdef…/        partial downloads and checkpoints of a key; outlives a kill, where there are locks
//!   staging/                files and folders being written; of no worth after a kill
//!   locks/                  who computes what at the moment; never needed for correctness
//!   quarantine/             damaged files, set aside
//! ```
//!
//! Everything is a plain file with relative names: the folder can be copied, moved, and opened read-only.
//! A shelf has no folders by the first digits of names: file systems find one name among millions, and each
//! folder would have to be made, and its names synced by themselves.

use std::path::{Path, PathBuf};

use crate::{Digest, Key, RunId};

/// What the file `format` says.
pub(crate) const FORMAT: &str = "taper cache 2\n";

/// The signature that the Cache Directory Tagging Specification asks for.
pub(crate) const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
# This folder is a cache of taper. For information about cache directory tags see https://bford.info/cachedir/\n";

/// A folder whose files are named by digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shelf {
    /// Files by content.
    Blobs,
    /// Manifests by content.
    Manifests,
    /// Actions by key.
    Actions,
    /// Folders of logs by key.
    Records,
}

impl Shelf {
    /// Its folder's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Manifests => "manifests",
            Self::Actions => "actions",
            Self::Records => "records",
        }
    }
}

/// The paths below a cache's root. Makes no folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The cache in the folder `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn on(&self, shelf: Shelf, digest: &Digest) -> PathBuf {
        let mut path = self.root.join(shelf.name());
        path.push(digest.to_string());
        path
    }

    /// Where the blob with this content is, if it is there.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.on(Shelf::Blobs, digest)
    }

    /// Where the manifest with this digest is.
    pub fn manifest(&self, digest: &Digest) -> PathBuf {
        self.on(Shelf::Manifests, digest)
    }

    /// Where the action of `key` is.
    pub fn action(&self, key: &Key) -> PathBuf {
        self.on(Shelf::Actions, &key.0)
    }

    /// The folder of what a stage with this key wrote about its execution.
    pub fn record(&self, key: &Key) -> PathBuf {
        self.on(Shelf::Records, &key.0)
    }

    /// Where what was run is recorded.
    pub fn run(&self, id: &RunId) -> PathBuf {
        self.runs().join(format!("{id}.run"))
    }

    /// The folder of a key's unfinished work.
    pub fn scratch(&self, key: &Key) -> PathBuf {
        self.scratches().join(key.to_string())
    }

    /// The file whose lock says that somebody is making what `key` makes.
    pub(crate) fn key_lock(&self, key: &Key) -> PathBuf {
        self.locks().join(format!("key-{key}"))
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    pub(crate) fn executions(&self) -> PathBuf {
        self.root.join("executions")
    }

    pub(crate) fn execution(&self, sequence: u64) -> PathBuf {
        self.executions().join(format!("{sequence:012}"))
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(crate) fn memories(&self) -> PathBuf {
        self.root.join("memories")
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    pub(crate) fn scratches(&self) -> PathBuf {
        self.root.join("scratch")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_as_drawn() {
        let layout = Layout::new("/p/.taper");
        let digest = Digest::of(b"");
        let hex = digest.to_string();
        assert_eq!(layout.blob(&digest), Path::new("/p/.taper/blobs").join(hex));
        assert_eq!(
            layout.execution(42),
            Path::new("/p/.taper/executions/000000000042")
        );
    }
}
