//! A look at everything: each file is read and compared with its name. What is damaged is set aside, what
//! points to it is forgotten, and the next run makes it again.

use std::path::PathBuf;

use crate::error::{CacheError, Damage, Lookup, is_absent};
use crate::layout::Shelf;
use crate::manifest::Blob;
use crate::runs::names;
use crate::{Action, Key, Store};

/// What is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A file is not what its name says; it has been set aside.
    Damaged(Damage),
    /// A file that an action names is not there; the action has been forgotten.
    Missing {
        /// The file.
        path: PathBuf,
        /// The key whose artifact needs it.
        key: Key,
    },
    /// A file that this program did not put there; it is left alone.
    Foreign(PathBuf),
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged(damage) => damage.fmt(f),
            Self::Missing { path, key } => write!(
                f,
                "{} is missing: what the key {} made will be made again",
                path.display(),
                key.short()
            ),
            Self::Foreign(path) => write!(f, "{} does not belong to the cache", path.display()),
        }
    }
}

/// What a look at everything gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// How many files were read.
    pub files: usize,
    /// The bytes of the blobs that were read.
    pub bytes: u64,
    /// What was not as it should be, in the order in which it was found.
    pub findings: Vec<Finding>,
}

impl Store {
    /// Reads everything in the cache. `on_bytes` hears of each blob's bytes when it has been read; what
    /// there is to read in all, [`Store::usage`] says.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn verify(&self, mut on_bytes: impl FnMut(u64)) -> Result<Verification, CacheError> {
        let mut verification = Verification::default();
        // Read anew, whatever this process has seen before.
        if let Ok(mut whole) = self.inner.whole.lock() {
            whole.clear();
        }
        self.verify_blobs(&mut verification, &mut on_bytes)?;
        let manifests = self.shelved(Shelf::Manifests)?;
        verification.foreign(manifests.foreign);
        for digest in manifests.named {
            verification.look(self.manifest(&digest)?);
        }
        self.verify_actions(&mut verification)?;
        for id in self.runs()? {
            verification.look(self.run(&id)?);
        }
        for sequence in self.executions()? {
            verification.look(self.execution(sequence)?);
        }
        for file in self.verify_index()? {
            verification.look(file);
        }
        for name in names(&self.memories())? {
            if let Ok(name) = name.parse() {
                verification.look(self.memory(&name)?);
            }
        }
        for name in names(&self.layout().pins())? {
            verification.look(self.pinned(&name)?);
        }
        verification.foreign(self.foreign()?);
        Ok(verification)
    }

    fn verify_blobs(
        &self,
        verification: &mut Verification,
        on_bytes: &mut impl FnMut(u64),
    ) -> Result<(), CacheError> {
        let blobs = self.shelved(Shelf::Blobs)?;
        verification.foreign(blobs.foreign);
        for digest in blobs.named {
            verification.files += 1;
            let path = self.layout().blob(&digest);
            let size = match path.symlink_metadata() {
                Ok(metadata) => metadata.len(),
                // `gc` has taken it away meanwhile; it may even be made again before it is opened.
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(CacheError::io("look at", path)(error)),
            };
            match self.blob_damage(&path, &Blob { digest, size }) {
                Ok(None) => verification.bytes += size,
                Ok(Some(why)) => {
                    let damage = self.set_aside(&path, why);
                    verification.findings.push(Finding::Damaged(damage));
                }
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(CacheError::io("read", path)(error)),
            }
            on_bytes(size);
        }
        Ok(())
    }

    fn verify_actions(&self, verification: &mut Verification) -> Result<(), CacheError> {
        let actions = self.shelved(Shelf::Actions)?;
        verification.foreign(actions.foreign);
        for digest in actions.named {
            let key = Key(digest);
            let Some(action) = verification.look(self.action(&key)?) else {
                continue;
            };
            let missing = |action: &Action| {
                let mut blobs = action.manifest.blobs.values();
                blobs.find(|blob| !self.has_blob(blob)).cloned()
            };
            if missing(&action).is_some() {
                // `gc` takes an action away before its blobs: then it is gone by now, or has been made again.
                let Some(action) = self.action(&key)?.found() else {
                    continue;
                };
                let Some(blob) = missing(&action) else {
                    continue;
                };
                verification.findings.push(Finding::Missing {
                    path: self.layout().blob(&blob.digest),
                    key,
                });
                repaired(self.remove_action(&key))?;
                continue;
            }
            // The action holds its manifests: they are written again where they are missing.
            repaired(self.put_manifests(&action))?;
        }
        Ok(())
    }

    /// What lies in the cache's folder and in those of runs, and is nothing of ours.
    fn foreign(&self) -> Result<Vec<PathBuf>, CacheError> {
        const OURS: [&str; 16] = [
            "CACHEDIR.TAG",
            ".gitignore",
            "format",
            "blobs",
            "manifests",
            "actions",
            "records",
            "runs",
            "executions",
            "index",
            "memories",
            "pins",
            "scratch",
            "staging",
            "locks",
            "quarantine",
        ];
        let layout = self.layout();
        let mut foreign = Vec::new();
        for name in names(layout.root())? {
            if !OURS.contains(&name.as_str()) {
                foreign.push(layout.root().join(name));
            }
        }
        for name in names(&layout.runs())? {
            let id = name.strip_suffix(".run").map(str::parse::<crate::RunId>);
            if !matches!(id, Some(Ok(_))) {
                foreign.push(layout.runs().join(name));
            }
        }
        for name in names(&layout.executions())? {
            if name.parse::<u64>().is_err() {
                foreign.push(layout.executions().join(name));
            }
        }
        foreign.sort_unstable();
        Ok(foreign)
    }
}

