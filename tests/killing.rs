//! A training that is killed at any instant goes on from its checkpoint and ends in the same bytes.

use std::time::{Instant, SystemTime};

use serde_json::Value;

use crate::common::{Project, start};

fn pipeline(steps: u32) -> String {
    format!(
        "taper: 1
seed: 3
stages:
  corpus:
    download: {{ sample: acceptability, rows: {{ train: 300, test: 60 }} }}
  tokens:
    tokenize: {{ data: corpus, tokenizer: {{ train: {{ wordpiece: {{ vocab_size: 200 }} }} }}, text: text, max_length: 24 }}
  model:
    train:
      data: tokens
      train: train
      validation: test
      model: {{ bert: {{ dropout: 0.1, config: {{ hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64, max_position_embeddings: 24 }} }} }}
      optimizer: {{ adamw: {{ lr: 1e-3 }} }}
      schedule: linear
      batch_size: 8
      max_steps: {steps}
      evaluate_every: 40
      log_every: 5
      keep: best
      checkpoint_every: 10
"
    )
}

fn model(report: &Value) -> String {
    let stages = report["stages"].as_array().expect("stages");
    let stage = stages.iter().find(|stage| stage["name"] == "model");
    stage.expect("trained")["artifact"]
        .as_str()
        .expect("a digest")
        .to_owned()
}

/// Kills a training of so many steps so many times, at any instant, each time another one from its beginning.
fn kill(kills: u32, steps: u32) {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let drawn = clock.map_or(0, |elapsed| u64::from(elapsed.subsec_nanos()));
    let seed =
        std::env::var("TAPER_TEST_SEED").map_or(drawn, |seed| seed.parse().expect("a number"));
    let number = |name: &str, otherwise| {
        std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
    };
    let (kills, steps) = (
        number("TAPER_TEST_KILLS", kills),
        number("TAPER_TEST_STEPS", steps),
    );
    let whole = Project::with(&pipeline(steps));
    let began = Instant::now();
    let expected = model(&whole.run(&[]));
    let long = began.elapsed();
    let mut state = seed;
    let (mut tried, mut hit, mut resumed) = (0, 0, 0);
    // What ended before its kill was not killed: it has to end well too, but does not count.
    while hit < kills {
        assert!(
            tried < 10 * kills,
            "seed {seed}: {hit} of {tried} kills came before the end"
        );
        tried += 1;
        // Knuth's MMIX generator: it only has to scatter.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let instant = long.mul_f64((state >> 40) as f64 / f64::from(1 << 24));
        let project = Project::with(&pipeline(steps));
        let mut child = start(project.path(), &["run", "p.yaml", "-q"]);
        std::thread::sleep(instant);
        hit += u32::from(child.try_wait().expect("a child of ours").is_none());
        child.kill().expect("killed");
        child.wait().expect("it has ended");
        let ran = project.taper(&["run", "p.yaml", "--json"]);
        assert_eq!(ran.code, Some(0), "seed {seed}: {}", ran.stderr);
        resumed += u32::from(ran.stderr.contains("going on from the checkpoint of step"));
        let ended = model(&serde_json::from_str(&ran.stdout).expect("JSON"));
        assert_eq!(ended, expected, "seed {seed}, killed after {instant:?}");
    }
    assert!(resumed > 0, "seed {seed}: no kill came behind a checkpoint");
    #[expect(
        clippy::print_stdout,
        reason = "what was tried is told with --nocapture"
    )]
    {
        println!(
            "seed {seed}: a run of {long:.1?} killed {hit} times in {tried} before its end, {resumed} gone on from a checkpoint: always {}",
            &expected[..12]
        );
    }
}

#[test]
fn a_killed_training_ends_in_the_same_bytes() {
    kill(5, 1000);
}

#[test]
#[ignore = "20 s a training: takes half an hour"]
fn a_long_training_killed_fifty_times_ends_in_the_same_bytes() {
    kill(50, 12_000);
}
