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
    #[arg(long, value_name = "SIZE", value_parser = size)]
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
        "{verb} {} in {} files of {} stages, and {} leftovers; {} stay, {} lock files looked at",
        table::bytes(report.bytes),
        report.blobs,
        report.actions,
        report.leftovers,
        table::bytes(report.kept_bytes),
        locks.len(),
    ));
    Ok(Exit::Done)
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text
        .trim_end_matches(|c: char| c.is_ascii_alphabetic())
        .trim_end();
    let unit = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1_u64,
        "k" | "kb" => 1_000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        "t" | "tb" => 1_000_000_000_000,
        "tib" => 1 << 40,
        other => return Err(format!("`{other}` is no unit: MB, MiB, GB, GiB are")),
    };
    let value: f64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is no size: 20GiB is one"))?;
    if !(value.is_finite() && value >= 0.0) {
        return Err(format!("`{text}` is no size: 20GiB is one"));
    }
    Ok((value * unit as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("12", 12),
            ("1.5 GiB", 3 << 29),
            ("2MB", 2_000_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "-1", "3 apples", "NaN"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
