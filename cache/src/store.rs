//! The store: what the engine holds. Opening it makes and writes nothing, so that readers work on a
//! read-only copy; the folders are made with the first thing that is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use crate::commit::{Batch, Held, Rounds};
use crate::error::{CacheError, Damage, Lookup, relative};
use crate::files::{self, Identity, Sync, Unsynced};
use crate::layout::{CACHEDIR_TAG, FORMAT, Layout};
use crate::locks::Keeping;
use crate::runs::to_lines;
use crate::{Digest, Manifest, RunRecord, planted};

/// A cache in a folder. Cheap to clone; used from any thread, and by several programs at once.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    prepared: OnceLock<()>,
    pub(crate) unsynced: Unsynced,
    pub(crate) rounds: Rounds,
    pub(crate) generation: OnceLock<u64>,
    /// Blobs that this process has read and found whole, as they were then.
    pub(crate) whole: Mutex<BTreeMap<Digest, Identity>>,
}

impl Store {
    /// Opens the cache in the folder `root`, which need not exist yet.
    ///
    /// # Errors
    /// Where another version of the program made it, or it cannot be read.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, CacheError> {
        let layout = Layout::new(root);
        let format = layout.root().join("format");
        match files::read_if_there(&format).map_err(CacheError::io("read", &format))? {
            Some(found) if !is_torn(&found) && found != FORMAT.as_bytes() => {
                return Err(CacheError::UnknownFormat {
                    path: layout.root().to_path_buf(),
                    found: String::from_utf8_lossy(&found).trim_end().to_owned(),
                });
            }
            Some(_) | None => {}
        }
        Ok(Self {
            inner: Arc::new(Inner {
                layout,
                prepared: OnceLock::new(),
                unsynced: Unsynced::default(),
                rounds: Rounds::default(),
                generation: OnceLock::new(),
                whole: Mutex::default(),
            }),
        })
    }

    /// Its paths.
    pub fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// Whether there is a cache in its folder yet.
    pub fn exists(&self) -> bool {
        self.layout().root().join("format").exists()
    }

    /// Announces that something is about to be kept: makes the folders where they are missing, and keeps
    /// `gc` out until the guard is dropped, so that what belongs together gets in together.
    ///
    /// # Errors
    /// Where the cache cannot be written to.
    pub fn keeping(&self) -> Result<Keeping, CacheError> {
        self.prepare()?;
        Ok(Keeping::shared(&self.layout().locks()))
    }

    /// Makes the folders where they are missing, once.
    pub(crate) fn prepare(&self) -> Result<(), CacheError> {
        if self.inner.prepared.get().is_some() {
            return Ok(());
        }
        let root = self.layout().root();
        self.inner.unsynced.make_folder(root)?;
        for folder in [self.layout().staging(), self.layout().locks()] {
            files::make_passing_folder(&folder)?;
        }
        // From here on the system is asked what it could not write.
        self.has_rounds();
        // They say the same in each cache: where a power cut has torn one, it is written again. What somebody else has put
        // there stays.
        for (name, text) in [
            ("CACHEDIR.TAG", CACHEDIR_TAG),
            (".gitignore", "*\n"),
            ("format", FORMAT),
        ] {
            let path = root.join(name);
            if files::read(&path).map_or(true, |found| is_torn(&found)) {
                files::write_passing(&self.layout().staging(), &path, text.as_bytes())?;
            }
        }
        self.inner.prepared.get_or_init(|| ());
        Ok(())
    }

    /// Writes a file of the cache in one step.
    pub(crate) fn write(&self, target: &Path, bytes: &[u8], mode: u32) -> Result<(), CacheError> {
        let staging = self.layout().staging();
        files::write(&self.inner.unsynced, &staging, target, bytes, mode)
    }

    /// Writes a file of the user's, outside the cache, durably and in one step, without the cache's help. Where something
    /// could not be synced before, it is there and the answer is an error.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn write_outside(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
        let path = std::path::absolute(path).map_err(CacheError::io("write", path))?;
        let folder = path.parent().unwrap_or(&path);
        files::write(&self.inner.unsynced, folder, &path, bytes, 0o666)?;
        self.inner.unsynced.sync()
    }

    /// Gives what a run ends with its names, once all that has been kept before is durable: the run's record, and a
    /// file of the user's, outside the cache. These names are with [`Store::sync`].
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn conclude(
        &self,
        run: Option<&RunRecord>,
        outside: Option<(&Path, &[u8])>,
    ) -> Result<(), CacheError> {
        let run = match run {
            Some(run) if self.run(&run.id)?.found().is_none() => Some(run),
            _ => None,
        };
        if run.is_none() && outside.is_none() {
            return self.sync();
        }
        let mut batch = self.batch()?;
        if let Some((path, bytes)) = outside {
            if planted("lock-in-place") {
                fs_err::write(path, bytes).map_err(CacheError::io("write", path))?;
            }
            let path = std::path::absolute(path).map_err(CacheError::io("write", path))?;
            self.add_bytes(&mut batch, path, bytes, 0o666)?;
        }
        if let Some(run) = run.filter(|_| !planted("run-unrecorded")) {
            self.add_bytes(
                &mut batch,
                self.layout().run(&run.id),
                &to_lines(run),
                0o666,
            )?;
        }
        self.commit_last(batch)
    }

    /// Makes all that this handle and its clones have kept durable. Until then a power cut, unlike a kill, may
    /// take it back, as if it had never been made. Recording a run does it; nothing to do where nothing has
    /// been written.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn sync(&self) -> Result<(), CacheError> {
        let unsynced = &self.inner.unsynced;
        if unsynced.has_many() && self.has_rounds() {
            // Once it has failed nothing is durable any more: that is said below.
            let _ = self.round();
        }
        unsynced.sync()
    }

    /// Moves a damaged file out of the way, so that it counts as missing and is made again. On a cache that
    /// cannot be written to it stays, and is found damaged each time.
    pub(crate) fn set_aside(&self, path: &Path, why: impl Into<String>) -> Damage {
        let why = why.into();
        let aside = self.try_aside(path);
        tracing::warn!(path = %path.display(), %why, "damaged");
        Damage {
            path: path.to_path_buf(),
            why,
            aside,
        }
    }

    fn try_aside(&self, path: &Path) -> Option<PathBuf> {
        let folder = self.layout().quarantine();
        self.inner.unsynced.make_folder(&folder).ok()?;
        let name = relative(path, self.layout().root())
            .to_string_lossy()
            .replace(std::path::MAIN_SEPARATOR, "-");
        let aside = (0..1000_u32)
            .map(|number| folder.join(format!("{name}.{number}")))
            .find(|candidate| candidate.symlink_metadata().is_err())?;
        rustix::fs::rename(path, &aside).ok()?;
        Some(aside)
    }

    /// The artifact with this digest.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn manifest(&self, digest: &Digest) -> Result<Lookup<Manifest>, CacheError> {
        self.look_up(&self.layout().manifest(digest), |bytes| {
            if Digest::of(bytes) != *digest {
                return Err("its bytes are not those of its name".to_owned());
            }
            Manifest::from_bytes(bytes).map_err(|error| error.to_string())
        })
    }

    /// Reads a small file of the cache whole; `parse` says what it holds, or why it cannot be what was written.
    /// What is damaged, or no plain file, is set aside.
    pub(crate) fn look_up<T>(
        &self,
        path: &Path,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Lookup<T>, CacheError> {
        let parsed = match files::read_if_there(path) {
            Ok(None) => return Ok(Lookup::Missing),
            Ok(Some(bytes)) => parse(&bytes),
            Err(error) if is_no_file(&error) => Err("it is not a plain file".to_owned()),
            Err(error) => return Err(CacheError::io("read", path)(error)),
        };
        Ok(match parsed {
            Ok(value) => Lookup::Found(value),
            Err(why) => Lookup::Damaged(self.set_aside(path, why)),
        })
    }

    /// Keeps a manifest, whose blobs are in the cache already.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn put_manifest(&self, manifest: &Manifest) -> Result<Digest, CacheError> {
        let mut batch = self.batch()?;
        let digest = self.add_manifest(manifest, &mut batch)?;
        self.commit(batch)?;
        Ok(digest)
    }

    /// Keeps a manifest with a batch, after the blobs that it names.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn add_manifest(
        &self,
        manifest: &Manifest,
        batch: &mut Batch,
    ) -> Result<Digest, CacheError> {
        let bytes = manifest.to_bytes();
        let digest = Digest::of(&bytes);
        let path = self.layout().manifest(&digest);
        if !holds(&path, &bytes) {
            self.add_bytes(batch, path, &bytes, 0o444)?;
        }
        Ok(digest)
    }

    /// Whether a manifest is kept.
    pub(crate) fn has_manifest(&self, manifest: &Manifest) -> bool {
        let bytes = manifest.to_bytes();
        holds(&self.layout().manifest(&Digest::of(&bytes)), &bytes)
    }

    /// Adds a small file to a batch.
    pub(crate) fn add_bytes(
        &self,
        batch: &mut Batch,
        target: PathBuf,
        bytes: &[u8],
        mode: u32,
    ) -> Result<(), CacheError> {
        let file = self.filled(bytes, mode)?;
        self.add(batch, Held::Ours(file.into_temp_path()), target)
    }

    /// A small file that has no name yet: synced, or to be synced with the next round.
    pub(crate) fn filled(
        &self,
        bytes: &[u8],
        mode: u32,
    ) -> Result<tempfile::NamedTempFile, CacheError> {
        let sync = if self.has_rounds() {
            Sync::Later
        } else {
            Sync::Now
        };
        files::filled(&self.layout().staging(), bytes, mode, sync)
    }
}

