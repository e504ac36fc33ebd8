//! `taper verify`.

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use taper_cache::Finding;

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table;
use crate::workplace::Workplace;

/// Read everything in the cache and compare it with its names.
///
/// What is damaged is set aside, and the next run makes it again. Exit code 4 where something was.
///
///     taper verify
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Tell a program: {"files", "bytes", "findings": […]}.
    #[arg(long)]
    json: bool,
}

/// Verifies.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let place = Workplace::here()?;
    let bar = ProgressBar::new(place.store.usage()?.blob_bytes);
    let style = "{spinner} [{bar:24}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is fixed"));
    let verification = place.store.verify(|bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    let bad = verification
        .findings
        .iter()
        .any(|finding| !matches!(finding, Finding::Foreign(_)));
    if args.json {
        let findings: Vec<_> = verification
            .findings
            .iter()
            .map(|finding| {
                let state = match finding {
                    Finding::Damaged(_) => "damaged",
                    Finding::Missing { .. } => "missing",
                    Finding::Foreign(_) => "foreign",
                };
                json!({ "state": state, "message": finding.to_string() })
            })
            .collect();
        output.json(&json!({
            "files": verification.files,
            "bytes": verification.bytes,
            "findings": findings,
        }))?;
    } else {
        for finding in &verification.findings {
            output.data(finding.to_string())?;
        }
        let read = format!(
            "{}, {}",
            table::count(verification.files, "file"),
            table::bytes(verification.bytes)
        );
        if bad {
            output.say(format!("{read} read"));
            output.help("`taper run` makes again what was set aside");
        } else {
            output.say(format!("{read}: all as they should be"));
        }
    }
    Ok(if bad { Exit::Cache } else { Exit::Done })
}
