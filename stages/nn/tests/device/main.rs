//! Training on a device agrees with PyTorch's results, with the CPU and with itself. The device is simulated, the GPU's own
//! kernels on the CPU; or, with `TAPER_TEST_DEVICE=cuda`, it is a GPU.
#![cfg(any(feature = "simulation", feature = "cuda"))]
#![expect(
    clippy::unwrap_used,
    reason = "references of another shape fail the test"
)]

#[path = "../agreement/common.rs"]
mod common;
#[path = "../agreement/references.rs"]
mod references;

use std::sync::OnceLock;

use taper_nn::device::{Card, DeviceLearner, DeviceModel, Fault, Precision};
use taper_nn::loss::Loss;
use taper_nn::model::{Architecture, BertConfig, Pooling};
use taper_nn::optimizer::{Optimizer, Rule, Sgd, clip_scale};
use taper_nn::proof::{Training, trainings};
use taper_nn::{Batch, Dropout, Learner, Learning, OnHost, Parameters, kernels};

use common::{distance, floats, tensors};
use references::{Golden, Plan, assert_norms};

const TRAINING: Dropout = Dropout { seed: 0, epoch: 0 };

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn beginning(golden: &Golden, parameters: &Parameters) -> Vec<f32> {
    let weights = golden.beginning(parameters);
    weights.into_iter().map(|weight| weight as f32).collect()
}

/// Weights but for `*.key.bias`, whose gradient is 0 but for rounding, which Adam makes large.
fn assert_weights(
    golden: &Golden,
    (parameters, weights): (&Parameters, &[f32]),
    file: &str,
    limit: f64,
    what: &str,
) {
    let expected = tensors(&golden.folder.join(file));
    let (mut far, mut count) = (0, 0);
    for tensor in parameters.tensors() {
        if tensor.name.ends_with("key.bias") {
            continue;
        }
        let expected = &expected[&golden.name(&tensor.name)];
        for (&weight, expected) in weights[tensor.range()].iter().zip(expected) {
            let off = (f64::from(weight) - expected).abs();
            assert!(off <= limit, "{what}: {} is off by {off:e}", tensor.name);
            count += 1;
            far += usize::from(off > 1e-5);
        }
    }
    assert!(
        far * 1000 <= count,
        "{what}: {far} of {count} weights are off"
    );
}

/// The device that the tests are about.
fn card(precision: Precision) -> Card {
    if std::env::var("TAPER_TEST_DEVICE").as_deref() == Ok("cuda") {
        // Stays open, so that the next is not opened from the beginning.
        static FIRST: OnceLock<Card> = OnceLock::new();
        FIRST.get_or_init(|| Card::cuda(0, precision).unwrap());
        return Card::cuda(0, precision).unwrap();
    }
    simulated(precision, false, u64::MAX)
}

#[cfg(feature = "simulation")]
fn simulated(precision: Precision, descending: bool, memory: u64) -> Card {
    let simulation = taper_nn::device::Simulation::default().with_memory(memory);
    let simulation = match descending {
        false => simulation,
        true => simulation.descending(),
    };
    Card::simulated(simulation, precision)
}

#[cfg(not(feature = "simulation"))]
fn simulated(_: Precision, _: bool, _: u64) -> Card {
    panic!("say TAPER_TEST_DEVICE=cuda, or build with the feature `simulation`")
}

/// How far off a precision may be: losses and logits, relative norms.
fn tolerances(precision: Precision) -> (f64, f64, f64) {
    match precision {
        Precision::F32 => (1e-5, 2e-6, 2e-5),
        Precision::Tf32 => (2e-2, 1e-2, 2e-2),
        Precision::Bf16 => (0.1, 5e-2, 0.1),
    }
}

