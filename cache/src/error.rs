//! What goes wrong with a cache, and with which file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::ManifestError;

/// An operation on the cache that could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `sync`.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A folder could not be synced earlier.
    #[error("what was written may not outlive a power cut: the system could not write it")]
    NotDurable,
    /// The folder was made by another version of the program.
    #[error("{} has the format `{found}`, which this program does not know: another version of taper made it", path.display())]
    UnknownFormat {
        /// The cache's folder.
        path: PathBuf,
        /// What its `format` file says.
        found: String,
    },
    /// A stage left something that cannot be part of an artifact.
    #[error("{} cannot be part of an artifact: {why}", path.display())]
    NotAnArtifact {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Names that do not go together.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file was written to while it was read.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file of the cache is not what its name says, or is gone.
    #[error("{0}")]
    Damaged(Damage),
    /// Nothing in the cache has this name.
    #[error("the cache has no {what} {name}")]
    Missing {
        /// `artifact`, `run`.
        what: &'static str,
        /// The digest or prefix asked for.
        name: String,
    },
    /// Several things have this prefix.
    #[error("{count} runs begin with `{prefix}`: give more digits")]
    Ambiguous {
        /// The prefix asked for.
        prefix: String,
        /// How many there are.
        count: usize,
    },
    /// The text cannot be the beginning of an id.
    #[error("`{0}` is no run: give at least 4 of its hexadecimal digits")]
    NotAPrefix(String),
    /// An export would write where it must not.
    #[error("cannot export to `{}`: {why}", path.display())]
    UnsafeExport {
        /// The path asked for.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl CacheError {
    /// Wraps a refusal of the file system.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Whether the file system said that this cannot be written to.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
        ))
    }
}

impl From<CacheError> for io::Error {
    fn from(error: CacheError) -> Self {
        Self::other(error)
    }
}

/// A file of the cache that was not what its name says. It has been set aside where that was possible, so
/// that it is made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it was found.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// Where it is now, where it could be moved.
    pub aside: Option<PathBuf>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged: {}", self.path.display(), self.why)?;
        if let Some(aside) = &self.aside {
            write!(f, " (set aside as {})", aside.display())?;
        }
        Ok(())
    }
}

/// What is wrong with a file whose seal does not hold.
pub(crate) const NOT_AS_WRITTEN: &str = "its bytes are not those that were written";

/// What a look into the cache gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It is there and is what its name says.
    Found(T),
    /// It is not there.
    Missing,
    /// It was there, and was not what its name says: as good as missing, and worth a word.
    Damaged(Damage),
}

impl<T> Lookup<T> {
    /// What was found.
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(value) => Some(value),
            Self::Missing | Self::Damaged(_) => None,
        }
    }

    /// What was found, or why it cannot be had.
    ///
    /// # Errors
    /// [`CacheError::Missing`] or [`CacheError::Damaged`].
    pub fn required(self, what: &'static str, name: impl fmt::Display) -> Result<T, CacheError> {
        match self {
            Self::Found(value) => Ok(value),
            Self::Missing => Err(CacheError::Missing {
                what,
                name: name.to_string(),
            }),
            Self::Damaged(damage) => Err(CacheError::Damaged(damage)),
        }
    }
}

/// Whether an error only says that there is no such file.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// A path as it is shown: relative to `base` where it is below.
pub(crate) fn relative(path: &Path, base: &Path) -> PathBuf {
    path.strip_prefix(base).unwrap_or(path).to_path_buf()
}
