//! Logits, losses, gradients and trainings beside PyTorch's.

use taper_nn::loss::LossSum;
use taper_nn::model::{Architecture, Bert, BertConfig, Pooling};
use taper_nn::optimizer::{Adam, Optimizer, Rule, clip_scale};
use taper_nn::schedule::{Course, Schedule};
use taper_nn::{Batch, Dropout, Gradients, Learner, Network, Real};

use crate::common::{distance, floats, json, tensors};
use crate::references::{Golden, Plan, assert_norms};

const TRAINING: Dropout = Dropout { seed: 0, epoch: 0 };

/// How near results must be: for `f32` what the references' README suggests, for `f64` rounding.
struct Tolerance {
    logits: f64,
    loss: f64,
    norm: f64,
    gradient: f64,
    weights_by_descent: f64,
    weights_by_adam: f64,
    /// For the few elements whose gradient is nearly 0, which Adam moves by the learning rate.
    weights_at_worst: f64,
}

trait Checked: Real {
    const TAG: &'static str;
    const TOLERANCE: Tolerance;
}

impl Checked for f32 {
    const TAG: &'static str = "f32";
    const TOLERANCE: Tolerance = Tolerance {
        logits: 1e-5,
        loss: 2e-6,
        norm: 2e-5,
        gradient: 1e-5,
        weights_by_descent: 2e-6,
        weights_by_adam: 1e-5,
        weights_at_worst: 1e-3,
    };
}

impl Checked for f64 {
    const TAG: &'static str = "f64";
    const TOLERANCE: Tolerance = Tolerance {
        logits: 1e-11,
        loss: 1e-11,
        norm: 1e-11,
        gradient: 1e-11,
        weights_by_descent: 1e-11,
        weights_by_adam: 1e-11,
        weights_at_worst: 1e-11,
    };
}

trait OfReal {
    fn weights<R: Real>(&self, network: &dyn Network<R>) -> Vec<R>;
    fn reference<R: Checked>(&self, name: &str) -> &[f64];
}

impl OfReal for Golden {
    fn weights<R: Real>(&self, network: &dyn Network<R>) -> Vec<R> {
        let weights = self.beginning(network.parameters());
        weights.into_iter().map(R::from_f64).collect()
    }

    fn reference<R: Checked>(&self, name: &str) -> &[f64] {
        // What f32 makes is held beside the f64 values too.
        let _ = R::TAG;
        &self.reference[&format!("f64.{name}")]
    }
}

