//! Several programs at once on one cache: runs of two states of a project, `gc`, `verify`, a reproduction; one
//! is killed now and then, and one is stopped for a while. And `gc` while another program stands still: `verify` at any of its
//! calls, a run where it has named files and not yet what they belong to. And a run while another one stands still, with locks
//! and without.

use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::check;
use crate::pool::{Random, each};
use crate::story::{self, Place, Story, program};
use crate::tracer::{Call, LONGEST, MOMENT, Verdict, Watcher, trace};
use crate::{Found, Setting};

/// Tries.
pub fn run(setting: &Setting) -> Found {
    let mut found = Found::default();
    let stories = story::all(setting);
    let rounds = setting.sized(2, 50, 1000);
    let programs = setting.sized(4, 8, 32);
    // A round at a time: the programs are the crowd.
    let trials = setting.part_of((0..rounds as u64).collect());
    // Every fourth on a disk without locks.
    let lockless = Setting {
        planted: Some("no-locks".to_owned()),
        ..setting.clone()
    };
    within_run(setting, &stories, &mut found);
    if setting.planted.is_none() {
        within_run(&lockless, &stories, &mut found);
    }
    let failures = each(setting, &trials, |trial| {
        let without = trial % 4 == 3 && setting.planted.is_none();
        let setting = if without { &lockless } else { setting };
        round(setting, &stories, programs, *trial)
            .map_err(|error| format!("round {trial}: {error}"))
    });
    found.add(
        trials.len(),
        format!("rounds of {programs} programs at once"),
        failures,
    );
    let told = |name: &str| stories.iter().find(|story| story.name == name);
    within_verify(setting, told("gc").expect("a story"), &mut found);
    within_keeping(setting, told("run").expect("a story"), &mut found);
    found
}

fn is_lockless(setting: &Setting) -> bool {
    let planted = setting.planted.as_deref();
    planted.is_some_and(|bugs| bugs.contains("no-locks"))
}

/// Another run goes as far as it can while one stands still: without locks the whole way. Both come out.
fn within_run(setting: &Setting, stories: &[Story], found: &mut Found) {
    let story = stories.iter().find(|story| story.name == "run");
    let story = story.expect("a story");
    let run = |place: &Place, at: usize| {
        let mut another = None;
        let begin = || {
            let run = program(setting, place.path(), &story::RUN)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            another = Some(work_for_a_while(run.expect("it starts")));
        };
        let mut meanwhile = Meanwhile {
            calls: 0,
            at,
            what: Box::new(begin),
        };
        let (arguments, variables) = (story.arguments(), story.variables(setting));
        let ended = trace(
            &setting.program,
            place.path(),
            &arguments,
            &variables,
            &mut meanwhile,
        );
        let calls = meanwhile.calls;
        drop(meanwhile);
        if let Some(mut another) = another {
            // Where it has ended already the tracer has seen it.
            let _ = another.wait();
        }
        (ended, calls)
    };
    let (_, all) = run(&story.place(setting), usize::MAX);
    let mut random = Random::new(setting.seed, 9998);
    let trials = (0..setting.sized(2, 30, 500)).map(|_| random.below(all));
    let trials = setting.part_of(trials.collect());
    let failures = each(setting, &trials, |at| {
        let place = story.place(setting);
        let (ended, _) = run(&place, *at);
        let whole = match ended.code {
            Some(0) => check::recovers(setting, place.path(), story, check::Allowed::Nothing),
            code => Err(format!("it ends with {code:?}: {}", ended.stderr)),
        };
        whole.map_err(|error| format!("another run at call {at} of {all}: {error}"))
    });
    found.add(trials.len(), "runs while another stood still", failures);
}

/// A run keeps what belongs together while `gc` waits.
fn within_keeping(setting: &Setting, story: &Story, found: &mut Found) {
    let trials = setting.part_of((0..story.truth.stages.len()).collect());
    let failures = each(setting, &trials, |stage| {
        let place = story.place(setting);
        let mut collector = Collector {
            setting,
            place: &place,
            left: *stage,
            gc: None,
        };
        let variables = story.variables(setting);
        let arguments = story.arguments();
        let ended = trace(
            &setting.program,
            place.path(),
            &arguments,
            &variables,
            &mut collector,
        );
        if let Some(gc) = &mut collector.gc {
            // Where it has ended already the tracer has seen it.
            let _ = gc.wait();
        }
        let whole = match ended.code {
            Some(0) => check::recovers(setting, place.path(), story, check::Allowed::Nothing),
            code => Err(format!("the run ends with {code:?}: {}", ended.stderr)),
        };
        whole.map_err(|error| format!("gc before action {stage} has its name: {error}"))
    });
    found.add(
        trials.len(),
        "times gc while a run kept an artifact",
        failures,
    );
}

