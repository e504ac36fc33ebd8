//! Blobs: files named by their content, read-only.
//!
//! What is hashed is what is kept: a file that a stage left is taken over by rename, a file of the user's is
//! copied first and the copy is hashed. A blob that is there already is replaced by the new one with the same
//! name, so making an artifact again repairs it.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::commit::{Batch, Held};
use crate::error::{CacheError, Damage, Lookup, is_absent};
use crate::files::{self, Identity};
use crate::manifest::Blob;
use crate::store::is_no_file;
use crate::{Digest, Store, planted};

/// Files of so many bytes are copied through memory: what is hashed is what is written.
const SMALL: u64 = 64 << 10;

impl Store {
    /// Takes over a file that a stage left in its staging folder, with a batch; it is gone from there when
    /// the batch is committed.
    ///
    /// # Errors
    /// Where it is no plain file, changes while it is read, or the file system refuses.
    pub(crate) fn take(&self, path: &Path, batch: &mut Batch) -> Result<Blob, CacheError> {
        let blob = self.harden(path)?;
        let target = self.layout().blob(&blob.digest);
        self.add(batch, Held::Staged(path.to_path_buf()), target)?;
        Ok(blob)
    }

    /// Copies a file of the user's into the cache with a batch. What is not small shares its blocks where the file
    /// system can.
    ///
    /// # Errors
    /// Where it is no plain file or the file system refuses.
    pub fn copy_in(&self, path: &Path, batch: &mut Batch) -> Result<Blob, CacheError> {
        let (mut from, metadata) = files::open(path).map_err(CacheError::io("read", path))?;
        if metadata.len() <= SMALL {
            let bytes = files::read_open(&mut from, metadata.len())
                .map_err(CacheError::io("read", path))?;
            let blob = Blob {
                digest: Digest::of(&bytes),
                size: bytes.len() as u64,
            };
            let target = self.layout().blob(&blob.digest);
            self.add_bytes(batch, target, &bytes, 0o444)?;
            return Ok(blob);
        }
        let mut copy = files::temporary(&self.layout().staging(), 0o666)?;
        files::clone(&mut from, copy.as_file_mut()).map_err(CacheError::io("copy", path))?;
        let copy = copy.into_temp_path();
        let blob = self.harden(&copy)?;
        let target = self.layout().blob(&blob.digest);
        self.add(batch, Held::Ours(copy), target)?;
        Ok(blob)
    }

    /// The digest and size of a file of the user's, which is not kept.
    ///
    /// # Errors
    /// Where it is no plain file, changes while it is read, or cannot be read.
    pub fn digest_of(path: &Path) -> Result<Blob, CacheError> {
        Ok(Self::look_at(path)?.0)
    }

    /// The digest and size of a file of the user's, and what tells its state from others.
    ///
    /// # Errors
    /// Where it is no plain file, changes while it is read, or cannot be read.
    pub fn look_at(path: &Path) -> Result<(Blob, Identity), CacheError> {
        let (mut file, before) = files::open(path).map_err(CacheError::io("read", path))?;
        let (digest, size) =
            files::digest(&mut file, before.len()).map_err(CacheError::io("read", path))?;
        let after = file.metadata().map_err(CacheError::io("read", path))?;
        if Identity::of(&before) != Identity::of(&after) {
            return Err(CacheError::Changed {
                path: path.to_path_buf(),
            });
        }
        Ok((Blob { digest, size }, Identity::of(&after)))
    }

    /// Whether the blob is there and has its size. Reads nothing.
    pub fn has_blob(&self, blob: &Blob) -> bool {
        self.layout()
            .blob(&blob.digest)
            .symlink_metadata()
            .is_ok_and(|found| found.is_file() && found.len() == blob.size)
    }

