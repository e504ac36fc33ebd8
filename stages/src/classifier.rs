//! A model that says to which class a row of tokens belongs: what `evaluate` and `predict` ask.

use serde_json::Value;
use taper_engine::{Device, Reporter, StageError};
use taper_nn::device::{Card, DeviceModel};
use taper_nn::loss::Loss;
use taper_nn::parallel::within;
use taper_nn::{Batch, Network};

use crate::artifact::Model;
use crate::artifact::config::{Limits, LossName, ModelConfig, NetworkConfig};
use crate::artifact::model::{TRAINING_FILE, load_weights};
use crate::artifact::tokens::{TokenSettings, TokenSplit};
use crate::device::{self, Work};
use crate::foreign;
use crate::metrics::Outcome;
use crate::training::batches::{Width, in_order};
use crate::training::evaluation::predictions;
use crate::training::network::{architecture, check_fit};
use crate::training::params::{BatchPadding, Precision};

/// A trained classifier, ready to be asked.
pub trait Classifier: Send {
    /// The names of the classes.
    fn classes(&self) -> &[String];

    /// The number of logits a row: one for each class, or one for two classes.
    fn outputs(&self) -> usize;

    /// What makes probabilities of logits.
    fn loss(&self) -> &Loss;

    /// How far rows of a batch were padded in training; nothing where padding is never computed, so that what is
    /// said of a row depends on no other row.
    fn padding(&self) -> Option<BatchPadding>;

    /// Whether it can read these rows at all; `name` is what the split is called.
    ///
    /// # Errors
    /// Where a token, a segment or a length is beyond its tables.
    fn check(
        &self,
        settings: &TokenSettings,
        name: &str,
        split: &TokenSplit,
    ) -> Result<(), StageError>;

    /// The logits `[rows, outputs]` of a batch.
    ///
    /// # Errors
    /// Where the model cannot be computed.
    fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>, StageError>;
}

/// Opens a model on a device, to compute with this precision.
///
/// # Errors
/// Where its files are missing, damaged or do not belong together, where it has no head, and where the
/// device cannot compute it.
pub fn open(
    model: &Model,
    (device, precision): (Device, Precision),
) -> Result<Box<dyn Classifier>, StageError> {
    let card = device::open(device, precision)?;
    match sort(model)? {
        Sort::Ours(config) => {
            check_classes(&config.classes)?;
            open_ours(model, *config, card)
        }
        Sort::Foreign(_) if card.is_some() => Err(StageError::invalid(
            "a model of this family is computed on the CPU only",
        )
        .help("set `device: cpu`, or `auto`, which takes it")
        .at("device")),
        Sort::Foreign(config) => {
            check_classes(config.classes())?;
            config.open(model)
        }
    }
}

/// What a model can read, known before its weights are.
///
/// # Errors
/// Where its config is missing or asks for what is not computed here.
pub fn limits(model: &Model) -> Result<Limits, StageError> {
    Ok(match sort(model)? {
        Sort::Ours(config) => config.network.limits(),
        Sort::Foreign(config) => config.limits(),
    })
}

/// The sort of processor that the bits of what a model says follow; nothing where they are the same on every
/// processor, and where the model cannot be read.
pub fn arithmetic(model: &Model) -> Option<String> {
    let config = foreign::Config::of(&model.config_fields().ok()?).ok()?;
    config.map(|_| foreign::arithmetic())
}

/// Whose network it is.
enum Sort {
    Ours(Box<ModelConfig>),
    Foreign(foreign::Config),
}

fn sort(model: &Model) -> Result<Sort, StageError> {
    let fields = model.config_fields()?;
    if let Some(config) = foreign::Config::of(&fields)? {
        return Ok(Sort::Foreign(config));
    }
    Ok(Sort::Ours(Box::new(ModelConfig::from_fields(&fields)?)))
}

/// Whether the names are those of classes.
fn check_classes(classes: &[String]) -> Result<(), StageError> {
    match classes {
        [] => Err(
            StageError::invalid("the model has no classes: `config.json` has no `id2label`")
                .help("it is a backbone without a head; a classifier can be trained `from` it where it is a BERT"),
        ),
        [only] => Err(StageError::invalid(format!(
            "the model has one output, `{only}`: it says how much, not which"
        ))
        .help("models that say a number are not read; a classifier has two classes or more")),
        _ => Ok(()),
    }
}

/// Whether a classifier has all its weights, given the names of those that were not found.
pub(crate) fn check_whole(absent: &[String]) -> Result<(), StageError> {
    if absent.is_empty() {
        return Ok(());
    }
    let more = match absent.len() {
        0..=8 => String::new(),
        count => format!(" and {} more", count - 8),
    };
    Err(StageError::invalid(format!(
        "the model is no whole classifier: {}{more} missing or of another size",
        absent[..absent.len().min(8)].join(", ")
    ))
    .help(
        "its head is missing, or `config.json` is another model's; a classifier can be trained `from` a BERT without a head",
    ))
}

