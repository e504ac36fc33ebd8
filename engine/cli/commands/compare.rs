//! `taper compare`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use taper_cache::{Digest, RunRecord, Wanted};

use super::show::params;
use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{Rows, Tone, number};
use crate::workplace::Workplace;

/// More columns than these make a row of each.
const SIDE_BY_SIDE: usize = 4;

/// Put runs, or the variants of one run, side by side: params, metrics, artifacts.
///
/// What is the same in all of them is left out. Without a run: the last run and the one of the
/// same pipeline before it. With one run: its variants.
///
///     taper compare
///     taper compare 3f2a9c 81b0d4 77aa01 --sort accuracy
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Runs: the beginnings of their ids.
    runs: Vec<String>,
    /// What is the same in all, too.
    #[arg(long)]
    all: bool,
    /// The greatest of this metric first: `accuracy`, or `STAGE.accuracy`.
    #[arg(long, value_name = "METRIC")]
    sort: Option<String>,
    /// Tell a program: {"runs", "params", "metrics", "artifacts"}, a value for each run.
    #[arg(long)]
    json: bool,
}

/// A run, or one variant of it.
#[derive(Default)]
struct Column {
    run: String,
    pipeline: String,
    /// The values of the matrix, where it is a variant.
    variant: String,
    params: BTreeMap<String, String>,
    metrics: BTreeMap<(String, String), f64>,
    /// By stage.
    artifacts: BTreeMap<String, String>,
}

/// Compares.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let place = Workplace::here()?;
    let mut columns = match args.runs.as_slice() {
        [] => last_two(&place)?,
        [run] => variants(&place, &place.run(run)?)?,
        runs => {
            let runs = runs.iter().map(|run| Ok(whole(&place, &place.run(run)?)));
            runs.collect::<Result<_, Failure>>()?
        }
    };
    if let Some(metric) = &args.sort {
        sort(&mut columns, metric)?;
    }
    match args.json {
        true => output.json(&to_json(&columns))?,
        false => output.data(text(&columns, args.all, output))?,
    }
    Ok(Exit::Done)
}

/// The last run, and the last other one of the same pipeline.
fn last_two(place: &Workplace) -> Result<Vec<Column>, Failure> {
    let last = place.last_run()?;
    let wanted = Wanted::Pipeline(last.pipeline.clone());
    for summary in place.store.summaries(wanted)? {
        let summary = summary?;
        if summary.run != last.id {
            let before = place.record(&summary.run)?;
            return Ok(vec![whole(place, &before), whole(place, &last)]);
        }
    }
    let failure = Failure::usage(format!("there is only one run of `{}`", last.pipeline));
    Err(failure.help("name the runs: `taper log` lists them"))
}

/// The variants of a run, a column each. A stage that follows some params of the matrix only is part of every
/// variant with these values.
fn variants(place: &Workplace, run: &RunRecord) -> Result<Vec<Column>, Failure> {
    // The stages of each variant, by its parts.
    let mut all: BTreeMap<Variant<'_>, (&str, Vec<Made<'_>>)> = BTreeMap::new();
    for stage in &run.stages {
        let (name, variant) = split(&stage.name);
        let (_, stages) = all.entry(parts(variant)).or_insert((variant, Vec::new()));
        stages.push((name, &stage.artifact));
    }
    // Which params variants follow: a few, where there may be thousands of variants.
    let shapes: BTreeSet<BTreeSet<&str>> = all.keys().map(shape).collect();
    let covered = all.keys().flat_map(|variant| smaller(variant, &shapes));
    let covered: BTreeSet<Variant<'_>> = covered.collect();
    let whole = all
        .iter()
        .filter(|(variant, _)| !covered.contains(*variant));
    let mut whole: Vec<_> = whole.map(|(variant, (text, _))| (*text, variant)).collect();
    whole.sort_unstable();
    if whole.len() < 2 {
        let short = run.id.short();
        let failure = Failure::usage(format!("the run {short} has no variants to compare"));
        return Err(failure.help(format!("taper compare {short} ANOTHER")));
    }
    let params = params(run);
    let column = |(text, variant): (&str, &Variant<'_>)| {
        let mut column = Column {
            run: run.id.to_string(),
            pipeline: run.pipeline.clone(),
            variant: text.to_owned(),
            params: values(text, &params),
            ..Column::default()
        };
        let mut of = smaller(variant, &shapes);
        of.push(variant.clone());
        for (_, stages) in of.iter().filter_map(|one| all.get(one)) {
            for (name, artifact) in stages {
                column.add(place, name, artifact);
            }
        }
        column
    };
    Ok(whole.into_iter().map(column).collect())
}

/// A stage's name and what it made.
type Made<'m> = (&'m str, &'m Digest);
/// A variant, as its parts: `lr=1e-3`.
type Variant<'v> = BTreeSet<&'v str>;

