//! `command`: a program of the user's, in an empty folder, between inputs and outputs that are files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use taper_cache::{ArtifactType, BlobName};
use taper_engine::{
    ArtifactFiles, Context, Input, Kind, LocalPath, Makes, NoSettings, Stage, StageError,
};

use crate::artifact::dataset::EXTENSION;
use crate::artifact::{Files, Table};
use crate::copying;
use crate::data::choice::is_data;
use crate::data::format::{Format, SourceFile};
use crate::data::import::{Splits, import};
use crate::data::names::group_by_split;

mod child;
mod process;

/// The kind; see [`Params`].
pub struct Command;

/// Runs a program in an empty folder. Inputs lie there as copies below `in/NAME/`, files of the project under
/// their own names; what the program writes below `out/NAME/` becomes the artifact. It sees a clean
/// environment: the PATH, a fixed locale and time zone, its folder as home, and what `env` says.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The stages whose artifacts it reads, each laid out below `in/NAME/`.
    pub inputs: BTreeMap<String, Input<Files>>,
    /// The program and its arguments: `[python3, clean.py, in/reviews/train.arrow, out/clean]`. No shell
    /// looks at them.
    pub run: Vec<String>,
    /// A line for `sh`, in the place of `run`.
    pub shell: Option<String>,
    /// Files of the project that the program reads: copied in under their own names, and hashed.
    pub files: Vec<LocalPath<true>>,
    /// What it writes: the folder below `out/`, and the type of the artifact. Of several outputs, downstream
    /// stages name one as `STAGE.OUTPUT`.
    #[schemars(with = "BTreeMap<String, OutputType>")]
    pub outputs: BTreeMap<String, ArtifactType>,
    /// Variables of the environment, beside the few that every program gets.
    pub env: BTreeMap<String, String>,
}

/// The names of artifact types, for the schema.
struct OutputType;

impl JsonSchema for OutputType {
    fn schema_name() -> Cow<'static, str> {
        "ArtifactType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = ArtifactType::ALL
            .iter()
            .map(|artifact_type| artifact_type.name())
            .collect();
        json_schema!({ "type": "string", "enum": names })
    }
}

impl Kind for Command {
    type Params = Params;
    type Settings = NoSettings;
    type Resolved = ();

    const NAME: &'static str = "command";
    const VERSION: u32 = 1;
    const SPREADS: bool = false;
    const EXAMPLE: &'static str = "command: { inputs: { reviews: corpus }, run: [python3, clean.py, in/reviews/train.arrow, out/clean], files: [clean.py], outputs: { clean: dataset } }";

    fn makes(&self, params: &Params) -> Makes {
        let mut outputs = params.outputs.values();
        match (outputs.next(), outputs.next()) {
            (Some(only), None) => Makes::One(*only),
            _ => Makes::Parts(params.outputs.clone()),
        }
    }

    fn check(&self, params: &Params) -> Vec<StageError> {
        let mut errors = Vec::new();
        match (&params.shell, params.run.is_empty()) {
            (None, true) => errors.push(
                StageError::invalid("it is not said what to run")
                    .help("give `run: [PROGRAM, ARGUMENT, …]`, or `shell: \"…\"`"),
            ),
            (Some(_), false) => errors.push(
                StageError::invalid("both `run` and `shell` are given")
                    .at("shell")
                    .help("remove one of them"),
            ),
            _ => {}
        }
        if params.run.first().is_some_and(String::is_empty) {
            errors.push(StageError::invalid("the name of the program is empty").at("run"));
        }
        if params.outputs.is_empty() {
            errors.push(StageError::invalid("it has no output").at("outputs").help(
                "name at least one: `outputs: { result: files }`, which is the folder out/result",
            ));
        }
        let names = |place: &str, names: &mut dyn Iterator<Item = &String>| -> Vec<StageError> {
            names
                .filter(|name| name.contains(['/', '.']) || BlobName::new(name.as_str()).is_err())
                .map(|name| {
                    StageError::invalid(format!("`{name}` cannot name a folder"))
                        .at(format!("{place}.{name}"))
                        .help("use letters, digits, `_` and `-`")
                })
                .collect()
        };
        errors.extend(names("inputs", &mut params.inputs.keys()));
        errors.extend(names("outputs", &mut params.outputs.keys()));
        for name in params.env.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                errors.push(
                    StageError::invalid(format!("`{name}` cannot name a variable"))
                        .at("env")
                        .help("use letters, digits and `_`"),
                );
            }
        }
        errors
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let params = &stage.params;
        let folder = &context.scratch;
        begin_anew(folder)?;
        lay_out(params, context, folder)?;
        process::run(&arguments(params), &params.env, folder, context)?;
        take_outputs(params, folder, context)
    }
}

