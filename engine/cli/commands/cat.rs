//! `taper cat`.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use serde_json::{Map, Value};
use taper_cache::{ArtifactType, Manifest};
use taper_stages::artifact::Table;

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, Rows, Tone};
use crate::workplace::Workplace;

/// Look into an artifact: JSON and text as they are, tables as JSON lines, tensors by name and
/// shape.
///
/// Without a file, the one that matters most is shown, or the files are listed.
///
///     taper cat pipeline.yaml:scores
///     taper cat 3f2a9c:tokens train.arrow -n 3
///     taper cat 3f2a9c:curves plot.png > curves.png
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// PIPELINE.yaml:STAGE, RUN:STAGE, or the digest of an artifact.
    what: String,
    /// A file of it.
    file: Option<String>,
    /// How many rows of a table; 0 for all.
    #[arg(short = 'n', long, default_value_t = 10, value_name = "COUNT")]
    rows: usize,
    /// Only list the files.
    #[arg(short, long)]
    list: bool,
}

/// Shows.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let start = args.what.rsplit_once(':').map_or("", |(place, _)| place);
    let place = match Path::new(start).is_file() {
        true => Workplace::of(Path::new(start))?,
        false => Workplace::here()?,
    };
    let (_, manifest) = place.named_artifact(&args.what)?;
    let name = match (&args.file, args.list) {
        (Some(name), _) => Some(name.clone()),
        (None, true) => None,
        (None, false) => first_choice(&manifest),
    };
    let Some(name) = name else {
        output.data(list(&manifest, output))?;
        return Ok(Exit::Done);
    };
    let Some(path) = place.file(&manifest, &name) else {
        let names: Vec<&str> = manifest.blobs.keys().map(|name| name.as_str()).collect();
        let failure = Failure::usage(format!("the artifact has no file `{name}`"));
        return Err(failure.help(format!("it has {}", names.join(", "))));
    };
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension {
        "arrow" => {
            let table = Table::open(&path, &name)?;
            let count = match args.rows {
                0 => usize::MAX,
                count => count,
            };
            let mut text = String::new();
            for row in table.first_rows(count) {
                text.push_str(&Value::Object(row).to_string());
                text.push('\n');
            }
            output.data(text)?;
            if table.rows() > count {
                output.say(format!("{count} of {} rows; -n 0 shows all", table.rows()));
            }
        }
        "safetensors" => output.data(tensors(&path, output)?)?,
        _ => {
            let bytes = fs_err::read(path)?;
            if std::str::from_utf8(&bytes).is_err() && std::io::stdout().is_terminal() {
                return Err(Failure::usage(format!("`{name}` is no text"))
                    .help("send it to a file: taper cat … > FILE, or `taper export`"));
            }
            output.bytes(&bytes)?;
        }
    }
    Ok(Exit::Done)
}

/// The file that most people want to see: of a single file that, else what sums the artifact up.
fn first_choice(manifest: &Manifest) -> Option<String> {
    let has = |name: &str| manifest.blobs.contains_key(name);
    let favourite = match manifest.artifact_type {
        ArtifactType::Metrics => "metrics.json",
        ArtifactType::Plot => "plot.json",
        ArtifactType::Model => "history.jsonl",
        ArtifactType::Tokens
        | ArtifactType::Dataset
        | ArtifactType::Predictions
        | ArtifactType::Files => "",
    };
    if has(favourite) {
        return Some(favourite.to_owned());
    }
    let mut tables = manifest
        .blobs
        .keys()
        .filter(|one| one.as_str().ends_with(".arrow"));
    if let (Some(one), None) = (tables.next(), tables.next()) {
        return Some(one.to_string());
    }
    match manifest.blobs.len() {
        1 => manifest.blobs.keys().next().map(ToString::to_string),
        _ => None,
    }
}

fn list(manifest: &Manifest, output: Output) -> String {
    let mut rows = Rows::new(output.out, &["file", ">size", "digest"]);
    for (name, blob) in &manifest.blobs {
        rows.row([
            (name.as_str(), Tone::Plain),
            (table::bytes(blob.size).as_str(), Tone::Plain),
            (blob.digest.short().as_str(), Tone::Faint),
        ]);
    }
    rows.finish()
}

/// The names, types and shapes of the tensors of a safetensors file: its header is JSON.
fn tensors(path: &Path, output: Output) -> Result<String, Failure> {
    let broken = || Failure::usage("the file is no safetensors file");
    let mut file = fs_err::File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(length).min(100 << 20))
        .read_to_end(&mut header)?;
    let header: Map<String, Value> = serde_json::from_slice(&header).map_err(|_| broken())?;
    let mut rows = Rows::new(output.out, &["tensor", "type", "shape"]);
    for (name, tensor) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        rows.row([
            (name.as_str(), Tone::Plain),
            (tensor["dtype"].as_str().unwrap_or_default(), Tone::Faint),
            (tensor["shape"].to_string().as_str(), Tone::Plain),
        ]);
    }
    Ok(rows.finish())
}
