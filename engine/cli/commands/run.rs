//! `taper run`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Map, Value, json};
use taper_cache::Digest;
use taper_engine::watch::Watched;
use taper_engine::{
    DeviceChoice, Event, LocalExecutor, LockUse, OnFailure, Project, RunEnd, RunOptions, RunReport,
    StageReport, StageState,
};

use super::plan;
use crate::args::PipelineArgs;
use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::prepared::{Prepared, Remembered, question};
use crate::report::{Mode, Reporter};
use crate::table::{self, Rows, Tone};
use crate::workplace::KINDS;
use crate::{interrupt, metrics};

/// More cached stages than this are counted, not listed.
const LISTED: usize = 40;

/// More changed files than this are counted, not named.
const NAMED: usize = 5;

/// Bring every stage up to date; run only what has changed.
///
/// What a stage made is kept in the cache under the hash of everything that can change it: its
/// parameters, its inputs' bytes, the seed. The lock file beside the pipeline says what was
/// made; commit both.
///
///     taper run pipeline.yaml
///     taper run pipeline.yaml scores --set lr=3e-4
///     taper run pipeline.yaml --locked --offline
///     taper run pipeline.yaml --smoke
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only these stages and those before them.
    stages: Vec<String>,
    /// Where every stage computes, whatever the pipeline says: auto, cpu, cuda, cuda:N, metal.
    #[arg(long)]
    device: Option<DeviceChoice>,
    /// How many stages run side by side; one with `cores: 4` counts as four. Default: as many as there are cores.
    #[arg(short, long, value_name = "COUNT")]
    jobs: Option<usize>,
    /// How many threads all stages compute with. Default: as many as there are cores. Results do not
    /// depend on it.
    #[arg(long, value_name = "COUNT")]
    threads: Option<usize>,
    /// Run this stage even if its result is cached. Again for more.
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// When a stage fails, go on with what does not depend on it.
    #[arg(long)]
    keep_going: bool,
    /// Only see whether everything fits together: training, evaluation and prediction look at one batch. Nothing is
    /// exported or recorded, and nothing of it is ever taken for the real thing.
    #[arg(long, conflicts_with = "locked")]
    smoke: bool,
    /// Do not use the network.
    #[arg(long)]
    offline: bool,
    /// Fail if the lock file would change.
    #[arg(long)]
    locked: bool,
    /// Run again whenever the pipeline, or a file of the project that it reads, has changed.
    #[arg(long)]
    watch: bool,
    /// Only say what would run, and why.
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,
    /// Say nothing but warnings and errors.
    #[arg(short, long)]
    quiet: bool,
    /// Tell a program: one object at the end (with `--watch`, a line of each run), or with `=events` one a line as they happen.
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "end",
        value_name = "WHEN"
    )]
    json: Option<Json>,
}

/// What a program is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Json {
    /// One object when it is done.
    End,
    /// One object a line, as things happen; the last is the whole.
    Events,
}

impl Args {
    fn mode(&self) -> Mode {
        match (self.json, self.quiet) {
            (Some(Json::Events), _) => Mode::Json,
            (_, true) => Mode::Quiet,
            _ => Mode::Talk,
        }
    }
}

/// Runs.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let started = Instant::now();
    if let Some(threads) = args.threads {
        taper_cache::threads::want(threads.max(1));
    }
    if args.watch {
        return watch(&args, output);
    }
    let mode = args.mode();
    let question = question(&args.pipeline, &args.stages, args.device);
    let remembered = Remembered::open(&args.pipeline, &question);
    if args.force.is_empty()
        && !(args.dry_run || args.smoke)
        && let Some(mut report) = remembered.as_ref().and_then(|known| known.run(&question))
    {
        if mode == Mode::Json {
            for stage in &report.stages {
                output.json_line(&finished(stage))?;
            }
        }
        report.seconds = started.elapsed().as_secs_f64();
        return tell(&args, None, &report, output);
    }
    let reporter = Reporter::start(mode, output)?;
    let prepared = prepare(&args, &reporter, interrupt::flag(output), output)?;
    let memory = remembered.map(|known| known.name);
    if args.dry_run {
        reporter.close();
        return dry_run(&prepared, &options(&args), args.json.is_some(), output);
    }
    bring_up_to_date(&args, &prepared, (reporter, memory), (started, output))
}

