//! The power cut: what the program did is written down, and at each point of it what was not synced is lost,
//! whole or in part, names included. Then the program finds what is left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::check::{self, Allowed};
use crate::disk::{Disk, Event, Loss, Scribe, lay_out};
use crate::pool::{Random, each};
use crate::story::{self, Place, Story};
use crate::tracer::trace;
use crate::{Found, Setting};

/// What happened in a story.
struct History<'s> {
    story: &'s Story,
    start: Disk,
    events: Vec<Event>,
    ended_well: bool,
}

/// Tries.
pub fn run(setting: &Setting) -> Found {
    let stories = story::all(setting);
    let mut found = Found::default();
    let mut histories = Vec::new();
    for story in &stories {
        match write_down(setting, story) {
            Ok(history) => histories.push(history),
            Err(error) => found.failures.push(format!("{}: {error}", story.name)),
        }
    }
    let recorded = histories.iter().filter(|history| history.story.recorded);
    for history in recorded {
        let less = less_than_promised(history);
        let less = less.map(|what| format!("{}: {what}", history.story.name));
        found.failures.extend(less);
    }
    if setting.until_first && !found.failures.is_empty() {
        return found;
    }
    let trials = choose(setting, &histories, setting.sized(60, 5000, 200_000));
    let trials = setting.part_of(trials);
    let failures = each(setting, &trials, |trial| {
        once(setting, trial).map_err(|error| trial.told(error))
    });
    found.add(trials.len(), "states after a power cut", failures);
    without_one_sync(setting, &histories, &mut found);
    found
}

fn write_down<'s>(setting: &Setting, story: &'s Story) -> Result<History<'s>, String> {
    let place = story.place(setting);
    let mut scribe = Scribe::new(place.path());
    // One stage at a time: what is written down is in the order in which it happened.
    let mut arguments = story.arguments();
    if let Some(jobs) = arguments.iter().position(|word| *word == "--jobs") {
        arguments[jobs + 1] = "1";
    }
    let ended = trace(
        &setting.program,
        place.path(),
        &arguments,
        &story.variables(setting),
        &mut scribe,
    );
    scribe.agrees()?;
    Ok(History {
        story,
        start: scribe.start,
        events: scribe.events,
        ended_well: ended.code == Some(0),
    })
}

/// A point in a history, and what is lost there.
struct Trial<'h> {
    history: &'h History<'h>,
    events: usize,
    loss: Loss,
    seed: u64,
}

impl Trial<'_> {
    fn told(&self, error: String) -> String {
        format!(
            "{}, power cut after {} of {} changes, lost {:?} (seed {}): {error}",
            self.history.story.name,
            self.events,
            self.history.events.len(),
            self.loss,
            self.seed
        )
    }

    /// What is left; nothing in the cache has a name and is not whole.
    fn survivors(&self) -> Result<BTreeMap<PathBuf, Option<Vec<u8>>>, String> {
        let mut disk = self.history.start.clone();
        for event in &self.history.events[..self.events] {
            disk.apply(event);
        }
        let left = disk.left_after(self.loss, &mut Random::new(self.seed, 0));
        let is_kept_torn = |path: &&PathBuf| path.starts_with(".taper") && is_kept(path);
        match left.torn.iter().find(is_kept_torn) {
            Some(path) => Err(format!("{} has its name and is torn", path.display())),
            None => Ok(left
                .files
                .into_iter()
                .filter(|(path, _)| !is_memory(path))
                .collect()),
        }
    }
}

