//! What programs remember of a cache and of files outside, so as not to look at each file again: the states of
//! files and folders, and when a state can be told from any later one.
//!
//! A file system's clock has a grain: what changes a file twice within it may leave the same times. So a state
//! is worth something only where the file had changed before the present tick of the clock, as in git's index;
//! only on file systems of this machine, whose clock is this one's; and only as equal or not, never as earlier
//! or later. A clock that jumps makes a state worthless or unlike, not wrong. It holds for one boot of the machine:
//! a power cut may take back what a file held and leave its times. What is written through a mapping of a file
//! changes its times once, until the system has written it out: as for git, make and ninja, such a second change
//! is not seen.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;
use std::thread::Builder;

use rustix::time::{ClockId, clock_gettime};

use crate::error::{CacheError, Lookup, NOT_AS_WRITTEN};
use crate::files::{self, Identity};
use crate::layout::Shelf;
use crate::{Digest, Key, Store, threads};

/// A tick of the clock that stamps files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(i64, i64);

/// The states of many files, taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Another one where any of them is another.
    pub digest: Digest,
    /// When the last of them changed.
    pub newest: Tick,
}

/// How many files make a part of a survey.
const PART: usize = 1024;

impl Tick {
    /// What the clock that stamps files shows: no change from now on is stamped with an earlier tick.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        Self(now.tv_sec, now.tv_nsec)
    }

    /// The last that may stand behind a time that a file system keeps: some keep whole seconds.
    const fn of((seconds, nanoseconds): (i64, i64)) -> Self {
        match nanoseconds {
            0 => Self(seconds, 999_999_999),
            _ => Self(seconds, nanoseconds),
        }
    }
}

impl Identity {
    /// That of the folder `path`; nothing where there is none.
    pub fn of_folder(path: &Path) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        metadata.is_dir().then(|| Self::of(&metadata))
    }

    /// When it changed last. Whatever changes it after that tick of the clock leaves another state.
    pub fn newest(&self) -> Tick {
        // A time of modification can be set; one that lies ahead says that somebody plays with it.
        Tick::of(self.changed).max(Tick::of(self.modified))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (modified, changed) = (self.modified, self.changed);
        write!(
            f,
            "{}:{}:{}:{}.{}:{}.{}",
            self.device, self.inode, self.size, modified.0, modified.1, changed.0, changed.1
        )
    }
}

/// The text is not one of a state.
#[derive(Debug)]
pub struct NotAState;

impl FromStr for Identity {
    type Err = NotAState;

    fn from_str(text: &str) -> Result<Self, NotAState> {
        fn number<T: FromStr>(text: Option<&str>) -> Result<T, NotAState> {
            text.and_then(|text| text.parse().ok()).ok_or(NotAState)
        }
        fn time(text: Option<&str>) -> Result<(i64, i64), NotAState> {
            let (seconds, rest) = text
                .and_then(|text| text.split_once('.'))
                .ok_or(NotAState)?;
            Ok((number(Some(seconds))?, number(Some(rest))?))
        }
        let mut parts = text.split(':');
        Ok(Self {
            device: number(parts.next())?,
            inode: number(parts.next())?,
            size: number(parts.next())?,
            modified: time(parts.next())?,
            changed: time(parts.next())?,
        })
    }
}

/// The name of this boot of the machine, where the system has one.
pub fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let id = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned())
    };
    BOOT.get_or_init(read).as_deref()
}

/// The state of the program that runs, where the system shows its file.
pub fn program() -> Option<Identity> {
    let metadata = std::fs::metadata("/proc/self/exe").ok()?;
    Some(Identity::of(&metadata))
}

/// Whether a path is on a file system of this machine, whose times are this machine's.
pub fn is_local(path: &Path) -> bool {
    // ext2 to 4, xfs, btrfs, tmpfs, overlayfs, f2fs, bcachefs, zfs.
    const KNOWN: [u32; 8] = [
        0xef53,
        0x5846_5342,
        0x9123_683e,
        0x0102_1994,
        0x794c_7630,
        0xf2f5_2010,
        0xca45_1a4e,
        0x2fc1_2fc1,
    ];
    rustix::fs::statfs(path).is_ok_and(|found| KNOWN.contains(&(found.f_type as u32)))
}

