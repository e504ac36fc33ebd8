//! `taper predict`.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

use serde_json::{Map, Value, json};
use taper_cache::{ArtifactType, Blob, BlobName, Manifest, Store};
use taper_engine::{Artifact as _, ArtifactFiles, Device, open_artifact};
use taper_stages::artifact::Model;
use taper_stages::inference::TextClassifier;

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::number;
use crate::workplace::Workplace;

/// Rows that are read from stdin before they are answered.
const TOGETHER: usize = 64;

/// Ask a trained model about texts: label and score of each class.
///
/// The model is a stage of a pipeline that has been run, a stage of a run, or a folder with the files of a
/// Hugging Face model. Without texts, each line of stdin is one; of pairs, the two texts of a row are set
/// apart by a tab.
///
///     taper predict pipeline.yaml:model "A film that one forgets."
///     taper predict 3f2a9c:model --json < sentences.txt
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// PIPELINE.yaml:STAGE, RUN:STAGE, or a folder.
    model: String,
    /// The texts.
    text: Vec<String>,
    /// Tell a program: a list of {"text", "label", "scores": {…}}; of stdin, one a line.
    #[arg(long)]
    json: bool,
}

/// Asks.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let model = Model::open(open(&args.model)?)?;
    let mut classifier = TextClassifier::open(&model, Device::Cpu)?;
    if !args.text.is_empty() {
        let answers = ask(&mut classifier, &args.text)?;
        if args.json {
            let rows: Vec<Value> = answers.iter().map(Answer::json).collect();
            output.json(&rows)?;
        } else {
            for answer in &answers {
                output.data(answer.text(output))?;
            }
        }
        return Ok(Exit::Done);
    }
    if std::io::stdin().is_terminal() {
        output.say("a text a line; Ctrl-D ends");
    }
    let together = if std::io::stdin().is_terminal() {
        1
    } else {
        TOGETHER
    };
    let mut lines = std::io::stdin().lock().lines();
    loop {
        let texts: Vec<String> = lines.by_ref().take(together).collect::<Result<_, _>>()?;
        if texts.is_empty() {
            return Ok(Exit::Done);
        }
        for answer in ask(&mut classifier, &texts)? {
            if args.json {
                output.json_line(&answer.json())?;
            } else {
                output.data(answer.text(output))?;
            }
        }
    }
}

/// What the model says of a text.
struct Answer {
    text: String,
    label: String,
    /// The probability of each class, in the order of the classes.
    scores: Vec<(String, f64)>,
}

impl Answer {
    fn json(&self) -> Value {
        let scores: Map<String, Value> = self
            .scores
            .iter()
            .map(|(name, score)| (name.clone(), json!(score)))
            .collect();
        json!({ "text": self.text, "label": self.label, "scores": scores })
    }

    fn text(&self, output: Output) -> String {
        let style = output.out;
        let scores: Vec<String> = self
            .scores
            .iter()
            .map(|(name, score)| format!("{name} {}", number(*score)))
            .collect();
        format!(
            "{}\t{}\t{}",
            style.strong(&self.label),
            style.faint(scores.join("  ")),
            self.text
        )
    }
}

fn ask(classifier: &mut TextClassifier, texts: &[String]) -> Result<Vec<Answer>, Failure> {
    let columns = classifier.columns().len();
    let rows: Vec<Vec<&str>> = texts
        .iter()
        .map(|text| match columns {
            1 => vec![text.as_str()],
            _ => text.splitn(columns, '\t').collect(),
        })
        .collect();
    if let Some(short) = rows.iter().position(|row| row.len() != columns) {
        return Err(Failure::usage(format!(
            "the model reads {columns} texts together, and `{}` is one",
            texts[short]
        ))
        .help("set them apart by a tab"));
    }
    let borrowed: Vec<&[&str]> = rows.iter().map(Vec::as_slice).collect();
    let answers = classifier.ask(&borrowed)?;
    let classes = classifier.classes();
    let probabilities = answers.probabilities.chunks_exact(classes.len());
    Ok(texts
        .iter()
        .zip(&answers.predictions)
        .zip(probabilities)
        .map(|((text, class), scores)| Answer {
            text: text.clone(),
            label: classes[*class as usize].clone(),
            scores: classes
                .iter()
                .cloned()
                .zip(scores.iter().copied())
                .collect(),
        })
        .collect())
}

/// The files of the model: of the cache, verified, or of a folder.
fn open(name: &str) -> Result<ArtifactFiles, Failure> {
    let folder = Path::new(name);
    if folder.is_dir() {
        return of_folder(folder);
    }
    let start = name.rsplit_once(':').map_or("", |(place, _)| place);
    let place = match Path::new(start).is_file() {
        true => Workplace::of(Path::new(start))?,
        false => Workplace::here()?,
    };
    let (stage, manifest) = place.named_artifact(name)?;
    if manifest.artifact_type != ArtifactType::Model {
        return Err(Failure::usage(format!(
            "`{stage}` made {}, not a model",
            manifest.artifact_type
        ))
        .help("name the stage of kind `train`"));
    }
    Ok(open_artifact(&place.store, &manifest.digest())?)
}

/// The plain files of a folder as those of an artifact.
fn of_folder(folder: &Path) -> Result<ArtifactFiles, Failure> {
    let mut blobs = std::collections::BTreeMap::new();
    let mut paths = std::collections::BTreeMap::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.and_then(|name| BlobName::new(name).ok()) else {
            continue;
        };
        if path.is_file() {
            let blob: Blob = Store::digest_of(&path)?;
            paths.insert(blob.digest, path);
            blobs.insert(name, blob);
        }
    }
    let manifest = Manifest::new(ArtifactType::Model, blobs)
        .map_err(|error| Failure::usage(format!("{}: {error}", folder.display())))?;
    Ok(ArtifactFiles::new(manifest, move |digest| {
        paths.get(digest).cloned().unwrap_or_default()
    }))
}
