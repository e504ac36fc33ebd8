//! The parameters of `train`, with the defaults of PyTorch and of transformers' Trainer where those have any.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use taper_engine::Input;

use super::watch::Mode;
use crate::artifact::{Model, Tokens};

/// Trains a classifier, from nothing or from a model that there is. The result carries its tokenizer, the names
/// of its classes and the history of its training.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The tokens to train on.
    pub data: Input<Tokens>,
    /// The split to train on.
    #[serde(default = "default_train")]
    pub train: String,
    /// The split that evaluations are made on; none, no evaluations.
    #[serde(default)]
    pub validation: Option<String>,
    /// A model to start from: one from the hub, or one that was trained here.
    #[serde(default)]
    pub from: Option<Input<Model>>,
    /// The network; with `from` it may be left out, and is then that of the model there.
    #[serde(default)]
    pub model: Option<NetworkParams>,
    /// Tensors that are not trained, by patterns of their names, such as `bert.embeddings.*`; a pattern
    /// without wildcards also means everything below that name.
    #[serde(default)]
    pub freeze: Vec<String>,
    /// What is made small.
    #[serde(default)]
    pub loss: LossParams,
    /// How weights follow their gradients.
    #[serde(default)]
    pub optimizer: OptimizerParams,
    /// How the learning rate goes over the steps.
    #[serde(default)]
    pub schedule: ScheduleParams,
    /// Rows a batch.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// Passes over the training split; 3 where neither this nor `max_steps` is given.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub epochs: Option<u64>,
    /// Optimizer steps, in place of `epochs`.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_steps: Option<u64>,
    /// Batches whose gradients make one step.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub accumulate: u32,
    /// The highest norm of the gradient of all weights together; longer ones are scaled down to it.
    #[serde(default)]
    pub clip_norm: Option<f64>,
    /// How far textcnn, rnn, lstm and gru pad the rows of a batch, since they read their padding. BERT never
    /// computes padding: there it changes nothing.
    #[serde(default)]
    pub padding: BatchPadding,
    /// Whether rows of similar length come into one batch.
    #[serde(default)]
    pub group_by_length: bool,
    /// The order of rows.
    #[serde(default)]
    pub data_order: DataOrder,
    /// When to evaluate on the validation split: `epoch`, or a number of steps. The last step is evaluated
    /// always.
    #[serde(default)]
    pub evaluate_every: Every,
    /// Steps between two lines of the history.
    #[serde(default = "default_log_every")]
    #[schemars(range(min = 1))]
    pub log_every: u64,
    /// What decides which model is the best: `eval_loss`, `eval_accuracy`, `eval_f1`, `eval_mcc`, …
    #[serde(default = "default_monitor")]
    pub monitor: String,
    /// Whether it is better when it is lower or higher; by default lower for a loss, higher for the rest.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Which model is the result.
    #[serde(default)]
    pub keep: Keep,
    /// Ends the training when evaluations no longer get better.
    #[serde(default)]
    pub early_stopping: Option<EarlyStopping>,
    /// The numbers to compute with.
    #[serde(default)]
    pub precision: Precision,
}

/// What changes no byte of the result.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Steps between two checkpoints, from which a training that was killed goes on; by default often enough
    /// to lose little, and seldom enough to cost little.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub checkpoint_every: Option<u64>,
    /// Whether to write TensorBoard's event files to the run's record.
    #[serde(default)]
    pub tensorboard: bool,
}

/// A network and its sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkParams {
    /// Embedding, one convolution, ReLU, maximum over positions, linear layer.
    Textcnn(TextCnnParams),
    /// Embedding, a plain recurrent network (Elman), linear layer on the output at the last position.
    Rnn(RnnParams),
    /// Embedding, a long short-term memory, linear layer on the output at the last position.
    Lstm(RecurrentParams),
    /// Embedding, gated recurrent units, linear layer on the output at the last position.
    Gru(RecurrentParams),
    /// BERT and a linear layer.
    Bert(BertParams),
}

