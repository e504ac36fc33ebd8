//! How a stage is executed: from a [`Job`] and the cache alone, so that it does not matter in which process
//! or on which machine.
//!
//! A job is made of the ingredients of the stage's key, which hold the digests of its inputs, and of what
//! changes no byte. It has a byte form: `taper exec` reads one.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use taper_cache::{
    Action, ArtifactType, Digest, Key, KeyLock, Lookup, Manifest, Scratch, Staging, Store, planted,
};

use crate::canonical::{Map, Value};
use crate::error::EngineError;
use crate::key::Ingredients;
use crate::kind::{
    ArtifactFiles, Context, Device, Folders, Inputs, Makes, Reporter, StageError, StageErrorKind,
};
use crate::registry::{AnyKind, Kinds, Recipe};

/// A stage that is to be executed.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// What its key is made of.
    pub ingredients: Ingredients,
    /// The kind's settings, which change no byte.
    pub settings: Value,
    /// Where to compute.
    pub device: Device,
    /// Whether the network must not be used.
    pub offline: bool,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// The action, which is kept.
    pub action: Action,
    /// What is left of the work. It is removed when this is dropped, before the key's lock is: to remove files may take
    /// longer than to make them, and nobody has to wait for it.
    pub leftovers: (Scratch, Staging),
}

/// Whatever executes jobs: this process, another one, another machine with the same cache.
pub trait Executor: Send + Sync {
    /// Makes the artifact and keeps it, with its action, in the cache. Who has the key's lock goes on with
    /// what an attempt that was killed has left.
    ///
    /// # Errors
    /// Those of the stage. A panic in a kind is an error too.
    fn execute(
        &self,
        store: &Store,
        job: &Job,
        lock: Option<&KeyLock>,
        reporter: &Reporter,
    ) -> Result<Made, StageError>;
}

/// Executes jobs in this process.
#[derive(Clone, Copy)]
pub struct LocalExecutor {
    /// The kinds that it knows.
    pub kinds: Kinds,
}

impl Executor for LocalExecutor {
    fn execute(
        &self,
        store: &Store,
        job: &Job,
        lock: Option<&KeyLock>,
        reporter: &Reporter,
    ) -> Result<Made, StageError> {
        execute_job(store, self.kinds, job, lock, reporter)
    }
}

impl Job {
    /// Its key.
    pub fn key(&self) -> Key {
        self.ingredients.key()
    }

    /// Its byte form: canonical CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entries = vec![
            (Value::text("taper job"), Value::Integer(1)),
            (
                Value::text("ingredients"),
                Value::Bytes(self.ingredients.to_bytes()),
            ),
            (Value::text("settings"), self.settings.clone()),
            (Value::text("device"), Value::text(self.device.to_string())),
            (Value::text("offline"), Value::Bool(self.offline)),
        ];
        Value::Map(Map::new(entries).expect("every field has its own name")).to_bytes()
    }

    /// Reads the byte form.
    ///
    /// # Errors
    /// Where the bytes are not a job.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EngineError> {
        let broken = |what: &str| EngineError::Unknown(format!("this is no job of taper: {what}"));
        let value = Value::from_bytes(bytes).map_err(|error| broken(&error.to_string()))?;
        let Value::Map(map) = value else {
            return Err(broken("it is no map"));
        };
        let field = |name: &str| map.get(name).ok_or_else(|| broken(name));
        if field("taper job")? != &Value::Integer(1) {
            return Err(broken("another version wrote it"));
        }
        let (Value::Bytes(ingredients), Value::Text(device), Value::Bool(offline)) =
            (field("ingredients")?, field("device")?, field("offline")?)
        else {
            return Err(broken("a field has another type"));
        };
        let device = match device.parse().map_err(|error: String| broken(&error))? {
            crate::plan::DeviceChoice::This(device) => device,
            crate::plan::DeviceChoice::Auto => return Err(broken("its device is open")),
        };
        Ok(Self {
            ingredients: Ingredients::from_bytes(ingredients)
                .map_err(|error| broken(&error.to_string()))?,
            settings: field("settings")?.clone(),
            device,
            offline: *offline,
        })
    }

    /// The artifacts that it reads: inputs and files of the project.
    pub fn needs(&self) -> BTreeSet<Digest> {
        let mut needs = BTreeSet::new();
        collect_digests(&self.ingredients.params, &mut needs);
        needs
    }
}

