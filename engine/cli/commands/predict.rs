//! `taper predict`.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read};
use std::path::Path;

use serde_json::{Map, Value, json};
use taper_cache::{ArtifactType, Blob, BlobName, Digest, Manifest, Store};
use taper_engine::{Artifact as _, ArtifactFiles, Device, need_threads, open_artifact};
use taper_stages::artifact::Model;
use taper_stages::inference::TextClassifier;

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::number;
use crate::workplace::Workplace;

/// The most rows of stdin that are answered together.
const TOGETHER: usize = 64;

/// Ask a trained model about texts: label and score of each class.
///
/// The model is a stage of a pipeline that has been run, a stage of a run, or a folder with the
/// files of a Hugging Face model. Without texts, each line of stdin is one; of pairs, the two
/// texts of a row are set apart by a tab.
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
    need_threads()?;
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
    let mut lines = Lines::new(std::io::stdin());
    loop {
        let mut texts = Vec::new();
        let end = loop {
            match lines.next() {
                Ok(Some(text)) => texts.push(text),
                Ok(None) => break Some(Ok(Exit::Done)),
                Err(error) => break Some(Err(error)),
            }
            // Whoever feeds us line by line gets each answer at once.
            if texts.len() == TOGETHER || !lines.next_is_there() {
                break None;
            }
        };
        for answer in ask(&mut classifier, &texts)? {
            if args.json {
                output.json_line(&answer.json())?;
            } else {
                output.data(answer.text(output))?;
            }
        }
        if let Some(end) = end {
            return end;
        }
    }
}

/// The lines of an input, without what ends them.
struct Lines<R> {
    input: BufReader<R>,
    number: u64,
}

impl<R: Read> Lines<R> {
    fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(1 << 16, input),
            number: 0,
        }
    }

    /// The next line; waits for it.
    fn next(&mut self) -> Result<Option<String>, Failure> {
        let mut line = Vec::new();
        if self.input.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.pop_if(|byte| *byte == b'\n').is_some() {
            line.pop_if(|byte| *byte == b'\r');
        }
        String::from_utf8(line).map(Some).map_err(|error| {
            Failure::usage(format!(
                "line {} of stdin is not UTF-8, from byte {} on",
                self.number,
                error.utf8_error().valid_up_to() + 1
            ))
            .help("convert it: `iconv -f latin1 -t utf-8`, if that is what it is; the lines before it are answered")
        })
    }

    /// Whether the next line has arrived already.
    fn next_is_there(&self) -> bool {
        self.input.buffer().contains(&b'\n')
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
    if !name.contains(':') && name.parse::<Digest>().is_err() {
        return Err(Failure::usage(format!(
            "there is no folder `{name}`, and it names no stage"
        ))
        .help("write PIPELINE.yaml:STAGE, RUN:STAGE, or the folder of a Hugging Face model"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_as_files_of_all_systems_have_them() {
        let mut lines = Lines::new(&b"one\ntwo\r\n\n\xf0\x9f\x98\x80\ncut\r"[..]);
        assert!(!lines.next_is_there());
        for (text, more) in [
            ("one", true),
            ("two", true),
            ("", true),
            ("\u{1f600}", false),
        ] {
            assert_eq!(lines.next().ok().flatten().as_deref(), Some(text));
            assert_eq!(lines.next_is_there(), more);
        }
        assert_eq!(lines.next().ok().flatten().as_deref(), Some("cut\r"));
        assert!(lines.next().is_ok_and(|end| end.is_none()));
    }

    #[test]
    fn what_is_not_utf8_is_placed() {
        let mut lines = Lines::new(&b"one\ntw\xffo\n"[..]);
        assert!(lines.next().is_ok());
        let Err(error) = lines.next() else {
            panic!("it is no text");
        };
        let told = format!("{:?}", error.told);
        assert!(
            told.contains("line 2 of stdin is not UTF-8, from byte 3 on"),
            "{told}"
        );
    }
}
