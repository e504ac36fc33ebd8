//! Every network's gradients beside finite differences in `f64`: odd shapes, padding, rows of one token,
//! batches of one row, with dropout (the same masks on both sides) and without.

use taper_nn::loss::Loss;
use taper_nn::model::{
    Architecture, BertConfig, Pooling, RecurrentConfig, RecurrentKind, TextCnnConfig,
};
use taper_nn::random::{Purpose, Stream};
use taper_nn::{Batch, Dropout, Gradients, Network};

pub const VOCAB_SIZE: usize = 11;
const TRAINING: Dropout = Dropout { seed: 5, epoch: 3 };

/// Rows of these lengths in a batch padded `behind` wider than the longest.
pub fn batch(lengths: &[usize], behind: usize) -> Batch {
    let stream = Stream::new(1, Purpose::Test);
    let mut batch = Batch {
        offsets: vec![0],
        padding_id: 3,
        width: lengths.iter().max().unwrap_or(&0) + behind,
        ..Batch::default()
    };
    for (row, &len) in lengths.iter().enumerate() {
        for position in 0..len {
            let id = stream
                .child(row as u64)
                .below(position as u64, VOCAB_SIZE as u64);
            batch.ids.push(id as u32);
            batch.type_ids.push((position % 2) as u32);
        }
        batch.offsets.push(batch.ids.len() as u32);
        batch.rows.push(40 + 3 * row as u64);
        batch.labels.push((row % 2) as u32);
    }
    batch
}

fn batches() -> Vec<Batch> {
    vec![batch(&[5], 0), batch(&[1], 3), batch(&[3, 1, 7], 2)]
}

struct Problem<'a> {
    network: Box<dyn Network<f64>>,
    batch: &'a Batch,
    loss: Loss,
}

impl Problem<'_> {
    fn value(&mut self, weights: &[f64]) -> f64 {
        let logits = self.network.forward(weights, self.batch, Some(&TRAINING));
        self.loss.value(&logits, &self.batch.labels).mean()
    }

    fn gradient(&mut self, weights: &[f64]) -> Vec<f64> {
        let logits = self.network.forward(weights, self.batch, Some(&TRAINING));
        let mut logits_gradient = vec![0.0; logits.len()];
        self.loss
            .gradient(&logits, &self.batch.labels, 1.0, &mut logits_gradient);
        let mut gradients = vec![0.0; weights.len()];
        self.network.backward(
            weights,
            self.batch,
            &logits_gradient,
            Gradients::added(&mut gradients),
        );
        gradients
    }
}

/// The slope of the loss along random directions of each tensor, and along each of its first numbers.
pub fn check(architecture: &Architecture, loss: &Loss, batches: &[Batch]) {
    for batch in batches {
        let mut problem = Problem {
            network: architecture.build(),
            batch,
            loss: loss.clone(),
        };
        let mut weights: Vec<f64> = problem.network.parameters().initialize(9);
        let stream = Stream::new(2, Purpose::Test);
        for (index, weight) in weights.iter_mut().enumerate() {
            *weight += 0.3 * stream.normal(index as u64);
        }
        let gradients = problem.gradient(&weights);
        let tensors = problem.network.parameters().tensors().to_vec();
        for tensor in tensors.iter().filter(|tensor| tensor.trained) {
            for direction in 0..5_usize {
                let range = tensor.range();
                let mut along = vec![0.0; range.len()];
                match direction {
                    0..3 => along.iter_mut().enumerate().for_each(|(index, along)| {
                        let length = (range.len() as f64).sqrt();
                        *along = stream.child(direction as u64).normal(index as u64) / length;
                    }),
                    _ => along[(7 * direction) % range.len()] = 1.0,
                }
                let mut at = |step: f64| {
                    let mut moved = weights.clone();
                    for (weight, along) in moved[range.clone()].iter_mut().zip(&along) {
                        *weight += step * along;
                    }
                    problem.value(&moved)
                };
                let step = 3e-5;
                let near = at(step) - at(-step);
                let far = at(2.0 * step) - at(-2.0 * step);
                let slope = (8.0 * near - far) / (12.0 * step);
                let expected: f64 = gradients[range]
                    .iter()
                    .zip(&along)
                    .map(|(g, a)| g * a)
                    .sum();
                let off = (slope - expected).abs() / (1.0 + expected.abs());
                assert!(
                    off < 1e-9,
                    "{architecture:?}\n{:?}: along {direction} of {} {expected} is not {slope}",
                    batch.offsets,
                    tensor.name
                );
            }
        }
    }
}

#[test]
fn textcnn() {
    for (width, padding) in [(3, 1), (1, 0), (2, 0), (4, 3), (5, 1)] {
        let config = TextCnnConfig {
            vocab_size: VOCAB_SIZE,
            embedding_dim: 5,
            filters: 7,
            width,
            padding,
            dropout: 0.3,
            outputs: 3,
        };
        check(
            &Architecture::TextCnn(config),
            &Loss::CROSS_ENTROPY,
            &batches(),
        );
    }
}

#[test]
fn recurrent() {
    for kind in [
        RecurrentKind::RnnTanh,
        RecurrentKind::RnnRelu,
        RecurrentKind::Lstm,
        RecurrentKind::Gru,
    ] {
        for (layers, bidirectional, dropout) in [
            (1, false, 0.0),
            (1, true, 0.2),
            (2, false, 0.4),
            (3, true, 0.3),
        ] {
            let config = RecurrentConfig {
                kind,
                vocab_size: VOCAB_SIZE,
                embedding_dim: 5,
                hidden_size: 3,
                layers,
                bidirectional,
                dropout,
                head_dropout: dropout,
                outputs: 2,
            };
            check(
                &Architecture::Recurrent(config),
                &Loss::CROSS_ENTROPY,
                &batches(),
            );
        }
    }
}

