//! Where tokenizers come from: `tokenizer.json`, or `vocab.txt` beside `tokenizer_config.json`.

use std::path::PathBuf;

use serde::Deserialize;
use taper_cache::ArtifactType;
use taper_engine::{Artifact, ArtifactFiles, StageError};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Tokenizer, decoders};

use crate::artifact::tokens::TOKENIZER_FILE;

/// The vocabulary of a WordPiece tokenizer, one token a line.
pub const VOCABULARY_FILE: &str = "vocab.txt";
/// What `transformers` keeps beside it.
pub const CONFIG_FILE: &str = "tokenizer_config.json";

/// The names of the files that [`TokenizerFiles`] looks at.
pub const FILES: [&str; 3] = [TOKENIZER_FILE, VOCABULARY_FILE, CONFIG_FILE];

/// The special tokens of BERT, in the order of their ids where a vocabulary is made anew.
pub const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// The files of an artifact among which there is a tokenizer.
#[derive(Clone, Debug, Default)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: Option<PathBuf>,
    /// `vocab.txt`.
    pub vocabulary: Option<PathBuf>,
    /// `tokenizer_config.json`.
    pub config: Option<PathBuf>,
}

impl Artifact for TokenizerFiles {
    const TYPES: &'static [ArtifactType] = &[
        ArtifactType::Model,
        ArtifactType::Tokens,
        ArtifactType::Files,
    ];

    fn open(files: ArtifactFiles) -> Result<Self, StageError> {
        Self::find(&files)
    }
}

impl TokenizerFiles {
    /// Finds them by their names; a single file of another name is told by its extension.
    ///
    /// # Errors
    /// Where there is no tokenizer among the files.
    pub fn find(files: &ArtifactFiles) -> Result<Self, StageError> {
        let found = Self {
            tokenizer: files
                .path(TOKENIZER_FILE)
                .or_else(|| files.path("file.json")),
            vocabulary: files
                .path(VOCABULARY_FILE)
                .or_else(|| files.path("file.txt")),
            config: files.path(CONFIG_FILE),
        };
        match found.tokenizer.is_none() && found.vocabulary.is_none() {
            true => {
                let names: Vec<_> = files.names().take(8).collect();
                Err(StageError::invalid(format!(
                    "there is no `{TOKENIZER_FILE}` and no `{VOCABULARY_FILE}` among the files ({})",
                    names.join(", ")
                ))
                .help("name a stage, a repository or a folder that has one of them"))
            }
            false => Ok(found),
        }
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// Where its file is not what it should be.
    pub fn read(&self) -> Result<Tokenizer, StageError> {
        if let Some(path) = &self.tokenizer {
            return read_tokenizer(&fs_err::read(path)?);
        }
        let Some(path) = &self.vocabulary else {
            return Err(StageError::failed("there is no tokenizer"));
        };
        let config = match &self.config {
            None => BertConfig::default(),
            Some(path) => serde_json::from_slice(&fs_err::read(path)?).map_err(|error| {
                StageError::failed(format!("`{CONFIG_FILE}` cannot be read: {error}"))
            })?,
        };
        bert(&fs_err::read(path)?, &config)
    }
}

/// Reads `tokenizer.json`.
///
/// # Errors
/// Where it is none.
pub fn read_tokenizer(bytes: &[u8]) -> Result<Tokenizer, StageError> {
    Tokenizer::from_bytes(bytes).map_err(|error| {
        StageError::failed(format!("`{TOKENIZER_FILE}` cannot be read: {error}"))
            .help("it has to be what the `tokenizers` library writes")
    })
}

/// What `tokenizer_config.json` says of a BERT tokenizer.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// Whether text is made lower case.
    pub do_lower_case: bool,
    /// Whether accents are removed; without saying, where text is made lower case.
    pub strip_accents: Option<bool>,
    /// Whether each Chinese character is a word.
    pub tokenize_chinese_chars: bool,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            do_lower_case: true,
            strip_accents: None,
            tokenize_chinese_chars: true,
        }
    }
}

/// BERT's tokenizer with this vocabulary, one token a line: rows are `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`.
///
/// # Errors
/// Where the vocabulary lacks a special token.
pub fn bert(vocabulary: &[u8], config: &BertConfig) -> Result<Tokenizer, StageError> {
    let unusable = |error: tokenizers::Error| {
        StageError::failed(format!("the vocabulary cannot be used: {error}"))
    };
    let vocabulary = WordPiece::read_bytes(vocabulary).map_err(unusable)?;
    let model = WordPiece::builder()
        .vocab(vocabulary)
        .build()
        .map_err(unusable)?;
    let mut tokenizer = Tokenizer::new(model);
    let mut ids = [0; SPECIAL_TOKENS.len()];
    for (token, id) in SPECIAL_TOKENS.iter().zip(&mut ids) {
        *id = tokenizer.token_to_id(token).ok_or_else(|| {
            StageError::failed(format!("the vocabulary lacks the special token `{token}`"))
                .help("give a `tokenizer.json` for tokenizers with other special tokens")
        })?;
    }
    let normalizer = BertNormalizer::new(
        true,
        config.tokenize_chinese_chars,
        config.strip_accents,
        config.do_lower_case,
    );
    tokenizer
        .with_normalizer(Some(normalizer))
        .map_err(unusable)?;
    let [_, _, cls, sep, _] = ids;
    let named = |place: usize, id| (SPECIAL_TOKENS[place].to_owned(), id);
    tokenizer
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(BertProcessing::new(named(3, sep), named(2, cls))))
        .with_decoder(Some(decoders::wordpiece::WordPiece::default()));
    tokenizer
        .add_special_tokens(SPECIAL_TOKENS.map(|token| AddedToken::from(token, true)))
        .map_err(unusable)?;
    Ok(tokenizer)
}
