//! `train`: tokens become a model.

use glob::Pattern;
use serde::Serialize;
use serde_json::Value;
use taper_cache::{ArtifactType, Digest};
use taper_engine::{Context, Device, Kind, Makes, Stage, StageError};
use taper_nn::device::DeviceLearner;
use taper_nn::loss::Loss;
use taper_nn::optimizer::{Adam, Optimizer, Rule, Sgd};
use taper_nn::parallel::within;
use taper_nn::schedule::{Course, Schedule};
use taper_nn::{Initial, Learner, Learning, Network, OnHost, Parameters};

use crate::artifact::config::{CONFIG_FILE, ModelConfig};
use crate::artifact::model::{
    HISTORY_FILE, Loaded, TRAINING_FILE, WEIGHTS_FILE, load_weights, write_weights,
};
use crate::artifact::tokens::{SETTINGS_FILE, TOKENIZER_FILE, TokenSplit};
use crate::artifact::{Model, Tokens};
use crate::device::{self, Work};
use crate::metrics::Metric;
use crate::training::batches::Width;
use crate::training::check::{check, monitored};
use crate::training::checkpoint::{Checkpoints, Position};
use crate::training::history;
use crate::training::network::{architecture, check_fit, choose, model_config};
use crate::training::order::Ordering;
use crate::training::params::{
    ClassWeights, HeadInitial, LossParams, NetworkParams, OptimizerParams, Params, ScheduleParams,
    Settings,
};
use crate::training::trainer::{Monitor, Plan, RecordSettings, Stopping, Trained, Training, train};
use crate::training::watch::Mode;

/// Trains a classifier.
pub struct Train;

impl Kind for Train {
    type Params = Params;
    type Settings = Settings;
    type Resolved = ();

    const NAME: &'static str = "train";
    const VERSION: u32 = 2;
    const SEEDED: bool = true;
    const COMPUTES: bool = true;
    const EXAMPLE: &'static str = "train:
  data: tokens
  train: train
  validation: validation
  model: { textcnn: { embedding_dim: 64, filters: 10, width: 3 } }
  optimizer: { adamw: { lr: 1e-3 } }
  schedule: linear
  batch_size: 8
  epochs: 3
  evaluate_every: epoch
  keep: best
  early_stopping: { monitor: eval_loss, patience: 5 }
";

    fn makes(&self, _: &Params) -> Makes {
        Makes::One(ArtifactType::Model)
    }

    fn check(&self, params: &Params) -> Vec<StageError> {
        check(params)
    }

    fn check_on(&self, params: &Params, device: Device) -> Vec<StageError> {
        device::unfit(device, params.precision)
            .into_iter()
            .collect()
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let Stage {
            params, settings, ..
        } = stage;
        let card = device::open(context.device, params.precision)?;
        let tokens: Tokens = context.open(&params.data)?;
        let split = labelled(&tokens, &params.train, "train")?;
        let validation = params
            .validation
            .as_deref()
            .map(|name| labelled(&tokens, name, "validation"))
            .transpose()?;
        let classes = classes(params, split, validation)?;
        let from: Option<Model> = params
            .from
            .as_ref()
            .map(|from| context.open(from))
            .transpose()?;
        let base = from.as_ref().map(Model::config).transpose()?;
        let network = choose(
            params.model.as_ref(),
            base.as_ref().map(|config| &config.network),
            tokens.settings(),
        )?;
        for (name, split) in [
            (Some(&params.train), Some(split)),
            (params.validation.as_ref(), validation),
        ]
        .into_iter()
        .filter_map(|(name, split)| name.zip(split))
        {
            check_fit(&network.limits(), tokens.settings(), name, split)?;
        }
        let loss = loss(&params.loss, split, &classes)?;
        let first = context.rows(params.batch_size);
        let split = &*split.first(first.saturating_mul(params.accumulate as usize));
        let validation = validation.map(|split| split.first(first));
        let validation = validation.as_deref();
        let outputs = loss.outputs(classes.len());
        let architecture = architecture(&network, outputs);
        let mut built: Box<dyn Network<f32>> = architecture.build();
        freeze(built.parameters_mut(), &params.freeze)?;
        if let Some(NetworkParams::Bert(bert)) = &params.model {
            begin_head(built.parameters_mut(), bert.head_initial);
        }
        let parameters = built.parameters().clone();
        let weights = match &from {
            Some(model) => started(&parameters, model, context)?,
            None => parameters.initialize(context.seed),
        };
        let (rule, learning_rate, no_decay) = rule(&params.optimizer);
        let optimizer = Optimizer::new(rule, no_decay, &parameters);
        let width = Width::new(tokens.settings(), params.padding);
        let plan = plan(stage, context, split.len(), learning_rate, width)?;
        context
            .reporter
            .note(summary(&parameters, split, &classes, &plan));
        let checkpoints = Checkpoints::new(&context.scratch, fingerprint(params, context.seed)?);
        let record = RecordSettings {
            folder: &context.record,
            tensorboard: settings.tensorboard,
        };
        let work = Work::on(network.model_type(), &parameters);
        let learning: Box<dyn Learning> = match card {
            None => {
                let learner = Learner::new(parameters.clone(), weights, optimizer);
                Box::new(OnHost::new(built, learner))
            }
            Some(card) => {
                let learner =
                    DeviceLearner::new(card, &architecture, &parameters, weights, optimizer);
                Box::new(learner.map_err(|fault| work.failed(fault))?)
            }
        };
        let training = Training {
            learning,
            work,
            loss,
            classes: classes.clone(),
            train: split,
            validation,
            plan,
        };
        let trained = within(|| train(training, &checkpoints, &record, &context.reporter))?;
        let config = model_config(network, &params.loss, classes);
        write(context, params, &config, &parameters, &tokens, &trained)
    }
}

