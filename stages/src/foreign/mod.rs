//! Classifiers that others trained, of families whose layers are not ours: DistilBERT, RoBERTa, ModernBERT and
//! DeBERTa-v2. They are asked, not trained, and computed with candle, which only this folder knows.
//!
//! Rows are computed one by one, without padding, so that what a model says of a row depends neither on the rows
//! beside it nor on their number; several are computed side by side. The arithmetic is candle's: it is the same
//! with any number of threads, but follows the CPU, and so [`arithmetic`] enters the keys of stages that ask such a
//! model.

mod arithmetic;
mod deberta;
mod distilbert;
mod layers;
mod modernbert;
mod roberta;

use candle_core::Tensor;
use rayon::prelude::*;
use serde_json::Value;
use taper_engine::StageError;
use taper_nn::Batch;
use taper_nn::loss::Loss;

use self::layers::{Built, Tensors};
use crate::artifact::Model;
use crate::artifact::config::{self, Limits, LossName};
use crate::artifact::tokens::{TokenSettings, TokenSplit};
use crate::classifier::Classifier;
use crate::training::network::check_fit;
use crate::training::params::BatchPadding;

pub use self::arithmetic::arithmetic;

/// The families, by their `model_type`, for people.
pub const FAMILIES: &str = "`distilbert`, `roberta`, `xlm-roberta`, `modernbert` and `deberta-v2`";

/// A network of one of the families, as `config.json` describes it.
trait Architecture: Send {
    /// What it can read.
    fn limits(&self) -> Limits;

    /// The numbers of a token, and the heads of attention that share them.
    fn heads(&self) -> [usize; 2];

    /// The network, with its weights.
    ///
    /// # Errors
    /// Where a tensor has another shape, or the config asks for a variant that is not computed here.
    fn build(&self, tensors: &mut Tensors<'_>, classes: usize) -> Built<Box<dyn Network>>;
}

/// A network of one of the families.
trait Network: Send + Sync {
    /// The logits `[1, classes]` of a row.
    ///
    /// # Errors
    /// Candle's.
    fn logits(&self, row: Row<'_>) -> candle_core::Result<Tensor>;
}

/// A row of tokens.
#[derive(Clone, Copy)]
struct Row<'r> {
    /// Their ids.
    ids: &'r [u32],
    /// Their segments; empty where all are 0.
    segments: &'r [u32],
}

/// What the `config.json` of such a classifier says.
pub struct Config {
    architecture: Box<dyn Architecture>,
    classes: Vec<String>,
    loss: Loss,
}

impl Config {
    /// Reads it; nothing where the model is of none of the families.
    ///
    /// # Errors
    /// Where the config asks for what is not computed here.
    pub fn of(fields: &Value) -> Result<Option<Self>, StageError> {
        fn read<A: Architecture + serde::de::DeserializeOwned + 'static>(
            fields: &Value,
        ) -> Result<Box<dyn Architecture>, StageError> {
            Ok(Box::new(config::read::<A>(fields)?))
        }

        let architecture = match config::model_type(fields)? {
            "distilbert" => read::<distilbert::Config>(fields)?,
            "roberta" | "xlm-roberta" => read::<roberta::Config>(fields)?,
            "modernbert" => read::<modernbert::Config>(fields)?,
            "deberta-v2" => read::<deberta::Config>(fields)?,
            _ => return Ok(None),
        };
        let [width, heads] = architecture.heads();
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(StageError::invalid(format!(
                "`config.json` has a hidden size of {width}, which its {heads} heads do not divide"
            )));
        }
        Ok(Some(Self {
            architecture,
            classes: config::id2label(fields),
            loss: match config::problem(fields) {
                LossName::CrossEntropy => Loss::CROSS_ENTROPY,
                LossName::BceWithLogits => Loss::BceWithLogits,
            },
        }))
    }

    /// What such a model can read.
    pub fn limits(&self) -> Limits {
        self.architecture.limits()
    }

    /// The names of its classes; none where it has no head.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The classifier, with the weights of `model`.
    ///
    /// # Errors
    /// Where weights are missing, damaged or of another shape.
    pub fn open(self, model: &Model) -> Result<Box<dyn Classifier>, StageError> {
        let weights = model.weights()?;
        let mut tensors = Tensors::of(&weights)?;
        let network = self.architecture.build(&mut tensors, self.classes.len())?;
        crate::classifier::check_whole(&tensors.into_missing())?;
        Ok(Box::new(Foreign {
            limits: self.limits(),
            classes: self.classes,
            loss: self.loss,
            network,
        }))
    }
}

/// A classifier of one of the families.
struct Foreign {
    limits: Limits,
    classes: Vec<String>,
    loss: Loss,
    network: Box<dyn Network>,
}

impl Classifier for Foreign {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn outputs(&self) -> usize {
        self.classes.len()
    }

    fn loss(&self) -> &Loss {
        &self.loss
    }

    fn padding(&self) -> Option<BatchPadding> {
        None
    }

    fn check(
        &self,
        settings: &TokenSettings,
        name: &str,
        split: &TokenSplit,
    ) -> Result<(), StageError> {
        check_fit(&self.limits, settings, name, split)
    }

    fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>, StageError> {
        let logits = |row: usize| {
            let range = batch.range(row);
            let row = Row {
                ids: &batch.ids[range.clone()],
                segments: batch.type_ids.get(range).unwrap_or_default(),
            };
            self.network.logits(row)?.flatten_all()?.to_vec1()
        };
        let rows: candle_core::Result<Vec<Vec<f32>>> =
            (0..batch.len()).into_par_iter().map(logits).collect();
        Ok(rows.map_err(cannot_compute)?.concat())
    }
}

fn cannot_compute(error: candle_core::Error) -> StageError {
    StageError::failed(format!("the model cannot be computed: {error}"))
}
