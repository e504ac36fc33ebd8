//! The classes of a data set's rows, and the splits that have none.

use taper_engine::StageError;

use crate::artifact::Table;
use crate::artifact::tokens::LABEL;

/// The error of a split without rows.
pub fn empty_split(split: &str) -> StageError {
    StageError::invalid(format!("the split `{split}` has no rows"))
        .help("leave it out where the data is read: `splits: […]`")
        .at("data")
}

/// The column of classes: the one that is asked for, else `label` where there is one.
///
/// # Errors
/// Where the one that is asked for is in no split.
pub fn label_column(
    asked: Option<&str>,
    tables: &[(&str, &Table)],
) -> Result<Option<String>, StageError> {
    let has = |column: &str| {
        tables
            .iter()
            .any(|(_, table)| table.columns().any(|name| name == column))
    };
    match asked {
        None => Ok(has(LABEL).then(|| LABEL.to_owned())),
        Some(column) if has(column) => Ok(Some(column.to_owned())),
        Some(column) => match tables.first() {
            // The table's own words: they name the nearest column.
            Some((_, table)) => Err(table.labels(column).map(|_| ()).err().map_or_else(
                || StageError::failed(format!("there is no column `{column}`")),
                |error| error.at("label"),
            )),
            None => Ok(None),
        },
    }
}

/// The classes of all splits.
pub struct LabelsOfSplits {
    /// Of each split, where it has the column; -1 where a row's class is not known.
    pub values: Vec<Option<Vec<i64>>>,
    /// The names of the classes.
    pub names: Vec<String>,
}

/// Reads the classes of each split. Where the data has no names for them, they are called by their numbers.
///
/// # Errors
/// Where the column is not of classes, has nulls or classes outside those that have names, and where two
/// splits call their classes otherwise.
pub fn read_labels(
    column: Option<&str>,
    tables: &[(&str, &Table)],
) -> Result<Option<LabelsOfSplits>, StageError> {
    let Some(column) = column else {
        return Ok(None);
    };
    let mut values = Vec::new();
    let mut names: Option<Vec<String>> = None;
    for (split, table) in tables {
        if !table.columns().any(|name| name == column) {
            values.push(None);
            continue;
        }
        let labels = table.labels(column).map_err(|error| error.at("label"))?;
        if let Some(found) = labels.names {
            match &names {
                Some(names) if *names != found => {
                    return Err(StageError::invalid(format!(
                        "the classes of `{column}` in `{split}` are called {}, in a split before it {}",
                        found.join(", "),
                        names.join(", ")
                    ))
                    .help("read all splits with the same classes")
                    .at("data"));
                }
                _ => names = Some(found),
            }
        }
        values.push(Some(labels.values));
    }
    let all = || values.iter().flatten().flatten();
    let names = match names {
        Some(names) => names,
        None => {
            let greatest = all().copied().max().unwrap_or(-1);
            if greatest > 100_000 {
                return Err(StageError::invalid(format!(
                    "`{column}` has the class {greatest}; classes are counted from 0"
                ))
                .help("give names to the classes where the data is read, or another column")
                .at("label"));
            }
            (0..=greatest).map(|class| class.to_string()).collect()
        }
    };
    for ((split, _), values) in tables.iter().zip(&values) {
        let outside = |label: &i64| *label < -1 || *label >= names.len() as i64;
        if let Some(row) = values.iter().flatten().position(outside) {
            let label = values.as_ref().map_or(0, |values| values[row]);
            return Err(StageError::invalid(format!(
                "row {row} (counted from 0) of `{split}` has the {column} {label}, outside the {} classes {}",
                names.len(),
                names.join(", ")
            ))
            .help("classes are counted from 0; -1 means that the class is not known")
            .at("label"));
        }
    }
    Ok(Some(LabelsOfSplits { values, names }))
}
