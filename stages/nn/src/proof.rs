//! The promise of equal bits, as small trainings whose results are known: every kind of network, every
//! loss and optimizer, with dropout and clipping, from initial weights to the last step.
//!
//! `tests/vectors/trainings.json` holds the digests. Whoever runs the trainings, on whatever CPU, at
//! whatever [`crate::kernels::dispatch::Level`] and with however many threads, finds the same or has found
//! a fault. A change of a digest is a change of what every key's result is.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::batch::{Batch, Dropout};
use crate::device::Fault;
use crate::learner::Learner;
use crate::learning::{Learning, OnHost};
use crate::loss::Loss;
use crate::model::{
    Architecture, BertConfig, Pooling, RecurrentConfig, RecurrentKind, TextCnnConfig,
};
use crate::optimizer::{Adam, Optimizer, Rule, Sgd, clip_scale};
use crate::parameters::Parameters;
use crate::random::{Purpose, Stream};
use crate::schedule::{Course, Schedule};

const VECTORS: &str = include_str!("../tests/vectors/trainings.json");
const SEED: u64 = 20_260_101;
const VOCAB_SIZE: usize = 97;
const ROWS: usize = 14;
const STEPS: u64 = 4;
const LONGEST: u64 = 41;

/// A small training.
#[derive(Clone, Debug)]
pub struct Training {
    name: &'static str,
    architecture: Architecture,
    loss: Loss,
    rule: Rule,
    course: Course,
    clip: Option<f64>,
}

impl Training {
    /// Its name in the vectors.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The digest that it must have: BLAKE3 in hex.
    pub fn expected(&self) -> Option<String> {
        let vectors: BTreeMap<String, String> = serde_json::from_str(VECTORS).ok()?;
        vectors.get(self.name).cloned()
    }

    /// What is trained.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Its parameters, the weights that it begins with, and the optimizer.
    pub fn beginning(&self) -> (Parameters, Vec<f32>, Optimizer<f32>) {
        let parameters = self.architecture.parameters();
        let weights = parameters.initialize(SEED);
        let no_decay = ["bias".to_owned(), "LayerNorm".to_owned()];
        let optimizer = Optimizer::new(self.rule, &no_decay, &parameters);
        (parameters, weights, optimizer)
    }

