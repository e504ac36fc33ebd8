//! The sample `acceptability`: English-like sentences, acceptable or not.
//!
//! A grammar makes minimal pairs, as linguists do: a sentence, and the same sentence with one rule broken.
//! The phenomena are those of the literature on grammatical acceptability (agreement, the order of words,
//! determiners, argument structure, anaphora, …), the words and the grammar are this program's own. In each
//! phenomenon the words of broken sentences stand in good ones as often, so that no single word tells; what
//! is broken shows within three neighbouring words, but for agreement across a phrase in between.
//!
//! No sentence stands twice in a data set, whatever its split; both of a pair are in one split.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use taper_engine::{Reporter, StageError, Unit};

use super::english::{
    ADJECTIVES, COMPARED, INTRANSITIVE, MEN, Number, OF_PERSONS, OF_THINGS, STUFF, THINGS, WOMEN,
    Words, adjunct, adverb, article, one, person, phrase, place, predicate, subject,
};
use crate::artifact::dataset::EXTENSION;
use crate::artifact::table::BATCH_ROWS;
use crate::artifact::{Features, TableWriter};
use crate::data::random::Random;

/// The names of the classes 0 and 1.
pub const CLASSES: [&str; 2] = ["unacceptable", "acceptable"];

/// Attempts to find a sentence that was not there before.
const MOST_ATTEMPTS: u64 = 1000;

/// A good sentence and a broken one.
type Pair = (Words, Words);

/// The phenomena. One that stands there twice is twice as frequent.
const PHENOMENA: [fn(&mut Random) -> Pair; 20] = [
    subject_verb_agreement,
    subject_verb_agreement,
    agreement_across_a_phrase,
    determiner_noun_agreement,
    determiner_noun_agreement,
    article_before_vowel,
    adjective_before_noun,
    determiner_before_noun,
    preposition_before_phrase,
    form_after_auxiliary,
    form_after_auxiliary,
    negation,
    question,
    argument_missing,
    argument_too_many,
    reflexive,
    reflexive,
    case_of_pronouns,
    counted_and_measured,
    comparison,
];

/// Writes `SPLIT.arrow` with columns `text` and `label` for each split into the folder `out`: `rows` rows,
/// half of them of each class.
///
/// # Errors
/// Where the grammar has not so many sentences, and those of writing.
pub fn write(
    rows: &BTreeMap<String, u64>,
    seed: u64,
    out: &Path,
    reporter: &Reporter,
) -> Result<(), StageError> {
    let schema = schema();
    let mut seen = BTreeSet::new();
    for (split, rows) in rows {
        let progress = reporter.progress(format!("writing {split}"), Some(*rows), Unit::Rows);
        let mut writer = TableWriter::create(&out.join(format!("{split}{EXTENSION}")), &schema)?;
        let mut batch: Vec<(String, i64)> = Vec::with_capacity(BATCH_ROWS);
        for pair in 0..rows.div_ceil(2) {
            let mut random = Random::new(seed, &format!("acceptability/{split}/{pair}"));
            let (good, bad) = new_pair(&mut random, &mut seen).ok_or_else(|| {
                StageError::invalid(format!(
                    "the grammar of `acceptability` has no more than {} sentences",
                    seen.len()
                ))
                .at("rows")
                .help("ask for fewer rows")
            })?;
            let mut both = [(good, 1), (bad, 0)];
            if random.below(2) == 0 {
                both.reverse();
            }
            let left = (rows - pair * 2) as usize;
            batch.extend(both.into_iter().take(left));
            if batch.len() >= BATCH_ROWS {
                reporter.check()?;
                progress.add(batch.len() as u64);
                write_batch(&mut writer, &mut batch)?;
            }
        }
        progress.add(batch.len() as u64);
        write_batch(&mut writer, &mut batch)?;
        writer.finish()?;
    }
    Ok(())
}

fn schema() -> Schema {
    let schema = Schema::new(vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("label", DataType::Int64, true),
    ]);
    Features::of(&schema)
        .with_classes("label", &CLASSES.map(str::to_owned))
        .describe(&schema)
}

fn write_batch(writer: &mut TableWriter, rows: &mut Vec<(String, i64)>) -> Result<(), StageError> {
    let texts: StringArray = rows.iter().map(|(text, _)| Some(text)).collect();
    let labels: Int64Array = rows.iter().map(|(_, label)| Some(*label)).collect();
    rows.clear();
    let batch = RecordBatch::try_new(
        writer.schema().clone(),
        vec![Arc::new(texts), Arc::new(labels)],
    )
    .map_err(|error| StageError::failed(error.to_string()))?;
    writer.write(&batch)
}

