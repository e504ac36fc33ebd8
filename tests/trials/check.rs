//! What must hold after anything has happened.

use std::collections::BTreeSet;
use std::path::Path;

use taper_cache::{Finding, RunId, Store};
use taper_engine::Lock;

use crate::Setting;
use crate::story::{Condition, Story, Truth, run, shelved};

/// What may be wrong with the cache before the run that repairs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Nothing: a kill leaves a cache that is whole.
    Nothing,
    /// Something may be missing, nothing torn: names were lost with the power.
    Missing,
    /// It was damaged to begin with.
    Damage,
}

impl Allowed {
    /// What is allowed after a story that was interrupted.
    pub fn after(story: &Story) -> Self {
        match story.condition {
            Condition::Whole => Self::Nothing,
            Condition::Damaged => Self::Damage,
        }
    }
}

/// Checks a project after the worst: the lock is whole, the cache clean or repaired, and a run gives what it
/// always gave, executing nothing that had been recorded.
///
/// # Errors
/// What is wrong.
pub fn recovers(
    setting: &Setting,
    folder: &Path,
    story: &Story,
    allowed: Allowed,
) -> Result<(), String> {
    lock_is_whole(folder, story)?;
    files_are_whole(folder, story)?;
    verified(folder, allowed)?;
    if story.recorded && allowed != Allowed::Damage {
        runs_are_backed(folder)?;
    }
    let kept = actions(folder);
    let (truth, executed) = run(setting, folder)?;
    same(&story.truth, &truth)?;
    for (name, key, _) in &truth.stages {
        if allowed != Allowed::Damage && executed.contains(name) && kept.contains(key) {
            return Err(format!("`{name}` was recorded, and ran again"));
        }
    }
    verified(folder, Allowed::Nothing)?;
    recorded(folder, &truth.run)
}

/// Checks that all that a run recorded is there: it is not to be run again for that.
///
/// # Errors
/// What is not there.
pub fn is_complete(setting: &Setting, folder: &Path, story: &Story) -> Result<(), String> {
    verified(folder, Allowed::Nothing)?;
    recorded(folder, &story.truth.run)?;
    same_files(&story.truth, &crate::story::files(folder))?;
    let (truth, executed) = run(setting, folder)?;
    same(&story.truth, &truth)?;
    match executed.as_slice() {
        [] => Ok(()),
        stages => Err(format!("not recorded: {stages:?} ran again")),
    }
}

/// Whether the lock file is whole: each stage in it is as it was before or as it is after the run. A run that
/// ends early locks what it has done.
fn lock_is_whole(folder: &Path, story: &Story) -> Result<(), String> {
    let read = |text: &[u8]| Lock::parse(&String::from_utf8_lossy(text));
    let lock = match std::fs::File::open(folder.join("p.lock")) {
        Err(_) => Lock::default(),
        Ok(_) => {
            let text = fs_err::read(folder.join("p.lock")).map_err(|error| error.to_string())?;
            read(&text).map_err(|error| format!("the lock file is torn: {error}"))?
        }
    };
    let before = fs_err::read(story.start.path().join("p.lock")).ok();
    let after = story.truth.files.get(Path::new("p.lock"));
    let known: Vec<Lock> = before
        .iter()
        .chain(after)
        .filter_map(|text| read(text).ok())
        .collect();
    for (name, stage) in &lock.stages {
        if !known
            .iter()
            .any(|lock| lock.stages.get(name) == Some(stage))
        {
            return Err(format!("the lock file has something else for `{name}`"));
        }
    }
    Ok(())
}

/// Whether each file of the work tree is as before or as after: no half of one.
fn files_are_whole(folder: &Path, story: &Story) -> Result<(), String> {
    let before = crate::story::files(story.start.path());
    for (path, bytes) in crate::story::files(folder) {
        let is_lock = path.as_path() == Path::new("p.lock");
        let is_known = [&before, &story.truth.files]
            .iter()
            .any(|files| files.get(&path) == Some(&bytes));
        if !is_lock && !is_known {
            return Err(format!("{} is half written or left behind", path.display()));
        }
    }
    Ok(())
}

/// Whether every run that is recorded has what it made, and every execution its run.
fn runs_are_backed(folder: &Path) -> Result<(), String> {
    let store = Store::open(folder.join(".taper")).map_err(|error| error.to_string())?;
    let wrong = |error: taper_cache::CacheError| error.to_string();
    for sequence in store.executions().map_err(wrong)? {
        if let Some(execution) = store.execution(sequence).map_err(wrong)?.found()
            && !store.has_run(&execution.run)
        {
            return Err(format!(
                "the execution {sequence} is recorded, and its run {} is lost",
                execution.run
            ));
        }
    }
    for id in store.runs().map_err(wrong)? {
        let Some(run) = store.run(&id).map_err(wrong)?.found() else {
            continue;
        };
        for stage in &run.stages {
            if store.action(&stage.key).map_err(wrong)?.found().is_none() {
                return Err(format!(
                    "the run {id} is recorded, and `{}` is lost",
                    stage.name
                ));
            }
        }
    }
    Ok(())
}

/// Verifies the cache; what is damaged is set aside.
fn verified(folder: &Path, allowed: Allowed) -> Result<(), String> {
    let store = Store::open(folder.join(".taper")).map_err(|error| error.to_string())?;
    let verification = store.verify(|_| ()).map_err(|error| error.to_string())?;
    let wrong = verification.findings.iter().find(|finding| match finding {
        Finding::Damaged(_) => allowed != Allowed::Damage,
        Finding::Missing { .. } => allowed == Allowed::Nothing,
        Finding::Foreign(_) => true,
    });
    match wrong {
        Some(finding) => Err(format!("verify: {finding}")),
        None => Ok(()),
    }
}

/// The keys of which the cache has actions.
pub fn actions(folder: &Path) -> BTreeSet<String> {
    let shelf = folder.join(".taper/actions");
    shelved(&shelf)
        .iter()
        .filter_map(|path| Some(path.strip_prefix(&shelf).ok()?.to_str()?.replace('/', "")))
        .collect()
}

fn recorded(folder: &Path, run: &str) -> Result<(), String> {
    let store = Store::open(folder.join(".taper")).map_err(|error| error.to_string())?;
    let id: RunId = run.parse().map_err(|_| format!("`{run}` is no run"))?;
    match store.run(&id).map_err(|error| error.to_string())?.found() {
        Some(_) => Ok(()),
        None => Err(format!("the run {run} is not recorded")),
    }
}

fn same(expected: &Truth, found: &Truth) -> Result<(), String> {
    if expected.run != found.run {
        let other = expected.stages.iter().zip(&found.stages);
        let other = other.filter(|(one, two)| one != two).map(|(_, two)| &two.0);
        return Err(format!(
            "the run is {} instead of {}: {:?} differ",
            found.run,
            expected.run,
            other.collect::<Vec<_>>()
        ));
    }
    same_files(expected, &found.files)
}

fn same_files(
    expected: &Truth,
    found: &std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>,
) -> Result<(), String> {
    for (path, bytes) in &expected.files {
        match found.get(path) {
            None => return Err(format!("{} is missing", path.display())),
            Some(other) if other != bytes => {
                return Err(format!("{} has other bytes", path.display()));
            }
            Some(_) => {}
        }
    }
    match found
        .keys()
        .find(|path| !expected.files.contains_key(*path))
    {
        Some(path) => Err(format!("{} was left behind", path.display())),
        None => Ok(()),
    }
}
