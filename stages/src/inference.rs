//! What `evaluate` and `predict` share: which rows are read, and how they become tokens.

use std::sync::Arc;

use taper_cache::ArtifactType;
use taper_engine::{Artifact, ArtifactFiles, Context, Device, Events, Reporter, StageError, Unit};

use crate::artifact::dataset::EXTENSION;
use crate::artifact::table::{list, nearest};
use crate::artifact::tokens::{LABEL, Padding, TokenSettings, TokenSplit, Truncation};
use crate::artifact::{Dataset, Model, Table, Tokens};
use crate::classifier::{self, Answers, Classifier};
use crate::text::columns::TextColumns;
use crate::text::encoder::{Encoder, padding_id, vocabulary_size};
use crate::text::labels::{empty_split, read_labels};
use crate::text::source::TokenizerFiles;
use crate::text::table::{Classes, write_tokens};
use crate::text::words::Memory;
use crate::training::params::Precision;

/// Rows to ask a model about: tokens, or raw text that the model's own tokenizer makes tokens of.
pub enum Rows {
    /// Rows of tokens.
    Tokens(Tokens),
    /// Rows of text.
    Dataset(Dataset),
}

impl Artifact for Rows {
    const TYPES: &'static [ArtifactType] = &[ArtifactType::Tokens, ArtifactType::Dataset];

    fn open(files: ArtifactFiles) -> Result<Self, StageError> {
        match files.manifest.artifact_type {
            ArtifactType::Tokens => Tokens::open(files).map(Self::Tokens),
            _ => Dataset::open(files).map(Self::Dataset),
        }
    }
}

/// The rows of one split as tokens.
pub struct Reading {
    /// The name of the split.
    pub name: String,
    /// How they became tokens.
    pub settings: TokenSettings,
    /// The tokens.
    pub split: TokenSplit,
    /// The raw rows, where there are any, and the columns of text among them.
    pub raw: Option<(Table, Vec<String>)>,
}

/// What the parameters say of the rows.
pub struct Wanted<'a> {
    /// The split; without it `test`, else `validation`, else the only one.
    pub split: Option<&'a str>,
    /// Columns of text, where they are called otherwise than in the model's training.
    pub text: Option<&'a TextColumns>,
    /// The column of classes, likewise.
    pub label: Option<&'a str>,
}

impl Rows {
    /// Reads one split as `model` wants it: of a smoke run only its first `batch_size` rows.
    ///
    /// # Errors
    /// Where there is no such split or column, the split is empty, or text cannot become tokens.
    pub fn read(
        self,
        wanted: &Wanted<'_>,
        model: &Model,
        batch_size: u32,
        context: &Context,
    ) -> Result<Reading, StageError> {
        let rows = context.rows(batch_size);
        let names: Vec<&str> = match &self {
            Self::Tokens(tokens) => tokens.splits().map(|(name, _)| name).collect(),
            Self::Dataset(data) => data.splits().map(|(name, _)| name).collect(),
        };
        let name = choose_split(wanted.split, &names)?.to_owned();
        let reading = match &self {
            Self::Tokens(tokens) => Reading {
                settings: tokens.settings().clone(),
                split: tokens.split(&name)?.first(rows).into_owned(),
                raw: None,
                name,
            },
            Self::Dataset(data) => {
                let table = data.split(&name)?.first(rows);
                tokenize(name, &table, wanted, model, context)?
            }
        };
        match reading.split.is_empty() {
            true => Err(empty_split(&reading.name)),
            false => Ok(reading),
        }
    }
}

fn choose_split<'a>(wanted: Option<&str>, names: &[&'a str]) -> Result<&'a str, StageError> {
    let find = |wanted: &str| names.iter().copied().find(|name| *name == wanted);
    let Some(wanted) = wanted else {
        let only = || match names {
            [only] => Some(*only),
            _ => None,
        };
        return find("test")
            .or_else(|| find("validation"))
            .or_else(only)
            .ok_or_else(|| {
                let names = list(names.iter().copied());
                StageError::invalid(format!("which split? The data has {names}"))
                    .help("say it: `split: …`")
                    .at("split")
            });
    };
    find(wanted).ok_or_else(|| {
        let help = match nearest(wanted, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it has {}", list(names.iter().copied())),
        };
        StageError::invalid(format!("the data has no split `{wanted}`"))
            .help(help)
            .at("split")
    })
}

