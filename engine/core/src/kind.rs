//! What a stage kind is: its parameters, what it needs, what it makes, and how it runs.
//!
//! A kind is one file: a type for its parameters and an `impl Kind`. The key of a stage is derived from
//! its parameters themselves, by the canonical encoding of [`Kind::Params`]: an [`Input`] is written as
//! the digest of the artifact that it names, a [`LocalPath`] as the digest of the files that it names,
//! everything else as its value with defaults filled in. So no parameter can be forgotten in the key, and
//! no stage's or file's name can enter it. What must stay out is not in `Params` but in
//! [`Kind::Settings`]; in the pipeline file both stand side by side.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use taper_cache::{ArtifactType, Digest, Manifest};

use crate::event::{Event, Events, Progress, Unit};

/// What a stage does.
pub trait Kind: Send + Sync + 'static {
    /// Its parameters: everything of the pipeline file that can change a byte of the result. Unknown
    /// fields are to be denied.
    type Params: DeserializeOwned + Serialize + JsonSchema + Send + Sync;
    /// What stands beside the parameters in the pipeline file but changes no byte of the result, so that
    /// it does not enter the key; [`NoSettings`] where there is nothing of that sort.
    type Settings: DeserializeOwned + Serialize + JsonSchema + Default + Send + Sync;
    /// What [`Kind::resolve`] finds out about the world outside; `()` where it asks nothing.
    type Resolved: DeserializeOwned + Serialize + Send + Sync;

    /// Its name in pipeline files.
    const NAME: &'static str;
    /// Raised when the same key would give other bytes.
    const VERSION: u32;
    /// Whether the seed enters the key.
    const SEEDED: bool = false;
    /// Whether the device class enters the key.
    const COMPUTES: bool = false;
    /// Whether its work is spread over the pool of threads, which is started before it. Threads that look for work
    /// take time from a short program.
    const SPREADS: bool = true;
    /// A stage of this kind as a user would write it, for the reference: YAML, `KIND: { … }`.
    const EXAMPLE: &'static str;

    /// What a stage with these parameters makes.
    fn makes(&self, params: &Self::Params) -> Makes;

    /// What is wrong with parameters whose types are right; [`StageError::at`] says which one is meant.
    fn check(&self, params: &Self::Params) -> Vec<StageError> {
        let _ = params;
        Vec::new()
    }

    /// What is wrong with these parameters on a device: looked at before anything runs. Asked only where the kind
    /// [`COMPUTES`](Kind::COMPUTES).
    fn check_on(&self, params: &Self::Params, device: Device) -> Vec<StageError> {
        let _ = (params, device);
        Vec::new()
    }

    /// Pins what the parameters mean in the world outside: a branch becomes a commit, an address becomes a
    /// hash. The answer is written to the lock file and enters the key.
    ///
    /// # Errors
    /// Where the world outside does not answer.
    fn resolve(
        &self,
        params: &Self::Params,
        outside: &Outside<Self::Resolved>,
    ) -> Result<Option<Self::Resolved>, StageError> {
        let _ = (params, outside);
        Ok(None)
    }

    /// What the bits of the result follow beyond the device's class, for people: the sort of processor. It enters the
    /// key. Nothing where they are the same on every machine, and where `inputs` cannot be read, which
    /// [`Kind::run`] says better. Asked only where the kind [`COMPUTES`](Kind::COMPUTES).
    fn arithmetic(&self, params: &Self::Params, inputs: &Inputs<'_>) -> Option<String> {
        let _ = (params, inputs);
        None
    }

    /// Makes the artifact: writes its files below [`Context::out`]. Runs from `stage` and the artifacts of
    /// its inputs alone, so that another process on another machine could do it.
    ///
    /// # Errors
    /// Where the artifact cannot be made.
    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError>
    where
        Self: Sized;
}

/// A stage as its kind sees it when it runs.
pub struct Stage<K: Kind> {
    /// The parameters.
    pub params: K::Params,
    /// What changes no byte.
    pub settings: K::Settings,
    /// What [`Kind::resolve`] found.
    pub resolved: Option<K::Resolved>,
}

/// The settings of a kind that has none.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// What a stage makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Makes {
    /// One artifact.
    One(ArtifactType),
    /// Several, each in the folder of its name below [`Context::out`]; downstream stages name one of them
    /// as `STAGE.OUTPUT`.
    Parts(std::collections::BTreeMap<String, ArtifactType>),
}

/// Artifacts that an input can be: one type, or one of several.
pub trait Artifact: Sized {
    /// The types that are taken.
    const TYPES: &'static [ArtifactType];

    /// Opens the artifact.
    ///
    /// # Errors
    /// Where its files are not what the type promises.
    fn open(files: ArtifactFiles) -> Result<Self, StageError>;
}

