//! What is tried: projects as they are found, and a command that something happens to.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::tracer::Watchdog;
use crate::{Setting, Variables, variables};

/// A pipeline with every way in which the program touches files: data and scripts of the project, programs
/// of the user's with children of their own, several outputs, a training with checkpoints, a figure, exports.
const PIPELINE: &str = r#"taper: 1
name: story
seed: 7
stages:
  corpus: { download: { path: data.csv } }
  mixed: { shuffle: { data: corpus } }
  notes:
    command:
      inputs: { rows: mixed }
      run: [sh, work.sh]
      files: [work.sh]
      outputs: { text: files, figures: metrics }
    export: results
  again:
    command:
      inputs: { text: notes.text }
      shell: "cat in/text/a.txt in/text/deep/b.txt > out/all/c.txt"
      outputs: { all: files }
    export: again.txt
  words: { tokenize: { data: mixed, tokenizer: { train: { wordpiece: { vocab_size: 60 } } }, text: text, label: label, max_length: 8 } }
  model:
    train:
      data: words
      train: train
      model: { textcnn: { embedding_dim: 4, filters: 2, width: 2 } }
      optimizer: { adamw: { lr: 1e-2 } }
      batch_size: 4
      max_steps: 6
      checkpoint_every: 2
  scores: { evaluate: { model: model, data: words, split: train, metrics: [accuracy] } }
"#;

const SCRIPT: &str = "\
mkdir out/text/deep
printf 'begun\\n' > out/text/a.txt
wc -c < in/rows/train.arrow | tr -d ' ' > out/text/deep/b.txt
printf 'ended\\n' >> out/text/a.txt
printf '{\"size\": %s}' \"$(cat out/text/deep/b.txt)\" > out/figures/metrics.json
";

/// Everything that can be wrong with a project that is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Whole,
    /// Files of the cache are damaged.
    Damaged,
}

/// A command in a project.
#[derive(Debug)]
pub struct Story {
    /// What it is called.
    pub name: &'static str,
    /// The project as it is found.
    pub start: Place,
    /// In which condition.
    pub condition: Condition,
    /// The arguments of the command.
    pub arguments: Vec<String>,
    /// What has to come out of a run in the end.
    pub truth: Truth,
    /// What has to be recorded where the command ends well.
    pub recorded: bool,
    /// What is planted in the program that the story is of; for a way of working that this machine does not need.
    pub planted: Option<&'static str>,
    /// Whether the pipeline has just run in its place, so that the program remembers the run.
    pub remembered: bool,
}

impl Story {
    /// A copy of the project as it is found.
    pub fn place(&self, setting: &Setting) -> Place {
        let place = Place::copy_of(&self.start);
        if self.remembered {
            let honest = Setting {
                planted: None,
                ..setting.clone()
            };
            for _ in 0..2 {
                run(&honest, place.path()).expect("the pipeline runs");
                // A state counts once the clock that stamps files has gone on.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        place
    }

    /// The variables that the program gets.
    pub fn variables(&self, setting: &Setting) -> Variables {
        variables([self.planted, setting.planted.as_deref()])
    }

    /// Its arguments.
    pub fn arguments(&self) -> Vec<&str> {
        self.arguments.iter().map(String::as_str).collect()
    }
}

/// What a run has to give.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// The run's id.
    pub run: String,
    /// Name, key and artifact of each stage.
    pub stages: Vec<(String, String, String)>,
    /// The work tree's files after it.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

/// A folder that goes when it is dropped; in memory where that is possible.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
}

impl Place {
    /// An empty one.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        Self {
            folder: folder.expect("a folder"),
        }
    }

    /// A copy of another.
    pub fn copy_of(other: &Self) -> Self {
        let place = Self::new();
        copy(other.path(), place.path());
        place
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs_err::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        let file_type = entry.file_type().expect("a type");
        if file_type.is_dir() {
            fs_err::create_dir(&target).expect("made");
            copy(&entry.path(), &target);
        } else if file_type.is_symlink() {
            let link = fs_err::read_link(entry.path()).expect("a link");
            std::os::unix::fs::symlink(link, &target).expect("linked");
        } else {
            fs_err::copy(entry.path(), &target).expect("copied");
        }
    }
}

/// Writes the project's files.
pub fn write_project(folder: &Path) {
    let rows: String = (0..24)
        .map(|row| {
            let word = ["red", "green", "blue", "grey"][row % 4];
            format!("{word} leaf {row},{}\n", row % 2)
        })
        .collect();
    write(folder, "taper.toml", "");
    write(folder, "p.yaml", PIPELINE);
    write(folder, "work.sh", SCRIPT);
    write(folder, "data.csv", &format!("text,label\n{rows}"));
}

/// Writes a file of a project.
pub fn write(folder: &Path, name: &str, text: &str) {
    fs_err::write(folder.join(name), text).expect("written");
}

/// Changes the data of a project.
pub fn edit(folder: &Path) {
    let path = folder.join("data.csv");
    let text = fs_err::read_to_string(&path).expect("there");
    write(folder, "data.csv", &format!("{text}yellow leaf 24,0\n"));
}