    /// Trains from step `first` on, and digests the weights: for each tensor in order its name, a zero byte, and its
    /// numbers in little-endian bytes.
    ///
    /// # Errors
    /// Those of the device that trains.
    pub fn digest_of(&self, learning: &mut dyn Learning, first: u64) -> Result<String, Fault> {
        self.train(learning, first..STEPS)?;
        let (parameters, ..) = self.beginning();
        let (weights, _) = learning.settle()?;
        let mut hasher = blake3::Hasher::new();
        for tensor in parameters.tensors() {
            hasher.update(tensor.name.as_bytes());
            hasher.update(&[0]);
            for weight in &weights[tensor.range()] {
                hasher.update(&weight.to_le_bytes());
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Makes these steps; there are 4.
    ///
    /// # Errors
    /// Those of the device that trains.
    pub fn train(&self, learning: &mut dyn Learning, steps: Range<u64>) -> Result<(), Fault> {
        let schedule = Schedule {
            course: self.course,
            warmup: 2,
            total: STEPS + 1,
        };
        for step in steps {
            let batch = batch(step);
            let dropout = Dropout {
                seed: SEED,
                epoch: step / 2,
            };
            let rate = schedule.learning_rate(5e-3, step + 1);
            if let Some(limit) = self.clip {
                learning.add_batch(&batch, &dropout, &self.loss, 1.0)?;
                let scale = clip_scale(learning.gradient_norm()?, limit);
                learning.step(rate, scale)?;
            } else {
                learning.step_at_once(&batch, (&dropout, &self.loss), rate, false)?;
            }
        }
        Ok(())
    }

    /// It on the CPU, before the first step.
    pub fn on_host(&self) -> OnHost {
        let (parameters, weights, optimizer) = self.beginning();
        let learner = Learner::new(parameters, weights, optimizer);
        OnHost::new(self.architecture.build(), learner)
    }

    /// The digest of the training on the CPU.
    pub fn digest(&self) -> String {
        self.digest_of(&mut self.on_host(), 0).unwrap_or_default()
    }
}

/// Rows of random tokens of random lengths, from 1 on; the class is that of the first token.
fn batch(step: u64) -> Batch {
    let stream = Stream::new(SEED, Purpose::Test).child(step);
    let mut batch = Batch {
        offsets: vec![0],
        ..Batch::default()
    };
    for row in 0..ROWS as u64 {
        let stream = stream.child(row);
        let len = match row {
            0 => 1,
            1 => LONGEST,
            _ => 1 + stream.below(0, LONGEST),
        };
        for position in 0..len {
            batch
                .ids
                .push(1 + stream.below(1 + position, VOCAB_SIZE as u64 - 1) as u32);
            batch.type_ids.push(u32::from(position > len / 2));
        }
        let start = batch.offsets[row as usize] as usize;
        batch.labels.push(batch.ids[start] % 2);
        batch.offsets.push(batch.ids.len() as u32);
        batch.rows.push(step * ROWS as u64 + row);
    }
    batch.width = LONGEST as usize + 2;
    batch
}

fn bert(pooling: Pooling, outputs: usize) -> Architecture {
    Architecture::Bert(BertConfig {
        vocab_size: VOCAB_SIZE,
        hidden_size: 32,
        layers: 2,
        heads: 2,
        intermediate_size: 272,
        max_positions: LONGEST as usize,
        type_vocab_size: 2,
        padding_id: Some(0),
        layer_norm_eps: 1e-12,
        initializer_range: 0.05,
        hidden_dropout: 0.1,
        attention_dropout: 0.1,
        head_dropout: 0.2,
        pooling,
        outputs,
    })
}

fn recurrent(kind: RecurrentKind, layers: usize, bidirectional: bool) -> Architecture {
    Architecture::Recurrent(RecurrentConfig {
        kind,
        vocab_size: VOCAB_SIZE,
        embedding_dim: 20,
        hidden_size: 24,
        layers,
        bidirectional,
        dropout: 0.2,
        head_dropout: 0.1,
        outputs: 2,
    })
}

/// All of them.
pub fn trainings() -> Vec<Training> {
    let adamw = Rule::AdamW(Adam::ADAMW);
    let adam = Rule::Adam(Adam {
        weight_decay: 0.01,
        ..Adam::ADAM
    });
    let momentum = Rule::Sgd(Sgd {
        momentum: 0.9,
        weight_decay: 1e-3,
    });
    let training = |name, architecture, rule, course| Training {
        name,
        architecture,
        loss: Loss::CROSS_ENTROPY,
        rule,
        course,
        clip: Some(1.0),
    };
    let textcnn = Architecture::TextCnn(TextCnnConfig {
        vocab_size: VOCAB_SIZE,
        embedding_dim: 40,
        filters: 13,
        width: 3,
        padding: 1,
        dropout: 0.3,
        outputs: 2,
    });
    vec![
        training("textcnn", textcnn, adamw, Course::Linear),
        training(
            "rnn-tanh",
            recurrent(RecurrentKind::RnnTanh, 1, false),
            adamw,
            Course::Constant,
        ),
        training(
            "rnn-relu",
            recurrent(RecurrentKind::RnnRelu, 2, false),
            momentum,
            Course::Linear,
        ),
        training(
            "lstm",
            recurrent(RecurrentKind::Lstm, 2, true),
            adamw,
            Course::Linear,
        ),
        training(
            "gru",
            recurrent(RecurrentKind::Gru, 2, true),
            adam,
            Course::Cosine,
        ),
        training("bert-cls", bert(Pooling::Cls, 2), adamw, Course::Linear),
        Training {
            loss: Loss::BceWithLogits,
            clip: None,
            ..training(
                "bert-pooler",
                bert(Pooling::Pooler, 1),
                adam,
                Course::Cosine,
            )
        },
        Training {
            loss: Loss::CrossEntropy {
                class_weights: Some(vec![0.75, 1.5, 1.0]),
                label_smoothing: 0.1,
            },
            ..training(
                "bert-mean",
                bert(Pooling::Mean, 3),
                adamw,
                Course::Polynomial {
                    power: 2.0,
                    end: 1e-5,
                },
            )
        },
    ]
}