/// Runs again and again, until the user stops it.
fn watch(args: &Args, output: Output) -> Result<Exit, Failure> {
    let stop = interrupt::flag(output);
    let file = &args.pipeline.file;
    // Where there is no file, that is a mistake on the command line.
    let root = match file.exists() {
        true => Project::find(file, None)?.root,
        false => PathBuf::new(),
    };
    let mut watched = Watched::new(file, &root);
    loop {
        let started = Instant::now();
        // Seen before it is read: what changes meanwhile is a change.
        let first = watched.look();
        let reporter = Reporter::start(args.mode(), output)?;
        let prepared = prepare(args, &reporter, Arc::clone(&stop), output);
        if let Ok(prepared) = &prepared {
            watched.reads(&prepared.plan);
        }
        let mut seen = watched.look();
        seen.extend(first);
        let ended = prepared.and_then(|prepared| {
            bring_up_to_date(args, &prepared, (reporter, None), (started, output))
        });
        match ended {
            Err(failure) if !file.exists() => return Err(failure),
            Err(failure) => output.failure(&failure),
            Ok(_) => {}
        }
        if stop.load(Ordering::SeqCst) {
            return Ok(Exit::Interrupted);
        }
        if !args.quiet {
            output.say("waiting for changes; Ctrl-C ends");
        }
        let changed = watched.wait(&seen, &stop);
        if changed.is_empty() {
            return Ok(Exit::Interrupted);
        }
        if !args.quiet {
            let mut names: Vec<_> = changed.iter().map(|path| path.to_string_lossy()).collect();
            if names.len() > NAMED {
                let more = format!("and {} more", names.len() - NAMED);
                names.splice(NAMED.., [more.into()]);
            }
            output.say(format!("\nchanged: {}", names.join(", ")));
        }
    }
}

/// The pipeline and what surrounds it; its warnings are told.
fn prepare(
    args: &Args,
    reporter: &Reporter,
    stop: Arc<AtomicBool>,
    output: Output,
) -> Result<Prepared, Failure> {
    let mut prepared = Prepared::open(&args.pipeline, reporter.events())?;
    prepared.wishes(args.offline, args.device, stop);
    prepared.surroundings.smoke = args.smoke;
    if !prepared.report.diagnostics.is_empty() && args.mode() != Mode::Json {
        output.report(&prepared.report);
    }
    Ok(prepared)
}

fn bring_up_to_date(
    args: &Args,
    prepared: &Prepared,
    (reporter, memory): (Reporter, Option<Digest>),
    (started, output): (Instant, Output),
) -> Result<Exit, Failure> {
    let mut options = options(args);
    if prepared.report.diagnostics.is_empty() && !args.smoke {
        options.memory = memory;
    }
    prepared.check_devices(&options)?;
    let executor = LocalExecutor { kinds: KINDS };
    let (plan, surroundings) = (&prepared.plan, &prepared.surroundings);
    let result = taper_engine::run(plan, &prepared.origin, surroundings, &executor, &options);
    reporter.close();
    let mut report = result?;
    report.seconds = started.elapsed().as_secs_f64();
    tell(args, Some(prepared), &report, output)
}

/// Says what a run did, at its end.
fn tell(
    args: &Args,
    prepared: Option<&Prepared>,
    report: &RunReport,
    output: Output,
) -> Result<Exit, Failure> {
    match args.json {
        Some(Json::End) if args.watch => output.json_line(report)?,
        Some(Json::End) => output.json(report)?,
        Some(Json::Events) => output.json_line(&with_event(report))?,
        None if args.quiet => {}
        None => output.data(summary(prepared, report, output))?,
    }
    Ok(match report.end() {
        RunEnd::Done => Exit::Done,
        RunEnd::Failed => Exit::StageFailed,
        RunEnd::Damaged => Exit::Cache,
        RunEnd::Interrupted => Exit::Interrupted,
    })
}

fn options(args: &Args) -> RunOptions {
    let cores = taper_cache::threads::cores();
    let changed = !args.pipeline.set.is_empty() || !args.pipeline.variant.is_empty();
    RunOptions {
        stages: args.stages.clone(),
        force: args.force.clone(),
        jobs: args.jobs.unwrap_or(cores).max(1),
        on_failure: if args.keep_going {
            OnFailure::KeepGoing
        } else {
            OnFailure::Stop
        },
        lock_use: match (args.locked, changed || args.smoke) {
            (true, _) => LockUse::Locked,
            (false, true) => LockUse::ReadOnly,
            (false, false) => LockUse::Update,
        },
        memory: None,
    }
}

fn dry_run(
    prepared: &Prepared,
    options: &RunOptions,
    json: bool,
    output: Output,
) -> Result<Exit, Failure> {
    let report = prepared.forecast(options)?;
    if json {
        output.json(&report)?;
    } else {
        output.data(plan::text(prepared, &report, output))?;
    }
    plan::tell_errors(&report, output)
}

