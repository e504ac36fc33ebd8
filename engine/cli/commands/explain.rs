//! `taper explain`.

use std::collections::BTreeSet;

use serde_json::json;
use taper_engine::{Events, Forecast, PlannedState, RunOptions};

use crate::args::PipelineArgs;
use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::prepared::{Prepared, Remembered, question};
use crate::table::{Rows, Tone};

/// Say which ingredient of a stage's key changed since the last run, old -> new.
///
///     taper explain pipeline.yaml model
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage; with a matrix, all its variants.
    stage: String,
    /// Tell a program: {"stages": [{"name", "kind", "state", "key", "because": […]}]}, the stage last.
    #[arg(long)]
    json: bool,
}

/// Explains.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    // What is up to date as a whole has nothing to be explained in any part.
    let question = question(&args.pipeline, &[], None);
    let remembered = Remembered::open(&args.pipeline, &question);
    if !args.json
        && let Some(report) = remembered.and_then(|known| known.plan(&question))
    {
        let is_named = |stage: &&Forecast| stage.name.split('[').next() == Some(&args.stage);
        let named: Vec<&Forecast> = report.stages.iter().filter(is_named).collect();
        for stage in &named {
            output.data(text(stage, &report.stages, output))?;
        }
        if !named.is_empty() {
            return Ok(Exit::Done);
        }
    }
    let prepared = Prepared::open(&args.pipeline, Events::nowhere())?;
    let wanted: BTreeSet<usize> = prepared
        .plan
        .named(&args.stage)
        .map_err(Failure::usage)?
        .into_iter()
        .collect();
    let options = RunOptions {
        stages: vec![args.stage.clone()],
        ..RunOptions::default()
    };
    let report = prepared.forecast(&options)?;
    if args.json {
        output.json(&json!(report))?;
        return super::plan::tell_errors(&report, output);
    }
    let named: BTreeSet<&str> = wanted
        .iter()
        .map(|index| prepared.plan.stages[*index].name.as_str())
        .collect();
    for stage in &report.stages {
        if named.contains(stage.name.as_str()) {
            output.data(text(stage, &report.stages, output))?;
        }
    }
    super::plan::tell_errors(&report, output)
}

fn text(stage: &Forecast, all: &[Forecast], output: Output) -> String {
    let name = output.out.strong(&stage.name);
    match stage.state {
        PlannedState::Cached => {
            let key = stage.key.map(|key| key.short()).unwrap_or_default();
            format!("{name} is up to date: nothing of its key {key} has changed\n")
        }
        PlannedState::Run => format!("{name} runs\n{}", table(stage, output)),
        PlannedState::Unknown => {
            let mut text = format!("{name} depends on stages that run first\n");
            for before in all.iter().filter(|one| one.state == PlannedState::Run) {
                text.push_str(&format!("\n{} runs\n", before.name));
                text.push_str(&table(before, output));
            }
            text
        }
    }
}

fn table(stage: &Forecast, output: Output) -> String {
    let mut rows = Rows::new(output.out, &["ingredient", "old", "new"]);
    for change in &stage.because {
        rows.row([
            (change.ingredient.as_str(), Tone::Plain),
            (change.old.as_deref().unwrap_or("-"), Tone::Plain),
            (change.new.as_deref().unwrap_or("-"), Tone::Changed),
        ]);
    }
    rows.finish()
}
