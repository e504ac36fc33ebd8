//! The index of executions: what a list of runs says of each, a hundred executions a file, so that a list of ten
//! thousand opens a hundred files. It is made of the records alone: a file of it that is missing or damaged costs
//! time and nothing else, and the next execution that is recorded makes it again. Readers write nothing, and read
//! the records themselves where no file of the index has them yet.
//!
//! ```text
//! 000000000101 {"run":"…","pipeline":"…","metrics":{…},…}     one line an execution; ascending
//! 000000000102 …
//! b3 <the BLAKE3 of all lines above>
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{CacheError, Lookup, NOT_AS_WRITTEN};
use crate::files;
use crate::runs::names;
use crate::{Execution, RunId, Store};

/// How many numbers of executions a file of the index is for.
const SPAN: u64 = 100;

/// What a list of runs says of an execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Its number in this cache.
    #[serde(skip)]
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
    /// How many stages ran.
    pub ran: usize,
    /// How many were in the cache.
    pub cached: usize,
    /// What stages measured, by stage.
    pub metrics: BTreeMap<String, serde_json::Value>,
}

impl From<Execution> for Summary {
    fn from(execution: Execution) -> Self {
        let cached = execution.stages.iter().filter(|stage| stage.cached).count();
        Self {
            sequence: execution.sequence,
            run: execution.run,
            pipeline: execution.pipeline,
            file: execution.file,
            started: execution.started,
            seconds: execution.seconds,
            ran: execution.stages.len() - cached,
            cached,
            metrics: execution.metrics,
        }
    }
}

impl Summary {
    fn to_line(&self) -> String {
        let json = serde_json::to_string(self).expect("plain data with text as keys");
        format!("{:012} {json}\n", self.sequence)
    }

    fn from_line(sequence: u64, json: &str) -> Option<Self> {
        let summary: Self = serde_json::from_str(json).ok()?;
        Some(Self {
            sequence,
            ..summary
        })
    }
}

/// Which executions are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    All,
    /// Those of a run.
    Run(RunId),
    /// Those of the pipeline with this name.
    Pipeline(String),
    /// Those of the pipeline file that was named so.
    File(String),
}

impl Wanted {
    /// What a line has to hold in order to be worth a closer look.
    fn mention(&self) -> String {
        match self {
            Self::All => String::new(),
            Self::Run(run) => run.to_string(),
            Self::Pipeline(name) | Self::File(name) => serde_json::to_string(name).expect("a text"),
        }
    }

    fn is(&self, summary: &Summary) -> bool {
        match self {
            Self::All => true,
            Self::Run(run) => summary.run == *run,
            Self::Pipeline(name) => summary.pipeline == *name,
            Self::File(name) => summary.file == *name,
        }
    }
}

/// Executions, the newest first, each looked at when it is asked for. Damaged records are left out.
#[derive(Debug)]
pub struct Summaries<'a> {
    store: &'a Store,
    /// Ascending.
    left: Vec<u64>,
    wanted: Wanted,
    mention: String,
    /// The file of the index that was read last: its number, and its lines by execution.
    file: Option<(u64, BTreeMap<u64, String>)>,
}

impl Iterator for Summaries<'_> {
    type Item = Result<Summary, CacheError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(sequence) = self.left.pop() {
            let number = number_of(sequence);
            let file = match self.file.take() {
                Some(file) if file.0 == number => file,
                _ => (number, self.store.indexed(number)),
            };
            let (_, lines) = self.file.insert(file);
            let summary = match lines.get(&sequence) {
                Some(line) if !line.contains(&self.mention) => None,
                Some(line) => Summary::from_line(sequence, line),
                None => match self.store.execution(sequence) {
                    Ok(lookup) => lookup.found().map(Summary::from),
                    Err(error) => return Some(Err(error)),
                },
            };
            if let Some(summary) = summary.filter(|summary| self.wanted.is(summary)) {
                return Some(Ok(summary));
            }
        }
        None
    }
}

/// The number of the file for an execution.
const fn number_of(sequence: u64) -> u64 {
    sequence.saturating_sub(1) / SPAN
}