/// What the program left, where nothing happened to it.
#[derive(Debug)]
pub struct Ran {
    /// The exit code.
    pub code: Option<i32>,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// The program in a folder, to be started.
pub fn program(setting: &Setting, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(&setting.program);
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("NO_COLOR", "1")
        .env("RUST_BACKTRACE", "0")
        .envs(setting.variables());
    command
}

/// Runs the program in a folder.
pub fn taper(setting: &Setting, folder: &Path, arguments: &[&str]) -> Ran {
    let child = program(setting, folder, arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let id = i32::try_from(child.id()).expect("small");
    let watchdog = Watchdog::over(Pid::from_raw(id));
    let output = child.wait_with_output().expect("it ends");
    let mut stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if watchdog.has_bitten() {
        stderr.push_str("it hangs");
    }
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr,
    }
}

/// The arguments of the run that everything is compared with.
pub const RUN: [&str; 4] = ["run", "p.yaml", "--json", "-q"];

/// Runs the pipeline and reads what came out; the stages that were executed too.
///
/// # Errors
/// Where it does not end well.
pub fn run(setting: &Setting, folder: &Path) -> Result<(Truth, Vec<String>), String> {
    let ran = taper(setting, folder, &RUN);
    if ran.code != Some(0) {
        return Err(format!("a run ends with {:?}: {}", ran.code, ran.stderr));
    }
    let report: Value = serde_json::from_str(&ran.stdout).map_err(|error| error.to_string())?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let stages = report["stages"].as_array().cloned().unwrap_or_default();
    let executed = stages.iter().filter(|stage| stage["state"] == "ran");
    let executed = executed.map(|stage| text(&stage["name"])).collect();
    let stages = stages.iter().map(|stage| {
        (
            text(&stage["name"]),
            text(&stage["key"]),
            text(&stage["artifact"]),
        )
    });
    let truth = Truth {
        run: text(&report["run"]),
        stages: stages.collect(),
        files: files(folder),
    };
    Ok((truth, executed))
}

/// The files of the work tree, without the cache.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs_err::read_dir(&next).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if path.file_name() != Some(".taper".as_ref()) {
                    folders.push(path);
                }
            } else {
                let below = path.strip_prefix(folder).expect("below").to_path_buf();
                found.insert(below, fs_err::read(&path).unwrap_or_default());
            }
        }
    }
    found
}

/// Some of what the pipeline exports.
pub const EXPORTS: [&str; 2] = ["again.txt", "results/text/a.txt"];

/// Every story.
pub fn all(setting: &Setting) -> Vec<Story> {
    // The stories are told by a program without bugs.
    let setting = &Setting {
        planted: None,
        ..setting.clone()
    };
    let fresh = Place::new();
    write_project(fresh.path());
    let done = Place::copy_of(&fresh);
    let (truth, _) = run(setting, done.path()).expect("the pipeline runs");
    let edited = Place::copy_of(&done);
    edit(edited.path());
    let twice = Place::copy_of(&edited);
    let (edited_truth, _) = run(setting, twice.path()).expect("the pipeline runs");
    fs_err::remove_file(twice.path().join("p.lock")).expect("removed");
    let damaged = Place::copy_of(&done);
    damage(damaged.path());
    let bare = Place::copy_of(&done);
    for export in EXPORTS {
        fs_err::remove_file(bare.path().join(export)).expect("removed");
    }
    let id = truth.run.clone();
    let story = |name, start: &Place, condition, arguments: &[&str], truth: &Truth| Story {
        name,
        start: Place::copy_of(start),
        condition,
        arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
        truth: truth.clone(),
        recorded: arguments[0] == "run",
        planted: None,
        remembered: false,
    };
    let (whole, broken) = (Condition::Whole, Condition::Damaged);
    let two = ["run", "p.yaml", "--json", "-q", "--jobs", "2"];
    let mut stories = vec![
        story("run", &fresh, whole, &two, &truth),
        story("cached run", &done, whole, &two, &truth),
        Story {
            remembered: true,
            ..story("remembered run", &done, whole, &two, &truth)
        },
        story("export again", &bare, whole, &two, &truth),
        story("edit and run", &edited, whole, &two, &edited_truth),
        story(
            "gc",
            &twice,
            whole,
            &["gc", "--max-size", "0", "--unfinished"],
            &edited_truth,
        ),
        story("verify", &damaged, broken, &["verify"], &truth),
        story(
            "reproduce",
            &done,
            whole,
            &["reproduce", &id, "--rerun"],
            &truth,
        ),
        story("heal", &damaged, broken, &["reproduce", &id], &truth),
    ];
    // A program that is built for release knows one way only on one machine.
    if cfg!(debug_assertions) {
        stories.push(Story {
            planted: Some("each-synced-alone"),
            ..story("run, each file synced alone", &fresh, whole, &two, &truth)
        });
    }
    stories
}

/// Damages a file of each shelf of a cache.
fn damage(folder: &Path) {
    let cache = folder.join(".taper");
    for (shelf, which) in [
        ("blobs", 1),
        ("manifests", 2),
        ("actions", 3),
        ("executions", 0),
    ] {
        let mut all = shelved(&cache.join(shelf));
        all.sort();
        let path = &all[which];
        let mut bytes = fs_err::read(path).expect("there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs_err::set_permissions(path, Permissions::from_mode(0o644)).expect("set");
        fs_err::write(path, bytes).expect("written");
    }
    let mut blobs = shelved(&cache.join("blobs"));
    blobs.sort();
    fs_err::remove_file(&blobs[4]).expect("removed");
}

/// Every file below a folder.
pub fn shelved(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return found;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(shelved(&path));
        } else {
            found.push(path);
        }
    }
    found
}
