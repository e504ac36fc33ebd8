//! The few ways in which the cache touches files: read what has to be a plain file; write beside, sync,
//! rename; and sync folders, many names at a time. Nothing else in this crate writes below the cache's root.

use std::collections::BTreeSet;
use std::fs::{File, Metadata, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};

use crate::Digest;
use crate::error::{CacheError, is_absent};
use crate::locks::own_mark;
use crate::{planted, threads};

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) modified: (i64, i64),
    pub(crate) changed: (i64, i64),
}

impl Identity {
    /// That of the plain file `path`; nothing where there is none any more.
    pub fn at(path: &Path) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        metadata.is_file().then(|| Self::of(&metadata))
    }

    pub(crate) fn of(metadata: &Metadata) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: if planted("times-trusted") {
                (0, 0)
            } else {
                changed
            },
        }
    }
}

/// Opens a plain file; a link, a pipe or a folder in its place is an error, and never waits.
pub(crate) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let mut flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, !planted("link-followed"));
    flags.set(OFlags::NONBLOCK, !planted("pipe-opened"));
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok((file, metadata))
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not a plain file",
        ))
    }
}

/// Reads a plain file whole. A file that did not grow since it was opened costs one call to read it.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (mut file, metadata) = open(path)?;
    read_open(&mut file, metadata.len())
}

/// Reads so many bytes of an open file; fewer are an error.
pub(crate) fn read_open(file: &mut File, size: u64) -> io::Result<Vec<u8>> {
    let size = usize::try_from(size).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads a plain file whole, where there is one.
pub(crate) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The digest and size of what an open file holds from its beginning. Large files are hashed by all cores.
///
/// `size` is how much there was a moment ago. No more is read, so that a small file costs one call; whether it has
/// grown since is for the caller to see.
pub(crate) fn digest(file: &mut File, size: u64) -> io::Result<(Digest, u64)> {
    const CHUNK: usize = 4 << 20;
    const WORTH_THREADS: usize = 512 << 10;
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(CHUNK).clamp(1, CHUNK)];
    let mut hasher = blake3::Hasher::new();
    let mut total = 0;
    loop {
        let mut filled = 0;
        // No further than the end where that is known; a file that says that it is empty may be one of the system's.
        let wanted = match usize::try_from(size.saturating_sub(total)) {
            Ok(left @ 1..) => left.min(buffer.len()),
            _ => buffer.len(),
        };
        while filled < wanted {
            match file.read(&mut buffer[filled..wanted]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            return Ok((hasher.finalize().into(), total));
        }
        if filled >= WORTH_THREADS && threads::are_there() {
            hasher.update_rayon(&buffer[..filled]);
        } else {
            hasher.update(&buffer[..filled]);
        }
        total += filled as u64;
        if total == size {
            return Ok((hasher.finalize().into(), total));
        }
    }
}

/// Makes a folder whose loss in a power cut loses nothing, and those above it.
pub(crate) fn make_passing_folder(path: &Path) -> Result<(), CacheError> {
    fs_err::create_dir_all(path).map_err(CacheError::io("make", path))
}

/// Folders in which names have changed that a power cut could still take back. What is in a file is synced
/// before it gets its name, so what is lost is lost whole: a file that is not there is made again.
///
/// Once a folder could not be synced, nothing that is noted here can ever be said to be durable: what the
/// system could not write it may have forgotten, so that a second attempt would succeed and mean nothing.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    folders: Mutex<BTreeSet<PathBuf>>,
    failed: AtomicBool,
}

impl Unsynced {
    /// Remembers that a name in this folder has changed.
    pub(crate) fn note(&self, folder: &Path) {
        if let Ok(mut folders) = self.folders.lock()
            && !folders.contains(folder)
        {
            folders.insert(folder.to_path_buf());
        }
    }

    /// Makes a folder and those above it.
    pub(crate) fn make_folder(&self, path: &Path) -> Result<(), CacheError> {
        match std::fs::create_dir(path) {
            Ok(()) => {
                path.parent()
                    .into_iter()
                    .for_each(|parent| self.note(parent));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty())
                    .ok_or_else(|| CacheError::io("make", path)(error))?;
                self.make_folder(parent)?;
                self.make_folder(path)
            }
            Err(error) => Err(CacheError::io("make", path)(error)),
        }
    }

    /// Whether more than one folder is noted.
    pub(crate) fn has_many(&self) -> bool {
        self.folders.lock().is_ok_and(|folders| folders.len() > 1)
    }

    /// Forgets the folders on the file system of `root`, because all of it is about to be synced.
    pub(crate) fn forget_beside(&self, root: &Path) {
        let device = |path: &Path| path.metadata().ok().map(|metadata| metadata.dev());
        let here = device(root);
        if let (Ok(mut folders), Some(_)) = (self.folders.lock(), here) {
            folders.retain(|folder| !folder.starts_with(root) && device(folder) != here);
        }
    }

    /// Remembers that something could not be synced.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Makes all that was noted durable, each folder once.
    pub(crate) fn sync(&self) -> Result<(), CacheError> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(CacheError::NotDurable);
        }
        let folders = self
            .folders
            .lock()
            .map(|mut folders| std::mem::take(&mut *folders));
        for folder in folders.unwrap_or_default() {
            if planted("no-folder-sync") {
                continue;
            }
            match sync_folder(&folder) {
                Err(_) if planted("folder-error-dropped") => {}
                Err(_) if planted("folder-synced-again") => sync_folder(&folder)?,
                Err(CacheError::Io { source, .. }) if is_absent(&source) => {}
                Err(error) => {
                    self.fail();
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), CacheError> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(CacheError::io("sync", path))
}

/// Writes a file in one step: beside (below `staging`), synced, renamed; its folder is noted as unsynced.
pub(crate) fn write(
    unsynced: &Unsynced,
    staging: &Path,
    target: &Path,
    bytes: &[u8],
    mode: u32,
) -> Result<(), CacheError> {
    let folder = target.parent().unwrap_or(Path::new("."));
    unsynced.make_folder(folder)?;
    let file = filled(staging, bytes, mode, Sync::Now)?;
    file.persist(target)
        .map_err(|failed| CacheError::io("write", target)(failed.error))?;
    unsynced.note(folder);
    Ok(())
}

/// Writes a file in one step, and does not sync it: after a power cut it may be torn under its name.
pub(crate) fn write_passing(staging: &Path, target: &Path, bytes: &[u8]) -> Result<(), CacheError> {
    let file = filled(staging, bytes, 0o666, Sync::Later)?;
    let placed = file.persist(target).map(drop);
    placed.map_err(|failed| CacheError::io("write", target)(failed.error))
}

/// Gives a file its name, where no other has it; answers whether that was so.
pub(crate) fn place_new(file: tempfile::NamedTempFile, target: &Path) -> Result<bool, CacheError> {
    match file.persist_noclobber(target) {
        Ok(_) => Ok(true),
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(failed) => Err(CacheError::io("write", target)(failed.error)),
    }
}

/// When a file is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// At once.
    Now,
    /// With others, before it gets its name.
    Later,
}