fn collect_digests(value: &Value, digests: &mut BTreeSet<Digest>) {
    match value {
        Value::Input(digest) | Value::Local(digest) => {
            digests.insert(*digest);
        }
        Value::List(items) => items.iter().for_each(|item| collect_digests(item, digests)),
        Value::Map(map) => map.iter().for_each(|(key, value)| {
            collect_digests(key, digests);
            collect_digests(value, digests);
        }),
        _ => {}
    }
}

/// Looks that there are threads to compute with.
///
/// # Errors
/// Where the system gives none.
pub fn need_threads() -> Result<(), StageError> {
    if taper_cache::threads::are_there() {
        return Ok(());
    }
    Err(
        StageError::failed("no thread can be started to compute with").help(
            "look at the limits on processes and memory: `ulimit -a`, and those of the container",
        ),
    )
}

/// Executes a job in this process: runs its kind in a private folder, checks that it made what it promised,
/// and keeps the artifact and its action. All that it reads is read from `store`, and verified. To make what
/// it kept durable is the caller's part ([`Store::sync`]).
///
/// # Errors
/// Those of the stage; a panic in it is an error that calls itself a bug.
pub fn execute_job(
    store: &Store,
    kinds: Kinds,
    job: &Job,
    lock: Option<&KeyLock>,
    reporter: &Reporter,
) -> Result<Made, StageError> {
    let ingredients = &job.ingredients;
    let kind = kinds
        .get(&ingredients.kind)
        .filter(|kind| kind.version() == ingredients.version)
        .ok_or_else(|| {
            StageError::failed(format!(
                "this program does not have version {} of the kind `{}`",
                ingredients.version, ingredients.kind
            ))
            .help("use the version of taper that made the record or the lock")
        })?;
    let here = arithmetic(store, kind, &ingredients.params)?;
    if here != ingredients.arithmetic {
        let name = |arithmetic: &Option<String>| match arithmetic {
            Some(arithmetic) => format!("on `{arithmetic}`"),
            None => "the same everywhere".to_owned(),
        };
        return Err(StageError::invalid(format!(
            "its key says that it is computed {}; here it is computed {}",
            name(&ingredients.arithmetic),
            name(&here)
        ))
        .help(
            "its bits follow the processor: run the pipeline here, which makes a key of its own",
        ));
    }
    if kind.spreads() {
        need_threads()?;
    }
    let makes = kind.makes(&ingredients.params)?;
    let key = job.key();
    let staging = store.stage()?;
    let mut scratch = store.scratch(&key, lock)?;
    let folders = Folders {
        out: staging.out(),
        scratch: scratch.path().to_owned(),
        record: store.record_folder(&key, lock)?,
    };
    let mut context = Context::new(
        folders,
        ingredients.seed.unwrap_or(0),
        job.device,
        job.offline,
        reporter.clone(),
        opener(store.clone()),
    );
    context.smoke = ingredients.smoke;
    let recipe = Recipe {
        params: &ingredients.params,
        resolved: ingredients.resolved.as_ref(),
        settings: &job.settings,
    };
    without_panic(kind.name(), || kind.execute(recipe, &context))?;
    reporter.check()?;
    let (whole, parts) = match makes {
        Makes::One(artifact_type) => (artifact_type, BTreeMap::new()),
        Makes::Parts(parts) => (ArtifactType::Files, parts),
    };
    if planted("action-first") {
        action_first(store, job, &staging.out(), whole)?;
    }
    let sealed = staging.seal(whole)?;
    check_made(&ingredients.kind, sealed.manifest(), &parts)?;
    let action = Action::new(
        ingredients.kind.clone(),
        ingredients.to_bytes(),
        sealed.manifest().clone(),
        parts,
        job.needs(),
    );
    reporter.computed();
    let staging = sealed.keep(&action)?;
    scratch.finish();
    Ok(Made {
        action,
        leftovers: (scratch, staging),
    })
}