/// Says how BERT's head begins.
fn begin_head(parameters: &mut Parameters, head: HeadInitial) {
    let inputs = parameters
        .get("classifier.weight")
        .and_then(|weight| weight.shape.last().copied());
    let (HeadInitial::Uniform, Some(inputs)) = (head, inputs) else {
        return;
    };
    for tensor in parameters.tensors_mut() {
        if tensor.name.starts_with("classifier.") {
            tensor.initial = Initial::of_inputs(inputs);
        }
    }
}

/// The split `name`, where all its rows have a class.
fn labelled<'a>(tokens: &'a Tokens, name: &str, param: &str) -> Result<&'a TokenSplit, StageError> {
    let split = tokens.split(name).map_err(|error| error.at(param))?;
    if split.is_empty() {
        return Err(StageError::invalid(format!("the split `{name}` has no rows")).at(param));
    }
    if !split.has_labels() {
        return Err(
            StageError::invalid(format!("the split `{name}` has no labels"))
                .help("name the column of classes with `label` in the `tokenize` stage")
                .at(param),
        );
    }
    match split.first_unlabelled() {
        Some(row) => Err(StageError::invalid(format!(
            "row {row} (counted from 0) of `{name}` has no label"
        ))
        .help("the hub's test splits often have none: use another split")
        .at(param)),
        None => Ok(split),
    }
}

/// The names of the classes: those of the data, or their numbers.
fn classes(
    params: &Params,
    train: &TokenSplit,
    validation: Option<&TokenSplit>,
) -> Result<Vec<String>, StageError> {
    let splits = || std::iter::once(train).chain(validation);
    let names = splits().find_map(TokenSplit::classes);
    let seen = splits()
        .flat_map(|split| (0..split.len()).filter_map(|row| split.label(row)))
        .max()
        .map_or(0, |label| label as usize + 1);
    let classes = match names {
        Some(names) => names.to_vec(),
        None => (0..seen).map(|class| class.to_string()).collect(),
    };
    if let Some(other) =
        splits().find_map(|split| split.classes().filter(|names| *names != classes))
    {
        return Err(StageError::invalid(format!(
            "`{}` and `{}` have other classes: {} and {}",
            params.train,
            params.validation.as_deref().unwrap_or_default(),
            classes.join(", "),
            other.join(", ")
        ))
        .at("validation"));
    }
    if seen > classes.len() {
        return Err(StageError::invalid(format!(
            "there is a row of class {} (counted from 0), outside the {} classes",
            seen - 1,
            classes.len()
        ))
        .at("data"));
    }
    if classes.len() < 2 {
        return Err(StageError::invalid(format!(
            "a classifier needs two classes at least; the data has {}",
            classes.len()
        ))
        .at("data"));
    }
    Ok(classes)
}

fn loss(params: &LossParams, split: &TokenSplit, classes: &[String]) -> Result<Loss, StageError> {
    let LossParams::CrossEntropy(params) = params else {
        return Ok(Loss::BceWithLogits);
    };
    let class_weights = match &params.class_weights {
        None => None,
        Some(ClassWeights::Given(weights)) if weights.len() != classes.len() => {
            return Err(StageError::invalid(format!(
                "`class_weights` has to have a number for each of {} classes ({}), not {}",
                classes.len(),
                classes.join(", "),
                weights.len()
            ))
            .at("loss.cross_entropy.class_weights"));
        }
        Some(ClassWeights::Given(weights)) => Some(weights.clone()),
        Some(ClassWeights::Balanced) => {
            let mut counts = vec![0_u64; classes.len()];
            for label in (0..split.len()).filter_map(|row| split.label(row)) {
                counts[label as usize] += 1;
            }
            let share = split.len() as f64 / classes.len() as f64;
            // A class without rows weighs as much as one with a single row.
            Some(
                counts
                    .into_iter()
                    .map(|count| share / count.max(1) as f64)
                    .collect(),
            )
        }
    };
    Ok(Loss::CrossEntropy {
        class_weights,
        label_smoothing: params.label_smoothing,
    })
}

