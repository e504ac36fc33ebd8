//! Which device a stage computes on: what is not there is said before anything runs.

use crate::common::Project;

fn pipeline(precision: &str, device: &str) -> String {
    format!(
        "taper: 1
stages:
  corpus:
    download: {{ sample: acceptability, rows: {{ train: 40, test: 20 }} }}
  tokens:
    tokenize: {{ data: corpus, tokenizer: {{ train: {{ wordpiece: {{ vocab_size: 200 }} }} }}, max_length: 16 }}
  model:
    train:
      data: tokens
      train: train
      model: {{ textcnn: {{ embedding_dim: 8, filters: 4 }} }}
      max_steps: 2
      precision: {precision}
    device: {device}
"
    )
}

/// What a run says of it, where no stage may have run.
fn refused(pipeline: &str, arguments: &[&str]) -> String {
    let project = Project::with(pipeline);
    let mut all = vec!["run", "p.yaml"];
    all.extend(arguments);
    let ran = project.taper(&all);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert_eq!(ran.stdout, "", "nothing has run");
    ran.stderr
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_is_not_there_is_named_with_its_line() {
    let said = refused(&pipeline("f32", "cuda:1"), &[]);
    for part in [
        "`model` wants the device `cuda:1`, which is not there: this program was built without CUDA",
        "p.yaml:14",
        "device: cuda:1",
        "write `device: auto`",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let said = refused(&pipeline("f32", "auto"), &["--device", "cuda"]);
    assert!(said.contains("leave `--device` out"), "{said}");
}

#[test]
fn what_a_device_cannot_compute_is_said_before_anything_runs() {
    insta::assert_snapshot!(refused(&pipeline("bf16", "cpu"), &[]), @r"
    unfit-device

      x `precision: bf16` is not there on the CPU
        ,-[p.yaml:13:18]
     12 |       max_steps: 2
     13 |       precision: bf16
        :                  ^^^^
     14 |     device: cpu
        `----
      help: write `precision: f32`, or leave it out; or compute on a GPU with `device: cuda`

    1 error
    ");
    let evaluated = format!(
        "{}  scores:
    evaluate: {{ model: model, data: tokens, split: test, precision: $sort }}
    device: cpu
params: {{ sort: tf32 }}
",
        pipeline("f32", "cpu")
    );
    insta::assert_snapshot!(refused(&evaluated, &[]), @r"
    unfit-device

      x `precision: tf32` is not there on the CPU
        ,-[p.yaml:16:69]
     15 |   scores:
     16 |     evaluate: { model: model, data: tokens, split: test, precision: $sort }
        :                                                                     ^^^^^
     17 |     device: cpu
     18 | params: { sort: tf32 }
        :                 ^^|^
        :                   `-- the value is given here
        `----
      help: write `precision: f32`, or leave it out; or compute on a GPU with `device: cuda`

    1 error
    ");
    let said = refused(&pipeline("f32", "metal"), &[]);
    assert!(said.contains("this program has no Metal in it"), "{said}");
}

/// The CPU is the CPU, whoever chooses it.
#[cfg(not(feature = "cuda"))]
#[test]
fn auto_is_the_cpu_where_there_is_nothing_else() {
    let project = Project::with(&pipeline("f32", "auto"));
    let first = project.run(&[]);
    project.write("p.yaml", &pipeline("f32", "cpu"));
    let second = project.run(&[]);
    assert_eq!(Project::executed(&second), [""; 0]);
    assert_eq!(first["run"], second["run"]);
}
