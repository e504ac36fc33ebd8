//! The outside world, pinned: what a stage's key needs besides the artifacts of the stages before it.
//!
//! Files of the project are hashed; what lies farther away is asked for by the kind, once, and stands in the
//! lock from then on: the same request has the same answer, and nobody is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use taper_cache::memories::is_local;
use taper_cache::{BlobName, CacheError, Digest, Identity, Key, Manifest, Store};

use crate::canonical::{CanonicalError, Value};
use crate::devices::Devices;
use crate::error::EngineError;
use crate::event::Events;
use crate::executor::without_panic;
use crate::key::Ingredients;
use crate::kind::{Device, Outside, Reporter, StageError};
use crate::local;
use crate::lock::{Lock, LockedStage};
use crate::memory::{self, Known, Looked};
use crate::plan::{DeviceChoice, Needed, PlannedInput, PlannedLocal, PlannedStage};
use crate::project::Project;

/// What surrounds a run: the project, the cache, the lock as it was found, and the user's wishes.
pub struct Surroundings {
    /// The project's root.
    pub root: PathBuf,
    /// The cache.
    pub store: Store,
    /// The lock as it was found.
    pub lock: Lock,
    /// Whether the network must not be used.
    pub offline: bool,
    /// Whether stages that compute look at one batch only: to see that everything fits together. What they make has
    /// keys of its own, and is in no lock, no record and no export.
    pub smoke: bool,
    /// Where the user wants every stage to compute, whatever the pipeline says.
    pub device: Option<DeviceChoice>,
    /// The devices that there are.
    pub devices: Devices,
    /// Set when the user wants the run to end.
    pub stop: Arc<AtomicBool>,
    /// Where events go.
    pub events: Events,
    locals: Mutex<BTreeMap<(String, bool), Local>>,
    /// Files as they were when they were hashed, by an earlier run too.
    known: OnceLock<Known>,
}

/// Files of the project, as they were when they were hashed.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) files: BTreeMap<BlobName, PathBuf>,
    pub(crate) manifest: Manifest,
    pub(crate) digest: Digest,
    /// In the order of the files.
    looked: Vec<Looked>,
}

/// What was found out about a stage outside.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Resolution {
    /// The digest of what was asked, where the kind can have an answer.
    pub(crate) request: Option<Digest>,
    pub(crate) resolved: Option<Value>,
}

impl Surroundings {
    /// Surroundings in which nothing has been hashed yet.
    pub fn new(root: PathBuf, store: Store, lock: Lock, events: Events) -> Self {
        Self {
            root,
            store,
            lock,
            offline: false,
            smoke: false,
            device: None,
            devices: Devices::default(),
            stop: Arc::new(AtomicBool::new(false)),
            events,
            locals: Mutex::default(),
            known: OnceLock::new(),
        }
    }

    /// The surroundings of a pipeline file: its project, the cache, and its lock. `cache` is what the
    /// environment's `TAPER_CACHE` says.
    ///
    /// # Errors
    /// Where `taper.toml`, the cache or the lock cannot be used.
    pub fn open(
        pipeline: &Path,
        cache: Option<PathBuf>,
        events: Events,
    ) -> Result<Self, EngineError> {
        let project = Project::find(pipeline, cache)?;
        let store = Store::open(project.cache)?;
        let lock = Lock::read(&Lock::path_of(pipeline))?;
        Ok(Self::new(project.root, store, lock, events))
    }

    /// A file's path below the project's root, with `/`; as it is where it is elsewhere.
    pub(crate) fn relative(&self, file: &Path) -> String {
        let absolute = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
        let root = self
            .root
            .canonicalize()
            .unwrap_or_else(|_| self.root.clone());
        let below = absolute.strip_prefix(&root).unwrap_or(file);
        below.to_string_lossy().into_owned()
    }

    /// Where the user wants a stage to compute.
    pub fn choice_of(&self, stage: &PlannedStage) -> DeviceChoice {
        self.device.unwrap_or(stage.settings.device)
    }

