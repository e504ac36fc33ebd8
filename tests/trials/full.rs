//! A disk without room: of each size in steps, and with each number of files that it may hold.
//!
//! The disk is a small one in memory, in a name space of its own. The program has to end with a word and
//! without a loss, `gc` has to work with no byte free, and when there is room the run goes on.

use std::path::Path;
use std::process::Command;

use crate::check::{self, Allowed};
use crate::pool::each;
use crate::story::{self, Place, Story};
use crate::{Found, Setting};

/// Mounts a small disk, brings the project there, runs, collects, makes room, runs again, and brings back what
/// each left behind.
const SCRIPT: &str = r#"
mount -t tmpfs -o "$OPTIONS" trial "$DISK" || exit 99
cd "$DISK"
tar xf "$START/project.tar" 2>/dev/null || exit 98
"$PROGRAM" run p.yaml --json -q >"$BACK/run.out" 2>"$BACK/run.err"; echo $? >"$BACK/run.code"
"$PROGRAM" gc >"$BACK/gc.out" 2>"$BACK/gc.err"; echo $? >"$BACK/gc.code"
tar cf "$BACK/after.tar" .
"#;

/// Tries.
pub fn run(setting: &Setting) -> Found {
    let mut found = Found::default();
    let works = Command::new("unshare")
        .args(["-Urm", "sh", "-c", "mount -t tmpfs -o size=64k trial /mnt"])
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        println!(
            "full: this machine lets nobody mount a disk in a name space of its own: not tried"
        );
        return found;
    }
    let stories = story::all(setting);
    let told = |name: &str| stories.iter().find(|story| story.name == name);
    let (Some(fresh), Some(edited)) = (told("run"), told("edit and run")) else {
        return found;
    };
    let mut trials = Vec::new();
    let count = setting.sized(2, 60, 400);
    for story in [fresh, edited] {
        let (bytes, files) = needs(setting, story);
        // From what the project itself takes up to where the run ends well.
        let steps = (bytes.1 - bytes.0).div_ceil(4096).max(1);
        let every = steps.div_ceil(count / 2).max(1);
        for step in (0..=steps).step_by(every) {
            let size = bytes.0 + step * 4096;
            trials.push((story, format!("size={size},nr_inodes=100000")));
        }
        let every = (files.1 - files.0).div_ceil(count / 2).max(1);
        for inodes in (files.0..=files.1).step_by(every) {
            trials.push((story, format!("size=64m,nr_inodes={inodes}")));
        }
    }
    let failures = each(setting, &trials, |(story, options)| {
        once(setting, story, options).map_err(|error| format!("{}, {options}: {error}", story.name))
    });
    found.add(trials.len(), "disks without room", failures);
    found
}

/// The bytes and the files that a project takes before and after its run.
fn needs(setting: &Setting, story: &Story) -> ((usize, usize), (usize, usize)) {
    let honest = Setting {
        planted: None,
        ..setting.clone()
    };
    let place = Place::copy_of(&story.start);
    let before = takes(place.path());
    let _ = story::run(&honest, place.path());
    let after = takes(place.path());
    // What is written before it is moved takes room for a while.
    ((before.0, after.0 + (128 << 10)), (before.1, after.1 + 40))
}

fn takes(folder: &Path) -> (usize, usize) {
    let mut bytes = 0;
    let mut files = 2;
    for entry in fs_err::read_dir(folder).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            let below = takes(&path);
            bytes += below.0;
            files += below.1;
        } else {
            let size = path.metadata().map_or(0, |found| found.len() as usize);
            bytes += size.div_ceil(4096) * 4096;
            files += 1;
        }
    }
    (bytes, files)
}

fn once(setting: &Setting, story: &Story, options: &str) -> Result<(), String> {
    let (disk, back, start) = (Place::new(), Place::new(), Place::new());
    let packed = Command::new("tar")
        .arg("cf")
        .arg(start.path().join("project.tar"))
        .arg("-C")
        .arg(story.start.path())
        .arg(".")
        .status();
    packed.map_err(|error| error.to_string())?;
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", SCRIPT])
        .env("OPTIONS", options)
        .env("DISK", disk.path())
        .env("START", start.path())
        .env("BACK", back.path())
        .env("PROGRAM", &setting.program)
        .env("RUST_BACKTRACE", "0")
        .envs(setting.variables())
        .output()
        .map_err(|error| error.to_string())?;
    match output.status.code() {
        // The project itself does not fit.
        Some(98) => return Ok(()),
        Some(0) => {}
        code => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("the trial ends with {code:?}: {said}"));
        }
    }
    let read = |name: &str| fs_err::read_to_string(back.path().join(name)).unwrap_or_default();
    let said = read("run.err");
    if said.contains("panicked") {
        return Err(said);
    }
    let works = matches!(read("run.code").trim(), "0" | "1" | "4");
    if !works {
        return Err(format!("it ends with {}: {said}", read("run.code")));
    }
    if read("gc.code").trim() != "0" {
        return Err(format!(
            "gc ends with {}: {}",
            read("gc.code"),
            read("gc.err")
        ));
    }
    let after = Place::new();
    let unpacked = Command::new("tar")
        .arg("xf")
        .arg(back.path().join("after.tar"))
        .arg("-C")
        .arg(after.path())
        .status();
    unpacked.map_err(|error| error.to_string())?;
    match read("run.code").trim() {
        "0" => check::is_complete(setting, after.path(), story)?,
        _ if said.trim().is_empty() && read("run.out").trim().is_empty() => {
            return Err("it ends without a word".to_owned());
        }
        _ => {}
    }
    check::recovers(setting, after.path(), story, Allowed::Nothing)
}
