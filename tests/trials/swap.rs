//! A folder of the work tree swapped for a link that leads outside while artifacts are exported into it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use taper_cache::{ArtifactType, CacheError, Sealed, Store};

use crate::story::Place;
use crate::{Found, Setting};

/// Tries.
pub fn run(setting: &Setting) -> Found {
    let mut found = Found::default();
    let count = setting.sized(300, 20_000, 1_000_000) / setting.part.1;
    let failures = race(count).err().into_iter().collect();
    found.add(count, "exports into a folder that is swapped", failures);
    found
}

fn race(count: usize) -> Result<(), String> {
    let place = Place::new();
    let (project, outside) = (place.path().join("project"), place.path().join("outside"));
    fs_err::create_dir_all(project.join("results")).map_err(|error| error.to_string())?;
    fs_err::create_dir_all(outside.join("deep")).map_err(|error| error.to_string())?;
    fs_err::write(outside.join("canary"), "alive").map_err(|error| error.to_string())?;
    fs_err::write(outside.join("a.txt"), "theirs").map_err(|error| error.to_string())?;
    let store = Store::open(project.join(".taper")).map_err(|error| error.to_string())?;
    let mut manifests = Vec::new();
    // Two artifacts in turn, so that each export has something to write.
    for text in ["one", "two"] {
        let staging = store.stage().map_err(|error| error.to_string())?;
        for name in ["a.txt", "deep/b.txt"] {
            let path = staging.out().join(name);
            fs_err::create_dir_all(path.parent().expect("a folder"))
                .and_then(|()| fs_err::write(path, text))
                .map_err(|error| error.to_string())?;
        }
        let sealed = staging.seal(ArtifactType::Files);
        let kept = sealed.and_then(Sealed::into_manifest);
        manifests.push(kept.map_err(|error| error.to_string())?);
    }
    let (folder, link) = (project.join("results"), project.join("link"));
    std::os::unix::fs::symlink(&outside, &link).map_err(|error| error.to_string())?;
    let ended = AtomicBool::new(false);
    let before = look(&outside);
    let mut outcomes = BTreeMap::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &folder,
                    rustix::fs::CWD,
                    &link,
                    rustix::fs::RenameFlags::EXCHANGE,
                );
            }
        });
        for index in 0..count {
            let outcome = match store.export(&manifests[index % 2], &project, "results") {
                Ok(_) => "written",
                Err(CacheError::UnsafeExport { .. }) => "refused",
                Err(_) => "failed",
            };
            *outcomes.entry(outcome).or_insert(0_usize) += 1;
        }
        ended.store(true, Ordering::Relaxed);
    });
    if look(&outside) != before {
        return Err(format!("something outside has changed: {outcomes:?}"));
    }
    match outcomes.get("refused") {
        Some(_) => Ok(()),
        None => Err(format!("the folder was never a link: {outcomes:?}")),
    }
}

fn look(folder: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    crate::story::files(folder)
}
