//! `taper reproduce`.

use std::path::{Path, PathBuf};
use std::process::Command;

use taper_cache::{Lookup, RunRecord, Store};
use taper_engine::{
    LocalExecutor, Lock, LockUse, OnFailure, ReproduceOptions, Reproduced, Reproduction, Rerun,
    RunOptions, compare_with_lock, fresh_store, rerun, restore,
};

use crate::args::PipelineArgs;
use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::prepared::{Prepared, is_offline};
use crate::report::{Mode, Reporter};
use crate::table::{Rows, Tone};
use crate::workplace::{KINDS, Workplace};
use crate::{interrupt, locks};

/// Get the bytes of a run again, and compare them with its hash.
///
/// The run is looked for in this cache, else among the lock files of the project: the id of a
/// run is a hash over what the lock says. Without --rerun every file is read and compared, and
/// only what is missing or damaged is computed again; with --rerun everything is, in an empty
/// cache. Exit code 3 where anything differs.
///
///     taper reproduce 3f2a9c
///     taper reproduce 3f2a9c --rerun
///     taper reproduce pipeline.yaml --rerun --rev v1.2
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The run: the beginning of its id. Or a pipeline file with its lock.
    run: String,
    /// Execute every stage again.
    #[arg(long)]
    rerun: bool,
    /// Take pipeline, lock and files from this revision of git.
    #[arg(long, value_name = "REV")]
    rev: Option<String>,
    /// Do not use the network.
    #[arg(long)]
    offline: bool,
    /// Tell a program: {"run", "identical", "stages": [{"name", "expected", "got", "identical"}]}.
    #[arg(long)]
    json: bool,
}

/// Reproduces.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let place = Workplace::here()?;
    let reproduction = match &args.rev {
        Some(revision) => {
            let tree = WorkTree::add(&place.project.root, revision)?;
            let below = current_folder_below(&place.project.root)?;
            let folder = tree.path().join(below);
            let pipeline = find_pipeline(&args.run, &place, &tree.path(), &folder)?;
            from_lock(&pipeline, &place.store, &args, output)?
        }
        None if Path::new(&args.run).is_file() => {
            from_lock(Path::new(&args.run), &place.store, &args, output)?
        }
        None => match place.store.find_run(&args.run) {
            Ok(id) => from_record(&place, &place.record(&id)?, &args, output)?,
            Err(error) => {
                let root = place.project.root.clone();
                match find_pipeline(&args.run, &place, &root, Path::new(".")) {
                    Ok(pipeline) => from_lock(&pipeline, &place.store, &args, output)?,
                    Err(_) => {
                        return Err(Failure::from(error).help(
                            "`taper log` lists the runs of this cache; a run of another one is found by its \
                             lock file: `taper reproduce RUN --rev REVISION`",
                        ));
                    }
                }
            }
        },
    };
    let exit = exit(&reproduction);
    if args.json {
        output.json(&reproduction)?;
    } else {
        output.data(text(&reproduction, output))?;
    }
    Ok(exit)
}

/// A stage that cannot be had again is a failure; one that came out otherwise is a difference.
fn exit(reproduction: &Reproduction) -> Exit {
    let differs = |stage: &Reproduced| stage.got.is_some_and(|got| got != stage.expected);
    match reproduction.identical {
        true => Exit::Done,
        false if reproduction.stages.iter().any(differs) => Exit::Differs,
        false => Exit::StageFailed,
    }
}

fn mode(args: &Args) -> Mode {
    if args.json { Mode::Quiet } else { Mode::Talk }
}

fn from_record(
    place: &Workplace,
    record: &RunRecord,
    args: &Args,
    output: Output,
) -> Result<Reproduction, Failure> {
    let there = restore(&place.store, record)?;
    for stage in there.stages.iter().filter(|stage| !stage.identical) {
        let error = stage.error.as_deref().unwrap_or("it is not there");
        output.warn(format!("{}: {error}", stage.name));
    }
    if there.identical && !args.rerun {
        return Ok(there);
    }
    let reporter = Reporter::start(mode(args), output)?;
    let options = ReproduceOptions {
        rerun: if args.rerun {
            Rerun::All
        } else {
            Rerun::Missing
        },
        offline: args.offline || is_offline(),
        stop: interrupt::flag(output),
        events: reporter.events(),
    };
    let executor = LocalExecutor { kinds: KINDS };
    let result = rerun(&place.store, record, &executor, &options);
    reporter.close();
    Ok(result?)
}

/// A pipeline beside its lock: restored from `store`, or run in an empty cache.
fn from_lock(
    pipeline: &Path,
    store: &Store,
    args: &Args,
    output: Output,
) -> Result<Reproduction, Failure> {
    let lock = Lock::read(&Lock::path_of(pipeline))?;
    if lock.stages.is_empty() {
        return Err(
            Failure::usage(format!("{} has no lock file", pipeline.display()))
                .help("`taper run` writes it; commit it beside the pipeline"),
        );
    }
    if !args.rerun {
        let there = in_cache(store, &lock)?;
        if there.identical {
            return Ok(there);
        }
        for stage in there.stages.iter().filter(|stage| !stage.identical) {
            let error = stage.error.as_deref().unwrap_or_default();
            output.warn(format!("{}: {error}", stage.name));
        }
    }
    let reporter = Reporter::start(mode(args), output)?;
    let pipeline = PipelineArgs {
        file: pipeline.to_owned(),
        set: Vec::new(),
        variant: Vec::new(),
    };
    let mut prepared = Prepared::open(&pipeline, reporter.events())?;
    prepared.wishes(args.offline, None, interrupt::flag(output));
    // With --rerun everything is executed, whatever the cache has; without it, what is missing.
    let fresh = match args.rerun {
        true => Some(fresh_store(store)?),
        false => None,
    };
    prepared.surroundings.store = fresh.as_ref().map_or(store, |(_, fresh)| fresh).clone();
    let options = RunOptions {
        jobs: taper_cache::threads::cores(),
        on_failure: OnFailure::KeepGoing,
        lock_use: LockUse::ReadOnly,
        ..RunOptions::default()
    };
    // Exports are of the work tree, and a reproduction leaves it alone.
    for stage in &mut prepared.plan.stages {
        stage.settings.export = None;
    }
    let executor = LocalExecutor { kinds: KINDS };
    let result = taper_engine::run(
        &prepared.plan,
        &prepared.origin,
        &prepared.surroundings,
        &executor,
        &options,
    );
    reporter.close();
    let mut reproduction = compare_with_lock(&result?, &lock);
    reproduction.run = Some(locks::run_id(&lock));
    Ok(reproduction)
}