fn begins(kind: &'static str, precision: Precision) {
    let golden = Golden::open(kind);
    let parameters = golden.architecture.parameters();
    let weights = beginning(&golden, &parameters);
    let card = card(precision);
    let mut model = DeviceModel::new(card, &golden.architecture, &parameters, &weights).unwrap();
    let (logits_off, loss_off, _) = tolerances(precision);
    for (i, batch) in golden.batches.iter().enumerate() {
        let logits = model.logits(batch).unwrap();
        let off = distance(
            &wide(&logits),
            &golden.reference[&format!("f64.logits.{i}")],
        );
        assert!(off <= logits_off, "{kind} logits {i}: {off:e}");
        let loss = golden.loss.value(&logits, &batch.labels).mean();
        let off = (loss - golden.reference[&format!("f64.loss.{i}")][0]).abs();
        assert!(off <= loss_off, "{kind} loss {i}: {off:e}");
    }
}

fn trains(kind: &'static str, precision: Precision) {
    let golden = Golden::open(kind);
    for (scenario, value) in golden.trainings.as_object().unwrap() {
        let expected = &value["f64"];
        if expected.is_null() {
            continue;
        }
        let plan = Plan::read(expected);
        let parameters = golden.architecture.parameters();
        let mut learner = DeviceLearner::new(
            card(precision),
            &golden.architecture,
            &parameters,
            beginning(&golden, &parameters),
            Optimizer::new(plan.rule, &[], &parameters),
        )
        .unwrap();
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for (step, batches) in golden.batches.chunks_exact(plan.accumulate).enumerate() {
            let share = 1.0 / plan.accumulate as f64;
            let mut loss = 0.0;
            for batch in batches {
                let added = learner.add_batch(batch, &TRAINING, &golden.loss, share);
                loss += added.unwrap().0.mean() * share;
            }
            let norm = learner.gradient_norm().unwrap();
            let scale = plan.clip.map_or(1.0, |limit| clip_scale(norm, limit));
            let rate = plan.schedule.learning_rate(plan.learning_rate, step as u64);
            learner.step(rate, scale).unwrap();
            losses.push(loss);
            norms.push(norm);
        }
        let what = format!("{kind}, {scenario}, {precision:?}");
        let (_, loss_off, norm_off) = tolerances(precision);
        // As on the CPU: Adam divides by roots of squares of gradients near 0.
        let ease = if what.starts_with("bert_pooler, adam,") {
            2.5
        } else {
            1.0
        };
        let off = distance(&losses, &floats(&expected["loss"]));
        assert!(off <= loss_off * ease, "{what}: losses are off by {off:e}");
        assert_norms(&norms, &floats(&expected["grad_norm"]), norm_off, &what);
        let file = format!("final.{scenario}.f64.safetensors");
        if precision == Precision::F32 && golden.folder.join(&file).exists() {
            // The few elements whose gradient is nearly 0 Adam moves by the learning rate.
            let limit = match plan.rule {
                Rule::Sgd(_) => 2e-6,
                Rule::Adam(_) | Rule::AdamW(_) => 1e-3,
            };
            let (weights, _) = learner.settle().unwrap();
            assert_weights(&golden, (&parameters, weights), &file, limit, &what);
        }
    }
}

const KINDS: [&str; 5] = ["bert_cls", "bert_pooler", "bert_bce", "textcnn", "rnn"];

#[test]
fn networks_begin_on_a_device_as_in_torch() {
    for kind in KINDS {
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            begins(kind, precision);
        }
    }
}

#[test]
fn networks_train_on_a_device_as_in_torch() {
    for kind in KINDS {
        trains(kind, Precision::F32);
    }
}

#[test]
fn rounded_products_train_nearly_as_exact_ones() {
    for kind in ["bert_pooler", "textcnn", "rnn"] {
        trains(kind, Precision::Tf32);
        trains(kind, Precision::Bf16);
    }
}