/// The files of an artifact, as a stage reads them: verified, read-only.
#[derive(Clone, Debug)]
pub struct ArtifactFiles {
    /// The type and the names.
    pub manifest: Manifest,
    /// The artifact's digest.
    pub digest: Digest,
    locate: Locate,
}

type Opener = dyn Fn(&Digest) -> Result<ArtifactFiles, StageError> + Send + Sync;

/// The artifacts that a stage reads, before it runs: their files are where they belong, but have not been compared
/// with their digests.
pub struct Inputs<'a> {
    opener: &'a dyn Fn(&Digest) -> Result<ArtifactFiles, StageError>,
}

impl<'a> Inputs<'a> {
    /// Those that `opener` finds by their digests.
    pub fn new(opener: &'a dyn Fn(&Digest) -> Result<ArtifactFiles, StageError>) -> Self {
        Self { opener }
    }

    /// Opens an input.
    ///
    /// # Errors
    /// Where the artifact is not in the cache or is not what its type promises.
    pub fn open<A: Artifact>(&self, input: &Input<A>) -> Result<A, StageError> {
        A::open(find(&input.reference, self.opener)?)
    }
}

/// The files of an artifact, found by its digest.
fn find(
    reference: &Reference,
    opener: &dyn Fn(&Digest) -> Result<ArtifactFiles, StageError>,
) -> Result<ArtifactFiles, StageError> {
    match reference {
        Reference::Artifact(digest) => opener(digest),
        Reference::Name(name) => Err(StageError::failed(format!(
            "`{name}` has not been brought up to date"
        ))),
    }
}

#[derive(Clone)]
struct Locate(Arc<dyn Fn(&Digest) -> PathBuf + Send + Sync>);

impl fmt::Debug for Locate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locate")
    }
}

impl ArtifactFiles {
    /// The files of `manifest`; `locate` gives the path of a blob.
    pub fn new(
        manifest: Manifest,
        locate: impl Fn(&Digest) -> PathBuf + Send + Sync + 'static,
    ) -> Self {
        let digest = manifest.digest();
        Self {
            manifest,
            digest,
            locate: Locate(Arc::new(locate)),
        }
    }

    /// Their names, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.manifest.blobs.keys().map(|name| name.as_str())
    }

    /// Where the file `name` is, where there is one. The path has neither this name nor its extension.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let blob = self.manifest.blobs.get(name)?;
        Some((self.locate.0)(&blob.digest))
    }
}

/// The reserved name of the newtype as which an [`Input`] is serialized.
pub const INPUT_NEWTYPE: &str = "$taper::Input";
/// The reserved name of the newtype as which a [`LocalPath`] is serialized.
pub const LOCAL_NEWTYPE: &str = "$taper::LocalPath";

/// What an [`Input`] or a [`LocalPath`] means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// As written in the pipeline file: a stage (`STAGE` or `STAGE.OUTPUT`), a path.
    Name(String),
    /// As it stands in the ingredients of a key: an artifact.
    Artifact(Digest),
}

/// A parameter that names a stage: the wiring is in the types. `A` says which artifacts are taken.
///
/// Serialized as the newtype [`INPUT_NEWTYPE`] around an [`InputKind`], which the engine's serializers look for.
pub struct Input<A> {
    /// What it names.
    pub reference: Reference,
    artifact: PhantomData<fn() -> A>,
}

/// What an [`Input`] serializes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputKind {
    /// What it names.
    pub reference: Reference,
    /// The artifact types that are taken.
    pub types: Vec<ArtifactType>,
}

impl<A> fmt::Debug for Input<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Input").field(&self.reference).finish()
    }
}

impl<A> Clone for Input<A> {
    fn clone(&self) -> Self {
        Self {
            reference: self.reference.clone(),
            artifact: PhantomData,
        }
    }
}

impl<A: Artifact> Serialize for Input<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = InputKind {
            reference: self.reference.clone(),
            types: A::TYPES.to_vec(),
        };
        serializer.serialize_newtype_struct(INPUT_NEWTYPE, &kind)
    }
}

impl<'de, A> Deserialize<'de> for Input<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let reference = deserializer.deserialize_any(ReferenceVisitor("the name of a stage"))?;
        Ok(Self {
            reference,
            artifact: PhantomData,
        })
    }
}

