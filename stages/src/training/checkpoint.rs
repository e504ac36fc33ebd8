//! Checkpoints: everything that a training needs to go on as if nothing had happened.
//!
//! A checkpoint is one safetensors file in the stage's scratch folder, written beside, synced, renamed.
//!
//! ```text
//! step-000000000500-<BLAKE3 of the file>.safetensors
//!     __metadata__.state   Position and history, as JSON
//!     weights              the weights' buffer
//!     first, second        the optimizer's moments, where it has them
//!     best                 the weights of the best evaluation, where they are to be kept and are others
//! ```
//! The name holds the digest, so that a file is whole or no checkpoint. The last two are kept.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use taper_engine::{Reporter, StageError};
use taper_nn::optimizer;

use super::history::Entry;
use super::watch::Watch;
use crate::artifact::weights::{self, NamedTensor, WeightsFile};

/// Where a training is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Optimizer steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Rows of the current epoch done.
    pub rows: u64,
    /// The losses since the last line of the history.
    pub since_log: Means,
    /// The losses since the beginning of the epoch.
    pub since_epoch: Means,
    /// The evaluations, for keeping the best.
    pub best: Watch,
    /// The evaluations, for stopping early.
    pub stopping: Watch,
    /// Whether evaluations have stopped getting better.
    pub stopped: bool,
    /// What the last step left to be done.
    pub pending: Option<Pending>,
    /// What was logged.
    pub history: Vec<Entry>,
}

/// A step that is done, but not yet logged and evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// The learning rate that was used.
    pub learning_rate: f64,
    /// The norm of the gradient before clipping, where it was computed.
    pub gradient_norm: Option<f64>,
    /// Whether the epoch ended with the step.
    pub ends_epoch: bool,
}

/// Sums that become means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Means {
    /// The sum of the steps' losses.
    pub loss: f64,
    /// Steps.
    pub steps: u64,
    /// Rows whose class was the most probable one.
    pub right: u64,
    /// Rows.
    pub rows: u64,
}

impl Means {
    /// The mean loss of a step; 0 where there was none.
    pub fn loss(&self) -> f64 {
        self.loss / self.steps.max(1) as f64
    }

    /// The share of rows that were classified right in training mode; 0 where there was none.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.rows.max(1) as f64
    }

    /// Adds one step.
    pub fn add(&mut self, loss: f64, right: u64, rows: u64) {
        self.loss += loss;
        self.steps += 1;
        self.right += right;
        self.rows += rows;
    }
}

/// A training that can go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Where it is.
    pub position: Position,
    /// The weights.
    pub weights: Vec<f32>,
    /// The optimizer's moments.
    pub optimizer: optimizer::State<f32>,
    /// The weights of the best evaluation, where they are kept.
    pub best: Option<Vec<f32>>,
}

#[derive(Serialize, Deserialize)]
struct State<P> {
    /// Of this format.
    version: u32,
    /// What the training is made from; see [`Checkpoints::new`].
    fingerprint: String,
    optimizer_steps: u64,
    position: P,
}

/// Raised with every change of the format; a checkpoint of another version is not used.
const VERSION: u32 = 1;
const EXTENSION: &str = ".safetensors";
const PREFIX: &str = "step-";
const KEPT: usize = 2;

/// The checkpoints of one training, in its scratch folder.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    fingerprint: String,
}

/// What is to be written, borrowed from a training that goes on.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Where it is.
    pub position: &'a Position,
    /// The weights.
    pub weights: &'a [f32],
    /// The optimizer's moments.
    pub optimizer: &'a optimizer::State<f32>,
    /// The weights of the best evaluation, where they are kept.
    pub best: Option<&'a [f32]>,
}

impl Checkpoints {
    /// The checkpoints in `folder` of the training that `fingerprint` names: another one's are not used.
    pub fn new(folder: impl Into<PathBuf>, fingerprint: impl Into<String>) -> Self {
        Self {
            folder: folder.into(),
            fingerprint: fingerprint.into(),
        }
    }

    /// Writes a checkpoint, then removes all but the last two.
    ///
    /// # Errors
    /// Those of writing; what was there before is then still there.
    pub fn write(&self, parts: Parts<'_>) -> Result<(), StageError> {
        fs_err::create_dir_all(&self.folder)?;
        let state = State {
            version: VERSION,
            fingerprint: self.fingerprint.clone(),
            optimizer_steps: parts.optimizer.step,
            position: parts.position,
        };
        let state = serde_json::to_string(&state).map_err(|error| {
            StageError::failed(format!("a checkpoint cannot be written: {error}"))
        })?;
        let named = [
            ("weights", Some(parts.weights)),
            ("first", Some(parts.optimizer.first.as_slice())),
            ("second", Some(parts.optimizer.second.as_slice())),
            ("best", parts.best),
        ];
        let shapes = named.map(|(_, values)| [values.map_or(0, <[f32]>::len)]);
        let tensors: Vec<_> = named
            .iter()
            .zip(&shapes)
            .filter_map(|((name, values), shape)| {
                let values = values.filter(|values| !values.is_empty())?;
                Some(NamedTensor {
                    name,
                    shape,
                    values,
                })
            })
            .collect();
        let mut file = tempfile::Builder::new()
            .prefix("writing-")
            .tempfile_in(&self.folder)?;
        let mut out = Hashing {
            inner: BufWriter::with_capacity(1 << 20, file.as_file_mut()),
            hasher: blake3::Hasher::new(),
        };
        weights::write(&mut out, ("state", &state), &tensors)?;
        let hash = out.hasher.finalize().to_hex();
        drop(out);
        file.as_file().sync_all()?;
        let name = format!("{PREFIX}{:012}-{hash}{EXTENSION}", parts.position.step);
        file.persist(self.folder.join(name))
            .map_err(|error| StageError::from(error.error))?;
        sync_folder(&self.folder)?;
        for (_, older) in self.list()?.into_iter().skip(KEPT) {
            fs_err::remove_file(older)?;
        }
        Ok(())
    }

