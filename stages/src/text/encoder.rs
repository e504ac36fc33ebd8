//! One row of text to one row of token ids, as [`TokenSettings`] say.

use std::path::Path;

use taper_engine::StageError;
use tokenizers::utils::padding::{PaddingDirection, PaddingParams, PaddingStrategy};
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{Encoding, PostProcessor, Token, Tokenizer};

use super::words::{Words, words_are_local};
use crate::artifact::tokens::{Padding, TokenSettings, Truncation};

/// A tokenizer with the settings of one stage.
pub struct Encoder {
    tokenizer: Tokenizer,
    settings: TokenSettings,
    /// What is cut before special tokens are added.
    truncation: TruncationParams,
    /// Whether text may be tokenized word by word.
    local: bool,
}

/// A row of token ids without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Segment ids, as many.
    pub type_ids: Vec<u32>,
}

/// The name of the padding token in the tokenizers that do not say it.
const PADDING_TOKENS: [&str; 3] = ["[PAD]", "<pad>", "<|endoftext|>"];

/// The id of the padding token: what the tokenizer's own padding says, else one of the usual names, else 0.
pub fn padding_id(tokenizer: &Tokenizer) -> u32 {
    let own = tokenizer
        .get_padding()
        .filter(|padding| tokenizer.token_to_id(&padding.pad_token) == Some(padding.pad_id));
    let usual = || {
        PADDING_TOKENS
            .iter()
            .find_map(|token| tokenizer.token_to_id(token))
    };
    own.map(|padding| padding.pad_id)
        .or_else(usual)
        .unwrap_or(0)
}

/// One more than the greatest id.
pub fn vocabulary_size(tokenizer: &Tokenizer) -> usize {
    let greatest = tokenizer.get_vocab(true).into_values().max();
    greatest.map_or(0, |id| id as usize + 1)
}

impl Encoder {
    /// Puts `settings` in place of the truncation and padding that the tokenizer itself asks for.
    ///
    /// # Errors
    /// Where `max_length` leaves no room for a token beside the special ones, and where the settings name
    /// a second text that there is not.
    pub fn new(mut tokenizer: Tokenizer, settings: TokenSettings) -> Result<Self, StageError> {
        let pair = settings.text.len() > 1;
        let special = tokenizer
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(pair));
        if settings.max_length <= special {
            return Err(StageError::invalid(format!(
                "`max_length` is {}, but the tokenizer puts {special} special tokens into each row",
                settings.max_length
            ))
            .help(format!("give at least {}", special + 1))
            .at("max_length"));
        }
        if settings.truncation == Truncation::OnlySecond && !pair {
            return Err(StageError::invalid(
                "`truncation: only_second` needs two texts, there is one",
            )
            .help("give two columns, `text: [first, second]`, or leave `truncation` out")
            .at("truncation"));
        }
        // What the settings ask for is done around the tokenizer, not by it.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(unusable)?;
        let truncation = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: settings.max_length - special,
            strategy: match settings.truncation {
                Truncation::LongestFirst => TruncationStrategy::LongestFirst,
                Truncation::OnlyFirst => TruncationStrategy::OnlyFirst,
                Truncation::OnlySecond => TruncationStrategy::OnlySecond,
            },
            stride: 0,
        };
        Ok(Self {
            local: words_are_local(&tokenizer),
            tokenizer,
            settings,
            truncation,
        })
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// Where it cannot be read, and those of [`Encoder::new`].
    pub fn open(path: &Path, settings: TokenSettings) -> Result<Self, StageError> {
        Self::new(
            super::source::read_tokenizer(&fs_err::read(path)?)?,
            settings,
        )
    }

    /// How text becomes tokens.
    pub fn settings(&self) -> &TokenSettings {
        &self.settings
    }

    /// The tokenizer with these settings, as `tokenizer.json`.
    ///
    /// # Errors
    /// Where the tokenizer cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, StageError> {
        let mut tokenizer = self.tokenizer.clone();
        let pad_id = self.settings.pad_token_id;
        let padding = PaddingParams {
            strategy: PaddingStrategy::Fixed(self.settings.max_length),
            direction: PaddingDirection::Right,
            pad_to_multiple_of: None,
            pad_id,
            pad_type_id: 0,
            pad_token: tokenizer
                .id_to_token(pad_id)
                .unwrap_or_else(|| PADDING_TOKENS[0].to_owned()),
        };
        tokenizer.with_padding(match self.settings.padding {
            Padding::None => None,
            Padding::MaxLength => Some(padding),
        });
        let truncation = TruncationParams {
            max_length: self.settings.max_length,
            ..self.truncation.clone()
        };
        tokenizer
            .with_truncation(Some(truncation))
            .map_err(unusable)?;
        tokenizer.to_string(true).map_err(unusable)
    }

    /// The tokens of one row: its text, or its two texts.
    ///
    /// # Errors
    /// Where there are not as many texts as the settings name, and where the one text that may be cut is
    /// too short for that.
    pub fn encode(&self, texts: &[&str]) -> Result<Encoded, StageError> {
        self.encode_with(texts, &mut Words::default())
    }

    /// As [`Encoder::encode`]; `words` remembers what single words became, from row to row.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn encode_with(
        &self,
        texts: &[&str],
        words: &mut Words<'_>,
    ) -> Result<Encoded, StageError> {
        let columns = self.settings.text.len();
        if texts.len() != columns {
            return Err(StageError::invalid(format!(
                "a row has {} texts, but {columns} are tokenized together",
                texts.len()
            )));
        }
        // How much is cut from one text of two depends on how long the other is: both are tokenized to
        // their end.
        let enough = match texts {
            [_] => Some(self.truncation.max_length),
            _ => None,
        };
        let mut sequences = texts.iter().enumerate().map(|(index, text)| {
            let ids = match self.local {
                true => words.tokenize(&self.tokenizer, text, enough)?,
                false => self.tokenizer.encode_fast(*text, false)?.get_ids().to_vec(),
            };
            Ok(sequence(&ids, index as u32))
        });
        let mut next = || sequences.next().transpose().map_err(cannot_encode);
        let first = next()?.unwrap_or_default();
        let second = next()?;
        let (first, second) =
            truncate_encodings(first, second, &self.truncation).map_err(cannot_encode)?;
        let encoding = self
            .tokenizer
            .post_process(first, second, true)
            .map_err(cannot_encode)?;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
        })
    }
}

