//! `taper log`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use taper_cache::Wanted;

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
    let wanted = args.pipeline.map_or(Wanted::All, Wanted::Pipeline);
    let count = if args.count > 0 {
        args.count
    } else {
        usize::MAX
    };
    let all = place.store.summaries(wanted)?.take(count);
    let all = all.collect::<Result<Vec<_>, _>>()?;
    if args.json {
        let rows: Vec<Value> = all
            .iter()
            .map(|one| {
                json!({
                    "run": one.run,
                    "pipeline": one.pipeline,
                    "file": one.file,
                    "started": one.started,
                    "seconds": one.seconds,
                    "ran": one.ran,
                    "cached": one.cached,
                    "metrics": one.metrics,
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
    for one in &all {
        rows.row([
            (one.run.short().as_str(), Tone::Plain),
            (one.pipeline.as_str(), Tone::Plain),
            (time::utc(one.started).as_str(), Tone::Faint),
            (table::seconds(one.seconds).as_str(), Tone::Plain),
            (one.ran.to_string().as_str(), Tone::Plain),
            (one.cached.to_string().as_str(), Tone::Faint),
            (first_metrics(&one.metrics).as_str(), Tone::Plain),
        ]);
    }
    output.data(rows.finish())?;
    Ok(Exit::Done)
}

/// The first three numbers of the first metrics.
fn first_metrics(metrics: &BTreeMap<String, Value>) -> String {
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
