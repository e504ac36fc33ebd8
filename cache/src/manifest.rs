//! A manifest: the typed tree of named blobs that an artifact is.
//!
//! Its canonical form is text, so that any tool can check it (`b3sum` gives the artifact's digest):
//!
//! ```text
//! taper manifest 1
//! type dataset
//! <64 hexadecimal digits> <bytes> <name>      one line a blob, names ascending by bytes
//! ```

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// What an artifact is, so that wiring can be checked before anything runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactType {
    /// One Arrow IPC file a split.
    Dataset,
    /// Token ids, one Arrow IPC file a split, and the tokenizer that made them.
    Tokens,
    /// A Hugging Face model folder.
    Model,
    /// `metrics.json`.
    Metrics,
    /// Label and scores a row, one Arrow IPC file a split.
    Predictions,
    /// `plot.svg`, `plot.png`, `plot.json`.
    Plot,
    /// Any files.
    Files,
}

impl ArtifactType {
    /// Every type, in the order in which they are listed to people.
    pub const ALL: [Self; 7] = [
        Self::Dataset,
        Self::Tokens,
        Self::Model,
        Self::Metrics,
        Self::Predictions,
        Self::Plot,
        Self::Files,
    ];

    /// Its name in pipeline files and manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Tokens => "tokens",
            Self::Model => "model",
            Self::Metrics => "metrics",
            Self::Predictions => "predictions",
            Self::Plot => "plot",
            Self::Files => "files",
        }
    }
}

impl fmt::Display for ArtifactType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ArtifactType {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        Self::ALL
            .into_iter()
            .find(|artifact_type| artifact_type.name() == text)
            .ok_or_else(|| ManifestError::UnknownType(text.to_owned()))
    }
}

/// A blob's name inside its artifact: a relative path with `/` between its parts, safe to create
/// below any folder on any system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobName(String);