fn bert(hidden_size: usize, heads: usize, pooling: Pooling, dropout: f64) -> BertConfig {
    BertConfig {
        vocab_size: VOCAB_SIZE,
        hidden_size,
        layers: 2,
        heads,
        intermediate_size: 13,
        max_positions: 9,
        type_vocab_size: 2,
        padding_id: None,
        layer_norm_eps: 1e-12,
        initializer_range: 0.3,
        hidden_dropout: dropout,
        attention_dropout: dropout,
        head_dropout: dropout,
        pooling,
        outputs: 1,
    }
}

#[test]
fn bert_with_every_pooling() {
    for pooling in [Pooling::Cls, Pooling::Pooler, Pooling::Mean] {
        // 16 is where queries, keys and values are one product
        for (hidden, heads, dropout) in [(6, 3, 0.0), (7, 1, 0.3), (16, 2, 0.2)] {
            let config = bert(hidden, heads, pooling, dropout);
            check(
                &Architecture::Bert(config),
                &Loss::BceWithLogits,
                &batches(),
            );
        }
    }
}

#[test]
fn the_padding_tokens_embedding_has_no_gradient() {
    let config = BertConfig {
        padding_id: Some(2),
        ..bert(6, 2, Pooling::Mean, 0.0)
    };
    let mut problem = Problem {
        network: Architecture::Bert(config).build(),
        batch: &Batch {
            ids: vec![1, 2, 2, 5],
            offsets: vec![0, 3, 4],
            rows: vec![0, 1],
            labels: vec![0, 1],
            ..Batch::default()
        },
        loss: Loss::BceWithLogits,
    };
    let weights = problem.network.parameters().initialize::<f64>(1);
    assert!(weights[12..18].iter().all(|&weight| weight == 0.0));
    let gradients = problem.gradient(&weights);
    assert!(gradients[12..18].iter().all(|&gradient| gradient == 0.0));
    assert!(gradients[6..12].iter().all(|&gradient| gradient != 0.0));
}

#[test]
fn gradients_add_up() {
    for architecture in [
        Architecture::Bert(bert(16, 2, Pooling::Pooler, 0.2)),
        Architecture::Recurrent(RecurrentConfig {
            kind: RecurrentKind::Gru,
            vocab_size: VOCAB_SIZE,
            embedding_dim: 4,
            hidden_size: 6,
            layers: 2,
            bidirectional: true,
            dropout: 0.1,
            head_dropout: 0.1,
            outputs: 1,
        }),
    ] {
        let batches = batches();
        let mut network = architecture.build::<f64>();
        let weights = network.parameters().initialize::<f64>(1);
        let mut gradients_of = |batches: &[&Batch]| {
            let mut gradients = vec![0.0; weights.len()];
            for batch in batches {
                let logits = network.forward(&weights, batch, Some(&TRAINING));
                network.backward(
                    &weights,
                    batch,
                    &vec![1.0; logits.len()],
                    Gradients::added(&mut gradients),
                );
            }
            gradients
        };
        let both = gradients_of(&[&batches[0], &batches[2]]);
        let first = gradients_of(&[&batches[0]]);
        let second = gradients_of(&[&batches[2]]);
        for ((both, first), second) in both.iter().zip(first).zip(second) {
            assert!((both - (first + second)).abs() < 1e-12);
        }
    }
}

#[test]
fn what_is_trained_has_the_same_gradient_whatever_is_frozen_below() {
    let batch = batch(&[3, 1, 7], 2);
    for pooling in [Pooling::Pooler, Pooling::Mean] {
        let mut network = Architecture::Bert(bert(16, 2, pooling, 0.2)).build::<f64>();
        let weights = network.parameters().initialize::<f64>(1);
        let tensors = network.parameters().tensors().to_vec();
        let mut gradients_of = |frozen: usize| {
            for tensor in &mut network.parameters_mut().tensors_mut()[..frozen] {
                tensor.trained = false;
            }
            let mut gradients = vec![0.0; weights.len()];
            let logits = network.forward(&weights, &batch, Some(&TRAINING));
            network.backward(
                &weights,
                &batch,
                &vec![1.0; logits.len()],
                Gradients::added(&mut gradients),
            );
            gradients
        };
        let all = gradients_of(0);
        for frozen in 1..=tensors.len() {
            let some = gradients_of(frozen);
            for tensor in tensors[frozen..].iter().filter(|tensor| tensor.trained) {
                assert_eq!(some[tensor.range()], all[tensor.range()], "{}", tensor.name);
            }
        }
    }
}

/// Neither the company of other rows nor the width of the padding changes a bit of a row's logits, in
/// training with dropout and in evaluation.
#[test]
fn a_row_of_bert_is_alone() {
    let mut network = Architecture::Bert(bert(16, 2, Pooling::Pooler, 0.2)).build::<f32>();
    let weights = network.parameters().initialize::<f32>(4);
    let together = batch(&[3, 1, 7], 2);
    for dropout in [None, Some(&TRAINING)] {
        let logits = network.forward(&weights, &together, dropout);
        for (row, logit) in logits.iter().enumerate() {
            let tokens = together.range(row);
            let alone = Batch {
                ids: together.ids[tokens.clone()].to_vec(),
                type_ids: together.type_ids[tokens.clone()].to_vec(),
                offsets: vec![0, tokens.len() as u32],
                rows: vec![together.rows[row]],
                width: 9,
                ..Batch::default()
            };
            let expected = network.forward(&weights, &alone, dropout);
            assert_eq!(expected[0].to_bits(), logit.to_bits());
        }
    }
}
