//! Files of the project that stages read: found, hashed, copied into the cache.
//!
//! What is hashed is what is read: a stage never sees the project's file but a copy in the cache. If the
//! copy's digest is not the one in the key, the file was edited meanwhile; then the key is made anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use taper_cache::{ArtifactType, BlobName, Lookup, Manifest, Store, blob_name};

use crate::kind::StageError;
use crate::memory::{Known, Looked, look_at_files};
use crate::plan::PlannedLocal;

/// The files that a local path means: their names in the artifact, and where they are.
pub fn find(root: &Path, local: &PlannedLocal) -> Result<BTreeMap<BlobName, PathBuf>, StageError> {
    let place = |message: String| StageError::invalid(message).at(local.param.clone());
    let written = Path::new(&local.path);
    let leaves = written.components().any(|part| {
        !matches!(
            part,
            std::path::Component::Normal(_) | std::path::Component::CurDir
        )
    });
    if leaves || local.path.is_empty() {
        return Err(place(format!("`{}` leaves the project", local.path)).help(
            "name files below the project's root, relative to it; copy or download others into it",
        ));
    }
    let root = root
        .canonicalize()
        .map_err(|error| place(format!("cannot find {}: {error}", root.display())))?;
    let path = root.join(written);
    let mut found = BTreeMap::new();
    let real_path = |path: &Path| {
        path.canonicalize()
            .map_err(|error| place(format!("cannot read `{}`: {error}", shown(path, &root))))
    };
    let mut add = |base: &Path, file: &Path, real: PathBuf, name: Option<String>| {
        if !real.starts_with(&root) {
            return Err(place(format!(
                "`{}` is a link that leaves the project",
                shown(file, &root)
            ))
            .help("copy the file into the project"));
        }
        let name = match (local.named, name) {
            (true, _) => blob_name(&root, file),
            (false, Some(name)) => {
                Ok(BlobName::new(name).map_err(|error| place(error.to_string()))?)
            }
            (false, None) => blob_name(base, file),
        };
        found.insert(name.map_err(|error| place(error.to_string()))?, real);
        Ok(())
    };
    if path.is_file() {
        let name = format!("file{}", extensions(&path));
        add(&root, &path, real_path(&path)?, Some(name))?;
    } else if path.is_dir() {
        let real_folder = real_path(&path)?;
        for (file, is_link) in below(&path).map_err(|error| place(error.to_string()))? {
            // No link is followed on the way to what is no link itself.
            let real = match (is_link, file.strip_prefix(&path)) {
                (false, Ok(below)) => real_folder.join(below),
                _ => real_path(&file)?,
            };
            add(&path, &file, real, None)?;
        }
    } else if local.path.contains(['*', '?', '[']) {
        let base = fixed_folder(written, &root);
        let escaped = glob::Pattern::escape(&root.to_string_lossy());
        let pattern = format!("{escaped}/{}", local.path);
        let files = glob::glob(&pattern)
            .map_err(|error| place(format!("`{}` is no pattern: {error}", local.path)))?;
        for file in files {
            let file = file.map_err(|error| place(error.to_string()))?;
            if file.is_file() {
                add(&base, &file, real_path(&file)?, None)?;
            }
        }
    }
    if found.is_empty() {
        return Err(
            place(format!("there is no file `{}`", local.path)).help(format!(
                "paths are relative to the project's root, {}",
                root.display()
            )),
        );
    }
    Ok(found)
}

fn shown(path: &Path, root: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// `.csv` of `a.csv`, `.csv.gz` of `a.csv.gz`: the format, and the compression where there is one.
fn extensions(path: &Path) -> String {
    let extension = |path: &Path| {
        path.extension()
            .map(|e| format!(".{}", e.to_string_lossy()))
    };
    let last = extension(path).unwrap_or_default();
    let compressed = [".gz", ".zst", ".bz2", ".xz", ".lz4"].contains(&last.as_str());
    match path.file_stem().map(Path::new).and_then(extension) {
        Some(format) if compressed => format + &last,
        _ => last,
    }
}

/// The longest folder of a pattern that has no wildcard.
fn fixed_folder(pattern: &Path, root: &Path) -> PathBuf {
    let fixed: PathBuf = pattern
        .iter()
        .take_while(|part| !part.to_string_lossy().contains(['*', '?', '[']))
        .collect();
    root.join(fixed)
}

/// The files below a folder, without what belongs to git and to the cache, and whether each is a link.
fn below(folder: &Path) -> std::io::Result<Vec<(PathBuf, bool)>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let file_type = entry.file_type()?;
            if file_type.is_dir() {
                let name = entry.file_name();
                if name != ".git" && name != ".taper" {
                    folders.push(path);
                }
            } else {
                files.push((path, file_type.is_symlink()));
            }
        }
    }
    Ok(files)
}