impl Store {
    /// What a list says of executions, the newest first.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn summaries(&self, wanted: Wanted) -> Result<Summaries<'_>, CacheError> {
        Ok(Summaries {
            store: self,
            left: self.executions()?,
            mention: wanted.mention(),
            wanted,
            file: None,
        })
    }

    fn index_file(&self, number: u64) -> PathBuf {
        let last = (number + 1) * SPAN;
        self.layout().index().join(format!("{last:012}"))
    }

    /// The lines of a file of the index; none where it cannot be read.
    fn indexed(&self, number: u64) -> BTreeMap<u64, String> {
        let bytes = files::read(&self.index_file(number)).unwrap_or_default();
        files::unseal(&bytes).and_then(lines_of).unwrap_or_default()
    }

    /// Makes the files of the index that can be made: those for numbers that no later execution will have.
    pub(crate) fn update_index(&self, last: u64) -> Result<(), CacheError> {
        let full = last / SPAN;
        let there = names(&self.layout().index())?;
        if there.len() as u64 >= full {
            return Ok(());
        }
        let sequences = self.executions()?;
        for number in 0..full {
            let path = self.index_file(number);
            if path.symlink_metadata().is_ok() {
                continue;
            }
            let mut text = String::new();
            for sequence in sequences.iter().filter(|one| number_of(**one) == number) {
                if let Lookup::Found(execution) = self.execution(*sequence)? {
                    text.push_str(&Summary::from(execution).to_line());
                }
            }
            let bytes = files::seal(text.into_bytes());
            self.write(&path, &bytes, 0o666)?;
        }
        Ok(())
    }

    /// Compares each file of the index with the records: what says something else is set aside.
    pub(crate) fn verify_index(&self) -> Result<Vec<Lookup<()>>, CacheError> {
        let mut looked = Vec::new();
        for name in names(&self.layout().index())? {
            let path = self.layout().index().join(&name);
            let lookup = self.look_up(&path, |bytes| {
                let lines = files::unseal(bytes).and_then(lines_of);
                let lines = lines.ok_or_else(|| NOT_AS_WRITTEN.to_owned())?;
                let is_so = |(sequence, line): (&u64, &String)| {
                    let found = self.execution(*sequence).ok().and_then(Lookup::found);
                    let recorded = found.map(|execution| Summary::from(execution).to_line());
                    recorded.is_none_or(|recorded| recorded == format!("{sequence:012} {line}\n"))
                };
                match lines.iter().all(is_so) {
                    true => Ok(()),
                    false => Err("it is not what the records say".to_owned()),
                }
            })?;
            looked.push(lookup);
        }
        Ok(looked)
    }
}

fn lines_of(bytes: &[u8]) -> Option<BTreeMap<u64, String>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let line = |line: &str| {
        let (sequence, json) = line.split_once(' ')?;
        Some((sequence.parse().ok()?, json.to_owned()))
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::tests::{execution, record};
    use crate::store::tests::fresh;

    /// Executions of two runs in turn.
    fn recorded(count: u64) -> (tempfile::TempDir, Store, [RunId; 2]) {
        let (folder, store) = fresh();
        let runs = [&b"a"[..], b"b"].map(|made| record(&[("s", b"key", made)]));
        for number in 0..count {
            let run = &runs[(number % 2) as usize];
            let mut execution = execution();
            execution.started = number;
            store.record(run, None, execution).expect("recorded");
        }
        (folder, store, runs.map(|run| run.id))
    }

    fn started(store: &Store, wanted: Wanted) -> Vec<u64> {
        let summaries = store.summaries(wanted).expect("listed");
        summaries
            .map(|summary| summary.expect("read").started)
            .collect()
    }

    #[test]
    fn lists_are_the_same_with_the_index_and_without() {
        let (_folder, store, runs) = recorded(2 * SPAN + 5);
        let index = store.layout().index();
        assert_eq!(names(&index).expect("listed").len(), 2);
        let newest: Vec<u64> = (0..2 * SPAN + 5).rev().collect();
        let odd: Vec<u64> = newest.iter().copied().filter(|n| n % 2 == 1).collect();
        let look = || {
            assert_eq!(started(&store, Wanted::All), newest);
            assert_eq!(started(&store, Wanted::Run(runs[1])), odd);
            assert_eq!(started(&store, Wanted::Pipeline("toys".into())), newest);
            assert!(started(&store, Wanted::Pipeline("toy".into())).is_empty());
        };
        look();
        let file = store.index_file(0);
        let bytes = files::read(&file).expect("there");
        fs_err::write(&file, &bytes[..bytes.len() / 2]).expect("written");
        look();
        std::fs::remove_dir_all(&index).expect("removed");
        look();
        store.update_index(2 * SPAN + 5).expect("made again");
        assert_eq!(files::read(&file).expect("there"), bytes);
    }

    #[test]
    fn what_the_records_do_not_say_is_set_aside() {
        let (_folder, store, _) = recorded(SPAN);
        let file = store.index_file(0);
        let bytes = files::read(&file).expect("there");
        let text = String::from_utf8(files::unseal(&bytes).expect("whole").to_vec());
        let text = text.expect("text").replace("\"toys\"", "\"toyz\"");
        fs_err::write(&file, files::seal(text.into_bytes())).expect("written");
        let verified = store.verify(|_| ()).expect("read");
        assert_eq!(verified.findings.len(), 1);
        assert!(!file.exists());
        store.update_index(SPAN).expect("made again");
        assert_eq!(files::read(&file).expect("there"), bytes);
    }

    #[test]
    fn an_execution_that_was_removed_is_not_listed() {
        let (_folder, store, _) = recorded(SPAN + 1);
        std::fs::remove_file(store.layout().execution(3)).expect("removed");
        let left = started(&store, Wanted::All);
        assert_eq!(left.len() as u64, SPAN);
        assert!(!left.contains(&2));
    }
}
