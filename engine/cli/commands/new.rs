//! `taper new`.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;

use super::schema;

const QUICKSTART: &str = include_str!("../../../pipelines/quickstart.yaml");
const IMDB: &str = include_str!("../../../pipelines/imdb-textcnn.yaml");
const BERT: &str = include_str!("../../../pipelines/mrpc-bert.yaml");

const SETTINGS: &str = "\
# The root of a project of taper: paths in pipelines are relative to this folder.
# cache = \"/data/taper-cache\"   # a cache that several projects share; default: .taper
";

const IGNORED: &str = "\
/.taper/
/results/
";

/// Begin a project: a pipeline that runs as it is, settings, and the JSON Schema for editors.
///
///     taper new demo && cd demo
///     taper run pipeline.yaml
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The folder; made if it is not there.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// What the pipeline does.
    #[arg(long, value_enum, default_value = "quickstart", value_name = "NAME")]
    template: Template,
}

/// A pipeline to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Template {
    /// Acceptability of sentences that the program makes itself: no network, seconds.
    Quickstart,
    /// Sentiment of film reviews from the hub, with a convolutional network.
    Imdb,
    /// Paraphrases from the hub, with a fine-tuned BERT.
    Bert,
}

/// Begins.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let pipeline = match args.template {
        Template::Quickstart => QUICKSTART,
        Template::Imdb => IMDB,
        Template::Bert => BERT,
    };
    let pipeline = format!(
        "# yaml-language-server: $schema=taper.schema.json\n{}",
        pipeline.replace("pipelines/quickstart.yaml", "pipeline.yaml")
    );
    let folder = &args.folder;
    fs_err::create_dir_all(folder)?;
    let schema = schema::text();
    let files = [
        ("pipeline.yaml", pipeline.as_str()),
        ("taper.toml", SETTINGS),
        (".gitignore", IGNORED),
        ("taper.schema.json", schema.as_str()),
    ];
    // Nothing is begun where something would be left half done.
    if folder.join("pipeline.yaml").exists() {
        return Err(
            Failure::usage(format!("{} has a pipeline.yaml already", folder.display()))
                .help("name another folder: taper new DIR"),
        );
    }
    for (name, text) in files {
        if !write_new(&folder.join(name), text)? {
            output.say(format!("{name} was there already and stays as it is"));
        }
    }
    output.say(format!("a project in {}: next,", folder.display()));
    if folder != Path::new(".") {
        output.say(format!("  cd {}", folder.display()));
    }
    output.say("  taper run pipeline.yaml");
    Ok(Exit::Done)
}

/// Writes a file that is not there yet; says whether it did.
fn write_new(path: &Path, text: &str) -> Result<bool, Failure> {
    let file = fs_err::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path);
    match file {
        Ok(mut file) => {
            file.write_all(text.as_bytes())?;
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.into()),
    }
}