    /// Where a stage computes.
    pub fn device_of(&self, stage: &PlannedStage) -> Device {
        match self.choice_of(stage) {
            DeviceChoice::Auto if stage.kind.computes() => self.devices.best(),
            DeviceChoice::Auto => Device::Cpu,
            DeviceChoice::This(device) => device,
        }
    }

    /// The files that a local path means, hashed once a run.
    pub(crate) fn local(&self, planned: &PlannedLocal) -> Result<Local, StageError> {
        let name = (planned.path.clone(), planned.named);
        let known = self.locals.lock().map(|locals| locals.get(&name).cloned());
        if let Ok(Some(known)) = known {
            return Ok(known);
        }
        let files = local::find(&self.root, planned)?;
        let known = self.known_files();
        let (manifest, looked) = local::hash(&files, known)?;
        let found = Local {
            files,
            digest: manifest.digest(),
            manifest,
            looked,
        };
        if let Ok(mut locals) = self.locals.lock() {
            locals.insert(name, found.clone());
        }
        Ok(found)
    }

    /// Forgets what files had been hashed, because they have changed.
    pub(crate) fn forget_local(&self, planned: &PlannedLocal) {
        if let Ok(mut locals) = self.locals.lock() {
            locals.remove(&(planned.path.clone(), planned.named));
        }
    }

    /// The files of the project that are not any more what they were when they were hashed, by the path that the
    /// pipeline has for them.
    pub(crate) fn edited(&self) -> Vec<String> {
        let Ok(locals) = self.locals.lock() else {
            return Vec::new();
        };
        let is_edited = |local: &Local| {
            let mut files = local.files.values().zip(&local.looked);
            files.any(|(path, looked)| Identity::at(path) != Some(looked.state))
        };
        let edited = locals.iter().filter(|(_, local)| is_edited(local));
        edited.map(|((path, _), _)| path.clone()).collect()
    }

    /// The files of the project that have been looked at: path as written, whether names are the project's, and
    /// the digest.
    pub(crate) fn locals_by_path(&self) -> Vec<((String, bool), Digest)> {
        let Ok(locals) = self.locals.lock() else {
            return Vec::new();
        };
        let digests = locals
            .iter()
            .map(|(name, local)| (name.clone(), local.digest));
        digests.collect()
    }

    /// Whether the times of files in the project and in the cache are those of this machine's clock.
    pub(crate) fn is_local(&self) -> bool {
        is_local(&self.root) && is_local(self.store.layout().root())
    }

    fn known_files(&self) -> &Known {
        self.known.get_or_init(|| match is_local(&self.root) {
            true => memory::known_files(&self.store, &self.root),
            false => Known::new(),
        })
    }

    /// Remembers in which state each file was when it was hashed, where that is news.
    pub(crate) fn remember_files(&self) -> Result<(), CacheError> {
        let known = self.known_files();
        let mut all = Known::new();
        if let (true, Ok(locals)) = (self.is_local(), self.locals.lock()) {
            for local in locals.values() {
                let Local {
                    files,
                    manifest,
                    looked,
                    ..
                } = local;
                for (path, state, blob) in memory::worth_knowing(files, manifest, looked) {
                    all.insert(path.clone(), (state, blob));
                }
            }
        }
        if all
            .iter()
            .all(|(path, state)| known.get(path) == Some(state))
        {
            return Ok(());
        }
        for (path, state) in known {
            if !all.contains_key(path) && path.exists() {
                all.insert(path.clone(), *state);
            }
        }
        memory::remember_files(&self.store, &self.root, &all)
    }

    /// The stage as it is locked, where the same was asked for it.
    fn locked(&self, stage: &PlannedStage) -> Option<&LockedStage> {
        let locked = self.lock.stages.get(&stage.name)?;
        locked.request?;
        let request = request_of(stage).ok()?;
        (locked.kind == stage.kind.name() && locked.request == Some(request)).then_some(locked)
    }