fn parts(variant: &str) -> Variant<'_> {
    variant.split(',').filter(|part| !part.is_empty()).collect()
}

/// The param that a part of a variant gives a value.
fn param(part: &str) -> &str {
    part.split_once('=').map_or(part, |(name, _)| name)
}

/// The params that a variant follows.
fn shape<'v>(variant: &Variant<'v>) -> BTreeSet<&'v str> {
    variant.iter().map(|part| param(part)).collect()
}

/// What a variant is where fewer params are followed.
fn smaller<'v>(variant: &Variant<'v>, shapes: &BTreeSet<BTreeSet<&str>>) -> Vec<Variant<'v>> {
    let own = shape(variant);
    let below = shapes
        .iter()
        .filter(|names| names.is_subset(&own) && **names != own);
    let limited = below.map(|names| {
        let kept = variant.iter().filter(|part| names.contains(param(part)));
        kept.copied().collect()
    });
    limited.collect()
}

/// `model[lr=1e-3]` is `model` in the variant `lr=1e-3`.
fn split(stage: &str) -> (&str, &str) {
    let parts = stage.strip_suffix(']');
    parts
        .and_then(|stage| stage.split_once('['))
        .unwrap_or((stage, ""))
}

/// The params of a variant: those of the matrix have one value there.
fn values(variant: &str, all: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut values = texts(all);
    for (name, value) in variant.split(',').filter_map(|one| one.split_once('=')) {
        values.insert(name.trim().to_owned(), value.to_owned());
    }
    values
}

fn texts(params: &Map<String, Value>) -> BTreeMap<String, String> {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    params
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

/// A run as one column.
fn whole(place: &Workplace, run: &RunRecord) -> Column {
    let mut column = Column {
        run: run.id.to_string(),
        pipeline: run.pipeline.clone(),
        params: texts(&params(run)),
        ..Column::default()
    };
    for stage in &run.stages {
        column.add(place, &stage.name, &stage.artifact);
    }
    column
}

impl Column {
    fn add(&mut self, place: &Workplace, stage: &str, artifact: &Digest) {
        self.artifacts
            .insert(stage.to_owned(), artifact.to_string());
        for (measure, value) in place.metrics(artifact).unwrap_or_default() {
            if let Some(value) = value.as_f64() {
                self.metrics.insert((stage.to_owned(), measure), value);
            }
        }
    }

    /// The value of a metric that is named with its stage or without.
    fn metric(&self, name: &str) -> Option<f64> {
        let is_named = |stage: &str, measure: &str| {
            measure == name
                || name
                    .strip_prefix(stage)
                    .and_then(|rest| rest.strip_prefix('.'))
                    == Some(measure)
        };
        let mut found = self.metrics.iter();
        found
            .find(|((stage, measure), _)| is_named(stage, measure))
            .map(|(_, value)| *value)
    }

    fn title(&self) -> &str {
        match self.variant.as_str() {
            "" => &self.run[..12],
            variant => variant,
        }
    }
}

/// The greatest first; those that have no such metric last.
fn sort(columns: &mut [Column], metric: &str) -> Result<(), Failure> {
    if columns.iter().all(|column| column.metric(metric).is_none()) {
        let measures = columns.iter().flat_map(|column| column.metrics.keys());
        let measures: BTreeSet<&str> = measures.map(|(_, measure)| measure.as_str()).collect();
        let failure = Failure::usage(format!("none of the runs has the metric `{metric}`"));
        let help = taper_engine::diagnostic::suggest(metric, "they have", measures);
        return Err(match help {
            Some(help) => failure.help(help),
            None => failure,
        });
    }
    columns.sort_by(|a, b| match (a.metric(metric), b.metric(metric)) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    });
    Ok(())
}

/// One thing in which runs can differ.
struct Line {
    section: &'static str,
    name: String,
    values: Vec<Option<String>>,
    /// Last against first, of numbers.
    change: Option<f64>,
}

impl Line {
    fn differs(&self) -> bool {
        self.values.iter().any(|value| *value != self.values[0])
    }
}

/// The keys of all columns in one of their maps, each once.
fn keys<'c, K: Ord + 'c, V: 'c>(
    columns: &'c [Column],
    map: impl Fn(&'c Column) -> &'c BTreeMap<K, V>,
) -> BTreeSet<&'c K> {
    columns
        .iter()
        .flat_map(|column| map(column).keys())
        .collect()
}

