//! What is wrong with parameters whose types are right: all that can be said before anything is read.

use glob::Pattern;
use taper_engine::StageError;

use super::params::{
    BatchPadding, BertParams, ClassWeights, EarlyStopping, Keep, LossParams, NetworkParams,
    OptimizerParams, Params, ScheduleParams, Warmup,
};
use crate::metrics::Metric;

/// Everything that is wrong.
pub fn check(params: &Params) -> Vec<StageError> {
    let mut found = Findings::default();
    found.sizes(params);
    found.network(params);
    found.loss(&params.loss);
    found.optimizer(&params.optimizer);
    found.schedule(&params.schedule);
    found.evaluations(params);
    found.0
}

/// The metric that a name in the history stands for; `None` for the loss.
///
/// # Errors
/// What is wrong with the name.
pub fn monitored(name: &str) -> Result<Option<Metric>, String> {
    let Some(metric) = name.strip_prefix("eval_") else {
        return Err(format!(
            "`{name}` is not known to evaluations: their figures are `eval_loss`, `eval_accuracy`, `eval_f1`, `eval_mcc`, …"
        ));
    };
    if metric == "loss" {
        return Ok(None);
    }
    match metric.parse()? {
        Metric::ConfusionMatrix | Metric::Report | Metric::Glue(_) => {
            Err(format!("`{metric}` is no single number"))
        }
        Metric::Loss => Ok(None),
        metric => Ok(Some(metric)),
    }
}

#[derive(Default)]
struct Findings(Vec<StageError>);

impl Findings {
    fn unless(&mut self, holds: bool, param: &str, rule: &str) {
        if !holds {
            self.0
                .push(StageError::invalid(format!("`{param}` has to be {rule}")).at(param));
        }
    }

    fn push(&mut self, error: StageError) {
        self.0.push(error);
    }

    fn share(&mut self, value: f64, param: &str) {
        self.unless((0.0..1.0).contains(&value), param, "at least 0 and below 1");
    }

    fn sizes(&mut self, params: &Params) {
        self.unless(params.batch_size > 0, "batch_size", "at least 1");
        self.unless(params.accumulate > 0, "accumulate", "at least 1");
        self.unless(params.log_every > 0, "log_every", "at least 1");
        self.unless(params.epochs != Some(0), "epochs", "at least 1");
        self.unless(params.max_steps != Some(0), "max_steps", "at least 1");
        self.unless(
            params.padding != BatchPadding::MultipleOf(0),
            "padding.multiple_of",
            "at least 1",
        );
        self.unless(
            params.clip_norm.is_none_or(|norm| norm > 0.0),
            "clip_norm",
            "above 0",
        );
        if params.epochs.is_some() && params.max_steps.is_some() {
            self.push(
                StageError::invalid("`epochs` and `max_steps` both say how long to train")
                    .help("keep one of them")
                    .at("max_steps"),
            );
        }
    }

    fn network(&mut self, params: &Params) {
        for pattern in &params.freeze {
            if let Err(error) = Pattern::new(pattern) {
                self.push(
                    StageError::invalid(format!("`{pattern}` is no pattern: {error}"))
                        .help("`*` stands for any characters, `?` for one, `[0-5]` for one of several")
                        .at("freeze"),
                );
            }
        }
        match &params.model {
            None if params.from.is_none() => self.push(
                StageError::invalid("there is no network to train")
                    .help("say which with `model`, or give a model to start from with `from`")
                    .at("model"),
            ),
            None => {}
            Some(NetworkParams::Textcnn(sizes)) => {
                let at = |name| format!("model.textcnn.{name}");
                self.unless(sizes.embedding_dim > 0, &at("embedding_dim"), "at least 1");
                self.unless(sizes.filters > 0, &at("filters"), "at least 1");
                self.unless(sizes.width > 0, &at("width"), "at least 1");
                self.share(sizes.dropout, &at("dropout"));
            }
            Some(NetworkParams::Rnn(sizes)) => self.recurrent(
                "rnn",
                [sizes.embedding_dim, sizes.hidden_size, sizes.layers],
                [sizes.dropout, sizes.head_dropout],
            ),
            Some(NetworkParams::Lstm(sizes)) => self.recurrent(
                "lstm",
                [sizes.embedding_dim, sizes.hidden_size, sizes.layers],
                [sizes.dropout, sizes.head_dropout],
            ),
            Some(NetworkParams::Gru(sizes)) => self.recurrent(
                "gru",
                [sizes.embedding_dim, sizes.hidden_size, sizes.layers],
                [sizes.dropout, sizes.head_dropout],
            ),
            Some(NetworkParams::Bert(bert)) => self.bert(bert, params.from.is_some()),
        }
    }