/// What is executed.
fn arguments(params: &Params) -> Vec<String> {
    match &params.shell {
        None => params.run.clone(),
        Some(line) => ["sh", "-euc", line].map(str::to_owned).into(),
    }
}

/// Makes the folder in which the program runs, the scratch folder of its key, in the place of one that an
/// earlier attempt left behind.
fn begin_anew(folder: &Path) -> Result<(), StageError> {
    let is_left = fs_err::read_dir(folder)?.next().is_some();
    if is_left && !taper_cache::planted("work-reused") {
        process::end_leftovers(folder)?;
        fs_err::remove_dir_all(folder)?;
        fs_err::create_dir(folder)?;
    }
    Ok(())
}

/// Lays out what the program finds.
fn lay_out(params: &Params, context: &Context, folder: &Path) -> Result<(), StageError> {
    if taper_cache::planted("work-reused") && folder.join("out").exists() {
        return Ok(());
    }
    fs_err::create_dir(folder.join("out"))?;
    for output in params.outputs.keys() {
        fs_err::create_dir(folder.join("out").join(output))?;
    }
    for path in &params.files {
        copy_in(&context.local(path)?, folder)?;
    }
    for (name, input) in &params.inputs {
        let Files(files) = context.open(input)?;
        copy_in(&files, &folder.join("in").join(name))?;
    }
    Ok(())
}

/// Copies: whatever the program does to them, the cache keeps its own.
fn copy_in(files: &ArtifactFiles, folder: &Path) -> Result<(), StageError> {
    for name in files.names() {
        let Some(blob) = files.path(name) else {
            continue;
        };
        copying::copy(&blob, &folder.join(name), Some(mode))
            .map_err(|error| StageError::failed(format!("cannot lay out `{name}`: {error}")))?;
    }
    Ok(())
}

/// Blobs have no permissions: scripts and programs are known by their first bytes.
fn mode(head: &[u8]) -> u32 {
    match head.starts_with(b"#!") || head.starts_with(b"\x7fELF") {
        true => 0o755,
        false => 0o644,
    }
}

/// Checks what the program wrote, and moves it into the artifact.
fn take_outputs(params: &Params, folder: &Path, context: &Context) -> Result<(), StageError> {
    let single = params.outputs.len() == 1;
    for (output, artifact_type) in &params.outputs {
        let from = folder.join("out").join(output);
        let to = if single {
            context.out.clone()
        } else {
            context.out.join(output)
        };
        let about = |error: StageError| error.at(format!("outputs.{output}"));
        let files = written(&from, output).map_err(about)?;
        if !single {
            fs_err::create_dir_all(&to)?;
        }
        let tables = matches!(
            artifact_type,
            ArtifactType::Dataset | ArtifactType::Tokens | ArtifactType::Predictions
        );
        let is_arrow = |name: &&String| name.ends_with(EXTENSION) && !name.contains('/');
        if *artifact_type == ArtifactType::Dataset && !files.iter().any(|name| is_arrow(&name)) {
            convert(&files, &from, &to, context).map_err(about)?;
            continue;
        }
        if tables {
            for name in files.iter().filter(is_arrow) {
                Table::open(&from.join(name), name.as_str()).map_err(about)?;
            }
        }
        check_names(*artifact_type, output, &files, &from).map_err(about)?;
        for name in &files {
            let target = to.join(name);
            if let Some(parent) = target.parent().filter(|_| name.contains('/')) {
                fs_err::create_dir_all(parent)?;
            }
            let path = from.join(name);
            if fs_err::rename(&path, &target).is_err() {
                fs_err::copy(&path, &target)?;
            }
        }
    }
    Ok(())
}

