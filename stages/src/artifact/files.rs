//! Any artifact, seen as the files that it is.

use taper_cache::ArtifactType;
use taper_engine::{Artifact, ArtifactFiles, StageError};

/// The files of an artifact of whatever type.
#[derive(Clone, Debug)]
pub struct Files(pub ArtifactFiles);

impl Artifact for Files {
    const TYPES: &'static [ArtifactType] = &ArtifactType::ALL;

    fn open(files: ArtifactFiles) -> Result<Self, StageError> {
        Ok(Self(files))
    }
}