    /// Reads a blob and compares it with its name; a damaged one is set aside. Read once in a process, as
    /// long as its size, times and place on the disk stay the same.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn verify_blob(&self, blob: &Blob) -> Result<Lookup<PathBuf>, CacheError> {
        let path = self.layout().blob(&blob.digest);
        let known = self
            .inner
            .whole
            .lock()
            .map(|whole| whole.get(&blob.digest).copied());
        if let Ok(Some(known)) = known
            && Identity::at(&path) == Some(known)
        {
            return Ok(Lookup::Found(path));
        }
        match self.blob_damage(&path, blob) {
            Ok(None) => Ok(Lookup::Found(path)),
            Ok(Some(why)) => Ok(Lookup::Damaged(self.set_aside(&path, why))),
            Err(error) if is_absent(&error) => Ok(Lookup::Missing),
            Err(error) => Err(CacheError::io("read", path)(error)),
        }
    }

    /// What is wrong with a blob, if anything is.
    pub(crate) fn blob_damage(&self, path: &Path, blob: &Blob) -> std::io::Result<Option<String>> {
        let (mut file, metadata) = match files::open(path) {
            Ok(opened) => opened,
            Err(error) if is_no_file(&error) => {
                return Ok(Some("it is not a plain file".to_owned()));
            }
            Err(error) => return Err(error),
        };
        if metadata.len() != blob.size {
            return Ok(Some(format!(
                "it has {} bytes instead of {}",
                metadata.len(),
                blob.size
            )));
        }
        if !planted("verify-skipped") && files::digest(&mut file, blob.size)?.0 != blob.digest {
            return Ok(Some("its bytes are not those of its name".to_owned()));
        }
        if let Ok(mut whole) = self.inner.whole.lock() {
            whole.insert(blob.digest, Identity::of(&metadata));
        }
        Ok(None)
    }

    /// Reads every blob of an artifact; what is damaged is set aside. Empty where all is well.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn verify_artifact(&self, manifest: &crate::Manifest) -> Result<Vec<Damage>, CacheError> {
        let mut damages = Vec::new();
        for blob in manifest.blobs.values() {
            match self.verify_blob(blob)? {
                Lookup::Found(_) => {}
                Lookup::Damaged(damage) => damages.push(damage),
                Lookup::Missing => damages.push(Damage {
                    path: self.layout().blob(&blob.digest),
                    why: "it is missing".to_owned(),
                    aside: None,
                }),
            }
        }
        Ok(damages)
    }

    /// Makes a file read-only and says what is in it; makes it durable, too, where it does not wait for a round.
    fn harden(&self, path: &Path) -> Result<Blob, CacheError> {
        let refuse = |why: &str| CacheError::NotAnArtifact {
            path: path.to_path_buf(),
            why: why.to_owned(),
        };
        let (mut file, metadata) = match files::open(path) {
            Err(error) if is_no_file(&error) => {
                return Err(refuse("it is a link or a special file"));
            }
            other => other.map_err(CacheError::io("read", path))?,
        };
        if metadata.nlink() > 1 {
            return Err(refuse("it has a second name (a hard link)"));
        }
        file.set_permissions(Permissions::from_mode(0o444))
            .map_err(CacheError::io("protect", path))?;
        let before = file.metadata().map_err(CacheError::io("read", path))?;
        let (digest, size): (Digest, u64) =
            files::digest(&mut file, before.len()).map_err(CacheError::io("read", path))?;
        if !self.has_rounds() {
            file.sync_all().map_err(CacheError::io("sync", path))?;
        }
        let after = file.metadata().map_err(CacheError::io("read", path))?;
        if Identity::of(&before) != Identity::of(&after) {
            return Err(CacheError::Changed {
                path: path.to_path_buf(),
            });
        }
        Ok(Blob { digest, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::fresh;

    fn keep(store: &Store, bytes: &[u8]) -> Blob {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs_err::write(&path, bytes).expect("written");
        let mut batch = store.batch().expect("made");
        let blob = store.copy_in(&path, &mut batch).expect("copied");
        store.commit(batch).expect("kept");
        assert_eq!(Store::digest_of(&path).expect("read"), blob);
        blob
    }

    fn overwrite(path: &Path, bytes: &[u8]) {
        std::fs::remove_file(path).expect("removed");
        fs_err::write(path, bytes).expect("written");
    }

    #[test]
    fn a_blob_is_read_only_and_named_by_its_bytes() {
        let (_folder, store) = fresh();
        let blob = keep(&store, b"bytes");
        assert_eq!(blob.digest, Digest::of(b"bytes"));
        assert!(store.has_blob(&blob));
        let path = store.layout().blob(&blob.digest);
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
        assert_eq!(store.verify_blob(&blob).expect("read"), Lookup::Found(path));
        assert_eq!(
            std::fs::read_dir(store.layout().staging())
                .expect("listed")
                .count(),
            0
        );
    }

    #[test]
    fn a_damaged_blob_is_set_aside_and_made_again() {
        let (_folder, store) = fresh();
        let blob = keep(&store, b"bytes");
        let path = store.layout().blob(&blob.digest);
        assert!(store.verify_blob(&blob).expect("read").found().is_some());
        overwrite(&path, b"bytfs");
        assert!(store.has_blob(&blob), "a look at the size does not tell");
        assert!(matches!(
            store.verify_blob(&blob).expect("read"),
            Lookup::Damaged(_)
        ));
        assert_eq!(store.verify_blob(&blob).expect("read"), Lookup::Missing);
        overwrite_by_making_again(&store, &blob);
    }

    fn overwrite_by_making_again(store: &Store, blob: &Blob) {
        assert_eq!(keep(store, b"bytes"), *blob);
        assert!(store.verify_blob(blob).expect("read").found().is_some());
    }

    #[test]
    fn making_a_blob_again_repairs_it_in_place() {
        let (_folder, store) = fresh();
        let blob = keep(&store, b"bytes");
        overwrite(&store.layout().blob(&blob.digest), b"");
        overwrite_by_making_again(&store, &blob);
    }

    #[test]
    fn a_link_in_place_of_a_blob_is_damage() {
        let (folder, store) = fresh();
        let blob = keep(&store, b"bytes");
        let path = store.layout().blob(&blob.digest);
        let copy = folder.path().join("copy");
        fs_err::rename(&path, &copy).expect("moved");
        std::os::unix::fs::symlink(&copy, &path).expect("linked");
        assert!(!store.has_blob(&blob));
        assert!(matches!(
            store.verify_blob(&blob).expect("read"),
            Lookup::Damaged(_)
        ));
    }

    #[test]
    fn staged_links_are_refused() {
        let (folder, store) = fresh();
        let file = folder.path().join("file");
        fs_err::write(&file, "x").expect("written");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        let take = |path: &Path| store.take(path, &mut store.batch().expect("made"));
        assert!(take(&link).is_err());
        std::fs::hard_link(&file, folder.path().join("second")).expect("linked");
        assert!(take(&file).is_err());
    }
}
