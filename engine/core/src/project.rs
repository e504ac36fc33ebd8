//! The project that a pipeline file belongs to: its root, and where its cache is.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::EngineError;

/// The folder that paths in pipeline files are relative to, and its cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The nearest folder above the pipeline file with `taper.toml` or `.git`; without one, the pipeline
    /// file's own.
    pub root: PathBuf,
    /// The cache's folder: `TAPER_CACHE`, else `cache` of `taper.toml`, else `.taper` in the root.
    pub cache: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    cache: Option<PathBuf>,
}

impl Project {
    /// The project of a file or of a folder. `cache` is what the environment's `TAPER_CACHE` says.
    ///
    /// # Errors
    /// Where the folder cannot be found, or `taper.toml` cannot be read.
    pub fn find(start: &Path, cache: Option<PathBuf>) -> Result<Self, EngineError> {
        let start = std::path::absolute(start).map_err(EngineError::file("find", start))?;
        let folder = if start.is_dir() {
            start.as_path()
        } else {
            start.parent().unwrap_or(&start)
        };
        let folder = folder
            .canonicalize()
            .map_err(EngineError::file("find", folder))?;
        let root = folder
            .ancestors()
            .find(|folder| folder.join("taper.toml").is_file() || folder.join(".git").exists())
            .unwrap_or(&folder)
            .to_path_buf();
        let settings = Self::settings(&root)?;
        let cache = cache
            .filter(|cache| !cache.as_os_str().is_empty())
            .map(|cache| std::path::absolute(&cache).unwrap_or(cache))
            .or(settings.cache.map(|cache| root.join(cache)))
            .unwrap_or_else(|| root.join(".taper"));
        Ok(Self { root, cache })
    }

    fn settings(root: &Path) -> Result<Settings, EngineError> {
        let path = root.join("taper.toml");
        let text = match fs_err::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Settings::default());
            }
            Err(error) => return Err(EngineError::file("read", &path)(error)),
        };
        toml::from_str(&text).map_err(|error| EngineError::Project {
            path,
            message: error.to_string().trim_end().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("there");
        fs_err::create_dir_all(root.join("a/b")).expect("made");
        fs_err::write(root.join("a/b/p.yaml"), "taper: 1\n").expect("written");
        (folder, root)
    }

    #[test]
    fn the_nearest_marked_folder_is_the_root() {
        let (_folder, root) = project();
        let file = root.join("a/b/p.yaml");
        fs_err::create_dir_all(root.join(".git")).expect("made");
        let found = Project::find(&file, None).expect("found");
        assert_eq!(found.root, root);
        assert_eq!(found.cache, root.join(".taper"));
        fs_err::write(root.join("a/taper.toml"), "cache = \"../shared\"\n").expect("written");
        let found = Project::find(&file, None).expect("found");
        assert_eq!(found.root, root.join("a"));
        assert_eq!(found.cache, root.join("a/../shared"));
        let moved = Project::find(&file, Some("/elsewhere".into())).expect("found");
        assert_eq!(moved.cache, Path::new("/elsewhere"));
    }

    #[test]
    fn an_unknown_setting_is_an_error_that_names_the_line() {
        let (_folder, root) = project();
        fs_err::write(root.join("taper.toml"), "cachee = \"x\"\n").expect("written");
        let error = Project::find(&root.join("a/b/p.yaml"), None).expect_err("unknown");
        assert!(error.to_string().contains("cachee"), "{error}");
        Project::find(&root.join("nowhere/p.yaml"), None).expect_err("no such folder");
    }
}
