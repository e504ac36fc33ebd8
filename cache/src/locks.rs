//! Locks between programs: one computation of a key at a time, and no `gc` while something is being kept.
//!
//! They save work and never make anything right: on a file system without locks two programs may make the
//! same artifact twice, with the same bytes. A lock ends with its process, so none is ever left behind to be
//! removed by hand.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::io::Errno;

use crate::error::{CacheError, is_absent};
use crate::memories::boot;
use crate::{Digest, Key, Store, planted};

/// Nobody else computes the key while this is held.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
    is_sure: bool,
}

impl KeyLock {
    /// Whether nobody else can hold it: not so on a file system without locks.
    pub const fn is_sure(&self) -> bool {
        self.is_sure
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Removed while it is still locked: whoever waits for it looks again whether its file is the one
        // that the name means.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Tries to lock an open file; every lock of one program alone is asked for here.
pub(crate) fn try_lock(file: &File) -> Result<(), TryLockError> {
    if planted("no-locks") {
        return Err(TryLockError::Error(Errno::NOLCK.into()));
    }
    file.try_lock()
}

/// Whether a living program may hold the lock of this file or folder: where the file system has no locks nobody knows.
pub(crate) fn may_be_held(mark: &Path) -> bool {
    File::open(mark).is_ok_and(|file| try_lock(&file).is_err())
}

/// What names of passing files and folders say of the process that makes them: `MACHINE-NUMBER-START-`, where
/// processes have numbers; nothing elsewhere. It is for file systems without locks.
pub(crate) fn own_mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| {
        let number = std::process::id();
        let mark = machine().zip(start_of(number));
        mark.map_or_else(String::new, |(machine, start)| {
            format!("{machine}-{number}-{start}-")
        })
    })
}

/// Whether the process that has made the passing file or folder with this name has surely ended: it was one of
/// this boot of this machine. Of others nobody knows.
pub(crate) fn is_of_the_dead(name: &str) -> bool {
    let mut parts = name.split('-').skip(1);
    let (there, number, start) = (parts.next(), parts.next(), parts.next());
    there.is_some()
        && there == machine().as_deref()
        && number
            .and_then(|number| number.parse().ok())
            .is_some_and(|number: u32| start_of(number).as_deref() != start)
}

/// This boot of this machine, and its table of processes: a container has another.
fn machine() -> Option<String> {
    let table = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let both = format!("{} {}", boot()?, table.display());
    Some(Digest::of(both.as_bytes()).short())
}

/// When the process began, as the system counts; nothing where there is none.
fn start_of(number: u32) -> Option<String> {
    let state = fs_err::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // Behind the program's name, which may have any character, it is the twentieth.
    let (_, behind) = state.rsplit_once(") ")?;
    Some(behind.split(' ').nth(19)?.to_owned())
}

impl Store {
    /// Takes the lock of `key`; `None` where another thread or program has it.
    ///
    /// # Errors
    /// Where the cache cannot be written to.
    pub fn try_lock(&self, key: &Key) -> Result<Option<KeyLock>, CacheError> {
        self.prepare()?;
        let path = self.layout().key_lock(key);
        if planted("lock-by-existence") {
            let file = OpenOptions::new().create_new(true).append(true).open(&path);
            return Ok(file.ok().map(|_file| KeyLock {
                path,
                _file,
                is_sure: true,
            }));
        }
        loop {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(CacheError::io("open", &path))?;
            let is_sure = match try_lock(&file) {
                Err(TryLockError::WouldBlock) if planted("key-unlocked") => true,
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    tracing::debug!(%error, "no locks on this file system");
                    false
                }
                Ok(()) if is_named(&file, &path).map_err(CacheError::io("look at", &path))? => true,
                Ok(()) => continue,
            };
            return Ok(Some(KeyLock {
                path,
                _file: file,
                is_sure,
            }));
        }
    }
}

/// Whether `path` still means the open file.
fn is_named(file: &File, path: &Path) -> std::io::Result<bool> {
    let open = file.metadata()?;
    match path.symlink_metadata() {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// While this is held, `gc` removes nothing; see [`Store::keeping`].
#[derive(Debug)]
#[must_use]
pub struct Keeping {
    _file: Option<File>,
}

impl Keeping {
    pub(crate) fn shared(locks: &Path) -> Self {
        Self::with(locks, File::lock_shared)
    }

    pub(crate) fn alone(locks: &Path) -> Self {
        Self::with(locks, File::lock)
    }

    /// No lock at all.
    pub(crate) const fn none() -> Self {
        Self { _file: None }
    }

    fn with(locks: &Path, lock: impl Fn(&File) -> std::io::Result<()>) -> Self {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(locks.join("store"))
            .ok()
            .filter(|file| !planted("no-locks") && lock(file).is_ok());
        Self { _file: file }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::fresh;

    #[test]
    fn of_a_name_it_is_known_whether_its_process_has_ended() {
        let named = |mark: &str| format!("work-{mark}x7Yz");
        assert!(!is_of_the_dead(&named(own_mark())));
        let mut child = std::process::Command::new("true").spawn().expect("starts");
        let start = start_of(child.id()).expect("it is waited for");
        let machine = machine().expect("known");
        let mark = format!("{machine}-{}-{start}-", child.id());
        assert!(!is_of_the_dead(&named(&mark)));
        child.wait().expect("it ends");
        assert!(is_of_the_dead(&named(&mark)));
        let again = format!("{machine}-{}-0-", std::process::id());
        assert!(
            is_of_the_dead(&named(&again)),
            "the number is another's now"
        );
        for unknown in ["", "elsewhere-1-2-"] {
            assert!(!is_of_the_dead(&named(unknown)));
        }
    }

    #[test]
    fn one_holder_at_a_time_and_nothing_left_behind() {
        let (_folder, store) = fresh();
        let other = Store::open(store.layout().root()).expect("opened");
        let key = Key::of_ingredients(b"a");
        let lock = store.try_lock(&key).expect("works").expect("free");
        assert!(other.try_lock(&key).expect("works").is_none());
        let elsewhere = Key::of_ingredients(b"b");
        assert!(other.try_lock(&elsewhere).expect("works").is_some());
        drop(lock);
        let lock = other.try_lock(&key).expect("works").expect("free again");
        drop(lock);
        let left: Vec<_> = std::fs::read_dir(store.layout().locks())
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
