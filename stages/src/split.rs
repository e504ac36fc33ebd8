//! `split`: cuts one split into several, seeded.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taper_cache::ArtifactType;
use taper_engine::{Context, Input, Kind, Makes, NoSettings, Stage, StageError};

use crate::artifact::Dataset;
use crate::data::amount::Amount;
use crate::data::names::split_name_fault;
use crate::data::random::Random;
use crate::data::strata::{apportion, rows_by_class, rows_of_fraction};
use crate::shuffle::write_rows;

/// The kind; see [`Params`].
pub struct Split;

/// Cuts one split into several at random, given by the stage's seed. Each part keeps the order of its rows;
/// the other splits stay as they are.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The data set.
    pub data: Input<Dataset>,
    /// The split to cut. It is gone afterwards, unless a part has its name.
    pub from: String,
    /// The parts: fractions (`{ train: 0.9, validation: 0.1 }`) or numbers of rows. What they leave is left
    /// out.
    pub into: BTreeMap<String, Amount>,
    /// A column of classes (whole numbers or text): each class keeps its share in every part, exactly but
    /// for rounding.
    #[serde(default)]
    pub stratify: Option<String>,
}

impl Params {
    /// The number of rows of each part, in the order of their names.
    fn sizes(&self, rows: usize) -> Result<Vec<usize>, StageError> {
        let fractions: Option<Vec<f64>> = self
            .into
            .values()
            .map(|amount| match amount {
                Amount::Fraction(fraction) => Some(*fraction),
                Amount::Rows(_) => None,
            })
            .collect();
        let sizes = match fractions {
            // The ends are rounded, not the sizes: so parts that make up the whole leave no row out.
            Some(fractions) => {
                let ends = fractions.iter().scan(0.0, |end, fraction| {
                    *end += fraction;
                    Some(rows_of_fraction(rows, *end))
                });
                let mut before = 0;
                ends.map(|end| {
                    let size = end - before;
                    before = end;
                    size
                })
                .collect()
            }
            None => self
                .into
                .values()
                .map(|amount| amount.of(rows, &self.from))
                .collect::<Result<Vec<_>, _>>()?,
        };
        let wanted: usize = sizes.iter().sum();
        if wanted > rows {
            return Err(StageError::invalid(format!(
                "the parts have {wanted} rows together, but split `{}` has only {rows}",
                self.from
            ))
            .help("ask for less, or give fractions"));
        }
        Ok(sizes)
    }
}

impl Kind for Split {
    type Params = Params;
    type Settings = NoSettings;
    type Resolved = ();

    const NAME: &'static str = "split";
    const VERSION: u32 = 1;
    const SEEDED: bool = true;
    const EXAMPLE: &'static str = "split: { data: corpus, from: train, into: { train: 0.9, validation: 0.1 }, stratify: label }";

    fn makes(&self, _: &Params) -> Makes {
        Makes::One(ArtifactType::Dataset)
    }