/// A text is a name; 32 bytes are an artifact.
struct ReferenceVisitor(&'static str);

impl de::Visitor<'_> for ReferenceVisitor {
    type Value = Reference;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Reference, E> {
        Ok(Reference::Name(name.to_owned()))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Reference, E> {
        let bytes = bytes
            .try_into()
            .map_err(|_| E::invalid_length(bytes.len(), &"the 32 bytes of a digest"))?;
        Ok(Reference::Artifact(Digest::from_bytes(bytes)))
    }
}

impl<A: Artifact> JsonSchema for Input<A> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        let types: Vec<_> = A::TYPES.iter().map(|t| t.name()).collect();
        format!("Input_{}", types.join("_or_")).into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let types: Vec<_> = A::TYPES.iter().map(|t| t.name()).collect();
        schemars::json_schema!({
            "type": "string",
            "description": format!("The name of a stage that makes {}.", types.join(" or ")),
            "x-taper-input": types,
        })
    }
}

/// A parameter that names files of the project: a file, a folder or a glob, relative to the project's root.
///
/// The engine hashes them, and hands them to the stage as an artifact of type `files`: of a single file the
/// name is `file` with the extensions that it had (`file.csv`), of a folder or a glob the names are those
/// below the folder or the glob's longest fixed folder; with `NAMED`, names are relative to the project's root.
#[derive(Clone, Debug)]
pub struct LocalPath<const NAMED: bool = false> {
    /// What it names.
    pub reference: Reference,
}

/// What a [`LocalPath`] serializes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalKind {
    /// What it names.
    pub reference: Reference,
    /// Whether names are relative to the project's root.
    pub named: bool,
}

impl<const NAMED: bool> Serialize for LocalPath<NAMED> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = LocalKind {
            reference: self.reference.clone(),
            named: NAMED,
        };
        serializer.serialize_newtype_struct(LOCAL_NEWTYPE, &kind)
    }
}

impl<'de, const NAMED: bool> Deserialize<'de> for LocalPath<NAMED> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let reference = deserializer.deserialize_any(ReferenceVisitor("a path"))?;
        Ok(Self { reference })
    }
}

impl<const NAMED: bool> JsonSchema for LocalPath<NAMED> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LocalPath".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A file, a folder or a glob, relative to the project's root.",
            "x-taper-local": true,
        })
    }
}

/// Where a stage computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by number.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl Device {
    /// What of it enters the key: never its number.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
            Self::Metal => "metal",
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Cpu | Self::Metal => f.write_str(self.class()),
        }
    }
}

/// What went wrong in a stage, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    /// What sort of failure it is.
    pub kind: StageErrorKind,
    /// What happened, with names and numbers, one sentence, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The parameter that it is about, as a path: `optimizer.adamw.lr`.
    pub param: Option<String>,
}

/// What sort of failure it is: decides the exit code and whether it is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageErrorKind {
    /// The pipeline asks for what cannot be: a missing column, a label outside the classes.
    Invalid,
    /// The work itself failed: a program ended with an error, the disk is full, the loss is not finite.
    Failed,
    /// It may go well another time: the network, a busy server.
    Transient,
    /// The user stopped it.
    Interrupted,
    /// A file of the cache is not what its name says.
    Damaged,
}

impl StageError {
    /// An error of this kind.
    pub fn new(kind: StageErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            help: None,
            param: None,
        }
    }

    /// The pipeline asks for what cannot be.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StageErrorKind::Invalid, message)
    }

    /// The work failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(StageErrorKind::Failed, message)
    }

    /// It may go well another time.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(StageErrorKind::Transient, message)
    }

    /// The user stopped it.
    pub fn interrupted() -> Self {
        Self::new(StageErrorKind::Interrupted, "interrupted")
    }

    /// With a remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// About this parameter.
    #[must_use]
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The same, where it names no parameter yet.
    #[must_use]
    pub fn or_at(self, param: &str) -> Self {
        match self.param {
            None => self.at(param),
            Some(_) => self,
        }
    }
}

impl From<std::io::Error> for StageError {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

/// What [`Kind::resolve`] may ask.
pub struct Outside<R> {
    /// What the lock file says of a stage with the same parameters: to be taken as it is, so that a locked
    /// pipeline asks nobody.
    pub locked: Option<R>,
    /// Whether the network must not be used.
    pub offline: bool,
    /// A folder that is kept between runs, for what has to be fetched to be known; it may not exist where the
    /// lock answers. What is in it is handed on: [`Context::scratch`] begins with it when the stage runs.
    pub scratch: PathBuf,
    /// Where progress is told.
    pub reporter: Reporter,
}

/// Tells what goes on in a stage, and whether it has to stop. Cheap to clone; used from any thread.
#[derive(Clone)]
pub struct Reporter {
    stage: String,
    events: Events,
    stop: Arc<AtomicBool>,
    on_computed: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Reporter {
    /// Speaks for `stage`; `stop` is set when the user wants it to end.
    pub fn new(stage: impl Into<String>, events: Events, stop: Arc<AtomicBool>) -> Self {
        Self {
            stage: stage.into(),
            events,
            stop,
            on_computed: None,
        }
    }

    /// Has `heard` called when the stage computes no more, and waits for the disk only.
    #[must_use]
    pub(crate) fn on_computed(self, heard: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            on_computed: Some(Arc::new(heard)),
            ..self
        }
    }

