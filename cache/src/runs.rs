//! Runs: what was executed and what came out.
//!
//! A *run* is named by its content: a hash over each stage's name, key and artifact digest. It holds all that
//! is needed to do it again: the pipeline's text and the pre-image of every key. An *execution* is one time
//! that it was done: when, by which machine, how long. The same run done again is one run with one execution
//! more. Executions are numbered; nothing is ordered by the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{CacheError, Lookup, NOT_AS_WRITTEN};
use crate::files;
use crate::{Digest, Key, RunId, Store, planted};

/// What was run and what came out. The same on every machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its name.
    pub id: RunId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline file as it was.
    pub text: String,
    /// What `--set` changed.
    pub overrides: BTreeMap<String, String>,
    /// The stages that were wanted, each after those it reads.
    pub stages: Vec<StageRecord>,
}

/// A stage of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: Key,
    /// What it made.
    pub artifact: Digest,
    /// What it read: artifacts of other stages, and files of the project.
    pub needs: BTreeSet<Digest>,
    /// The pre-image of its key.
    #[serde(with = "hexadecimal")]
    pub ingredients: Vec<u8>,
}

/// One time that a run was done. Stands beside every digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Its number in this cache, from 1; filled in when it is recorded.
    pub sequence: u64,
    /// What was done.
    pub run: RunId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline's file, as it was named.
    pub file: String,
    /// Seconds since the start of 1970, by the machine's clock.
    pub started: u64,
    /// How long it took.
    pub seconds: f64,
    /// How many stages could run side by side.
    pub jobs: usize,
    /// How many threads the machine offered.
    pub threads: usize,
    /// The machine's processor.
    pub processor: String,
    /// How each stage went.
    pub stages: Vec<StageExecution>,
    /// What stages measured, by stage: a list of runs need not look for it. The artifacts are what counts.
    #[serde(default)]
    pub metrics: BTreeMap<String, serde_json::Value>,
}

/// How a stage went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageExecution {
    /// Its name.
    pub name: String,
    /// Whether its artifact was in the cache already.
    pub cached: bool,
    /// How long it took.
    pub seconds: f64,
}

impl RunId {
    /// The id of a run of these stages, in any order.
    ///
    /// It is BLAKE3 in key-derivation mode, with the context `taper 1 run id`, of one line a stage,
    /// `<key> <artifact> <name>\n`, the names ascending by bytes.
    pub fn of_stages<'a>(stages: impl IntoIterator<Item = (&'a str, Key, Digest)>) -> Self {
        let mut stages: Vec<_> = stages.into_iter().collect();
        stages.sort_unstable_by_key(|(name, ..)| *name);
        let lines: String = stages
            .into_iter()
            .map(|(name, key, artifact)| format!("{key} {artifact} {name}\n"))
            .collect();
        let hash = blake3::derive_key("taper 1 run id", lines.as_bytes());
        Self(Digest::from_bytes(hash))
    }
}

impl RunRecord {
    /// A record, with its id computed.
    pub fn new(
        pipeline: impl Into<String>,
        text: impl Into<String>,
        overrides: BTreeMap<String, String>,
        stages: Vec<StageRecord>,
    ) -> Self {
        Self {
            id: Self::id_of(&stages),
            pipeline: pipeline.into(),
            text: text.into(),
            overrides,
            stages,
        }
    }

    fn id_of(stages: &[StageRecord]) -> RunId {
        RunId::of_stages(
            stages
                .iter()
                .map(|stage| (stage.name.as_str(), stage.key, stage.artifact)),
        )
    }

    /// Whether the id and the keys are those of the content.
    fn is_whole(&self) -> bool {
        self.id == Self::id_of(&self.stages)
            && self
                .stages
                .iter()
                .all(|stage| stage.key == Key::of_ingredients(&stage.ingredients))
    }

    /// The stage with this name.
    pub fn stage(&self, name: &str) -> Option<&StageRecord> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}

impl Store {
    /// Whether this run is recorded. Reads nothing.
    pub fn has_run(&self, id: &RunId) -> bool {
        self.layout().run(id).is_file()
    }