/// Marks the tensors that the patterns name as not trained.
fn freeze(parameters: &mut Parameters, patterns: &[String]) -> Result<(), StageError> {
    for text in patterns {
        let pattern = Pattern::new(text).map_err(|error| {
            StageError::invalid(format!("`{text}` is no pattern: {error}")).at("freeze")
        })?;
        let below = format!("{text}.");
        let mut met = false;
        for tensor in parameters.tensors_mut() {
            if pattern.matches(&tensor.name) || tensor.name.starts_with(&below) {
                tensor.trained = false;
                met = true;
            }
        }
        if !met {
            let names: Vec<_> = parameters
                .tensors()
                .iter()
                .map(|tensor| tensor.name.as_str())
                .collect();
            return Err(StageError::invalid(format!("no tensor is called `{text}`"))
                .help(format!("there are {}", names.join(", ")))
                .at("freeze"));
        }
    }
    if parameters.tensors().iter().all(|tensor| !tensor.trained) {
        return Err(
            StageError::invalid("every tensor is frozen: nothing is left to train").at("freeze"),
        );
    }
    Ok(())
}

/// The weights of the model to start from; what did not fit is told.
fn started(
    parameters: &Parameters,
    model: &Model,
    context: &Context,
) -> Result<Vec<f32>, StageError> {
    let Loaded {
        values,
        missing,
        unexpected,
        remade,
    } = load_weights(parameters, &model.weights()?, context.seed)
        .map_err(|error| error.at("from"))?;
    for (names, what) in [
        (missing, "not in the model, begun anew"),
        (remade, "of another size in the model, begun anew"),
        (unexpected, "in the model, not used"),
    ] {
        if !names.is_empty() {
            context
                .reporter
                .note(format!("{what}: {}", names.join(", ")));
        }
    }
    Ok(values)
}

fn rule(params: &OptimizerParams) -> (Rule, f64, &[String]) {
    match params {
        OptimizerParams::Adam(adam) => {
            let constants = Adam {
                betas: adam.betas,
                eps: adam.eps,
                weight_decay: adam.weight_decay,
            };
            (Rule::Adam(constants), adam.lr, &adam.no_decay)
        }
        OptimizerParams::Adamw(adam) => {
            let constants = Adam {
                betas: adam.betas,
                eps: adam.eps,
                weight_decay: adam.weight_decay,
            };
            (Rule::AdamW(constants), adam.lr, &adam.no_decay)
        }
        OptimizerParams::Sgd(sgd) => {
            let constants = Sgd {
                momentum: sgd.momentum,
                weight_decay: sgd.weight_decay,
            };
            (Rule::Sgd(constants), sgd.lr, &sgd.no_decay)
        }
    }
}

/// Passes over the data where the parameters do not say, as transformers' Trainer has it.
const DEFAULT_EPOCHS: u64 = 3;

