//! `taper exec`, hidden: another process's part of a run.

use std::io::Read as _;
use std::path::PathBuf;

use serde_json::json;
use taper_cache::Store;
use taper_engine::{Job, execute_job};

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::interrupt;
use crate::output::Output;
use crate::report::{Mode, Reporter};
use crate::workplace::KINDS;

/// Execute one job in a cache: the bytes of the job on stdin, events and the artifact as JSON
/// on stdout.
///
/// A job has all that a stage's key was made of, so that nothing but the cache is needed.
///
///     taper exec --cache /shared/cache < job
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The cache's folder.
    #[arg(long)]
    cache: PathBuf,
    /// What the stage is called in events.
    #[arg(long, default_value = "job")]
    stage: String,
}

/// Executes.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    let job = Job::from_bytes(&bytes)?;
    let store = Store::open(&args.cache)?;
    let reporter = Reporter::start(Mode::Json, output)?;
    let stop = interrupt::flag(output);
    let stage = taper_engine::Reporter::new(args.stage, reporter.events(), stop);
    let lock = store.try_lock(&job.key())?;
    let result = execute_job(&store, KINDS, &job, lock.as_ref(), &stage);
    reporter.close();
    let action = result?.action;
    output.json_line(&json!({ "key": action.key, "artifact": action.artifact }))?;
    Ok(Exit::Done)
}
