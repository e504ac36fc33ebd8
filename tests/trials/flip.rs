//! Bits flipped in the store, and files cut, swapped, or replaced by what is no file.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use taper_cache::{Digest, Key, Lookup, RunId, Store};

use crate::check::{self, Allowed};
use crate::pool::{Random, each};
use crate::story::{self, Condition, Place, Story, shelved, taper};
use crate::{Found, Setting};

/// Tries.
pub fn run(setting: &Setting) -> Found {
    let mut found = Found::default();
    let stories = story::all(setting);
    let edited = stories.iter().find(|story| story.name == "edit and run");
    let edited = edited.expect("it is told");
    // Of everything there are two: what is swapped has something to be swapped with.
    let honest = Setting {
        planted: None,
        ..setting.clone()
    };
    let start = Place::copy_of(&edited.start);
    story::run(&honest, start.path()).expect("the pipeline runs");
    let story = &Story {
        name: "two runs",
        start,
        condition: Condition::Whole,
        arguments: edited.arguments.clone(),
        truth: edited.truth.clone(),
        recorded: true,
        planted: None,
        remembered: false,
    };
    // In heaps of a hundred.
    let heaps = setting.part_of((0..setting.sized(5_u64, 500, 5000)).collect());
    let failures = each(setting, &heaps, |heap| {
        in_process(story, 100, setting.seed.wrapping_add(*heap))
    });
    found.add(heaps.len() * 100, "bits flipped in process", failures);

    let trials = setting.part_of((0..setting.sized(10_u64, 500, 5000)).collect());
    let failures = each(setting, &trials, |trial| {
        through_the_program(setting, story, *trial)
    });
    found.add(trials.len(), "damages met by the program", failures);
    found
}

/// Flips bits one at a time, and looks whether the library notices each.
fn in_process(story: &Story, count: usize, seed: u64) -> Result<(), String> {
    let place = Place::copy_of(&story.start);
    let cache = place.path().join(".taper");
    let files = named_files(&cache);
    let mut random = Random::new(seed, 3);
    for _ in 0..count {
        let path = &files[random.below(files.len())];
        let whole = fs_err::read(path).map_err(|error| error.to_string())?;
        if whole.is_empty() {
            continue;
        }
        let mut bytes = whole.clone();
        let (byte, bit) = (random.below(bytes.len()), random.below(8));
        bytes[byte] ^= 1 << bit;
        replace(path, &bytes);
        let noticed = is_noticed(&cache, path)?;
        for aside in shelved(&cache.join("quarantine")) {
            fs_err::remove_file(aside).map_err(|error| error.to_string())?;
        }
        replace(path, &whole);
        if !noticed {
            return Err(format!(
                "bit {bit} of byte {byte} of {}: not noticed",
                path.display()
            ));
        }
    }
    Ok(())
}

/// The files whose names or seals say what they hold.
fn named_files(cache: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = ["blobs", "manifests", "actions", "runs", "executions"]
        .iter()
        .flat_map(|shelf| shelved(&cache.join(shelf)))
        .collect();
    files.sort();
    files
}

fn replace(path: &Path, bytes: &[u8]) {
    let _ = std::fs::remove_file(path);
    fs_err::write(path, bytes).expect("written");
}