/// The sizes of a text CNN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TextCnnParams {
    /// Numbers a token.
    #[schemars(range(min = 1))]
    pub embedding_dim: usize,
    /// Filters of the convolution.
    #[schemars(range(min = 1))]
    pub filters: usize,
    /// Tokens that a filter sees at once.
    #[schemars(range(min = 1))]
    pub width: usize,
    /// Zeros put before and behind each row.
    pub padding: usize,
    /// The share of the features that is set to 0 in training.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub dropout: f64,
}

impl Default for TextCnnParams {
    fn default() -> Self {
        Self {
            embedding_dim: 64,
            filters: 10,
            width: 3,
            padding: 1,
            dropout: 0.0,
        }
    }
}

/// The sizes of a plain recurrent network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RnnParams {
    /// Numbers a token.
    #[schemars(range(min = 1))]
    pub embedding_dim: usize,
    /// Numbers of the state.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Layers, one on top of the other.
    #[schemars(range(min = 1))]
    pub layers: usize,
    /// Whether a second pass reads from the end.
    pub bidirectional: bool,
    /// The share of each layer's output, but the last one's, that is set to 0 in training.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub dropout: f64,
    /// The share of what goes into the linear layer that is set to 0 in training.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub head_dropout: f64,
    /// What bends the sum.
    pub nonlinearity: Nonlinearity,
}

impl Default for RnnParams {
    fn default() -> Self {
        Self {
            embedding_dim: 64,
            hidden_size: 96,
            layers: 1,
            bidirectional: false,
            dropout: 0.0,
            head_dropout: 0.0,
            nonlinearity: Nonlinearity::Tanh,
        }
    }
}

/// The sizes of an LSTM or a GRU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecurrentParams {
    /// Numbers a token.
    #[schemars(range(min = 1))]
    pub embedding_dim: usize,
    /// Numbers of the state.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Layers, one on top of the other.
    #[schemars(range(min = 1))]
    pub layers: usize,
    /// Whether a second pass reads from the end.
    pub bidirectional: bool,
    /// The share of each layer's output, but the last one's, that is set to 0 in training.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub dropout: f64,
    /// The share of what goes into the linear layer that is set to 0 in training.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub head_dropout: f64,
}

impl Default for RecurrentParams {
    fn default() -> Self {
        Self {
            embedding_dim: 64,
            hidden_size: 96,
            layers: 1,
            bidirectional: false,
            dropout: 0.0,
            head_dropout: 0.0,
        }
    }
}

/// The function of a plain recurrent network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Nonlinearity {
    /// The hyperbolic tangent.
    #[default]
    Tanh,
    /// max(x, 0).
    Relu,
}

/// BERT, from a model or from scratch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BertParams {
    /// What of the hidden states goes into the linear layer.
    pub pooling: Pooling,
    /// The share of it that is set to 0 in training; by default what the model's config.json says
    /// (`classifier_dropout`, else `hidden_dropout_prob`).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub dropout: Option<f64>,
    /// In place of `hidden_dropout_prob` of the model's config.json.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub hidden_dropout: Option<f64>,
    /// In place of `attention_probs_dropout_prob` of the model's config.json.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub attention_dropout: Option<f64>,
    /// How the linear layer begins where no model has it.
    pub head_initial: HeadInitial,
    /// The sizes of a BERT from scratch, without `from`.
    pub config: Option<BertSizes>,
}

/// How a linear layer behind BERT begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadInitial {
    /// Of the normal distribution with `initializer_range` of the model's config.json, and no bias, as
    /// transformers' BertForSequenceClassification.
    #[default]
    Normal,
    /// Uniform, with bias, as torch.nn.Linear: what a head written by hand has.
    Uniform,
}

/// What of BERT's hidden states is classified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first token's through a linear layer and tanh, as transformers' BertForSequenceClassification.
    #[default]
    Pooler,
    /// The first token's.
    Cls,
    /// The mean over all tokens.
    Mean,
}

