//! A running stage's private folder. What is in it in the end becomes an artifact; after a kill it is of no
//! worth, and `gc` removes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::commit::Batch;
use crate::error::CacheError;
use crate::files;
use crate::locks::{own_mark, try_lock};
use crate::manifest::{ArtifactType, Blob, BlobName, Manifest, ManifestError};
use crate::{Action, Digest, Key, KeyLock, Store, planted};

/// A private folder, locked as long as it is in use; removed when it is dropped.
#[derive(Debug)]
pub struct Staging {
    store: Store,
    folder: tempfile::TempDir,
    _in_use: File,
}

/// The folder for unfinished work of a key; it goes when this is dropped, where the work is finished, it is empty or
/// nobody could find it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    own: Option<Staging>,
    finished: bool,
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
    /// the bytes of all of them are on the disk; their names are with [`Store::sync`]. What is left of the folder is
    /// removed when the answer is dropped.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn keep(mut self, action: &Action) -> Result<Staging, CacheError> {
        let store = &self.staging.store;
        store.add_action(action, &mut self.batch)?;
        store.commit(self.batch)?;
        Ok(self.staging)
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
            .prefix(&format!("work-{}", own_mark()))
            .tempdir_in(&staging)
            .map_err(CacheError::io("make a folder in", &staging))?;
        let in_use = File::open(folder.path()).map_err(CacheError::io("open", folder.path()))?;
        // Without locks on this file system `gc` asks whether the process that its name tells is still there.
        let _ = try_lock(&in_use);
        Ok(Staging {
            store: self.clone(),
            folder,
            _in_use: in_use,
        })
    }

    /// The folder for unfinished work of `key`. Who holds the key's lock for sure has the one that outlives a kill,
    /// with what an earlier attempt has left there. Where there are no locks another program may be at the same
    /// key, so that each has a folder of its own and begins anew.
    ///
    /// # Errors
    /// Where the cache cannot be written to.
    pub fn scratch(&self, key: &Key, lock: Option<&KeyLock>) -> Result<Scratch, CacheError> {
        if !lock.is_some_and(KeyLock::is_sure) && !planted("scratch-shared") {
            let own = self.stage()?;
            let path = own.out();
            return Ok(Scratch {
                path,
                own: Some(own),
                finished: false,
            });
        }
        self.prepare()?;
        let path = self.layout().scratch(key);
        files::make_passing_folder(&path)?;
        Ok(Scratch {
            path,
            own: None,
            finished: false,
        })
    }

    /// The folder for what an execution of `key` tells beside its artifact: made by whoever has something to
    /// tell. What an earlier one told is removed by who holds the key's lock for sure.
    ///
    /// # Errors
    /// Where the cache cannot be written to.
    pub fn record_folder(&self, key: &Key, lock: Option<&KeyLock>) -> Result<PathBuf, CacheError> {
        let folder = self.layout().record(key);
        if lock.is_some_and(KeyLock::is_sure) {
            remove_folder(&folder)?;
        }
        Ok(folder)
    }
}

impl Scratch {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says that the work is finished: what is in it goes with it.
    pub fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.own.is_some() {
            return;
        }
        if !self.finished {
            // It stays where something is in it.
            let _ = std::fs::remove_dir(&self.path);
        } else if let Err(error) = remove_folder(&self.path) {
            tracing::debug!(%error, "finished work stays until `gc` removes it");
        }
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

/// Removes a folder and what is in it, where there is one. What somebody puts into it meanwhile may stay, and the folder
/// with it.
pub(crate) fn remove_folder(path: &Path) -> Result<(), CacheError> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if crate::error::is_absent(&error) => Ok(()),
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(error) => Err(CacheError::io("remove", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

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
    fn a_folder_that_somebody_writes_into_can_be_removed() {
        let (folder, _) = fresh();
        let busy = folder.path().join("busy");
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while !over.load(Ordering::Relaxed) {
                    number += 1;
                    let _ = std::fs::create_dir(&busy);
                    let _ = fs_err::write(busy.join(number.to_string()), "x");
                }
            });
            let error = (0..2000).find_map(|_| remove_folder(&busy).err());
            over.store(true, Ordering::Relaxed);
            assert!(error.is_none(), "{error:?}");
        });
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
    fn unfinished_work_outlives_its_holder_and_is_cleared() {
        let (_folder, store) = fresh();
        let key = Key::of_ingredients(b"a");
        let lock = store.try_lock(&key).expect("works");
        let folder = || store.scratch(&key, lock.as_ref()).expect("made");
        fs_err::write(folder().path().join("part"), "half").expect("written");
        let mut again = folder();
        assert!(again.path().join("part").exists());
        let path = again.path().to_owned();
        again.finish();
        drop(again);
        assert!(!path.exists());
        drop(folder());
        assert!(!path.exists(), "it was empty");
    }

    #[test]
    fn who_has_no_lock_works_in_a_folder_of_its_own() {
        let (_folder, store) = fresh();
        let key = Key::of_ingredients(b"a");
        let two = [(); 2].map(|()| store.scratch(&key, None).expect("made"));
        assert_ne!(two[0].path(), two[1].path());
        fs_err::write(two[0].path().join("part"), "half").expect("written");
        let paths = two.each_ref().map(|scratch| scratch.path().to_owned());
        drop(two);
        assert!(!paths.iter().any(|path| path.exists()));
    }
}