fn plan(
    stage: &Stage<Train>,
    context: &Context,
    rows: usize,
    learning_rate: f64,
    width: Width,
) -> Result<Plan, StageError> {
    let params = &stage.params;
    let batch_size = params.batch_size as usize;
    let accumulate = params.accumulate as usize;
    let steps_an_epoch = rows.div_ceil(batch_size * accumulate) as u64;
    let total = match (context.smoke, params.max_steps) {
        (true, _) => 1,
        (false, Some(steps)) => steps,
        (false, None) => steps_an_epoch.saturating_mul(params.epochs.unwrap_or(DEFAULT_EPOCHS)),
    };
    let (course, warmup) = match &params.schedule {
        ScheduleParams::Constant(warmup) => (Course::Constant, warmup),
        ScheduleParams::Linear(warmup) => (Course::Linear, warmup),
        ScheduleParams::Cosine(warmup) => (Course::Cosine, warmup),
    };
    let ratio = warmup.warmup_ratio.unwrap_or(0.0);
    let warmup = warmup
        .warmup_steps
        .unwrap_or_else(|| Schedule::warmup_of_ratio(ratio, total));
    let monitor = |name: &str| -> Result<Monitor, StageError> {
        let metric = monitored(name).map_err(|what| StageError::invalid(what).at("monitor"))?;
        let mode = match params.mode {
            Some(mode) if name == params.monitor => mode,
            _ => Mode::of(name),
        };
        let name = metric.map_or("eval_loss".to_owned(), |metric| format!("eval_{metric}"));
        Ok(Monitor { name, mode })
    };
    let stopping = params
        .early_stopping
        .as_ref()
        .map(|stopping| {
            Ok::<_, StageError>(Stopping {
                monitor: monitor(stopping.monitor.as_deref().unwrap_or(&params.monitor))?,
                patience: stopping.patience,
                min_delta: stopping.min_delta,
            })
        })
        .transpose()?;
    let mut metrics = vec![
        Metric::Accuracy,
        Metric::F1(None),
        Metric::Mcc,
        Metric::Precision(None),
        Metric::Recall(None),
    ];
    let names = [
        Some(&params.monitor),
        params
            .early_stopping
            .as_ref()
            .and_then(|s| s.monitor.as_ref()),
    ];
    for metric in names
        .into_iter()
        .flatten()
        .filter_map(|name| monitored(name).ok().flatten())
    {
        if !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    Ok(Plan {
        batch_size,
        accumulate,
        width,
        ordering: Ordering {
            seed: context.seed,
            data_order: params.data_order,
            group_by_length: params.group_by_length.then_some(batch_size),
        },
        learning_rate,
        schedule: Schedule {
            course,
            warmup,
            total,
        },
        clip_norm: params.clip_norm,
        evaluate_every: params.evaluate_every,
        metrics,
        log_every: params.log_every,
        monitor: monitor(&params.monitor)?,
        keep: params.keep,
        stopping,
        checkpoint_every: stage.settings.checkpoint_every,
    })
}

fn summary(parameters: &Parameters, split: &TokenSplit, classes: &[String], plan: &Plan) -> String {
    let count = |trained: bool| -> usize {
        let tensors = parameters.tensors().iter();
        tensors
            .filter(|tensor| tensor.trained == trained)
            .map(|tensor| tensor.len())
            .sum()
    };
    let fixed = match count(false) {
        0 => String::new(),
        fixed => format!(" ({fixed} more are left as they are)"),
    };
    format!(
        "training {} weights{fixed} on {} rows of {} classes: {} steps",
        count(true),
        split.len(),
        classes.len(),
        plan.schedule.total
    )
}

/// What a checkpoint belongs to.
fn fingerprint(params: &Params, seed: u64) -> Result<String, StageError> {
    let text = serde_json::to_string(&(Train::VERSION, seed, params)).map_err(|error| {
        StageError::failed(format!("the parameters cannot be written: {error}"))
    })?;
    Ok(Digest::of(text.as_bytes()).to_string())
}

/// `training.json`: how the model came to be.
#[derive(Serialize)]
struct TrainingFile<'a> {
    parameters: Value,
    seed: u64,
    steps: u64,
    stopped_early: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    monitor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    best_step: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    best_value: Option<f64>,
}

fn write(
    context: &Context,
    params: &Params,
    config: &ModelConfig,
    parameters: &Parameters,
    tokens: &Tokens,
    trained: &Trained,
) -> Result<(), StageError> {
    let Position {
        step,
        stopped,
        best,
        history: entries,
        ..
    } = &trained.position;
    write_weights(&context.create(WEIGHTS_FILE)?, parameters, &trained.weights)?;
    fs_err::write(context.create(CONFIG_FILE)?, config.to_json()?)?;
    tokens.settings().write(&context.create(SETTINGS_FILE)?)?;
    if let Some(tokenizer) = tokens.tokenizer() {
        // Not by `copy`: it would take over that the cache's files are read-only.
        fs_err::write(context.create(TOKENIZER_FILE)?, fs_err::read(tokenizer)?)?;
    }
    let unwritten =
        |error| StageError::failed(format!("`{TRAINING_FILE}` cannot be written: {error}"));
    let file = TrainingFile {
        parameters: plain(serde_json::to_value(params).map_err(unwritten)?),
        seed: context.seed,
        steps: *step,
        stopped_early: *stopped,
        monitor: best.best.map(|_| params.monitor.as_str()),
        best_step: best.best.map(|best| best.step),
        best_value: best.best.map(|best| best.value),
    };
    let mut text = serde_json::to_string_pretty(&file).map_err(unwritten)?;
    text.push('\n');
    fs_err::write(context.create(TRAINING_FILE)?, text)?;
    let out = fs_err::File::create(context.create(HISTORY_FILE)?)?;
    history::write(std::io::BufWriter::new(out), entries)?;
    Ok(())
}

/// Parameters as people read them: an input is the digest of its artifact, and what was not given is left out.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("reference").and_then(Value::as_object) {
                return reference.values().next().cloned().unwrap_or_default();
            }
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name, plain(value)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(plain).collect(),
        other => other,
    }
}