    /// Whether [`Surroundings::resolve`] may take a while, because somebody is asked.
    pub(crate) fn asks(&self, stage: &PlannedStage) -> bool {
        stage.kind.resolves() && self.locked(stage).is_none()
    }

    /// Asks the kind what its parameters mean outside.
    pub(crate) fn resolve(&self, stage: &PlannedStage) -> Result<Resolution, StageError> {
        if !stage.kind.resolves() {
            return Ok(Resolution::default());
        }
        let request = request_of(stage)?;
        let key = Key(request);
        let locked = self.locked(stage);
        // What is fetched stays until the stage runs, where no other program fetches the same.
        let lock = match locked {
            Some(_) => None,
            None => self.store.try_lock(&key)?,
        };
        let scratch = match locked {
            Some(_) => None,
            None => Some(self.store.scratch(&key, lock.as_ref())?),
        };
        let outside = Outside {
            locked: locked.and_then(|locked| locked.resolved.clone()),
            offline: self.offline,
            scratch: match &scratch {
                Some(scratch) => scratch.path().to_owned(),
                None => self.store.layout().scratch(&key),
            },
            reporter: self.reporter(stage, self.stop.clone()),
        };
        let resolved = without_panic(stage.kind.name(), || stage.params.resolve(outside))?;
        Ok(Resolution {
            request: Some(request),
            resolved,
        })
    }

    /// What was fetched in order to resolve is handed on to the stage that runs: its scratch folder begins
    /// with what [`Outside::scratch`] had.
    pub(crate) fn hand_over_scratch(&self, request: Option<Digest>, key: &Key) {
        let Some(request) = request.map(Key) else {
            return;
        };
        let layout = self.store.layout();
        let (from, to) = (layout.scratch(&request), layout.scratch(key));
        // Another program may be at it.
        if from.is_dir()
            && !to.exists()
            && let Ok(Some(_lock)) = self.store.try_lock(&request)
        {
            // It saves work only; where it cannot be moved it is fetched again.
            let _ = fs_err::rename(from, to);
        }
    }

    pub(crate) fn reporter(&self, stage: &PlannedStage, stop: Arc<AtomicBool>) -> Reporter {
        Reporter::new(stage.name.clone(), self.events.clone(), stop)
    }

    /// What the key of a stage is made of; `made` gives the digest of an artifact that it reads.
    pub(crate) fn ingredients(
        &self,
        stage: &PlannedStage,
        resolved: Option<Value>,
        made: &mut dyn FnMut(&PlannedInput) -> Digest,
    ) -> Result<Ingredients, StageError> {
        let locals = stage
            .locals
            .iter()
            .map(|planned| Ok((planned, self.local(planned)?.digest)))
            .collect::<Result<Vec<_>, StageError>>()?;
        let digest_of = &mut |needed: Needed<'_>| {
            let found = match needed {
                Needed::Input(reference) => stage
                    .inputs
                    .iter()
                    .find(|input| input.reference == reference)
                    .map(&mut *made),
                Needed::Local { path, named } => locals
                    .iter()
                    .find(|(planned, _)| planned.path == path && planned.named == named)
                    .map(|(_, digest)| *digest),
            };
            found.ok_or_else(|| CanonicalError::Other(format!("{needed:?} is not in the plan")))
        };
        let mut ingredients = stage.ingredients(self.device_of(stage), resolved, digest_of)?;
        ingredients.smoke = self.smoke && stage.kind.computes();
        Ok(ingredients)
    }
}

/// The digest of what a stage asks the world outside: its kind and its parameters, without what it reads from
/// the project and from other stages.
fn request_of(stage: &PlannedStage) -> Result<Digest, CanonicalError> {
    let nothing = Digest::of(b"");
    let params = stage.params.params(&mut |_| Ok(nothing))?;
    let request = Value::List(vec![Value::text(stage.kind.name()), params]);
    Ok(Digest::of(&request.to_bytes()))
}