/// The encoder of a model: its tokenizer, with the settings that it was trained with. Models from elsewhere
/// have no such settings: theirs are what their positions allow.
///
/// # Errors
/// Where the model has no tokenizer, or one that cannot be read.
pub fn encoder(model: &Model, text: Option<&TextColumns>) -> Result<Encoder, StageError> {
    let tokenizer = TokenizerFiles::find(model.files())?.read()?;
    let limit = classifier::limits(model)?.longest_row;
    let settings = match model.token_settings()? {
        Some(settings) => settings,
        None => TokenSettings {
            max_length: limit.unwrap_or(512),
            padding: Padding::None,
            truncation: Truncation::LongestFirst,
            pad_token_id: padding_id(&tokenizer),
            vocab_size: vocabulary_size(&tokenizer),
            text: TextColumns::default().0,
            label: None,
        },
    };
    let text = text.map_or(settings.text.clone(), |columns| columns.0.clone());
    // Rows of the training may all have been shorter than `max_length` allowed.
    let max_length = settings.max_length.min(limit.unwrap_or(usize::MAX));
    let settings = TokenSettings {
        text,
        max_length,
        ..settings
    };
    Encoder::new(tokenizer, settings)
}

/// A model with its tokenizer: says of texts what it says of rows.
pub struct TextClassifier {
    encoder: Encoder,
    classifier: Box<dyn Classifier>,
}

