//! `predict`: the class of each row and a score for each class, as a model says.

use arrow_array::ArrayRef;
use arrow_schema::Field;
use arrow_select::concat::concat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taper_cache::ArtifactType;
use taper_engine::{Context, Device, Input, Inputs, Kind, Makes, NoSettings, Stage, StageError};

use crate::artifact::dataset::EXTENSION;
use crate::artifact::predictions::PredictionSplit;
use crate::artifact::{Model, Table, write_table};
use crate::classifier::{arithmetic, ask, open};
use crate::device;
use crate::evaluate::{check_batch_size, default_batch_size};
use crate::inference::{Rows, Wanted, labels};
use crate::text::TextColumns;
use crate::training::params::Precision;

/// The kind; see [`Params`].
pub struct Predict;

/// Asks a model about one split: the class of each row, and a score for each class.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The model: what a `train` stage made, or a Hugging Face classifier of the families BERT, DistilBERT, RoBERTa,
    /// XLM-RoBERTa, ModernBERT and DeBERTa-v2 (v3 too). Of the families other than BERT the last bits of a score
    /// follow the processor, whose sort is therefore in the key.
    pub model: Input<Model>,
    /// Tokens, or a data set whose text the model's own tokenizer makes tokens of; its text is then copied
    /// beside the predictions.
    pub data: Input<Rows>,
    /// The split; without it `test`, else `validation`, else the only one.
    #[serde(default)]
    pub split: Option<String>,
    /// Rows a batch. Networks that read their padding see each batch as wide as its longest row.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// The column of text, or the two of pairs, where a data set calls them otherwise than the model's
    /// training did.
    #[serde(default)]
    pub text: Option<TextColumns>,
    /// The column of classes, likewise.
    #[serde(default)]
    pub label: Option<String>,
    /// The numbers to compute with.
    #[serde(default)]
    pub precision: Precision,
}

impl Kind for Predict {
    type Params = Params;
    type Settings = NoSettings;
    type Resolved = ();

    const NAME: &'static str = "predict";
    const VERSION: u32 = 2;
    const COMPUTES: bool = true;
    const EXAMPLE: &'static str = "predict: { model: model, data: tokens, split: test }";

    fn makes(&self, _: &Params) -> Makes {
        Makes::One(ArtifactType::Predictions)
    }

    fn check(&self, params: &Params) -> Vec<StageError> {
        check_batch_size(params.batch_size).into_iter().collect()
    }

    fn check_on(&self, params: &Params, device: Device) -> Vec<StageError> {
        device::unfit(device, params.precision)
            .into_iter()
            .collect()
    }

    fn arithmetic(&self, params: &Params, inputs: &Inputs<'_>) -> Option<String> {
        arithmetic(&inputs.open(&params.model).ok()?)
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let params = &stage.params;
        let model = context.open(&params.model)?;
        let mut classifier = open(&model, (context.device, params.precision))
            .map_err(|error| error.or_at("model"))?;
        let wanted = Wanted {
            split: params.split.as_deref(),
            text: params.text.as_ref(),
            label: params.label.as_deref(),
        };
        let data = context.open(&params.data)?;
        let reading = data.read(&wanted, &model, params.batch_size, context)?;
        let labels = labels(&reading, classifier.classes())?;
        let answers = ask(
            classifier.as_mut(),
            &reading.settings,
            (&reading.name, &reading.split),
            params.batch_size as usize,
            &context.reporter,
        )?;
        let known = labels.iter().any(Option::is_some);
        let split = PredictionSplit {
            classes: classifier.classes().to_vec(),
            labels: known.then(|| {
                labels
                    .iter()
                    .map(|label| label.map_or(-1, i64::from))
                    .collect()
            }),
            predictions: answers
                .predictions
                .iter()
                .map(|class| i64::from(*class))
                .collect(),
            scores: answers
                .probabilities
                .iter()
                .map(|score| *score as f32)
                .collect(),
        };
        let copied = match &reading.raw {
            Some((table, columns)) => copy(table, columns)?,
            None => Vec::new(),
        };
        let batch = split
            .to_batch(&copied)
            .map_err(|error| StageError::failed(format!("cannot write predictions: {error}")))?;
        let path = context.create(format!("{}{EXTENSION}", reading.name))?;
        write_table(&path, &batch.schema().clone(), [Ok(batch)])?;
        Ok(())
    }
}

/// Columns of a table, each in one piece.
fn copy(table: &Table, columns: &[String]) -> Result<Vec<(Field, ArrayRef)>, StageError> {
    let whole = |column: &String| {
        let chunks: Vec<_> = table.column(column)?.map(AsRef::as_ref).collect();
        let whole = concat(&chunks)
            .map_err(|error| StageError::failed(format!("cannot copy `{column}`: {error}")))?;
        Ok((Field::new(column, whole.data_type().clone(), false), whole))
    };
    columns.iter().map(whole).collect()
}