    /// Records an execution of a run, durably, and before it the run and a file of the user's: see
    /// [`Store::conclude`]. Returns the execution's number.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn record(
        &self,
        run: &RunRecord,
        outside: Option<(&Path, &[u8])>,
        mut execution: Execution,
    ) -> Result<u64, CacheError> {
        let _keeping = self.keeping()?;
        self.conclude(Some(run), outside)?;
        execution.run = run.id;
        execution.sequence = self.last_sequence()? + 1;
        let folder = self.layout().executions();
        self.inner.unsynced.make_folder(&folder)?;
        loop {
            let path = self.layout().execution(execution.sequence);
            let file = self.filled(&to_lines(&execution), 0o666)?;
            if !planted("run-unsynced") {
                self.settle()?;
            }
            if files::place_new(file, &path)? {
                self.inner.unsynced.note(&folder);
                self.sync()?;
                if let Err(error) = self.update_index(execution.sequence) {
                    tracing::debug!(%error, "the index is not up to date");
                }
                return Ok(execution.sequence);
            }
            execution.sequence += 1;
        }
    }

    /// The run with this id.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn run(&self, id: &RunId) -> Result<Lookup<RunRecord>, CacheError> {
        self.look_up(&self.layout().run(id), |bytes| {
            from_lines::<RunRecord>(bytes)
                .filter(|run| (run.id == *id && run.is_whole()) || planted("run-unchecked"))
                .ok_or_else(|| NOT_AS_WRITTEN.to_owned())
        })
    }

    /// The run whose id begins with `prefix`: at least 4 hexadecimal digits.
    ///
    /// # Errors
    /// Where there is none, or more than one.
    pub fn find_run(&self, prefix: &str) -> Result<RunId, CacheError> {
        let wanted = prefix.to_ascii_lowercase();
        let is_prefix =
            (4..=64).contains(&wanted.len()) && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_prefix {
            return Err(CacheError::NotAPrefix(prefix.to_owned()));
        }
        let found: Vec<RunId> = names(&self.layout().runs())?
            .iter()
            .filter(|name| name.starts_with(&wanted))
            .filter_map(|name| name.strip_suffix(".run")?.parse().ok())
            .collect();
        match found.as_slice() {
            [id] => Ok(*id),
            [] => Err(CacheError::Missing {
                what: "run",
                name: prefix.to_owned(),
            }),
            several => Err(CacheError::Ambiguous {
                prefix: prefix.to_owned(),
                count: several.len(),
            }),
        }
    }

    /// The ids of all runs, ascending.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn runs(&self) -> Result<Vec<RunId>, CacheError> {
        let mut runs: Vec<RunId> = names(&self.layout().runs())?
            .iter()
            .filter_map(|name| name.strip_suffix(".run")?.parse().ok())
            .collect();
        runs.sort_unstable();
        Ok(runs)
    }

    /// The numbers of all executions, ascending.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn executions(&self) -> Result<Vec<u64>, CacheError> {
        let mut sequences: Vec<u64> = names(&self.layout().executions())?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        sequences.sort_unstable();
        Ok(sequences)
    }

    /// The execution with this number.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn execution(&self, sequence: u64) -> Result<Lookup<Execution>, CacheError> {
        self.look_up(&self.layout().execution(sequence), |bytes| {
            from_lines::<Execution>(bytes)
                .filter(|found| found.sequence == sequence || planted("execution-unchecked"))
                .ok_or_else(|| NOT_AS_WRITTEN.to_owned())
        })
    }

    /// The number of the last execution; 0 where there is none.
    fn last_sequence(&self) -> Result<u64, CacheError> {
        Ok(self.executions()?.last().copied().unwrap_or(0))
    }

    /// How many executions there were when this process first asked.
    pub(crate) fn generation(&self) -> Result<u64, CacheError> {
        if let Some(generation) = self.inner.generation.get() {
            return Ok(*generation);
        }
        let generation = self.last_sequence()?;
        Ok(*self.inner.generation.get_or_init(|| generation))
    }

    /// Keeps a run or an artifact, under a name, from `gc`.
    ///
    /// # Errors
    /// Where the name cannot name a file, or the file system refuses.
    pub fn pin(&self, name: &str, digest: Digest) -> Result<(), CacheError> {
        let name = crate::BlobName::new(name)?;
        let _keeping = self.keeping()?;
        let path = self.layout().pins().join(name.as_str());
        let text = files::seal(format!("{digest}\n").into_bytes());
        self.write(&path, &text, 0o666)?;
        self.sync()
    }

    /// Gives up a pin; says whether there was one.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn unpin(&self, name: &str) -> Result<bool, CacheError> {
        let name = crate::BlobName::new(name)?;
        let path = self.layout().pins().join(name.as_str());
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if crate::error::is_absent(&error) => Ok(false),
            Err(error) => Err(CacheError::io("remove", path)(error)),
        }
    }

    /// Every pin: its name, and the run or artifact that it keeps.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn pins(&self) -> Result<BTreeMap<String, Digest>, CacheError> {
        let folder = self.layout().pins();
        let mut pins = BTreeMap::new();
        for name in names(&folder)? {
            if let Lookup::Found(digest) = self.pinned(&name)? {
                pins.insert(name, digest);
            }
        }
        Ok(pins)
    }

    /// What the pin with this name keeps.
    pub(crate) fn pinned(&self, name: &str) -> Result<Lookup<Digest>, CacheError> {
        self.look_up(&self.layout().pins().join(name), |bytes| {
            files::unseal(bytes)
                .and_then(|text| std::str::from_utf8(text).ok()?.trim_end().parse().ok())
                .ok_or_else(|| NOT_AS_WRITTEN.to_owned())
        })
    }
}

