//! Commits: files that are written beside and get their names once they are on the disk.
//!
//! To sync each file is to wait for the disk each time. So where the system can sync all that was written at once
//! and say whether it worked (Linux since 5.8, on file systems of the machine itself), files wait for a *round*: one
//! sync, made by the first who waits, for all who wrote before it began, whichever stage they are of. After it
//! each gives its own files their names. Where a round fails, all who wait for it throw their files away, and there is no
//! other.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use rustix::fs::syncfs;
use rustix::io::{Errno, retry_on_intr};
use tempfile::TempPath;

use crate::error::CacheError;
use crate::locks::Keeping;
use crate::memories::is_local;
use crate::{Store, files, planted};

/// Files that have no names yet, each with the path that it is to have. Until they have, `gc` removes nothing.
#[derive(Debug)]
pub struct Batch {
    files: Vec<(Held, PathBuf)>,
    _keeping: Keeping,
}

/// A file that has no name yet.
#[derive(Debug)]
pub(crate) enum Held {
    /// One of this crate's; goes where it gets no name.
    Ours(TempPath),
    /// One in the folder of a stage, and goes with it.
    Staged(PathBuf),
}

/// A batch of more is committed before it grows further.
const MOST: usize = 1000;

/// How often everything was synced.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    state: Mutex<State>,
    ended: Condvar,
    /// The cache's folder, open since before anything was written: whoever has it open is told of what could
    /// not be written since. Nothing where each file is synced by itself.
    root: OnceLock<Option<File>>,
}

#[derive(Debug, Default)]
struct State {
    begun: u64,
    ended: u64,
    /// The round that failed, and how. Who wrote before it ended may wait for the next one: that would mean nothing, so
    /// there is none.
    failed: Option<(u64, i32)>,
}

impl Store {
    /// Begins a batch.
    ///
    /// # Errors
    /// Where the cache cannot be written to.
    pub fn batch(&self) -> Result<Batch, CacheError> {
        Ok(Batch {
            files: Vec::new(),
            _keeping: self.keeping()?,
        })
    }

    /// Whether files wait for a round, and are not synced one by one.
    pub(crate) fn has_rounds(&self) -> bool {
        let root = self.layout().root();
        let open = || (tells_of_errors() && is_local(root)).then(|| File::open(root).ok());
        let rounds = &self.inner.rounds;
        rounds.root.get_or_init(|| open().flatten()).is_some()
    }

    /// Adds a file to those that are to get names; commits those before it where they are many.
    pub(crate) fn add(
        &self,
        batch: &mut Batch,
        path: Held,
        target: PathBuf,
    ) -> Result<(), CacheError> {
        if batch.files.len() >= MOST {
            self.commit_files(std::mem::take(&mut batch.files))?;
        }
        batch.files.push((path, target));
        Ok(())
    }

    /// Gives files their names, in the order in which they were added, once all of them are on the disk. Their
    /// names are not yet: see [`Store::sync`].
    ///
    /// # Errors
    /// Where the file system refuses. Then the files without a name are gone.
    pub fn commit(&self, mut batch: Batch) -> Result<(), CacheError> {
        self.commit_files(std::mem::take(&mut batch.files))
    }

    /// Gives files their names once they and all that was kept before are durable, names included.
    pub(crate) fn commit_last(&self, mut batch: Batch) -> Result<(), CacheError> {
        if !planted("record-before-work") {
            self.settle()?;
        }
        self.name(std::mem::take(&mut batch.files))
    }

    /// Waits until all that has been written and named so far is on the disk.
    pub(crate) fn settle(&self) -> Result<(), CacheError> {
        self.round()?;
        self.inner.unsynced.sync()
    }

    fn commit_files(&self, files: Vec<(Held, PathBuf)>) -> Result<(), CacheError> {
        if files.is_empty() {
            return Ok(());
        }
        if planted("named-before-round") {
            self.name(files)?;
            return self.round();
        }
        self.round()?;
        self.name(files)
    }

    fn name(&self, files: Vec<(Held, PathBuf)>) -> Result<(), CacheError> {
        for (held, target) in files {
            let folder = target.parent().unwrap_or(Path::new("."));
            let from: &Path = match &held {
                Held::Ours(path) => path,
                Held::Staged(path) => path,
            };
            let rename = || rustix::fs::rename(from, &target);
            if planted("written-in-place") {
                let bytes = files::read(from).map_err(CacheError::io("read", from))?;
                let _ = self.inner.unsynced.make_folder(folder);
                fs_err::write(&target, bytes).map_err(CacheError::io("write", &target))?;
            }
            // Most folders are there already, and hardly ever one in the place of a file: that is asked afterwards.
            let mut named = rename();
            if named == Err(Errno::NOENT) {
                self.inner.unsynced.make_folder(folder)?;
                named = rename();
            }
            if named == Err(Errno::XDEV) {
                let bytes = files::read(from).map_err(CacheError::io("read", from))?;
                files::write(&self.inner.unsynced, folder, &target, &bytes, 0o666)?;
                continue;
            }
            if named == Err(Errno::ISDIR) {
                self.set_aside(&target, "it is a folder");
                named = rename();
            }
            named
                .map_err(io::Error::from)
                .map_err(CacheError::io("write", &target))?;
            if let Held::Ours(mut path) = held {
                // It is not there any more under its first name.
                path.disable_cleanup(true);
            }
            self.inner.unsynced.note(folder);
        }
        Ok(())
    }

