//! A model that says to which class a row of tokens belongs: what `evaluate` and `predict` ask.

use serde_json::Value;
use taper_engine::{Device, Reporter, StageError};
use taper_nn::loss::Loss;
use taper_nn::{Batch, Network};

use crate::artifact::Model;
use crate::artifact::config::LossName;
use crate::artifact::model::{TRAINING_FILE, load_weights};
use crate::artifact::tokens::{TokenSettings, TokenSplit};
use crate::metrics::Outcome;
use crate::training::batches::{Width, in_order};
use crate::training::evaluation::predictions;
use crate::training::network::{architecture, check_fit};
use crate::training::params::Padding;

/// A trained classifier, ready to be asked.
pub trait Classifier: Send {
    /// The names of the classes.
    fn classes(&self) -> &[String];

    /// The number of logits a row: one for each class, or one for two classes.
    fn outputs(&self) -> usize;

    /// What makes probabilities of logits.
    fn loss(&self) -> &Loss;

    /// How far rows of a batch were padded in training.
    fn padding(&self) -> Padding;

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

/// Opens a model on a device.
///
/// # Errors
/// Where its files are missing, damaged or do not belong together, where it has no head, and where the
/// device cannot compute it.
pub fn open(model: &Model, device: Device) -> Result<Box<dyn Classifier>, StageError> {
    if device != Device::Cpu {
        return Err(StageError::invalid(format!(
            "models are not computed on {} here",
            device.class()
        ))
        .help("set `device: cpu`")
        .at("device"));
    }
    let config = model.config()?;
    if config.classes.is_empty() {
        return Err(StageError::invalid(
            "the model has no classes: `config.json` has no `id2label`",
        )
        .help("it is a backbone; train a classifier `from` it first"));
    }
    let outputs = config.loss.outputs(config.classes.len());
    let network: Box<dyn Network<f32>> = architecture(&config.network, outputs).build();
    let loaded = load_weights(network.parameters(), &model.weights()?, 0)?;
    let absent: Vec<_> = loaded.missing.into_iter().chain(loaded.remade).collect();
    if !absent.is_empty() {
        return Err(StageError::invalid(format!(
            "the model is no whole classifier: {} missing or of another size",
            absent.join(", ")
        ))
        .help("it is a backbone, or `config.json` is another model's; train a classifier `from` it first"));
    }
    Ok(Box::new(NetworkClassifier {
        padding: padding(model)?,
        loss: match config.loss {
            LossName::CrossEntropy => Loss::CROSS_ENTROPY,
            LossName::BceWithLogits => Loss::BceWithLogits,
        },
        config,
        network,
        weights: loaded.values,
    }))
}

/// How batches were padded when the model was trained; models from elsewhere pad to the longest row.
fn padding(model: &Model) -> Result<Padding, StageError> {
    let Some(path) = model.files().path(TRAINING_FILE) else {
        return Ok(Padding::default());
    };
    let unreadable =
        |error| StageError::failed(format!("`{TRAINING_FILE}` cannot be read: {error}"));
    let training: Value = serde_json::from_slice(&fs_err::read(path)?).map_err(unreadable)?;
    match training.pointer("/parameters/padding") {
        None => Ok(Padding::default()),
        Some(padding) => serde_json::from_value(padding.clone()).map_err(unreadable),
    }
}

/// One of our own networks.
struct NetworkClassifier {
    config: crate::artifact::config::ModelConfig,
    network: Box<dyn Network<f32>>,
    weights: Vec<f32>,
    loss: Loss,
    padding: Padding,
}

impl Classifier for NetworkClassifier {
    fn classes(&self) -> &[String] {
        &self.config.classes
    }

    fn outputs(&self) -> usize {
        self.network.outputs()
    }

    fn loss(&self) -> &Loss {
        &self.loss
    }

    fn padding(&self) -> Padding {
        self.padding
    }

    fn check(
        &self,
        settings: &TokenSettings,
        name: &str,
        split: &TokenSplit,
    ) -> Result<(), StageError> {
        check_fit(&self.config.network, settings, name, split)
    }

    fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>, StageError> {
        Ok(self.network.forward(&self.weights, batch, None))
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
    let width = Width::new(settings, classifier.padding());
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