    fn recurrent(&mut self, name: &str, sizes: [usize; 3], dropouts: [f64; 2]) {
        let at = |field| format!("model.{name}.{field}");
        for (size, field) in sizes
            .into_iter()
            .zip(["embedding_dim", "hidden_size", "layers"])
        {
            self.unless(size > 0, &at(field), "at least 1");
        }
        for (share, field) in dropouts.into_iter().zip(["dropout", "head_dropout"]) {
            self.share(share, &at(field));
        }
    }

    fn bert(&mut self, bert: &BertParams, has_from: bool) {
        for (share, field) in [
            (bert.dropout, "dropout"),
            (bert.hidden_dropout, "hidden_dropout"),
            (bert.attention_dropout, "attention_dropout"),
        ] {
            self.share(share.unwrap_or(0.0), &format!("model.bert.{field}"));
        }
        match &bert.config {
            None if !has_from => self.push(
                StageError::invalid("a BERT needs weights to start from, or sizes to start with")
                    .help(
                        "name a `download` stage with `from`, or give `config: { hidden_size: 128, \
                         num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 512 }`",
                    )
                    .at("model.bert"),
            ),
            Some(_) if has_from => self.push(
                StageError::invalid(
                    "the sizes of a BERT are those of the model that it starts from",
                )
                .help("leave `config` out, or `from`")
                .at("model.bert.config"),
            ),
            Some(sizes) => {
                let at = |name| format!("model.bert.config.{name}");
                for (size, field) in [
                    (sizes.hidden_size, "hidden_size"),
                    (sizes.num_attention_heads, "num_attention_heads"),
                    (sizes.intermediate_size, "intermediate_size"),
                    (sizes.max_position_embeddings, "max_position_embeddings"),
                    (sizes.type_vocab_size, "type_vocab_size"),
                ] {
                    self.unless(size > 0, &at(field), "at least 1");
                }
                let heads = sizes.num_attention_heads.max(1);
                self.unless(
                    sizes.hidden_size.is_multiple_of(heads),
                    &at("hidden_size"),
                    &format!("a multiple of `num_attention_heads` ({heads})"),
                );
                self.unless(
                    sizes.initializer_range >= 0.0,
                    &at("initializer_range"),
                    "at least 0",
                );
                self.unless(sizes.layer_norm_eps > 0.0, &at("layer_norm_eps"), "above 0");
            }
            None => {}
        }
    }

    fn loss(&mut self, loss: &LossParams) {
        let LossParams::CrossEntropy(loss) = loss else {
            return;
        };
        self.unless(
            (0.0..=1.0).contains(&loss.label_smoothing),
            "loss.cross_entropy.label_smoothing",
            "from 0 to 1",
        );
        if let Some(ClassWeights::Given(weights)) = &loss.class_weights {
            self.unless(
                weights
                    .iter()
                    .all(|weight| *weight > 0.0 && weight.is_finite()),
                "loss.cross_entropy.class_weights",
                "`balanced` or numbers above 0",
            );
        }
    }

    fn optimizer(&mut self, optimizer: &OptimizerParams) {
        let (name, lr, weight_decay) = match optimizer {
            OptimizerParams::Adam(adam) => {
                self.adam("adam", adam.betas, adam.eps);
                ("adam", adam.lr, adam.weight_decay)
            }
            OptimizerParams::Adamw(adam) => {
                self.adam("adamw", adam.betas, adam.eps);
                ("adamw", adam.lr, adam.weight_decay)
            }
            OptimizerParams::Sgd(sgd) => {
                self.share(sgd.momentum, "optimizer.sgd.momentum");
                ("sgd", sgd.lr, sgd.weight_decay)
            }
        };
        self.unless(
            lr >= 0.0 && lr.is_finite(),
            &format!("optimizer.{name}.lr"),
            "a number, at least 0",
        );
        self.unless(
            weight_decay >= 0.0 && weight_decay.is_finite(),
            &format!("optimizer.{name}.weight_decay"),
            "a number, at least 0",
        );
    }

    fn adam(&mut self, name: &str, betas: [f64; 2], eps: f64) {
        for beta in betas {
            self.share(beta, &format!("optimizer.{name}.betas"));
        }
        self.unless(eps > 0.0, &format!("optimizer.{name}.eps"), "above 0");
    }

    fn schedule(&mut self, schedule: &ScheduleParams) {
        let (name, warmup) = match schedule {
            ScheduleParams::Constant(warmup) => ("constant", warmup),
            ScheduleParams::Linear(warmup) => ("linear", warmup),
            ScheduleParams::Cosine(warmup) => ("cosine", warmup),
        };
        let Warmup {
            warmup_steps,
            warmup_ratio,
        } = warmup;
        self.unless(
            (0.0..=1.0).contains(&warmup_ratio.unwrap_or(0.0)),
            &format!("schedule.{name}.warmup_ratio"),
            "from 0 to 1",
        );
        if warmup_steps.is_some() && warmup_ratio.is_some() {
            self.push(
                StageError::invalid("`warmup_steps` and `warmup_ratio` say the same twice")
                    .help("keep one of them")
                    .at(format!("schedule.{name}.warmup_ratio")),
            );
        }
    }