fn is_noticed(cache: &Path, path: &Path) -> Result<bool, String> {
    let store = Store::open(cache).map_err(|error| error.to_string())?;
    let below = path.strip_prefix(cache).expect("below");
    let mut parts = below.iter().map(|part| part.to_string_lossy().into_owned());
    let shelf = parts.next().unwrap_or_default();
    let name: String = parts.collect();
    let digest = || name.parse::<Digest>().map_err(|error| error.to_string());
    let wrong = |error: taper_cache::CacheError| error.to_string();
    Ok(match shelf.as_str() {
        "blobs" => {
            let digest = digest()?;
            let size = path.metadata().map_err(|error| error.to_string())?.len();
            let blob = taper_cache::Blob { digest, size };
            is_damaged(&store.verify_blob(&blob).map_err(wrong)?)
        }
        "manifests" => is_damaged(&store.manifest(&digest()?).map_err(wrong)?),
        "actions" => is_damaged(&store.action(&Key(digest()?)).map_err(wrong)?),
        "runs" => {
            let id: RunId = name
                .trim_end_matches(".run")
                .parse()
                .map_err(|_| name.clone())?;
            is_damaged(&store.run(&id).map_err(wrong)?)
        }
        _ => {
            let sequence = name.parse().map_err(|_| name.clone())?;
            is_damaged(&store.execution(sequence).map_err(wrong)?)
        }
    })
}

fn is_damaged<T>(lookup: &Lookup<T>) -> bool {
    matches!(lookup, Lookup::Damaged(_))
}

const DAMAGES: [&str; 9] = [
    "flipped", "cut", "emptied", "removed", "swapped", "a link", "a pipe", "a folder", "the lock",
];

/// Damages a project and lets the program find it.
fn through_the_program(setting: &Setting, story: &Story, trial: u64) -> Result<(), String> {
    let mut random = Random::new(setting.seed, 1000 + trial);
    let place = Place::copy_of(&story.start);
    let folder = place.path();
    let damage = DAMAGES[random.below(DAMAGES.len())];
    let told = |error: String| format!("damage {trial}, {damage}: {error}");
    let what = inflict(folder, damage, &mut random).map_err(told)?;
    let told = |error: String| format!("damage {trial}, {damage} ({what}): {error}");
    // What is exported has to come out of the cache again.
    for export in story::EXPORTS {
        fs_err::remove_file(folder.join(export)).map_err(|error| error.to_string())?;
    }
    if damage == "the lock" {
        let ran = taper(setting, folder, &story::RUN);
        match ran.code {
            Some(0) => {}
            Some(2) if !ran.stderr.trim().is_empty() => {
                // As `git checkout` would.
                fs_err::write(
                    folder.join("p.lock"),
                    &story.truth.files[Path::new("p.lock")],
                )
                .map_err(|error| error.to_string())?;
            }
            code => return Err(told(format!("a run ends with {code:?}: {}", ran.stderr))),
        }
    } else if random.once_in(2) {
        let verified = taper(setting, folder, &["verify"]);
        let finds = if damage == "removed" {
            // What no action names is not missed.
            matches!(verified.code, Some(0 | 4))
        } else {
            verified.code == Some(4) && !verified.stdout.trim().is_empty()
        };
        if !finds {
            let said = format!("{}{}", verified.stdout, verified.stderr);
            return Err(told(format!(
                "verify ends with {:?}: {said}",
                verified.code
            )));
        }
    }
    let (truth, _) = story::run(setting, folder).map_err(told)?;
    if truth.stages != story.truth.stages {
        return Err(told("the run gives something else".to_owned()));
    }
    if damage == "the lock" {
        // What is a matter of form only, a comment, stays as it is.
        let own = story.truth.files.get(Path::new("p.lock"));
        let own = own.map(|text| taper_engine::Lock::parse(&String::from_utf8_lossy(text)));
        if own != Some(taper_engine::Lock::parse(&read(folder, "p.lock"))) {
            return Err(told("the lock says something else".to_owned()));
        }
        return Ok(());
    }
    let damaged = Story {
        name: story.name,
        start: Place::copy_of(&story.start),
        condition: Condition::Damaged,
        arguments: story.arguments.clone(),
        truth: story.truth.clone(),
        recorded: true,
        planted: None,
        remembered: false,
    };
    check::recovers(setting, folder, &damaged, Allowed::Damage).map_err(told)
}

fn read(folder: &Path, name: &str) -> String {
    fs_err::read_to_string(folder.join(name)).unwrap_or_default()
}