    /// The newest checkpoint that is whole; damaged ones are reported and removed.
    ///
    /// # Errors
    /// Those of listing and removing files.
    pub fn newest(&self, reporter: &Reporter) -> Result<Option<Snapshot>, StageError> {
        for (step, path) in self.list()? {
            match self.read(&path) {
                Ok(Some(snapshot)) => return Ok(Some(snapshot)),
                Ok(None) => {}
                Err(why) => reporter.warn(format!(
                    "the checkpoint of step {step} is damaged ({why}); going on from an older one"
                )),
            }
            fs_err::remove_file(path)?;
        }
        Ok(None)
    }

    /// Files that look like checkpoints, newest first. What a kill left half-written is removed.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>, StageError> {
        let mut found = Vec::new();
        let entries = match fs_err::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or("");
            if name.starts_with("writing-") {
                fs_err::remove_file(&path)?;
            } else if let Some((step, _)) = parse_name(name) {
                found.push((step, path));
            }
        }
        found.sort();
        found.reverse();
        Ok(found)
    }

    /// Reads a checkpoint; `None` where it is another training's or another version's.
    fn read(&self, path: &Path) -> Result<Option<Snapshot>, String> {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("");
        let (_, expected) = parse_name(name).ok_or("its name is none")?;
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_mmap_rayon(path)
            .map_err(|error| error.to_string())?;
        if hasher.finalize().to_hex().as_str() != expected {
            return Err("its bytes are not those that were written".to_owned());
        }
        let file = WeightsFile::open(path, name).map_err(|error| error.to_string())?;
        let state = file.metadata("state").ok_or("it has no state")?;
        let state: State<Position> =
            serde_json::from_str(&state).map_err(|error| error.to_string())?;
        if state.version != VERSION || state.fingerprint != self.fingerprint {
            return Ok(None);
        }
        let tensors = file.tensors().map_err(|error| error.to_string())?;
        let values = |name: &str| -> Result<Option<Vec<f32>>, String> {
            let Some((_, tensor)) = tensors.iter().find(|(candidate, _)| candidate == name) else {
                return Ok(None);
            };
            let mut values = vec![0.0; tensor.shape().iter().product()];
            weights::read_into(name, tensor, &mut values).map_err(|error| error.to_string())?;
            Ok(Some(values))
        };
        Ok(Some(Snapshot {
            position: state.position,
            weights: values("weights")?.ok_or("it has no weights")?,
            optimizer: optimizer::State {
                step: state.optimizer_steps,
                first: values("first")?.unwrap_or_default(),
                second: values("second")?.unwrap_or_default(),
            },
            best: values("best")?,
        }))
    }
}

/// The step and the digest that a checkpoint's name holds.
fn parse_name(name: &str) -> Option<(u64, &str)> {
    let (step, digest) = name
        .strip_prefix(PREFIX)?
        .strip_suffix(EXTENSION)?
        .split_once('-')?;
    Some((step.parse().ok()?, digest))
}

/// A rename is on the disk only when its folder is.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        fs_err::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use taper_engine::Events;

    use super::*;

    fn reporter() -> Reporter {
        Reporter::new("model", Events::nowhere(), Arc::new(AtomicBool::new(false)))
    }

    fn snapshot(step: u64) -> Snapshot {
        let mut entry = Entry::new(step, 0.1);
        entry.push("loss", 1.0 / 3.0);
        let mut position = Position {
            step,
            rows: 24,
            history: vec![entry],
            ..Position::default()
        };
        position.since_log.add(0.1, 3, 8);
        Snapshot {
            position,
            weights: vec![step as f32, f32::MIN_POSITIVE / 2.0, -0.0],
            optimizer: optimizer::State {
                step,
                first: vec![0.5, 0.25, 1e-30],
                second: Vec::new(),
            },
            best: (step > 1).then(|| vec![1.0, 2.0, 3.0]),
        }
    }

    fn write(checkpoints: &Checkpoints, snapshot: &Snapshot) {
        checkpoints
            .write(Parts {
                position: &snapshot.position,
                weights: &snapshot.weights,
                optimizer: &snapshot.optimizer,
                best: snapshot.best.as_deref(),
            })
            .unwrap();
    }

    #[test]
    fn the_newest_is_read_back_and_two_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path(), "a");
        assert_eq!(checkpoints.newest(&reporter()).unwrap(), None);
        for step in 1..=4 {
            write(&checkpoints, &snapshot(step));
        }
        assert_eq!(checkpoints.newest(&reporter()).unwrap(), Some(snapshot(4)));
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_damaged_one_gives_way_to_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path(), "a");
        for step in 1..=2 {
            write(&checkpoints, &snapshot(step));
        }
        fs_err::write(folder.path().join("writing-x"), "half").unwrap();
        let (_, newest) = checkpoints.list().unwrap().remove(0);
        let mut bytes = fs_err::read(&newest).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs_err::remove_file(&newest).unwrap();
        fs_err::write(&newest, bytes).unwrap();
        assert_eq!(checkpoints.newest(&reporter()).unwrap(), Some(snapshot(1)));
        assert!(!newest.exists());
    }

    #[test]
    fn another_training_s_checkpoint_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        write(&Checkpoints::new(folder.path(), "a"), &snapshot(1));
        let other = Checkpoints::new(folder.path(), "b");
        assert_eq!(other.newest(&reporter()).unwrap(), None);
    }
}
