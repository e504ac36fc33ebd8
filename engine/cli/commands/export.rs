//! `taper export`.

use std::path::{Path, PathBuf};

use serde_json::json;
use taper_cache::{Exported, Manifest};

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table;
use crate::workplace::Workplace;

/// Write artifacts as plain files.
///
/// What is named is a stage of a pipeline that has been run, a stage of a run, or a whole run
/// (each stage in a folder of its name).
///
///     taper export pipeline.yaml:model ./model
///     taper export 3f2a9c:scores scores.json
///     taper export 3f2a9c ./everything
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// PIPELINE.yaml:STAGE, RUN:STAGE, RUN, or the digest of an artifact.
    what: String,
    /// The folder, or, with an extension, the file.
    target: PathBuf,
    /// Tell a program: {"written": […], "unchanged", "foreign": […]}.
    #[arg(long)]
    json: bool,
}

/// Exports.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let whole_run = !args.what.contains(':') && args.what.len() < 64;
    let start = args.what.rsplit_once(':').map_or("", |(place, _)| place);
    let place = match Path::new(start).is_file() {
        true => Workplace::of(Path::new(start))?,
        false => Workplace::here()?,
    };
    let (base, target) = split(&args.target)?;
    let mut exported = Exported::default();
    if whole_run {
        let run = place.run(&args.what)?;
        for stage in &run.stages {
            let manifest = place.artifact(&stage.artifact)?;
            let target = format!("{target}/{}/", folder_name(&stage.name));
            add(&mut exported, export(&place, &manifest, &base, &target)?);
        }
    } else {
        let (_, manifest) = place.named_artifact(&args.what)?;
        add(&mut exported, export(&place, &manifest, &base, &target)?);
    }
    place.store.sync()?;
    if args.json {
        output.json(&json!({
            "written": exported.written,
            "unchanged": exported.unchanged,
            "foreign": exported.foreign,
        }))?;
        return Ok(Exit::Done);
    }
    for path in &exported.foreign {
        output.warn(format!(
            "{} was there already and is no part of it",
            path.display()
        ));
    }
    output.say(format!(
        "{} written, {} there already: {}",
        table::count(exported.written.len(), "file"),
        exported.unchanged,
        args.target.display()
    ));
    Ok(Exit::Done)
}

fn export(
    place: &Workplace,
    manifest: &Manifest,
    base: &Path,
    target: &str,
) -> Result<Exported, Failure> {
    Ok(place.store.export(manifest, base, target)?)
}

fn add(all: &mut Exported, one: Exported) {
    all.written.extend(one.written);
    all.unchanged += one.unchanged;
    all.foreign.extend(one.foreign);
}

/// The name of a stage as that of a folder: a variant's `=` and `,` stay, what separates folders does not.
fn folder_name(stage: &str) -> String {
    stage.replace(['/', '\\', ':'], "-")
}

/// A folder that is there, and a name below it. The user may name any place; what is there already and is
/// a link is refused by the export.
fn split(target: &Path) -> Result<(PathBuf, String), Failure> {
    let target = std::path::absolute(target)?;
    let target = if target.is_dir() {
        target.canonicalize()?
    } else {
        target
    };
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(Failure::usage(format!(
            "{} cannot be exported to",
            target.display()
        )));
    };
    let name = name
        .to_str()
        .ok_or_else(|| Failure::usage(format!("{} is not UTF-8", target.display())))?;
    fs_err::create_dir_all(parent)?;
    // A folder that is there stays one, whatever its name looks like.
    let end = if target.is_dir() { "/" } else { "" };
    Ok((parent.canonicalize()?, format!("{name}{end}")))
}