/// Opens one of our own networks.
fn open_ours(
    model: &Model,
    config: ModelConfig,
    card: Option<Card>,
) -> Result<Box<dyn Classifier>, StageError> {
    let outputs = config.loss.outputs(config.classes.len());
    let architecture = architecture(&config.network, outputs);
    let network: Box<dyn Network<f32>> = architecture.build();
    let loaded = load_weights(network.parameters(), &model.weights()?, 0)?;
    let absent: Vec<_> = loaded.missing.into_iter().chain(loaded.remade).collect();
    check_whole(&absent)?;
    let weights = match card {
        None => Weights::Host(network, loaded.values),
        Some(card) => {
            let parameters = network.parameters();
            let size = parameters.tensors().iter().map(|tensor| tensor.len()).sum();
            let model = DeviceModel::new(card, &architecture, parameters, &loaded.values);
            let work = Work {
                model: config.network.model_type(),
                weights: size,
                batch: None,
            };
            Weights::Device(Box::new(model.map_err(|fault| work.failed(fault))?), size)
        }
    };
    Ok(Box::new(NetworkClassifier {
        padding: padding(model)?,
        loss: match config.loss {
            LossName::CrossEntropy => Loss::CROSS_ENTROPY,
            LossName::BceWithLogits => Loss::BceWithLogits,
        },
        config,
        outputs,
        weights,
    }))
}

/// How batches were padded when the model was trained; models from elsewhere pad to the longest row.
fn padding(model: &Model) -> Result<BatchPadding, StageError> {
    let Some(path) = model.files().path(TRAINING_FILE) else {
        return Ok(BatchPadding::default());
    };
    let unreadable =
        |error| StageError::failed(format!("`{TRAINING_FILE}` cannot be read: {error}"));
    let training: Value = serde_json::from_slice(&fs_err::read(path)?).map_err(unreadable)?;
    match training.pointer("/parameters/padding") {
        None => Ok(BatchPadding::default()),
        Some(padding) => serde_json::from_value(padding.clone()).map_err(unreadable),
    }
}

/// Where a network is computed, and its weights: how many they are, on a device.
enum Weights {
    Host(Box<dyn Network<f32>>, Vec<f32>),
    Device(Box<DeviceModel>, usize),
}

/// One of our own networks.
struct NetworkClassifier {
    config: ModelConfig,
    outputs: usize,
    weights: Weights,
    loss: Loss,
    padding: BatchPadding,
}

impl Classifier for NetworkClassifier {
    fn classes(&self) -> &[String] {
        &self.config.classes
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn loss(&self) -> &Loss {
        &self.loss
    }

    fn padding(&self) -> Option<BatchPadding> {
        match self.config.network {
            NetworkConfig::Bert(..) => None,
            NetworkConfig::TextCnn(_) | NetworkConfig::Recurrent(..) => Some(self.padding),
        }
    }

    fn check(
        &self,
        settings: &TokenSettings,
        name: &str,
        split: &TokenSplit,
    ) -> Result<(), StageError> {
        check_fit(&self.config.network.limits(), settings, name, split)
    }

    fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>, StageError> {
        match &mut self.weights {
            Weights::Host(network, weights) => Ok(within(|| network.forward(weights, batch, None))),
            Weights::Device(model, size) => {
                let work = Work {
                    model: self.config.network.model_type(),
                    weights: *size,
                    batch: Some(batch),
                };
                model.logits(batch).map_err(|fault| work.failed(fault))
            }
        }
    }
}

/// Asks the classifier about every row of a split, in the order of the data.
///
/// What it says of a row does not depend on the rows beside it, but for networks that read their padding:
/// they see each batch as wide as in training, that is as wide as its longest row, rounded as `padding` of
/// the training says, or `max_length` wide where tokens were padded.
///
/// # Errors
/// Where the user stops it, where the model cannot read the rows, and where a logit is not a number.
pub fn ask(
    classifier: &mut dyn Classifier,
    settings: &TokenSettings,
    (name, split): (&str, &TokenSplit),
    batch_size: usize,
    reporter: &Reporter,
) -> Result<Answers, StageError> {
    classifier.check(settings, name, split)?;
    let width = Width::new(settings, classifier.padding().unwrap_or_default());
    let outputs = classifier.outputs();
    let total = Some(split.len() as u64);
    let progress = reporter.progress(format!("reading {name}"), total, taper_engine::Unit::Rows);
    let mut answers = Answers::default();
    for batch in in_order(split, batch_size, width) {
        reporter.check()?;
        let logits = classifier.logits(&batch)?;
        if let Some(place) = logits.iter().position(|logit| !logit.is_finite()) {
            let row = answers.predictions.len() + place / outputs;
            return Err(StageError::failed(format!(
                "the model says {} of row {row} (counted from 0) of `{name}`",
                logits[place]
            ))
            .help("its weights are not finite, or so great that sums overflow; train it again with a lower learning rate"));
        }
        answers.predictions.extend(predictions(&logits, outputs));
        answers
            .probabilities
            .extend(classifier.loss().probabilities(&logits, outputs));
        answers.logits.extend_from_slice(&logits);
        progress.add(batch.len() as u64);
    }
    Ok(answers)
}

/// What a classifier said of the rows of a split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// The logits, `[rows, outputs]`.
    pub logits: Vec<f32>,
    /// The class of each row.
    pub predictions: Vec<u32>,
    /// The probability of each class, `[rows, classes]`.
    pub probabilities: Vec<f64>,
}

impl Answers {
    /// Held against the true classes of the rows.
    pub fn outcome(self, classifier: &dyn Classifier, labels: Vec<u32>) -> Outcome {
        let rows = self.logits.chunks_exact(classifier.outputs());
        let losses = rows.zip(&labels).map(|(row, label)| {
            classifier
                .loss()
                .value(row, std::slice::from_ref(label))
                .mean()
        });
        Outcome {
            losses: losses.collect(),
            classes: classifier.classes().to_vec(),
            labels,
            predictions: self.predictions,
            probabilities: self.probabilities,
        }
    }
}