    fn evaluations(&mut self, params: &Params) {
        if let Err(what) = monitored(&params.monitor) {
            self.push(StageError::invalid(what).at("monitor"));
        }
        if let Some(EarlyStopping {
            monitor,
            patience,
            min_delta,
        }) = &params.early_stopping
        {
            if let Some(Err(what)) = monitor.as_deref().map(monitored) {
                self.push(StageError::invalid(what).at("early_stopping.monitor"));
            }
            self.unless(*patience > 0, "early_stopping.patience", "at least 1");
            self.unless(*min_delta >= 0.0, "early_stopping.min_delta", "at least 0");
        }
        if params.validation.is_none() {
            let needs = [
                (params.keep == Keep::Best, "keep"),
                (params.early_stopping.is_some(), "early_stopping"),
            ];
            for (_, param) in needs.into_iter().filter(|(needs, _)| *needs) {
                self.push(
                    StageError::invalid(format!(
                        "`{param}` needs evaluations, and there is no split for them"
                    ))
                    .help("name one with `validation`")
                    .at(param),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(yaml_like: serde_json::Value) -> Vec<String> {
        let params: Params = serde_json::from_value(yaml_like).unwrap();
        check(&params)
            .into_iter()
            .map(|error| format!("{}: {}", error.param.unwrap_or_default(), error.message))
            .collect()
    }

    #[test]
    fn what_is_right_is_not_spoken_of() {
        let params = serde_json::json!({
            "data": "tokens", "validation": "test", "model": { "textcnn": {} }, "keep": "best",
            "monitor": "eval_f1", "early_stopping": { "monitor": "eval_loss", "patience": 2 },
            "freeze": ["embeddings.*"], "evaluate_every": 20, "padding": { "multiple_of": 8 },
            "loss": { "cross_entropy": { "class_weights": "balanced" } },
        });
        assert!(findings(params).is_empty());
    }

    #[test]
    fn everything_that_is_wrong_is_found_at_once() {
        let params = serde_json::json!({
            "data": "tokens", "batch_size": 0, "epochs": 1, "max_steps": 1, "keep": "best",
            "model": { "bert": { "dropout": 1.0 } }, "freeze": ["a[b"], "monitor": "eval_acuracy",
            "optimizer": { "adamw": { "lr": -1.0, "betas": [0.9, 1.0] } },
            "schedule": { "linear": { "warmup_steps": 1, "warmup_ratio": 2.0 } },
            "loss": { "cross_entropy": { "class_weights": [1.0, 0.0] } },
            "early_stopping": { "patience": 0, "monitor": "loss" },
        });
        insta::assert_snapshot!(findings(params).join("\n"), @r#"
        batch_size: `batch_size` has to be at least 1
        max_steps: `epochs` and `max_steps` both say how long to train
        freeze: `a[b` is no pattern: Pattern syntax error near position 1: invalid range pattern
        model.bert.dropout: `model.bert.dropout` has to be at least 0 and below 1
        model.bert: a BERT needs weights to start from, or sizes to start with
        loss.cross_entropy.class_weights: `loss.cross_entropy.class_weights` has to be `balanced` or numbers above 0
        optimizer.adamw.betas: `optimizer.adamw.betas` has to be at least 0 and below 1
        optimizer.adamw.lr: `optimizer.adamw.lr` has to be a number, at least 0
        schedule.linear.warmup_ratio: `schedule.linear.warmup_ratio` has to be from 0 to 1
        schedule.linear.warmup_ratio: `warmup_steps` and `warmup_ratio` say the same twice
        monitor: unknown metric `acuracy`, did you mean `accuracy`?
        early_stopping.monitor: `loss` is not known to evaluations: their figures are `eval_loss`, `eval_accuracy`, `eval_f1`, `eval_mcc`, …
        early_stopping.patience: `early_stopping.patience` has to be at least 1
        keep: `keep` needs evaluations, and there is no split for them
        early_stopping: `early_stopping` needs evaluations, and there is no split for them
        "#);
    }

    #[test]
    fn evaluations_come_by_epoch_or_by_steps() {
        let with = |every: serde_json::Value| {
            serde_json::from_value::<Params>(serde_json::json!({
                "data": "tokens", "evaluate_every": every,
            }))
        };
        let value = |every| serde_json::to_value(with(every).unwrap().evaluate_every).unwrap();
        assert_eq!(value("epoch".into()), "epoch");
        assert_eq!(value(500.into()), 500);
        for wrong in [
            serde_json::json!("step"),
            serde_json::json!(0),
            serde_json::json!(-1),
        ] {
            let error = with(wrong).unwrap_err().to_string();
            assert!(error.contains("`epoch` or a number of steps"), "{error}");
        }
    }
}
