//! Whole trainings, from tokens to a model folder: what a user relies on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use taper_cache::{ArtifactType, Digest};
use taper_engine::{Event, Events, Kind, Reporter, Stage, StageErrorKind};

use super::fixture::{Row, learnable, tokens};
use super::history::{self, Entry};
use super::params::Settings;
use crate::artifact::Model;
use crate::artifact::model::{WEIGHTS_FILE, load_weights};
use crate::golden;
use crate::testing::{Workshop, told};
use crate::train::Train;
use crate::training::network::architecture;

const VOCABULARY: usize = 20;

/// A workshop and tokens to learn from.
fn shop() -> (Workshop, Digest) {
    let workshop = Workshop::new();
    let rows = learnable(120, VOCABULARY as i32);
    let (train, test) = rows.split_at(90);
    let data = tokens(&workshop, VOCABULARY, &[("train", train), ("test", test)]);
    (workshop, data)
}

/// The parameters that every test begins with, with others put over them.
fn params(data: &Digest, others: Value) -> String {
    let mut params = json!({
        "data": data.to_string(),
        "validation": "test",
        "model": { "textcnn": { "embedding_dim": 8, "filters": 6 } },
        "optimizer": { "adamw": { "lr": 0.02 } },
        "epochs": 4,
        "log_every": 10,
        "keep": "best",
    });
    let fields = params.as_object_mut().unwrap();
    for (name, value) in others.as_object().unwrap() {
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    params.to_string()
}

fn read(workshop: &Workshop, model: &Digest, name: &str) -> Vec<u8> {
    let path = workshop.artifact(model).path(name);
    fs_err::read(path.unwrap_or_else(|| panic!("no {name}"))).unwrap()
}

fn history_of(workshop: &Workshop, model: &Digest) -> Vec<Entry> {
    let text = String::from_utf8(read(workshop, model, "history.jsonl")).unwrap();
    history::read(&text).unwrap()
}

fn training_of(workshop: &Workshop, model: &Digest) -> Value {
    serde_json::from_slice(&read(workshop, model, "training.json")).unwrap()
}

#[test]
fn a_text_cnn_learns_and_repeats_to_the_bit() {
    let (workshop, data) = shop();
    let model = workshop.run(Train, &params(&data, json!({ "epochs": 8 })));
    let history = history_of(&workshop, &model);
    let last = history.last().unwrap();
    assert_eq!(last.step, 8 * 12);
    assert_eq!(last.epoch, 8.0);
    let accuracy = |entry: &Entry| entry.get("eval_accuracy").unwrap();
    assert!(accuracy(last) > 0.9, "{last:?}");
    assert_eq!(
        history
            .iter()
            .filter(|entry| entry.get("eval_loss").is_some())
            .map(|entry| entry.step)
            .collect::<Vec<_>>(),
        [12, 24, 36, 48, 60, 72, 84, 96]
    );
    let names: Vec<_> = workshop
        .artifact(&model)
        .names()
        .map(str::to_owned)
        .collect();
    assert_eq!(
        names,
        [
            "config.json",
            "history.jsonl",
            "model.safetensors",
            "tokenizer.json",
            "tokens.json",
            "training.json"
        ]
    );
    assert_eq!(
        workshop.run(Train, &params(&data, json!({ "epochs": 8 }))),
        model
    );
    assert_ne!(
        workshop.run_seeded(Train, &params(&data, json!({ "epochs": 8 })), 1),
        model
    );
}

#[test]
fn every_network_trains_and_is_opened_again() {
    let (workshop, data) = shop();
    let sizes = json!({ "embedding_dim": 6, "hidden_size": 5, "layers": 2, "bidirectional": true, "dropout": 0.1 });
    let bert = json!({
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 16,
    });
    for (network, outputs) in [
        (json!({ "textcnn": { "dropout": 0.2 } }), 2),
        (
            json!({ "rnn": { "nonlinearity": "relu", "hidden_size": 5 } }),
            2,
        ),
        (json!({ "lstm": sizes }), 2),
        (json!({ "gru": sizes }), 2),
        (json!({ "bert": { "config": bert, "pooling": "mean" } }), 2),
        (json!({ "bert": { "config": bert } }), 1),
    ] {
        let loss = if outputs == 1 {
            "bce_with_logits"
        } else {
            "cross_entropy"
        };
        let others =
            json!({ "model": network, "max_steps": 6, "epochs": null, "loss": { loss: {} } });
        let digest = workshop.run(Train, &params(&data, others.clone()));
        assert_eq!(
            workshop.run(Train, &params(&data, others)),
            digest,
            "{network}"
        );
        let model: Model = taper_engine::Artifact::open(workshop.artifact(&digest)).unwrap();
        let config = model.config().unwrap();
        assert_eq!(config.classes, ["zero", "one"]);
        let built = architecture(&config.network, outputs).build::<f32>();
        let loaded = load_weights(built.parameters(), &model.weights().unwrap(), 0).unwrap();
        assert!(
            loaded.missing.is_empty() && loaded.unexpected.is_empty() && loaded.remade.is_empty()
        );
    }
}

/// Trains with a fixed scratch folder, and stops when `stop_at` lines have been logged.
fn attempt(
    workshop: &Workshop,
    params: &str,
    settings: Settings,
    scratch: &Path,
    stop_at: u64,
) -> Result<Digest, StageErrorKind> {
    let stop = Arc::new(AtomicBool::new(false));
    let logged = AtomicU64::new(0);
    let flag = stop.clone();
    let events = Events::new(move |event| {
        if matches!(event, Event::Metrics { .. })
            && logged.fetch_add(1, Ordering::Relaxed) + 1 == stop_at
        {
            flag.store(true, Ordering::Relaxed);
        }
    });
    let mut context = workshop.context(0);
    context.scratch = scratch.to_owned();
    context.reporter = Reporter::new("model", events, stop);
    let stage = Stage {
        params: workshop.params::<Train>(params),
        settings,
        resolved: None,
    };
    Train.run(&stage, &context).map_err(|error| error.kind)?;
    Ok(workshop.keep(&context.out, ArtifactType::Model))
}

#[test]
fn however_often_it_is_interrupted_the_bytes_are_the_same() {
    let (workshop, data) = shop();
    let bert = json!({
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
        "max_position_embeddings": 16,
    });
    for network in [
        json!({ "textcnn": { "dropout": 0.3 } }),
        json!({ "bert": { "config": bert } }),
    ] {
        let params = params(
            &data,
            json!({
                "model": network, "log_every": 1, "evaluate_every": 5, "accumulate": 2, "epochs": 2,
                "clip_norm": 0.5, "schedule": { "linear": { "warmup_ratio": 0.2 } }, "batch_size": 4,
                "group_by_length": true, "early_stopping": { "patience": 3, "min_delta": 0.001 },
            }),
        );
        let undisturbed = workshop.run(Train, &params);
        for lines in [3, 10] {
            let scratch = workshop.fresh();
            let mut interruptions = 0;
            let digest = loop {
                match attempt(&workshop, &params, Settings::default(), &scratch, lines) {
                    Ok(digest) => break digest,
                    Err(kind) => assert_eq!(kind, StageErrorKind::Interrupted),
                }
                interruptions += 1;
                assert!(interruptions < 100, "it does not go on");
            };
            assert_eq!(digest, undisturbed, "stopped after every {lines} lines");
            assert!(interruptions >= 1);
        }
    }
}

#[test]
fn a_kill_loses_what_came_after_the_last_checkpoint_and_nothing_else() {
    let (workshop, data) = shop();
    let params = params(&data, json!({ "log_every": 1, "evaluate_every": 7 }));
    let undisturbed = workshop.run(Train, &params);
    let settings = Settings {
        checkpoint_every: Some(5),
        tensorboard: true,
    };
    let scratch = workshop.fresh();
    attempt(&workshop, &params, settings.clone(), &scratch, 23).unwrap_err();
    // What a kill at this moment leaves: no checkpoint of the stop itself, and half of the next one.
    let mut checkpoints: Vec<_> = fs_err::read_dir(&scratch)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    checkpoints.sort();
    fs_err::remove_file(checkpoints.pop().unwrap()).unwrap();
    fs_err::write(scratch.join("writing-abc"), "half").unwrap();
    assert_eq!(
        attempt(&workshop, &params, settings, &scratch, 0),
        Ok(undisturbed)
    );
}

#[test]
fn a_loss_that_is_not_finite_ends_the_training_at_its_step() {
    let (workshop, data) = shop();
    let message = workshop.fail(
        Train,
        &params(
            &data,
            json!({ "optimizer": { "sgd": { "lr": 1e30 } }, "keep": "last" }),
        ),
    );
    assert!(message.contains("at step 2"), "{message}");
    assert!(message.contains("lower the learning rate"), "{message}");
}

#[test]
fn data_that_cannot_be_trained_on_is_refused_before_training() {
    let workshop = Workshop::new();
    let good = learnable(8, VOCABULARY as i32);
    let mut unlabelled = good.clone();
    unlabelled[3].label = None;
    let mut long = good.clone();
    long[0].ids = vec![1; 20];
    long[0].segments = vec![0; 20];
    let none: &[Row] = &[];
    let splits: [(&str, &[Row]); 4] = [
        ("train", &good),
        ("test", &unlabelled),
        ("none", none),
        ("long", &long),
    ];
    let data = tokens(&workshop, VOCABULARY, &splits);
    let bert = json!({ "bert": { "config": {
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
        "max_position_embeddings": 16,
    } } });
    let mut told = Vec::new();
    for others in [
        json!({}),
        json!({ "train": "none" }),
        json!({ "train": "trian" }),
        json!({ "train": "long", "validation": "train", "model": bert }),
        json!({ "validation": "train", "freeze": ["encoder.*"] }),
        json!({ "validation": "train", "freeze": ["*"] }),
        json!({ "validation": "train", "loss": { "cross_entropy": { "class_weights": [1.0] } } }),
        json!({ "validation": null }),
    ] {
        told.push(workshop.fail(Train, &params(&data, others)));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    row 3 (counted from 0) of `test` has no label
      at validation
      help: the hub's test splits often have none: use another split
    the split `none` has no rows
      at train
    the data has no split `trian`
      at train
      help: did you mean `train`?
    a row of `long` has 20 tokens, the model reads 16 at most
      at data
      help: set `max_length: 16` in the `tokenize` stage
    no tensor is called `encoder.*`
      at freeze
      help: there are embeddings.weight, convolution.weight, convolution.bias, output_layer.weight, output_layer.bias
    every tensor is frozen: nothing is left to train
      at freeze
    `class_weights` has to have a number for each of 2 classes (zero, one), not 1
      at loss.cross_entropy.class_weights
    `keep` needs evaluations, and there is no split for them
      at keep
      help: name one with `validation`
    "#);
}

#[test]
fn the_best_model_is_kept_and_patience_ends() {
    let (workshop, data) = shop();
    let others = json!({
        "optimizer": { "sgd": { "lr": 0.0 } }, "early_stopping": { "patience": 2 }, "epochs": 9,
    });
    let model = workshop.run(Train, &params(&data, others));
    let training = training_of(&workshop, &model);
    assert_eq!(training["stopped_early"], true);
    assert_eq!(
        training["steps"], 36,
        "one evaluation that counts, two that do not"
    );
    assert_eq!(training["best_step"], 12);
    assert_eq!(training["monitor"], "eval_loss");
    assert_eq!(training["parameters"]["data"], data.to_string());
}

#[test]
fn what_is_frozen_stays_and_what_fits_is_taken_over() {
    let (workshop, data) = shop();
    let first = workshop.run(Train, &params(&data, json!({})));
    let others = json!({ "from": first.to_string(), "model": null, "freeze": ["embeddings"] });
    let second = workshop.run(Train, &params(&data, others));
    let tensor = |model: &Digest, name: &str| {
        let bytes = read(&workshop, model, WEIGHTS_FILE);
        SafeTensors::deserialize(&bytes)
            .unwrap()
            .tensor(name)
            .unwrap()
            .data()
            .to_vec()
    };
    let same = |name: &str| tensor(&first, name) == tensor(&second, name);
    assert!(same("embeddings.weight"));
    assert!(!same("convolution.weight"));
    let other_sizes =
        json!({ "from": first.to_string() , "model": { "textcnn": { "filters": 7 } } });
    let message = workshop.fail(Train, &params(&data, other_sizes));
    assert!(
        message.contains("[20, 8]") && message.contains("[20, 64]"),
        "{message}"
    );
    let other_network = json!({ "from": first.to_string() , "model": { "gru": {} } });
    let message = workshop.fail(Train, &params(&data, other_network));
    assert!(
        message.contains("`taper-gru` cannot start from a `taper-textcnn`"),
        "{message}"
    );
}

#[test]
fn padding_changes_a_reader_of_padding_and_no_bit_of_bert() {
    let (workshop, data) = shop();
    let bert = json!({ "bert": { "config": {
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
        "max_position_embeddings": 16,
    } } });
    let weights = |network: &Value, padding: Value| {
        let others =
            json!({ "model": network, "padding": padding, "max_steps": 5, "epochs": null });
        let model = workshop.run(Train, &params(&data, others));
        read(&workshop, &model, WEIGHTS_FILE)
    };
    let wide = || json!({ "multiple_of": 8 });
    assert_eq!(weights(&bert, json!("longest")), weights(&bert, wide()));
    assert_eq!(
        weights(&bert, json!("longest")),
        weights(&bert, json!("max_length"))
    );
    let gru = json!({ "gru": { "hidden_size": 4 } });
    assert_ne!(weights(&gru, json!("longest")), weights(&gru, wide()));
}

/// The rows of the golden batches, without their padding.
fn golden_rows(kind: &str) -> Vec<Row> {
    let bytes = fs_err::read(golden::path(&format!("{kind}/batches.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: &str| -> (Vec<usize>, Vec<i64>) {
        let tensor = file.tensor(name).unwrap();
        let numbers = tensor.data().as_chunks::<8>().0;
        (
            tensor.shape().to_vec(),
            numbers
                .iter()
                .map(|bytes| i64::from_le_bytes(*bytes))
                .collect(),
        )
    };
    let count = file
        .names()
        .iter()
        .filter(|name| name.ends_with(".labels"))
        .count();
    let mut rows = Vec::new();
    for batch in 0..count {
        let (shape, ids) = numbers(&format!("{batch}.input_ids"));
        let (_, mask) = numbers(&format!("{batch}.attention_mask"));
        let (_, segments) = numbers(&format!("{batch}.token_type_ids"));
        let (_, labels) = numbers(&format!("{batch}.labels"));
        for (row, label) in labels.into_iter().enumerate() {
            let place = row * shape[1]..(row + 1) * shape[1];
            let length = mask[place.clone()].iter().sum::<i64>() as usize;
            let part = place.start..place.start + length;
            rows.push(Row {
                ids: ids[part.clone()].iter().map(|&id| id as i32).collect(),
                segments: segments[part]
                    .iter()
                    .map(|&segment| segment as i8)
                    .collect(),
                label: Some(label as u32),
            });
        }
    }
    rows
}

fn golden_model(workshop: &Workshop, kind: &str) -> (Digest, usize) {
    let golden = golden::json(&format!("{kind}/config.json"));
    let (config, vocabulary) = match golden.get("hf_config") {
        Some(config) => (config.clone(), config["vocab_size"].clone()),
        None => (
            json!({
                "model_type": "taper-textcnn", "vocab_size": golden["vocab_size"],
                "embedding_dim": golden["embedding_dim"], "filters": golden["num_filters"],
                "width": golden["filter_size"], "padding": golden["padding"], "dropout": 0.0,
                "loss": "cross_entropy", "labels": ["zero", "one"],
            }),
            golden["vocab_size"].clone(),
        ),
    };
    let folder = workshop.fresh();
    fs_err::write(folder.join("config.json"), config.to_string()).unwrap();
    let weights = fs_err::read(golden::path(&format!("{kind}/init.safetensors"))).unwrap();
    fs_err::write(folder.join(WEIGHTS_FILE), weights).unwrap();
    let model = workshop.keep(&folder, ArtifactType::Model);
    (
        model,
        usize::try_from(vocabulary.as_u64().unwrap()).unwrap(),
    )
}

/// The history of transformers' Trainer at its defaults, number by number.
#[test]
fn trainings_go_as_in_transformers() {
    for kind in ["textcnn", "bert_pooler"] {
        let workshop = Workshop::new();
        let rows = golden_rows(kind);
        let (model, vocabulary) = golden_model(&workshop, kind);
        let data = tokens(&workshop, vocabulary, &[("train", &rows)]);
        let golden = golden::json(&format!("{kind}/hf_trainer_defaults.json"));
        let args = &golden["args"];
        // Each step has a batch of its own.
        let steps = usize::try_from(args["max_steps"].as_u64().unwrap()).unwrap();
        let params = json!({
            "data": data.to_string(), "validation": "train", "from": model.to_string(), "data_order": "given",
            "optimizer": { "adamw": { "lr": args["learning_rate"], "weight_decay": args["weight_decay"] } },
            "schedule": { "linear": {} }, "clip_norm": args["max_grad_norm"],
            "batch_size": rows.len() / steps,
            "max_steps": args["max_steps"], "log_every": 1, "evaluate_every": 5,
        });
        let trained = workshop.run(Train, &params.to_string());
        let ours: BTreeMap<u64, Entry> = history_of(&workshop, &trained)
            .into_iter()
            .map(|entry| (entry.step, entry))
            .collect();
        let mut compared = 0;
        for theirs in golden["log_history"].as_array().unwrap() {
            let entry = &ours[&theirs["step"].as_u64().unwrap()];
            assert!((entry.epoch - theirs["epoch"].as_f64().unwrap()).abs() < 1e-12);
            for (name, tolerance) in [
                ("loss", 5e-6),
                ("grad_norm", 2e-5),
                ("learning_rate", 1e-15),
                ("eval_loss", 5e-6),
                ("eval_accuracy", 1e-12),
            ] {
                let Some(expected) = theirs[name].as_f64() else {
                    continue;
                };
                let got = entry
                    .get(if name == "learning_rate" { "lr" } else { name })
                    .unwrap();
                let scale = if name == "grad_norm" { expected } else { 1.0 };
                assert!(
                    (got - expected).abs() <= tolerance * scale,
                    "{kind}, step {}, {name}: {got} is not {expected}",
                    entry.step
                );
                compared += 1;
            }
        }
        assert_eq!(compared, 34);
        let ours = read(&workshop, &trained, WEIGHTS_FILE);
        let ours = SafeTensors::deserialize(&ours).unwrap();
        let theirs = fs_err::read(golden::path(&format!(
            "{kind}/final.hf_trainer_defaults.f32.safetensors"
        )))
        .unwrap();
        let theirs = SafeTensors::deserialize(&theirs).unwrap();
        for (name, theirs) in theirs
            .iter()
            .filter(|(name, _)| !name.ends_with("key.bias"))
        {
            let values = |bytes: &[u8]| -> Vec<f32> {
                bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|bytes| f32::from_le_bytes(*bytes))
                    .collect()
            };
            let ours = values(ours.tensor(name).unwrap().data());
            let theirs = values(theirs.data());
            let far = ours
                .iter()
                .zip(&theirs)
                .filter(|(a, b)| (*a - *b).abs() > 1e-5)
                .count();
            assert!(
                far * 1000 <= theirs.len().max(1000),
                "{kind} {name}: {far} of {}",
                theirs.len()
            );
        }
    }
}

#[test]
fn the_record_holds_times_and_events() {
    let (workshop, data) = shop();
    let context = workshop.context(0);
    let stage = Stage {
        params: workshop.params::<Train>(&params(&data, json!({}))),
        settings: Settings {
            checkpoint_every: None,
            tensorboard: true,
        },
        resolved: None,
    };
    Train
        .run(&stage, &context)
        .unwrap_or_else(|error| panic!("{}", told(&error)));
    let lines = |name: &str| {
        let text = fs_err::read_to_string(context.record.join(name)).unwrap();
        text.lines().count()
    };
    assert_eq!(lines("timing.jsonl"), lines("history.jsonl"));
    assert_eq!(
        fs_err::read(context.record.join("history.jsonl")).unwrap(),
        fs_err::read(context.out.join("history.jsonl")).unwrap()
    );
    let events = context
        .record
        .join("tensorboard")
        .join(super::tensorboard::FILE);
    assert!(fs_err::metadata(events).unwrap().len() > 1000);
}
