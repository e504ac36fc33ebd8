//! What a run leaves so that the next one, where nothing has changed, need not read the pipeline.
//!
//! A memory says: with this text of the pipeline, this lock and this program, the run had these stages with these
//! artifacts; and it says in which state everything was that the answer depends on, each file of the cache
//! among it. Ten thousand stages then cost a look at twenty thousand files, and none of them is read. Whatever
//! is not exactly as it was, or cannot be told to be, is no mistake and no news: the pipeline is read, as if
//! there were no memory. A memory is of one boot of the machine, and of one program.
//!
//! States of the project's files are remembered apart, for all pipelines of a project: a file in the state in
//! which it was hashed is not read again, also where something else has changed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use taper_cache::export::{exported_file, safe_parts};
use taper_cache::memories::{boot, program};
use taper_cache::{Blob, BlobName, Digest, Identity, Key, Manifest, RunId, Store, Tick};

use crate::explain::{Forecast, PlanReport, PlannedState};
use crate::kind::Device;
use crate::lock::Lock;
use crate::plan::{DeviceChoice, Plan, PlannedLocal, PlannedStage};
use crate::registry::Kinds;
use crate::resolve::Surroundings;
use crate::run::{Origin, RunReport, StageReport, StageState};
use crate::schedule::{Outcome, Settled};

/// The first line of a memory.
const FORMAT: &str = "taper memory 3";
/// How many milliseconds to wait at most for the clock that stamps files to go on.
const PATIENCE: usize = 50;
/// In a millisecond so many stages are looked at without a memory: for fewer nobody waits.
const STAGES_A_MILLISECOND: usize = 20;

/// What is asked of a pipeline, and so which memory answers it.
pub struct Question<'a> {
    /// The pipeline file.
    pub file: &'a Path,
    /// What `--set` says.
    pub set: &'a [String],
    /// What `--variant` says.
    pub variant: &'a [String],
    /// The stages that are wanted.
    pub stages: &'a [String],
    /// Where to compute, whatever the pipeline says.
    pub device: Option<DeviceChoice>,
    /// Variables of the environment that the program itself listens to.
    pub variables: Vec<(OsString, OsString)>,
    /// Looks for what `auto` means; only where that matters.
    pub best: fn() -> Device,
}

impl Question<'_> {
    /// The name of the memory that answers it.
    pub fn name(&self, surroundings: &Surroundings) -> Digest {
        let place = (&surroundings.root, surroundings.relative(self.file));
        let asked = (place, self.set, self.variant, self.stages, self.device);
        let asked = (asked, &self.variables);
        Digest::of(format!("{FORMAT}\n{asked:?}").as_bytes())
    }

    /// The run, if nothing has changed since it was remembered: every stage is in the cache.
    pub fn recall(&self, kinds: Kinds, surroundings: &Surroundings) -> Option<RunReport> {
        let store = &surroundings.store;
        let bytes = store.memory(&self.name(surroundings)).ok()?.found()?;
        let text = std::str::from_utf8(&bytes).ok()?;
        let mut rest = Lines(text);
        let (text, lock) = (read(self.file)?, read(&Lock::path_of(self.file))?);
        (rest.next("state")? == state(&text, &lock)?.to_string()).then_some(())?;
        let run: RunId = rest.next("run")?.parse().ok()?;
        let pipeline = serde_json::from_str(rest.next("pipeline")?).ok()?;
        let metrics = serde_json::from_str(rest.next("metrics")?).ok()?;
        if let Some(class) = rest.next("auto") {
            ((self.best)().class() == class).then_some(())?;
        }
        while let Some(line) = rest.next("export") {
            let (state, path) = line.split_once(' ')?;
            let path = surroundings.root.join(path);
            let now = Identity::at(&path).or_else(|| Identity::of_folder(&path))?;
            (state.parse::<Identity>().ok()? == now).then_some(())?;
        }
        while let Some(line) = rest.next("local") {
            let (digest, path) = line.split_once(' ')?;
            let (named, path) = path.split_once(' ')?;
            let planned = PlannedLocal {
                path: serde_json::from_str(path).ok()?,
                param: String::new(),
                named: named == "named",
            };
            let found = surroundings.local(&planned).ok()?;
            (found.digest.to_string() == digest).then_some(())?;
        }
        let mut stages = Vec::new();
        while let Some(line) = rest.next("stage") {
            let mut words = line.splitn(4, ' ');
            let key: Key = words.next()?.parse().ok()?;
            let artifact: Digest = words.next()?.parse().ok()?;
            stages.push(StageReport {
                kind: kinds.get(words.next()?)?.name(),
                name: words.next()?.to_owned(),
                state: StageState::Cached,
                key: Some(key),
                artifact: Some(artifact),
                seconds: 0.0,
                error: None,
            });
        }
        let mut blobs = Vec::new();
        while let Some(line) = rest.next("blob") {
            blobs.push(line.parse().ok()?);
        }
        let survey: Digest = rest.next("survey")?.parse().ok()?;
        (rest.0.is_empty() && store.has_run(&run)).then_some(())?;
        let keys: Vec<Key> = stages.iter().filter_map(|stage| stage.key).collect();
        (store.survey(&keys, &blobs)?.digest == survey).then_some(())?;
        // Last: whoever edits a file while all this is looked at gets a run that sees it.
        surroundings.edited().is_empty().then_some(RunReport {
            run: Some(run),
            pipeline,
            stages,
            metrics,
            seconds: 0.0,
            exported: Vec::new(),
        })
    }

    /// What a run would do, if nothing has changed: nothing.
    pub fn recall_plan(&self, kinds: Kinds, surroundings: &Surroundings) -> Option<PlanReport> {
        let report = self.recall(kinds, surroundings)?;
        let stages = report.stages.into_iter().map(|stage| Forecast {
            name: stage.name,
            kind: stage.kind,
            state: PlannedState::Cached,
            key: stage.key,
            because: Vec::new(),
            error: None,
        });
        Some(PlanReport {
            stages: stages.collect(),
        })
    }
}

