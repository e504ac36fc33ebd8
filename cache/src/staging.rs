//! A running stage's private folder. What is in it in the end becomes an artifact; after a kill it is of no
//! worth, and `gc` removes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::commit::Batch;
use crate::error::CacheError;
use crate::files;
use crate::locks::try_lock;
use crate::manifest::{ArtifactType, Blob, BlobName, Manifest, ManifestError};
use crate::{Action, Digest, Key, Store};

/// A private folder, locked as long as it is in use; removed when it is dropped.
#[derive(Debug)]
pub struct Staging {
    store: Store,
    folder: tempfile::TempDir,
    _in_use: File,
}

/// An artifact whose files are hashed and read-only, and have no names in the cache yet. Until it has been kept
/// `gc` removes nothing.
#[derive(Debug)]
pub struct Sealed {
    manifest: Manifest,
    batch: Batch,
    staging: Staging,
}

impl Sealed {
    /// The artifact.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Keeps the artifact and the action that says what made it: the action gets its name last. Returns when
    /// the bytes of all of them are on the disk; their names are with [`Store::sync`].
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn keep(mut self, action: &Action) -> Result<(), CacheError> {
        let store = &self.staging.store;
        store.add_action(action, &mut self.batch)?;
        store.commit(self.batch)
    }

    /// Keeps the files of the artifact, as nobody's.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn into_manifest(self) -> Result<Manifest, CacheError> {
        self.staging.store.commit(self.batch)?;
        Ok(self.manifest)
    }
}

impl Store {
    /// A private folder on the cache's file system.
    ///
    /// # Errors
    /// Where the cache cannot be written to.
    pub fn stage(&self) -> Result<Staging, CacheError> {
        let _keeping = self.keeping()?;
        let staging = self.layout().staging();
        let folder = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(&staging)
            .map_err(CacheError::io("make a folder in", &staging))?;
        let in_use = File::open(folder.path()).map_err(CacheError::io("open", folder.path()))?;
        // Without locks on this file system `gc` leaves every such folder alone.
        let _ = try_lock(&in_use);
        Ok(Staging {
            store: self.clone(),
            folder,
            _in_use: in_use,
        })
    }

    /// The folder for unfinished work of `key`, which outlives a kill; made where it is missing.
    ///
    /// # Errors
    /// Where the cache cannot be written to.
    pub fn scratch(&self, key: &Key) -> Result<PathBuf, CacheError> {
        self.prepare()?;
        let folder = self.layout().scratch(key);
        files::make_passing_folder(&folder)?;
        Ok(folder)
    }

    /// Removes the unfinished work of `key`.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn clear_scratch(&self, key: &Key) -> Result<(), CacheError> {
        remove_folder(&self.layout().scratch(key))
    }

    /// The folder for what an execution of `key` tells beside its artifact: made by whoever has something to
    /// tell. What an earlier one told is removed.
    ///
    /// # Errors
    /// Where the cache cannot be written to.
    pub fn fresh_record(&self, key: &Key) -> Result<PathBuf, CacheError> {
        self.prepare()?;
        let folder = self.layout().record(key);
        remove_folder(&folder)?;
        Ok(folder)
    }
}

