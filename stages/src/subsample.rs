//! `subsample`: a seeded sample of the rows of each split, without replacement.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taper_cache::ArtifactType;
use taper_engine::{Context, Input, Kind, Makes, NoSettings, Stage, StageError};

use crate::artifact::Dataset;
use crate::data::amount::{Amount, Fraction, PerSplit, Rows};
use crate::data::random::Random;
use crate::data::strata::{rows_by_class, sample};
use crate::shuffle::write_rows;

/// The kind; see [`Params`].
pub struct Subsample;

/// Draws rows of each split without replacement, given by the stage's seed. The rows that are drawn stay in
/// their order; splits for which no amount is given stay whole.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The data set.
    pub data: Input<Dataset>,
    /// How many rows to draw: one number for every split, or one for each split that is named. Either this
    /// or `fraction`.
    #[serde(default)]
    pub rows: Option<PerSplit<Rows>>,
    /// Which part of the rows to draw, above 0 and at most 1, for every split or for each that is named.
    #[serde(default)]
    pub fraction: Option<PerSplit<Fraction>>,
    /// A column of classes (whole numbers or text): each class keeps its share of the rows, exactly but for
    /// rounding (largest remainders).
    #[serde(default)]
    pub stratify: Option<String>,
}

impl Params {
    fn amount(&self, split: &str) -> Option<Amount> {
        let rows = self.rows.as_ref().and_then(|rows| rows.get(split));
        let fraction = self
            .fraction
            .as_ref()
            .and_then(|fraction| fraction.get(split));
        rows.map(|rows| Amount::Rows(rows.0))
            .or(fraction.map(|fraction| Amount::Fraction(fraction.0)))
    }

    /// The name of the parameter that is given.
    fn given(&self) -> &'static str {
        match self.rows {
            Some(_) => "rows",
            None => "fraction",
        }
    }

    fn amounts(&self) -> impl Iterator<Item = (Option<&str>, Amount)> {
        let rows = self.rows.iter().flat_map(PerSplit::values);
        let fractions = self.fraction.iter().flat_map(PerSplit::values);
        rows.map(|(split, rows)| (split, Amount::Rows(rows.0)))
            .chain(fractions.map(|(split, fraction)| (split, Amount::Fraction(fraction.0))))
    }
}

impl Kind for Subsample {
    type Params = Params;
    type Settings = NoSettings;
    type Resolved = ();

    const NAME: &'static str = "subsample";
    const VERSION: u32 = 1;
    const SEEDED: bool = true;
    const EXAMPLE: &'static str =
        "subsample: { data: corpus, rows: { train: 1000, test: 1000 }, stratify: label }";

    fn makes(&self, _: &Params) -> Makes {
        Makes::One(ArtifactType::Dataset)
    }

    fn check(&self, params: &Params) -> Vec<StageError> {
        let mut errors = Vec::new();
        if params.rows.is_some() == params.fraction.is_some() {
            let given = match params.rows {
                Some(_) => "both `rows` and `fraction` are given",
                None => "neither `rows` nor `fraction` is given",
            };
            errors.push(
                StageError::invalid(given).help("say how much to draw with exactly one of them"),
            );
        }
        errors.extend(params.amounts().filter_map(|(split, amount)| {
            let given = match amount {
                Amount::Rows(_) => "rows",
                Amount::Fraction(_) => "fraction",
            };
            let place = split.map_or_else(|| given.to_owned(), |split| format!("{given}.{split}"));
            amount.fault().map(|error| error.at(place))
        }));
        errors
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let params = &stage.params;
        let data = context.open(&params.data)?;
        for split in params.amounts().filter_map(|(split, _)| split) {
            data.split(split)
                .map_err(|error| error.at(format!("{}.{split}", params.given())))?;
        }
        for (split, table) in data.splits() {
            let rows = match params.amount(split) {
                None => (0..table.rows()).collect(),
                Some(amount) => {
                    let amount = amount
                        .of(table.rows(), split)
                        .map_err(|error| error.at(params.given()))?;
                    let classes = rows_by_class(table, params.stratify.as_deref())?;
                    let mut random = Random::new(context.seed, &format!("subsample/{split}"));
                    sample(&classes, amount, &mut random)
                }
            };
            if rows.is_empty() {
                return Err(StageError::invalid(format!(
                    "split `{split}` would be empty: the `{}` of its {} rows is none",
                    params.given(),
                    table.rows()
                ))
                .at(params.given())
                .help("ask for more, or leave the split out before"));
            }
            write_rows(context, split, table, &rows)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Workshop, numbers};

    #[test]
    fn strata_keep_their_shares_and_rows_their_order() {
        let shop = Workshop::new();
        let data = shop.dataset(&[("test", 50), ("train", 1000)]);
        let params =
            format!(r#"{{"data": "{data}", "rows": {{"train": 100}}, "stratify": "label"}}"#);
        let drawn = shop.open(&shop.run(Subsample, &params));
        let rows = numbers(&drawn, "train");
        assert_eq!(rows.len(), 100);
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]));
        let labels = drawn.split("train").and_then(|table| table.labels("label"));
        let ones = labels.expect("labels").values.iter().sum::<i64>();
        assert_eq!(ones, 25, "a quarter of the rows has label 1");
        assert_eq!(numbers(&drawn, "test").len(), 50, "not named: whole");
    }

    #[test]
    fn a_fraction_is_of_each_split() {
        let shop = Workshop::new();
        let data = shop.dataset(&[("test", 50), ("train", 1000)]);
        let drawn = shop.open(&shop.run(
            Subsample,
            &format!(r#"{{"data": "{data}", "fraction": 0.1}}"#),
        ));
        assert_eq!(numbers(&drawn, "train").len(), 100);
        assert_eq!(numbers(&drawn, "test").len(), 5);
    }

    #[test]
    fn mistakes_are_told() {
        let shop = Workshop::new();
        let data = shop.dataset(&[("test", 50), ("train", 1000)]);
        let told = |rest: &str| shop.fail(Subsample, &format!(r#"{{"data": "{data}"{rest}}}"#));
        insta::assert_snapshot!(told(r#", "rows": 60"#), @r#"
        60 rows of split `test` are asked for, but it has only 50
          at rows
          help: ask for at most 50, or give a `fraction`
        "#);
        insta::assert_snapshot!(told(r#", "rows": {"tset": 1}"#), @r#"
        the data has no split `tset`
          at rows.tset
          help: did you mean `test`?
        "#);
        insta::assert_snapshot!(told(r#", "fraction": 0.001"#), @r#"
        split `test` would be empty: the `fraction` of its 50 rows is none
          at fraction
          help: ask for more, or leave the split out before
        "#);
        insta::assert_snapshot!(told(r#", "rows": 1, "stratify": "labell""#), @r#"
        `test.arrow` has no column `labell`
          at stratify
          help: did you mean `label`?
        "#);
        insta::assert_snapshot!(told(""), @r#"
        neither `rows` nor `fraction` is given
          help: say how much to draw with exactly one of them
        "#);
        insta::assert_snapshot!(told(r#", "rows": 1, "fraction": {"train": 2}"#), @r#"
        both `rows` and `fraction` are given
          help: say how much to draw with exactly one of them
        "#);
    }
}