/// Lines that begin with the name of what they say.
struct Lines<'t>(&'t str);

impl<'t> Lines<'t> {
    /// What the next line says, if it is of this name.
    fn next(&mut self, name: &str) -> Option<&'t str> {
        let line = self.0.strip_prefix(name)?.strip_prefix(' ')?;
        let (line, rest) = line.split_once('\n')?;
        self.0 = rest;
        Some(line)
    }
}

/// What is in a file; nothing in one that is not there.
fn read(path: &Path) -> Option<Vec<u8>> {
    match fs_err::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(Vec::new()),
        Err(_) => None,
    }
}

/// The digest of what is read before the pipeline is understood: its text, its lock, the program, the boot.
fn state(text: &[u8], lock: &[u8]) -> Option<Digest> {
    let (text, lock) = (Digest::of(text), Digest::of(lock));
    let state = format!("{text} {lock} {} {}", program()?, boot()?);
    Some(Digest::of(state.as_bytes()))
}

/// Remembers a run that has all that it wanted. It saves work only: where anything is in motion, or the file
/// system refuses, nothing is remembered.
pub(crate) fn remember(past: &Past<'_>, name: &Digest) {
    let store = &past.surroundings.store;
    let Some(text) = past.memory() else { return };
    let known = store.memory(name);
    let is_new = !known.is_ok_and(|known| known.found().as_deref() == Some(text.as_bytes()));
    let kept = match is_new {
        true => store.remember(name, text.into_bytes()),
        false => Ok(()),
    };
    if let Err(error) = kept.and_then(|()| past.surroundings.remember_files()) {
        tracing::debug!(%error, "the run is not remembered");
    }
}

/// A run that has all that it wanted.
pub(crate) struct Past<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) origin: &'a Origin,
    pub(crate) surroundings: &'a Surroundings,
    pub(crate) outcomes: &'a BTreeMap<usize, Outcome>,
    pub(crate) report: &'a RunReport,
    /// The lock file as the run left it.
    pub(crate) lock: &'a Lock,
}

/// The files and folders of the work tree that hold exports: files with what has to be in them.
type Exported = BTreeMap<PathBuf, Option<Blob>>;