/// A stage that is remembered to be up to date, as an event.
fn finished(stage: &StageReport) -> Option<Event> {
    Some(Event::StageFinished {
        stage: stage.name.clone(),
        kind: stage.kind,
        key: stage.key?,
        artifact: stage.artifact?,
        cached: true,
        seconds: 0.0,
    })
}

/// The whole of the run as the last event.
fn with_event(report: &RunReport) -> Value {
    let mut object = Map::new();
    object.insert("event".to_owned(), json!("run_finished"));
    if let Value::Object(fields) = json!(report) {
        object.extend(fields);
    }
    Value::Object(object)
}

/// What a run did, for people.
fn summary(prepared: Option<&Prepared>, report: &RunReport, output: Output) -> String {
    let style = output.out;
    let run = report.run.map(|run| style.strong(run.short()));
    if report.is_cached() && report.run.is_some() && report.exported.is_empty() {
        let run = run.map(|run| format!("run {run}\n")).unwrap_or_default();
        return format!(
            "up to date: {}, {}\n{run}",
            table::count(report.stages.len(), "stage"),
            table::seconds(report.seconds)
        );
    }
    let mut text = stages(report, output);
    let measured: Vec<(String, Map<String, Value>)> = report
        .metrics
        .iter()
        .filter_map(|(stage, values)| Some((stage.clone(), values.as_object()?.clone())))
        .collect();
    if !measured.is_empty() {
        text.push('\n');
        text.push_str(&metrics::table(style, &measured));
    }
    let smoke = prepared.is_some_and(|prepared| prepared.surroundings.smoke);
    let prepared = prepared.filter(|_| !smoke);
    let places = prepared.map(|prepared| places(prepared, report, output));
    let places = places.unwrap_or_default();
    if !places.is_empty() {
        text.push('\n');
        text.push_str(&places);
    }
    let count = |state| report.stages.iter().filter(|s| s.state == state).count();
    let states = [
        ("ran", StageState::Ran),
        ("cached", StageState::Cached),
        ("failed", StageState::Failed),
        ("skipped", StageState::Skipped),
    ];
    let counts: Vec<String> = states
        .into_iter()
        .map(|(name, state)| (name, count(state)))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let counts = format!("{}, {}", counts.join(", "), table::seconds(report.seconds));
    text.push('\n');
    match run {
        Some(run) => text.push_str(&format!("run {run}  {}\n", style.faint(counts))),
        None if smoke && report.end() == RunEnd::Done => {
            let works = "it works on one batch; nothing was exported or recorded";
            text.push_str(&format!("{works}  {}\n", style.faint(counts)));
        }
        None => text.push_str(&format!("no run: {counts}\n")),
    }
    text
}

fn stages(report: &RunReport, output: Output) -> String {
    let many = report.stages.len() > LISTED;
    let mut rows = Rows::new(output.out, &["stage", "kind", "", ">time"]);
    for stage in &report.stages {
        let (state, tone) = match stage.state {
            StageState::Ran => ("ran", Tone::Good),
            StageState::Cached => ("cached", Tone::Faint),
            StageState::Failed => ("failed", Tone::Bad),
            StageState::Skipped => ("skipped", Tone::Changed),
        };
        if many && stage.state == StageState::Cached {
            continue;
        }
        let time = match stage.state {
            StageState::Ran | StageState::Failed => table::seconds(stage.seconds),
            StageState::Cached | StageState::Skipped => String::new(),
        };
        rows.row([
            (stage.name.as_str(), Tone::Plain),
            (stage.kind, Tone::Faint),
            (state, tone),
            (time.as_str(), Tone::Plain),
        ]);
    }
    rows.finish()
}

/// Where people find what they want to look at: exports, and figures that are not exported.
fn places(prepared: &Prepared, report: &RunReport, output: Output) -> String {
    let mut rows = Rows::bare(output.out);
    let mut any = false;
    let done = report.stages.iter().filter(|one| one.artifact.is_some());
    let done: BTreeSet<&str> = done.map(|one| one.name.as_str()).collect();
    for stage in &prepared.plan.stages {
        if !done.contains(stage.name.as_str()) {
            continue;
        }
        let place = match (&stage.settings.export, report.run) {
            (Some(target), _) => target.clone(),
            (None, Some(run)) if stage.kind.name() == "plot" => {
                format!("taper export {}:{} DIR", run.short(), stage.name)
            }
            _ => continue,
        };
        any = true;
        rows.row([
            (stage.name.as_str(), Tone::Plain),
            ("->", Tone::Faint),
            (place.as_str(), Tone::Plain),
        ]);
    }
    if any { rows.finish() } else { String::new() }
}
