//! `taper schema`.

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::workplace::KINDS;

/// Print the JSON Schema of pipeline files.
///
/// Editors that speak the YAML language server use it for completion and checks: put
/// `# yaml-language-server: $schema=taper.schema.json` at the top of a pipeline.
///
///     taper schema > taper.schema.json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Prints it.
pub fn run(_: Args, output: Output) -> Result<Exit, Failure> {
    output.data(text())?;
    Ok(Exit::Done)
}

/// The schema, as it is printed.
pub fn text() -> String {
    serde_json::to_string_pretty(&taper_engine::pipeline_schema(KINDS)).expect("a schema is JSON")
        + "\n"
}
