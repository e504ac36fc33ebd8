//! Which split a file belongs to, by its name, as the Hugging Face hub and its `datasets` library read names.

use std::collections::BTreeMap;

use taper_engine::StageError;

use crate::artifact::table::list;

/// The words that stand for the usual splits, in the order in which they are looked for.
const KEYWORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// What is wrong with the name of a split, if anything.
pub fn split_name_fault(name: &str) -> Option<StageError> {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let bad = name.is_empty() || name.starts_with('.') || !name.chars().all(fine);
    bad.then(|| {
        StageError::invalid(format!("`{name}` cannot name a split"))
            .help("use letters, digits, `_`, `-` and `.`; not a `.` at its beginning")
    })
}

/// The split that a file's path names: `data/train-00000-of-00003.parquet`, `test.csv`, `dev/a.jsonl`.
pub fn split_of(path: &str) -> Option<String> {
    let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.split_once('.').map_or(file, |(stem, _)| stem);
    let folder = || {
        folders
            .rsplit('/')
            .find_map(|folder| words_of(folder).find_map(keyword))
    };
    if let Some(split) = shard_of(file) {
        let known = keyword(&split).or_else(folder).map(str::to_owned);
        return Some(known.unwrap_or(split));
    }
    let words = words_of(stem).find_map(keyword);
    words.or_else(folder).map(str::to_owned)
}

/// `SPLIT` of `SPLIT-00000-of-00003.parquet`, with anything behind the numbers.
fn shard_of(file: &str) -> Option<String> {
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, count) = file.rsplit_once("-of-")?;
    let (split, number) = rest.rsplit_once('-')?;
    let count = count.get(..5)?;
    (digits(number) && digits(count) && split_name_fault(split).is_none()).then(|| split.to_owned())
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphabetic())
}

fn keyword(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    KEYWORDS
        .iter()
        .find(|(_, words)| words.contains(&word.as_str()))
        .map(|(split, _)| *split)
}

/// The files of each split, in the order of their names. Where no name says a split, all are `train`.
///
/// # Errors
/// Where some names say a split and some do not.
pub fn group_by_split<'a>(
    paths: impl IntoIterator<Item = &'a str>,
) -> Result<BTreeMap<String, Vec<&'a str>>, StageError> {
    let mut paths: Vec<&str> = paths.into_iter().collect();
    paths.sort_unstable();
    let mut splits: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut unnamed = Vec::new();
    for path in paths {
        match split_of(path) {
            Some(split) => splits.entry(split).or_default().push(path),
            None => unnamed.push(path),
        }
    }
    if splits.is_empty() && !unnamed.is_empty() {
        splits.insert("train".to_owned(), unnamed);
        return Ok(splits);
    }
    if !unnamed.is_empty() {
        let (more, shown) = (
            unnamed.len().saturating_sub(3),
            &unnamed[..unnamed.len().min(3)],
        );
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        return Err(StageError::invalid(format!(
            "the names of {}{more} do not say which split they belong to",
            list(shown.iter().copied())
        ))
        .help("rename them (`train-1.csv`), or name the files of each split: `path: { train: …, test: … }`"));
    }
    Ok(splits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_splits() {
        for (path, split) in [
            ("train.csv", Some("train")),
            ("data/train-00000-of-00003.parquet", Some("train")),
            ("data/test-00000-of-00001-9f2c.parquet", Some("test")),
            (
                "plain_text/unsupervised-00000-of-00001.parquet",
                Some("unsupervised"),
            ),
            ("my_valid_file.jsonl", Some("validation")),
            ("test/data-00000-of-00001.arrow", Some("test")),
            ("dev/a.tsv", Some("validation")),
            ("train/part-1.csv", Some("train")),
            ("Eval.json", Some("test")),
            ("training-set-2.csv", Some("train")),
            ("reviews.csv", None),
            ("trainer.csv", None),
            ("contest.csv", None),
        ] {
            assert_eq!(split_of(path).as_deref(), split, "{path}");
        }
    }

    #[test]
    fn files_are_grouped_in_the_order_of_their_names() {
        let splits = group_by_split(["b-train.csv", "a-train.csv", "test.csv"]).expect("all named");
        assert_eq!(splits["train"], ["a-train.csv", "b-train.csv"]);
        assert_eq!(
            group_by_split(["b.csv", "a.csv"]).expect("none named")["train"],
            ["a.csv", "b.csv"]
        );
        let error = group_by_split(["train.csv", "other.csv"]).expect_err("one is not");
        insta::assert_snapshot!(error, @"the names of `other.csv` do not say which split they belong to");
    }
}