/// Whether a file was refused because it is a link, a pipe, a folder, or cut while it was read.
pub(crate) fn is_no_file(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof)
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// Whether a file of whole lines was cut off.
fn is_torn(found: &[u8]) -> bool {
    !found.ends_with(b"\n")
}

fn holds(path: &Path, bytes: &[u8]) -> bool {
    files::read(path).is_ok_and(|there| there == bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A store in a folder of its own.
    pub(crate) fn fresh() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().join(".taper")).expect("opened");
        (folder, store)
    }

    #[test]
    fn opening_makes_nothing_and_keeping_tags_the_folder() {
        let (folder, store) = fresh();
        assert!(!store.exists());
        let manifest = Manifest::new(crate::ArtifactType::Files, BTreeMap::new()).expect("empty");
        let digest = store.put_manifest(&manifest).expect("kept");
        assert_eq!(
            store.manifest(&digest).expect("read").found(),
            Some(manifest)
        );
        let root = folder.path().join(".taper");
        assert_eq!(
            files::read(&root.join(".gitignore")).expect("there"),
            b"*\n"
        );
        assert!(root.join("CACHEDIR.TAG").exists());
    }

    #[test]
    fn a_newer_format_is_refused() {
        let (folder, _) = fresh();
        let root = folder.path().join(".taper");
        fs_err::create_dir_all(&root).expect("made");
        fs_err::write(root.join("format"), "taper cache 3\n").expect("written");
        let error = Store::open(&root).expect_err("newer");
        assert!(error.to_string().contains("taper cache 3"), "{error}");
    }

    #[test]
    fn what_the_power_cut_off_of_a_caches_first_files_is_written_again() {
        let (folder, _) = fresh();
        let root = folder.path().join(".taper");
        for torn in ["", "taper ca", "\0\0\0"] {
            fs_err::create_dir_all(&root).expect("made");
            for name in ["CACHEDIR.TAG", ".gitignore", "format"] {
                fs_err::write(root.join(name), torn).expect("written");
            }
            let store = Store::open(&root).expect("nobody knows what it was");
            drop(store.keeping().expect("works"));
            let read = |name: &str| fs_err::read_to_string(root.join(name)).expect("there");
            assert_eq!(read("CACHEDIR.TAG"), CACHEDIR_TAG);
            assert_eq!(read(".gitignore"), "*\n");
            assert_eq!(read("format"), FORMAT);
        }
        fs_err::write(root.join(".gitignore"), "*\n!notes\n").expect("written");
        let store = Store::open(&root).expect("opened");
        drop(store.keeping().expect("works"));
        let kept = fs_err::read_to_string(root.join(".gitignore")).expect("there");
        assert_eq!(kept, "*\n!notes\n", "that is somebody's");
    }

    #[test]
    fn a_damaged_manifest_is_set_aside() {
        let (_folder, store) = fresh();
        let manifest = Manifest::new(crate::ArtifactType::Files, BTreeMap::new()).expect("empty");
        let digest = store.put_manifest(&manifest).expect("kept");
        let path = store.layout().manifest(&digest);
        std::fs::remove_file(&path).expect("removed");
        fs_err::write(&path, "taper manifest 1\ntype model\n").expect("written");
        let Lookup::Damaged(damage) = store.manifest(&digest).expect("read") else {
            panic!("it is damaged");
        };
        assert!(damage.aside.expect("moved").exists());
        assert_eq!(store.manifest(&digest).expect("read"), Lookup::Missing);
    }
}
