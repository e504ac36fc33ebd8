//! What tests of stages need: a cache of a few files in a temporary folder, in which kinds run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow_array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use taper_cache::{ArtifactType, Blob, BlobName, Digest, Manifest};
use taper_engine::{
    Artifact, ArtifactFiles, Context, Device, Event, Events, Folders, Kind, Makes, Reference,
    Reporter, Stage, StageError,
};

use crate::artifact::{Dataset, Features, write_table};

type Artifacts = Arc<Mutex<BTreeMap<Digest, ArtifactFiles>>>;

/// Runs kinds, and keeps what they make.
pub struct Workshop {
    folder: tempfile::TempDir,
    artifacts: Artifacts,
    folders: AtomicUsize,
    events: Arc<Mutex<Vec<Event>>>,
    /// Set it, and stages stop.
    pub stop: Arc<AtomicBool>,
}

impl Workshop {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("temporary folder"),
            artifacts: Artifacts::default(),
            folders: AtomicUsize::new(0),
            events: Arc::default(),
            stop: Arc::default(),
        }
    }

    /// A folder that nobody has used.
    pub fn fresh(&self) -> PathBuf {
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.path().join(number.to_string());
        fs_err::create_dir_all(&folder).expect("folder");
        folder
    }

    /// The lines that stages have told so far.
    pub fn notes(&self) -> Vec<String> {
        let events = self.events.lock().expect("no test panics here");
        let text = |event: &Event| match event {
            Event::Note { text, .. } | Event::Warning { text, .. } => Some(text.clone()),
            _ => None,
        };
        events.iter().filter_map(text).collect()
    }

    pub fn reporter(&self) -> Reporter {
        let events = self.events.clone();
        let consumer = move |event| events.lock().expect("no test panics here").push(event);
        Reporter::new("stage", Events::new(consumer), self.stop.clone())
    }

    pub fn context(&self, seed: u64) -> Context {
        let folders = Folders {
            out: self.fresh(),
            scratch: self.fresh(),
            record: self.fresh(),
        };
        let artifacts = self.artifacts.clone();
        Context::new(
            folders,
            seed,
            Device::Cpu,
            false,
            self.reporter(),
            move |digest| {
                artifacts
                    .lock()
                    .expect("no test panics here")
                    .get(digest)
                    .cloned()
                    .ok_or_else(|| StageError::failed(format!("{digest} is not in the cache")))
            },
        )
    }

    /// Keeps the files below `folder` as an artifact.
    pub fn keep(&self, folder: &Path, artifact_type: ArtifactType) -> Digest {
        let mut blobs = BTreeMap::new();
        let mut paths = BTreeMap::new();
        for (name, path) in files_below(folder) {
            let bytes = fs_err::read(&path).expect("file");
            let digest = Digest::of(&bytes);
            let size = bytes.len() as u64;
            blobs.insert(BlobName::new(name).expect("name"), Blob { digest, size });
            paths.insert(digest, path);
        }
        let manifest = Manifest::new(artifact_type, blobs).expect("manifest");
        let files = ArtifactFiles::new(manifest, move |digest| paths[digest].clone());
        let digest = files.digest;
        self.artifacts
            .lock()
            .expect("no test panics here")
            .insert(digest, files);
        digest
    }

    /// Keeps files with these names and contents as an artifact.
    pub fn files(&self, files: &[(&str, &[u8])]) -> Digest {
        let folder = self.fresh();
        for (name, content) in files {
            let path = folder.join(name);
            fs_err::create_dir_all(path.parent().expect("below the folder")).expect("folder");
            fs_err::write(path, content).expect("file");
        }
        self.keep(&folder, ArtifactType::Files)
    }

    /// A data set with columns `text`, `label` (every fourth row has class 1) and `number` (0, 1, 2, …).
    pub fn dataset(&self, splits: &[(&str, i64)]) -> Digest {
        let schema = Schema::new(vec![
            Field::new("text", DataType::Utf8, true),
            Field::new("label", DataType::Int64, true),
            Field::new("number", DataType::Int64, true),
        ]);
        let names = ["zero".to_owned(), "one".to_owned()];
        let schema = Features::of(&schema)
            .with_classes("label", &names)
            .describe(&schema);
        let folder = self.fresh();
        for (split, rows) in splits {
            let texts: StringArray = (0..*rows)
                .map(|row| Some(format!("{split} {row}")))
                .collect();
            let labels: Int64Array = (0..*rows)
                .map(|row| Some(i64::from(row % 4 == 0)))
                .collect();
            let numbers: Int64Array = (0..*rows).map(Some).collect();
            let columns: Vec<arrow_array::ArrayRef> =
                vec![Arc::new(texts), Arc::new(labels), Arc::new(numbers)];
            let batch =
                RecordBatch::try_new(Arc::new(schema.clone()), columns).expect("columns fit");
            let path = folder.join(format!("{split}.arrow"));
            write_table(&path, &schema, [Ok(batch)]).expect("written");
        }
        self.keep(&folder, ArtifactType::Dataset)
    }

    /// Checks and runs a kind with seed 0; answers what it made.
    pub fn run<K: Kind>(&self, kind: K, params: &str) -> Digest {
        self.run_seeded(kind, params, 0)
    }

    /// Checks and runs a kind; answers what it made.
    pub fn run_seeded<K: Kind>(&self, kind: K, params: &str, seed: u64) -> Digest {
        self.attempt(kind, params, seed)
            .unwrap_or_else(|error| panic!("{}", told(&error)))
    }

    /// Checks and runs a kind that is to fail; answers what the user is told.
    pub fn fail<K: Kind>(&self, kind: K, params: &str) -> String {
        told(&self.attempt(kind, params, 0).expect_err("it has to fail"))
    }

    pub fn attempt<K: Kind>(&self, kind: K, params: &str, seed: u64) -> Result<Digest, StageError> {
        let params = self.params::<K>(params);
        if let Some(error) = kind.check(&params).into_iter().next() {
            return Err(error);
        }
        let artifact_type = match kind.makes(&params) {
            Makes::One(artifact_type) => artifact_type,
            Makes::Parts(_) => ArtifactType::Files,
        };
        let stage = Stage {
            params,
            settings: K::Settings::default(),
            resolved: None,
        };
        let context = self.context(seed);
        kind.run(&stage, &context)?;
        Ok(self.keep(&context.out, artifact_type))
    }

    /// Parameters from JSON, in which a text of 64 hexadecimal digits stands for an artifact.
    pub fn params<K: Kind>(&self, json: &str) -> K::Params {
        let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
        serde::Deserialize::deserialize(WithDigests(value)).expect("parameters")
    }

    pub fn artifact(&self, digest: &Digest) -> ArtifactFiles {
        self.context(0)
            .files(&Reference::Artifact(*digest))
            .expect("it is in the cache")
    }

    pub fn open(&self, digest: &Digest) -> Dataset {
        Dataset::open(self.artifact(digest)).expect("a data set")
    }
}

