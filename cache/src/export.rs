//! Artifacts as plain files in the work tree.
//!
//! Nothing is written outside the folder that was given: names are walked part by part from an open folder,
//! links are never followed, and a file is written in the cache, or beside where the cache is on another file
//! system, and renamed. So a folder that another program swaps for a link meanwhile leads nowhere, and a kill
//! leaves nothing in the work tree. What was written is read back and compared with its digest. Names are
//! durable after [`Store::sync`].

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{CacheError, Damage, is_absent};
use crate::files;
use crate::manifest::{Blob, Manifest, is_portable};
use crate::store::is_no_file;
use crate::{BlobName, Store, planted};

/// What an export did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Files that were written, below the folder.
    pub written: Vec<PathBuf>,
    /// How many files were there already with the right bytes.
    pub unchanged: usize,
    /// Files in the exported folder that are no part of the artifact, and were left alone.
    pub foreign: Vec<PathBuf>,
}

/// Which files of an artifact an export writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form<'a> {
    File(&'a Blob),
    Folder,
}

impl Store {
    /// Writes an artifact to `target`, a relative path below `base`.
    ///
    /// A target with the extension of just one of the artifact's files gets that file (`scores.json`); a
    /// target without an extension, or with `/` at its end, gets a folder with all of them.
    ///
    /// # Errors
    /// Where the target leaves `base` or is a link, no file has its extension, a blob is damaged (it is
    /// set aside), or the file system refuses.
    pub fn export(
        &self,
        manifest: &Manifest,
        base: &Path,
        target: &str,
    ) -> Result<Exported, CacheError> {
        let parts = safe_parts(target)?;
        let mut exported = Exported::default();
        match form(manifest, target)? {
            Form::File(blob) => self.export_file(blob, base, &parts, &mut exported)?,
            Form::Folder => {
                for (name, blob) in &manifest.blobs {
                    let all: Vec<&OsStr> = parts
                        .iter()
                        .copied()
                        .chain(name.as_str().split('/').map(OsStr::new))
                        .collect();
                    self.export_file(blob, base, &all, &mut exported)?;
                }
                let folder: PathBuf = parts.iter().collect();
                find_foreign(base, &folder, &folder, manifest, &mut exported.foreign);
            }
        }
        Ok(exported)
    }

    /// Writes one blob to the path of these parts below `base`.
    fn export_file(
        &self,
        blob: &Blob,
        base: &Path,
        parts: &[&OsStr],
        exported: &mut Exported,
    ) -> Result<(), CacheError> {
        let path: PathBuf = parts.iter().collect();
        let [folders @ .., name] = parts else {
            return Err(refusal(&path, "it names no file"));
        };
        let mut folder = open_base(base)?;
        let mut place = base.to_path_buf();
        for part in folders {
            let made;
            (folder, made) = descend(&folder, part, &path)?;
            if made {
                self.inner.unsynced.note(&place);
            }
            place.push(part);
        }
        if is_there(&folder, name, blob, &path)? {
            exported.unchanged += 1;
            return Ok(());
        }
        if planted("exported-in-place") {
            fs_err::copy(self.layout().blob(&blob.digest), base.join(&path))
                .map_err(CacheError::io("write", &path))?;
        } else if planted("exported-beside") {
            self.write_beside(&folder, name, blob, &base.join(&path))?;
        } else {
            self.write_to(&folder, name, blob, &base.join(&path))?;
        }
        if !planted("export-unsynced") {
            self.inner.unsynced.note(&place);
        }
        exported.written.push(path);
        Ok(())
    }

    /// Writes a blob and renames it to its name in `folder`.
    fn write_to(
        &self,
        folder: &OwnedFd,
        name: &OsStr,
        blob: &Blob,
        shown: &Path,
    ) -> Result<(), CacheError> {
        if let Ok(_keeping) = self.keeping()
            && let Ok(mut file) = files::temporary(&self.layout().staging(), 0o666)
        {
            self.fill(file.as_file_mut(), blob, shown)?;
            let placed = rustix::fs::renameat(rustix::fs::CWD, file.path(), folder, name);
            match placed {
                Ok(()) => {
                    // It has been moved away: nothing is left to remove.
                    let _ = file.into_temp_path().keep();
                    return Ok(());
                }
                Err(Errno::XDEV) => {}
                Err(errno) => return Err(CacheError::io("write", shown)(errno.into())),
            }
        }
        self.write_beside(folder, name, blob, shown)
    }

