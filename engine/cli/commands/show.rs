//! `taper show`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use taper_cache::{Execution, RunRecord};
use taper_engine::Options;

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, Rows, Tone};
use crate::time;
use crate::workplace::{KINDS, Workplace};

/// Show a run: params, metrics, artifacts, and where logs and event files are.
///
///     taper show 3f2a9c
///     taper show 3f2a9c --pipeline > again.yaml
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The run: the beginning of its id, at least 4 digits. Without it, the last one.
    run: Option<String>,
    /// Print the pipeline file as it was.
    #[arg(long)]
    pipeline: bool,
    /// Tell a program: {"run", "pipeline", "params", "stages", "metrics", "executions"}.
    #[arg(long, conflicts_with = "pipeline")]
    json: bool,
}

/// Shows.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let place = Workplace::here()?;
    let run = match &args.run {
        Some(prefix) => place.run(prefix)?,
        None => place.last_run()?,
    };
    if args.pipeline {
        output.data(&run.text)?;
        return Ok(Exit::Done);
    }
    let done = place.executions_of(&run.id)?;
    let params = params(&run);
    let stages = stages(&place, &run, &done);
    if args.json {
        let mut metrics = Map::new();
        for stage in &run.stages {
            if let Some(values) = place.metrics(&stage.artifact) {
                metrics.insert(stage.name.clone(), Value::Object(values));
            }
        }
        output.json(&json!({
            "run": run.id,
            "pipeline": run.pipeline,
            "set": run.overrides,
            "params": params,
            "stages": stages.iter().map(Stage::json).collect::<Vec<_>>(),
            "metrics": metrics,
            "executions": done,
        }))?;
        return Ok(Exit::Done);
    }
    output.data(text(&place, &run, &params, &stages, &done, output))?;
    Ok(Exit::Done)
}

/// The params as they were, with what `--set` changed.
pub fn params(run: &RunRecord) -> Map<String, Value> {
    let options = Options {
        set: run
            .overrides
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        variant: Vec::new(),
    };
    let checked = taper_engine::check(KINDS, "", run.text.as_bytes(), None, &options);
    let Some(plan) = checked.plan else {
        return Map::new();
    };
    let mut params: Map<String, Value> = plan
        .params
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    for (name, values) in &plan.matrix {
        params.insert(name.clone(), json!(values.join(", ")));
    }
    params
}

struct Stage {
    name: String,
    kind: String,
    key: String,
    artifact: String,
    short: String,
    artifact_type: Option<&'static str>,
    files: usize,
    bytes: u64,
    seconds: Option<f64>,
    record: Option<String>,
}

impl Stage {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "kind": self.kind,
            "key": self.key,
            "artifact": self.artifact,
            "type": self.artifact_type,
            "files": self.files,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "record": self.record,
        })
    }
}

fn stages(place: &Workplace, run: &RunRecord, done: &[Execution]) -> Vec<Stage> {
    // The last time that each really ran, as far as this cache knows.
    let mut ran = BTreeMap::new();
    for stage in done.iter().flat_map(|execution| &execution.stages) {
        if !stage.cached {
            ran.insert(stage.name.as_str(), stage.seconds);
        }
    }
    run.stages
        .iter()
        .map(|stage| {
            let lookup = place.store.manifest(&stage.artifact).ok();
            let manifest = lookup.and_then(|lookup| lookup.found());
            let record = place.store.layout().record(&stage.key);
            let has_record =
                std::fs::read_dir(&record).is_ok_and(|mut files| files.next().is_some());
            Stage {
                name: stage.name.clone(),
                kind: stage.kind.clone(),
                key: stage.key.to_string(),
                artifact: stage.artifact.to_string(),
                short: stage.artifact.short(),
                artifact_type: manifest.as_ref().map(|m| m.artifact_type.name()),
                files: manifest.as_ref().map_or(0, |m| m.blobs.len()),
                bytes: manifest.as_ref().map_or(0, |m| m.size()),
                seconds: ran.get(stage.name.as_str()).copied(),
                record: has_record.then(|| record.display().to_string()),
            }
        })
        .collect()
}

fn text(
    place: &Workplace,
    run: &RunRecord,
    params: &Map<String, Value>,
    stages: &[Stage],
    done: &[Execution],
    output: Output,
) -> String {
    let style = output.out;
    let mut text = format!("{} {}\n", style.strong(&run.pipeline), run.id);
    for execution in done.iter().rev().take(3) {
        text.push_str(&format!(
            "{} {}, {}, {} threads, {}\n",
            style.faint("run on"),
            time::utc(execution.started),
            table::seconds(execution.seconds),
            execution.threads,
            execution.processor,
        ));
    }
    if done.len() > 3 {
        text.push_str(&style.faint(format!("and {} times before\n", done.len() - 3)));
    }
    if !params.is_empty() {
        text.push('\n');
        let mut rows = Rows::new(style, &["param", "value"]);
        for (name, value) in params {
            let set = run.overrides.contains_key(name);
            let tone = if set { Tone::Changed } else { Tone::Plain };
            rows.row([
                (name.as_str(), Tone::Plain),
                (value.as_str().unwrap_or_default(), tone),
            ]);
        }
        text.push_str(&rows.finish());
    }
    text.push('\n');
    let mut rows = Rows::new(
        style,
        &["stage", "kind", "artifact", "type", ">size", ">ran"],
    );
    for stage in stages {
        let seconds = stage.seconds.map(table::seconds).unwrap_or_default();
        let size = match stage.artifact_type {
            Some(_) => table::bytes(stage.bytes),
            None => "removed".to_owned(),
        };
        rows.row([
            (stage.name.as_str(), Tone::Plain),
            (stage.kind.as_str(), Tone::Faint),
            (stage.short.as_str(), Tone::Plain),
            (stage.artifact_type.unwrap_or_default(), Tone::Faint),
            (size.as_str(), Tone::Plain),
            (seconds.as_str(), Tone::Faint),
        ]);
    }
    text.push_str(&rows.finish());
    let metrics: Vec<_> = run
        .stages
        .iter()
        .filter_map(|stage| Some((stage.name.clone(), place.metrics(&stage.artifact)?)))
        .collect();
    if !metrics.is_empty() {
        text.push('\n');
        text.push_str(&crate::metrics::table(style, &metrics));
    }
    let records: Vec<&Stage> = stages.iter().filter(|s| s.record.is_some()).collect();
    if !records.is_empty() {
        text.push('\n');
        let mut rows = Rows::new(style, &["logs and event files of", "are in"]);
        for stage in records {
            let folder = stage.record.as_deref().unwrap_or_default();
            rows.row([(stage.name.as_str(), Tone::Plain), (folder, Tone::Plain)]);
        }
        text.push_str(&rows.finish());
    }
    text
}
