//! Whole figures from files of inputs: their bytes repeat, and what is wrong is said.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use taper_cache::{Blob, BlobName, Digest, Manifest};
use taper_engine::{ArtifactFiles, Device, Events, Folders, Reporter};

use super::*;
use crate::artifact::predictions::PredictionSplit;

/// An artifact of these files, below `folder`.
fn artifact(folder: &Path, artifact_type: ArtifactType, files: &[(&str, &[u8])]) -> ArtifactFiles {
    let mut blobs = BTreeMap::new();
    for (name, bytes) in files {
        let digest = Digest::of(bytes);
        fs_err::write(folder.join(digest.to_string()), bytes).expect("a temporary folder");
        let blob = Blob {
            digest,
            size: bytes.len() as u64,
        };
        blobs.insert(BlobName::new(*name).expect("a good name"), blob);
    }
    let manifest = Manifest::new(artifact_type, blobs).expect("good names");
    let folder = folder.to_owned();
    ArtifactFiles::new(manifest, move |digest| folder.join(digest.to_string()))
}

struct Workplace {
    folder: tempfile::TempDir,
    artifacts: Vec<ArtifactFiles>,
}

impl Workplace {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            artifacts: Vec::new(),
        }
    }

    /// Adds an artifact; says how a parameter names it.
    fn add(&mut self, artifact_type: ArtifactType, files: &[(&str, &[u8])]) -> Digest {
        let files = artifact(self.folder.path(), artifact_type, files);
        let digest = files.digest;
        self.artifacts.push(files);
        digest
    }

    fn history(&mut self, lines: &str) -> Digest {
        self.add(ArtifactType::Model, &[("history.jsonl", lines.as_bytes())])
    }

    fn metrics(&mut self, value: &Value) -> Digest {
        self.add(
            ArtifactType::Metrics,
            &[("metrics.json", value.to_string().as_bytes())],
        )
    }

    /// Runs a `plot` stage; gives the folder with its files.
    fn plot(&self, params: PlotParams) -> Result<tempfile::TempDir, StageError> {
        if let Some(error) = Plot.check(&params).pop() {
            return Err(error);
        }
        let out = tempfile::tempdir().expect("a temporary folder");
        let folders = Folders {
            out: out.path().to_owned(),
            scratch: out.path().to_owned(),
            record: out.path().to_owned(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let reporter = Reporter::new("figure", Events::nowhere(), stop);
        let artifacts = self.artifacts.clone();
        let context = Context::new(folders, 0, Device::Cpu, false, reporter, move |digest| {
            let found = artifacts.iter().find(|files| files.digest == *digest);
            found.cloned().ok_or_else(|| StageError::failed("unknown"))
        });
        let stage = Stage {
            params,
            settings: NoSettings {},
            resolved: None,
        };
        Plot.run(&stage, &context).map(|()| out)
    }
}

fn empty() -> PlotParams {
    serde_json::from_value(json!({})).expect("every parameter has a default")
}

fn list<A: taper_engine::Artifact>(digests: &[Digest]) -> Option<Sources<A>> {
    let input = |digest: &Digest| {
        let bytes =
            serde::de::value::BytesDeserializer::<serde::de::value::Error>::new(digest.as_bytes());
        taper_engine::Input::deserialize(bytes).expect("32 bytes are a digest")
    };
    Some(Sources::List(digests.iter().map(input).collect()))
}

/// A training that goes well, and from step 1500 too far.
fn history(steps: u32, bend: f64) -> String {
    let mut lines = String::new();
    let mut noise = 12345_u32;
    for step in (50..=steps).step_by(50) {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let wobble = f64::from(noise >> 16) / 65536.0 - 0.5;
        let done = f64::from(step) / f64::from(steps);
        let loss = 0.1 + 0.6 / (1.0 + bend * done) + 0.12 * wobble;
        let mut line = json!({ "step": step, "epoch": done * 2.0, "loss": loss, "lr": 1e-3 });
        if step % 500 == 0 {
            line["eval_loss"] = json!(0.2 + 0.5 / (1.0 + bend * done) + 0.15 * done * done);
            line["eval_accuracy"] = json!(0.95 - 0.4 / (1.0 + bend * done));
        }
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    lines
}

/// Names, sizes and digests of the files of a figure; where `TAPER_FIGURES` names a folder, they are
/// kept there to be looked at.
fn digests(name: &str, folder: &tempfile::TempDir) -> String {
    let mut lines = String::new();
    for extension in ["json", "png", "svg"] {
        let path = folder.path().join(format!("plot.{extension}"));
        let bytes = fs_err::read(&path).expect("the figure is written");
        lines.push_str(&format!("{extension} {}\n", Digest::of(&bytes).short()));
        if let Some(keep) = std::env::var_os("TAPER_FIGURES") {
            let keep = Path::new(&keep).join(format!("{name}.{extension}"));
            fs_err::write(keep, &bytes).expect("the folder is there");
        }
    }
    lines
}

#[test]
fn learning_curves_of_one_training() {
    let mut place = Workplace::new();
    let model = place.history(&history(5000, 6.0));
    let mut params = empty();
    params.history = list(&[model]);
    params.title = Some("TextCNN on IMDB".to_owned());
    let folder = place.plot(params).expect("a figure");
    insta::assert_snapshot!("learning", digests("learning", &folder));
    let svg = fs_err::read_to_string(folder.path().join("plot.svg")).expect("an SVG");
    insta::assert_snapshot!("learning_curves", svg);
}

#[test]
fn learning_curves_of_several_trainings_and_measures() {
    let mut place = Workplace::new();
    let runs = [history(5000, 6.0), history(5000, 2.5), history(4000, 14.0)];
    let runs: Vec<Digest> = runs.iter().map(|lines| place.history(lines)).collect();
    let mut params = empty();
    params.history = list(&runs);
    params.x = Axis::Epoch;
    params.y.0.push("eval_accuracy".to_owned());
    let folder = place.plot(params).expect("a figure");
    insta::assert_snapshot!("several", digests("several", &folder));
}

#[test]
fn confusion_matrices() {
    let mut place = Workplace::new();
    let two = place.metrics(&json!({
        "accuracy": 0.9,
        "confusion_matrix": {
            "labels": ["unacceptable", "acceptable"],
            "counts": [[451, 49], [23, 12477]],
        },
    }));
    let mut params = empty();
    params.metrics = list(&[two]);
    params.title = Some("Held-out sentences".to_owned());
    let folder = place.plot(params).expect("a figure");
    insta::assert_snapshot!("matrix", digests("matrix", &folder));
    let svg = fs_err::read_to_string(folder.path().join("plot.svg")).expect("an SVG");
    insta::assert_snapshot!("confusion_matrix", svg);

    let labels: Vec<String> = (0..14).map(|i| format!("a class called {i}")).collect();
    let counts: Vec<Vec<u64>> = (0..14_u64)
        .map(|i| {
            (0..14_u64)
                .map(|j| if i == j { 80 + i } else { (i * j) % 9 })
                .collect()
        })
        .collect();
    let many = place.metrics(&json!({"confusion_matrix": {"labels": labels, "counts": counts}}));
    let mut params = empty();
    params.metrics = list(&[many, two]);
    let folder = place.plot(params).expect("a figure");
    insta::assert_snapshot!("matrices", digests("matrices", &folder));
}

#[test]
fn curves_of_predictions() {
    let split = |shift: f32| PredictionSplit {
        classes: vec!["neg".to_owned(), "pos".to_owned()],
        labels: Some((0..400).map(|row| row % 2).collect()),
        predictions: vec![0; 400],
        scores: (0..400_u32)
            .flat_map(|row| {
                let noise = ((row * 7919) % 997) as f32 / 997.0;
                let score = 0.6 * noise + shift * (row % 2) as f32;
                [1.0 - score, score]
            })
            .collect(),
    };
    let predictions = [split(0.2), split(0.4)]
        .map(|split| Predictions::new(std::iter::once(("test".to_owned(), split)).collect()));
    let names = ["small", "large"].map(str::to_owned);
    let opened: Vec<(String, Scored<'_>)> = names
        .into_iter()
        .zip(&predictions)
        .map(|(name, one)| (name, Scored::of(one, None).expect("known classes")))
        .collect();
    for (name, sort) in [("roc", Sort::Roc), ("precision", Sort::PrecisionRecall)] {
        let (drawing, data) = thresholds(&empty(), sort, &opened).expect("a figure");
        let out = tempfile::tempdir().expect("a temporary folder");
        let text = svg::write(&drawing);
        fs_err::write(
            out.path().join("plot.png"),
            png::paint(&text).expect("a PNG"),
        )
        .expect("written");
        fs_err::write(out.path().join("plot.svg"), text).expect("written");
        fs_err::write(out.path().join("plot.json"), data.to_string()).expect("written");
        insta::assert_snapshot!(name, digests(name, &out));
    }
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let mut place = Workplace::new();
    let model = place.history(&history(500, 2.0));
    let scores = place.metrics(&json!({ "accuracy": 0.5 }));
    let downloaded = place.add(ArtifactType::Model, &[("config.json", b"{}")]);
    let told = |params: PlotParams| {
        let error = place.plot(params).expect_err("no figure");
        format!("{error}\n  {}", error.help.as_deref().unwrap_or_default())
    };
    let with = |change: fn(&mut PlotParams)| {
        let mut params = empty();
        params.history = list(&[model]);
        change(&mut params);
        params
    };
    let mut metrics = empty();
    metrics.metrics = list(&[scores]);
    let mut untrained = empty();
    untrained.history = list(&[downloaded]);
    let all = [
        told(empty()),
        told(with(|params| params.figure = Some(Figure::Roc))),
        told(with(|params| params.y = Names(vec!["eval_f1".to_owned()]))),
        told(with(|params| params.y = Names(Vec::new()))),
        told(with(|params| params.width = Some(12))),
        told(metrics),
        told(untrained),
    ];
    insta::assert_snapshot!(all.join("\n"), @r"
    nothing to draw: one of `history`, `metrics` and `predictions` is needed
      for learning curves, `history: MODEL`
    a history cannot be drawn as `roc`
      of a history, taper draws `learning_curves`
    training logged no `eval_f1`
      it logged epoch, eval_accuracy, eval_loss, loss, lr, step
    nothing is to be shown
      `y: [loss, eval_loss]` is what most want
    the width has to be 240 to 4000 pixels
      without it, the figure has a size that suits what it shows
    the metrics have no confusion matrix
      name it in the `evaluate` stage: `metrics: [accuracy, confusion_matrix]`
    the model has no `history.jsonl`: it was not trained here
      learning curves show a model that a `train` stage made
    ");
}

#[test]
fn one_source_and_a_list_of_one_are_the_same() {
    let one: PlotParams = serde_json::from_value(json!({"history": "model"})).expect("one");
    let list: PlotParams = serde_json::from_value(json!({"history": ["model"]})).expect("a list");
    let text = |params: &PlotParams| serde_json::to_string(params).expect("JSON");
    assert_eq!(text(&one), text(&list));
    let named = json!({"history": {"small": "a", "large": "b"}});
    let named: PlotParams = serde_json::from_value(named).expect("a map");
    let history = named.history.expect("given");
    let names: Vec<String> = history.named().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["large", "small"]);
}