/// A bug that is planted: an action that names files which are not in the cache yet.
fn action_first(
    store: &Store,
    job: &Job,
    out: &std::path::Path,
    whole: ArtifactType,
) -> Result<(), StageError> {
    let mut blobs = BTreeMap::new();
    for entry in fs_err::read_dir(out)?.flatten() {
        if entry.path().is_file() {
            let name = taper_cache::blob_name(out, &entry.path())?;
            blobs.insert(name, Store::digest_of(&entry.path())?);
        }
    }
    let ingredients = job.ingredients.to_bytes();
    let manifest = Manifest::new(whole, blobs)?;
    let kind = job.ingredients.kind.clone();
    let action = Action::new(kind, ingredients, manifest, BTreeMap::new(), job.needs());
    Ok(store.put_action(&action)?)
}

/// Whether a stage left what it promised.
fn check_made(
    kind: &str,
    manifest: &Manifest,
    parts: &BTreeMap<String, ArtifactType>,
) -> Result<(), StageError> {
    if manifest.blobs.is_empty() {
        return Err(StageError::failed(format!(
            "the kind `{kind}` left no file"
        )));
    }
    for (name, artifact_type) in parts {
        if manifest.part(name, *artifact_type).is_none() {
            return Err(StageError::failed(format!(
                "nothing was written for the output `{name}`"
            )));
        }
    }
    let stray = manifest.blobs.keys().find(|name| {
        let folder = name.as_str().split('/').next().unwrap_or_default();
        !parts.is_empty() && !parts.contains_key(folder)
    });
    match stray {
        Some(name) => Err(StageError::failed(format!("`{name}` belongs to no output"))),
        None => Ok(()),
    }
}

/// Opens artifacts of a cache, verified.
fn opener(store: Store) -> impl Fn(&Digest) -> Result<ArtifactFiles, StageError> + Send + Sync {
    move |digest| open_artifact(&store, digest)
}

/// Opens an artifact of a cache; every file of it is compared with its digest.
///
/// # Errors
/// [`StageErrorKind::Damaged`] where it is not whole; what is damaged is set aside.
pub fn open_artifact(store: &Store, digest: &Digest) -> Result<ArtifactFiles, StageError> {
    let damaged = |message: String| StageError::new(StageErrorKind::Damaged, message);
    let manifest = match store.manifest(digest)? {
        Lookup::Found(manifest) => manifest,
        Lookup::Missing => {
            return Err(damaged(format!(
                "the artifact {} is not in the cache",
                digest.short()
            )));
        }
        Lookup::Damaged(damage) => return Err(damaged(damage.to_string())),
    };
    if let Some(damage) = store.verify_artifact(&manifest)?.first() {
        return Err(damaged(damage.to_string()));
    }
    let layout = store.layout().clone();
    Ok(ArtifactFiles::new(manifest, move |blob| layout.blob(blob)))
}

/// What the bits of a stage with these parameters follow beyond the device's class, on this machine.
pub(crate) fn arithmetic(
    store: &Store,
    kind: &dyn AnyKind,
    params: &Value,
) -> Result<Option<String>, StageError> {
    let open = |digest: &Digest| match store.manifest(digest)? {
        Lookup::Found(manifest) => {
            let layout = store.layout().clone();
            Ok(ArtifactFiles::new(manifest, move |blob| layout.blob(blob)))
        }
        _ => Err(StageError::failed("it is not in the cache")),
    };
    Ok(kind.arithmetic(params, &Inputs::new(&open))?)
}

/// What a kind's code gives; a panic in it is an error that calls itself a bug.
pub(crate) fn without_panic<T>(
    kind: &str,
    code: impl FnOnce() -> Result<T, StageError>,
) -> Result<T, StageError> {
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|panic| {
        let message = panic_message(panic.as_ref());
        Err(
            StageError::failed(format!("the kind `{kind}` panicked: {message}"))
                .help("this is a bug in taper: please report it with the pipeline file"),
        )
    })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}
