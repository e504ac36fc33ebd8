//! Running the program.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// What a run of the program left.
pub struct Ran {
    /// The exit code.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs the program in `folder`, with no settings from the environment.
pub fn taper(folder: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taper"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TAPER_") {
            command.env_remove(name);
        }
    }
    let output = command
        .args(arguments)
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .output()
        .expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes UTF-8");
    Ran {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Starts the program in `folder`, its outputs to be read.
pub fn start(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_taper"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("TAPER_CACHE")
        .env("NO_COLOR", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// A project in a folder of its own, with its own cache.
pub struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// An empty project.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let project = Self { folder };
        project.write("taper.toml", "");
        project
    }

    /// A project with this pipeline as `p.yaml`.
    pub fn with(pipeline: &str) -> Self {
        let project = Self::new();
        project.write("p.yaml", pipeline);
        project
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        let folder = path.parent().expect("a file has a folder");
        fs_err::create_dir_all(folder).expect("made");
        fs_err::write(path, text).expect("written");
    }

    /// Reads a file.
    pub fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.path().join(name)).expect("it is there")
    }

    /// Runs the program in it.
    pub fn taper(&self, arguments: &[&str]) -> Ran {
        taper(self.path(), arguments)
    }

    /// Runs the program in it, and reads its JSON. It has to succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.taper(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}\n{}", ran.stderr);
        serde_json::from_str(&ran.stdout).expect("JSON")
    }

    /// Runs `p.yaml` with `--json` and these arguments.
    pub fn run(&self, arguments: &[&str]) -> Value {
        self.json(&[&["run", "p.yaml", "--json", "-q"], arguments].concat())
    }

    /// The names of the stages that were executed by the run with this report.
    pub fn executed(report: &Value) -> Vec<String> {
        let stages = report["stages"].as_array().expect("a list of stages");
        let ran = stages.iter().filter(|stage| stage["state"] == "ran");
        ran.map(|stage| stage["name"].as_str().expect("a name").to_owned())
            .collect()
    }
}

/// What is a matter of time or place in a text, replaced: seconds, ids, the folder.
pub fn stable(text: &str, project: &Project) -> String {
    let folder = project.path().canonicalize().expect("there");
    let text = text.replace(&folder.display().to_string(), "PROJECT");
    let words = text.split_inclusive([' ', '\n']).map(|word| {
        let bare = word.trim_end();
        let end = &word[bare.len()..];
        let digits = bare.trim_end_matches([':', ',', ')']);
        let is_id =
            matches!(digits.len(), 12 | 64) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if is_id {
            format!(
                "{}{}{end}",
                "#".repeat(digits.len().min(12)),
                &bare[digits.len()..]
            )
        } else {
            word.to_owned()
        }
    });
    words.collect()
}