    fn write_beside(
        &self,
        folder: &OwnedFd,
        name: &OsStr,
        blob: &Blob,
        shown: &Path,
    ) -> Result<(), CacheError> {
        let beside = format!(".taper-{}-{}", std::process::id(), blob.digest.short());
        let failed = |errno: Errno| CacheError::io("write", shown)(errno.into());
        // Left by a killed program with our number.
        let _ = rustix::fs::unlinkat(folder, &beside, AtFlags::empty());
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, &beside, flags, Mode::from_raw_mode(0o666))
            .map_err(failed)?;
        let placed = self
            .fill(&mut File::from(file), blob, shown)
            .and_then(|()| rustix::fs::renameat(folder, &beside, folder, name).map_err(failed));
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(folder, &beside, AtFlags::empty());
        }
        placed
    }

    fn fill(&self, file: &mut File, blob: &Blob, shown: &Path) -> Result<(), CacheError> {
        let source = self.layout().blob(&blob.digest);
        let (mut from, _) = match files::open(&source) {
            Ok(opened) => opened,
            Err(error) if is_absent(&error) => {
                return Err(CacheError::Damaged(Damage {
                    path: source,
                    why: "it is missing".to_owned(),
                    aside: None,
                }));
            }
            Err(error) if is_no_file(&error) => {
                let damage = self.set_aside(&source, "it is not a plain file");
                return Err(CacheError::Damaged(damage));
            }
            Err(error) => return Err(CacheError::io("read", source)(error)),
        };
        let written = files::clone(&mut from, file)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .and_then(|size| {
                file.seek(SeekFrom::Start(0))?;
                files::digest(file, size)
            })
            .and_then(|found| file.sync_all().map(|()| found));
        let (digest, _) = written.map_err(CacheError::io("write", shown))?;
        if digest == blob.digest || planted("export-unverified") {
            return Ok(());
        }
        Err(CacheError::Damaged(
            self.set_aside(&source, "its bytes are not those of its name"),
        ))
    }
}

/// The blob of an artifact that an export to `target` writes as a file; `None` where it writes a folder.
///
/// # Errors
/// Where `target` has an extension that none or several of the files have.
pub fn exported_file<'a>(
    manifest: &'a Manifest,
    target: &str,
) -> Result<Option<&'a Blob>, CacheError> {
    match form(manifest, target)? {
        Form::File(blob) => Ok(Some(blob)),
        Form::Folder => Ok(None),
    }
}

fn form<'a>(manifest: &'a Manifest, target: &str) -> Result<Form<'a>, CacheError> {
    let extension = match Path::new(target).extension() {
        Some(extension) if !target.ends_with('/') => extension,
        _ => return Ok(Form::Folder),
    };
    let same: Vec<&Blob> = manifest
        .blobs
        .iter()
        .filter(|(name, _)| Path::new(name.as_str()).extension() == Some(extension))
        .map(|(_, blob)| blob)
        .collect();
    match same.as_slice() {
        [blob] => Ok(Form::File(blob)),
        found => {
            let names: Vec<&str> = manifest
                .blobs
                .keys()
                .map(BlobName::as_str)
                .take(5)
                .collect();
            let count = if found.is_empty() {
                "no file"
            } else {
                "several files"
            };
            Err(refusal(
                Path::new(target),
                format!(
                    "the artifact has {count} with the extension `.{}` (it has {}); with `/` at the end all \
                     of them go into a folder",
                    extension.to_string_lossy(),
                    names.join(", ")
                ),
            ))
        }
    }
}

fn refusal(path: &Path, why: impl Into<String>) -> CacheError {
    CacheError::UnsafeExport {
        path: path.to_path_buf(),
        why: why.into(),
    }
}