/// Damages one file, and says which.
fn inflict(folder: &Path, damage: &str, random: &mut Random) -> Result<String, String> {
    let cache = folder.join(".taper");
    let files = named_files(&cache);
    // Of each shelf as often: there are few runs. And what is exported, which no stage reads and finds damaged.
    let mut by_shelf: Vec<Vec<PathBuf>> = shelves(&cache, &files).into_values().collect();
    by_shelf.push(exported(folder)?);
    let shelf = &by_shelf[random.below(by_shelf.len())];
    let path = &shelf[random.below(shelf.len())];
    let below = path
        .strip_prefix(folder)
        .expect("below")
        .display()
        .to_string();
    let mut bytes = fs_err::read(path).map_err(|error| error.to_string())?;
    let failed = |error: std::io::Error| error.to_string();
    match damage {
        "flipped" => {
            let (byte, bit) = (random.below(bytes.len()), random.below(8));
            bytes[byte] ^= 1 << bit;
            overwrite(path, &bytes);
        }
        "cut" => overwrite(path, &bytes[..random.below(bytes.len())]),
        "emptied" => overwrite(path, b""),
        "removed" => fs_err::remove_file(path).map_err(failed)?,
        "swapped" => {
            let others: Vec<_> = shelf.iter().filter(|other| *other != path).collect();
            if others.is_empty() {
                overwrite(path, b"");
                return Ok(below);
            }
            let other = others[random.below(others.len())];
            let theirs = fs_err::read(other).map_err(failed)?;
            if theirs == bytes {
                overwrite(path, b"");
                return Ok(below);
            }
            overwrite(path, &theirs);
            overwrite(other, &bytes);
        }
        "a link" => {
            let elsewhere = folder.join(".taper/staging/elsewhere");
            fs_err::write(&elsewhere, &bytes).map_err(failed)?;
            fs_err::remove_file(path).map_err(failed)?;
            std::os::unix::fs::symlink(&elsewhere, path).map_err(failed)?;
        }
        "a pipe" => {
            fs_err::remove_file(path).map_err(failed)?;
            let made = std::process::Command::new("mkfifo").arg(path).status();
            made.map_err(failed)?;
        }
        "a folder" => {
            fs_err::remove_file(path).map_err(failed)?;
            fs_err::create_dir(path).map_err(failed)?;
        }
        _ => {
            let lock = folder.join("p.lock");
            let mut bytes = fs_err::read(&lock).map_err(failed)?;
            let (byte, bit) = (random.below(bytes.len()), random.below(8));
            bytes[byte] ^= 1 << bit;
            fs_err::write(&lock, bytes).map_err(failed)?;
            return Ok(format!("bit {bit} of byte {byte} of p.lock"));
        }
    }
    Ok(below)
}

/// The blobs of what is exported.
fn exported(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let store = Store::open(folder.join(".taper")).map_err(|error| error.to_string())?;
    let blob = |export: &str| {
        let bytes = fs_err::read(folder.join(export)).map_err(|error| error.to_string())?;
        Ok(store.layout().blob(&Digest::of(&bytes)))
    };
    story::EXPORTS.into_iter().map(blob).collect()
}

/// Writes to a file where it is, and leaves its mode as it was.
fn overwrite(path: &Path, bytes: &[u8]) {
    let mode = path.metadata().expect("there").permissions();
    fs_err::set_permissions(path, Permissions::from_mode(0o644)).expect("set");
    fs_err::write(path, bytes).expect("written");
    fs_err::set_permissions(path, mode).expect("set");
}

fn shelves(cache: &Path, files: &[PathBuf]) -> BTreeMap<String, Vec<PathBuf>> {
    let mut shelves: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in files {
        let below = path.strip_prefix(cache).expect("below");
        let shelf = below.iter().next().expect("a shelf").to_string_lossy();
        shelves
            .entry(shelf.into_owned())
            .or_default()
            .push(path.clone());
    }
    shelves
}