/// An error as a user sees it.
pub fn told(error: &StageError) -> String {
    let place = error.param.as_ref().map(|param| format!("\n  at {param}"));
    let help = error.help.as_ref().map(|help| format!("\n  help: {help}"));
    format!(
        "{error}{}{}",
        place.unwrap_or_default(),
        help.unwrap_or_default()
    )
}

/// The column `number` of a split.
pub fn numbers(data: &Dataset, split: &str) -> Vec<i64> {
    let table = data.split(split).expect("split");
    table.labels("number").expect("column").values
}

/// The files below a folder, with their names relative to it.
pub fn files_below(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        let name = path
            .file_name()
            .expect("name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            let below = files_below(&path);
            found.extend(
                below
                    .into_iter()
                    .map(|(rest, path)| (format!("{name}/{rest}"), path)),
            );
        } else {
            found.push((name, path));
        }
    }
    found.sort();
    found
}

/// A folder of the shared data beside the project; `TAPER_SHARED` says where it is.
pub fn shared(path: &str) -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let shared = std::env::var_os("TAPER_SHARED").map_or_else(|| default.into(), PathBuf::from);
    let path = shared.join(path);
    assert!(
        path.exists(),
        "these tests need {}: set TAPER_SHARED to the folder of shared data",
        path.display()
    );
    path
}

/// A Hugging Face hub on this machine, as long as it lives.
pub struct LocalHub {
    server: std::process::Child,
    folder: tempfile::TempDir,
    pub endpoint: String,
}

impl LocalHub {
    /// Starts it with further arguments.
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let port = folder.path().join("port");
        let mut server = std::process::Command::new("python3")
            .arg(shared("hub/hub.py"))
            .args(["--port", "0", "--port-file"])
            .arg(&port)
            .arg("--log")
            .arg(folder.path().join("log"))
            .args(arguments)
            .arg(shared("hub/data"))
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("these tests need python3");
        for _ in 0..1000 {
            if let Ok(port) = fs_err::read_to_string(&port) {
                let endpoint = format!("http://127.0.0.1:{port}");
                return Self {
                    server,
                    folder,
                    endpoint,
                };
            }
            let ended = server.try_wait().expect("it is our child");
            assert!(ended.is_none(), "the hub ended: {ended:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        drop(server.kill());
        panic!("the hub did not start");
    }

    /// What it was asked so far: one JSON object a line.
    pub fn log(&self) -> String {
        fs_err::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for LocalHub {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

/// JSON as the engine gives parameters to a kind: with artifacts as bytes.
struct WithDigests(serde_json::Value);

impl<'de> serde::Deserializer<'de> for WithDigests {
    type Error = serde_json::Error;

    fn deserialize_any<V: serde::de::Visitor<'de>>(
        self,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        use serde::de::value::{MapDeserializer, SeqDeserializer};
        match self.0 {
            serde_json::Value::String(text) => match text.parse::<Digest>() {
                Ok(digest) => visitor.visit_bytes(digest.as_bytes()),
                Err(_) => visitor.visit_string(text),
            },
            serde_json::Value::Array(items) => {
                SeqDeserializer::new(items.into_iter().map(WithDigests)).deserialize_any(visitor)
            }
            serde_json::Value::Object(fields) => MapDeserializer::new(
                fields
                    .into_iter()
                    .map(|(name, value)| (name, WithDigests(value))),
            )
            .deserialize_any(visitor),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: serde::de::Visitor<'de>>(
        self,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            serde_json::Value::Null => visitor.visit_none(),
            other => visitor.visit_some(WithDigests(other)),
        }
    }

    fn deserialize_str<V: serde::de::Visitor<'de>>(
        self,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_string(visitor)
    }

    fn deserialize_string<V: serde::de::Visitor<'de>>(
        self,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_string(visitor)
    }

    fn deserialize_newtype_struct<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: serde::de::Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl serde::de::IntoDeserializer<'_, serde_json::Error> for WithDigests {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
