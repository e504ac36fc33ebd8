//! `taper plan`.

use taper_engine::{Events, PlanReport, PlannedState, RunOptions};

use crate::args::PipelineArgs;
use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::prepared::{Prepared, Remembered, question, reasons};
use crate::table::{self, Rows, Tone};

/// Say what a run would do, stage by stage, and why.
///
///     taper plan pipeline.yaml
///     taper plan pipeline.yaml --set lr=3e-4
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only these stages and those before them.
    stages: Vec<String>,
    /// Do not use the network.
    #[arg(long)]
    offline: bool,
    /// Tell a program: {"stages": [{"name", "kind", "state", "key", "because": […]}]}.
    #[arg(long)]
    json: bool,
}

/// Says it.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let question = question(&args.pipeline, &args.stages, None);
    let remembered = Remembered::open(&args.pipeline, &question);
    if let Some(report) = remembered.and_then(|known| known.plan(&question)) {
        match args.json {
            true => output.json(&report)?,
            false => output.data(up_to_date(&report))?,
        }
        return Ok(Exit::Done);
    }
    let mut prepared = Prepared::open(&args.pipeline, Events::nowhere())?;
    prepared.surroundings.offline |= args.offline;
    let options = RunOptions {
        stages: args.stages,
        ..RunOptions::default()
    };
    let report = prepared.forecast(&options)?;
    if args.json {
        output.json(&report)?;
    } else {
        if !prepared.report.diagnostics.is_empty() {
            output.report(&prepared.report);
        }
        output.data(text(&prepared, &report, output))?;
    }
    tell_errors(&report, output)
}

/// Says which keys cannot be made, and why.
///
/// # Errors
/// None.
pub fn tell_errors(report: &PlanReport, output: Output) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for stage in &report.stages {
        if let Some(error) = &stage.error {
            exit = Exit::StageFailed;
            output.say(format!(
                "{}: {}: {}",
                output.err.bad("error"),
                stage.name,
                error.message
            ));
            if let Some(help) = &error.help {
                output.help(help);
            }
        }
    }
    Ok(exit)
}

fn up_to_date(report: &PlanReport) -> String {
    format!(
        "up to date: {}, nothing to run\n",
        table::count(report.stages.len(), "stage")
    )
}

/// What a run would do, for people.
pub fn text(prepared: &Prepared, report: &PlanReport, output: Output) -> String {
    let count = |state| report.stages.iter().filter(|s| s.state == state).count();
    let (run, unknown) = (count(PlannedState::Run), count(PlannedState::Unknown));
    if run + unknown == 0 {
        return up_to_date(report);
    }
    let mut rows = Rows::new(output.out, &["stage", "kind", "", "because"]);
    for stage in &report.stages {
        let (state, tone) = match stage.state {
            PlannedState::Cached => ("cached", Tone::Faint),
            PlannedState::Run => ("run", Tone::Changed),
            PlannedState::Unknown if stage.error.is_some() => ("error", Tone::Bad),
            PlannedState::Unknown => ("depends", Tone::Plain),
        };
        let because = match stage.state {
            PlannedState::Unknown if stage.error.is_none() => {
                format!("on {}", prepared.before(&stage.name).join(", "))
            }
            _ => reasons(stage),
        };
        rows.row([
            (stage.name.as_str(), Tone::Plain),
            (stage.kind, Tone::Faint),
            (state, tone),
            (because.as_str(), Tone::Plain),
        ]);
    }
    let cached = count(PlannedState::Cached);
    let mut text = rows.finish();
    text.push_str(&format!(
        "\n{run} to run, {unknown} depend on them, {cached} cached\n"
    ));
    text
}