/// The names of what is in a folder, in no order; none where there is no folder.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, CacheError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if crate::error::is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(CacheError::io("list", folder)(error)),
    };
    entries
        .map(|entry| {
            let entry = entry.map_err(CacheError::io("list", folder))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

/// A line of JSON, and its seal.
pub(crate) fn to_lines<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("records are plain data with text as keys");
    bytes.push(b'\n');
    files::seal(bytes)
}

fn from_lines<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(files::unseal(bytes)?).ok()
}

mod hexadecimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::actions::to_hex(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::actions::from_hex(&text).ok_or_else(|| D::Error::custom("no hexadecimal digits"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::store::tests::fresh;

    pub(crate) fn record(stages: &[(&str, &[u8], &[u8])]) -> RunRecord {
        let stages = stages
            .iter()
            .map(|(name, ingredients, made)| StageRecord {
                name: (*name).to_owned(),
                kind: "toy".to_owned(),
                key: Key::of_ingredients(ingredients),
                artifact: Digest::of(made),
                needs: BTreeSet::new(),
                ingredients: ingredients.to_vec(),
            })
            .collect();
        RunRecord::new("toys", "taper: 1\n", BTreeMap::new(), stages)
    }

    pub(crate) fn execution() -> Execution {
        Execution {
            sequence: 0,
            run: RunId(Digest::of(b"")),
            pipeline: "toys".to_owned(),
            file: "toys.yaml".to_owned(),
            started: 1_700_000_000,
            seconds: 0.5,
            jobs: 1,
            threads: 2,
            processor: "a processor".to_owned(),
            stages: Vec::new(),
            metrics: BTreeMap::new(),
        }
    }

    /// The published vector, computed with Python's `blake3` too: a change of it is a change of format.
    #[test]
    fn the_id_of_a_run_is_the_published_one() {
        let stage = |name, ingredients: &[u8], made: &[u8]| {
            (name, Key::of_ingredients(ingredients), Digest::of(made))
        };
        let stages = [stage("b", b"2", b"two"), stage("a", b"1", b"one")];
        let id = RunId::of_stages(stages);
        assert_eq!(id, RunId::of_stages(stages.into_iter().rev()));
        insta::assert_snapshot!(id, @"0cf296dfa740ace05ee08f2acdb9cee2e7906f501467e7405d3b8f3938a8983d");
    }

    #[test]
    fn the_same_run_again_is_one_run_with_two_executions() {
        let (_folder, store) = fresh();
        let run = record(&[("a", b"1", b"one")]);
        assert!(!store.has_run(&run.id));
        assert_eq!(store.record(&run, None, execution()).expect("kept"), 1);
        assert_eq!(store.record(&run, None, execution()).expect("kept"), 2);
        let other = record(&[("a", b"1", b"two")]);
        assert_eq!(store.record(&other, None, execution()).expect("kept"), 3);
        assert_eq!(store.runs().expect("listed").len(), 2);
        assert_eq!(store.executions().expect("listed"), [1, 2, 3]);
        assert_eq!(store.run(&run.id).expect("read").found(), Some(run.clone()));
        let second = store.execution(2).expect("read").found().expect("there");
        assert_eq!((second.run, second.sequence), (run.id, 2));
    }

    #[test]
    fn runs_are_found_by_unique_prefixes_of_four_digits() {
        let (_folder, store) = fresh();
        let run = record(&[("a", b"1", b"one")]);
        store.record(&run, None, execution()).expect("kept");
        let id = run.id.to_string();
        assert_eq!(store.find_run(&id[..4]).expect("found"), run.id);
        assert_eq!(store.find_run(&id.to_uppercase()).expect("found"), run.id);
        assert!(matches!(
            store.find_run(&id[..3]),
            Err(CacheError::NotAPrefix(_))
        ));
        assert!(matches!(
            store.find_run("zzzz"),
            Err(CacheError::NotAPrefix(_))
        ));
        let absent = if id.starts_with("0000") {
            "1111"
        } else {
            "0000"
        };
        assert!(matches!(
            store.find_run(absent),
            Err(CacheError::Missing { .. })
        ));
    }

    #[test]
    fn a_damaged_record_is_noticed() {
        let (_folder, store) = fresh();
        let run = record(&[("a", b"1", b"one")]);
        store.record(&run, None, execution()).expect("kept");
        let path = store.layout().run(&run.id);
        let text = fs_err::read_to_string(&path).expect("text");
        fs_err::write(&path, text.replace("toys", "tops")).expect("written");
        assert!(matches!(
            store.run(&run.id).expect("read"),
            Lookup::Damaged(_)
        ));
    }

    #[test]
    fn pins_are_kept_until_given_up() {
        let (_folder, store) = fresh();
        store.pin("paper", Digest::of(b"a")).expect("kept");
        assert_eq!(
            store.pins().expect("read"),
            BTreeMap::from([("paper".to_owned(), Digest::of(b"a"))])
        );
        assert!(store.pin("../paper", Digest::of(b"a")).is_err());
        assert!(store.unpin("paper").expect("removed"));
        assert!(!store.unpin("paper").expect("nothing to do"));
    }
}
