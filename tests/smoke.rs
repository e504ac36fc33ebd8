//! `run --smoke`: everything once, on one batch, and never taken for the real thing.

use crate::common::Project;

const PIPELINE: &str = "taper: 1
stages:
  corpus:
    download: { sample: acceptability, rows: { train: 400, test: 100 } }
  tokens:
    tokenize: { data: corpus, tokenizer: { train: { wordpiece: { vocab_size: 200 } } }, max_length: 16 }
  model:
    train:
      data: tokens
      train: train
      validation: test
      model: { textcnn: { embedding_dim: 8, filters: 4 } }
      batch_size: 4
      epochs: 2
  scores:
    evaluate: { model: model, data: tokens, split: test, batch_size: 8 }
    export: scores.json
  guesses:
    predict: { model: model, data: corpus, split: test, batch_size: 8 }
  count:
    command: { shell: 'wc -c in/guesses/* > out/count/bytes', inputs: { guesses: guesses }, outputs: { count: files } }
";

#[test]
fn one_batch_goes_through_everything_and_leaves_nothing_behind() {
    let project = Project::with(PIPELINE);
    let report = project.run(&["--smoke"]);
    assert_eq!(
        Project::executed(&report),
        ["corpus", "tokens", "model", "scores", "guesses", "count"]
    );
    assert!(report["run"].is_null(), "it is no run");
    let matrix = &report["metrics"]["scores"]["confusion_matrix"]["counts"];
    let rows: u64 = matrix
        .as_array()
        .expect("a matrix")
        .iter()
        .flat_map(|row| row.as_array().expect("a row"))
        .map(|count| count.as_u64().expect("a count"))
        .sum();
    assert_eq!(rows, 8, "one batch");
    for file in ["scores.json", "p.lock"] {
        assert!(!project.path().join(file).exists(), "{file}");
    }
    assert_eq!(project.json(&["log", "--json"]), serde_json::json!([]));

    // What does not compute was the real thing; the rest is not taken for it.
    let report = project.run(&[]);
    assert_eq!(
        Project::executed(&report),
        ["model", "scores", "guesses", "count"]
    );
    let lock = project.read("p.lock");
    let scores = project.read("scores.json");

    // A smoke run beside a real one changes nothing, and is not taken for one that is up to date.
    let said = project.taper(&["run", "p.yaml", "--smoke"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        said.stdout.contains("it works on one batch"),
        "{}",
        said.stdout
    );
    assert_eq!(project.read("p.lock"), lock);
    assert_eq!(project.read("scores.json"), scores);
    assert_eq!(Project::executed(&project.run(&[])), [""; 0]);
}

#[test]
fn a_mistake_that_only_a_run_finds_is_found() {
    let wrong = PIPELINE.replace(
        "split: test, batch_size: 8 }\n    export",
        "split: tests }\n    export",
    );
    let project = Project::with(&wrong);
    let said = project.taper(&["run", "p.yaml", "--smoke"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("no split `tests`"), "{}", said.stderr);
}
