//! A WordPiece vocabulary from text, the same each time.
//!
//! The merges are those of the `tokenizers` library's trainer (the most frequent pair of neighbouring
//! pieces becomes a piece, until there are enough), but words are met in their own order and ties have a
//! rule, where the library's follow the order of a randomly seeded map.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taper_engine::StageError;
use tokenizers::{
    Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer,
};

use super::source::{BertConfig, SPECIAL_TOKENS, bert};

/// What stands before a piece that begins no word.
const CONTINUATION: &str = "##";

/// How a WordPiece tokenizer is trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WordPieceTraining {
    /// The most tokens that the vocabulary gets, special tokens counted.
    pub vocab_size: usize,
    /// Pairs that are met less often are not merged.
    pub min_frequency: u64,
    /// The most single characters, the most frequent first.
    pub limit_alphabet: usize,
    /// Whether text is made lower case.
    pub lowercase: bool,
    /// Whether accents are removed; without saying, where text is made lower case.
    pub strip_accents: Option<bool>,
}

impl Default for WordPieceTraining {
    fn default() -> Self {
        Self {
            vocab_size: 30_000,
            min_frequency: 2,
            limit_alphabet: 1000,
            lowercase: true,
            strip_accents: None,
        }
    }
}

/// Words and how often they are met.
pub type WordCounts = BTreeMap<String, u64>;

impl WordPieceTraining {
    /// What is wrong with the numbers, about the parameter at `path`.
    pub fn check(&self, path: &str) -> Option<StageError> {
        let least = SPECIAL_TOKENS.len() + 2;
        (self.vocab_size < least || self.vocab_size > 1 << 24).then(|| {
            StageError::invalid(format!("`vocab_size` is {}", self.vocab_size))
                .help(format!("give a number from {least} to {}", 1 << 24))
                .at(format!("{path}.vocab_size"))
        })
    }

    /// Trains a tokenizer on texts.
    ///
    /// # Errors
    /// Where the texts have no word.
    pub fn train<'t>(
        &self,
        texts: impl ParallelIterator<Item = &'t str>,
    ) -> Result<Tokenizer, StageError> {
        let config = BertConfig {
            do_lower_case: self.lowercase,
            strip_accents: self.strip_accents,
            ..BertConfig::default()
        };
        let words = count_words(&bert(vocabulary_text(&[]).as_bytes(), &config)?, texts)?;
        if words.is_empty() {
            return Err(
                StageError::invalid("there is no word to train a tokenizer on")
                    .help("the column of text is empty in every row"),
            );
        }
        bert(vocabulary_text(&self.pieces(&words)).as_bytes(), &config)
    }

    /// The pieces after the special tokens, in the order of their ids.
    pub fn pieces(&self, words: &WordCounts) -> Vec<String> {
        let mut pieces = Pieces::default();
        let alphabet = alphabet(words, self.limit_alphabet);
        for character in &alphabet {
            pieces.id(character.to_string());
        }
        let mut spelled: Vec<Vec<u32>> = Vec::with_capacity(words.len());
        for word in words.keys() {
            // Characters outside the alphabet are passed over, as by the library's trainer.
            let characters = word.chars().enumerate();
            let known = characters.filter(|(_, character)| alphabet.contains(character));
            let ids = known.map(|(place, character)| {
                pieces.id(match place {
                    0 => character.to_string(),
                    _ => format!("{CONTINUATION}{character}"),
                })
            });
            spelled.push(ids.collect());
        }
        let counts: Vec<u64> = words.values().copied().collect();
        let room = self.vocab_size.saturating_sub(SPECIAL_TOKENS.len());
        merge(&mut pieces, &mut spelled, &counts, room, self.min_frequency);
        pieces.names.truncate(room);
        pieces.names
    }
}

/// The special tokens and the pieces, one a line.
fn vocabulary_text(pieces: &[String]) -> String {
    let special = SPECIAL_TOKENS.iter().copied();
    let mut text = String::new();
    for token in special.chain(pieces.iter().map(String::as_str)) {
        text.push_str(token);
        text.push('\n');
    }
    text
}

