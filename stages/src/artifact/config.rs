//! `config.json` of a model: which network, of which sizes, for which classes.
//!
//! BERT's is transformers' own, so that transformers loads the folder. What that format has no place for stands
//! under the key `taper`, which transformers ignores: the pooling, the loss, and the names of both classes where a
//! single output answers for two. A model whose pooling is not `pooler` is no `BertForSequenceClassification`:
//! its `architectures` says `BertModel`, since transformers would put a pooler before the head. The other networks'
//! configs name a `model_type` of our own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use taper_engine::StageError;

use crate::foreign::FAMILIES;
use crate::training::params::{Nonlinearity, Pooling};

/// The name of the file.
pub const CONFIG_FILE: &str = "config.json";

/// What `config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The network and its sizes.
    pub network: NetworkConfig,
    /// What its logits mean.
    pub loss: LossName,
    /// The names of the classes; empty for a model without a head.
    pub classes: Vec<String>,
}

/// A network and its sizes.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkConfig {
    /// A text CNN.
    TextCnn(TextCnnConfig),
    /// A recurrent network of one of the three kinds.
    Recurrent(Cell, RecurrentConfig),
    /// BERT.
    Bert(BertConfig, Pooling),
}

/// The kinds of recurrent networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Elman's.
    Rnn(Nonlinearity),
    /// Long short-term memory.
    Lstm,
    /// Gated recurrent units.
    Gru,
}

/// What the logits of a model mean: which function makes probabilities of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossName {
    /// Softmax over the classes.
    #[default]
    CrossEntropy,
    /// A sigmoid each.
    BceWithLogits,
}

impl LossName {
    /// The number of logits for so many classes.
    pub fn outputs(self, classes: usize) -> usize {
        match self {
            Self::BceWithLogits if classes <= 2 => 1,
            _ => classes,
        }
    }
}

/// The sizes of a text CNN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextCnnConfig {
    /// Tokens.
    pub vocab_size: usize,
    /// Numbers a token.
    pub embedding_dim: usize,
    /// Filters of the convolution.
    pub filters: usize,
    /// Tokens that a filter sees at once.
    pub width: usize,
    /// Zeros before and behind each row.
    pub padding: usize,
    /// Before the head, in training.
    pub dropout: f64,
}

/// The sizes of a recurrent network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecurrentConfig {
    /// Tokens.
    pub vocab_size: usize,
    /// Numbers a token.
    pub embedding_dim: usize,
    /// Numbers of the state.
    pub hidden_size: usize,
    /// Layers.
    pub layers: usize,
    /// Whether a second pass reads from the end.
    pub bidirectional: bool,
    /// Between layers, in training.
    pub dropout: f64,
    /// Before the head, in training.
    pub head_dropout: f64,
}

/// The sizes of a BERT, as transformers' BertConfig names and presets them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// Dropout of attention's weights, in training.
    pub attention_probs_dropout_prob: f64,
    /// Dropout before the head, in training; `hidden_dropout_prob` where it is none.
    pub classifier_dropout: Option<f64>,
    /// The function inside the feed-forward layer.
    pub hidden_act: String,
    /// Dropout of hidden states, in training.
    pub hidden_dropout_prob: f64,
    /// Numbers a token.
    pub hidden_size: usize,
    /// The standard deviation of new weights.
    pub initializer_range: f64,
    /// Numbers a token inside the feed-forward layer.
    pub intermediate_size: usize,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// The longest row.
    pub max_position_embeddings: usize,
    /// Heads of attention a layer.
    pub num_attention_heads: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// The padding token.
    pub pad_token_id: u32,
    /// How positions are told.
    pub position_embedding_type: String,
    /// Segments.
    pub type_vocab_size: usize,
    /// Tokens.
    pub vocab_size: usize,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            attention_probs_dropout_prob: 0.1,
            classifier_dropout: None,
            hidden_act: "gelu".to_owned(),
            hidden_dropout_prob: 0.1,
            hidden_size: 768,
            initializer_range: 0.02,
            intermediate_size: 3072,
            layer_norm_eps: 1e-12,
            max_position_embeddings: 512,
            num_attention_heads: 12,
            num_hidden_layers: 12,
            pad_token_id: 0,
            position_embedding_type: "absolute".to_owned(),
            type_vocab_size: 2,
            vocab_size: 30522,
        }
    }
}

/// What transformers' format has no place for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Extra {
    labels: Option<Vec<String>>,
    loss: LossName,
    pooling: Pooling,
}