/// Whether the cache has every artifact that a lock names, each file as its digest says.
fn in_cache(store: &Store, lock: &Lock) -> Result<Reproduction, Failure> {
    let mut stages = Vec::new();
    for (name, stage) in &lock.stages {
        let error = match store.manifest(&stage.artifact)? {
            Lookup::Missing => Some("the cache does not have it".to_owned()),
            Lookup::Damaged(damage) => Some(damage.to_string()),
            Lookup::Found(manifest) => {
                let damages = store.verify_artifact(&manifest)?;
                damages.first().map(ToString::to_string)
            }
        };
        stages.push(Reproduced {
            name: name.clone(),
            expected: stage.artifact,
            got: error.is_none().then_some(stage.artifact),
            identical: error.is_none(),
            error,
        });
    }
    Ok(Reproduction {
        run: Some(locks::run_id(lock)),
        identical: stages.iter().all(|stage| stage.identical),
        stages,
    })
}

/// The pipeline file that `name` is, or whose lock has the run of which `name` is the beginning.
fn find_pipeline(
    name: &str,
    place: &Workplace,
    root: &Path,
    folder: &Path,
) -> Result<PathBuf, Failure> {
    let file = folder.join(name);
    if file.is_file() {
        return Ok(file);
    }
    let project = taper_engine::Project {
        root: root.to_owned(),
        cache: place.project.cache.clone(),
    };
    let mut found = Vec::new();
    for path in locks::find(&project)? {
        let Ok(lock) = Lock::read(&path) else {
            continue;
        };
        let id = locks::run_id(&lock).to_string();
        if name.len() >= 4 && id.starts_with(&name.to_ascii_lowercase()) {
            found.extend(locks::pipeline_of(&path));
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::usage(format!(
            "neither this cache nor a lock file of the project has the run `{name}`"
        ))),
        several => Err(Failure::usage(format!(
            "{} lock files begin with `{name}`: give more digits",
            several.len()
        ))),
    }
}

/// A revision of git, checked out beside the work tree, until it is dropped.
struct WorkTree {
    root: PathBuf,
    folder: tempfile::TempDir,
}

impl WorkTree {
    fn add(root: &Path, revision: &str) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let tree = Self {
            root: root.to_owned(),
            folder,
        };
        let path = tree.path();
        let path = path.to_string_lossy();
        tree.git(&["worktree", "add", "--quiet", "--detach", &path, revision])?;
        Ok(tree)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    fn git(&self, arguments: &[&str]) -> Result<(), Failure> {
        let done = Command::new("git")
            .arg("-C")
            .arg(&self.root)
            .args(arguments)
            .output()
            .map_err(|error| Failure::usage(format!("git cannot be started: {error}")))?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        Err(Failure::usage(format!("git: {}", said.trim()))
            .help("--rev wants a revision of the project's git repository"))
    }
}

impl Drop for WorkTree {
    fn drop(&mut self) {
        let path = self.path();
        let path = path.to_string_lossy();
        if let Err(failure) = self.git(&["worktree", "remove", "--force", &path]) {
            tracing::warn!(%failure, "a work tree of git stays");
        }
    }
}

fn current_folder_below(root: &Path) -> Result<PathBuf, Failure> {
    let here = std::env::current_dir()?.canonicalize()?;
    let root = root.canonicalize()?;
    Ok(here.strip_prefix(&root).unwrap_or(Path::new("")).to_owned())
}

fn text(reproduction: &Reproduction, output: Output) -> String {
    let style = output.out;
    let mut rows = Rows::new(style, &["stage", "", "expected", "got", ""]);
    for stage in &reproduction.stages {
        let (word, tone) = match (stage.identical, stage.got) {
            (true, _) => ("identical", Tone::Good),
            (false, Some(_)) => ("differs", Tone::Bad),
            (false, None) => ("failed", Tone::Bad),
        };
        let expected = stage.expected.short();
        let got = stage.got.map(|got| got.short()).unwrap_or_default();
        let error = match stage.identical {
            true => "",
            false => stage.error.as_deref().unwrap_or_default(),
        };
        rows.row([
            (stage.name.as_str(), Tone::Plain),
            (word, tone),
            (expected.as_str(), Tone::Plain),
            (got.as_str(), Tone::Plain),
            (error, Tone::Plain),
        ]);
    }
    let mut text = rows.finish();
    let run = reproduction.run.map(|run| run.short()).unwrap_or_default();
    let count = reproduction.stages.len();
    let same = reproduction.stages.iter().filter(|s| s.identical).count();
    text.push('\n');
    text.push_str(&if reproduction.identical {
        format!("run {}: {}\n", style.strong(run), style.good("identical"))
    } else {
        let verdict = style.bad("not identical");
        format!(
            "run {}: {verdict}, {same} of {count} stages are\n",
            style.strong(run)
        )
    });
    text
}
