//! Each system call refused: once, or from then on.

use crate::check::{self, Allowed};
use crate::kill::{is_over, spread};
use crate::pool::{Random, each};
use crate::story::{self, Place, Story};
use crate::tracer::{Call, Verdict, Watcher, trace};
use crate::{Found, Setting};

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use nix::libc;

const ERRORS: [(i32, &str); 8] = [
    (libc::ENOSPC, "ENOSPC"),
    (libc::EIO, "EIO"),
    (libc::EDQUOT, "EDQUOT"),
    (libc::EMFILE, "EMFILE"),
    (libc::EACCES, "EACCES"),
    (libc::EROFS, "EROFS"),
    (libc::EINTR, "EINTR"),
    (libc::ENOMEM, "ENOMEM"),
];

/// Tries.
pub fn run(setting: &Setting) -> Found {
    let stories = story::all(setting);
    let mut found = Found::default();
    let mut trials = Vec::new();
    let mut names = BTreeMap::new();
    for story in &stories {
        let mut refuser = Refuser::new(usize::MAX, 0, Lasting::Once);
        attempt(setting, story, &mut refuser);
        for at in spread(refuser.names.len(), usize::MAX) {
            for error in ERRORS {
                for lasting in [Lasting::Once, Lasting::Forever] {
                    // It asks to be tried again: without an end, nothing can but try without an end.
                    if (error.0, lasting) != (libc::EINTR, Lasting::Forever) {
                        trials.push((story, at, error, lasting));
                    }
                }
            }
        }
        names.insert(story.name, refuser.names);
    }
    let wanted = setting.sized(20, 3000, usize::MAX);
    if wanted < trials.len() {
        let mut random = Random::new(setting.seed, 1);
        for index in 0..trials.len() {
            let other = index + random.below(trials.len() - index);
            trials.swap(index, other);
        }
        // Of each call of a story one, then of each a second, and so on: most calls are reads.
        let mut taken = BTreeMap::new();
        trials.sort_by_cached_key(|(story, at, _, lasting)| {
            let call = (story.name, names[story.name][at - 1], *lasting);
            let before = taken.entry(call).or_insert(0_usize);
            *before += 1;
            *before
        });
        trials.truncate(wanted);
    }
    let trials = setting.part_of(trials);
    let failures = each(setting, &trials, |trial| once(setting, trial));
    found.add(trials.len(), "errors of a system call", failures);
    found
}

/// How long a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lasting {
    Once,
    /// This one, and every one of the same name after it.
    Forever,
}

type Trial<'s> = (&'s Story, usize, (i32, &'static str), Lasting);

fn attempt(
    setting: &Setting,
    story: &Story,
    refuser: &mut Refuser,
) -> (Place, crate::tracer::Ended) {
    let place = story.place(setting);
    let ended = trace(
        &setting.program,
        place.path(),
        &story.arguments(),
        &story.variables(setting),
        refuser,
    );
    (place, ended)
}

fn once(setting: &Setting, (story, at, error, lasting): &Trial<'_>) -> Result<(), String> {
    let mut refuser = Refuser::new(*at, error.0, *lasting);
    let (place, ended) = attempt(setting, story, &mut refuser);
    let told = |what: String| {
        format!(
            "{}, {} at {at} {lasting:?}, {}: {what}",
            story.name, error.1, refuser.told
        )
    };
    is_over(&ended).map_err(told)?;
    if let Some(trusted) = &refuser.trusted {
        return Err(told(trusted.clone()));
    }
    let folder_unsynced = refuser.unsynced.iter().any(|path| path.is_dir());
    if folder_unsynced && ended.code == Some(0) {
        return Err(told(
            "exit code 0 without the names being durable".to_owned(),
        ));
    }
    let says = ended.stderr.trim();
    match ended.code {
        None => return Err(told(format!("it crashed: {says}"))),
        Some(0) if story.recorded => {
            check::is_complete(setting, place.path(), story)
                .map_err(|error| told(format!("exit code 0, and {error}")))?;
        }
        Some(0) => {}
        Some(_) if says.contains("panicked") => return Err(told(says.to_owned())),
        Some(code) if says.is_empty() && ended.stdout.trim().is_empty() => {
            return Err(told(format!("exit code {code} without a word")));
        }
        Some(_) => {}
    }
    check::recovers(setting, place.path(), story, Allowed::after(story)).map_err(told)
}

struct Refuser {
    at: usize,
    errno: i32,
    lasting: Lasting,
    /// The names of the calls so far.
    names: Vec<&'static str>,
    told: String,
    /// Files and folders of which a sync was refused.
    unsynced: BTreeSet<PathBuf>,
    /// What was done with one of them afterwards.
    trusted: Option<String>,
}

impl Refuser {
    fn new(at: usize, errno: i32, lasting: Lasting) -> Self {
        Self {
            at,
            errno,
            lasting,
            names: Vec::new(),
            told: "not reached".to_owned(),
            unsynced: BTreeSet::new(),
            trusted: None,
        }
    }
}

impl Watcher for Refuser {
    fn before(&mut self, call: &Call) -> Verdict {
        // What becomes of the system's own bookkeeping of processes is tried elsewhere.
        if !call.own || matches!(call.name, "prctl" | "setpgid" | "execve") {
            return Verdict::Go;
        }
        // What the system could not write it may have forgotten: a second sync would mean nothing.
        let syncs = matches!(call.name, "fsync" | "fdatasync" | "syncfs");
        let renames = call.name.starts_with("rename");
        if let Some(path) = call.paths.first()
            && (syncs || renames)
            && self.unsynced.contains(path)
        {
            self.trusted = Some(format!(
                "{} {:?} after its sync had failed",
                call.name, call.paths
            ));
        }
        self.names.push(call.name);
        if self.names.len() == self.at {
            // An interrupted sync has not failed: it is made again.
            if syncs && self.errno != libc::EINTR {
                self.unsynced.extend(call.paths.iter().cloned());
            }
            self.told = format!("{} {:?}", call.name, call.paths);
            return Verdict::Fail(self.errno);
        }
        let refused = self.at.checked_sub(1).and_then(|at| self.names.get(at));
        if self.lasting == Lasting::Forever && refused == Some(&call.name) {
            return Verdict::Fail(self.errno);
        }
        Verdict::Go
    }

    fn after(&mut self, _: &Call, _: i64) {}
}