/// A new file below `staging` with these bytes. Where that fails it is thrown away.
pub(crate) fn filled(
    staging: &Path,
    bytes: &[u8],
    mode: u32,
    sync: Sync,
) -> Result<tempfile::NamedTempFile, CacheError> {
    let mut file = temporary(staging, mode)?;
    let mut written = file.as_file_mut().write_all(bytes);
    if planted("write-error-dropped") {
        written = Ok(());
    }
    if sync == Sync::Now && !planted("no-file-sync") {
        written = written.and_then(|()| file.as_file().sync_all());
    }
    if planted("sync-error-dropped") {
        written = Ok(());
    }
    written.map_err(CacheError::io("write", file.path()))?;
    Ok(file)
}

/// A new file with a name of its own below `staging`, removed when it is dropped.
pub(crate) fn temporary(staging: &Path, mode: u32) -> Result<tempfile::NamedTempFile, CacheError> {
    tempfile::Builder::new()
        .prefix(&format!("file-{}", own_mark()))
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(staging)
        .map_err(CacheError::io("make a file in", staging))
}

/// Fills `to`, which is empty, with what `from` holds: shares the blocks where the file system can, copies
/// elsewhere.
pub(crate) fn clone(from: &mut File, to: &mut File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if rustix::fs::ioctl_ficlone(&*to, &*from).is_ok() {
        return Ok(());
    }
    io::copy(from, to).map(drop)
}

const SEAL: &[u8] = b"b3 ";

/// Adds a last line with the digest of all lines before it.
pub(crate) fn seal(mut text: Vec<u8>) -> Vec<u8> {
    let digest = Digest::of(&text);
    text.extend_from_slice(SEAL);
    text.extend_from_slice(digest.to_string().as_bytes());
    text.push(b'\n');
    text
}

/// The lines above a seal that holds.
pub(crate) fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    const LENGTH: usize = SEAL.len() + 64 + 1;
    let (text, seal) = bytes.split_at_checked(bytes.len().checked_sub(LENGTH)?)?;
    let hex = seal.strip_prefix(SEAL)?.strip_suffix(b"\n")?;
    let whole = hex == Digest::of(text).to_string().as_bytes() || planted("seal-unchecked");
    whole.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_there_is_replaced_or_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let staging = folder.path().join("staging");
        let target = folder.path().join("a/b/file");
        let unsynced = Unsynced::default();
        unsynced.make_folder(&staging).expect("made");
        let put = |bytes| write(&unsynced, &staging, &target, bytes, 0o666).expect("written");
        put(b"one");
        put(b"two");
        assert_eq!(read(&target).expect("read"), b"two");
        let other = filled(&staging, b"three", 0o666, Sync::Later).expect("written");
        assert!(!place_new(other, &target).expect("kept"));
        assert_eq!(read(&target).expect("read"), b"two");
        let left = std::fs::read_dir(&staging).expect("listed").count();
        assert_eq!(left, 0, "nothing stays beside");
        let noted = unsynced.folders.lock().expect("no panic").clone();
        let below = |name| folder.path().join(name);
        assert_eq!(
            noted,
            [folder.path().to_path_buf(), below("a"), below("a/b")].into()
        );
        unsynced.sync().expect("synced");
        assert!(unsynced.folders.lock().expect("no panic").is_empty());
    }

    #[test]
    fn a_seal_notices_every_flipped_bit() {
        let sealed = seal(b"a line\n".to_vec());
        assert_eq!(unseal(&sealed), Some(b"a line\n".as_slice()));
        for byte in 0..sealed.len() {
            for bit in 0..8 {
                let mut other = sealed.clone();
                other[byte] ^= 1 << bit;
                assert_eq!(unseal(&other), None);
            }
        }
        assert_eq!(unseal(b"short"), None);
    }

    #[test]
    fn what_is_no_plain_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/hostname", &link).expect("linked");
        assert!(open(&link).is_err());
        assert!(open(folder.path()).is_err());
    }

    #[test]
    fn large_and_small_files_have_the_digest_of_their_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        for size in [0_usize, 1, 600_000, 9_000_001] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let path = folder.path().join("file");
            fs_err::write(&path, &bytes).expect("written");
            let (mut file, metadata) = open(&path).expect("opened");
            let found = digest(&mut file, metadata.len()).expect("read");
            assert_eq!(found, (Digest::of(&bytes), size as u64));
        }
    }
}