impl Past<'_> {
    fn memory(&self) -> Option<String> {
        let Self {
            surroundings,
            report,
            ..
        } = self;
        surroundings.is_local().then_some(())?;
        let store = &surroundings.store;
        let settled = self.settled()?;
        let keys: Vec<Key> = settled.iter().map(|one| one.key).collect();
        let blobs = blobs_of(&settled)?;
        let exported = self.exported(&settled)?;
        let survey = store.survey(&keys, &blobs)?;
        let exports = states_of(&surroundings.root, &exported)?;
        let newest = exports.iter().map(Identity::newest).max();
        let patience = (report.stages.len() / STAGES_A_MILLISECOND).min(PATIENCE);
        wait_for(newest.unwrap_or_default().max(survey.newest), patience)?;
        // What changes from here on leaves other states: so all is looked at now, and then the states once more.
        for one in &settled {
            let action = store.action(&one.key).ok()?.found()?;
            (action.artifact == one.artifact && store.has_blobs(&action.manifest)).then_some(())?;
        }
        for (path, blob) in &exported {
            if let Some(blob) = blob {
                let found = Store::digest_of(&surroundings.root.join(path)).ok()?;
                (found == *blob).then_some(())?;
            }
        }
        let lock = read(&Lock::path_of(&self.origin.file))?;
        let is_ours = match std::str::from_utf8(&lock).ok()? {
            "" => self.lock.stages.is_empty(),
            text => Lock::parse(text).ok()? == *self.lock,
        };
        let is_still = store.survey(&keys, &blobs)? == survey
            && states_of(&surroundings.root, &exported)? == exports
            && surroundings.edited().is_empty();
        (is_ours && is_still).then_some(())?;

        let mut text = format!(
            "state {}\nrun {}\npipeline {}\nmetrics {}\n",
            state(self.origin.text.as_bytes(), &lock)?,
            report.run?,
            serde_json::to_string(&self.plan.name).ok()?,
            serde_json::to_string(&report.metrics).ok()?,
        );
        // What `auto` means may be another device next time.
        let is_open = |stage: &PlannedStage| {
            stage.kind.computes() && surroundings.choice_of(stage) == DeviceChoice::Auto
        };
        if self.plan.stages.iter().any(is_open) {
            writeln!(text, "auto {}", surroundings.devices.best().class()).ok()?;
        }
        for (path, state) in exported.keys().zip(&exports) {
            writeln!(text, "export {state} {}", path.to_str()?).ok()?;
        }
        for ((path, named), digest) in surroundings.locals_by_path() {
            let named = if named { "named" } else { "below" };
            let path = serde_json::to_string(&path).ok()?;
            writeln!(text, "local {digest} {named} {path}").ok()?;
        }
        for (stage, one) in report.stages.iter().zip(&settled) {
            let (kind, name) = (stage.kind, &stage.name);
            writeln!(text, "stage {} {} {kind} {name}", one.key, one.artifact).ok()?;
        }
        for blob in &blobs {
            writeln!(text, "blob {blob}").ok()?;
        }
        writeln!(text, "survey {}", survey.digest).ok()?;
        Some(text)
    }

    fn settled(&self) -> Option<Vec<&Settled>> {
        let settled = self.outcomes.values().map(|outcome| match outcome {
            Outcome::Settled(settled) => Some(settled),
            _ => None,
        });
        settled.collect()
    }

    fn exported(&self, settled: &[&Settled]) -> Option<Exported> {
        let mut found = Exported::new();
        for (index, settled) in self.outcomes.keys().zip(settled) {
            let Some(target) = &self.plan.stages[*index].settings.export else {
                continue;
            };
            let manifest = &settled.action.as_ref()?.manifest;
            let path: PathBuf = safe_parts(target).ok()?.into_iter().collect();
            if let Some(blob) = exported_file(manifest, target).ok()? {
                found.insert(path, Some(*blob));
                continue;
            }
            for (name, blob) in &manifest.blobs {
                let file = path.join(name.as_str());
                let folders = file.ancestors().skip(1);
                for folder in folders.take_while(|folder| folder.starts_with(&path)) {
                    found.insert(folder.to_path_buf(), None);
                }
                found.insert(file, Some(*blob));
            }
        }
        let is_line = |path: &PathBuf| path.to_str().is_some_and(|path| !path.contains('\n'));
        found.keys().all(is_line).then_some(found)
    }
}

/// The blobs of all artifacts, each once.
fn blobs_of(settled: &[&Settled]) -> Option<Vec<Digest>> {
    let mut blobs = Vec::new();
    for one in settled {
        let manifest = &one.action.as_ref()?.manifest;
        blobs.extend(manifest.blobs.values().map(|blob| blob.digest));
    }
    blobs.sort_unstable();
    blobs.dedup();
    Some(blobs)
}

fn states_of(root: &Path, exported: &Exported) -> Option<Vec<Identity>> {
    let states = exported.iter().map(|(path, blob)| match blob {
        Some(_) => Identity::at(&root.join(path)),
        None => Identity::of_folder(&root.join(path)),
    });
    states.collect()
}

