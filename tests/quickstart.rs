//! The pipeline that a new user runs first, from beginning to end.

use serde_json::Value;

use crate::common::Project;

const QUICKSTART: &str = include_str!("../pipelines/quickstart.yaml");

/// The quickstart with its metrics well above chance, its artifacts where it says.
#[test]
fn it_learns_and_repeats() {
    let project = Project::with(QUICKSTART);
    let first = project.run(&["--threads", "2", "--jobs", "2"]);
    let run = first["run"].as_str().expect("a run id").to_owned();
    assert_eq!(run.len(), 64);
    let accuracy = first["metrics"]["scores"]["accuracy"].as_f64();
    assert!(
        accuracy.is_some_and(|accuracy| accuracy > 0.93),
        "{first:#}"
    );
    let scores: Value =
        serde_json::from_str(&project.read("results/quickstart/scores.json")).expect("JSON");
    assert_eq!(scores, first["metrics"]["scores"]);
    for figure in ["curves", "confusions"] {
        let svg = project.read(&format!("results/quickstart/{figure}/plot.svg"));
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    }

    // Again: nothing runs, nothing is written.
    let lock = project.read("p.lock");
    let second = project.run(&[]);
    assert_eq!(Project::executed(&second), Vec::<String>::new());
    assert_eq!(second["run"], run.as_str());
    assert_eq!(second["metrics"], first["metrics"]);
    assert_eq!(project.read("p.lock"), lock);

    // Without the cache, with one thread, elsewhere: the same bytes.
    let elsewhere = Project::with(QUICKSTART);
    let third = elsewhere.run(&["--threads", "1", "--jobs", "1"]);
    assert_eq!(third["run"], run.as_str());
    assert_eq!(elsewhere.read("p.lock"), lock);

    // A model says what it thinks of a sentence, by its stage and by its run.
    let told = project.json(&[
        "predict",
        "p.yaml:model",
        "--json",
        "the dogs sleep .",
        "the dogs sleeps .",
    ]);
    let rows = told.as_array().expect("a row each");
    assert_eq!(rows.len(), 2);
    for row in rows {
        let scores = row["scores"].as_object().expect("scores");
        let sum: f64 = scores.values().filter_map(Value::as_f64).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{row}");
        assert!(
            scores.contains_key(row["label"].as_str().expect("a label")),
            "{row}"
        );
    }
    let by_run = project.json(&[
        "predict",
        &format!("{}:model", &run[..12]),
        "--json",
        "the dogs sleep .",
    ]);
    assert_eq!(by_run[0], rows[0]);

    // Reproduced: restored, and executed again.
    let restored = project.json(&["reproduce", &run[..8], "--json"]);
    assert_eq!(restored["identical"], true);
    let again = project.json(&["reproduce", &run[..8], "--rerun", "--json"]);
    assert_eq!(again["identical"], true, "{again:#}");
}

/// What changes what: by the names of the stages that run.
#[test]
fn only_what_a_change_reaches_runs_again() {
    let small = replaced(
        QUICKSTART,
        "train: 12000, test: 1000",
        "train: 300, test: 60",
    );
    let small = replaced(&small, "epochs: 8", "epochs: 1");
    let project = Project::with(&small);
    let first = project.run(&[]);
    assert_eq!(Project::executed(&first).len(), 9);

    // Nothing of a key: a comment, a description, the order of params, retries, a stage's name.
    let renamed = replaced(
        &small,
        "  lr: 3e-3\n  epochs: 1",
        "  epochs: 1   # one\n  lr: 0.003",
    );
    let renamed = replaced(
        &renamed,
        "Is an English sentence acceptable?",
        "Is a sentence fine?",
    );
    let renamed = replaced(&renamed, "  guesses:\n", "  opinions:\n    retries: 2\n");
    project.write("p.yaml", &renamed);
    let second = project.run(&[]);
    assert_eq!(Project::executed(&second), Vec::<String>::new());

    // A learning rate: the training and what follows it.
    project.write("p.yaml", &replaced(&small, "lr: 3e-3", "lr: 2e-3"));
    let explained = project.taper(&["explain", "p.yaml", "model"]);
    assert!(
        explained.stdout.contains("0.002") && explained.stdout.contains("0.003"),
        "{}",
        explained.stdout
    );
    let third = project.run(&[]);
    let ran = Project::executed(&third);
    assert_eq!(ran.first().map(String::as_str), Some("model"));
    assert!(
        !ran.iter()
            .any(|name| ["corpus", "mixed", "parts", "tokens"].contains(&name.as_str()))
    );

    // The seed of the shuffle: everything from there.
    let shuffle = "    shuffle: { data: corpus }";
    let reseeded = replaced(&small, shuffle, &format!("{shuffle}\n    seed: 7"));
    project.write("p.yaml", &reseeded);
    let fourth = project.run(&[]);
    let ran = Project::executed(&fourth);
    assert!(
        ran.contains(&"mixed".to_owned()) && !ran.contains(&"corpus".to_owned()),
        "{ran:?}"
    );

    // What was set on the command line leaves the lock alone; the variants of a matrix share what is the same.
    let lock = project.read("p.lock");
    project.run(&["--set", "lr=4e-3"]);
    assert_eq!(project.read("p.lock"), lock);
}

/// `text` with `new` in the place of `old`, which has to be there.
fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "the quickstart has no `{old}`");
    text.replace(old, new)
}