impl std::borrow::Borrow<str> for BlobName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl BlobName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`ManifestError::BadName`] where the name is empty, absolute, over 1024 bytes, has an empty
    /// part, `.` or `..`, or a part that cannot stand on every system (see [`is_portable`]).
    pub fn new(name: impl Into<String>) -> Result<Self, ManifestError> {
        let name = name.into();
        let bad = |why| ManifestError::BadName {
            name: name.clone(),
            why,
        };
        if name.is_empty() || name.len() > 1024 {
            return Err(bad("it has to have 1 to 1024 bytes"));
        }
        if name
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(bad("it has to stay below its folder"));
        }
        name.split('/').try_for_each(is_portable).map_err(bad)?;
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a file or a folder can have this name on every system.
///
/// # Errors
/// The rule that it breaks.
pub fn is_portable(part: &str) -> Result<(), &'static str> {
    const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
    if part
        .chars()
        .any(|c| c.is_control() || r#"<>:"\|?*"#.contains(c))
    {
        return Err(r#"control characters and any of `<>:"\|?*` are not portable"#);
    }
    if part.ends_with(['.', ' ']) {
        return Err("a dot or a space at the end of a name is lost on Windows");
    }
    let stem = part.split('.').next().unwrap_or(part).trim_end();
    let stem = stem.to_ascii_lowercase();
    let numbered = ["com", "lpt"]
        .iter()
        .filter_map(|port| stem.strip_prefix(port))
        .any(|number| matches!(number.as_bytes(), [b'1'..=b'9']));
    match numbered || DEVICES.contains(&stem.as_str()) {
        true => Err("Windows means a device by it, with any extension"),
        false => Ok(()),
    }
}

impl TryFrom<String> for BlobName {
    type Error = ManifestError;

    fn try_from(name: String) -> Result<Self, ManifestError> {
        Self::new(name)
    }
}

impl From<BlobName> for String {
    fn from(name: BlobName) -> Self {
        name.0
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Blob {
    /// The digest of its bytes.
    pub digest: Digest,
    /// The number of its bytes.
    pub size: u64,
}

/// A typed tree of named blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What the artifact is.
    pub artifact_type: ArtifactType,
    /// Its files.
    pub blobs: BTreeMap<BlobName, Blob>,
}

/// Why a text is not a manifest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// The name cannot stand for a file below a folder.
    #[error("`{name}` cannot name a file of an artifact: {why}")]
    BadName {
        /// The name.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// Two names that some file systems cannot keep apart.
    #[error("`{0}` and `{1}` are one name where case does not count")]
    CaseCollision(String, String),
    /// A name that is a file and a folder at once.
    #[error("`{0}` is a file and a folder")]
    FileAndFolder(String),
    /// No artifact type has this name.
    #[error("`{0}` is no artifact type")]
    UnknownType(String),
    /// The text is not in the canonical form.
    #[error("line {line} of the manifest is not in its canonical form")]
    NotCanonical {
        /// 1-based.
        line: usize,
    },
}

impl Manifest {
    /// Checks and takes the files of an artifact.
    ///
    /// # Errors
    /// Where two names collide on a file system that ignores case, or one is a folder of another.
    pub fn new(
        artifact_type: ArtifactType,
        blobs: BTreeMap<BlobName, Blob>,
    ) -> Result<Self, ManifestError> {
        let mut folded: BTreeMap<String, &BlobName> = BTreeMap::new();
        for name in blobs.keys() {
            if let Some(other) = folded.insert(name.0.to_lowercase(), name) {
                return Err(ManifestError::CaseCollision(
                    other.0.clone(),
                    name.0.clone(),
                ));
            }
        }
        for name in folded.keys() {
            for (slash, _) in name.match_indices('/') {
                if let Some(file) = folded.get(&name[..slash]) {
                    return Err(ManifestError::FileAndFolder(file.0.clone()));
                }
            }
        }
        Ok(Self {
            artifact_type,
            blobs,
        })
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("taper manifest 1\ntype {}\n", self.artifact_type);
        for (name, blob) in &self.blobs {
            writeln!(text, "{} {} {name}", blob.digest, blob.size).expect("strings grow");
        }
        text.into_bytes()
    }

    /// Reads the canonical bytes; no other form of the same manifest is taken.
    ///
    /// # Errors
    /// Where the bytes are not what [`Manifest::to_bytes`] would write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let broken = |line| ManifestError::NotCanonical { line };
        let text = std::str::from_utf8(bytes).map_err(|_| broken(1))?;
        let mut lines = text.split_terminator('\n');
        if lines.next() != Some("taper manifest 1") {
            return Err(broken(1));
        }
        let artifact_type = lines
            .next()
            .and_then(|line| line.strip_prefix("type "))
            .ok_or_else(|| broken(2))?
            .parse()?;
        let mut blobs = BTreeMap::new();
        for (index, line) in lines.enumerate() {
            let here = || broken(index + 3);
            let mut parts = line.splitn(3, ' ');
            let mut part = || parts.next().ok_or_else(here);
            let digest = part()?.parse().map_err(|_| here())?;
            let size = part()?.parse().map_err(|_| here())?;
            let name = BlobName::new(part()?)?;
            blobs.insert(name, Blob { digest, size });
        }
        let manifest = Self::new(artifact_type, blobs)?;
        if manifest.to_bytes() != bytes {
            return Err(broken(3));
        }
        Ok(manifest)
    }

    /// The artifact's digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// The bytes of all its files.
    pub fn size(&self) -> u64 {
        self.blobs.values().map(|blob| blob.size).sum()
    }

    /// The files below `folder`, as an artifact of its own; `None` where there are none.
    pub fn part(&self, folder: &str, artifact_type: ArtifactType) -> Option<Self> {
        let prefix = format!("{folder}/");
        let blobs: BTreeMap<_, _> = self
            .blobs
            .iter()
            .filter_map(|(name, blob)| {
                let below = name.0.strip_prefix(&prefix)?;
                Some((BlobName(below.to_owned()), *blob))
            })
            .collect();
        (!blobs.is_empty()).then_some(Self {
            artifact_type,
            blobs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(names: &[&str]) -> Result<Manifest, ManifestError> {
        let blobs = names
            .iter()
            .map(|name| {
                let blob = Blob {
                    digest: Digest::of(name.as_bytes()),
                    size: name.len() as u64,
                };
                Ok((BlobName::new(*name)?, blob))
            })
            .collect::<Result<_, ManifestError>>()?;
        Manifest::new(ArtifactType::Dataset, blobs)
    }

    #[test]
    fn canonical_form_is_read_back_and_no_other_is() {
        let whole = manifest(&["b/c.arrow", "a.arrow"]).expect("good names");
        let bytes = whole.to_bytes();
        assert_eq!(Manifest::from_bytes(&bytes), Ok(whole));
        let text = String::from_utf8(bytes).expect("text");
        for other in [
            text.trim_end().to_owned(),
            text.replace("a.arrow", "./a.arrow"),
            text.replace(" 7 ", " 07 "),
            text.replace("dataset", "data"),
        ] {
            assert!(Manifest::from_bytes(other.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn names_that_leave_or_collide_are_refused() {
        for name in [
            "",
            "/a",
            "../a",
            "a/../b",
            "a//b",
            "a\\b",
            "c:",
            "a\nb",
            "a?",
            "a. ",
            "b./a",
            "nul",
            "d/Aux.txt",
            "COM1/a",
            "lpt9 .tar.gz",
        ] {
            assert!(manifest(&[name]).is_err(), "{name:?}");
        }
        for name in ["console", "com0", "com10", "a.nul", ".aux-", "lpt"] {
            assert!(manifest(&[name]).is_ok(), "{name:?}");
        }
        assert!(manifest(&["A.arrow", "a.arrow"]).is_err());
        assert!(manifest(&["a", "a/b"]).is_err());
    }
}
