//! `taper log`.

use serde_json::{Map, Value, json};
use taper_cache::Lookup;

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, Rows, Tone};
use crate::time;
use crate::workplace::Workplace;

/// List what has been run, the newest first: run, pipeline, when, how long, metrics.
///
///     taper log
///     taper log imdb-textcnn -n 5
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Only runs of the pipeline with this name.
    pipeline: Option<String>,
    /// How many; 0 for all.
    #[arg(short = 'n', long, default_value_t = 20, value_name = "COUNT")]
    count: usize,
    /// Tell a program: [{"run", "pipeline", "file", "started", "seconds", "ran", "cached", "metrics"}].
    #[arg(long)]
    json: bool,
}

/// Lists.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let place = Workplace::here()?;
    let mut executions = place.executions()?;
    executions.reverse();
    if let Some(name) = &args.pipeline {
        executions.retain(|execution| execution.pipeline == *name);
    }
    if args.count > 0 {
        executions.truncate(args.count);
    }
    let mut all = Vec::new();
    for execution in &executions {
        let mut metrics = Map::new();
        if let Lookup::Found(run) = place.store.run(&execution.run)? {
            for stage in &run.stages {
                if let Some(values) = place.metrics(&stage.artifact) {
                    metrics.insert(stage.name.clone(), Value::Object(values));
                }
            }
        }
        all.push((execution, metrics));
    }
    if args.json {
        let rows: Vec<Value> = all
            .iter()
            .map(|(execution, metrics)| {
                let cached = execution.stages.iter().filter(|stage| stage.cached).count();
                json!({
                    "run": execution.run,
                    "pipeline": execution.pipeline,
                    "file": execution.file,
                    "started": execution.started,
                    "seconds": execution.seconds,
                    "ran": execution.stages.len() - cached,
                    "cached": cached,
                    "metrics": metrics,
                })
            })
            .collect();
        output.json(&rows)?;
        return Ok(Exit::Done);
    }
    if all.is_empty() {
        output.say("nothing has been run yet");
        output.help("taper run PIPELINE.yaml");
        return Ok(Exit::Done);
    }
    let columns = [
        "run",
        "pipeline",
        "started (UTC)",
        ">time",
        ">ran",
        ">cached",
        "metrics",
    ];
    let mut rows = Rows::new(output.out, &columns);
    for (execution, metrics) in &all {
        let cached = execution.stages.iter().filter(|stage| stage.cached).count();
        let ran = execution.stages.len() - cached;
        rows.row([
            (execution.run.short().as_str(), Tone::Plain),
            (execution.pipeline.as_str(), Tone::Plain),
            (time::utc(execution.started).as_str(), Tone::Faint),
            (table::seconds(execution.seconds).as_str(), Tone::Plain),
            (ran.to_string().as_str(), Tone::Plain),
            (cached.to_string().as_str(), Tone::Faint),
            (first_metrics(metrics).as_str(), Tone::Plain),
        ]);
    }
    output.data(rows.finish())?;
    Ok(Exit::Done)
}

/// The first three numbers of the first metrics.
fn first_metrics(metrics: &Map<String, Value>) -> String {
    let Some(Value::Object(values)) = metrics.values().next() else {
        return String::new();
    };
    let parts: Vec<String> = values
        .iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", table::number(value.as_f64()?))))
        .take(3)
        .collect();
    parts.join("  ")
}