    /// Waits until all that has been written so far is on the disk.
    pub(crate) fn round(&self) -> Result<(), CacheError> {
        if !self.has_rounds() {
            return Ok(());
        }
        let Rounds { state, ended, .. } = &self.inner.rounds;
        let mut now = state.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = now.begun + 1;
        while now.ended < mine && now.failed.is_none() {
            if now.begun > now.ended {
                now = ended.wait(now).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            now.begun = mine;
            drop(now);
            let result = self.sync_all();
            now = state.lock().unwrap_or_else(PoisonError::into_inner);
            now.ended = mine;
            if let Err(error) = result {
                now.failed = Some((mine, error.raw_os_error()));
            }
            ended.notify_all();
        }
        match now.failed {
            Some((round, code)) if round <= mine => {
                let error = io::Error::from_raw_os_error(code);
                Err(CacheError::io("sync", self.layout().root())(error))
            }
            _ => Ok(()),
        }
    }

    fn sync_all(&self) -> Result<(), Errno> {
        let Some(Some(root)) = self.inner.rounds.root.get() else {
            return Ok(());
        };
        // Names that have changed by now are on the disk afterwards, too.
        let unsynced = &self.inner.unsynced;
        unsynced.forget_beside(self.layout().root());
        if planted("no-round") {
            return Ok(());
        }
        let result = retry_on_intr(|| syncfs(root));
        if planted("round-error-dropped") {
            return Ok(());
        }
        if result.is_err() {
            unsynced.fail();
        }
        result
    }
}

/// Whether the system says of a sync of everything that something could not be written: Linux since 5.8.
fn tells_of_errors() -> bool {
    if planted("each-synced-alone") {
        return false;
    }
    let Ok(release) = fs_err::read_to_string("/proc/sys/kernel/osrelease") else {
        return false;
    };
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0_u32));
    (numbers.next(), numbers.next()) >= (Some(5), Some(8))
}

#[cfg(test)]
mod tests {
    use crate::Digest;
    use crate::store::tests::fresh;

    #[test]
    fn many_wait_for_few_rounds_and_each_file_gets_its_name() {
        let (folder, store) = fresh();
        drop(store.keeping().expect("made"));
        let bytes: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        std::thread::scope(|scope| {
            for part in bytes.chunks(10) {
                let (store, folder) = (&store, &folder);
                scope.spawn(move || {
                    for text in part {
                        let path = folder.path().join(text);
                        fs_err::write(&path, text).expect("written");
                        let mut batch = store.batch().expect("made");
                        store.copy_in(&path, &mut batch).expect("copied");
                        store.commit(batch).expect("named");
                    }
                });
            }
        });
        for text in &bytes {
            let path = store.layout().blob(&Digest::of(text.as_bytes()));
            assert_eq!(fs_err::read_to_string(path).expect("there"), *text);
        }
        if store.has_rounds() {
            let rounds = store.inner.rounds.state.lock().expect("no panic").ended;
            assert!((10..=200).contains(&rounds), "{rounds}");
        }
        let left = std::fs::read_dir(store.layout().staging()).expect("listed");
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn after_a_round_that_failed_there_is_no_other() {
        let (folder, store) = fresh();
        drop(store.keeping().expect("made"));
        if !store.has_rounds() {
            return;
        }
        let state = || store.inner.rounds.state.lock().expect("no panic");
        let begun = state().begun;
        state().failed = Some((begun, 5));
        let path = folder.path().join("file");
        fs_err::write(&path, "x").expect("written");
        let mut batch = store.batch().expect("made");
        let blob = store.copy_in(&path, &mut batch).expect("copied");
        store
            .commit(batch)
            .expect_err("nobody knows what is on the disk");
        assert!(!store.has_blob(&blob));
        assert_eq!(state().begun, begun);
    }

    #[test]
    fn what_is_not_committed_gets_no_name_and_goes() {
        let (folder, store) = fresh();
        let path = folder.path().join("file");
        fs_err::write(&path, "x").expect("written");
        let mut batch = store.batch().expect("made");
        let blob = store.copy_in(&path, &mut batch).expect("copied");
        drop(batch);
        assert!(!store.has_blob(&blob));
        let left = std::fs::read_dir(store.layout().staging()).expect("listed");
        assert_eq!(left.count(), 0);
    }
}
