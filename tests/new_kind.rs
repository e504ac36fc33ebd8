//! A stage kind added from outside: a type for its parameters, an `impl Kind`, and one line in a list. That is all;
//! unknown keys, wiring, the key, the cache and the lock follow from the type.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taper_engine::{
    AnyKind, Context, Events, Input, Kind, Kinds, LocalExecutor, Makes, NoSettings, Options,
    Origin, RunOptions, Stage, StageError, StageState, Surroundings, check_file, run,
};
use taper_stages::artifact::Dataset;

/// Measures the texts of a data set: how many rows, and the mean number of words.
struct Measure;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The data set.
    data: Input<Dataset>,
    /// The column of texts.
    #[serde(default = "text")]
    column: String,
}

fn text() -> String {
    "text".to_owned()
}

impl Kind for Measure {
    type Params = Params;
    type Settings = NoSettings;
    type Resolved = ();

    const NAME: &'static str = "measure";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "measure: { data: corpus }";

    fn makes(&self, _: &Params) -> Makes {
        Makes::One(taper_cache::ArtifactType::Metrics)
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let data = context.open(&stage.params.data)?;
        let mut metrics = serde_json::Map::new();
        for (split, table) in data.splits() {
            let texts = table.text(&stage.params.column)?;
            let words: usize = texts.iter().map(|t| t.split_whitespace().count()).sum();
            let mean = words as f64 / texts.len().max(1) as f64;
            metrics.insert(format!("{split}_rows"), texts.len().into());
            metrics.insert(format!("{split}_words"), mean.into());
        }
        let json = serde_json::Value::Object(metrics).to_string();
        fs_err::write(context.create("metrics.json")?, json)?;
        Ok(())
    }
}

static KINDS: &[&dyn AnyKind] = &[&taper_stages::download::Download, &Measure];

/// Runs `text` in `folder`; gives the states of its stages and its metrics.
fn run_text(folder: &Path, text: &str) -> (Vec<StageState>, serde_json::Value) {
    let kinds = Kinds::new(KINDS);
    let file = folder.join("measure.yaml");
    fs_err::write(&file, text).expect("the folder can be written");
    let checked = check_file(kinds, &file, folder, &Options::default());
    let plan = checked.plan.expect("the pipeline is right");
    let cache = Some(folder.join("cache"));
    let surroundings = Surroundings::open(&file, cache, Events::nowhere()).expect("a cache");
    let origin = Origin {
        file,
        text: text.to_owned(),
        overrides: std::collections::BTreeMap::new(),
    };
    let executor = LocalExecutor { kinds };
    let options = RunOptions::default();
    let report = run(&plan, &origin, &surroundings, &executor, &options).expect("it runs");
    let states = report.stages.iter().map(|stage| stage.state).collect();
    (states, serde_json::json!(report.metrics))
}

#[test]
fn a_new_kind_is_wired_keyed_and_cached() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "taper: 1\nname: measure\nstages:\n  corpus:\n    download: { sample: acceptability, rows: { train: 40, test: 10 } }\n  sizes:\n    measure: { data: corpus }\n";
    let (states, metrics) = run_text(folder.path(), text);
    assert_eq!(states, [StageState::Ran, StageState::Ran]);
    assert_eq!(metrics["sizes"]["train_rows"], 40);
    assert!(metrics["sizes"]["test_words"].as_f64() > Some(2.0));

    // Another name and the default written out: the same keys, so nothing runs.
    let renamed = text
        .replace("sizes", "lengths")
        .replace("data: corpus }", "data: corpus, column: text }");
    let (states, _) = run_text(folder.path(), &renamed);
    assert_eq!(states, [StageState::Cached, StageState::Cached]);
}

#[test]
fn a_new_kind_gets_its_diagnostics() {
    let text = b"taper: 1\nname: measure\nstages:\n  sizes:\n    measure: { dat: corpus }\n";
    let options = Options::default();
    let checked = taper_engine::check(Kinds::new(KINDS), "measure.yaml", text, None, &options);
    assert!(checked.plan.is_none());
    let said = checked.report.render(taper_engine::Look::Plain, 100);
    assert!(
        said.contains("has no parameter `dat`") && said.contains("`data`"),
        "{said}"
    );
}