/// The artifact that files of the project are, without keeping them, and the state in which each was.
///
/// # Errors
/// Where one cannot be read.
pub(crate) fn hash(
    files: &BTreeMap<BlobName, PathBuf>,
    known: &Known,
) -> Result<(Manifest, Vec<Looked>), StageError> {
    let (blobs, looked) = look_at_files(known, files)?;
    Ok((Manifest::new(ArtifactType::Files, blobs)?, looked))
}

/// Keeps files of the project in the cache, as the artifact that they were found to be: those that are not there
/// whole. Whether they still were what they are in the artifact; what is damaged is set aside.
///
/// # Errors
/// Where one cannot be read, or the cache cannot be written to.
pub fn keep(
    store: &Store,
    files: &BTreeMap<BlobName, PathBuf>,
    manifest: &Manifest,
) -> Result<bool, StageError> {
    let mut missing = Vec::new();
    for (path, blob) in files.values().zip(manifest.blobs.values()) {
        if !matches!(store.verify_blob(blob)?, Lookup::Found(_)) {
            missing.push((path, blob));
        }
    }
    let known = matches!(store.manifest(&manifest.digest())?, Lookup::Found(_));
    if known && missing.is_empty() {
        return Ok(true);
    }
    let mut batch = store.batch()?;
    for (path, blob) in missing {
        if store.copy_in(path, &mut batch)? != *blob {
            return Ok(false);
        }
    }
    store.add_manifest(manifest, &mut batch)?;
    store.commit(batch)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs_err::create_dir_all(folder.path().join("data/deep")).expect("made");
        for name in ["data/a.csv", "data/b.csv.gz", "data/deep/c.csv", "clean.py"] {
            fs_err::write(folder.path().join(name), name).expect("written");
        }
        folder
    }

    fn local(path: &str, named: bool) -> PlannedLocal {
        PlannedLocal {
            path: path.to_owned(),
            param: "path".to_owned(),
            named,
        }
    }

    fn names(folder: &Path, path: &str, named: bool) -> Vec<String> {
        let found = find(folder, &local(path, named)).expect("found");
        found.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn files_folders_and_patterns_have_names_without_the_project() {
        let folder = project();
        let names = |path, named| names(folder.path(), path, named);
        assert_eq!(names("data/a.csv", false), ["file.csv"]);
        assert_eq!(names("./data/b.csv.gz", false), ["file.csv.gz"]);
        assert_eq!(names("data", false), ["a.csv", "b.csv.gz", "deep/c.csv"]);
        assert_eq!(names("data/**/*.csv", false), ["a.csv", "deep/c.csv"]);
        assert_eq!(names("clean.py", true), ["clean.py"]);
        assert_eq!(names("data/*.csv", true), ["data/a.csv"]);
    }

    #[test]
    fn what_leaves_the_project_or_is_absent_is_refused() {
        let folder = project();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("data/l")).expect("linked");
        for (path, words) in [
            ("../a.csv", "leaves"),
            ("/etc/hostname", "leaves"),
            ("", "leaves"),
            ("data/l", "link that leaves"),
            ("data", "link that leaves"),
            ("absent.csv", "no file"),
            ("*.absent", "no file"),
        ] {
            let error = find(folder.path(), &local(path, false)).expect_err("refused");
            assert!(error.message.contains(words), "{path}: {error}");
            assert_eq!(error.param.as_deref(), Some("path"));
        }
    }

    #[test]
    fn what_is_kept_is_what_was_hashed() {
        let folder = project();
        let store = Store::open(folder.path().join(".taper")).expect("opened");
        let files = find(folder.path(), &local("data", false)).expect("found");
        let hash = |files| hash(files, &Known::new()).expect("hashed").0;
        let hashed = hash(&files);
        let is_kept = || {
            let manifest = store.manifest(&hashed.digest()).expect("read").found();
            manifest.is_some() && store.verify_artifact(&hashed).expect("read").is_empty()
        };
        assert!(!is_kept());
        assert!(keep(&store, &files, &hashed).expect("kept"));
        assert!(is_kept());
        fs_err::write(folder.path().join("data/a.csv"), "edited").expect("written");
        assert!(keep(&store, &files, &hashed).expect("nothing to do"));
        let edited = hash(&files);
        assert_ne!(edited, hashed);
        fs_err::write(folder.path().join("data/a.csv"), "again").expect("written");
        assert!(!keep(&store, &files, &edited).expect("read"));
        // What is there already is not copied again.
        std::fs::remove_file(folder.path().join("data/deep/c.csv")).expect("removed");
        fs_err::write(folder.path().join("data/a.csv"), "edited").expect("written");
        assert!(keep(&store, &files, &edited).expect("kept"));
    }
}