/// The sizes of a BERT from scratch, named and preset as in transformers' BertConfig; the vocabulary is that of
/// the tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BertSizes {
    /// Numbers a token.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Layers.
    #[schemars(range(min = 1))]
    pub num_hidden_layers: usize,
    /// Heads of attention a layer; divides `hidden_size`.
    #[schemars(range(min = 1))]
    pub num_attention_heads: usize,
    /// Numbers a token inside the feed-forward layer.
    #[schemars(range(min = 1))]
    pub intermediate_size: usize,
    /// The longest row.
    #[schemars(range(min = 1))]
    pub max_position_embeddings: usize,
    /// Segments that tokens can belong to.
    #[schemars(range(min = 1))]
    pub type_vocab_size: usize,
    /// The standard deviation of new weights.
    pub initializer_range: f64,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
}

impl Default for BertSizes {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
        }
    }
}

/// What training makes small.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossParams {
    /// Softmax and the negative logarithm of the true class's probability.
    CrossEntropy(CrossEntropyParams),
    /// A sigmoid an output, and binary cross-entropy; one output where there are two classes.
    BceWithLogits(BceParams),
}

impl Default for LossParams {
    fn default() -> Self {
        Self::CrossEntropy(CrossEntropyParams::default())
    }
}

/// Cross-entropy's parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CrossEntropyParams {
    /// The share of the target that is spread over all classes.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub label_smoothing: f64,
    /// What each class counts.
    pub class_weights: Option<ClassWeights>,
}

/// Binary cross-entropy has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BceParams {}

/// What each class counts: `balanced`, or a number a class.
#[derive(Clone, Debug, PartialEq)]
pub enum ClassWeights {
    /// rows / (classes · rows of the class), as scikit-learn has it.
    Balanced,
    /// As given, in the order of the classes.
    Given(Vec<f64>),
}

impl Serialize for ClassWeights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Balanced => serializer.serialize_str("balanced"),
            Self::Given(weights) => weights.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ClassWeights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WeightsVisitor;

        impl<'de> Visitor<'de> for WeightsVisitor {
            type Value = ClassWeights;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`balanced` or a list of numbers, one a class")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ClassWeights, E> {
                match text {
                    "balanced" => Ok(ClassWeights::Balanced),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ClassWeights, A::Error> {
                let mut weights = Vec::new();
                while let Some(weight) = list.next_element()? {
                    weights.push(weight);
                }
                Ok(ClassWeights::Given(weights))
            }
        }

        deserializer.deserialize_any(WeightsVisitor)
    }
}

impl JsonSchema for ClassWeights {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ClassWeights".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What each class counts: `balanced`, or a number a class.",
            "anyOf": [
                { "const": "balanced" },
                { "type": "array", "items": { "type": "number", "exclusiveMinimum": 0 } },
            ],
        })
    }
}

/// An optimizer, with the defaults of torch.optim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerParams {
    /// Adam; its weight decay is part of the gradient.
    Adam(AdamParams),
    /// AdamW: weights decay by themselves.
    Adamw(AdamWParams),
    /// Stochastic gradient descent.
    Sgd(SgdParams),
}

impl Default for OptimizerParams {
    fn default() -> Self {
        Self::Adamw(AdamWParams::default())
    }
}

/// Adam's parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdamParams {
    /// The highest learning rate.
    pub lr: f64,
    /// How much of the first and of the second moment is kept from step to step.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Added to the gradient, times the weight.
    pub weight_decay: f64,
    /// Weights whose name contains one of these do not decay.
    pub no_decay: Vec<String>,
}

impl Default for AdamParams {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            no_decay: Vec::new(),
        }
    }
}

/// AdamW's parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWParams {
    /// The highest learning rate.
    pub lr: f64,
    /// How much of the first and of the second moment is kept from step to step.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The share of each weight, times the learning rate, that is taken away at each step.
    pub weight_decay: f64,
    /// Weights whose name contains one of these do not decay.
    pub no_decay: Vec<String>,
}

impl Default for AdamWParams {
    fn default() -> Self {
        let AdamParams {
            lr,
            betas,
            eps,
            no_decay,
            ..
        } = AdamParams::default();
        Self {
            lr,
            betas,
            eps,
            weight_decay: 0.01,
            no_decay,
        }
    }
}