impl NetworkConfig {
    /// The `model_type` of `config.json`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::TextCnn(_) => "taper-textcnn",
            Self::Recurrent(Cell::Rnn(_), _) => "taper-rnn",
            Self::Recurrent(Cell::Lstm, _) => "taper-lstm",
            Self::Recurrent(Cell::Gru, _) => "taper-gru",
            Self::Bert(..) => "bert",
        }
    }

    /// What it can read.
    pub fn limits(&self) -> Limits {
        let endless = |vocab_size| Limits {
            vocab_size,
            longest_row: None,
            segments: None,
        };
        match self {
            Self::TextCnn(config) => endless(config.vocab_size),
            Self::Recurrent(_, config) => endless(config.vocab_size),
            Self::Bert(config, _) => Limits {
                vocab_size: config.vocab_size,
                longest_row: Some(config.max_position_embeddings),
                segments: Some(config.type_vocab_size),
            },
        }
    }
}

/// What a model can read: the sizes of its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many tokens it knows.
    pub vocab_size: usize,
    /// The most tokens that a row may have, where there is a limit.
    pub longest_row: Option<usize>,
    /// How many segments it knows; nothing where it does not look at them.
    pub segments: Option<usize>,
}

impl ModelConfig {
    /// The bytes of `config.json`: keys ascending, so that equal configs are equal bytes.
    ///
    /// # Errors
    /// Where a number is not finite.
    pub fn to_json(&self) -> Result<String, StageError> {
        let cannot = |error| StageError::failed(format!("cannot write `{CONFIG_FILE}`: {error}"));
        let mut fields = match &self.network {
            NetworkConfig::TextCnn(config) => fields(config),
            NetworkConfig::Recurrent(_, config) => fields(config),
            NetworkConfig::Bert(config, _) => fields(config),
        }
        .map_err(cannot)?;
        let outputs = self.loss.outputs(self.classes.len());
        // One output answers for two classes: to transformers it is the second one's.
        let named = &self.classes[self.classes.len().saturating_sub(outputs)..];
        let names = named.iter().enumerate();
        let id2label: BTreeMap<String, Value> = names
            .clone()
            .map(|(id, name)| (id.to_string(), name.as_str().into()))
            .collect();
        let label2id: BTreeMap<String, Value> =
            names.map(|(id, name)| (name.clone(), id.into())).collect();
        let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        put("model_type", self.network.model_type().into());
        put("id2label", Value::from_iter(id2label));
        put("label2id", Value::from_iter(label2id));
        match &self.network {
            NetworkConfig::Bert(_, pooling) => {
                let architecture = match pooling {
                    Pooling::Pooler => "BertForSequenceClassification",
                    Pooling::Cls | Pooling::Mean => "BertModel",
                };
                let problem = match self.loss {
                    LossName::CrossEntropy => "single_label_classification",
                    LossName::BceWithLogits => "multi_label_classification",
                };
                put("architectures", vec![architecture].into());
                put("problem_type", problem.into());
                put("dtype", "float32".into());
                let extra = Extra {
                    labels: Some(self.classes.clone()),
                    loss: self.loss,
                    pooling: *pooling,
                };
                put("taper", serde_json::to_value(extra).map_err(cannot)?);
            }
            network => {
                put("labels", self.classes.clone().into());
                put("loss", serde_json::to_value(self.loss).map_err(cannot)?);
                if let NetworkConfig::Recurrent(Cell::Rnn(bend), _) = network {
                    put("nonlinearity", serde_json::to_value(bend).map_err(cannot)?);
                }
            }
        }
        let mut text = serde_json::to_string_pretty(&fields).map_err(cannot)?;
        text.push('\n');
        Ok(text)
    }

    /// Reads the fields of `config.json`, ours or BERT's from transformers.
    ///
    /// # Errors
    /// Where they name another model, or ask for a variant of BERT that is not computed here.
    pub fn from_fields(fields: &Value) -> Result<Self, StageError> {
        let network = match model_type(fields)? {
            "taper-textcnn" => NetworkConfig::TextCnn(read(fields)?),
            "taper-rnn" => {
                let bend = fields.get("nonlinearity").unwrap_or(&Value::Null);
                NetworkConfig::Recurrent(Cell::Rnn(read(bend)?), read(fields)?)
            }
            "taper-lstm" => NetworkConfig::Recurrent(Cell::Lstm, read(fields)?),
            "taper-gru" => NetworkConfig::Recurrent(Cell::Gru, read(fields)?),
            "bert" => NetworkConfig::Bert(bert(fields)?, extra(fields)?.pooling),
            other => {
                return Err(StageError::invalid(format!(
                    "`{CONFIG_FILE}` is that of a `{other}` model, which is not trained here"
                ))
                .help(format!(
                    "`bert` is, and what an earlier `train` stage made; `evaluate` and `predict` also read classifiers of {FAMILIES}"
                )));
            }
        };
        let (loss, labels) = match network {
            NetworkConfig::Bert(..) => {
                let extra = extra(fields)?;
                let loss = match problem(fields) {
                    LossName::CrossEntropy => extra.loss,
                    LossName::BceWithLogits => LossName::BceWithLogits,
                };
                (loss, extra.labels)
            }
            _ => (
                read(fields.get("loss").unwrap_or(&Value::Null))?,
                fields.get("labels").map(read).transpose()?,
            ),
        };
        Ok(Self {
            network,
            loss,
            classes: labels.unwrap_or_else(|| id2label(fields)),
        })
    }
}