fn new_pair(random: &mut Random, seen: &mut BTreeSet<u128>) -> Option<(String, String)> {
    for _ in 0..MOST_ATTEMPTS {
        let phenomenon = PHENOMENA[random.below(PHENOMENA.len() as u64) as usize];
        let (good, bad) = phenomenon(random);
        let (good, bad) = (written(&good), written(&bad));
        let ids = [&good, &bad].map(|text| id(text));
        if good != bad && ids.iter().all(|id| !seen.contains(id)) {
            seen.extend(ids);
            return Some((good, bad));
        }
    }
    None
}

/// Half of a hash stands for a sentence in a set of many.
fn id(text: &str) -> u128 {
    let hash = blake3::hash(text.as_bytes());
    hash.as_bytes()[..16]
        .iter()
        .fold(0, |id, byte| id << 8 | u128::from(*byte))
}

/// Words as a sentence: a capital at its beginning, no space before its end.
fn written(words: &[&str]) -> String {
    let text = words.join(" ").replace(" .", ".").replace(" ?", "?");
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
        .unwrap_or_default()
}

fn sentence(parts: &[&[&'static str]]) -> Words {
    let mut words = parts.concat();
    words.push(".");
    words
}

/// The dog barks. / The dog bark.
fn subject_verb_agreement(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let subject = subject(random, number);
    let (verb, object) = predicate(random);
    let rest = adjunct(random);
    let with = |number| sentence(&[&subject, &[verb.present(number)], &object, &rest]);
    (with(number), with(number.other()))
}

/// The dog near the cats barks. / The dog near the cats bark.
fn agreement_across_a_phrase(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let subject = subject(random, number);
    let place = place(random);
    let (verb, object) = predicate(random);
    let with = |number| sentence(&[&subject, &place, &[verb.present(number)], &object]);
    (with(number), with(number.other()))
}

/// This dog … / These dog …
fn determiner_noun_agreement(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let pair = one(
        random,
        &[
            ("this", "these"),
            ("that", "those"),
            ("every", "many"),
            ("each", "several"),
        ],
    );
    let noun = person(random);
    let rest = adjunct(random);
    if random.below(2) == 0 {
        let verb = one(random, &INTRANSITIVE);
        let with = |determiner: Number| {
            sentence(&[&[determiner.of(pair), number.of(noun), verb.past], &rest])
        };
        return (with(number), with(number.other()));
    }
    let other = Number::draw(random);
    let subject = subject(random, other);
    let verb = one(random, &OF_PERSONS);
    let with = |determiner: Number| {
        sentence(&[
            &subject,
            &[verb.past, determiner.of(pair), number.of(noun)],
            &rest,
        ])
    };
    (with(number), with(number.other()))
}

/// An apple / a apple
fn article_before_vowel(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let subject = subject(random, number);
    let verb = one(random, &OF_THINGS);
    let (thing, _) = one(random, &THINGS);
    let mut noun = vec![thing];
    if random.below(2) == 0 {
        noun.insert(0, one(random, &ADJECTIVES));
    }
    let rest = adjunct(random);
    let right = article(noun[0]);
    let wrong = if right == "a" { "an" } else { "a" };
    let with = |article| sentence(&[&subject, &[verb.past, article], &noun, &rest]);
    (with(right), with(wrong))
}

/// The old man … / The man old …
fn adjective_before_noun(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let noun = number.of(person(random));
    let adjective = one(random, &ADJECTIVES);
    let determiner = one(random, &["the", "my"]);
    let (verb, object) = predicate(random);
    let rest = adjunct(random);
    let with = |first, second| sentence(&[&[determiner, first, second, verb.past], &object, &rest]);
    (with(adjective, noun), with(noun, adjective))
}

/// … the man / … man the
fn determiner_before_noun(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let subject = subject(random, number);
    let verb = one(random, &OF_PERSONS);
    let noun = number.of(person(random));
    let determiner = one(random, &["the", "my"]);
    let rest = adjunct(random);
    let with = |first, second| sentence(&[&subject, &[verb.past, first, second], &rest]);
    (with(determiner, noun), with(noun, determiner))
}

/// … in the garden / … the in garden
fn preposition_before_phrase(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let subject = subject(random, number);
    let (verb, object) = predicate(random);
    let right = place(random);
    let wrong = match random.below(2) {
        0 => [right[1], right[0], right[2]],
        _ => [right[1], right[2], right[0]],
    };
    let with = |place: &[&'static str]| sentence(&[&subject, &[verb.past], &object, place]);
    (with(&right), with(&wrong))
}

/// … will sleep / … will sleeps
fn form_after_auxiliary(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let subject = subject(random, number);
    let (verb, object) = predicate(random);
    let rest = adjunct(random);
    let (auxiliary, right, wrong) = match random.below(3) {
        0 => {
            let auxiliary = one(random, &["will", "can", "must"]);
            (
                auxiliary,
                verb.base,
                one(random, &[verb.third, verb.ing, verb.participle]),
            )
        }
        1 => {
            let auxiliary = number.of(("has", "have"));
            (
                auxiliary,
                verb.participle,
                one(random, &[verb.base, verb.ing, verb.third]),
            )
        }
        _ => {
            let auxiliary = number.of(("is", "are"));
            (auxiliary, verb.ing, one(random, &[verb.base, verb.third]))
        }
    };
    let with = |form| sentence(&[&subject, &[auxiliary, form], &object, &rest]);
    (with(right), with(wrong))
}

/// … does not sleep / … do not sleep, … does not sleeps
fn negation(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let subject = subject(random, number);
    let (verb, object) = predicate(random);
    let with = |number: Number, form| {
        sentence(&[&subject, &[number.of(("does", "do")), "not", form], &object])
    };
    let wrong = match random.below(2) {
        0 => with(number.other(), verb.base),
        _ => with(number, verb.third),
    };
    (with(number, verb.base), wrong)
}

/// Does the man sleep? / Does the man sleeps?
fn question(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let subject = subject(random, number);
    let (verb, object) = predicate(random);
    let auxiliary = number.of(("does", "do"));
    let with = |form| {
        [
            &[auxiliary],
            subject.as_slice(),
            &[form],
            object.as_slice(),
            &["?"],
        ]
        .concat()
    };
    (with(verb.base), with(verb.third))
}

/// … greeted the man today / … greeted today
fn argument_missing(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let subject = subject(random, number);
    let number = Number::draw(random);
    let (verb, object) = match random.below(2) {
        0 => {
            let noun = person(random);
            (one(random, &OF_PERSONS), phrase(random, noun, number))
        }
        _ => {
            let noun = one(random, &THINGS);
            (one(random, &OF_THINGS), phrase(random, noun, number))
        }
    };
    let rest = adverb(random);
    (
        sentence(&[&subject, &[verb.past], &object, &[rest]]),
        sentence(&[&subject, &[verb.past, rest]]),
    )
}

/// … slept today / … slept the man today
fn argument_too_many(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let subject = subject(random, number);
    let verb = one(random, &INTRANSITIVE);
    let number = Number::draw(random);
    let noun = match random.below(2) {
        0 => person(random),
        _ => one(random, &THINGS),
    };
    let object = phrase(random, noun, number);
    let rest = adverb(random);
    (
        sentence(&[&subject, &[verb.past, rest]]),
        sentence(&[&subject, &[verb.past], &object, &[rest]]),
    )
}

/// The king praised himself. / The king praised herself.
fn reflexive(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let male = random.below(2) == 0;
    let noun = match male {
        true => one(random, &MEN),
        false => one(random, &WOMEN),
    };
    let subject = phrase(random, noun, number);
    let (verb, rest) = (one(random, &OF_PERSONS), adjunct(random));
    let (own, opposite) = match male {
        true => ("himself", "herself"),
        false => ("herself", "himself"),
    };
    let (right, wrong) = match number {
        Number::Singular => (own, one(random, &[opposite, "themselves"])),
        Number::Plural => ("themselves", one(random, &["himself", "herself"])),
    };
    let with = |pronoun| sentence(&[&subject, &[verb.past, pronoun], &rest]);
    (with(right), with(wrong))
}

/// She greeted him. / Him greeted she.
fn case_of_pronouns(random: &mut Random) -> Pair {
    let pairs = [
        ("I", "me"),
        ("he", "him"),
        ("she", "her"),
        ("we", "us"),
        ("they", "them"),
    ];
    let first = random.below(5) as usize;
    let second = (first + 1 + random.below(4) as usize) % 5;
    let verb = one(random, &OF_PERSONS);
    let rest = adjunct(random);
    let right = sentence(&[&[pairs[first].0, verb.past, pairs[second].1], &rest]);
    let wrong = sentence(&[&[pairs[first].1, verb.past, pairs[second].0], &rest]);
    (right, wrong)
}

/// … much water, … many apples / … many water, … much apples
fn counted_and_measured(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let subject = subject(random, number);
    let verb = one(random, &OF_THINGS);
    let rest = adjunct(random);
    let pair = one(
        random,
        &[("much", "many"), ("less", "fewer"), ("little", "few")],
    );
    let number = Number::draw(random);
    let noun = match number {
        Number::Singular => one(random, &STUFF),
        Number::Plural => one(random, &THINGS).1,
    };
    let with = |number: Number| sentence(&[&subject, &[verb.past, number.of(pair), noun], &rest]);
    (with(number), with(number.other()))
}

/// … is older than the man / … is older as the man
fn comparison(random: &mut Random) -> Pair {
    let number = Number::draw(random);
    let subject = subject(random, number);
    let (adjective, comparative) = one(random, &COMPARED);
    let other = Number::draw(random);
    let noun = person(random);
    let object = phrase(random, noun, other);
    let verb = number.of(("is", "are"));
    let with = |words: &[&'static str]| sentence(&[&subject, &[verb], words, &object]);
    match random.below(2) {
        0 => (with(&[comparative, "than"]), with(&[comparative, "as"])),
        _ => (
            with(&["as", adjective, "as"]),
            with(&["as", adjective, "than"]),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Table;
    use crate::testing::{Workshop, told};

    fn written_rows(rows: &[(&str, u64)], seed: u64) -> BTreeMap<String, Vec<(String, i64)>> {
        let shop = Workshop::new();
        let out = shop.fresh();
        let rows = rows
            .iter()
            .map(|(split, rows)| ((*split).to_owned(), *rows))
            .collect();
        write(&rows, seed, &out, &shop.reporter()).expect("written");
        rows.into_keys()
            .map(|split| {
                let table =
                    Table::open(&out.join(format!("{split}.arrow")), &split).expect("opens");
                let labels = table.labels("label").expect("labels");
                assert_eq!(labels.names.expect("names"), CLASSES);
                let texts = table.text("text").expect("text");
                let rows = texts.iter().map(str::to_owned).zip(labels.values).collect();
                (split, rows)
            })
            .collect()
    }

    #[test]
    fn splits_are_balanced_and_share_no_sentence() {
        let splits = written_rows(&[("test", 501), ("train", 2000)], 0);
        let mut seen = BTreeSet::new();
        for (split, size) in [("test", 501), ("train", 2000)] {
            assert_eq!(splits[split].len(), size);
            let good = splits[split]
                .iter()
                .filter(|(_, label)| *label == 1)
                .count();
            assert!(good.abs_diff(size / 2) <= 1, "{good} of {size}");
            assert!(
                splits[split]
                    .iter()
                    .all(|(text, _)| seen.insert(text.clone()))
            );
        }
        assert_eq!(splits, written_rows(&[("test", 501), ("train", 2000)], 0));
        assert_ne!(splits, written_rows(&[("test", 501), ("train", 2000)], 1));
    }

    #[test]
    fn the_grammar_says_such_things() {
        let splits = written_rows(&[("train", 16)], 0);
        let lines: Vec<String> = splits["train"]
            .iter()
            .map(|(text, label)| format!("{label} {text}"))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        1 The kings have slept slowly.
        0 The kings have sleep slowly.
        0 The small waitress shiver in the station.
        1 The small waitress shivers in the station.
        0 An artist is as angry than this author.
        1 An artist is as angry as this author.
        1 Every boy greets an uncle.
        0 Every boy greet an uncle.
        1 The uncles have carried that bottle.
        0 The uncles have carries that bottle.
        1 We thanked her.
        0 Us thanked she.
        1 Do many queens find some apples?
        0 Do many queens finds some apples?
        1 Every artist fainted.
        0 Many artist fainted.
        "#);
    }

    #[test]
    fn no_single_word_tells() {
        let mut counts: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        for (text, label) in &written_rows(&[("train", 8000)], 7)["train"] {
            let words: BTreeSet<_> = text
                .trim_end_matches(['.', '?'])
                .split(' ')
                .map(str::to_lowercase)
                .collect();
            for word in words {
                counts.entry(word).or_default()[*label as usize] += 1.0;
            }
        }
        for (word, [bad, good]) in counts
            .iter()
            .filter(|(_, counts)| counts[0] + counts[1] >= 100.0)
        {
            let share = good / (bad + good);
            assert!((0.25..=0.75).contains(&share), "{word}: {share}");
        }
    }

    #[test]
    fn more_sentences_than_there_are_is_an_error() {
        let shop = Workshop::new();
        shop.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let rows = [("train".to_owned(), u64::MAX / 4)].into();
        let error = write(&rows, 0, &shop.fresh(), &shop.reporter()).expect_err("it has to stop");
        assert_eq!(told(&error), "interrupted");
    }
}
