//! What is generated from the types of the parameters is committed, and is what the program says today.

use std::collections::BTreeSet;
use std::path::Path;

use crate::common::{Project, taper};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_schema_is_the_committed_one() {
    let ran = taper(root(), &["schema"]);
    let committed =
        fs_err::read_to_string(root().join("docs/taper.schema.json")).expect("committed");
    assert!(
        ran.stdout == committed,
        "docs/taper.schema.json is old: cargo run -- schema > docs/taper.schema.json"
    );
}

#[test]
fn the_pages_of_kinds_are_the_committed_ones() {
    let project = Project::new();
    let ran = project.taper(&["stages", "--markdown", "pages"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let names = |folder: &Path| -> BTreeSet<String> {
        fs_err::read_dir(folder)
            .expect("the folder is there")
            .map(|file| {
                file.expect("readable")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    };
    let (new, old) = (project.path().join("pages"), root().join("docs/stages"));
    assert_eq!(names(&new), names(&old));
    for name in names(&new) {
        assert!(
            fs_err::read_to_string(new.join(&name)).expect("written")
                == fs_err::read_to_string(old.join(&name)).expect("committed"),
            "docs/stages/{name} is old: cargo run -- stages --markdown docs/stages"
        );
    }
}

#[test]
fn every_pipeline_of_the_project_is_valid() {
    let folder = root().join("pipelines");
    for file in fs_err::read_dir(&folder).expect("there") {
        let path = file.expect("readable").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let ran = taper(root(), &["check", &path.display().to_string()]);
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
        }
    }
}

#[test]
fn a_new_project_is_valid_and_is_not_written_over() {
    let project = Project::new();
    let ran = project.taper(&["new", "demo"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(
        project
            .taper(&["-C", "demo", "check", "pipeline.yaml"])
            .code,
        Some(0)
    );
    assert_eq!(project.taper(&["new", "demo"]).code, Some(2));
    for template in ["imdb", "bert"] {
        assert_eq!(
            project
                .taper(&["new", template, "--template", template])
                .code,
            Some(0)
        );
        assert_eq!(
            project
                .taper(&["-C", template, "check", "pipeline.yaml"])
                .code,
            Some(0)
        );
    }
}

#[test]
fn completions_and_pages_are_there_for_all() {
    let project = Project::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = project.taper(&["completions", shell]);
        assert!(
            ran.code == Some(0) && ran.stdout.contains("reproduce"),
            "{shell}"
        );
    }
    let listed = project.json(&["stages", "--json"]);
    for kind in listed.as_array().expect("a list") {
        let name = kind["name"].as_str().expect("a name");
        let ran = project.taper(&["stages", name]);
        assert!(
            ran.code == Some(0) && ran.stdout.starts_with(name),
            "{name}"
        );
    }
}