/// The files below an output's folder.
fn written(folder: &Path, output: &str) -> Result<Vec<String>, StageError> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        let path = folder.join(&below);
        if !path.is_dir() {
            return Err(StageError::failed(format!("out/{output} is not a folder any more"))
                .help(format!("write files into the folder out/{output}, which is there when the program starts")));
        }
        for entry in fs_err::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let name = if below.is_empty() {
                name
            } else {
                format!("{below}/{name}")
            };
            let file_type = entry.file_type()?;
            if file_type.is_dir() {
                folders.push(name);
            } else if file_type.is_file() {
                files.push(name);
            } else {
                return Err(StageError::failed(format!(
                    "out/{output}/{name} is neither a file nor a folder"
                ))
                .help("an artifact holds files: write a copy in the place of a link"));
            }
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(
            StageError::failed(format!("the program wrote nothing into out/{output}")).help(
                format!(
                    "write the result into the folder out/{output} of the folder in which it runs"
                ),
            ),
        ),
        false => Ok(files),
    }
}

/// Data in other formats becomes tables, as `download` with `path` reads it.
fn convert(files: &[String], from: &Path, to: &Path, context: &Context) -> Result<(), StageError> {
    let mut splits = Splits::new();
    let data = files
        .iter()
        .map(String::as_str)
        .filter(|name| is_data(name));
    for (split, names) in group_by_split(data)? {
        let sources = names.into_iter().filter_map(|name| {
            Some(SourceFile {
                path: from.join(name),
                name: name.to_owned(),
                format: Format::of(name)?,
            })
        });
        splits.insert(split, sources.collect());
    }
    import(&splits, &BTreeMap::new(), to, &context.reporter)
}

/// The files without which nothing can read an artifact of this type.
fn check_names(
    artifact_type: ArtifactType,
    output: &str,
    files: &[String],
    folder: &Path,
) -> Result<(), StageError> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let arrow = files.iter().any(|file| file.ends_with(EXTENSION));
    let (fine, wanted) = match artifact_type {
        ArtifactType::Files => (true, ""),
        ArtifactType::Dataset | ArtifactType::Predictions => {
            (arrow, "one file SPLIT.arrow for each split")
        }
        ArtifactType::Tokens => (
            arrow && has("tokens.json") && has("tokenizer.json"),
            "SPLIT.arrow for each split, tokens.json and tokenizer.json",
        ),
        ArtifactType::Model => (has("config.json"), "config.json and what belongs to it"),
        ArtifactType::Metrics => (has("metrics.json"), "metrics.json"),
        ArtifactType::Plot => (has("plot.svg") || has("plot.png"), "plot.svg or plot.png"),
    };
    if !fine {
        return Err(StageError::failed(format!(
            "out/{output} is no artifact of type {artifact_type}: that has {wanted}"
        ))
        .help("write these names, or declare the output as `files`"));
    }
    if artifact_type == ArtifactType::Metrics {
        let text = fs_err::read(folder.join("metrics.json"))?;
        let metrics: Result<BTreeMap<String, serde_json::Value>, _> = serde_json::from_slice(&text);
        metrics.map_err(|error| {
            StageError::failed(format!(
                "out/{output}/metrics.json is no JSON object: {error}"
            ))
            .help("write names and numbers: {\"accuracy\": 0.9}")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
