//! `taper check`.

use taper_engine::check::check_file;

use crate::args::PipelineArgs;
use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table;
use crate::workplace::{KINDS, Workplace};

/// Find every error in a pipeline, without running it.
///
/// Unknown keys, wrong types, wiring that does not fit, cycles: all of them at once, each with
/// its line and a remedy.
///
///     taper check pipeline.yaml
///     taper check pipeline.yaml --set lr=3e-4 --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Tell a program: {"diagnostics": […]}.
    #[arg(long)]
    json: bool,
}

/// Checks.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let file = &args.pipeline.file;
    // A file that is not there is a problem of the file, and reported as one.
    let root = Workplace::of(file).map(|place| place.project.root);
    let root = root.unwrap_or_else(|_| ".".into());
    let checked = check_file(KINDS, file, &root, &args.pipeline.options());
    let exit = match checked.plan {
        Some(_) => Exit::Done,
        None => Exit::Invalid,
    };
    if args.json {
        output.json(&checked.report.to_json())?;
        return Ok(exit);
    }
    if !checked.report.diagnostics.is_empty() {
        output.report(&checked.report);
    }
    if let Some(plan) = &checked.plan {
        let variants = match plan.matrix.iter().map(|(_, values)| values.len()).product() {
            1 => String::new(),
            count => format!(", {count} variants"),
        };
        let stages = table::count(plan.stages.len(), "stage");
        output.say(format!("{}: {stages}{variants}, no error", plan.name));
    }
    Ok(exit)
}