/// Lets a program work until it ends, or as long as it should take: it may have to wait for the one that stands still.
fn work_for_a_while(mut program: Child) -> Child {
    for _ in 0..40 {
        if matches!(program.try_wait(), Ok(Some(_))) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    program
}

/// Starts `gc` before an action is named, and lets it work for a while if it does not wait.
struct Collector<'a> {
    setting: &'a Setting,
    place: &'a Place,
    left: usize,
    gc: Option<Child>,
}

impl Watcher for Collector<'_> {
    fn before(&mut self, call: &Call) -> Verdict {
        let shelf = self.place.path().join(".taper/actions");
        let names = call.name.starts_with("rename");
        if names && call.paths[1].starts_with(shelf) && self.gc.is_none() {
            if self.left > 0 {
                self.left -= 1;
                return Verdict::Go;
            }
            let gc = program(self.setting, self.place.path(), &["gc", "--max-size", "0"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("it starts");
            self.gc = Some(work_for_a_while(gc));
        }
        Verdict::Go
    }

    fn after(&mut self, _: &Call, _: i64) {}
}

/// What `gc` takes away while `verify` looks, and what a run then makes again, is nothing to tell of.
fn within_verify(setting: &Setting, story: &Story, found: &mut Found) {
    let verify = |place: &Place, meanwhile: &mut Meanwhile<'_>| {
        let variables = setting.variables();
        trace(
            &setting.program,
            place.path(),
            &["verify"],
            &variables,
            meanwhile,
        )
    };
    let place = story.place(setting);
    let mut nothing = Meanwhile {
        calls: 0,
        at: usize::MAX,
        what: Box::new(|| ()),
    };
    verify(&place, &mut nothing);
    let mut random = Random::new(setting.seed, 9999);
    let all = nothing.calls;
    let chosen: Vec<usize> = match setting.sized(3, 200, all) {
        count if count < all => (0..count).map(|_| random.below(all)).collect(),
        _ => (0..all).collect(),
    };
    let trials: Vec<_> = chosen.into_iter().enumerate().collect();
    let trials = setting.part_of(trials);
    let failures = each(setting, &trials, |(index, at)| {
        let place = story.place(setting);
        let made_again = index % 2 == 1;
        let collect = || {
            story::taper(setting, place.path(), &story.arguments());
            if made_again {
                story::taper(setting, place.path(), &story::RUN);
            }
        };
        let mut meanwhile = Meanwhile {
            calls: 0,
            at: *at,
            what: Box::new(collect),
        };
        let ended = verify(&place, &mut meanwhile);
        match ended.code {
            Some(0) => Ok(()),
            code => Err(format!(
                "verify with gc at call {at} of {all} (a run behind it: {made_again}) ends with {code:?}: {}{}",
                ended.stdout, ended.stderr
            )),
        }
    });
    found.add(trials.len(), "times gc while verify stood still", failures);
}

/// Does something while the program stands still before one of its calls.
struct Meanwhile<'a> {
    calls: usize,
    at: usize,
    what: Box<dyn FnMut() + 'a>,
}

impl Watcher for Meanwhile<'_> {
    fn before(&mut self, _: &Call) -> Verdict {
        if self.calls == self.at {
            (self.what)();
        }
        self.calls += 1;
        Verdict::Go
    }

    fn after(&mut self, _: &Call, _: i64) {}
}

struct Running {
    what: String,
    child: Child,
    harmed: bool,
}

