//! What stops the engine itself, as opposed to a stage: the cache, the lock file, the project.

use std::path::PathBuf;

use taper_cache::CacheError;
use taper_cache::manifest::ManifestError;

use crate::kind::{StageError, StageErrorKind};

/// Why the engine cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The cache is damaged beyond what is repaired by itself, or cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A file of the project cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// `taper.toml` is not what it should be.
    #[error("{}: {message}", path.display())]
    Project {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The lock file is not what the program writes.
    #[error("{}: {message}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The lock file would have to change, and must not.
    #[error("{} is locked and would change: {what}", path.display())]
    WouldChange {
        /// The file.
        path: PathBuf,
        /// What would change.
        what: String,
    },
    /// No stage has this name; the message says which there are.
    #[error("{0}")]
    NoStage(String),
    /// A record or a job names what this program does not know.
    #[error("{0}")]
    Unknown(String),
}

impl EngineError {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::Cache(CacheError::Damaged(_) | CacheError::Missing { .. }) => {
                "`taper verify` reads everything; `taper run` makes again what is missing"
            }
            Self::Cache(CacheError::UnknownFormat { .. }) => {
                "use that version, or name another folder with TAPER_CACHE"
            }
            Self::Cache(error) if error.is_read_only() => {
                "name a folder that can be written to with TAPER_CACHE"
            }
            Self::Lock { .. } => "restore it from git, or remove it to resolve everything anew",
            Self::WouldChange { .. } => {
                "run without --locked to bring it up to date, and commit it"
            }
            Self::Project { .. } => "the keys of taper.toml are: cache = \"FOLDER\"",
            _ => return None,
        };
        Some(help.to_owned())
    }
}

impl From<CacheError> for StageError {
    fn from(error: CacheError) -> Self {
        let kind = match &error {
            CacheError::Damaged(_) => StageErrorKind::Damaged,
            CacheError::UnsafeExport { .. } => StageErrorKind::Invalid,
            _ => StageErrorKind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ManifestError> for StageError {
    fn from(error: ManifestError) -> Self {
        Self::failed(error.to_string())
    }
}
