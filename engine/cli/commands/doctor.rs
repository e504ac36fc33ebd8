//! `taper doctor`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use taper_cache::threads;
use taper_engine::machine;

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, Rows, Tone};
use crate::workplace::Workplace;

/// Look at the machine: cache, file system, cores, memory, hub. For a report of a problem.
///
/// With --arithmetic, small trainings of every kind of network are done here and compared with
/// the digests that every machine must come to.
///
///     taper doctor
///     taper doctor --arithmetic
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Compute small trainings and compare their digests.
    #[arg(long)]
    arithmetic: bool,
    /// Tell a program: the same by name.
    #[arg(long)]
    json: bool,
}

/// Something that was looked at.
struct Fact {
    name: &'static str,
    value: String,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fine,
    Bad,
}

impl Fact {
    fn new(name: &'static str, value: impl Into<String>) -> Self {
        Self {
            name,
            value: value.into(),
            state: State::Fine,
        }
    }

    fn bad(name: &'static str, value: impl Into<String>) -> Self {
        Self {
            state: State::Bad,
            ..Self::new(name, value)
        }
    }
}

/// Looks.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let mut facts = vec![
        Fact::new("taper", env!("CARGO_PKG_VERSION")),
        Fact::new(
            "system",
            format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        ),
    ];
    facts.extend(machine());
    facts.push(devices());
    facts.extend(cache());
    facts.extend(hub());
    if args.arithmetic {
        facts.push(arithmetic());
    }
    let bad = facts.iter().any(|fact| fact.state == State::Bad);
    if args.json {
        let mut object = Map::new();
        for fact in &facts {
            object.insert(fact.name.to_owned(), json!(fact.value));
        }
        object.insert("fine".to_owned(), Value::Bool(!bad));
        output.json(&object)?;
    } else {
        let mut rows = Rows::bare(output.out);
        for fact in &facts {
            let tone = match fact.state {
                State::Fine => Tone::Plain,
                State::Bad => Tone::Bad,
            };
            rows.row([(fact.name, Tone::Faint), (fact.value.as_str(), tone)]);
        }
        output.data(rows.finish())?;
    }
    Ok(if bad { Exit::Cache } else { Exit::Done })
}

/// Trains what every machine must train to the same bytes.
fn arithmetic() -> Fact {
    if let Err(error) = taper_engine::need_threads() {
        return Fact::bad("arithmetic", error.to_string());
    }
    let trainings = taper_nn::proof::trainings();
    let count = trainings.len();
    let wrong: Vec<&str> = trainings
        .iter()
        .filter(|training| training.expected().as_deref() != Some(training.digest().as_str()))
        .map(|training| training.name())
        .collect();
    match wrong.as_slice() {
        [] => Fact::new(
            "arithmetic",
            format!("{count} trainings came to the committed bytes"),
        ),
        wrong => Fact::bad(
            "arithmetic",
            format!("other bytes than on other machines: {}", wrong.join(", ")),
        ),
    }
}

fn machine() -> Vec<Fact> {
    let mut facts = vec![
        Fact::new("cores", threads::cores().to_string()),
        Fact::new("processor", machine::processor()),
        Fact::new("instructions", instructions()),
    ];
    let memory = [
        ("memory", machine::memory()),
        ("memory free", machine::meminfo("MemAvailable")),
    ];
    for (name, bytes) in memory {
        facts.extend(bytes.map(|bytes| Fact::new(name, table::bytes(bytes))));
    }
    facts
}

/// The GPUs, or why there are none.
fn devices() -> Fact {
    let devices = match taper_nn::device::cuda_devices() {
        Ok(devices) => devices,
        // A program that could use a GPU and finds none is no worse than one that could not.
        Err(fault) => return Fact::new("cuda", format!("none: {fault}")),
    };
    let texts = devices.into_iter().map(|device| {
        let (major, minor) = device.capability;
        format!(
            "cuda:{} {}, capability {major}.{minor}, {} of {} free, driver for CUDA {}.{}",
            device.number,
            device.name,
            table::bytes(device.free),
            table::bytes(device.memory),
            device.driver.0,
            device.driver.1
        )
    });
    let texts: Vec<String> = texts.collect();
    match texts.is_empty() {
        true => Fact::new("cuda", "none: the driver has no device"),
        false => Fact::new("cuda", texts.join("; ")),
    }
}

/// What of the processor the kernels can use.
fn instructions() -> String {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let known: [(&str, bool); 0] = [];
    let names: Vec<&str> = known
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect();
    match names.as_slice() {
        [] => "the basic ones".to_owned(),
        names => names.join(", "),
    }
}

fn cache() -> Vec<Fact> {
    let place = match Workplace::here() {
        Ok(place) => place,
        Err(failure) => return vec![Fact::bad("cache", failure.to_string())],
    };
    let folder = place.project.cache.clone();
    let mut facts = vec![
        Fact::new("project", place.project.root.display().to_string()),
        Fact::new("cache", folder.display().to_string()),
    ];
    let existing = folder
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    if let Some(name) = file_system(existing) {
        facts.push(Fact::new("file system", name));
    }
    match rustix::fs::statvfs(existing) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            facts.push(Fact::new("space free", table::bytes(free)));
        }
        Err(error) => facts.push(Fact::bad("space free", error.to_string())),
    }
    facts.push(match tempfile::tempfile_in(existing) {
        Ok(_) => Fact::new("writable", "yes"),
        Err(error) => Fact::bad("writable", format!("no: {error}")),
    });
    match place.store.usage() {
        Ok(usage) => {
            facts.push(Fact::new(
                "cached",
                format!(
                    "{} in {}, {}, {}",
                    table::bytes(usage.blob_bytes),
                    table::count(usage.blobs, "blob"),
                    table::count(usage.artifacts, "artifact"),
                    table::count(usage.runs, "run")
                ),
            ));
            if usage.quarantined > 0 {
                facts.push(Fact::bad(
                    "set aside",
                    format!(
                        "{}; `taper gc` removes what is set aside",
                        table::count(usage.quarantined, "damaged file")
                    ),
                ));
            }
        }
        Err(error) => facts.push(Fact::bad("cached", error.to_string())),
    }
    facts
}

/// The type of the file system that a folder is on: the longest mount point above it.
fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = fs_err::read_to_string("/proc/mounts").ok()?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut parts = line.split(' ').skip(1);
            Some((PathBuf::from(parts.next()?), parts.next()?))
        })
        .filter(|(mount, _)| folder.starts_with(mount))
        .max_by_key(|(mount, _)| mount.as_os_str().len())
        .map(|(mount, name)| format!("{name} at {}", mount.display()))
}

fn hub() -> Vec<Fact> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    let home = variable("HF_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache/huggingface")));
    let token = if variable("HF_TOKEN").is_some() {
        "in HF_TOKEN".to_owned()
    } else {
        match home
            .map(|home| home.join("token"))
            .filter(|path| path.is_file())
        {
            Some(path) => format!("in {}", path.display()),
            None => "none: gated data cannot be downloaded".to_owned(),
        }
    };
    let mut facts = vec![Fact::new("hub", endpoint), Fact::new("hub token", token)];
    if crate::prepared::is_offline() {
        facts.push(Fact::new("offline", "HF_HUB_OFFLINE is set"));
    }
    facts
}