    fn check(&self, params: &Params) -> Vec<StageError> {
        let mut errors = Vec::new();
        if params.into.is_empty() {
            errors.push(
                StageError::invalid("there is no part to cut into")
                    .at("into")
                    .help("name at least one: `into: { train: 0.9, validation: 0.1 }`"),
            );
        }
        for (part, amount) in &params.into {
            let faults = [split_name_fault(part), amount.fault()];
            errors.extend(
                faults
                    .into_iter()
                    .flatten()
                    .map(|error| error.at(format!("into.{part}"))),
            );
        }
        let fractions: Vec<f64> = params
            .into
            .values()
            .filter_map(|amount| match amount {
                Amount::Fraction(fraction) => Some(*fraction),
                Amount::Rows(_) => None,
            })
            .collect();
        let sum: f64 = fractions.iter().sum();
        if !fractions.is_empty() && fractions.len() < params.into.len() {
            errors.push(
                StageError::invalid("some parts are fractions and some are numbers of rows")
                    .at("into")
                    .help("give all as fractions (0.9, with a point) or all as numbers of rows"),
            );
        } else if sum > 1.0 + 1e-9 {
            errors.push(
                StageError::invalid(format!(
                    "the fractions add up to {sum}, which is more than 1"
                ))
                .at("into")
                .help("make them add up to 1"),
            );
        }
        errors
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let params = &stage.params;
        let data = context.open(&params.data)?;
        let table = data.split(&params.from).map_err(|error| error.at("from"))?;
        let sizes = params
            .sizes(table.rows())
            .map_err(|error| error.at("into"))?;
        for (split, table) in data.splits().filter(|(split, _)| *split != params.from) {
            if params.into.contains_key(split) {
                return Err(
                    StageError::invalid(format!("the data has a split `{split}` already"))
                        .at(format!("into.{split}"))
                        .help("give the part another name"),
                );
            }
            let rows: Vec<usize> = (0..table.rows()).collect();
            write_rows(context, split, table, &rows)?;
        }

        let classes = rows_by_class(table, params.stratify.as_deref())?;
        let mut random = Random::new(context.seed, "split");
        let mut left: Vec<Vec<usize>> = classes
            .iter()
            .map(|class| {
                let order = random.permutation(class.len());
                order.into_iter().map(|place| class[place]).collect()
            })
            .collect();
        for (part, size) in params.into.keys().zip(sizes) {
            if size == 0 {
                return Err(StageError::invalid(format!(
                    "part `{part}` would be empty: split `{}` has only {} rows",
                    params.from,
                    table.rows()
                ))
                .at(format!("into.{part}"))
                .help("give it a larger share"));
            }
            // Shares of what is left: in proportion still, and never more than there is.
            let available: Vec<usize> = left.iter().map(Vec::len).collect();
            let mut rows: Vec<usize> = left
                .iter_mut()
                .zip(apportion(&available, size))
                .flat_map(|(class, share)| class.split_off(class.len() - share))
                .collect();
            rows.sort_unstable();
            write_rows(context, part, table, &rows)?;
        }
        let left_out: usize = left.iter().map(Vec::len).sum();
        if left_out > 0 {
            context.reporter.note(format!(
                "{left_out} rows of `{}` are in no part",
                params.from
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Workshop, numbers};

    #[test]
    fn parts_share_no_row_and_leave_none_out() {
        let shop = Workshop::new();
        let data = shop.dataset(&[("test", 50), ("train", 1001)]);
        let params = format!(
            r#"{{"data": "{data}", "from": "train", "into": {{"train": 0.9, "validation": 0.1}}, "stratify": "label"}}"#
        );
        let cut = shop.open(&shop.run(Split, &params));
        let (train, validation) = (numbers(&cut, "train"), numbers(&cut, "validation"));
        assert_eq!(validation.len(), 100);
        let ones = cut
            .split("validation")
            .and_then(|table| table.labels("label"));
        assert_eq!(ones.expect("labels").values.iter().sum::<i64>(), 25);
        let mut all = [train, validation].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1001));
        assert_eq!(numbers(&cut, "test").len(), 50);
    }

    #[test]
    fn numbers_of_rows_are_exact() {
        let shop = Workshop::new();
        let data = shop.dataset(&[("train", 100)]);
        let params =
            format!(r#"{{"data": "{data}", "from": "train", "into": {{"a": 10, "b": 20}}}}"#);
        let cut = shop.open(&shop.run(Split, &params));
        let sizes: Vec<_> = cut
            .splits()
            .map(|(split, table)| (split, table.rows()))
            .collect();
        assert_eq!(sizes, [("a", 10), ("b", 20)]);
    }

    #[test]
    fn mistakes_are_told() {
        let shop = Workshop::new();
        let data = shop.dataset(&[("test", 50), ("train", 100)]);
        let told = |rest: &str| {
            shop.fail(
                Split,
                &format!(r#"{{"data": "{data}", "from": "train", "into": {rest}}}"#),
            )
        };
        insta::assert_snapshot!(told(r#"{"a": 90, "b": 20}"#), @r#"
        the parts have 110 rows together, but split `train` has only 100
          at into
          help: ask for less, or give fractions
        "#);
        insta::assert_snapshot!(told(r#"{"a": 0.9, "b": 0.2}"#), @r#"
        the fractions add up to 1.1, which is more than 1
          at into
          help: make them add up to 1
        "#);
        insta::assert_snapshot!(told(r#"{"a": 0.9, "b": 2}"#), @r#"
        some parts are fractions and some are numbers of rows
          at into
          help: give all as fractions (0.9, with a point) or all as numbers of rows
        "#);
        insta::assert_snapshot!(told(r#"{"test": 0.9}"#), @r#"
        the data has a split `test` already
          at into.test
          help: give the part another name
        "#);
        insta::assert_snapshot!(told(r#"{"a/b": 0.9}"#), @r#"
        `a/b` cannot name a split
          at into.a/b
          help: use letters, digits, `_`, `-` and `.`; not a `.` at its beginning
        "#);
        insta::assert_snapshot!(told(r#"{"a": 0.001}"#), @r#"
        part `a` would be empty: split `train` has only 100 rows
          at into.a
          help: give it a larger share
        "#);
    }
}
