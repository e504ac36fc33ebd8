//! A project in a folder of its own, and what a test wants to see of its runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use taper_cache::{Digest, Store};
use taper_engine::{
    EngineError, Event, Events, LocalExecutor, Lock, Options, Origin, Plan, PlanReport, RunOptions,
    RunReport, Surroundings, check, forecast, run,
};

use crate::kinds::KINDS;

pub struct Project {
    folder: tempfile::TempDir,
    pub events: Arc<Mutex<Vec<Event>>>,
}

impl Project {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs_err::write(folder.path().join("taper.toml"), "").expect("written");
        Self {
            folder,
            events: Arc::default(),
        }
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self) -> PathBuf {
        self.root().join("p.yaml")
    }

    pub fn write(&self, name: &str, text: &str) {
        fs_err::write(self.root().join(name), text).expect("written");
    }

    pub fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.root().join(name)).expect("there")
    }

    pub fn store(&self) -> Store {
        Store::open(self.root().join(".taper")).expect("opened")
    }

    pub fn lock(&self) -> Lock {
        Lock::read(&Lock::path_of(&self.file())).expect("read")
    }

    pub fn plan(&self, stages: &str) -> Plan {
        let text = format!("taper: 1\nstages:\n{stages}");
        let checked = check(
            KINDS,
            "p.yaml",
            text.as_bytes(),
            Some(self.root()),
            &Options::default(),
        );
        match checked.plan {
            Some(plan) => plan,
            None => panic!("{:?}", checked.report),
        }
    }

    pub fn origin(&self, stages: &str) -> Origin {
        self.write("p.yaml", stages);
        Origin {
            file: self.file(),
            text: stages.to_owned(),
            overrides: Default::default(),
        }
    }

    pub fn surroundings(&self) -> Surroundings {
        let events = self.events.clone();
        let events = Events::new(move |event| {
            events.lock().expect("no test panics with it").push(event);
        });
        self.write("p.yaml", "");
        Surroundings::open(&self.file(), None, events).expect("opened")
    }

    pub fn run(&self, stages: &str) -> RunReport {
        self.try_run(stages, &options()).expect("it ran")
    }

    pub fn try_run(&self, stages: &str, options: &RunOptions) -> Result<RunReport, EngineError> {
        self.run_in(&self.surroundings(), stages, options)
    }

    pub fn run_in(
        &self,
        surroundings: &Surroundings,
        stages: &str,
        options: &RunOptions,
    ) -> Result<RunReport, EngineError> {
        run(
            &self.plan(stages),
            &self.origin(stages),
            surroundings,
            &LocalExecutor { kinds: KINDS },
            options,
        )
    }

    pub fn forecast(&self, stages: &str) -> PlanReport {
        let surroundings = self.surroundings();
        let (plan, origin) = (self.plan(stages), self.origin(stages));
        forecast(&plan, &origin, &surroundings, &options()).expect("foreseen")
    }

    /// The text of a stage's artifact.
    pub fn text(&self, report: &RunReport, stage: &str) -> String {
        let artifact = artifact(report, stage);
        let manifest = self
            .store()
            .manifest(&artifact)
            .expect("read")
            .found()
            .expect("kept");
        let texts = manifest.blobs.values().map(|blob| {
            fs_err::read_to_string(self.store().layout().blob(&blob.digest)).expect("text")
        });
        texts.collect()
    }

    /// The path of the only blob of a stage's artifact.
    pub fn blob(&self, report: &RunReport, stage: &str) -> PathBuf {
        let artifact = artifact(report, stage);
        let manifest = self
            .store()
            .manifest(&artifact)
            .expect("read")
            .found()
            .expect("kept");
        let blob = manifest.blobs.values().next().expect("one");
        self.store().layout().blob(&blob.digest)
    }

    pub fn warnings(&self) -> String {
        let events = self.events.lock().expect("no test panics with it");
        let texts = events.iter().filter_map(|event| match event {
            Event::Warning { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

pub fn options() -> RunOptions {
    RunOptions {
        jobs: 2,
        ..RunOptions::default()
    }
}

pub fn artifact(report: &RunReport, stage: &str) -> Digest {
    let stage = report
        .stages
        .iter()
        .find(|s| s.name == stage)
        .expect("a stage");
    stage.artifact.expect("made")
}

/// `a ran, b cached`.
pub fn states(report: &RunReport) -> String {
    let states = report.stages.iter().map(|stage| {
        format!(
            "{} {}",
            stage.name,
            format!("{:?}", stage.state).to_lowercase()
        )
    });
    states.collect::<Vec<_>>().join(", ")
}

/// Overwrites a read-only file with other bytes, of the same number.
pub fn damage(path: &Path) {
    let mut bytes = fs_err::read(path).expect("there");
    bytes[0] ^= 1;
    fs_err::remove_file(path).expect("removed");
    fs_err::write(path, bytes).expect("written");
}

/// Every file below a folder with its bytes and its time.
pub fn snapshot(folder: &Path) -> Vec<(PathBuf, std::time::SystemTime, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let time = path.metadata().expect("there").modified().expect("a time");
                let bytes = fs_err::read(&path).expect("read");
                files.push((path, time, bytes));
            }
        }
    }
    files.sort();
    files
}
