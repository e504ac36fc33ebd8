//! `taper gc`.

use serde_json::json;
use taper_cache::{GcOptions, Removal, Roots, Unfinished};
use taper_engine::Lock;

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::locks;
use crate::output::Output;
use crate::table;
use crate::workplace::Workplace;

/// Remove from the cache what no lock file, run or pin names.
///
/// With a size, the oldest goes first until the cache is that small; what lock files of this
/// project name always stays.
///
///     taper gc --dry-run
///     taper gc --max-size 20GiB
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The size to come down to: 500MB, 20GiB.
    #[arg(long, value_name = "SIZE", value_parser = taper_engine::size::parse)]
    max_size: Option<u64>,
    /// Also remove partial downloads and checkpoints of stages that do not run now.
    #[arg(long)]
    unfinished: bool,
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
    /// Tell a program: {"actions", "blobs", "bytes", "kept_bytes", "leftovers"}.
    #[arg(long)]
    json: bool,
}

/// Collects.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let place = Workplace::here()?;
    let mut roots = Roots::default();
    let locks = locks::find(&place.project)?;
    for path in &locks {
        let found = Lock::read(path)?.roots();
        roots.keys.extend(found.keys);
        roots.artifacts.extend(found.artifacts);
    }
    let options = GcOptions {
        max_bytes: args.max_size,
        removal: if args.dry_run {
            Removal::Dry
        } else {
            Removal::Real
        },
        unfinished: if args.unfinished {
            Unfinished::Remove
        } else {
            Unfinished::Keep
        },
    };
    let report = place.store.collect(&roots, &options)?;
    if args.json {
        output.json(&json!(report))?;
        return Ok(Exit::Done);
    }
    let verb = if args.dry_run {
        "would remove"
    } else {
        "removed"
    };
    output.say(format!(
        "{verb} {} in {} of {}, and {}; {} stay, {} looked at",
        table::bytes(report.bytes),
        table::count(report.blobs, "file"),
        table::count(report.actions, "stage"),
        table::count(report.leftovers, "leftover"),
        table::bytes(report.kept_bytes),
        table::count(locks.len(), "lock file"),
    ));
    Ok(Exit::Done)
}
