//! Other disks than one's own: one that nobody may write to, as a cache copied there by somebody else is; and one that
//! has no locks, as some networks have.
//!
//! Whoever only looks writes nothing and takes no lock; a run of what is there is served. A run of what is not there
//! ends with a word. Without locks everything comes out as ever.

use std::collections::BTreeSet;

use nix::libc;

use crate::check;
use crate::kill::is_over;
use crate::pool::each;
use crate::story::{self, Condition, Place, RUN, Story};
use crate::tracer::{Call, Ended, Verdict, Watcher, trace};
use crate::{Found, Setting};

/// Tries.
pub fn run(setting: &Setting) -> Found {
    let mut found = Found::default();
    let stories = story::all(setting);
    let told = |name: &str| stories.iter().find(|story| story.name == name);
    let (Some(one), Some(two)) = (told("run"), told("edit and run")) else {
        return found;
    };
    let place = Place::copy_of(&two.start);
    story::run(setting, place.path()).expect("the pipeline runs");
    let looks = looks(&one.truth.run, &two.truth.run);
    let failures = each(setting, &looks, |arguments| {
        looks_only(setting, &place, arguments)
            .map_err(|error| format!("{}: {error}", arguments.join(" ")))
    });
    found.add(looks.len(), "commands that only look", failures);

    let failures = each(setting, &stories, |story| {
        refused(setting, story).map_err(|error| format!("{}, read-only: {error}", story.name))
    });
    found.add(stories.len(), "stories on a read-only disk", failures);

    let mut trials = Vec::new();
    for story in &stories {
        trials.extend([libc::ENOLCK, libc::EOPNOTSUPP].map(|errno| (story, errno)));
    }
    let failures = each(setting, &trials, |(story, errno)| {
        without_locks(setting, story, *errno)
            .map_err(|error| format!("{}, no locks ({errno}): {error}", story.name))
    });
    found.add(trials.len(), "stories on a disk without locks", failures);
    found
}

/// What only looks at the runs `one` and `two`, or serves what is there.
fn looks<'r>(one: &'r str, two: &'r str) -> Vec<Vec<&'r str>> {
    vec![
        vec!["log"],
        vec!["log", "--json"],
        vec!["show", one],
        vec!["show", two, "--json"],
        vec!["compare", one, two],
        vec!["diff", one, two],
        vec!["verify"],
        vec!["check", "p.yaml"],
        vec!["graph", "p.yaml"],
        vec!["plan", "p.yaml"],
        vec!["explain", "p.yaml", "scores"],
        vec!["cat", "p.yaml:again"],
        vec!["gc", "--dry-run"],
        vec!["run", "p.yaml", "--dry-run"],
        RUN.to_vec(),
    ]
}

/// On a disk that may not be written to, a command answers as it does elsewhere, and tries to change nothing.
fn looks_only(setting: &Setting, place: &Place, arguments: &[&str]) -> Result<(), String> {
    let copied = Place::copy_of(place);
    let mut wall = Wall::against(libc::EROFS, |_| true);
    let ended = attempt(setting, &copied, arguments, &setting.variables(), &mut wall);
    is_over(&ended)?;
    if ended.code != Some(0) {
        return Err(format!(
            "ends with {:?}: {}{}",
            ended.code, ended.stdout, ended.stderr
        ));
    }
    let writable = Place::copy_of(place);
    let usual = story::taper(setting, writable.path(), arguments);
    let here = (ended.stdout + &ended.stderr).replace(&shown(&copied), "");
    let usual = (usual.stdout + &usual.stderr).replace(&shown(&writable), "");
    if !told_alike(&here, &usual) {
        return Err(format!("{here} instead of {usual}"));
    }
    match wall.refused.first() {
        // A run notes for next time that nothing has changed, where it can.
        Some(call) if arguments != RUN => Err(format!("it tries to {call}")),
        _ => Ok(()),
    }
}

fn shown(place: &Place) -> String {
    place.path().display().to_string()
}