/// Whatever the network, other bits come out. A GPU may leave small products unrounded where it is allowed to round.
#[test]
fn a_precision_is_never_ignored() {
    const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];
    let differ = |what: &str, [a, b, c]: [Vec<f32>; 3]| {
        let allowed = std::env::var("TAPER_TEST_DEVICE").as_deref() == Ok("cuda");
        assert!(a != c && b != c && (allowed || a != b), "{what}");
    };
    for kind in KINDS {
        let golden = Golden::open(kind);
        let (architecture, parameters) = (&golden.architecture, golden.architecture.parameters());
        let weights = beginning(&golden, &parameters);
        let logits = |precision| {
            let card = card(precision);
            let mut model = DeviceModel::new(card, architecture, &parameters, &weights).unwrap();
            model.logits(&golden.batches[0]).unwrap()
        };
        differ(kind, PRECISIONS.map(logits));
    }
    for training in &trainings() {
        let trained = |precision| {
            let mut learner = learner(training, card(precision));
            training.train(&mut learner, 0..1).unwrap();
            learner.settle().unwrap().0.to_vec()
        };
        differ(training.name(), PRECISIONS.map(trained));
    }
}

/// Rows of any length, indices beyond 32 bits, a width that fills no group: every bit of the mask is the CPU's.
#[test]
fn masks_are_those_of_the_cpu() {
    let batch = Batch {
        ids: vec![1; 60],
        offsets: vec![0, 1, 18, 18, 60],
        rows: vec![7, 1 << 33, 3, 0],
        ..Batch::default()
    };
    let dropout = Dropout { seed: 11, epoch: 3 };
    for (layer, probability, width) in [(0, 0.1, 128), (5, 0.5, 300), (2, 0.999, 20), (1, 0.0, 64)]
    {
        let mask = kernels::Mask::new(&dropout, layer, probability);
        let mut expected = vec![1.0; 60 * width];
        kernels::dropout(&mask, kernels::Packed::of(&batch), width, &mut expected);
        let got = card(Precision::F32).ones_dropped(&mask, &batch, width);
        assert!(
            got.unwrap() == expected,
            "dropout {probability} of layer {layer}"
        );
    }
}

fn learner(training: &Training, card: Card) -> DeviceLearner {
    let (parameters, weights, optimizer) = training.beginning();
    DeviceLearner::new(
        card,
        training.architecture(),
        &parameters,
        weights,
        optimizer,
    )
    .unwrap()
}

/// With dropout, every loss and every pooling: masks of another bit would show.
#[test]
fn a_device_and_the_cpu_differ_by_rounding_only() {
    for training in &trainings() {
        let (parameters, ..) = training.beginning();
        let mut host = training.on_host();
        let mut device = learner(training, card(Precision::F32));
        training.train(&mut host, 0..4).unwrap();
        training.train(&mut device, 0..4).unwrap();
        let (expected, _) = host.settle().unwrap();
        let (got, _) = device.settle().unwrap();
        for tensor in parameters.tensors() {
            // Gradients of 0 but for rounding, which Adam makes large.
            if tensor.name.ends_with("key.bias") {
                continue;
            }
            let (got, expected) = (&got[tensor.range()], &expected[tensor.range()]);
            let off = distance(&wide(got), &wide(expected));
            assert!(
                off <= 2e-4,
                "{}: {} is off by {off:e}",
                training.name(),
                tensor.name
            );
        }
    }
}

