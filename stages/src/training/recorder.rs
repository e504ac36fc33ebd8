//! What a training leaves in the run's record as it goes on: its history so far, times, TensorBoard's event files.
//! All of it outside every digest.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use fs_err::{File, OpenOptions};
use serde::Serialize;
use taper_engine::{Reporter, StageError};

use super::history::{self, Entry};
use super::tensorboard::EventFile;

/// Writes the record of one training.
#[derive(Debug)]
pub struct Recorder {
    history: File,
    timing: File,
    events: Option<EventFile>,
    started: Instant,
    /// Of what was done in this process.
    work: Work,
}

/// What was computed.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    rows: u64,
    tokens: u64,
}

/// A line of `timing.jsonl`.
#[derive(Serialize)]
struct Timing {
    step: u64,
    /// Since this process began or resumed the training.
    seconds: f64,
    samples_per_second: f64,
    tokens_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
}

impl Recorder {
    /// Begins or goes on with the record in `folder`; `past` is what was logged before.
    ///
    /// # Errors
    /// Those of writing.
    pub fn begin(folder: &Path, tensorboard: bool, past: &[Entry]) -> Result<Self, StageError> {
        fs_err::create_dir_all(folder)?;
        let mut file = File::create(folder.join("history.jsonl"))?;
        history::write(&mut file, past)?;
        let timing = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("timing.jsonl"))?;
        let events = tensorboard
            .then(|| EventFile::create(&folder.join("tensorboard"), past))
            .transpose()?;
        Ok(Self {
            history: file,
            timing,
            events,
            started: Instant::now(),
            work: Work::default(),
        })
    }

    /// Counts what a step computed.
    pub fn count(&mut self, rows: u64, tokens: u64) {
        self.work.rows += rows;
        self.work.tokens += tokens;
    }

    /// Takes a line of the history.
    ///
    /// # Errors
    /// Those of writing.
    pub fn add(&mut self, entry: &Entry, reporter: &Reporter) -> Result<(), StageError> {
        history::write(&mut self.history, std::slice::from_ref(entry))?;
        let seconds = self.started.elapsed().as_secs_f64();
        let timing = Timing {
            step: entry.step,
            seconds,
            samples_per_second: self.work.rows as f64 / seconds,
            tokens_per_second: self.work.tokens as f64 / seconds,
            peak_memory_bytes: peak_memory(),
        };
        let mut line = serde_json::to_string(&timing).map_err(std::io::Error::from)?;
        line.push('\n');
        self.timing.write_all(line.as_bytes())?;
        if let Some(events) = &mut self.events {
            events.add(entry)?;
        }
        reporter.metrics(entry.step, entry.values.iter().cloned().collect());
        Ok(())
    }
}

/// The most memory that this process has held, where the system tells (Linux).
fn peak_memory() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
