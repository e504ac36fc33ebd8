//! `shuffle`: a seeded permutation of each split.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taper_cache::ArtifactType;
use taper_engine::{Context, Input, Kind, Makes, NoSettings, Stage, StageError, Unit};

use crate::artifact::dataset::EXTENSION;
use crate::artifact::{Dataset, Table, TableWriter};
use crate::data::random::Random;

/// The kind; see [`Params`].
pub struct Shuffle;

/// Puts the rows of each split in a random order, given by the stage's seed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The data set.
    pub data: Input<Dataset>,
    /// The splits to shuffle; the others stay as they are. Without it, all are shuffled.
    #[serde(default)]
    pub splits: Vec<String>,
}

impl Kind for Shuffle {
    type Params = Params;
    type Settings = NoSettings;
    type Resolved = ();

    const NAME: &'static str = "shuffle";
    const VERSION: u32 = 1;
    const SEEDED: bool = true;
    const EXAMPLE: &'static str = "shuffle: { data: corpus }";

    fn makes(&self, _: &Params) -> Makes {
        Makes::One(ArtifactType::Dataset)
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let data = context.open(&stage.params.data)?;
        for split in &stage.params.splits {
            data.split(split).map_err(|error| error.at("splits"))?;
        }
        for (split, table) in data.splits() {
            let chosen = &stage.params.splits;
            let order = match chosen.is_empty() || chosen.iter().any(|name| name == split) {
                true => {
                    Random::new(context.seed, &format!("shuffle/{split}")).permutation(table.rows())
                }
                false => (0..table.rows()).collect(),
            };
            write_rows(context, split, table, &order)?;
        }
        Ok(())
    }
}

/// Writes the rows of `table` with these numbers, in this order, as the split `split` of the artifact.
pub(crate) fn write_rows(
    context: &Context,
    split: &str,
    table: &Table,
    rows: &[usize],
) -> Result<(), StageError> {
    let progress = context.reporter.progress(
        format!("writing {split}"),
        Some(rows.len() as u64),
        Unit::Rows,
    );
    let path = context.create(format!("{split}{EXTENSION}"))?;
    let mut writer = TableWriter::create(&path, table.schema())?;
    for batch in table.take(rows) {
        context.reporter.check()?;
        let batch = batch?;
        writer.write(&batch)?;
        progress.add(batch.num_rows() as u64);
    }
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Workshop, numbers};

    #[test]
    fn each_split_is_permuted_by_the_seed() {
        let shop = Workshop::new();
        let data = shop.dataset(&[("test", 300), ("train", 3000)]);
        let shuffled = |seed| {
            let params = format!(r#"{{"data": "{data}"}}"#);
            shop.run_seeded::<Shuffle>(Shuffle, &params, seed)
        };
        let (first, again, other) = (shuffled(1), shuffled(1), shuffled(2));
        assert_eq!(first, again);
        assert_ne!(first, other);
        let before = numbers(&shop.open(&data), "train");
        let mut after = numbers(&shop.open(&first), "train");
        assert_ne!(before, after);
        after.sort_unstable();
        assert_eq!(before, after);
    }

    #[test]
    fn only_the_named_splits_are_shuffled() {
        let shop = Workshop::new();
        let data = shop.dataset(&[("test", 300), ("train", 300)]);
        let params = format!(r#"{{"data": "{data}", "splits": ["train"]}}"#);
        let after = shop.open(&shop.run(Shuffle, &params));
        assert_eq!(numbers(&after, "test"), (0..300).collect::<Vec<_>>());
        assert_ne!(numbers(&after, "train"), (0..300).collect::<Vec<_>>());
    }

    #[test]
    fn a_split_that_is_not_there_is_an_error() {
        let shop = Workshop::new();
        let data = shop.dataset(&[("train", 3)]);
        let params = format!(r#"{{"data": "{data}", "splits": ["trian"]}}"#);
        insta::assert_snapshot!(shop.fail(Shuffle, &params), @r#"
        the data has no split `trian`
          at splits
          help: did you mean `train`?
        "#);
    }
}