/// Reads the bytes of a `config.json`.
///
/// # Errors
/// Where they are no JSON.
pub fn parse(bytes: &[u8]) -> Result<Value, StageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StageError::invalid(format!("`{CONFIG_FILE}` is no JSON: {error}")))
}

/// The `model_type` of a `config.json`.
///
/// # Errors
/// Where there is none.
pub fn model_type(config: &Value) -> Result<&str, StageError> {
    config
        .get("model_type")
        .and_then(Value::as_str)
        .ok_or_else(|| {
            StageError::invalid(format!("`{CONFIG_FILE}` has no `model_type`"))
                .help("a model from the hub, or of an earlier `train` stage, has one")
        })
}

fn fields(config: &impl Serialize) -> Result<BTreeMap<String, Value>, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(config)?)
}

/// The fields of a `config.json` as a type.
///
/// # Errors
/// Where they are not of that type.
pub fn read<T: serde::de::DeserializeOwned>(fields: &Value) -> Result<T, StageError> {
    serde_json::from_value(fields.clone()).map_err(|error| {
        StageError::invalid(format!(
            "`{CONFIG_FILE}` does not say what it has to: {error}"
        ))
    })
}

fn extra(fields: &Value) -> Result<Extra, StageError> {
    fields
        .get("taper")
        .map_or_else(|| Ok(Extra::default()), read)
}

fn bert(fields: &Value) -> Result<BertConfig, StageError> {
    let config: BertConfig = read(fields)?;
    let refuse = |what: String| Err(StageError::invalid(format!("this BERT {what}")));
    if config.hidden_act != "gelu" {
        return refuse(format!(
            "has the activation `{}`; `gelu` is computed here",
            config.hidden_act
        ));
    }
    if config.position_embedding_type != "absolute" {
        return refuse(format!(
            "has {} positions; `absolute` ones are computed here",
            config.position_embedding_type
        ));
    }
    if fields.get("is_decoder").and_then(Value::as_bool) == Some(true) {
        return refuse("is a decoder".to_owned());
    }
    let heads = config.num_attention_heads;
    if heads == 0 || !config.hidden_size.is_multiple_of(heads) {
        return refuse(format!(
            "has a hidden_size of {}, which its {heads} heads do not divide",
            config.hidden_size
        ));
    }
    Ok(config)
}

/// What the logits of a model of transformers mean.
pub fn problem(fields: &Value) -> LossName {
    match fields.get("problem_type").and_then(Value::as_str) {
        Some("multi_label_classification") => LossName::BceWithLogits,
        _ => LossName::CrossEntropy,
    }
}

/// The names in the order of their ids; none without a head. Transformers calls two classes without names
/// `LABEL_0` and `LABEL_1`.
pub fn id2label(fields: &Value) -> Vec<String> {
    let mut names: Vec<(usize, String)> = fields
        .get("id2label")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(id, name)| Some((id.parse().ok()?, name.as_str()?.to_owned())))
        .collect();
    names.sort();
    let count = fields.get("num_labels").and_then(Value::as_u64);
    if names.is_empty() && !has_head(fields) {
        return Vec::new();
    }
    match (names.is_empty(), count) {
        (true, count) => (0..count.unwrap_or(2))
            .map(|id| format!("LABEL_{id}"))
            .collect(),
        (false, _) => names.into_iter().map(|(_, name)| name).collect(),
    }
}