fn choose<'h>(setting: &Setting, histories: &'h [History<'h>], count: usize) -> Vec<Trial<'h>> {
    let mut random = Random::new(setting.seed, 2);
    let all: usize = histories
        .iter()
        .map(|history| history.events.len() + 1)
        .sum();
    let mut trials = Vec::new();
    for index in 0..count {
        let mut point = if count < all {
            random.below(all)
        } else {
            index % all
        };
        let Some(history) = histories.iter().find(|history| {
            let length = history.events.len() + 1;
            let here = point < length;
            if !here {
                point -= length;
            }
            here
        }) else {
            continue;
        };
        trials.push(Trial {
            history,
            // What is promised at the end is asked for more often than its share.
            events: if random.once_in(10) {
                history.events.len()
            } else {
                point
            },
            loss: match random.below(10) {
                0 => Loss::All,
                1 => Loss::Names,
                2 => Loss::Contents,
                3 => Loss::None,
                _ => Loss::Chance,
            },
            seed: random.next(),
        });
    }
    trials
}

fn once(setting: &Setting, trial: &Trial<'_>) -> Result<(), String> {
    let (history, story) = (trial.history, trial.history.story);
    let place = Place::new();
    lay_out(&trial.survivors()?, place.path());
    let is_over = trial.events == history.events.len() && history.ended_well;
    if is_over && story.recorded {
        check::is_complete(setting, place.path(), story)?;
    }
    let allowed = match Allowed::after(story) {
        Allowed::Nothing => Allowed::Missing,
        other => other,
    };
    check::recovers(setting, place.path(), story, allowed)
}

/// Leaves out each sync of each run, and moves it behind the next name that is given: something must then be lost
/// or torn somewhere. A sync of which nobody would notice that it is not there, or late, would be one too many. Those of
/// unfinished work save work only.
fn without_one_sync(setting: &Setting, histories: &[History<'_>], found: &mut Found) {
    let mut trials = Vec::new();
    for history in histories.iter().filter(|history| history.story.recorded) {
        for (index, event) in history.events.iter().enumerate() {
            let syncs = matches!(
                event,
                Event::SyncFile(_) | Event::SyncFolder(_) | Event::SyncAll
            );
            if syncs && !is_unfinished(history, event) {
                trials.push((history, index, Fault::LeftOut));
                // The last ones are for the end: there is no name behind them.
                let late = too_late(history, index);
                trials.extend(late.map(|after| (history, index, Fault::Behind(after))));
            }
        }
    }
    let failures = each(setting, &trials, |(history, sync, fault)| {
        let mut events = history.events.clone();
        let event = events.remove(*sync);
        if let Fault::Behind(after) = *fault {
            events.insert(after, event);
        }
        let faulty = History {
            story: history.story,
            start: history.start.clone(),
            events,
            ended_well: history.ended_well,
        };
        if less_than_promised(&faulty).is_some() {
            return Ok(());
        }
        Err(format!(
            "{}: nobody notices that {} is {fault:?}",
            history.story.name,
            describe(history, *sync)
        ))
    });
    let what = "syncs left out, or moved behind the next name, one at a time";
    found.add(trials.len(), what, failures);
}

/// The change behind which a sync is too late: the file gets its name; any file does; what it has done is recorded.
fn too_late(history: &History<'_>, sync: usize) -> Option<usize> {
    let mut disk = history.start.clone();
    for (index, event) in history.events.iter().enumerate() {
        if index > sync
            && let Event::Name(folder, changes) = event
            && let Some(folder) = disk.path_of(*folder)
        {
            let mut named = changes.iter().filter_map(|(name, id)| Some((name, (*id)?)));
            let is_promise = named.any(|(name, id)| {
                let is_meant = match history.events[sync] {
                    Event::SyncFile(file) => file == id,
                    Event::SyncFolder(_) => points_back(event),
                    _ => disk.is_file(id),
                };
                is_meant && is_promised(&folder.join(name))
            });
            if is_promise {
                return Some(index);
            }
        }
        disk.apply(event);
    }
    None
}

/// What is done to a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    LeftOut,
    Behind(usize),
}

/// Where a power cut leaves less than was promised: a torn file under its name in the cache or in the work tree, or
/// something missing behind a record of it, or after the end.
fn less_than_promised(history: &History<'_>) -> Option<String> {
    let mut disk = history.start.clone();
    let mut random = Random::new(0, 0);
    let changes = history.events.len();
    for (index, event) in history.events.iter().enumerate() {
        // The lock is named beside the run's record: neither tells of the other.
        let counts = |path: &PathBuf| path != "p.lock" || is_execution(event);
        if points_back(event)
            && let Some(path) = less(&disk).into_iter().find(counts)
        {
            let path = path.display();
            return Some(format!(
                "{path} is not on the disk when change {index} of {changes} records it"
            ));
        }
        disk.apply(event);
        if !matches!(event, Event::Name(..)) {
            continue;
        }
        let torn = disk.left_after(Loss::Contents, &mut random).torn;
        if let Some(path) = torn.iter().find(|path| is_kept(path)) {
            let path = path.display();
            return Some(format!(
                "{path} has its name at change {index} of {changes} and may be torn"
            ));
        }
    }
    let path = less(&disk).into_iter().next()?;
    Some(format!("{} is not on the disk at the end", path.display()))
}

/// Whether a name is given to a record of what has been done: all of that has to be on the disk by then.
fn points_back(event: &Event) -> bool {
    is_execution(event) || gives_name(event, |name| name.ends_with(".run") || name == "p.lock")
}

/// Whether a name is given to the record of an execution, the last of all.
fn is_execution(event: &Event) -> bool {
    gives_name(event, |name| {
        name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn gives_name(event: &Event, is_meant: impl Fn(&str) -> bool) -> bool {
    let Event::Name(_, changes) = event else {
        return false;
    };
    let mut given = changes.iter().filter(|(_, id)| id.is_some());
    given.any(|(name, _)| is_meant(name))
}

/// What is promised and would not outlive the end of the power.
fn less(disk: &Disk) -> Vec<PathBuf> {
    let mut random = Random::new(0, 0);
    let now = disk.survivors(Loss::None, &mut random);
    let left = disk.survivors(Loss::All, &mut random);
    now.into_iter()
        .filter(|(path, bytes)| bytes.is_some() && is_promised(path))
        .filter(|(path, bytes)| left.get(path) != Some(bytes))
        .map(|(path, _)| path)
        .collect()
}

/// Whether a sync is about a checkpoint: its files are named `writing-…` first, in a folder named by a key.
fn is_unfinished(history: &History<'_>, sync: &Event) -> bool {
    let (Event::SyncFile(wanted) | Event::SyncFolder(wanted)) = sync else {
        return false;
    };
    let is_writing = |name: &String| name.starts_with("writing-");
    history.events.iter().any(|event| match event {
        Event::Name(folder, changes) => changes
            .iter()
            .any(|(name, id)| is_writing(name) && (folder == wanted || *id == Some(*wanted))),
        _ => false,
    })
}

/// Whether what lies here is of one boot of the machine: none is read after a power cut.
fn is_memory(path: &Path) -> bool {
    is_below(path, &["memories"])
}

/// Whether what lies here is more than work in progress: then it is whole, or not there. What a cache begins with is the
/// same in each: where it is torn it is written again.
fn is_kept(path: &Path) -> bool {
    const PASSING: [&str; 5] = ["staging", "locks", "scratch", "records", "memories"];
    const FIRST: [&str; 3] = ["CACHEDIR.TAG", ".gitignore", "format"];
    !is_below(path, &PASSING) && !is_below(path, &FIRST)
}

/// Whether what lies here may not even be missing.
fn is_promised(path: &Path) -> bool {
    is_kept(path) && !is_below(path, &["index"])
}

fn is_below(path: &Path, shelves: &[&str]) -> bool {
    let mut parts = path.iter();
    let in_cache = parts.next() == Some(".taper".as_ref());
    in_cache
        && parts
            .next()
            .is_some_and(|shelf| shelves.iter().any(|name| shelf == *name))
}

/// Which sync it is, by the last name of what it is about.
fn describe(history: &History<'_>, sync: usize) -> String {
    let (Event::SyncFile(id) | Event::SyncFolder(id)) = &history.events[sync] else {
        return format!("the sync of everything at change {sync}");
    };
    let names = history.events.iter().filter_map(|event| match event {
        Event::Name(_, changes) => changes
            .iter()
            .find(|(_, named)| *named == Some(*id))
            .map(|(name, _)| name.as_str()),
        _ => None,
    });
    format!(
        "{:?} of {:?}",
        history.events[sync],
        names.collect::<Vec<_>>()
    )
}