    /// Says that the stage computes no more.
    pub(crate) fn computed(&self) {
        if let Some(heard) = &self.on_computed {
            heard();
        }
    }

    /// Begins a piece of work whose progress is shown.
    pub fn progress(&self, label: impl Into<String>, total: Option<u64>, unit: Unit) -> Progress {
        Progress::new(self.events.clone(), self.stage.clone(), label, total, unit)
    }

    /// A line for people.
    pub fn note(&self, text: impl Into<String>) {
        self.events.send(Event::Note {
            stage: self.stage.clone(),
            text: text.into(),
        });
    }

    /// A line for people that wants to be read.
    pub fn warn(&self, text: impl Into<String>) {
        self.events.send(Event::Warning {
            stage: Some(self.stage.clone()),
            text: text.into(),
        });
    }

    /// Numbers that training logs as it goes on.
    pub fn metrics(&self, step: u64, values: std::collections::BTreeMap<String, f64>) {
        self.events.send(Event::Metrics {
            stage: self.stage.clone(),
            step,
            values,
        });
    }

    /// Whether the user wants the stage to end at the next safe point.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// An error where the user wants the stage to end.
    ///
    /// # Errors
    /// [`StageErrorKind::Interrupted`].
    pub fn check(&self) -> Result<(), StageError> {
        if self.stopped() {
            return Err(StageError::interrupted());
        }
        Ok(())
    }
}

/// What a stage has while it runs.
pub struct Context {
    /// A fresh folder: what is in it in the end is the artifact.
    pub out: PathBuf,
    /// A folder of this key's own that outlives a kill: partial downloads, checkpoints. It is removed when
    /// the artifact is in the cache.
    pub scratch: PathBuf,
    /// A folder of the run's record, outside every digest: logs, times, event files. Made by who writes there.
    pub record: PathBuf,
    /// The seed of every random choice of this stage.
    pub seed: u64,
    /// Where to compute.
    pub device: Device,
    /// Whether the network must not be used.
    pub offline: bool,
    /// Whether a kind that computes looks at one batch only, as `run --smoke` wants.
    pub smoke: bool,
    /// Tells what goes on.
    pub reporter: Reporter,
    opener: Box<Opener>,
}

impl Context {
    /// The context of one stage; `opener` finds an artifact by its digest.
    pub fn new(
        folders: Folders,
        seed: u64,
        device: Device,
        offline: bool,
        reporter: Reporter,
        opener: impl Fn(&Digest) -> Result<ArtifactFiles, StageError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            out: folders.out,
            scratch: folders.scratch,
            record: folders.record,
            seed,
            device,
            offline,
            smoke: false,
            reporter,
            opener: Box::new(opener),
        }
    }

    /// How many rows are looked at where a batch has so many: as many in a smoke run, else all.
    pub fn rows(&self, batch: u32) -> usize {
        match self.smoke {
            true => batch as usize,
            false => usize::MAX,
        }
    }

    /// Opens an input.
    ///
    /// # Errors
    /// Where the artifact is not in the cache or is not what its type promises.
    pub fn open<A: Artifact>(&self, input: &Input<A>) -> Result<A, StageError> {
        A::open(self.files(&input.reference)?)
    }

    /// Opens files of the project.
    ///
    /// # Errors
    /// Where they are not in the cache.
    pub fn local<const NAMED: bool>(
        &self,
        path: &LocalPath<NAMED>,
    ) -> Result<ArtifactFiles, StageError> {
        self.files(&path.reference)
    }

    /// The files that `reference` means.
    ///
    /// # Errors
    /// Where they are not in the cache.
    pub fn files(&self, reference: &Reference) -> Result<ArtifactFiles, StageError> {
        find(reference, &self.opener)
    }

    /// The path of a file of the artifact, its folders made.
    ///
    /// # Errors
    /// Those of making folders.
    pub fn create(&self, name: impl AsRef<Path>) -> Result<PathBuf, StageError> {
        let path = self.out.join(name);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        Ok(path)
    }
}

/// The folders of a stage that runs.
#[derive(Clone, Debug)]
pub struct Folders {
    /// See [`Context::out`].
    pub out: PathBuf,
    /// See [`Context::scratch`].
    pub scratch: PathBuf,
    /// See [`Context::record`].
    pub record: PathBuf,
}