fn has_head(fields: &Value) -> bool {
    fields
        .get("architectures")
        .and_then(Value::as_array)
        .is_some_and(|names| {
            names
                .iter()
                .filter_map(Value::as_str)
                .any(|name| name.ends_with("ForSequenceClassification"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_json(bytes: &[u8]) -> Result<ModelConfig, StageError> {
        ModelConfig::from_fields(&parse(bytes)?)
    }

    fn classes() -> Vec<String> {
        ["neg", "pos"].map(str::to_owned).to_vec()
    }

    fn bert_model(pooling: Pooling, loss: LossName) -> ModelConfig {
        let config = BertConfig {
            hidden_size: 24,
            num_attention_heads: 2,
            ..BertConfig::default()
        };
        ModelConfig {
            network: NetworkConfig::Bert(config, pooling),
            loss,
            classes: classes(),
        }
    }

    #[test]
    fn every_config_is_read_back() {
        let recurrent = RecurrentConfig {
            vocab_size: 10,
            embedding_dim: 2,
            hidden_size: 3,
            layers: 2,
            bidirectional: true,
            dropout: 0.25,
            head_dropout: 0.0,
        };
        let textcnn = TextCnnConfig {
            vocab_size: 10,
            embedding_dim: 2,
            filters: 3,
            width: 5,
            padding: 2,
            dropout: 0.0,
        };
        let networks = [
            NetworkConfig::TextCnn(textcnn),
            NetworkConfig::Recurrent(Cell::Rnn(Nonlinearity::Relu), recurrent.clone()),
            NetworkConfig::Recurrent(Cell::Lstm, recurrent.clone()),
            NetworkConfig::Recurrent(Cell::Gru, recurrent),
        ];
        let mut configs: Vec<_> = networks
            .map(|network| ModelConfig {
                network,
                loss: LossName::BceWithLogits,
                classes: classes(),
            })
            .to_vec();
        configs.push(bert_model(Pooling::Mean, LossName::CrossEntropy));
        configs.push(bert_model(Pooling::Pooler, LossName::BceWithLogits));
        for config in configs {
            let text = config.to_json().unwrap();
            assert_eq!(from_json(text.as_bytes()).unwrap(), config);
        }
    }

    #[test]
    fn bert_s_is_what_transformers_reads() {
        let config = bert_model(Pooling::Pooler, LossName::CrossEntropy);
        insta::assert_snapshot!(config.to_json().unwrap(), @r#"
        {
          "architectures": [
            "BertForSequenceClassification"
          ],
          "attention_probs_dropout_prob": 0.1,
          "classifier_dropout": null,
          "dtype": "float32",
          "hidden_act": "gelu",
          "hidden_dropout_prob": 0.1,
          "hidden_size": 24,
          "id2label": {
            "0": "neg",
            "1": "pos"
          },
          "initializer_range": 0.02,
          "intermediate_size": 3072,
          "label2id": {
            "neg": 0,
            "pos": 1
          },
          "layer_norm_eps": 1e-12,
          "max_position_embeddings": 512,
          "model_type": "bert",
          "num_attention_heads": 2,
          "num_hidden_layers": 12,
          "pad_token_id": 0,
          "position_embedding_type": "absolute",
          "problem_type": "single_label_classification",
          "taper": {
            "labels": [
              "neg",
              "pos"
            ],
            "loss": "cross_entropy",
            "pooling": "pooler"
          },
          "type_vocab_size": 2,
          "vocab_size": 30522
        }
        "#);
    }

    #[test]
    fn a_single_output_has_a_single_name_for_transformers() {
        let text = bert_model(Pooling::Pooler, LossName::BceWithLogits)
            .to_json()
            .unwrap();
        let fields: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(fields["id2label"], serde_json::json!({ "0": "pos" }));
        assert_eq!(fields["problem_type"], "multi_label_classification");
    }

    #[test]
    fn names_follow_their_ids_beyond_ten() {
        let ids: serde_json::Map<String, Value> = (0..12)
            .map(|id| (id.to_string(), Value::from(format!("class {id}"))))
            .collect();
        let fields = serde_json::json!({ "model_type": "bert", "id2label": ids });
        let config = from_json(fields.to_string().as_bytes()).unwrap();
        assert_eq!(config.classes[10], "class 10");
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (config, word) in [
            (r#"{"model_type": "gpt2"}"#, "gpt2"),
            (r#"{"model_type": "bert", "hidden_act": "relu"}"#, "relu"),
            (
                r#"{"model_type": "bert", "position_embedding_type": "relative_key"}"#,
                "relative_key",
            ),
            (
                r#"{"model_type": "bert", "num_attention_heads": 7}"#,
                "7 heads",
            ),
            (r#"{"hidden_size": 3}"#, "model_type"),
            ("{", "no JSON"),
        ] {
            let error = from_json(config.as_bytes()).unwrap_err();
            assert!(error.message.contains(word), "{error}");
        }
    }
}
