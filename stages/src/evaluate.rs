//! `evaluate`: what a model says of rows, held against their classes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taper_cache::ArtifactType;
use taper_engine::{Context, Device, Input, Inputs, Kind, Makes, NoSettings, Stage, StageError};

use crate::artifact::metrics::METRICS_FILE;
use crate::artifact::{Metrics, Model};
use crate::classifier::{arithmetic, ask, open};
use crate::device;
use crate::inference::{Rows, Wanted, labels};
use crate::metrics::{Metric, MetricValue};
use crate::text::TextColumns;
use crate::training::params::Precision;

/// The kind; see [`Params`].
pub struct Evaluate;

/// Computes metrics of a model on one split.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The model: what a `train` stage made, or a Hugging Face classifier of the families BERT, DistilBERT, RoBERTa,
    /// XLM-RoBERTa, ModernBERT and DeBERTa-v2 (v3 too). Of the families other than BERT the last bits of a score
    /// follow the processor, whose sort is therefore in the key.
    pub model: Input<Model>,
    /// Tokens, or a data set whose text the model's own tokenizer makes tokens of.
    pub data: Input<Rows>,
    /// The split; without it `test`, else `validation`, else the only one.
    #[serde(default)]
    pub split: Option<String>,
    /// What is computed.
    #[serde(default = "default_metrics")]
    #[schemars(length(min = 1))]
    pub metrics: Vec<Metric>,
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

fn default_metrics() -> Vec<Metric> {
    vec![Metric::Accuracy, Metric::Loss, Metric::ConfusionMatrix]
}

pub(crate) const fn default_batch_size() -> u32 {
    32
}

impl Kind for Evaluate {
    type Params = Params;
    type Settings = NoSettings;
    type Resolved = ();

    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 2;
    const COMPUTES: bool = true;
    const EXAMPLE: &'static str = "evaluate: { model: model, data: tokens, split: test, metrics: [accuracy, f1, mcc, confusion_matrix] }";

    fn makes(&self, _: &Params) -> Makes {
        Makes::One(ArtifactType::Metrics)
    }

    fn check(&self, params: &Params) -> Vec<StageError> {
        let none = params.metrics.is_empty().then(|| {
            StageError::invalid("`metrics` is empty")
                .help("name at least one")
                .at("metrics")
        });
        none.into_iter()
            .chain(check_batch_size(params.batch_size))
            .collect()
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
        let known = labels(&reading, classifier.classes())?;
        let rows = known.len();
        let labels: Vec<u32> = known.iter().map_while(|label| *label).collect();
        if labels.len() < rows {
            let missing = known.iter().filter(|label| label.is_none()).count();
            return Err(StageError::invalid(format!(
                "{missing} of the {rows} rows of `{}` have no label; the first is row {} (counted from 0)",
                reading.name,
                labels.len()
            ))
            .help("the hub's test splits often have none: evaluate on `validation`, or use `predict`")
            .at("split"));
        }
        let answers = ask(
            classifier.as_mut(),
            &reading.settings,
            (&reading.name, &reading.split),
            params.batch_size as usize,
            &context.reporter,
        )?;
        let outcome = answers.outcome(classifier.as_ref(), labels);
        let values = outcome.metrics(&params.metrics);
        for (name, value) in &values {
            if matches!(value, MetricValue::Number(number) if !number.is_finite()) {
                context.reporter.warn(format!(
                    "`{name}` is undefined on `{}`: not every class has rows there",
                    reading.name
                ));
            }
        }
        Metrics { values }.write(&context.create(METRICS_FILE)?)
    }
}

/// What is wrong with the number of rows a batch, if anything.
pub(crate) fn check_batch_size(batch_size: u32) -> Option<StageError> {
    (batch_size == 0).then(|| {
        StageError::invalid("`batch_size` is 0")
            .help("give at least 1")
            .at("batch_size")
    })
}
