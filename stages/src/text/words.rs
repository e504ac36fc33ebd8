//! Tokenizing word by word.
//!
//! A tokenizer works through a whole review to keep 128 tokens of it, and through the word "the" anew each
//! time. Where neither its normalizer nor its pre-tokenizer look across a blank, a text's tokens are those
//! of its words one after the other: so we stop when there are enough, and remember what words became.

use std::collections::BTreeMap;

use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// Blanks for every tokenizer: what is between them can be tokenized by itself.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// How many words are remembered.
const CAPACITY: usize = 1 << 17;

/// Longer words are not remembered.
const LONGEST: usize = 32;

/// What words became.
pub type Memory = BTreeMap<Box<str>, Box<[u32]>>;

/// What words became: what all threads share, and what this one found.
#[derive(Default)]
pub struct Words<'a> {
    shared: Option<&'a Memory>,
    found: Memory,
}

impl<'a> Words<'a> {
    /// Begins with what is known.
    pub fn knowing(shared: &'a Memory) -> Self {
        Self {
            shared: Some(shared),
            found: Memory::new(),
        }
    }

    /// What was found beyond that.
    pub fn found(self) -> Memory {
        self.found
    }

    /// The ids of a text's tokens, without special ones: all, or as soon as there are `enough`, so many.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn tokenize(
        &mut self,
        tokenizer: &Tokenizer,
        text: &str,
        enough: Option<usize>,
    ) -> tokenizers::Result<Vec<u32>> {
        let enough = enough.unwrap_or(usize::MAX);
        let mut ids = Vec::new();
        for word in text.split(BLANKS).filter(|word| !word.is_empty()) {
            let known = self.shared.and_then(|words| words.get(word));
            if let Some(tokens) = known.or_else(|| self.found.get(word)) {
                ids.extend_from_slice(tokens);
            } else {
                let encoding = tokenizer.encode_fast(word, false)?;
                ids.extend_from_slice(encoding.get_ids());
                if word.len() <= LONGEST && self.found.len() < CAPACITY {
                    self.found.insert(word.into(), encoding.get_ids().into());
                }
            }
            if ids.len() >= enough {
                ids.truncate(enough);
                break;
            }
        }
        Ok(ids)
    }
}

/// Adds what a thread found to what all share, up to the capacity.
pub fn remember(memory: &mut Memory, found: Memory) {
    let room = CAPACITY.saturating_sub(memory.len());
    memory.extend(found.into_iter().take(room));
}

/// Whether the tokens of a text are those of its words, one after the other: known of the pieces that BERT
/// and its relatives are made of.
pub fn words_are_local(tokenizer: &Tokenizer) -> bool {
    let normalizer = match tokenizer.get_normalizer() {
        None | Some(NormalizerWrapper::BertNormalizer(_) | NormalizerWrapper::Lowercase(_)) => true,
        Some(_) => false,
    };
    let pre_tokenizer = matches!(
        tokenizer.get_pre_tokenizer(),
        Some(
            PreTokenizerWrapper::BertPreTokenizer(_)
                | PreTokenizerWrapper::Whitespace(_)
                | PreTokenizerWrapper::WhitespaceSplit(_)
        )
    );
    // A token of several words would be found in the whole text only.
    let added = tokenizer.get_added_tokens_decoder();
    let one_word = added
        .values()
        .all(|token| !token.content.is_empty() && !token.content.contains(char::is_whitespace));
    let model = matches!(
        tokenizer.get_model(),
        tokenizers::ModelWrapper::WordPiece(_) | tokenizers::ModelWrapper::WordLevel(_)
    );
    normalizer && pre_tokenizer && one_word && model
}
