//! Memory-mapped files: the only place of this crate that asks the system to map one.
#![expect(
    unsafe_code,
    reason = "mapping a file is unsafe: another program could change it"
)]

use std::path::Path;

use bytes::Bytes;
use memmap2::Mmap;

/// The bytes of a file, read by the system as they are looked at. An empty file is no bytes.
///
/// # Errors
/// Those of opening and mapping, with the file's name.
pub fn map(path: &Path) -> std::io::Result<Bytes> {
    let file = fs_err::File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: what is mapped are blobs of the cache and downloads in a scratch folder of the stage's own:
    // read-only files that are replaced by renaming, never changed in place.
    let mapped = unsafe { Mmap::map(file.file()) }.map_err(|error| {
        std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    })?;
    Ok(Bytes::from_owner(mapped))
}