impl TextClassifier {
    /// Opens a model on a device.
    ///
    /// # Errors
    /// Those of [`encoder`] and [`classifier::open`].
    pub fn open(model: &Model, device: Device) -> Result<Self, StageError> {
        Ok(Self {
            encoder: encoder(model, None)?,
            classifier: classifier::open(model, (device, Precision::F32))?,
        })
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[String] {
        self.classifier.classes()
    }

    /// What the texts of a row were called in training: one, or two for pairs.
    pub fn columns(&self) -> &[String] {
        &self.encoder.settings().text
    }

    /// What the model says of rows, each with as many texts as there are columns. It says of a row what it
    /// would say if it were alone.
    ///
    /// # Errors
    /// Where a row has not as many texts, and those of [`classifier::ask`].
    pub fn ask(&mut self, rows: &[&[&str]]) -> Result<Answers, StageError> {
        let encode = |texts: &&[&str]| {
            let row = self.encoder.encode(texts)?;
            let ids = row.ids.iter().map(|id| *id as i32).collect();
            Ok((
                ids,
                row.type_ids.iter().map(|segment| *segment as i8).collect(),
            ))
        };
        let rows: Result<Vec<_>, StageError> = rows.iter().map(encode).collect();
        let split = TokenSplit::of_rows(&rows?);
        let quiet = Reporter::new("", Events::nowhere(), Arc::default());
        let settings = self.encoder.settings();
        let together = match self.classifier.padding() {
            Some(_) => 1,
            None => split.len().max(1),
        };
        classifier::ask(
            self.classifier.as_mut(),
            settings,
            ("text", &split),
            together,
            &quiet,
        )
    }
}

fn tokenize(
    name: String,
    table: &Table,
    wanted: &Wanted<'_>,
    model: &Model,
    context: &Context,
) -> Result<Reading, StageError> {
    let encoder = encoder(model, wanted.text)?;
    let has = |column: &str| table.columns().any(|candidate| candidate == column);
    let trained = encoder
        .settings()
        .label
        .clone()
        .unwrap_or_else(|| LABEL.to_owned());
    let label = match wanted.label {
        Some(column) => Some(column.to_owned()),
        None => Some(trained).filter(|column| has(column)),
    };
    let tables = [(name.as_str(), table)];
    let labels = read_labels(label.as_deref(), &tables)?;
    let classes = labels.as_ref().and_then(|labels| {
        let values = labels.values.first()?.as_deref()?;
        Some(Classes {
            values,
            names: &labels.names,
        })
    });
    let rows = Some(table.rows() as u64);
    let progress = context
        .reporter
        .progress(format!("tokenizing {name}"), rows, Unit::Rows);
    let path = context.scratch.join(format!("{name}{EXTENSION}"));
    let memory = &mut Memory::new();
    write_tokens(
        &encoder,
        table,
        classes,
        &path,
        memory,
        &context.reporter,
        &progress,
    )?;
    let tokens = Table::open(&path, format!("{name}{EXTENSION}"))?;
    Ok(Reading {
        settings: encoder.settings().clone(),
        split: TokenSplit::new(&tokens, encoder.settings().vocab_size)?,
        raw: Some((table.clone(), encoder.settings().text.clone())),
        name,
    })
}

/// The class of each row as the model counts classes; `None` where it is not known. Where the data calls
/// its classes by the model's names in another order, the names count, else the numbers.
///
/// # Errors
/// Where a row is of a class that the model does not know.
pub fn labels(reading: &Reading, classes: &[String]) -> Result<Vec<Option<u32>>, StageError> {
    let split = &reading.split;
    let by_name: Option<Vec<u32>> = split.classes().and_then(|names| {
        let place = |name: &String| classes.iter().position(|class| class == name);
        names
            .iter()
            .map(|name| place(name).map(|class| class as u32))
            .collect()
    });
    let label = |row: usize| {
        let label = split.label(row)?;
        Some(
            by_name
                .as_ref()
                .map_or(label, |classes| classes[label as usize]),
        )
    };
    let labels: Vec<Option<u32>> = (0..split.len()).map(label).collect();
    let outside = |label: &Option<u32>| label.is_some_and(|label| label as usize >= classes.len());
    match labels.iter().position(outside) {
        None => Ok(labels),
        Some(row) => Err(StageError::invalid(format!(
            "row {row} (counted from 0) of `{}` is of class {}; the model knows {} classes: {}",
            reading.name,
            labels[row].unwrap_or_default(),
            classes.len(),
            classes.join(", ")
        ))
        .help("evaluate on data with the classes that the model was trained on")
        .at("data")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use taper_cache::Digest;

    use super::*;
    use crate::artifact::{Features, Metrics, Predictions, write_table};
    use crate::evaluate::Evaluate;
    use crate::metrics::MetricValue;
    use crate::predict::Predict;
    use crate::testing::Workshop;
    use crate::tokenize::Tokenize;
    use crate::train::Train;

    fn split(folder: &std::path::Path, name: &str, labels: &[i64], classes: &[&str]) {
        let text = |(row, label): (usize, &i64)| match label {
            0 => format!("a dull film, number {row}"),
            _ => format!("a bright film, number {row}, and long"),
        };
        let texts: StringArray = labels.iter().enumerate().map(text).map(Some).collect();
        let columns: [(&str, ArrayRef); 2] = [
            ("text", Arc::new(texts)),
            ("label", Arc::new(Int64Array::from(labels.to_vec()))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let names: Vec<String> = classes.iter().map(|name| (*name).to_owned()).collect();
        let schema = Features::of(&batch.schema())
            .with_classes("label", &names)
            .describe(&batch.schema());
        write_table(&folder.join(format!("{name}.arrow")), &schema, [Ok(batch)]).unwrap();
    }

    fn data(shop: &Workshop, labels: &[i64], classes: &[&str]) -> Digest {
        let folder = shop.fresh();
        split(&folder, "train", labels, classes);
        split(&folder, "test", &labels[..labels.len().min(33)], classes);
        shop.keep(&folder, ArtifactType::Dataset)
    }

    const CLASSES: [&str; 2] = ["neg", "pos"];

    /// A data set, its tokens, and a model that was trained on them.
    fn trained(shop: &Workshop, rest: &str) -> (Digest, Digest, Digest) {
        let labels: Vec<i64> = (0..90).map(|row| i64::from(row % 3 == 0)).collect();
        let raw = data(shop, &labels, &CLASSES);
        let tokenizer = r#"{"train": {"wordpiece": {"vocab_size": 90}}}"#;
        let params = format!(r#"{{"data": "{raw}", "tokenizer": {tokenizer}, "max_length": 24}}"#);
        let tokens = shop.run(Tokenize, &params);
        let params = format!(
            r#"{{"data": "{tokens}", "model": {{"textcnn": {{"embedding_dim": 8, "filters": 4}}}},
                "optimizer": {{"adamw": {{"lr": 0.05}}}}, "epochs": 3, "batch_size": 8, "keep": "last"{rest}}}"#
        );
        let model = shop.run(Train, &params);
        (raw, tokens, model)
    }

    fn number(values: &crate::metrics::MetricValues, name: &str) -> f64 {
        values[name].number().unwrap()
    }

    #[test]
    fn a_model_reads_tokens_and_raw_text_alike() {
        let shop = Workshop::new();
        for rest in [
            "",
            r#", "loss": "bce_with_logits", "padding": "max_length""#,
        ] {
            let rest = rest.replace(r#""bce_with_logits""#, r#"{"bce_with_logits": {}}"#);
            let (raw, tokens, model) = trained(&shop, &rest);
            let metrics = r#""metrics": ["accuracy", "loss", "auroc", "confusion_matrix"]"#;
            let of = |data| {
                shop.run(
                    Evaluate,
                    &format!(r#"{{"model": "{model}", "data": "{data}", {metrics}}}"#),
                )
            };
            assert_eq!(of(raw), of(tokens));
            let values = Metrics::open(shop.artifact(&of(tokens))).unwrap().values;
            assert_eq!(number(&values, "accuracy"), 1.0);
            assert!(number(&values, "loss") < 0.2);
            let MetricValue::Confusion(table) = &values["confusion_matrix"] else {
                panic!("{values:?}");
            };
            assert_eq!(table.labels, CLASSES);
            assert_eq!(table.counts, [[22, 0], [0, 11]]);

            let guess = |data, rest: &str| {
                let params = format!(r#"{{"model": "{model}", "data": "{data}"{rest}}}"#);
                shop.run(Predict, &params)
            };
            let open = |digest| Predictions::open(shop.artifact(&digest)).unwrap();
            let of_tokens = open(guess(tokens, ""));
            let of_text = open(guess(raw, ""));
            assert_eq!(
                of_tokens.split("test").unwrap(),
                of_text.split("test").unwrap()
            );
            let test = of_tokens.split("test").unwrap();
            assert_eq!(test.labels.as_ref().unwrap(), &test.predictions);
            for row in test.scores.chunks(2) {
                assert!((row[0] + row[1] - 1.0).abs() < 1e-6);
            }
            let copied =
                Dataset::open(shop.artifact(&guess(raw, r#", "split": "train""#))).unwrap();
            let texts = copied.split("train").unwrap().text("text").unwrap();
            assert_eq!(texts.get(1), "a dull film, number 1");
        }
    }

    #[test]
    fn single_texts_are_read_as_rows_are() {
        let shop = Workshop::new();
        let (raw, _, model) = trained(&shop, r#", "padding": "max_length""#);
        let params = format!(r#"{{"model": "{model}", "data": "{raw}"}}"#);
        let guesses = Predictions::open(shop.artifact(&shop.run(Predict, &params))).unwrap();
        let opened = Model::open(shop.artifact(&model)).unwrap();
        let mut classifier = TextClassifier::open(&opened, Device::Cpu).unwrap();
        assert_eq!(
            (classifier.classes(), classifier.columns()),
            (&CLASSES.map(str::to_owned)[..], &["text".to_owned()][..])
        );
        let data = shop.open(&raw);
        let texts = data.split("test").unwrap().text("text").unwrap();
        let rows: Vec<[&str; 1]> = texts.iter().map(|text| [text]).collect();
        let rows: Vec<&[&str]> = rows.iter().map(|row| &row[..]).collect();
        let answers = classifier.ask(&rows).unwrap();
        let scores: Vec<f32> = answers
            .probabilities
            .iter()
            .map(|score| *score as f32)
            .collect();
        assert_eq!(scores, guesses.split("test").unwrap().scores);
        let error = classifier.ask(&[&["one", "two"]]).unwrap_err();
        assert_eq!(
            error.message,
            "a row has 2 texts, but 1 are tokenized together"
        );
    }

    #[test]
    fn classes_count_by_their_names() {
        let shop = Workshop::new();
        let (_, _, model) = trained(&shop, "");
        let swapped = data(&shop, &[0, 1, 0, 1], &["pos", "neg"]);
        let evaluate = |data| {
            let params =
                format!(r#"{{"model": "{model}", "data": "{data}", "metrics": ["accuracy"]}}"#);
            Metrics::open(shop.artifact(&shop.run(Evaluate, &params)))
                .unwrap()
                .values
        };
        assert_eq!(number(&evaluate(swapped), "accuracy"), 0.0);
        let renamed = data(&shop, &[0, 1, 0, 1], &["bad", "good"]);
        assert_eq!(number(&evaluate(renamed), "accuracy"), 1.0);
    }

    #[test]
    fn unknown_classes_are_predicted_but_not_evaluated() {
        let shop = Workshop::new();
        let (_, _, model) = trained(&shop, "");
        let hidden = data(&shop, &[0, -1, -1], &CLASSES);
        let params = format!(r#"{{"model": "{model}", "data": "{hidden}"}}"#);
        insta::assert_snapshot!(shop.fail(Evaluate, &params), @r#"
        2 of the 3 rows of `test` have no label; the first is row 1 (counted from 0)
          at split
          help: the hub's test splits often have none: evaluate on `validation`, or use `predict`
        "#);
        let guesses = Predictions::open(shop.artifact(&shop.run(Predict, &params))).unwrap();
        assert_eq!(guesses.split("test").unwrap().labels, Some(vec![0, -1, -1]));
        let all = data(&shop, &[-1, -1], &CLASSES);
        let params = format!(r#"{{"model": "{model}", "data": "{all}"}}"#);
        let guesses = Predictions::open(shop.artifact(&shop.run(Predict, &params))).unwrap();
        assert_eq!(guesses.split("test").unwrap().labels, None);
    }

    #[test]
    fn mistakes_are_told() {
        let shop = Workshop::new();
        let (raw, _, model) = trained(&shop, "");
        let fail = |data: &Digest, rest: &str| {
            shop.fail(
                Evaluate,
                &format!(r#"{{"model": "{model}", "data": "{data}"{rest}}}"#),
            )
        };
        insta::assert_snapshot!(fail(&raw, r#", "split": "tset""#), @r#"
        the data has no split `tset`
          at split
          help: did you mean `test`?
        "#);
        insta::assert_snapshot!(fail(&raw, r#", "text": "texts""#), @r#"
        `test.arrow` has no column `texts`
          at text
          help: did you mean `text`?
        "#);
        insta::assert_snapshot!(fail(&raw, r#", "metrics": []"#), @r#"
        `metrics` is empty
          at metrics
          help: name at least one
        "#);
        insta::assert_snapshot!(fail(&raw, r#", "batch_size": 0"#), @r#"
        `batch_size` is 0
          at batch_size
          help: give at least 1
        "#);
        let three = data(&shop, &[0, 2, 1], &["neg", "pos", "odd"]);
        insta::assert_snapshot!(fail(&three, ""), @r#"
        row 1 (counted from 0) of `test` is of class 2; the model knows 2 classes: neg, pos
          at data
          help: evaluate on data with the classes that the model was trained on
        "#);
        let empty = data(&shop, &[], &CLASSES);
        insta::assert_snapshot!(fail(&empty, ""), @r#"
        the split `test` has no rows
          at data
          help: leave it out where the data is read: `splits: […]`
        "#);
        let shop_files = shop.files(&[("config.json", b"{\"model_type\": \"bert\"}")]);
        let params = format!(r#"{{"model": "{shop_files}", "data": "{raw}"}}"#);
        insta::assert_snapshot!(shop.fail(Evaluate, &params), @r#"
        the model has no classes: `config.json` has no `id2label`
          at model
          help: it is a backbone without a head; a classifier can be trained `from` it where it is a BERT
        "#);
    }

    #[test]
    fn an_undefined_metric_is_told() {
        let shop = Workshop::new();
        let (_, _, model) = trained(&shop, "");
        let one = data(&shop, &[0, 0, 0], &CLASSES);
        let params = format!(r#"{{"model": "{model}", "data": "{one}", "metrics": ["auroc"]}}"#);
        let digest = shop.run(Evaluate, &params);
        assert!(
            Metrics::open(shop.artifact(&digest)).unwrap().values["auroc"]
                .number()
                .is_none()
        );
        let warning = "`auroc` is undefined on `test`: not every class has rows there".to_owned();
        assert!(shop.notes().contains(&warning));
    }
}