fn unusable(error: tokenizers::Error) -> StageError {
    StageError::failed(format!("the tokenizer cannot be used: {error}"))
}

fn cannot_encode(error: tokenizers::Error) -> StageError {
    StageError::invalid(format!("a row cannot be tokenized: {error}"))
        .help("raise `max_length`, or let the longer text be cut: `truncation: longest_first`")
}

fn sequence(ids: &[u32], type_id: u32) -> Encoding {
    let token = |id: &u32| Token::new(*id, String::new(), (0, 0));
    Encoding::from_tokens(ids.iter().map(token).collect(), type_id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::source::read_tokenizer;
    use super::*;
    use crate::golden;
    use crate::testing::told;

    fn hub(name: &str) -> std::path::PathBuf {
        golden::shared().join("hub/data").join(name)
    }

    fn tokenizer(name: &str) -> Tokenizer {
        let path = hub("models").join(name).join("tokenizer.json");
        read_tokenizer(&fs_err::read(path).unwrap()).unwrap()
    }

    fn settings(max_length: usize, text: &[&str]) -> TokenSettings {
        TokenSettings {
            max_length,
            padding: Padding::None,
            truncation: Truncation::LongestFirst,
            pad_token_id: 0,
            vocab_size: 30522,
            text: text.iter().map(|column| (*column).to_owned()).collect(),
            label: None,
        }
    }

    const MINILM: &str = "sentence-transformers/all-MiniLM-L6-v2";

    fn integers(value: &Value) -> Vec<u32> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_u64().unwrap() as u32)
            .collect()
    }

    #[test]
    fn single_texts_agree_with_transformers() {
        let golden = golden::json("minilm_tokenizer.json");
        let whole = Encoder::new(tokenizer(MINILM), settings(512, &["text"])).unwrap();
        let cut = Encoder::new(tokenizer(MINILM), settings(16, &["text"])).unwrap();
        for case in golden["single"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(
                whole.encode(&[text]).unwrap().ids,
                integers(&case["input_ids"]),
                "{text}"
            );
            assert_eq!(
                cut.encode(&[text]).unwrap().ids,
                integers(&case["trunc16"]),
                "{text}"
            );
        }
    }

    #[test]
    fn pairs_agree_with_transformers() {
        let golden = golden::json("minilm_tokenizer.json");
        let whole = Encoder::new(tokenizer(MINILM), settings(512, &["a", "b"])).unwrap();
        let strategies = [
            ("trunc20_longest_first", Truncation::LongestFirst),
            ("trunc20_only_first", Truncation::OnlyFirst),
            ("trunc20_only_second", Truncation::OnlySecond),
        ];
        let cases = golden["pair"].as_array().unwrap();
        for case in cases {
            let texts = [case["a"].as_str().unwrap(), case["b"].as_str().unwrap()];
            // Of an empty second text transformers makes a single row, unless it is in a batch; we are.
            let quirk = texts[1].is_empty();
            if !quirk {
                let row = whole.encode(&texts).unwrap();
                assert_eq!(row.ids, integers(&case["input_ids"]), "{texts:?}");
                assert_eq!(row.type_ids, integers(&case["token_type_ids"]), "{texts:?}");
            }
            for (name, truncation) in strategies {
                let settings = TokenSettings {
                    truncation,
                    ..settings(20, &["a", "b"])
                };
                let encoder = Encoder::new(tokenizer(MINILM), settings).unwrap();
                match (&case[name], encoder.encode(&texts)) {
                    (Value::String(error), Err(found)) => {
                        assert!(error.contains("too short") && found.message.contains("too short"));
                    }
                    (expected, Ok(row)) if !quirk => {
                        assert_eq!(row.ids, integers(expected), "{name} {texts:?}");
                        let segments = &case[format!("{name}_tt")];
                        assert_eq!(row.type_ids, integers(segments), "{name} {texts:?}");
                    }
                    (_, Ok(row)) => assert_eq!(row.ids.len(), 4),
                    (expected, found) => panic!("{name} {texts:?}: {expected} {found:?}"),
                }
            }
        }
        assert_eq!(whole.encode(&["x", ""]).unwrap().ids.len(), 4);
    }

    #[test]
    fn word_by_word_is_the_whole_on_real_reviews() {
        let source = crate::data::format::SourceFile {
            path: hub("datasets/local/imdb-small/plain_text/test-00000-of-00001.parquet"),
            name: "test.parquet".to_owned(),
            format: crate::data::format::Format::Parquet,
        };
        let (_, batches) = crate::data::tables::open(&source).unwrap();
        let batch = batches.into_iter().next().unwrap().unwrap();
        let texts = arrow_array::cast::AsArray::as_string::<i32>(
            batch.column_by_name("text").unwrap().as_ref(),
        );
        for name in ["google-bert/bert-base-cased", MINILM] {
            let encoder = Encoder::new(tokenizer(name), settings(128, &["text"])).unwrap();
            assert!(encoder.local);
            let mut words = Words::default();
            for text in texts.iter().flatten().take(150) {
                let row = encoder.encode_with(&[text], &mut words).unwrap();
                let whole = encoder.tokenizer.encode_fast(text, false).unwrap();
                let kept = whole.get_ids().len().min(126);
                assert_eq!(
                    row.ids[1..row.ids.len() - 1],
                    whole.get_ids()[..kept],
                    "{text}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn word_by_word_is_the_whole_on_odd_texts(
            parts in prop::collection::vec(prop::sample::select(vec![
                " ", "\t", "\n", "\r\n", "\u{a0}", "\u{2003}", "\u{85}", "\u{b}", "\u{c}", "\u{0}", "\u{fffd}",
                "\u{200d}", "\u{ad}", "\u{301}", "\u{308}", "e", "E\u{301}", "\u{130}", "\u{df}", "\u{3a3}",
                "\u{4f60}", "\u{f900}", "\u{1f600}", "don't", "...", "a-b", "[CLS]", "[MASK]", "[", "]", "##ing", "ing",
                "antidisestablishmentarianism", "\u{fb01}", "\u{1100}\u{1161}", "1,000", "x",
            ]), 0..24),
        ) {
            let text = parts.concat();
            for name in ["google-bert/bert-base-cased", MINILM] {
                let encoder = Encoder::new(TOKENIZERS.with(|t| t[usize::from(name == MINILM)].clone()), settings(12, &["text"])).unwrap();
                let row = encoder.encode(&[&text]).unwrap();
                let whole = encoder.tokenizer.encode_fast(text.as_str(), false).unwrap();
                let kept = whole.get_ids().len().min(10);
                prop_assert_eq!(&row.ids[1..row.ids.len() - 1], &whole.get_ids()[..kept]);
            }
        }
    }

    thread_local! {
        static TOKENIZERS: [Tokenizer; 2] = [tokenizer("google-bert/bert-base-cased"), tokenizer(MINILM)];
    }

    #[test]
    fn a_vocabulary_alone_is_as_good_as_tokenizer_json() {
        for name in [
            "google-bert/bert-base-cased",
            "google-bert/bert-base-uncased",
        ] {
            let folder = hub("models").join(name);
            let files = super::super::source::TokenizerFiles {
                tokenizer: None,
                vocabulary: Some(folder.join("vocab.txt")),
                config: Some(folder.join("tokenizer_config.json")),
            };
            let from_vocabulary =
                Encoder::new(files.read().unwrap(), settings(32, &["a", "b"])).unwrap();
            let from_json = Encoder::new(tokenizer(name), settings(32, &["a", "b"])).unwrap();
            let texts = ["The Caf\u{e9} isn't OPEN.", "Na\u{ef}ve [MASK]!"];
            assert_eq!(
                from_vocabulary.encode(&texts).unwrap(),
                from_json.encode(&texts).unwrap()
            );
        }
    }

    #[test]
    fn what_tokenizer_json_forces_is_overridden_and_ours_is_written() {
        let forced = tokenizer(MINILM);
        assert!(forced.get_truncation().is_some() && forced.get_padding().is_some());
        let long = "word ".repeat(300);
        let encoder = Encoder::new(forced, settings(200, &["text"])).unwrap();
        assert_eq!(encoder.encode(&[&long]).unwrap().ids.len(), 200);
        assert_eq!(encoder.encode(&["word"]).unwrap().ids.len(), 3);
        let padded = TokenSettings {
            padding: Padding::MaxLength,
            ..settings(200, &["text"])
        };
        let written = Encoder::new(tokenizer(MINILM), padded)
            .unwrap()
            .to_json()
            .unwrap();
        let again = read_tokenizer(written.as_bytes()).unwrap();
        assert_eq!(again.encode("word", true).unwrap().get_ids().len(), 200);
        assert_eq!(
            again.encode(long.as_str(), true).unwrap().get_ids().len(),
            200
        );
        assert_eq!(padding_id(&again), 0);
        assert_eq!(vocabulary_size(&again), 30522);
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        let fail = |settings| told(&Encoder::new(tokenizer(MINILM), settings).err().unwrap());
        insta::assert_snapshot!(fail(settings(2, &["text"])), @r"
        `max_length` is 2, but the tokenizer puts 2 special tokens into each row
          at max_length
          help: give at least 3
        ");
        insta::assert_snapshot!(fail(settings(3, &["a", "b"])), @r"
        `max_length` is 3, but the tokenizer puts 3 special tokens into each row
          at max_length
          help: give at least 4
        ");
        let second = TokenSettings {
            truncation: Truncation::OnlySecond,
            ..settings(9, &["text"])
        };
        insta::assert_snapshot!(fail(second), @r"
        `truncation: only_second` needs two texts, there is one
          at truncation
          help: give two columns, `text: [first, second]`, or leave `truncation` out
        ");
        let encoder = Encoder::new(tokenizer(MINILM), settings(9, &["text"])).unwrap();
        assert_eq!(
            encoder.encode(&["a", "b"]).unwrap_err().message,
            "a row has 2 texts, but 1 are tokenized together"
        );
    }
}