fn round(setting: &Setting, stories: &[Story], programs: usize, trial: u64) -> Result<(), String> {
    let mut random = Random::new(setting.seed, 9000 + trial);
    let told = |name: &str| {
        let story = stories.iter().find(|story| story.name == name);
        story.ok_or_else(|| format!("no story {name}"))
    };
    let (one, two) = (told("cached run")?, told("edit and run")?);
    // Two work trees, as two people have them, and one cache.
    let (mine, theirs, shared) = (Place::new(), Place::new(), Place::new());
    story::write_project(mine.path());
    story::write_project(theirs.path());
    story::edit(theirs.path());
    let cache = shared.path().join("cache").display().to_string();
    let mut crowd: Vec<Running> = Vec::new();
    for index in 0..programs {
        let folder = [mine.path(), theirs.path()][index % 2];
        let arguments: &[&str] = match random.below(6) {
            0..=2 => &story::RUN,
            3 => &["gc", "--max-size", "0"],
            4 => &["verify"],
            _ => &["run", "p.yaml", "--json", "-q", "--force", "notes"],
        };
        let out = shared.path().join(format!("{index}.out"));
        let err = shared.path().join(format!("{index}.err"));
        let create = |path| std::fs::File::create(path).map(Stdio::from);
        let child = program(setting, folder, arguments)
            .env("TAPER_CACHE", &cache)
            .stdin(Stdio::null())
            .stdout(create(&out).map_err(|error| error.to_string())?)
            .stderr(create(&err).map_err(|error| error.to_string())?)
            .spawn()
            .map_err(|error| error.to_string())?;
        crowd.push(Running {
            what: format!("{index}: {}", arguments.join(" ")),
            child,
            harmed: false,
        });
        std::thread::sleep(Duration::from_millis(random.below(40) as u64));
        // One is killed now and then, one is stopped for a while.
        if random.once_in(3) {
            let victim = random.below(crowd.len());
            signal(&mut crowd[victim], Signal::SIGKILL);
        }
        if random.once_in(3) {
            let sleeper = random.below(crowd.len());
            let id = Pid::from_raw(crowd[sleeper].child.id() as i32);
            if kill(id, Signal::SIGSTOP).is_ok() {
                std::thread::sleep(Duration::from_millis(30));
                let _ = kill(id, Signal::SIGCONT);
            }
        }
    }
    for (index, running) in crowd.iter_mut().enumerate() {
        let code = wait(running)?;
        let said = ["out", "err"].map(|stream| {
            let path = shared.path().join(format!("{index}.{stream}"));
            fs_err::read_to_string(path).unwrap_or_default()
        });
        let said = said.concat();
        if said.contains("panicked") {
            return Err(format!("{}: {said}", running.what));
        }
        // What another took away is made again: nobody but the victim notices. Without locks `verify` may come between what
        // gc took away and its being made again.
        let is_told = is_lockless(setting) && running.what.ends_with("verify") && code == Some(4);
        if !running.harmed && code != Some(0) && !is_told {
            return Err(format!("{} ends with {code:?}: {said}", running.what));
        }
    }
    // With the cache that all that has left, both states come out as ever.
    for (place, story) in [(&mine, one), (&theirs, two)] {
        let ran = program(setting, place.path(), &story::RUN)
            .env("TAPER_CACHE", &cache)
            .output()
            .map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        if ran.status.code() != Some(0) || !said.contains(&story.truth.run) {
            let error = String::from_utf8_lossy(&ran.stderr);
            return Err(format!("afterwards {:?}: {said}{error}", ran.status));
        }
    }
    let store = taper_cache::Store::open(&cache).map_err(|error| error.to_string())?;
    let verification = store.verify(|_| ()).map_err(|error| error.to_string())?;
    match verification.findings.first() {
        Some(finding) => Err(format!("verify: {finding}")),
        None => Ok(()),
    }
}

fn signal(running: &mut Running, signal: Signal) {
    if matches!(running.child.try_wait(), Ok(None)) {
        running.harmed = true;
        let _ = kill(Pid::from_raw(running.child.id() as i32), signal);
    }
}

fn wait(running: &mut Running) -> Result<Option<i32>, String> {
    const LOOK: Duration = Duration::from_millis(2);
    // As many looks as a trial has time: while all are held still, none go by.
    let mut left = LONGEST * u32::try_from(MOMENT.as_millis() / LOOK.as_millis()).expect("small");
    loop {
        match running
            .child
            .try_wait()
            .map_err(|error| error.to_string())?
        {
            Some(status) => return Ok(status.code()),
            None if left == 0 => {
                let _ = running.child.kill();
                let _ = running.child.wait();
                return Err(format!("{} hangs", running.what));
            }
            None => {
                left -= 1;
                std::thread::sleep(LOOK);
            }
        }
    }
}
