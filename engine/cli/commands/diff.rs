//! `taper diff`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use taper_cache::{RunRecord, StageRecord};
use taper_engine::{Change, Ingredients};

use super::show::params;
use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{Rows, Tone, number};
use crate::workplace::Workplace;

/// Compare two runs: params, what of each stage's key differs, metrics side by side.
///
///     taper diff 3f2a9c 81b0d4
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A run: the beginning of its id.
    a: String,
    /// Another.
    b: String,
    /// Tell a program: {"a", "b", "params", "stages", "metrics"}.
    #[arg(long)]
    json: bool,
}

/// How a stage of one run compares with that of the other.
struct Compared {
    name: String,
    state: &'static str,
    changes: Vec<Change>,
}

/// A number of both runs.
struct Measure {
    stage: String,
    name: String,
    a: Option<f64>,
    b: Option<f64>,
}

/// Compares.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let place = Workplace::here()?;
    let (a, b) = (place.run(&args.a)?, place.run(&args.b)?);
    let params = differing(&params(&a), &params(&b));
    let stages = compare(&a, &b)?;
    let measures = measures(&place, &a, &b);
    if args.json {
        let stages: Vec<Value> = stages
            .iter()
            .map(|one| {
                json!({
                    "name": one.name,
                    "state": one.state,
                    "changes": one.changes.iter().map(change).collect::<Vec<_>>(),
                })
            })
            .collect();
        let mut metrics = Map::new();
        for one in &measures {
            metrics.entry(&one.stage).or_insert_with(|| json!({}))[&one.name] =
                json!([one.a, one.b]);
        }
        output.json(&json!({
            "a": a.id, "b": b.id, "params": params, "stages": stages, "metrics": metrics,
        }))?;
        return Ok(Exit::Done);
    }
    output.data(text(&params, &stages, &measures, output))?;
    Ok(Exit::Done)
}

/// An ingredient that changed, for programs.
pub fn change(change: &Change) -> Value {
    json!({ "ingredient": change.ingredient, "old": change.old, "new": change.new })
}

fn differing(a: &Map<String, Value>, b: &Map<String, Value>) -> Map<String, Value> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    names
        .into_iter()
        .filter(|name| a.get(*name) != b.get(*name))
        .map(|name| (name.clone(), json!([a.get(name), b.get(name)])))
        .collect()
}

fn compare(a: &RunRecord, b: &RunRecord) -> Result<Vec<Compared>, Failure> {
    let mut all = Vec::new();
    let (olds, news) = (by_name(a), by_name(b));
    for new in &b.stages {
        let (state, changes) = match olds.get(new.name.as_str()) {
            None => ("only in the second", Vec::new()),
            Some(old) if old.key == new.key && old.artifact == new.artifact => ("same", Vec::new()),
            Some(old) if old.key == new.key => ("same key, other bytes", Vec::new()),
            Some(old) if old.artifact == new.artifact => ("same bytes", changes(old, new)?),
            Some(old) => ("differs", changes(old, new)?),
        };
        all.push(Compared {
            name: new.name.clone(),
            state,
            changes,
        });
    }
    let is_gone = |old: &&StageRecord| !news.contains_key(old.name.as_str());
    for old in a.stages.iter().filter(is_gone) {
        all.push(Compared {
            name: old.name.clone(),
            state: "only in the first",
            changes: Vec::new(),
        });
    }
    Ok(all)
}

fn by_name(run: &RunRecord) -> BTreeMap<&str, &StageRecord> {
    let named = run.stages.iter().map(|stage| (stage.name.as_str(), stage));
    named.collect()
}

fn changes(old: &StageRecord, new: &StageRecord) -> Result<Vec<Change>, Failure> {
    let read = |stage: &StageRecord| {
        Ingredients::from_bytes(&stage.ingredients).map_err(|error| {
            Failure::usage(format!(
                "the key of `{}` cannot be read: {error}",
                stage.name
            ))
        })
    };
    Ok(read(new)?.changes_since(&read(old)?))
}

fn measures(place: &Workplace, a: &RunRecord, b: &RunRecord) -> Vec<Measure> {
    let mut all = Vec::new();
    let names: BTreeSet<&str> = a
        .stages
        .iter()
        .chain(&b.stages)
        .map(|stage| stage.name.as_str())
        .collect();
    for stage in names {
        let of = |run: &RunRecord| {
            run.stage(stage)
                .and_then(|stage| place.metrics(&stage.artifact))
                .unwrap_or_default()
        };
        let (a, b) = (of(a), of(b));
        let mut seen: Vec<&String> = a.keys().collect();
        seen.extend(b.keys().filter(|name| !a.contains_key(*name)));
        for name in seen {
            let value = |values: &Map<String, Value>| values.get(name).and_then(Value::as_f64);
            let (a, b) = (value(&a), value(&b));
            if a.is_some() || b.is_some() {
                all.push(Measure {
                    stage: stage.to_owned(),
                    name: name.clone(),
                    a,
                    b,
                });
            }
        }
    }
    all
}

fn text(
    params: &Map<String, Value>,
    stages: &[Compared],
    measures: &[Measure],
    output: Output,
) -> String {
    let style = output.out;
    let mut text = String::new();
    if !params.is_empty() {
        let mut rows = Rows::new(style, &["param", "first", "second"]);
        for (name, values) in params {
            let value = |index: usize| values[index].as_str().unwrap_or("-").to_owned();
            let (a, b) = (value(0), value(1));
            rows.row([
                (name.as_str(), Tone::Plain),
                (a.as_str(), Tone::Plain),
                (b.as_str(), Tone::Changed),
            ]);
        }
        text.push_str(&rows.finish());
        text.push('\n');
    }
    let mut rows = Rows::new(style, &["stage", "", "what of its key", "first", "second"]);
    for stage in stages {
        let tone = match stage.state {
            "same" => Tone::Faint,
            _ => Tone::Changed,
        };
        let head = [(stage.name.as_str(), Tone::Plain), (stage.state, tone)];
        if stage.changes.is_empty() {
            rows.row(head);
        }
        for (index, change) in stage.changes.iter().enumerate() {
            let head = if index == 0 {
                head
            } else {
                [("", Tone::Plain), ("", Tone::Plain)]
            };
            let old = change.old.as_deref().unwrap_or("-");
            let new = change.new.as_deref().unwrap_or("-");
            rows.row(head.into_iter().chain([
                (change.ingredient.as_str(), Tone::Plain),
                (old, Tone::Plain),
                (new, Tone::Changed),
            ]));
        }
    }
    text.push_str(&rows.finish());
    if !measures.is_empty() {
        text.push('\n');
        let mut rows = Rows::new(style, &["metrics", "", ">first", ">second", ">change"]);
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        for one in measures {
            let difference = one.a.zip(one.b).map(|(a, b)| b - a);
            let difference = match difference {
                None | Some(0.0) => String::new(),
                Some(change) => format!("{change:+.4}"),
            };
            rows.row([
                (one.stage.as_str(), Tone::Plain),
                (one.name.as_str(), Tone::Plain),
                (shown(one.a).as_str(), Tone::Plain),
                (shown(one.b).as_str(), Tone::Plain),
                (difference.as_str(), Tone::Changed),
            ]);
        }
        text.push_str(&rows.finish());
    }
    text
}
