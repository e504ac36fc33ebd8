//! Killed at each system call that changes something, and killed again while it recovers.

use crate::check::{self, Allowed};
use crate::pool::{Random, each};
use crate::story::{self, Place, RUN, Story};
use crate::tracer::{Call, Ended, Verdict, Watcher, trace};
use crate::{Found, Setting};

/// Tries.
pub fn run(setting: &Setting) -> Found {
    let stories = story::all(setting);
    let mut found = Found::default();
    let mut trials = Vec::new();
    for story in &stories {
        let calls = count(setting, story);
        let limit = setting.sized(6, 2000, usize::MAX);
        trials.extend(spread(calls, limit).map(|at| (story, at)));
    }
    let all = trials.clone();
    let trials = setting.part_of(trials);
    let failures = each(setting, &trials, |(story, at)| once(setting, story, *at));
    found.add(trials.len(), "kills at a system call", failures);

    let mut random = Random::new(setting.seed, 0);
    let again: Vec<_> = (0..setting.sized(6, 300, 10_000))
        .map(|_| {
            let (story, at) = all[random.below(all.len())];
            (story, at, random.below(400) + 1)
        })
        .collect();
    let again = setting.part_of(again);
    let failures = each(setting, &again, |(story, at, second)| {
        twice(setting, story, *at, *second)
    });
    found.add(again.len(), "killed again while recovering", failures);
    found
}

/// The calls of a story that change something.
pub fn count(setting: &Setting, story: &Story) -> usize {
    let place = story.place(setting);
    let mut killer = Killer::at(usize::MAX);
    trace(
        &setting.program,
        place.path(),
        &story.arguments(),
        &story.variables(setting),
        &mut killer,
    );
    killer.seen
}

/// At most `limit` of the numbers from 1 to `count`, evenly.
pub fn spread(count: usize, limit: usize) -> impl Iterator<Item = usize> {
    let taken = count.min(limit);
    (0..taken).map(move |index| 1 + index * count / taken.max(1))
}

fn once(setting: &Setting, story: &Story, at: usize) -> Result<(), String> {
    let place = story.place(setting);
    let told = kill_at(setting, &place, story, &story.arguments(), at);
    let told = told.map_err(|error| format!("{}, killed at {at}: {error}", story.name))?;
    check::recovers(setting, place.path(), story, Allowed::after(story))
        .map_err(|error| format!("{}, killed at {at}, {told}: {error}", story.name))
}

fn twice(setting: &Setting, story: &Story, at: usize, second: usize) -> Result<(), String> {
    let place = story.place(setting);
    let told = |error| format!("{}, killed at {at} and {second}: {error}", story.name);
    kill_at(setting, &place, story, &story.arguments(), at).map_err(told)?;
    kill_at(setting, &place, story, &RUN, second).map_err(told)?;
    check::recovers(setting, place.path(), story, Allowed::after(story)).map_err(told)
}

/// Kills the program at a call; which it was.
fn kill_at(
    setting: &Setting,
    place: &Place,
    story: &Story,
    arguments: &[&str],
    at: usize,
) -> Result<String, String> {
    let mut killer = Killer::at(at);
    let ended = trace(
        &setting.program,
        place.path(),
        arguments,
        &story.variables(setting),
        &mut killer,
    );
    is_over(&ended)?;
    Ok(killer.told)
}

/// Whether nothing of the program lives on.
///
/// # Errors
/// What does.
pub fn is_over(ended: &Ended) -> Result<(), String> {
    if ended.hung {
        return Err(format!("it hangs: {}", ended.stderr));
    }
    if let Some(call) = ended.later.first() {
        return Err(format!("a child went on after its end: {call}"));
    }
    match ended.left {
        0 => Ok(()),
        left => Err(format!("{left} children live on")),
    }
}

struct Killer {
    at: usize,
    seen: usize,
    told: String,
}

impl Killer {
    fn at(at: usize) -> Self {
        Self {
            at,
            seen: 0,
            told: "not reached".to_owned(),
        }
    }
}

impl Watcher for Killer {
    fn before(&mut self, call: &Call) -> Verdict {
        if !call.changes {
            return Verdict::Go;
        }
        self.seen += 1;
        if self.seen != self.at {
            return Verdict::Go;
        }
        self.told = format!("{} {:?}", call.name, call.paths);
        Verdict::Kill
    }

    fn after(&mut self, _: &Call, _: i64) {}
}
