//! `tokenize`: text to rows of token ids, with a tokenizer that there is or one that is trained on the data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taper_cache::ArtifactType;
use taper_engine::{Context, Input, Kind, Makes, NoSettings, Outside, Stage, StageError, Unit};

use crate::artifact::dataset::EXTENSION;
use crate::artifact::tokens::{Padding, SETTINGS_FILE, TOKENIZER_FILE, TokenSettings, Truncation};
use crate::artifact::{Dataset, Table};
use crate::text::columns::TextColumns;
use crate::text::encoder::{Encoder, padding_id, vocabulary_size};
use crate::text::labels::{empty_split, label_column, read_labels};
use crate::text::origin::{PinnedTokenizer, TokenizerSource, Training};
use crate::text::table::{Classes, write_tokens};
use crate::text::words::Memory;

/// The kind; see [`Params`].
pub struct Tokenize;

/// Makes tokens of the text of each split, with a tokenizer that there is or one that is trained on the data.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The data set.
    pub data: Input<Dataset>,
    /// The tokenizer.
    pub tokenizer: TokenizerSource,
    /// The column of text, or the two columns of pairs.
    #[serde(default)]
    pub text: TextColumns,
    /// The column of classes; without it `label`, where the data has one.
    #[serde(default)]
    pub label: Option<String>,
    /// The most tokens a row has, special tokens counted.
    #[serde(default = "default_max_length")]
    #[schemars(range(min = 1))]
    pub max_length: usize,
    /// Whether rows are padded to `max_length`. It is seldom needed: batches are padded where a model reads
    /// padding.
    #[serde(default)]
    pub padding: Padding,
    /// What is cut from a row that is too long.
    #[serde(default)]
    pub truncation: Truncation,
}

const fn default_max_length() -> usize {
    512
}

impl Kind for Tokenize {
    type Params = Params;
    type Settings = NoSettings;
    type Resolved = PinnedTokenizer;

    const NAME: &'static str = "tokenize";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "tokenize: { data: corpus, tokenizer: { hub: google-bert/bert-base-cased }, text: text, max_length: 128 }";

    fn makes(&self, _: &Params) -> Makes {
        Makes::One(ArtifactType::Tokens)
    }

    fn check(&self, params: &Params) -> Vec<StageError> {
        let training = match &params.tokenizer {
            TokenizerSource::Train(Training::Wordpiece(training)) => {
                training.check("tokenizer.train.wordpiece")
            }
            _ => None,
        };
        let pair = params.text.0.len() > 1;
        let second = (params.truncation == Truncation::OnlySecond && !pair).then(|| {
            StageError::invalid("`truncation: only_second` needs two texts, there is one")
                .help("give two columns, `text: [first, second]`, or leave `truncation` out")
                .at("truncation")
        });
        training.into_iter().chain(second).collect()
    }