/// Counts the words that the tokenizer's normalizer and pre-tokenizer make of the texts. What is between
/// two blanks is looked at once, however often it is met.
fn count_words<'t>(
    tokenizer: &Tokenizer,
    texts: impl ParallelIterator<Item = &'t str>,
) -> Result<WordCounts, StageError> {
    let add = |mut counts: BTreeMap<&'t str, u64>, text: &'t str| {
        for word in text
            .split([' ', '\t', '\n', '\r'])
            .filter(|word| !word.is_empty())
        {
            *counts.entry(word).or_default() += 1;
        }
        counts
    };
    let raw = texts
        .fold(BTreeMap::new, add)
        .reduce(BTreeMap::new, |a, b| {
            let (mut into, from) = if a.len() < b.len() { (b, a) } else { (a, b) };
            for (word, count) in from {
                *into.entry(word).or_default() += count;
            }
            into
        });
    let mut counts = WordCounts::new();
    for (raw, count) in raw {
        for word in split(tokenizer, raw)
            .map_err(|error| StageError::failed(format!("`{raw}` cannot be split: {error}")))?
        {
            *counts.entry(word).or_default() += count;
        }
    }
    Ok(counts)
}

fn split(tokenizer: &Tokenizer, text: &str) -> tokenizers::Result<Vec<String>> {
    let mut words = PreTokenizedString::from(text);
    if let Some(normalizer) = tokenizer.get_normalizer() {
        words.normalize(|part| normalizer.normalize(part))?;
    }
    if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut words)?;
    }
    let splits = words.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    Ok(splits
        .into_iter()
        .map(|(word, _, _)| word.to_owned())
        .collect())
}

/// The most frequent characters; of equally frequent ones, the lesser.
fn alphabet(words: &WordCounts, limit: usize) -> BTreeSet<char> {
    let mut counts: BTreeMap<char, u64> = BTreeMap::new();
    for (word, count) in words {
        for character in word.chars() {
            *counts.entry(character).or_default() += count;
        }
    }
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_by_key(|(character, count)| (Reverse(*count), *character));
    ranked
        .into_iter()
        .take(limit)
        .map(|(character, _)| character)
        .collect()
}

/// Pieces by id.
#[derive(Default)]
struct Pieces {
    names: Vec<String>,
    ids: BTreeMap<String, u32>,
}

impl Pieces {
    /// The id of a piece, a new one where it is new.
    fn id(&mut self, name: String) -> u32 {
        let next = self.names.len() as u32;
        let names = &mut self.names;
        *self.ids.entry(name).or_insert_with_key(|name| {
            names.push(name.clone());
            next
        })
    }
}

/// A piece and the one behind it.
type Pair = (u32, u32);

/// Merges the most frequent pair until there are `room` pieces, or no pair is met `min_frequency` times.
/// Of equally frequent pairs the one of lesser ids comes first.
fn merge(
    pieces: &mut Pieces,
    words: &mut [Vec<u32>],
    counts: &[u64],
    room: usize,
    min_frequency: u64,
) {
    let mut pairs: BTreeMap<Pair, Occurrences> = BTreeMap::new();
    for (index, word) in words.iter().enumerate() {
        for pair in word.windows(2) {
            let occurrences = pairs.entry((pair[0], pair[1])).or_default();
            occurrences.count += counts[index];
            occurrences.words.insert(index as u32);
        }
    }
    let mut queue: BinaryHeap<(u64, Reverse<Pair>)> = pairs
        .iter()
        .map(|(pair, occurrences)| (occurrences.count, Reverse(*pair)))
        .collect();
    while pieces.names.len() < room {
        let Some((count, Reverse(pair))) = queue.pop() else {
            return;
        };
        let now = pairs.get(&pair).map_or(0, |occurrences| occurrences.count);
        if now != count {
            // An entry from before other merges took some of its occurrences; the right one is behind it.
            continue;
        }
        if count < min_frequency.max(1) {
            return;
        }
        let behind = &pieces.names[pair.1 as usize];
        let behind = behind.strip_prefix(CONTINUATION).unwrap_or(behind);
        let merged = format!("{}{behind}", pieces.names[pair.0 as usize]);
        let merged = pieces.id(merged);
        let occurrences = pairs.remove(&pair).unwrap_or_default();
        let mut changed = BTreeSet::new();
        for index in occurrences.words {
            let word = &mut words[index as usize];
            let count = counts[index as usize];
            for old in word.windows(2) {
                let old = (old[0], old[1]);
                if let Some(occurrences) = pairs.get_mut(&old) {
                    occurrences.count -= count;
                    occurrences.words.remove(&index);
                    changed.insert(old);
                }
            }
            join(word, pair, merged);
            for new in word.windows(2) {
                let new = (new[0], new[1]);
                let occurrences = pairs.entry(new).or_default();
                occurrences.count += count;
                occurrences.words.insert(index);
                changed.insert(new);
            }
        }
        for pair in changed {
            match pairs.get(&pair).map_or(0, |occurrences| occurrences.count) {
                0 => drop(pairs.remove(&pair)),
                count => queue.push((count, Reverse(pair))),
            }
        }
    }
}

