//! What a run reads of the project, looked at again and again: where it changes, there is something to run.
//!
//! Files are looked at, not subscribed to: that works on every file system and costs one system call a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use taper_cache::Identity;

use crate::local;
use crate::plan::{Plan, PlannedLocal};

/// Between two looks, at least.
const PAUSE: Duration = Duration::from_millis(200);
/// And at least so many times as long as a look took.
const TIMES: u32 = 10;

/// Files of a project that a pipeline reads, be they there or not.
#[derive(Clone, Debug)]
pub struct Watched {
    root: PathBuf,
    files: Vec<PathBuf>,
    locals: Vec<PlannedLocal>,
}

/// The files that were there, each in the state that it was in.
pub type Seen = BTreeMap<PathBuf, Identity>;

impl Watched {
    /// The pipeline file and its project's settings.
    pub fn new(file: &Path, root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            files: vec![file.to_path_buf(), root.join("taper.toml")],
            locals: Vec::new(),
        }
    }

    /// The same with what the stages of a plan read.
    pub fn reads(&mut self, plan: &Plan) {
        let locals = plan.stages.iter().flat_map(|stage| &stage.locals);
        self.locals = locals.cloned().collect();
        self.locals.sort_by(|a, b| a.path.cmp(&b.path));
        self.locals.dedup_by(|a, b| a.path == b.path);
    }

    /// Looks at all of them.
    pub fn look(&self) -> Seen {
        let locals = self.locals.iter();
        let found = locals.filter_map(|local| local::find(&self.root, local).ok());
        let paths = found.flat_map(BTreeMap::into_values);
        self.files
            .iter()
            .cloned()
            .chain(paths)
            .filter_map(|path| Identity::at(&path).map(|state| (path, state)))
            .collect()
    }

    /// Waits until they are no longer as they were `seen`, and two looks find the same: who writes may still be
    /// writing. Answers the paths of what has changed, come or gone; none where `stop` was set.
    pub fn wait(&self, seen: &Seen, stop: &AtomicBool) -> BTreeSet<PathBuf> {
        let mut before = None;
        loop {
            let started = Instant::now();
            let now = self.look();
            if now != *seen && before.as_ref() == Some(&now) {
                return self.differences(seen, &now);
            }
            before = Some(now);
            let end = Instant::now() + PAUSE.max(started.elapsed() * TIMES);
            while Instant::now() < end {
                if stop.load(Ordering::SeqCst) {
                    return BTreeSet::new();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn differences(&self, old: &Seen, new: &Seen) -> BTreeSet<PathBuf> {
        let paths = old.keys().chain(new.keys());
        let differ = paths.filter(|path| old.get(*path) != new.get(*path));
        let shown = |path: &PathBuf| path.strip_prefix(&self.root).unwrap_or(path).to_path_buf();
        differ.map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_changes_comes_or_goes_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("its path");
        let write = |name: &str, text: &str| fs_err::write(root.join(name), text).expect("a file");
        for name in ["p.yaml", "old.csv", "same.csv"] {
            write(name, "1");
        }
        let mut watched = Watched::new(&root.join("p.yaml"), &root);
        watched.locals = vec![PlannedLocal {
            path: "*.csv".to_owned(),
            param: "path".to_owned(),
            named: false,
        }];
        let seen = watched.look();
        write("p.yaml", "12");
        write("new.csv", "1");
        fs_err::remove_file(root.join("old.csv")).expect("removed");
        let changed = watched.wait(&seen, &AtomicBool::new(false));
        let expected = ["new.csv", "old.csv", "p.yaml"].map(PathBuf::from);
        assert_eq!(changed, BTreeSet::from(expected));

        let stop = Arc::new(AtomicBool::new(false));
        let stopper = Arc::clone(&stop);
        let later = std::thread::spawn(move || {
            std::thread::sleep(PAUSE);
            stopper.store(true, Ordering::SeqCst);
        });
        assert_eq!(watched.wait(&watched.look(), &stop), BTreeSet::new());
        later.join().expect("it ends");
    }
}
