//! Trials of the whole program: killed, refused by the system, cut off from power, crowded, edited under its
//! hands. Each suite counts what it tried, prints its seed, and ends with "nothing lost, nothing wrong served".
//!
//!     cargo test --test trials                  # every suite, a few trials each
//!     cargo test --test trials -- kill          # one suite, as continuous integration runs it
//!     cargo test --test trials -- kill --full   # at length
//!     cargo test --test trials -- power --seed 7
//!     cargo test --test trials -- errors --full --part 2/40   # what takes long, piece by piece

#![expect(clippy::print_stdout, reason = "what was tried is told")]

mod check;
mod crowd;
mod disk;
mod edit;
mod elsewhere;
mod errors;
mod flip;
mod full;
mod kill;
mod planted;
mod pool;
mod power;
mod story;
mod swap;
mod tracer;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// How long a suite tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A look whether it works at all.
    Short,
    /// Minutes.
    Normal,
    /// By hand.
    Full,
}

/// What all suites are told.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The program.
    pub program: PathBuf,
    /// How long to try.
    pub size: Size,
    /// Where random choices begin.
    pub seed: u64,
    /// Which of how many parts of the trials, from 0.
    pub part: (usize, usize),
    /// The bug that is planted in the program.
    pub planted: Option<String>,
    /// Whether the first failure ends a suite.
    pub until_first: bool,
}

impl Setting {
    /// One of three numbers, by the size.
    pub fn sized<T>(&self, short: T, normal: T, full: T) -> T {
        match self.size {
            Size::Short => short,
            Size::Normal => normal,
            Size::Full => full,
        }
    }

    /// The trials of the part that is wanted.
    pub fn part_of<T>(&self, trials: Vec<T>) -> Vec<T> {
        let (part, parts) = self.part;
        let all = trials.into_iter().enumerate();
        let wanted = all.filter(|(index, _)| index % parts == part);
        wanted.map(|(_, trial)| trial).collect()
    }

    /// The variables that the program gets.
    pub fn variables(&self) -> Variables {
        variables([None, self.planted.as_deref()])
    }
}

/// Variables of the program, each with its value.
pub type Variables = Vec<(&'static str, String)>;

/// Those of a program in which this is planted.
pub fn variables(planted: [Option<&str>; 2]) -> Variables {
    let planted: Vec<&str> = planted.into_iter().flatten().collect();
    match planted.as_slice() {
        [] => Vec::new(),
        bugs => vec![("TAPER_PLANTED", bugs.join(","))],
    }
}

/// What a suite found.
#[derive(Debug, Default)]
pub struct Found {
    /// What it tried: a number and what it is of.
    pub tried: Vec<(usize, String)>,
    /// What went wrong, each with all that is needed to do it again.
    pub failures: Vec<String>,
}

impl Found {
    /// Adds what another part tried.
    pub fn add(&mut self, count: usize, what: impl Into<String>, failures: Vec<String>) {
        self.tried.push((count, what.into()));
        self.failures.extend(failures);
    }
}

/// A suite: its name and how it is tried.
type Suite = (&'static str, fn(&Setting) -> Found);

const SUITES: [Suite; 10] = [
    ("kill", kill::run),
    ("errors", errors::run),
    ("power", power::run),
    ("full", full::run),
    ("crowd", crowd::run),
    ("edit", edit::run),
    ("flip", flip::run),
    ("swap", swap::run),
    ("elsewhere", elsewhere::run),
    ("planted", planted::run),
];

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == tracer::BECOME) {
        panic!("{}", tracer::become_traced(words));
    }
    let mut setting = Setting {
        program: env!("CARGO_BIN_EXE_taper").into(),
        size: Size::Short,
        seed: 1,
        part: (0, 1),
        planted: None,
        until_first: false,
    };
    let mut wanted: Vec<Suite> = Vec::new();
    let mut full = false;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        match word.as_str() {
            "--full" => full = true,
            "--seed" => setting.seed = value().parse().expect("--seed wants a number"),
            "--part" => setting.part = part(&value()).expect("--part wants I/N, from 1/N to N/N"),
            "--program" => setting.program = value().into(),
            "--plant" => setting.planted = Some(value()),
            "all" => wanted.extend(SUITES),
            name => match SUITES.iter().find(|(suite, _)| *suite == name) {
                Some(suite) => wanted.push(*suite),
                // A filter for the tests of other files, or an option of theirs.
                None => return ExitCode::SUCCESS,
            },
        }
    }
    setting.size = match (wanted.is_empty(), full) {
        (_, true) => Size::Full,
        (false, false) => Size::Normal,
        (true, false) => Size::Short,
    };
    if wanted.is_empty() {
        wanted.extend(SUITES);
    }
    let mut failed = false;
    for (name, run) in wanted {
        failed |= !try_suite(name, run, &setting);
    }
    ExitCode::from(u8::from(failed))
}

/// `2/8` is the second of eight parts.
fn part(text: &str) -> Option<(usize, usize)> {
    let (part, parts) = text.split_once('/')?;
    let (part, parts): (usize, usize) = (part.parse().ok()?, parts.parse().ok()?);
    (1..=parts).contains(&part).then(|| (part - 1, parts))
}

/// Runs a suite and says what came of it; whether all was well.
fn try_suite(name: &str, run: fn(&Setting) -> Found, setting: &Setting) -> bool {
    let started = Instant::now();
    let found = run(setting);
    let tried: Vec<String> = found
        .tried
        .iter()
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    println!(
        "{name}: {}; seed {}, {:.0} s",
        tried.join(", "),
        setting.seed,
        started.elapsed().as_secs_f64()
    );
    for failure in found.failures.iter().take(20) {
        println!("  {}", failure.replace('\n', "\n    "));
    }
    match found.failures.len() {
        0 => println!("{name}: nothing lost, nothing wrong served"),
        count => println!("{name}: {count} trials went wrong"),
    }
    found.failures.is_empty()
}