    fn resolve(
        &self,
        params: &Params,
        outside: &Outside<Self::Resolved>,
    ) -> Result<Option<Self::Resolved>, StageError> {
        params.tokenizer.resolve(outside)
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let params = &stage.params;
        let data = context.open(&params.data)?;
        let tables: Vec<(&str, &Table)> = data.splits().collect();
        let label = label_column(params.label.as_deref(), &tables)?;
        let labels = read_labels(label.as_deref(), &tables)?;
        let tokenizer =
            params
                .tokenizer
                .open(stage.resolved.as_ref(), &params.text, &tables, context)?;
        let settings = TokenSettings {
            max_length: params.max_length,
            padding: params.padding,
            truncation: params.truncation,
            pad_token_id: padding_id(&tokenizer),
            vocab_size: vocabulary_size(&tokenizer),
            text: params.text.0.clone(),
            label,
        };
        let encoder = Encoder::new(tokenizer, settings)?;
        let mut memory = Memory::new();
        for (place, (split, table)) in tables.iter().enumerate() {
            if table.rows() == 0 {
                return Err(empty_split(split));
            }
            let rows = Some(table.rows() as u64);
            let progress =
                context
                    .reporter
                    .progress(format!("tokenizing {split}"), rows, Unit::Rows);
            let classes = labels.as_ref().and_then(|labels| {
                Some(Classes {
                    values: labels.values[place].as_deref()?,
                    names: &labels.names,
                })
            });
            let path = context.create(format!("{split}{EXTENSION}"))?;
            write_tokens(
                &encoder,
                table,
                classes,
                &path,
                &mut memory,
                &context.reporter,
                &progress,
            )?;
        }
        fs_err::write(context.create(TOKENIZER_FILE)?, encoder.to_json()?)?;
        encoder.settings().write(&context.create(SETTINGS_FILE)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use taper_cache::Digest;
    use taper_engine::Artifact;

    use super::*;
    use crate::artifact::{Tokens, write_table};
    use crate::testing::Workshop;

    const TRAINED: &str = r#"{"train": {"wordpiece": {"vocab_size": 60, "min_frequency": 1}}}"#;

    fn tokens(shop: &Workshop, digest: &Digest) -> Tokens {
        Tokens::open(shop.artifact(digest)).unwrap()
    }

    fn params(data: &Digest, rest: &str) -> String {
        format!(r#"{{"data": "{data}", "tokenizer": {TRAINED}{rest}}}"#)
    }

    /// A split `train` with these texts and labels.
    fn data(shop: &Workshop, texts: &[Option<&str>], labels: &[i64]) -> Digest {
        let columns: [(&str, ArrayRef); 2] = [
            ("review", Arc::new(StringArray::from(texts.to_vec()))),
            ("sentiment", Arc::new(Int64Array::from(labels.to_vec()))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let folder = shop.fresh();
        write_table(
            &folder.join("train.arrow"),
            &batch.schema(),
            [Ok(batch.clone())],
        )
        .unwrap();
        shop.keep(&folder, ArtifactType::Dataset)
    }

    #[test]
    fn every_row_becomes_its_tokens_the_same_each_time() {
        let shop = Workshop::new();
        let raw = shop.dataset(&[("test", 300), ("train", 3000)]);
        let made = shop.run(Tokenize, &params(&raw, r#", "max_length": 16"#));
        assert_eq!(
            shop.run(Tokenize, &params(&raw, r#", "max_length": 16"#)),
            made
        );
        let tokens = tokens(&shop, &made);
        let train = tokens.split("train").unwrap();
        assert_eq!(
            (train.len(), tokens.split("test").unwrap().len()),
            (3000, 300)
        );
        assert_eq!(
            train.classes(),
            Some(&["zero".to_owned(), "one".to_owned()][..])
        );
        assert_eq!(tokens.settings().label.as_deref(), Some("label"));
        let encoder =
            Encoder::open(tokens.tokenizer().unwrap(), tokens.settings().clone()).unwrap();
        for row in [0, 1, 1023, 1024, 2999] {
            let expected = encoder.encode(&[&format!("train {row}")]).unwrap();
            let found = train.row(row);
            assert!(found.ids.iter().map(|id| *id as u32).eq(expected.ids));
            assert_eq!(found.label, Some(u32::from(row % 4 == 0)));
            assert_eq!(train.length(row), found.ids.len());
        }
        assert_eq!(
            tokens.split("tran").unwrap_err().help.unwrap(),
            "did you mean `train`?"
        );
    }

    #[test]
    fn padding_is_written_and_read_over() {
        let shop = Workshop::new();
        let raw = shop.dataset(&[("train", 10)]);
        let padded = shop.run(
            Tokenize,
            &params(&raw, r#", "max_length": 9, "padding": "max_length""#),
        );
        let plain = shop.run(Tokenize, &params(&raw, r#", "max_length": 9"#));
        let (padded, plain) = (tokens(&shop, &padded), tokens(&shop, &plain));
        assert_eq!(padded.settings().padding, Padding::MaxLength);
        let (padded, plain) = (
            padded.split("train").unwrap(),
            plain.split("train").unwrap(),
        );
        assert!(padded.rows().eq(plain.rows()));
    }

    #[test]
    fn pairs_have_two_segments() {
        let shop = Workshop::new();
        let raw = shop.dataset(&[("train", 4)]);
        let made = shop.run(Tokenize, &params(&raw, r#", "text": ["text", "text"]"#));
        let tokens = tokens(&shop, &made);
        let row = tokens.split("train").unwrap().row(0);
        assert_eq!(
            (row.type_ids[0], row.type_ids.last().copied()),
            (0, Some(1))
        );
    }

    #[test]
    fn the_tokens_of_another_stage_lend_their_tokenizer() {
        let shop = Workshop::new();
        let raw = shop.dataset(&[("train", 40)]);
        let made = shop.run(Tokenize, &params(&raw, ""));
        let again = shop.run(
            Tokenize,
            &format!(r#"{{"data": "{raw}", "tokenizer": "{made}"}}"#),
        );
        assert_eq!(again, made);
        let json = fs_err::read(tokens(&shop, &made).tokenizer().unwrap()).unwrap();
        let file = shop.files(&[("file.json", &json)]);
        let params = format!(r#"{{"data": "{raw}", "tokenizer": {{"path": "{file}"}}}}"#);
        assert_eq!(shop.run(Tokenize, &params), made);
    }

    #[test]
    fn classes_without_names_are_called_by_their_numbers() {
        let shop = Workshop::new();
        let raw = data(
            &shop,
            &[Some("good film"), Some("bad film"), Some("film")],
            &[2, 0, -1],
        );
        let made = shop.run(
            Tokenize,
            &params(&raw, r#", "text": "review", "label": "sentiment""#),
        );
        let tokens = tokens(&shop, &made);
        let train = tokens.split("train").unwrap();
        assert_eq!(train.classes().unwrap(), ["0", "1", "2"]);
        assert_eq!(train.first_unlabelled(), Some(2));
    }

    #[test]
    fn what_cannot_be_tokenized_is_told() {
        let shop = Workshop::new();
        let raw = data(&shop, &[Some("good film"), None, Some("film")], &[-2, 0, 1]);
        insta::assert_snapshot!(shop.fail(Tokenize, &params(&raw, r#", "text": "reviews""#)), @r#"
        `train.arrow` has no column `reviews`
          at text
          help: did you mean `review`?
        "#);
        insta::assert_snapshot!(shop.fail(Tokenize, &params(&raw, r#", "text": "review""#)), @r#"
        column `review` of `train.arrow` has no value in 1 of 3 rows; the first is row 1 (counted from 0)
          at text
          help: remove or fill these rows before they come here, in a `command` stage or at the source
        "#);
        insta::assert_snapshot!(shop.fail(Tokenize, &params(&raw, r#", "text": "sentiment""#)), @r#"
        column `sentiment` of `train.arrow` is whole numbers, not text
          at text
          help: of this type: `review`
        "#);
        insta::assert_snapshot!(shop.fail(Tokenize, &params(&raw, r#", "text": "review", "label": "sentimental""#)), @r#"
        `train.arrow` has no column `sentimental`
          at label
          help: did you mean `sentiment`?
        "#);
        insta::assert_snapshot!(shop.fail(Tokenize, &params(&raw, r#", "text": "review", "label": "sentiment""#)), @r#"
        row 0 (counted from 0) of `train` has the sentiment -2, outside the 2 classes 0, 1
          at label
          help: classes are counted from 0; -1 means that the class is not known
        "#);
        insta::assert_snapshot!(shop.fail(Tokenize, &params(&raw, r#", "text": "review", "truncation": "only_second""#)), @r#"
        `truncation: only_second` needs two texts, there is one
          at truncation
          help: give two columns, `text: [first, second]`, or leave `truncation` out
        "#);
        let good = shop.dataset(&[("train", 4)]);
        insta::assert_snapshot!(shop.fail(Tokenize, &params(&good, r#", "max_length": 2"#)), @r#"
        `max_length` is 2, but the tokenizer puts 2 special tokens into each row
          at max_length
          help: give at least 3
        "#);
        let files = shop.files(&[("notes.md", b"")]);
        let params = format!(r#"{{"data": "{good}", "tokenizer": "{files}"}}"#);
        insta::assert_snapshot!(shop.fail(Tokenize, &params), @r#"
        there is no `tokenizer.json` and no `vocab.txt` among the files (notes.md)
          at tokenizer
          help: name a stage, a repository or a folder that has one of them
        "#);
    }
}
