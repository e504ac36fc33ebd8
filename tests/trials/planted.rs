//! Bugs planted in the program, one at a time: a suite has to notice each. That is how we know that they can
//! fail.

use std::panic::catch_unwind;

use crate::{Found, Setting, Size};
use crate::{crowd, edit, errors, flip, kill, power};

/// A bug, and the suite that has to notice it.
type Bug = (&'static str, fn(&Setting) -> Found);

const BUGS: [Bug; 39] = [
    ("no-file-sync", power::run),
    ("no-round", power::run),
    ("named-before-round", power::run),
    ("no-folder-sync", power::run),
    ("export-unsynced", power::run),
    ("record-before-work", power::run),
    ("run-unsynced", power::run),
    ("written-in-place", kill::run),
    ("lock-in-place", kill::run),
    ("exported-in-place", kill::run),
    ("exported-beside", kill::run),
    ("action-first", kill::run),
    ("blobs-removed-first", kill::run),
    ("lock-by-existence", kill::run),
    ("child-unbound", kill::run),
    ("work-reused", kill::run),
    ("run-unrecorded", errors::run),
    ("write-error-dropped", errors::run),
    ("sync-error-dropped", errors::run),
    ("round-error-dropped", errors::run),
    ("folder-error-dropped", errors::run),
    ("folder-synced-again", errors::run),
    ("record-error-dropped", errors::run),
    ("verify-skipped", flip::run),
    ("seal-unchecked", flip::run),
    ("key-unchecked", flip::run),
    ("run-unchecked", flip::run),
    ("execution-unchecked", flip::run),
    ("blobs-unchecked", flip::run),
    ("link-followed", flip::run),
    ("pipe-opened", flip::run),
    ("export-unverified", flip::run),
    ("edit-untold", edit::run),
    ("times-trusted", edit::run),
    ("gc-unlocked", crowd::run),
    ("gc-removes-work", crowd::run),
    ("key-unlocked", crowd::run),
    ("no-locks,scratch-shared", crowd::run),
    ("export-follows", swap_elsewhere),
];

/// In a process of its own: this suite tries the library, which takes no bugs in this one.
fn swap_elsewhere(setting: &Setting) -> Found {
    let mut found = Found::default();
    let program = std::env::current_exe().expect("this program");
    let mut command = std::process::Command::new(program);
    command.arg("swap").envs(setting.variables());
    let output = command.output().expect("it starts");
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let failure = said.lines().nth(1).unwrap_or_default().trim();
        found.failures.push(failure.to_owned());
    }
    found
}

/// Tries.
pub fn run(setting: &Setting) -> Found {
    let mut found = Found::default();
    if !cfg!(debug_assertions) {
        println!("planted: a program built for release has no bugs to be planted: not tried");
        return found;
    }
    let bugs = match setting.size {
        Size::Short => &BUGS[..2],
        _ => &BUGS[..],
    };
    let bugs = setting.part_of(bugs.iter().collect());
    for (bug, suite) in &bugs {
        let setting = Setting {
            part: (0, 1),
            planted: Some((*bug).to_owned()),
            size: Size::Normal,
            until_first: true,
            ..setting.clone()
        };
        // In the library as in the program.
        let noticed = catch_unwind(|| suite(&setting).failures.first().cloned());
        match noticed {
            Ok(None) => found.failures.push(format!("nobody notices `{bug}`")),
            Ok(Some(failure)) => {
                println!("  {bug}: {}", failure.lines().next().unwrap_or_default())
            }
            Err(_) => println!("  {bug}: nothing works any more"),
        }
    }
    found.tried.push((bugs.len(), "bugs planted".to_owned()));
    found
}