impl Verification {
    /// Whether all is well.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn look<T>(&mut self, lookup: Lookup<T>) -> Option<T> {
        self.files += 1;
        match lookup {
            Lookup::Found(value) => Some(value),
            Lookup::Missing => None,
            Lookup::Damaged(damage) => {
                self.findings.push(Finding::Damaged(damage));
                None
            }
        }
    }

    fn foreign(&mut self, paths: Vec<PathBuf>) {
        self.findings
            .extend(paths.into_iter().map(Finding::Foreign));
    }
}

/// On a disk that may not be written to, what is wrong is told, and stays.
fn repaired(done: Result<(), CacheError>) -> Result<(), CacheError> {
    match done {
        Err(error) if error.is_read_only() => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;
    use crate::runs::tests::{execution, record};
    use crate::store::tests::fresh;
    use crate::{Action, ArtifactType};

    fn filled() -> (tempfile::TempDir, Store, Action) {
        let (folder, store) = fresh();
        let staging = store.stage().expect("staged");
        fs_err::write(staging.out().join("file"), "bytes").expect("written");
        let sealed = staging.seal(ArtifactType::Files).expect("sealed");
        let action = Action::new(
            "toy",
            b"1".to_vec(),
            sealed.manifest().clone(),
            BTreeMap::new(),
            BTreeSet::new(),
        );
        sealed.keep(&action).expect("kept");
        let run = record(&[("a", b"1", b"one")]);
        store.record(&run, None, execution()).expect("recorded");
        (folder, store, action)
    }

    fn flip(path: &Path, byte: usize, bit: u8) {
        let mut bytes = fs_err::read(path).expect("there");
        bytes[byte] ^= 1 << bit;
        std::fs::remove_file(path).expect("removed");
        fs_err::write(path, bytes).expect("written");
    }

    fn every_file(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                every_file(&path, into);
            } else {
                into.push(path);
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_any_file_is_found_and_repaired() {
        let (_folder, store, _) = filled();
        let mut paths = Vec::new();
        for shelf in ["blobs", "manifests", "actions", "runs", "executions"] {
            every_file(&store.layout().root().join(shelf), &mut paths);
        }
        assert_eq!(paths.len(), 5);
        for path in &paths {
            let (_folder, store, _) = filled();
            assert!(store.verify(|_| ()).expect("read").is_clean());
            let below = path.strip_prefix(root_of(path)).expect("below");
            flip(&store.layout().root().join(below), 3, 2);
            let found = store.verify(|_| ()).expect("read");
            assert!(
                matches!(found.findings[0], Finding::Damaged(_)),
                "{:?}",
                found.findings
            );
            assert!(store.verify(|_| ()).expect("read").is_clean());
        }
    }

    /// The cache's folder in a path below it.
    fn root_of(path: &Path) -> &Path {
        path.ancestors()
            .find(|folder| folder.ends_with(".taper"))
            .expect("below a cache")
    }

    #[test]
    fn an_action_without_its_blob_is_forgotten() {
        let (_folder, store, action) = filled();
        for blob in action.manifest.blobs.values() {
            std::fs::remove_file(store.layout().blob(&blob.digest)).expect("removed");
        }
        let found = store.verify(|_| ()).expect("read");
        assert!(matches!(
            found.findings.as_slice(),
            [Finding::Missing { .. }]
        ));
        assert_eq!(store.action(&action.key).expect("read"), Lookup::Missing);
        assert!(store.verify(|_| ()).expect("read").is_clean());
    }

    #[test]
    fn foreign_files_are_told_and_left() {
        let (_folder, store, _) = filled();
        let root = store.layout().root();
        let mine = [
            root.join("mine"),
            root.join("blobs/ab"),
            root.join("runs/notes"),
        ];
        fs_err::write(&mine[0], "x").expect("written");
        fs_err::create_dir_all(&mine[1]).expect("made");
        fs_err::write(mine[1].join("cd"), "x").expect("written");
        fs_err::write(&mine[2], "x").expect("written");
        let found = store.verify(|_| ()).expect("read");
        assert_eq!(found.findings.len(), 3, "{:?}", found.findings);
        assert!(mine.iter().all(|path| path.exists()));
    }

    #[test]
    fn a_lost_manifest_is_written_again_from_its_action() {
        let (_folder, store, action) = filled();
        let path = store.layout().manifest(&action.artifact);
        std::fs::remove_file(&path).expect("removed");
        assert!(store.verify(|_| ()).expect("read").is_clean());
        assert!(path.exists());
    }
}
