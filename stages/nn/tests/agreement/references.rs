//! PyTorch's results in `shared/goldens`, read: networks, batches, trainings and what came of them.

use std::path::PathBuf;

use serde_json::Value;
use taper_nn::loss::Loss;
use taper_nn::model::{
    Architecture, BertConfig, Pooling, RecurrentConfig, RecurrentKind, TextCnnConfig,
};
use taper_nn::optimizer::{Adam, Rule, Sgd};
use taper_nn::schedule::{Course, Schedule};
use taper_nn::{Batch, Parameters};

use crate::common::{Tensors, goldens, json, tensors};

/// A model kind's references.
pub struct Golden {
    pub kind: &'static str,
    pub folder: PathBuf,
    pub architecture: Architecture,
    pub loss: Loss,
    pub batches: Vec<Batch>,
    pub reference: Tensors,
    pub trainings: Value,
}

impl Golden {
    /// Those of a kind.
    pub fn open(kind: &'static str) -> Self {
        let folder = goldens().join(kind);
        Self {
            kind,
            architecture: architecture(&json(&folder.join("config.json"))),
            loss: match kind {
                "bert_bce" => Loss::BceWithLogits,
                _ => Loss::CROSS_ENTROPY,
            },
            batches: batches(&tensors(&folder.join("batches.safetensors"))),
            reference: tensors(&folder.join("ref.safetensors")),
            trainings: json(&folder.join("ref.json")),
            folder,
        }
    }

    /// The name of our tensor in the references' files.
    pub fn name(&self, ours: &str) -> String {
        match self.kind {
            "bert_cls" => ours.replace("classifier.", "W."),
            "bert_bce" => ours
                .replace("classifier.", "fc1.")
                .replace("bert.", "bert_backbone."),
            _ => ours.to_owned(),
        }
    }

    /// The weights that a network with these tensors begins with.
    pub fn beginning(&self, parameters: &Parameters) -> Vec<f64> {
        let file = tensors(&self.folder.join("init.safetensors"));
        assert_eq!(file.len(), parameters.tensors().len());
        let mut weights = vec![0.0; parameters.buffer_len()];
        for tensor in parameters.tensors() {
            let values = &file[&self.name(&tensor.name)];
            assert_eq!(values.len(), tensor.len(), "{}", tensor.name);
            weights[tensor.range()].copy_from_slice(values);
        }
        weights
    }
}

pub fn size(config: &Value, name: &str) -> usize {
    config[name].as_u64().expect("a size in config.json") as usize
}

fn architecture(config: &Value) -> Architecture {
    match config["kind"].as_str().unwrap() {
        "textcnn" => Architecture::TextCnn(TextCnnConfig {
            vocab_size: size(config, "vocab_size"),
            embedding_dim: size(config, "embedding_dim"),
            filters: size(config, "num_filters"),
            width: size(config, "filter_size"),
            padding: size(config, "padding"),
            dropout: 0.0,
            outputs: size(config, "num_labels"),
        }),
        "rnn" => Architecture::Recurrent(RecurrentConfig {
            kind: match config["nonlinearity"].as_str().unwrap() {
                "tanh" => RecurrentKind::RnnTanh,
                "relu" => RecurrentKind::RnnRelu,
                other => panic!("unknown nonlinearity {other}"),
            },
            vocab_size: size(config, "vocab_size"),
            embedding_dim: size(config, "embedding_dim"),
            hidden_size: size(config, "hidden_size"),
            layers: size(config, "num_layers"),
            bidirectional: false,
            dropout: 0.0,
            head_dropout: 0.0,
            outputs: size(config, "num_labels"),
        }),
        kind => {
            let sizes = &config["hf_config"];
            let float = |name: &str| sizes[name].as_f64().unwrap();
            Architecture::Bert(BertConfig {
                vocab_size: size(sizes, "vocab_size"),
                hidden_size: size(sizes, "hidden_size"),
                layers: size(sizes, "num_hidden_layers"),
                heads: size(sizes, "num_attention_heads"),
                intermediate_size: size(sizes, "intermediate_size"),
                max_positions: size(sizes, "max_position_embeddings"),
                type_vocab_size: size(sizes, "type_vocab_size"),
                padding_id: Some(size(sizes, "pad_token_id")),
                layer_norm_eps: float("layer_norm_eps"),
                initializer_range: float("initializer_range"),
                hidden_dropout: float("hidden_dropout_prob"),
                attention_dropout: float("attention_probs_dropout_prob"),
                head_dropout: 0.0,
                pooling: match kind {
                    "bert_cls" => Pooling::Cls,
                    _ => Pooling::Pooler,
                },
                outputs: if kind == "bert_bce" { 1 } else { 2 },
            })
        }
    }
}

/// The references' padded batches, packed.
fn batches(file: &Tensors) -> Vec<Batch> {
    (0..)
        .map_while(|i| {
            let ids = file.get(&format!("{i}.input_ids"))?;
            let mask = &file[&format!("{i}.attention_mask")];
            let types = &file[&format!("{i}.token_type_ids")];
            let labels = &file[&format!("{i}.labels")];
            let width = ids.len() / labels.len();
            let mut batch = Batch {
                offsets: vec![0],
                labels: labels.iter().map(|&label| label as u32).collect(),
                rows: (0..labels.len() as u64).collect(),
                width,
                ..Batch::default()
            };
            for row in 0..labels.len() {
                for at in row * width..(row + 1) * width {
                    if mask[at] == 1.0 {
                        batch.ids.push(ids[at] as u32);
                        batch.type_ids.push(types[at] as u32);
                    }
                }
                batch.offsets.push(batch.ids.len() as u32);
            }
            Some(batch)
        })
        .collect()
}

/// How a training of the references goes.
pub struct Plan {
    pub rule: Rule,
    pub learning_rate: f64,
    pub schedule: Schedule,
    pub clip: Option<f64>,
    pub accumulate: usize,
}

impl Plan {
    pub fn read(scenario: &Value) -> Self {
        let decay = scenario["weight_decay"].as_f64().unwrap();
        Self {
            rule: match scenario["optimizer"].as_str().unwrap() {
                "adamw" => Rule::AdamW(Adam {
                    weight_decay: decay,
                    ..Adam::ADAMW
                }),
                "adam" => Rule::Adam(Adam {
                    weight_decay: decay,
                    ..Adam::ADAM
                }),
                "sgd" => Rule::Sgd(Sgd {
                    weight_decay: decay,
                    ..Sgd::default()
                }),
                other => panic!("unknown optimizer {other}"),
            },
            learning_rate: scenario["base_lr"].as_f64().unwrap(),
            schedule: Schedule {
                course: match scenario["schedule"].as_str() {
                    None => Course::Constant,
                    Some("linear") => Course::Linear,
                    Some("cosine") => Course::Cosine,
                    Some(other) => panic!("unknown schedule {other}"),
                },
                warmup: scenario["warmup"].as_u64().unwrap(),
                total: scenario["steps"].as_u64().unwrap(),
            },
            clip: scenario["clip"].as_f64(),
            accumulate: size(scenario, "accumulate"),
        }
    }
}

/// Whether norms are near the references', relatively.
pub fn assert_norms(got: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    for (got, expected) in got.iter().zip(expected) {
        let off = ((got - expected) / expected).abs();
        assert!(
            off <= tolerance,
            "{what}: gradient norm {got} is not {expected} ({off:e})"
        );
    }
}