fn lines(columns: &[Column]) -> Vec<Line> {
    let line = |section, name: String, values| Line {
        section,
        name,
        values,
        change: None,
    };
    let mut lines = Vec::new();
    for name in keys(columns, |column| &column.params) {
        let values = columns
            .iter()
            .map(|column| column.params.get(name).cloned());
        lines.push(line("param", name.clone(), values.collect()));
    }
    for key in keys(columns, |column| &column.metrics) {
        let found: Vec<Option<f64>> = columns
            .iter()
            .map(|column| column.metrics.get(key).copied())
            .collect();
        let values = found.iter().map(|value| value.map(number)).collect();
        let ends = found
            .first()
            .copied()
            .flatten()
            .zip(found.last().copied().flatten());
        lines.push(Line {
            change: ends
                .map(|(first, last)| last - first)
                .filter(|by| *by != 0.0),
            ..line("metric", format!("{}.{}", key.0, key.1), values)
        });
    }
    for stage in keys(columns, |column| &column.artifacts) {
        let short = |digest: &String| digest[..12].to_owned();
        let values = columns
            .iter()
            .map(|column| column.artifacts.get(stage).map(short));
        lines.push(line("artifact", stage.clone(), values.collect()));
    }
    lines
}

fn text(columns: &[Column], all: bool, output: Output) -> String {
    let mut lines = lines(columns);
    let count = lines.len();
    lines.retain(|line| all || line.differs());
    let same = count - lines.len();
    let mut text = match (lines.is_empty(), columns.len() <= SIDE_BY_SIDE) {
        (true, _) => "they are the same\n".to_owned(),
        (false, true) => side_by_side(columns, &lines, output),
        (false, false) => one_below_the_other(columns, &lines, output),
    };
    if same > 0 && !lines.is_empty() {
        let rest = format!("\n{same} more are the same in all: --all shows them\n");
        text.push_str(&output.out.faint(rest));
    }
    text
}

/// A column a run.
fn side_by_side(columns: &[Column], lines: &[Line], output: Output) -> String {
    let titles: Vec<String> = columns
        .iter()
        .map(|one| format!(">{}", one.title()))
        .collect();
    let mut header = vec!["", ""];
    header.extend(titles.iter().map(String::as_str));
    if columns.len() == 2 {
        header.push(">change");
    }
    let mut rows = Rows::new(output.out, &header);
    let mut section = "";
    for line in lines {
        let begins = if section == line.section {
            ""
        } else {
            line.section
        };
        section = line.section;
        let change = line.change.map(|by| format!("{by:+.4}"));
        let mut cells = vec![(begins, Tone::Faint), (line.name.as_str(), Tone::Plain)];
        for value in &line.values {
            let is_first = *value == line.values[0];
            let tone = if is_first { Tone::Plain } else { Tone::Changed };
            cells.push((value.as_deref().unwrap_or("-"), tone));
        }
        if columns.len() == 2 {
            cells.push((change.as_deref().unwrap_or_default(), Tone::Changed));
        }
        rows.row(cells);
    }
    rows.finish()
}

/// A row a run, with its params and metrics; of artifacts there would be too many.
fn one_below_the_other(columns: &[Column], lines: &[Line], output: Output) -> String {
    let lines: Vec<&Line> = lines
        .iter()
        .filter(|line| line.section != "artifact")
        .collect();
    let names: Vec<String> = lines.iter().map(|line| format!(">{}", line.name)).collect();
    let header = std::iter::once("").chain(names.iter().map(String::as_str));
    let mut rows = Rows::new(output.out, &header.collect::<Vec<_>>());
    for (index, column) in columns.iter().enumerate() {
        let cells = lines.iter().map(|line| {
            let value = line.values[index].as_deref();
            (value.unwrap_or("-"), Tone::Plain)
        });
        rows.row(std::iter::once((column.title(), Tone::Plain)).chain(cells));
    }
    rows.finish()
}

fn to_json(columns: &[Column]) -> Value {
    let runs: Vec<Value> = columns
        .iter()
        .map(|one| {
            let variant = (!one.variant.is_empty()).then_some(&one.variant);
            json!({ "run": one.run, "pipeline": one.pipeline, "variant": variant })
        })
        .collect();
    let mut params = Map::new();
    for name in keys(columns, |column| &column.params) {
        let values: Vec<_> = columns.iter().map(|one| one.params.get(name)).collect();
        params.insert(name.clone(), json!(values));
    }
    let mut metrics = Map::new();
    for key in keys(columns, |column| &column.metrics) {
        let values: Vec<_> = columns.iter().map(|one| one.metrics.get(key)).collect();
        metrics.entry(&key.0).or_insert_with(|| json!({}))[&key.1] = json!(values);
    }
    let mut artifacts = Map::new();
    for stage in keys(columns, |column| &column.artifacts) {
        let values: Vec<_> = columns.iter().map(|one| one.artifacts.get(stage)).collect();
        artifacts.insert(stage.clone(), json!(values));
    }
    json!({ "runs": runs, "params": params, "metrics": metrics, "artifacts": artifacts })
}