/// Waits until the clock that stamps files has gone past this tick; nothing where that takes so many milliseconds.
fn wait_for(newest: Tick, patience: usize) -> Option<()> {
    for _ in 0..patience {
        if newest < Tick::now() {
            return Some(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    (newest < Tick::now()).then_some(())
}

/// Files of the project that were hashed, each in the state in which it was then.
pub(crate) type Known = BTreeMap<PathBuf, (Identity, Blob)>;

/// The name of the memory of a project's files.
fn name_of_files(root: &Path) -> Digest {
    Digest::of(format!("{FORMAT}\nfiles of {}", root.display()).as_bytes())
}

/// The files that were remembered of a project.
pub(crate) fn known_files(store: &Store, root: &Path) -> Known {
    let read = || {
        let bytes = store.memory(&name_of_files(root)).ok()?.found()?;
        let text = String::from_utf8(bytes).ok()?;
        let mut rest = Lines(&text);
        (rest.next("boot")? == boot()?).then_some(())?;
        let mut known = Known::new();
        while let Some(line) = rest.next("file") {
            let mut words = line.splitn(4, ' ');
            let state = words.next()?.parse().ok()?;
            let digest = words.next()?.parse().ok()?;
            let size = words.next()?.parse().ok()?;
            known.insert(root.join(words.next()?), (state, Blob { digest, size }));
        }
        Some(known)
    };
    read().unwrap_or_default()
}

/// Remembers files of a project.
pub(crate) fn remember_files(
    store: &Store,
    root: &Path,
    known: &Known,
) -> Result<(), taper_cache::CacheError> {
    let Some(boot) = boot() else { return Ok(()) };
    let mut text = format!("boot {boot}\n");
    for (path, (state, blob)) in known {
        let below = path.strip_prefix(root).unwrap_or(path);
        let Some(below) = below.to_str().filter(|below| !below.contains('\n')) else {
            continue;
        };
        writeln!(text, "file {state} {} {} {below}", blob.digest, blob.size).expect("strings grow");
    }
    store.remember(&name_of_files(root), text.into_bytes())
}

/// The blob of a file that is in the state in which it was hashed.
pub(crate) fn unchanged(known: &Known, path: &Path) -> Option<(Blob, Identity)> {
    let (state, blob) = known.get(path)?;
    (Identity::at(path)? == *state).then_some((*blob, *state))
}

/// The names and blobs of files, from what is known of them or by reading them; whether each state will tell.
pub(crate) fn look_at_files(
    known: &Known,
    files: &BTreeMap<BlobName, PathBuf>,
) -> Result<(BTreeMap<BlobName, Blob>, Vec<Looked>), taper_cache::CacheError> {
    let mut blobs = BTreeMap::new();
    let mut looked = Vec::new();
    for (name, path) in files {
        let tick = Tick::now();
        let (blob, state, settled) = match unchanged(known, path) {
            Some((blob, state)) => (blob, state, true),
            None => {
                let (blob, state) = Store::look_at(path)?;
                (blob, state, state.newest() < tick)
            }
        };
        blobs.insert(name.clone(), blob);
        looked.push(Looked { state, settled });
    }
    Ok((blobs, looked))
}

/// The state in which a file was hashed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looked {
    pub(crate) state: Identity,
    /// Whether any later change leaves another state.
    pub(crate) settled: bool,
}

/// Which files of an artifact are worth remembering.
pub(crate) fn worth_knowing<'a>(
    files: &'a BTreeMap<BlobName, PathBuf>,
    manifest: &'a Manifest,
    looked: &'a [Looked],
) -> impl Iterator<Item = (&'a PathBuf, Identity, Blob)> {
    let blobs = manifest.blobs.values();
    files
        .values()
        .zip(blobs)
        .zip(looked)
        .filter(|(_, looked)| looked.settled)
        .map(|((path, blob), looked)| (path, looked.state, *blob))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::check::check_file;
    use crate::event::Events;
    use crate::executor::LocalExecutor;
    use crate::run::{RunOptions, run};
    use crate::toy::TOYS;

    #[test]
    fn what_auto_means_is_looked_for_and_compared() {
        if boot().is_none() || program().is_none() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("p.yaml");
        let text =
            "taper: 1\nstages:\n  a: { words: { text: hello } }\n  b: { fit: { data: a } }\n";
        fs_err::write(&file, text).expect("written");
        let checked = check_file(TOYS, &file, folder.path(), &Options::default());
        let plan = checked.plan.expect("it can run");
        let surroundings = Surroundings::open(&file, None, Events::nowhere()).expect("opened");
        let question = |best| Question {
            file: &file,
            set: &[],
            variant: &[],
            stages: &[],
            device: None,
            variables: Vec::new(),
            best,
        };
        let origin = Origin {
            file: file.clone(),
            text: text.to_owned(),
            overrides: BTreeMap::new(),
        };
        let options = RunOptions {
            memory: Some(question(|| Device::Cpu).name(&surroundings)),
            ..RunOptions::default()
        };
        let executor = LocalExecutor { kinds: TOYS };
        let once = || run(&plan, &origin, &surroundings, &executor, &options).expect("it ran");
        // A short run may end before the clock that stamps files has gone on, and is remembered the next time.
        once();
        std::thread::sleep(Duration::from_millis(50));
        let report = once();
        let recall = |best| question(best).recall(TOYS, &surroundings);
        let found = recall(|| Device::Cpu).expect("nothing has changed");
        assert_eq!(found.run, report.run);
        assert!(recall(|| Device::Cuda(0)).is_none());
        fs_err::write(&file, text.replace("{ data", "{ fast: true, data")).expect("written");
        assert!(recall(|| Device::Cpu).is_none());
    }
}
