//! Pipelines that are wrong, one file each in `tests/invalid/`, with what the program says about it beside it:
//! the place, the cause, the remedy.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::taper;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/invalid")
}

/// The names of the files with this extension.
fn names(extension: &str) -> BTreeSet<String> {
    let files = fs_err::read_dir(folder()).expect("the folder is there");
    let paths = files.map(|file| file.expect("the folder can be read").path());
    paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

#[test]
fn each_is_refused_with_its_place_and_a_remedy() {
    let names = names("yaml");
    assert!(names.len() >= 45, "only {} files", names.len());
    for name in &names {
        let ran = taper(&folder(), &["check", &format!("{name}.yaml")]);
        assert_eq!(ran.code, Some(2), "{name}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{name}: problems belong on stderr");
        insta::with_settings!({
            snapshot_path => "invalid",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(name.as_str(), ran.stderr);
        });
    }
    let snapshots = self::names("snap");
    assert_eq!(
        snapshots.difference(&names).next(),
        None,
        "a snapshot of no file"
    );
}

#[test]
fn json_has_the_same_problems() {
    let ran = taper(&folder(), &["check", "--json", "many-problems.yaml"]);
    assert_eq!(ran.code, Some(2));
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let problems = told["diagnostics"].as_array().expect("a list");
    assert!(problems.len() >= 8, "{told:#}");
    for problem in problems {
        for name in [
            "severity", "code", "message", "file", "line", "column", "span",
        ] {
            assert!(!problem[name].is_null(), "{name} is missing: {problem:#}");
        }
    }
}

#[test]
fn a_file_of_100_megabytes_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large.yaml");
    let file = fs_err::File::create(&path).expect("a file");
    file.set_len(100_000_000).expect("a sparse file");
    let started = std::time::Instant::now();
    let ran = taper(folder.path(), &["check", "large.yaml"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("96 MiB"), "{}", ran.stderr);
    assert!(started.elapsed().as_secs() < 2);
}

#[test]
fn what_is_no_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["missing.yaml", "."] {
        let ran = taper(folder.path(), &["check", name]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(name), "{}", ran.stderr);
    }
}