impl Store {
    /// What was remembered under a name.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn memory(&self, name: &Digest) -> Result<Lookup<Vec<u8>>, CacheError> {
        self.look_up(&self.memories().join(name.to_string()), |bytes| {
            let text = files::unseal(bytes).ok_or(NOT_AS_WRITTEN)?;
            Ok(text.to_vec())
        })
    }

    /// The folder of this boot's memories. What those of others say is worth nothing, and is never read.
    pub(crate) fn memories(&self) -> PathBuf {
        self.layout().memories().join(boot().unwrap_or("unknown"))
    }

    /// Remembers something under a name, in the place of what was. It is not synced: after a power cut there is
    /// another boot.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn remember(&self, name: &Digest, text: Vec<u8>) -> Result<(), CacheError> {
        let _keeping = self.keeping()?;
        let folder = self.memories();
        if !folder.is_dir() {
            self.forget()?;
            files::make_passing_folder(&folder)?;
        }
        let path = folder.join(name.to_string());
        files::write_passing(&self.layout().staging(), &path, &files::seal(text))
    }

    /// The states of the actions of these keys and of these blobs; nothing where one of them is not there, or
    /// no plain file. As long as it is the same nobody has touched any of them.
    pub fn survey(&self, keys: &[Key], blobs: &[Digest]) -> Option<Survey> {
        let actions = keys.iter().map(|key| (Shelf::Actions, &key.0));
        let blobs = blobs.iter().map(|blob| (Shelf::Blobs, blob));
        let files: Vec<(Shelf, &Digest)> = actions.chain(blobs).collect();
        // Digests of parts do not follow the number of threads.
        let parts: Vec<&[(Shelf, &Digest)]> = files.chunks(PART).collect();
        let threads = threads::cores();
        let look = |parts: &[&[(Shelf, &Digest)]]| -> Option<Vec<Survey>> {
            parts.iter().map(|part| self.survey_part(part)).collect()
        };
        let surveys = std::thread::scope(|scope| {
            let mut shares = parts.chunks(parts.len().div_ceil(threads).max(1));
            let first = shares.next().unwrap_or_default();
            let others: Vec<_> = shares
                .map(|share| {
                    let thread = Builder::new().spawn_scoped(scope, move || look(share));
                    (share, thread)
                })
                .collect();
            let mut surveys = look(first)?;
            for (share, thread) in others {
                let found = match thread {
                    Ok(thread) => thread.join().ok().flatten(),
                    // No thread is to be had: this one does it.
                    Err(_) => look(share),
                };
                surveys.extend(found?);
            }
            Some(surveys)
        })?;
        let mut hasher = blake3::Hasher::new();
        let mut newest = Tick::default();
        for survey in surveys {
            hasher.update(survey.digest.as_bytes());
            newest = newest.max(survey.newest);
        }
        let digest = hasher.finalize().into();
        Some(Survey { digest, newest })
    }

    fn survey_part(&self, files: &[(Shelf, &Digest)]) -> Option<Survey> {
        let mut hasher = blake3::Hasher::new();
        let mut newest = Tick::default();
        for (shelf, digest) in files {
            let state = Identity::at(&self.layout().on(*shelf, digest))?;
            let (modified, changed) = (state.modified, state.changed);
            let times = [modified.0, modified.1, changed.0, changed.1].map(i64::cast_unsigned);
            for number in [state.device, state.inode, state.size]
                .into_iter()
                .chain(times)
            {
                hasher.update(&number.to_le_bytes());
            }
            newest = newest.max(state.newest());
        }
        let digest = hasher.finalize().into();
        Some(Survey { digest, newest })
    }

    /// Forgets what was remembered.
    pub(crate) fn forget(&self) -> Result<(), CacheError> {
        crate::staging::remove_folder(&self.layout().memories())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::fresh;

    #[test]
    fn a_state_is_read_back_and_settles_with_the_next_tick() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs_err::write(&path, "bytes").expect("written");
        let state = Identity::at(&path).expect("there");
        assert_eq!(state.to_string().parse::<Identity>().ok(), Some(state));
        assert!("1:2".parse::<Identity>().is_err());
        let Identity { changed, .. } = state;
        assert_eq!(state.newest(), Tick::of(changed));
        assert!(Tick::of((1, 0)) > Tick::of((1, 5)) && Tick::of((1, 0)) < Tick::of((2, 1)));
        while state.newest() >= Tick::now() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        fs_err::write(&path, "bytez").expect("written");
        assert_ne!(Identity::at(&path), Some(state));
        assert!(Identity::of_folder(&path).is_none());
    }

    #[test]
    fn a_memory_is_kept_replaced_and_told_when_damaged() {
        let (_folder, store) = fresh();
        let name = Digest::of(b"a");
        assert_eq!(store.memory(&name).expect("read"), Lookup::Missing);
        for text in ["one\n", "two\n"] {
            store.remember(&name, text.into()).expect("kept");
            let found = store.memory(&name).expect("read").found();
            assert_eq!(found.as_deref(), Some(text.as_bytes()));
        }
        fs_err::write(store.memories().join(name.to_string()), "two\n").expect("written");
        assert!(matches!(
            store.memory(&name).expect("read"),
            Lookup::Damaged(_)
        ));
    }
}
