//! Copies of files of the cache, which keeps its own whatever is done to them. A data set may have a million small
//! files: each costs as few calls as it can.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Files of so many bytes are copied through memory; larger ones share their blocks where the file system can.
const SMALL: u64 = 64 << 10;
/// How much of a file says what it is.
const HEAD: usize = 4;

/// Copies a file; folders above the copy are made. `mode` says from its first bytes what may be done with it;
/// nothing is said of a copy that the cache takes over.
///
/// # Errors
/// Where one of the two cannot be read or written.
pub fn copy(from: &Path, to: &Path, mode: Option<fn(&[u8]) -> u32>) -> io::Result<()> {
    match copy_once(from, to, mode) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = to.parent().unwrap_or(Path::new("."));
            fs_err::create_dir_all(folder)?;
            copy_once(from, to, mode)
        }
        done => done,
    }
}

fn copy_once(from: &Path, to: &Path, mode: Option<fn(&[u8]) -> u32>) -> io::Result<()> {
    let mut source = File::open(from)?;
    let size = source.metadata()?.len();
    if size > SMALL {
        reflink_copy::reflink_or_copy(from, to)?;
        if let Some(mode) = mode {
            let mut head = [0; HEAD];
            source.read_exact(&mut head)?;
            std::fs::set_permissions(to, Permissions::from_mode(mode(&head)))?;
        }
        return Ok(());
    }
    let mut bytes = vec![0; size as usize];
    source.read_exact(&mut bytes)?;
    let mut options = OpenOptions::new();
    let mut copy = options.write(true).create(true).truncate(true).open(to)?;
    if let Some(mode) = mode {
        let head = &bytes[..bytes.len().min(HEAD)];
        copy.set_permissions(Permissions::from_mode(mode(head)))?;
    }
    copy.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_have_the_bytes_and_the_mode_that_they_are_to_have() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        for size in [0, 3, 1 << 10, 1 << 17] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            fs_err::write(&from, &bytes).unwrap();
            std::fs::set_permissions(&from, Permissions::from_mode(0o444)).unwrap();
            let to = folder.path().join(format!("{size}/deep/to"));
            let mode = |head: &[u8]| 0o600 + head.len() as u32;
            copy(&from, &to, Some(mode)).unwrap();
            assert_eq!(fs_err::read(&to).unwrap(), bytes);
            let found = to.metadata().unwrap().permissions().mode();
            assert_eq!(found & 0o777, 0o600 + (size as u32).min(4));
            std::fs::remove_file(&from).unwrap();
            assert!(copy(&from, &to, None).is_err());
        }
    }
}