fn wide<R: Real>(values: &[R]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

/// Initial logits and losses of every batch, and each tensor's gradient for the first.
fn initial<R: Checked>(kind: &'static str) {
    let golden = Golden::open(kind);
    let mut network = golden.architecture.build::<R>();
    let weights = golden.weights(&*network);
    for (i, batch) in golden.batches.iter().enumerate() {
        let expected = golden.reference::<R>(&format!("logits.{i}"));
        for dropout in [None, Some(&TRAINING)] {
            let logits = network.forward(&weights, batch, dropout);
            let off = distance(&wide(&logits), expected);
            assert!(off <= R::TOLERANCE.logits, "{kind} logits {i}: {off:e}");
            let loss = golden.loss.value(&logits, &batch.labels).mean();
            let off = (loss - golden.reference::<R>(&format!("loss.{i}"))[0]).abs();
            assert!(off <= R::TOLERANCE.loss, "{kind} loss {i}: {off:e}");
        }
    }
    let batch = &golden.batches[0];
    let logits = network.forward(&weights, batch, Some(&TRAINING));
    let mut logits_gradient = vec![R::ZERO; logits.len()];
    golden
        .loss
        .gradient(&logits, &batch.labels, 1.0, &mut logits_gradient);
    let mut gradients = vec![R::ZERO; network.parameters().buffer_len()];
    network.backward(
        &weights,
        batch,
        &logits_gradient,
        Gradients::added(&mut gradients),
    );
    let without = golden.trainings["params_without_grad"].as_array();
    for tensor in network.parameters().tensors() {
        let name = golden.name(&tensor.name);
        let untrained = without.is_some_and(|names| names.iter().any(|other| *other == *name));
        assert_eq!(tensor.trained, !untrained, "{name}");
        if tensor.trained {
            let expected = golden.reference::<R>(&format!("grad0.{name}"));
            let off = distance(&wide(&gradients[tensor.range()]), expected);
            assert!(
                off <= R::TOLERANCE.gradient,
                "{kind} gradient of {name}: {off:e}"
            );
        }
    }
}

/// The hidden states of the first batch at real positions, and what the pooler makes of them.
fn hidden_states<R: Checked>(kind: &'static str) {
    let golden = Golden::open(kind);
    let Architecture::Bert(config) = &golden.architecture else {
        panic!("{kind} is no BERT");
    };
    let batch = &golden.batches[0];
    for pooling in [Pooling::Pooler, Pooling::Mean] {
        let mut network = Bert::<R>::new(BertConfig {
            pooling,
            ..config.clone()
        });
        let weights = golden.weights(&network);
        network.forward(&weights, batch, Some(&TRAINING));
        let width = config.hidden_size;
        if pooling == Pooling::Pooler {
            let expected = golden.reference::<R>("pooler0");
            let off = distance(&wide(network.features()), expected);
            assert!(off <= R::TOLERANCE.logits, "{kind} pooler: {off:e}");
            continue;
        }
        for layer in 0..=config.layers {
            let padded = golden.reference::<R>(&format!("hidden0.{layer}"));
            let packed: Vec<f64> = (0..batch.len())
                .flat_map(|row| {
                    let start = row * batch.width * width;
                    &padded[start..start + batch.range(row).len() * width]
                })
                .copied()
                .collect();
            let off = distance(&wide(network.hidden_states(layer)), &packed);
            assert!(
                off <= R::TOLERANCE.logits,
                "{kind} hidden states {layer}: {off:e}"
            );
        }
    }
}

/// Logits of the first batch without token types, and with torch's fused attention.
fn variants(kind: &'static str) {
    let golden = Golden::open(kind);
    let mut network = golden.architecture.build::<f32>();
    let weights = golden.weights(&*network);
    let batch = golden.batches[0].clone();
    let without = Batch {
        type_ids: Vec::new(),
        ..batch.clone()
    };
    for (batch, name) in [
        (&batch, "f32.sdpa_logits.0"),
        (&without, "f32.no_token_type_logits.0"),
    ] {
        let logits = wide(&network.forward(&weights, batch, None));
        let off = distance(&logits, &golden.reference[name]);
        assert!(off <= f32::TOLERANCE.logits, "{kind} {name}: {off:e}");
    }
}

/// What a training leaves behind.
struct Trained<R> {
    network: Box<dyn Network<R>>,
    weights: Vec<R>,
    losses: Vec<f64>,
    norms: Vec<f64>,
    rates: Vec<f64>,
    /// The mean loss over all batches after some of the steps.
    evaluations: Vec<f64>,
}

fn evaluate<R: Real>(golden: &Golden, network: &mut dyn Network<R>, weights: &[R]) -> f64 {
    let mut total = LossSum::default();
    for batch in &golden.batches {
        let logits = network.forward(weights, batch, None);
        total += golden.loss.value(&logits, &batch.labels);
    }
    total.mean()
}

fn train<R: Real>(golden: &Golden, plan: &Plan, evaluate_every: usize) -> Trained<R> {
    let mut network = golden.architecture.build::<R>();
    let parameters = network.parameters().clone();
    let optimizer = Optimizer::new(plan.rule, &[], &parameters);
    let mut learner = Learner::new(parameters, golden.weights(&*network), optimizer);
    let [mut losses, mut norms, mut rates, mut evaluations] = [const { Vec::new() }; 4];
    for (step, batches) in golden.batches.chunks_exact(plan.accumulate).enumerate() {
        let share = 1.0 / plan.accumulate as f64;
        let mut loss = 0.0;
        for batch in batches {
            let (sum, _) = learner.add_batch(&mut *network, batch, &TRAINING, &golden.loss, share);
            loss += sum.mean() * share;
        }
        let norm = learner.gradient_norm();
        let scale = plan.clip.map_or(1.0, |limit| clip_scale(norm, limit));
        let rate = plan.schedule.learning_rate(plan.learning_rate, step as u64);
        learner.step(rate, scale);
        losses.push(loss);
        norms.push(norm);
        rates.push(rate);
        if (step + 1) % evaluate_every == 0 {
            let (weights, _) = learner.settle();
            evaluations.push(evaluate(golden, &mut *network, weights));
        }
    }
    Trained {
        network,
        weights: learner.into_weights(),
        losses,
        norms,
        rates,
        evaluations,
    }
}

/// Weights but for `*.key.bias`, whose gradient is 0 but for rounding, which Adam makes large.
fn assert_weights<R: Checked>(
    golden: &Golden,
    trained: &Trained<R>,
    file: &str,
    adam: bool,
    what: &str,
) {
    let expected = tensors(&golden.folder.join(file));
    let tolerance = &R::TOLERANCE;
    let mut far = 0;
    let mut count = 0;
    for tensor in trained.network.parameters().tensors() {
        if tensor.name.ends_with("key.bias") {
            continue;
        }
        let expected = &expected[&golden.name(&tensor.name)];
        for (weight, expected) in trained.weights[tensor.range()].iter().zip(expected) {
            let off = (weight.to_f64() - expected).abs();
            let limit = if adam {
                tolerance.weights_at_worst
            } else {
                tolerance.weights_by_descent
            };
            assert!(
                off <= limit,
                "{what}: weight of {} is off by {off:e}",
                tensor.name
            );
            count += 1;
            far += usize::from(off > tolerance.weights_by_adam);
        }
    }
    assert!(
        far * 1000 <= count,
        "{what}: {far} of {count} weights are off"
    );
}

fn trainings<R: Checked>(kind: &'static str) {
    let golden = Golden::open(kind);
    let mut seen = 0;
    for (scenario, value) in golden.trainings.as_object().unwrap() {
        let expected = &value["f64"];
        if expected.is_null() {
            continue;
        }
        seen += 1;
        let plan = Plan::read(expected);
        let mut trained = train::<R>(&golden, &plan, usize::MAX);
        let what = format!("{kind}, {scenario}, {}", R::TAG);
        let tolerance = &R::TOLERANCE;
        // Adam divides by roots of squares of gradients near 0 there: torch's own f32 is off by 8e-7.
        let ease = if what.starts_with("bert_pooler, adam,") {
            2.5
        } else {
            1.0
        };

        let off = distance(&trained.rates, &floats(&expected["lr"]));
        assert!(off <= 1e-15, "{what}: learning rates are off by {off:e}");
        let off = distance(&trained.losses, &floats(&expected["loss"]));
        assert!(
            off <= tolerance.loss * ease,
            "{what}: losses are off by {off:e}"
        );
        let norms = floats(&expected["grad_norm"]);
        assert_norms(&trained.norms, &norms, tolerance.norm, &what);

        let first = &golden.batches[0];
        let logits = trained.network.forward(&trained.weights, first, None);
        let loss = golden.loss.value(&logits, &first.labels).mean();
        let off = (loss - expected["final_loss_batch0"].as_f64().unwrap()).abs();
        assert!(
            off <= tolerance.loss * ease,
            "{what}: the last loss is off by {off:e}"
        );

        let file = format!("final.{scenario}.f64.safetensors");
        if golden.folder.join(&file).exists() {
            let adam = !matches!(plan.rule, Rule::Sgd(_));
            assert_weights(&golden, &trained, &file, adam, &what);
        }
    }
    assert_eq!(seen, 8, "{kind} has not all its scenarios");
}

/// A real `transformers.Trainer` with its defaults: AdamW without decay, linear, clipped at 1.
fn trainer_defaults(kind: &'static str) {
    let golden = Golden::open(kind);
    let file = json(&golden.folder.join("hf_trainer_defaults.json"));
    let arguments = &file["args"];
    let adam = floats(&arguments["adam"]);
    let plan = Plan {
        rule: Rule::AdamW(Adam {
            betas: [adam[0], adam[1]],
            eps: adam[2],
            weight_decay: arguments["weight_decay"].as_f64().unwrap(),
        }),
        learning_rate: arguments["learning_rate"].as_f64().unwrap(),
        schedule: Schedule {
            course: Course::Linear,
            warmup: 0,
            total: arguments["max_steps"].as_u64().unwrap(),
        },
        clip: arguments["max_grad_norm"].as_f64(),
        accumulate: 1,
    };
    let trained = train::<f32>(&golden, &plan, 5);
    let column = |name: &str| -> Vec<f64> {
        let history = file["log_history"].as_array().unwrap().iter();
        history.filter_map(|entry| entry[name].as_f64()).collect()
    };
    assert!(distance(&trained.losses, &column("loss")) <= 5e-6);
    assert!(distance(&trained.rates, &column("learning_rate")) <= 1e-15);
    assert_norms(&trained.norms, &column("grad_norm"), 2e-5, kind);
    assert!(distance(&trained.evaluations, &column("eval_loss")) <= 5e-6);
    let weights = "final.hf_trainer_defaults.f32.safetensors";
    assert_weights(&golden, &trained, weights, true, kind);
}

#[test]
fn textcnn_begins_as_in_torch() {
    initial::<f32>("textcnn");
    initial::<f64>("textcnn");
}

#[test]
fn textcnn_trains_as_in_torch() {
    trainings::<f32>("textcnn");
    trainings::<f64>("textcnn");
}

#[test]
fn textcnn_trains_as_with_the_trainer_of_transformers() {
    trainer_defaults("textcnn");
}

#[test]
fn rnn_begins_as_in_torch() {
    initial::<f32>("rnn");
    initial::<f64>("rnn");
}

#[test]
fn rnn_trains_as_in_torch() {
    trainings::<f32>("rnn");
    trainings::<f64>("rnn");
}

#[test]
fn bert_with_cls_begins_as_in_torch() {
    initial::<f32>("bert_cls");
    initial::<f64>("bert_cls");
}

#[test]
fn bert_with_cls_trains_as_in_torch() {
    trainings::<f32>("bert_cls");
    trainings::<f64>("bert_cls");
}

#[test]
fn bert_with_pooler_begins_as_in_torch() {
    initial::<f32>("bert_pooler");
    initial::<f64>("bert_pooler");
}

#[test]
fn bert_with_pooler_trains_as_in_torch() {
    trainings::<f32>("bert_pooler");
    trainings::<f64>("bert_pooler");
}

#[test]
fn bert_with_bce_begins_as_in_torch() {
    initial::<f32>("bert_bce");
    initial::<f64>("bert_bce");
}

#[test]
fn bert_with_bce_trains_as_in_torch() {
    trainings::<f32>("bert_bce");
    trainings::<f64>("bert_bce");
}

#[test]
fn bert_trains_as_with_the_trainer_of_transformers() {
    trainer_defaults("bert_pooler");
}

#[test]
fn bert_has_the_hidden_states_of_transformers() {
    for kind in ["bert_cls", "bert_pooler", "bert_bce"] {
        hidden_states::<f32>(kind);
        hidden_states::<f64>(kind);
        variants(kind);
    }
}
