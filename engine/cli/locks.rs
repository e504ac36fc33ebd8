//! The lock files of a project.

use std::path::{Path, PathBuf};

use taper_cache::RunId;
use taper_engine::{Lock, Project};

use crate::failure::Failure;

/// Every lock file of the project. Hidden folders, `target` and the cache are left out.
///
/// # Errors
/// Where the project's root cannot be read.
pub fn find(project: &Project) -> Result<Vec<PathBuf>, Failure> {
    let mut locks = Vec::new();
    search(&project.root, &project.cache, &mut locks)?;
    Ok(locks)
}

fn search(folder: &Path, cache: &Path, locks: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let mut entries: Vec<_> = fs_err::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs_err::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type()?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let passed_over = name.starts_with('.') || name == "target" || path == cache;
        if kind.is_dir() && !passed_over {
            // A folder that may not be read holds no lock of this user's.
            if let Err(error) = search(&path, cache, locks) {
                tracing::debug!(%error, "passed over");
            }
        } else if kind.is_file()
            && path
                .extension()
                .is_some_and(|extension| extension == "lock")
        {
            let text = fs_err::read(&path)?;
            if text.starts_with(b"# taper's lock") {
                locks.push(path);
            }
        }
    }
    Ok(())
}

/// The id of the run that a lock file is the outcome of: it has the name, the key and the artifact of every
/// stage.
pub fn run_id(lock: &Lock) -> RunId {
    let stages = lock.stages.iter();
    RunId::of_stages(stages.map(|(name, stage)| (name.as_str(), stage.key, stage.artifact)))
}

/// The pipeline file of a lock file: the one beside it with its name.
pub fn pipeline_of(lock: &Path) -> Option<PathBuf> {
    ["yaml", "yml"]
        .into_iter()
        .map(|extension| lock.with_extension(extension))
        .find(|path| path.is_file())
}
