//! A disk without locks, on which nobody waits for anybody.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::Project;

/// A stage that says that it has begun, and waits until it may end.
fn pipeline(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "taper: 1
stages:
  slow:
    command:
      shell: ': > {folder}/begun-$$$$; until [ -e {folder}/go ]; do sleep 0.01; done; echo made > out/all/a.txt'
      outputs: {{ all: files }}
"
    )
}

fn lockless(project: &Project, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taper"));
    command
        .args(arguments)
        .current_dir(project.path())
        .env("TAPER_PLANTED", "no-locks")
        .env_remove("TAPER_CACHE")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Programs that end with the test, whatever it finds.
struct Crowd(Vec<Child>);

impl Drop for Crowd {
    fn drop(&mut self) {
        for program in &mut self.0 {
            // It may have ended by itself.
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// Looks until it is so, for a minute.
fn wait_until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "it takes too long"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn count(folder: &Path, prefix: &str) -> usize {
    let entries = std::fs::read_dir(folder).expect("listed");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with(prefix))
        .count()
}

#[test]
fn programs_that_run_the_same_stage_keep_out_of_each_others_way() {
    if !cfg!(debug_assertions) {
        return;
    }
    let signals = tempfile::tempdir().expect("a folder");
    let project = Project::with(&pipeline(signals.path()));
    let staging = project.path().join(".taper/staging");
    let run = |_| {
        lockless(&project, &["run", "p.yaml", "-q"])
            .spawn()
            .expect("started")
    };
    let mut crowd = Crowd((0..3).map(run).collect());
    wait_until(|| count(signals.path(), "begun-") == 3);
    crowd.0[0].kill().expect("killed");
    crowd.0[0].wait().expect("ended");
    let left = || count(&staging, "work-");
    let before = left();
    let collected = lockless(&project, &["gc"]).status().expect("it ran");
    assert!(collected.success());
    assert!(left() < before, "what the dead left goes");
    assert!(left() >= 2, "what the living have stays");
    fs_err::write(signals.path().join("go"), "").expect("written");
    for program in &mut crowd.0[1..] {
        assert!(program.wait().expect("ended").success());
    }
    assert_eq!(
        (left(), count(&project.path().join(".taper/locks"), "key-")),
        (0, 0)
    );
    let again = project.run(&[]);
    assert!(Project::executed(&again).is_empty());
    assert_eq!(project.taper(&["verify"]).code, Some(0));
}