/// Whether two answers are the same but for the time that they took.
fn told_alike(one: &str, two: &str) -> bool {
    let without = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains("seconds"));
        lines.map(str::to_owned).collect()
    };
    without(one) == without(two) || one.starts_with('{')
}

/// On a disk that may not be written to, a story ends with a word; and nothing is different afterwards.
fn refused(setting: &Setting, story: &Story) -> Result<(), String> {
    let place = story.place(setting);
    let mut wall = Wall::against(libc::EROFS, |_| true);
    let arguments = story.arguments();
    let ended = attempt(
        setting,
        &place,
        &arguments,
        &story.variables(setting),
        &mut wall,
    );
    is_over(&ended)?;
    let says = ended.stderr.trim();
    if says.contains("panicked") {
        return Err(says.to_owned());
    }
    let served = ended.code == Some(0) && !story.recorded;
    let nothing_to_do = story.truth.files == story::files(place.path());
    match ended.code {
        Some(0) if served || nothing_to_do => {}
        Some(1 | 4) if !says.is_empty() || !ended.stdout.trim().is_empty() => {}
        code => return Err(format!("ends with {code:?}: {}{says}", ended.stdout)),
    }
    // What cannot be repaired is told all the same.
    if story.name == "verify" && !ended.stdout.contains("is missing") {
        return Err(format!("not all is told: {}{says}", ended.stdout));
    }
    check::recovers(setting, place.path(), story, check::Allowed::after(story))
}

/// On a disk without locks a story ends as it does elsewhere, and what it leaves is as good.
fn without_locks(setting: &Setting, story: &Story, errno: i32) -> Result<(), String> {
    let place = story.place(setting);
    let mut wall = Wall::against(errno, |call| call.name == "flock");
    let arguments = story.arguments();
    let variables = story.variables(setting);
    let ended = attempt(setting, &place, &arguments, &variables, &mut wall);
    is_over(&ended)?;
    let usual = story.place(setting);
    let usual = story::program(setting, usual.path(), &arguments)
        .envs(variables)
        .output()
        .map_err(|error| error.to_string())?;
    if ended.code != usual.status.code() {
        return Err(format!("ends with {:?}: {}", ended.code, ended.stderr));
    }
    if story.recorded {
        check::is_complete(setting, place.path(), story)?;
    }
    let left = place.path().join(".taper/locks");
    let left: BTreeSet<_> = fs_err::read_dir(left)
        .map_err(|error| error.to_string())?
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| name != "store")
        .collect();
    if !left.is_empty() && story.condition == Condition::Whole {
        return Err(format!("{left:?} are left in `locks`"));
    }
    check::recovers(setting, place.path(), story, check::Allowed::after(story))
}

fn attempt(
    setting: &Setting,
    place: &Place,
    arguments: &[&str],
    variables: &crate::Variables,
    wall: &mut Wall,
) -> Ended {
    trace(&setting.program, place.path(), arguments, variables, wall)
}

/// Refuses all changes of some kind.
struct Wall {
    errno: i32,
    is_meant: fn(&Call) -> bool,
    /// What it refused.
    refused: Vec<String>,
}

impl Wall {
    fn against(errno: i32, is_meant: fn(&Call) -> bool) -> Self {
        Self {
            errno,
            is_meant,
            refused: Vec::new(),
        }
    }
}

impl Watcher for Wall {
    fn before(&mut self, call: &Call) -> Verdict {
        // Without a path it is about processes; and what is there is there on any disk.
        let is_there = || call.name.starts_with("mkdir") && call.paths[0].exists();
        if !call.changes || call.paths.is_empty() || !(self.is_meant)(call) || is_there() {
            return Verdict::Go;
        }
        self.refused.push(format!("{} {:?}", call.name, call.paths));
        // Locks do not ask whether a disk may be written to.
        match (call.name, self.errno) {
            ("flock", libc::EROFS) => Verdict::Go,
            _ => Verdict::Fail(self.errno),
        }
    }

    fn after(&mut self, _: &Call, _: i64) {}
}