impl Staging {
    /// The folder for the artifact's files; empty at first.
    pub fn out(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    /// Makes an artifact of the files, to be kept. Empty folders are no part of it.
    ///
    /// # Errors
    /// Where a file is a link or a special file, a name cannot stand everywhere or collides with another, a
    /// file is still being written to, or the file system refuses.
    pub fn seal(self, artifact_type: ArtifactType) -> Result<Sealed, CacheError> {
        let out = self.out();
        let mut names = BTreeMap::new();
        list(&out, &out, &mut names)?;
        let nothing = Blob {
            digest: Digest::of(b""),
            size: 0,
        };
        // Names first: a name that cannot be taken is said before any file is moved.
        let unnamed = names.keys().map(|name| (name.clone(), nothing)).collect();
        Manifest::new(artifact_type, unnamed)?;
        let mut batch = self.store.batch()?;
        let mut blobs = BTreeMap::new();
        for (name, path) in names {
            blobs.insert(name, self.store.take(&path, &mut batch)?);
        }
        Ok(Sealed {
            manifest: Manifest::new(artifact_type, blobs)?,
            batch,
            staging: self,
        })
    }
}

/// Every plain file below `folder`, by its name below `base`.
fn list(
    base: &Path,
    folder: &Path,
    names: &mut BTreeMap<BlobName, PathBuf>,
) -> Result<(), CacheError> {
    let reading = |error| CacheError::io("list", folder)(error);
    for entry in std::fs::read_dir(folder).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let path = entry.path();
        let file_type = entry.file_type().map_err(reading)?;
        if file_type.is_dir() {
            list(base, &path, names)?;
        } else if file_type.is_file() {
            let name = blob_name(base, &path)?;
            names.insert(name, path);
        } else {
            return Err(CacheError::NotAnArtifact {
                path,
                why: "it is a link or a special file".to_owned(),
            });
        }
    }
    Ok(())
}

/// The name of a file below `base`, with `/` between its parts.
///
/// # Errors
/// Where it is not UTF-8 or cannot stand for a file on every system.
pub fn blob_name(base: &Path, path: &Path) -> Result<BlobName, CacheError> {
    let below = path.strip_prefix(base).unwrap_or(path);
    let parts: Option<Vec<&str>> = below.iter().map(|part| part.to_str()).collect();
    let Some(parts) = parts else {
        return Err(CacheError::Manifest(ManifestError::BadName {
            name: below.to_string_lossy().into_owned(),
            why: "it is not UTF-8",
        }));
    };
    Ok(BlobName::new(parts.join("/"))?)
}

/// Removes a folder and what is in it, where there is one.
pub(crate) fn remove_folder(path: &Path) -> Result<(), CacheError> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if crate::error::is_absent(&error) => Ok(()),
        Err(error) => Err(CacheError::io("remove", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::fresh;

    #[test]
    fn what_is_left_becomes_the_artifact_and_the_folder_goes() {
        let (_folder, store) = fresh();
        let staging = store.stage().expect("staged");
        let out = staging.out();
        fs_err::create_dir_all(out.join("a/empty")).expect("made");
        fs_err::write(out.join("a/b.txt"), "b").expect("written");
        fs_err::write(out.join("c.txt"), "c").expect("written");
        let sealed = staging.seal(ArtifactType::Files).expect("sealed");
        let manifest = sealed.into_manifest().expect("kept");
        let names: Vec<_> = manifest.blobs.keys().map(BlobName::as_str).collect();
        assert_eq!(names, ["a/b.txt", "c.txt"]);
        assert!(store.verify_artifact(&manifest).expect("read").is_empty());
        assert!(!out.exists());
        assert_eq!(
            std::fs::read_dir(store.layout().staging())
                .expect("listed")
                .count(),
            0
        );
    }

    #[test]
    fn links_and_colliding_names_are_refused_before_anything_moves() {
        let (_folder, store) = fresh();
        let staging = store.stage().expect("staged");
        fs_err::write(staging.out().join("A"), "1").expect("written");
        fs_err::write(staging.out().join("a"), "2").expect("written");
        staging.seal(ArtifactType::Files).expect_err("they collide");
        let staging = store.stage().expect("staged");
        std::os::unix::fs::symlink("/etc/hostname", staging.out().join("l")).expect("linked");
        let error = staging.seal(ArtifactType::Files).expect_err("a link");
        assert!(error.to_string().contains("a link"), "{error}");
        assert!(!store.layout().root().join("blobs").exists());
    }

    #[test]
    fn scratch_outlives_and_is_cleared() {
        let (_folder, store) = fresh();
        let key = Key::of_ingredients(b"a");
        let folder = store.scratch(&key).expect("made");
        fs_err::write(folder.join("part"), "half").expect("written");
        let again = store.scratch(&key).expect("there");
        assert!(again.join("part").exists());
        store.clear_scratch(&key).expect("removed");
        store.clear_scratch(&key).expect("nothing to do");
        assert!(!again.exists());
    }
}