/// Rows that fill no tile, one or several, and more than one group of random numbers; heads that fill no tile either.
#[test]
fn long_rows_train_as_on_the_cpu() {
    let lengths = [1, 64, 65, 130, 200];
    let tokens: u32 = lengths.iter().sum();
    let mut batch = Batch {
        ids: (0..tokens).map(|token| 1 + token * 7 % 90).collect(),
        offsets: vec![0],
        rows: vec![5, 1 << 33, 3, 0, 9],
        labels: vec![0, 1, 1, 0, 1],
        width: 200,
        ..Batch::default()
    };
    for (row, length) in lengths.iter().enumerate() {
        batch.offsets.push(batch.offsets[row] + length);
    }
    let dropout = Dropout { seed: 3, epoch: 1 };
    for (heads, pooling) in [(2, Pooling::Mean), (2, Pooling::Cls), (3, Pooling::Mean)] {
        let architecture = Architecture::Bert(BertConfig {
            vocab_size: 91,
            hidden_size: 16 * heads + 2 * heads * (heads % 2),
            layers: 2,
            heads,
            intermediate_size: 50 + heads,
            max_positions: 200,
            pooling,
            ..BertConfig::base()
        });
        let parameters = architecture.parameters();
        let optimizer = || Optimizer::new(Rule::Sgd(Sgd::default()), &[], &parameters);
        let weights: Vec<f32> = parameters.initialize(4);
        let trained = |learning: &mut dyn Learning| {
            for _ in 0..2 {
                let loss = Loss::CROSS_ENTROPY;
                learning.add_batch(&batch, &dropout, &loss, 1.0).unwrap();
                learning.step(0.5, 1.0).unwrap();
            }
            learning.settle().unwrap().0.to_vec()
        };
        let learner = Learner::new(parameters.clone(), weights.clone(), optimizer());
        let expected = trained(&mut OnHost::new(architecture.build(), learner));
        let on = |card| {
            let weights = weights.clone();
            let learner =
                DeviceLearner::new(card, &architecture, &parameters, weights, optimizer());
            trained(&mut learner.unwrap())
        };
        for (precision, limit) in [(Precision::F32, 1e-4), (Precision::Bf16, 5e-2)] {
            let got = on(card(precision));
            let off = distance(&wide(&got), &wide(&expected));
            assert!(
                off <= limit,
                "{heads} heads, {pooling:?}, {precision:?}: {off:e}"
            );
            #[cfg(feature = "simulation")]
            {
                let [up, down] = [false, true].map(|down| on(simulated(precision, down, u64::MAX)));
                assert!(up == down, "{heads} heads, {pooling:?}, {precision:?}");
            }
        }
    }
}

#[test]
fn the_same_bytes_twice_and_after_a_checkpoint() {
    for precision in [Precision::F32, Precision::Bf16] {
        for training in &trainings() {
            let mut first = learner(training, card(precision));
            let expected = training.digest_of(&mut first, 0).unwrap();
            let mut stopped = learner(training, card(precision));
            training.train(&mut stopped, 0..2).unwrap();
            let (weights, state) = stopped.settle().unwrap();
            let (weights, state) = (weights.to_vec(), state.clone());
            let mut resumed = learner(training, card(precision));
            assert!(resumed.restore(weights, state).unwrap());
            let got = training.digest_of(&mut resumed, 2).unwrap();
            assert_eq!(got, expected, "{} in {precision:?}", training.name());
        }
    }
}

/// Threads of a kernel run in the other order: what depends on it is a race.
#[cfg(feature = "simulation")]
#[test]
fn no_order_of_threads_shows() {
    for precision in [Precision::F32, Precision::Bf16] {
        for training in &trainings() {
            let digest = |descending| {
                let mut learner = learner(training, simulated(precision, descending, u64::MAX));
                training.digest_of(&mut learner, 0).unwrap()
            };
            assert_eq!(digest(false), digest(true), "{}", training.name());
        }
    }
}

#[cfg(feature = "simulation")]
#[test]
fn a_device_that_is_too_small_says_so() {
    let trainings = trainings();
    let training = trainings.last().unwrap();
    let (parameters, weights, optimizer) = training.beginning();
    let bytes = weights.len() as u64 * 4;
    let none = DeviceLearner::new(
        simulated(Precision::F32, false, 3 * bytes),
        training.architecture(),
        &parameters,
        weights,
        optimizer,
    );
    assert!(matches!(none, Err(Fault::OutOfMemory { .. })), "{none:?}");
    let mut small = learner(training, simulated(Precision::F32, false, 5 * bytes));
    match training.train(&mut small, 0..1) {
        Err(Fault::OutOfMemory { wanted, free }) => assert!(wanted > free),
        other => panic!("{other:?}"),
    }
}