/// The parts of a path that stays below its folder, and out of what belongs to git and to the cache, on every system.
///
/// # Errors
/// Where it is absolute, has `..`, is empty, or names what cannot stand everywhere.
pub fn safe_parts(target: &str) -> Result<Vec<&OsStr>, CacheError> {
    let path = Path::new(target);
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err(refusal(path, "`..` may leave the folder")),
            Component::RootDir | Component::Prefix(_) => {
                return Err(refusal(
                    path,
                    "it is absolute: name a path below the project",
                ));
            }
        }
    }
    if parts.is_empty() {
        return Err(refusal(path, "it names no file"));
    }
    for part in &parts {
        let name = part.to_str().unwrap_or_default();
        // Where case does not count, these are the same folders.
        if [".git", ".taper"].contains(&name.to_lowercase().as_str()) {
            return Err(refusal(path, "nothing of the user's belongs there"));
        }
        is_portable(name).map_err(|why| refusal(path, why))?;
    }
    Ok(parts)
}

fn open_base(base: &Path) -> Result<OwnedFd, CacheError> {
    files::make_passing_folder(base)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(base, flags, Mode::empty())
        .map_err(|errno| CacheError::io("open", base)(errno.into()))
}

/// Opens the folder `part` of `folder`, made where it is missing; whether it was.
fn descend(folder: &OwnedFd, part: &OsStr, path: &Path) -> Result<(OwnedFd, bool), CacheError> {
    let failed = |errno: Errno| CacheError::io("make the folders of", path)(errno.into());
    let made = match rustix::fs::mkdirat(folder, part, Mode::from_raw_mode(0o777)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(failed(errno)),
    };
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, !planted("export-follows"));
    match rustix::fs::openat(folder, part, flags, Mode::empty()) {
        Ok(opened) => Ok((opened, made)),
        Err(Errno::LOOP | Errno::NOTDIR) => Err(refusal(
            path,
            format!(
                "`{}` is a link or a file, not a folder",
                part.to_string_lossy()
            ),
        )),
        Err(errno) => Err(failed(errno)),
    }
}

/// Whether the file is there with the blob's bytes.
fn is_there(folder: impl AsFd, name: &OsStr, blob: &Blob, path: &Path) -> Result<bool, CacheError> {
    let failed = CacheError::io("read", path);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::LOOP) => return Err(refusal(path, "it is a link")),
        Err(errno) => return Err(failed(errno.into())),
    };
    let compared = file.metadata().and_then(|metadata| {
        if !metadata.is_file() {
            return Ok(None);
        }
        let same =
            metadata.len() == blob.size && files::digest(&mut file, blob.size)?.0 == blob.digest;
        Ok(Some(same))
    });
    match compared {
        Ok(Some(same)) => Ok(same),
        Ok(None) => Err(refusal(path, "it is a folder or a special file")),
        Err(error) => Err(failed(error)),
    }
}