/// How often a pair is met, and in which words.
#[derive(Default)]
struct Occurrences {
    count: u64,
    words: BTreeSet<u32>,
}

/// Replaces each `pair` in a word, from its beginning.
fn join(word: &mut Vec<u32>, pair: Pair, merged: u32) {
    let mut kept = 0;
    let mut read = 0;
    while read < word.len() {
        let found = read + 1 < word.len() && (word[read], word[read + 1]) == pair;
        word[kept] = if found { merged } else { word[read] };
        read += if found { 2 } else { 1 };
        kept += 1;
    }
    word.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(words: &[(&str, u64)]) -> WordCounts {
        words
            .iter()
            .map(|(word, count)| ((*word).to_owned(), *count))
            .collect()
    }

    #[test]
    fn merges_the_most_frequent_pair_first() {
        let words = counts(&[
            ("hug", 10),
            ("pug", 5),
            ("pun", 12),
            ("bun", 4),
            ("hugs", 5),
        ]);
        let training = WordPieceTraining {
            vocab_size: SPECIAL_TOKENS.len() + 11 + 4,
            ..WordPieceTraining::default()
        };
        let pieces = training.pieces(&words);
        // ug is met 20 times, un 16, hug 15 and pun 12 times.
        insta::assert_snapshot!(pieces.join(" "), @"b g h n p s u ##u ##n ##g ##s ##ug ##un hug pun");
    }

    #[test]
    fn overlapping_and_repeated_pairs_are_counted_right() {
        let words = counts(&[("aaaa", 3), ("aaa", 2), ("abab", 1)]);
        let training = WordPieceTraining {
            vocab_size: 100,
            min_frequency: 1,
            ..WordPieceTraining::default()
        };
        let pieces = training.pieces(&words);
        for word in words.keys() {
            assert!(pieces.contains(word), "{word} is not among {pieces:?}");
        }
        let distinct: BTreeSet<_> = pieces.iter().collect();
        assert_eq!(distinct.len(), pieces.len());
    }

    #[test]
    fn rare_characters_and_rare_pairs_are_left_out() {
        let words = counts(&[("common", 50), ("rare", 1)]);
        let training = WordPieceTraining {
            limit_alphabet: 4,
            ..WordPieceTraining::default()
        };
        insta::assert_snapshot!(training.pieces(&words).join(" "), @"c m n o ##o ##m ##n co ##on ##mm comm common");
    }

    #[test]
    fn a_trained_tokenizer_has_the_same_bytes_each_time_and_in_any_number_of_threads() {
        let texts: Vec<String> = (0..200)
            .map(|row| {
                format!(
                    "Row {row} of the Corpus: caf\u{e9}s, na\u{ef}ve \u{4f60}\u{597d} words{}!",
                    row % 7
                )
            })
            .collect();
        let train = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let training = WordPieceTraining::default();
            let texts = || texts.par_iter().map(String::as_str);
            pool.install(|| training.train(texts()).unwrap().to_string(true).unwrap())
        };
        let once = train(1);
        assert_eq!(train(2), once);
        assert_eq!(train(3), once);
        let tokenizer = super::super::source::read_tokenizer(once.as_bytes()).unwrap();
        let row = tokenizer.encode(("The corpus", "Cafes!"), true).unwrap();
        assert_eq!(row.get_tokens()[0], "[CLS]");
        assert_eq!(row.get_tokens().last().unwrap(), "[SEP]");
        assert!(
            !row.get_tokens().contains(&"[UNK]".to_owned()),
            "{:?}",
            row.get_tokens()
        );
        assert_eq!(row.get_type_ids().last(), Some(&1));
        assert_eq!(tokenizer.token_to_id("[PAD]"), Some(0));
    }

    #[test]
    fn texts_without_words_are_refused() {
        let training = WordPieceTraining::default();
        let error = training.train(["", "  "].par_iter().copied()).unwrap_err();
        assert_eq!(error.message, "there is no word to train a tokenizer on");
    }
}