/// The parameters of stochastic gradient descent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SgdParams {
    /// The highest learning rate.
    pub lr: f64,
    /// How much of the last step's direction is kept.
    pub momentum: f64,
    /// Added to the gradient, times the weight.
    pub weight_decay: f64,
    /// Weights whose name contains one of these do not decay.
    pub no_decay: Vec<String>,
}

impl Default for SgdParams {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.0,
            weight_decay: 0.0,
            no_decay: Vec::new(),
        }
    }
}

/// How the learning rate goes over the steps, as in transformers' get_scheduler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleParams {
    /// It stays.
    Constant(Warmup),
    /// It falls in a straight line to 0.
    Linear(Warmup),
    /// It falls along half a cosine to 0.
    Cosine(Warmup),
}

impl Default for ScheduleParams {
    fn default() -> Self {
        Self::Constant(Warmup::default())
    }
}

/// How the learning rate rises to its height at the beginning: not at all by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Warmup {
    /// For so many steps.
    pub warmup_steps: Option<u64>,
    /// For this share of all steps, rounded up.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_ratio: Option<f64>,
}

/// How far rows are padded for networks that read their padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchPadding {
    /// To the longest row of the batch.
    #[default]
    Longest,
    /// To the `max_length` of the tokens.
    MaxLength,
    /// To the longest row of the batch, rounded up to a multiple of this.
    MultipleOf(#[schemars(range(min = 1))] usize),
}

/// The order of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataOrder {
    /// Another random one each epoch.
    #[default]
    Shuffled,
    /// That of the data.
    Given,
}

/// How often: each epoch, or every so many steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Every {
    /// At the end of each epoch.
    #[default]
    Epoch,
    /// After so many optimizer steps.
    Steps(u64),
}

impl Serialize for Every {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Epoch => serializer.serialize_str("epoch"),
            Self::Steps(steps) => serializer.serialize_u64(*steps),
        }
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EveryVisitor;

        impl Visitor<'_> for EveryVisitor {
            type Value = Every;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`epoch` or a number of steps")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Every, E> {
                match text {
                    "epoch" => Ok(Every::Epoch),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, steps: u64) -> Result<Every, E> {
                match steps {
                    0 => Err(E::invalid_value(de::Unexpected::Unsigned(0), &self)),
                    _ => Ok(Every::Steps(steps)),
                }
            }

            fn visit_i64<E: de::Error>(self, steps: i64) -> Result<Every, E> {
                u64::try_from(steps)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(steps), &self))
                    .and_then(|steps| self.visit_u64(steps))
            }
        }

        deserializer.deserialize_any(EveryVisitor)
    }
}

impl JsonSchema for Every {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Every".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`epoch`, or a number of steps.",
            "anyOf": [{ "const": "epoch" }, { "type": "integer", "minimum": 1 }],
        })
    }
}

/// Which model is the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// That of the last step.
    #[default]
    Last,
    /// That of the best evaluation.
    Best,
}

/// When evaluations no longer get better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// What is watched, in place of the stage's `monitor`.
    #[serde(default)]
    pub monitor: Option<String>,
    /// How many evaluations in a row may bring nothing better.
    #[schemars(range(min = 1))]
    pub patience: u64,
    /// By how much an evaluation has to be better to count.
    #[serde(default)]
    pub min_delta: f64,
}

/// The numbers to compute with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// The same, but products round their operands to 10 bits: on GPUs only. The steps of recurrent networks and
    /// BERT's attention do not.
    Tf32,
    /// Products read 16-bit floating point with the range of 32 bits, and BERT keeps what lies between them so; weights
    /// and sums have 32 bits, and so has a head: on GPUs only. The steps of recurrent networks stay in 32 bits.
    Bf16,
}

impl Precision {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

fn default_train() -> String {
    "train".to_owned()
}

fn default_monitor() -> String {
    "eval_loss".to_owned()
}

const fn default_batch_size() -> u32 {
    8
}

const fn default_log_every() -> u64 {
    50
}

const fn one() -> u32 {
    1
}