/// Files below an exported folder that the artifact does not have: told, never touched.
fn find_foreign(
    base: &Path,
    exported: &Path,
    folder: &Path,
    manifest: &Manifest,
    foreign: &mut Vec<PathBuf>,
) {
    let Ok(entries) = std::fs::read_dir(base.join(folder)) else {
        return;
    };
    for entry in entries.flatten() {
        let path = folder.join(entry.file_name());
        if entry.file_type().is_ok_and(|file_type| file_type.is_dir()) {
            find_foreign(base, exported, &path, manifest, foreign);
            continue;
        }
        let known =
            crate::blob_name(exported, &path).is_ok_and(|name| manifest.blobs.contains_key(&name));
        if !known {
            foreign.push(path);
        }
    }
    foreign.sort();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ArtifactType;
    use crate::store::tests::fresh;

    fn artifact(store: &Store) -> Manifest {
        let staging = store.stage().expect("staged");
        fs_err::create_dir_all(staging.out().join("deep")).expect("made");
        for (name, bytes) in [
            ("plot.svg", "<svg/>"),
            ("plot.png", "png"),
            ("deep/a.txt", "a"),
        ] {
            fs_err::write(staging.out().join(name), bytes).expect("written");
        }
        let sealed = staging.seal(ArtifactType::Plot).expect("sealed");
        sealed.into_manifest().expect("kept")
    }

    #[test]
    fn a_file_or_a_folder_by_the_targets_extension() {
        let (folder, store) = fresh();
        let manifest = artifact(&store);
        let base = folder.path();
        let file = store
            .export(&manifest, base, "results/curves.svg")
            .expect("exported");
        assert_eq!(file.written, [Path::new("results/curves.svg")]);
        let bytes = files::read(&base.join("results/curves.svg")).expect("there");
        assert_eq!(bytes, b"<svg/>");
        let again = store
            .export(&manifest, base, "./results/curves.svg")
            .expect("exported");
        assert_eq!((again.written.len(), again.unchanged), (0, 1));
        fs_err::create_dir_all(base.join("all/deep")).expect("made");
        fs_err::write(base.join("all/deep/mine"), "mine").expect("written");
        let all = store.export(&manifest, base, "all").expect("exported");
        assert_eq!(all.written.len(), 3);
        assert_eq!(all.foreign, [Path::new("all/deep/mine")]);
        let error = store
            .export(&manifest, base, "curves.csv")
            .expect_err("no such file");
        assert!(error.to_string().contains("`.csv`"), "{error}");
        store.export(&manifest, base, "v1.0/").expect("a folder");
        assert!(base.join("v1.0/plot.png").exists());
        let left = std::fs::read_dir(base.join("results"))
            .expect("listed")
            .count();
        assert_eq!(left, 1, "nothing stays beside");
    }

    #[test]
    fn an_edited_export_is_written_again() {
        let (folder, store) = fresh();
        let manifest = artifact(&store);
        let path = folder.path().join("c.svg");
        store
            .export(&manifest, folder.path(), "c.svg")
            .expect("exported");
        fs_err::write(&path, "<svg>").expect("a user can write to it");
        let again = store
            .export(&manifest, folder.path(), "c.svg")
            .expect("exported");
        assert_eq!(again.written.len(), 1);
    }

    #[test]
    fn nothing_leaves_the_folder() {
        let (folder, store) = fresh();
        let manifest = artifact(&store);
        let base = folder.path().join("project");
        fs_err::create_dir_all(&base).expect("made");
        let outside = folder.path().join("outside");
        fs_err::create_dir_all(&outside).expect("made");
        fs_err::write(outside.join("canary"), "alive").expect("written");
        std::os::unix::fs::symlink(&outside, base.join("link")).expect("linked");
        std::os::unix::fs::symlink(outside.join("canary"), base.join("file.svg")).expect("linked");
        fs_err::create_dir_all(base.join("folder.svg")).expect("made");
        for target in [
            "../outside/canary.svg",
            "/tmp/x.svg",
            "a/../../x.svg",
            "link/x.svg",
            "link",
            "file.svg",
            "folder.svg",
            "",
            ".",
            ".git/hooks/x.svg",
            ".Git/hooks/x.svg",
            "deep/.git/hooks/x.svg",
            ".taper/format",
            "nul/x.svg",
            "Aux.svg",
            "a?/x.svg",
            "a./x.svg",
        ] {
            let refused = store.export(&manifest, &base, target);
            assert!(
                matches!(refused, Err(CacheError::UnsafeExport { .. })),
                "{target}: {refused:?}"
            );
        }
        assert_eq!(std::fs::read_dir(&outside).expect("listed").count(), 1);
        assert_eq!(
            files::read(&outside.join("canary")).expect("there"),
            b"alive"
        );
    }

    #[test]
    fn a_damaged_blob_is_not_exported() {
        let (folder, store) = fresh();
        let manifest = artifact(&store);
        let blob = exported_file(&manifest, "c.svg")
            .expect("one")
            .expect("a file");
        let path = store.layout().blob(&blob.digest);
        std::fs::remove_file(&path).expect("removed");
        fs_err::write(&path, "<SVG/>").expect("written");
        let error = store
            .export(&manifest, folder.path(), "c.svg")
            .expect_err("damaged");
        assert!(matches!(error, CacheError::Damaged(_)), "{error}");
        assert!(!folder.path().join("c.svg").exists());
    }
}
