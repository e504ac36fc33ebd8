//! Which files of a repository are the data: what its README says, else what its folders are called.

use std::collections::BTreeMap;

use glob::{MatchOptions, Pattern};
use serde_json::Value;
use taper_engine::StageError;

use super::format::Format;
use super::names::{group_by_split, split_name_fault};
use crate::artifact::table::{list, nearest};

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'w> {
    /// One of several data sets in the repository.
    pub config: Option<&'w str>,
    /// The splits; all where there is none.
    pub splits: &'w [String],
    /// Patterns of files, in the place of what the repository says.
    pub files: &'w [String],
}

/// Paths by split.
pub type Chosen = BTreeMap<String, Vec<String>>;

/// Chooses among `paths`; `readme` is the repository's README.
///
/// # Errors
/// Where there is no such config or split, where a config has to be chosen, and where there is no data.
pub fn choose(
    paths: &[&str],
    readme: Option<&str>,
    wanted: Wanted<'_>,
) -> Result<Chosen, StageError> {
    let data: Vec<&str> = paths.iter().copied().filter(|path| is_data(path)).collect();
    let configs = readme.map(configs_of).unwrap_or_default();
    let found = if !wanted.files.is_empty() {
        let mut matching = Vec::new();
        for pattern in wanted.files {
            let here = matches(&data, pattern)?;
            if here.is_empty() {
                return Err(
                    StageError::invalid(format!("no data file matches `{pattern}`"))
                        .at("files")
                        .help(some_of("the repository has", &data)),
                );
            }
            matching.extend(here);
        }
        matching.sort_unstable();
        matching.dedup();
        owned(group_by_split(matching)?)
    } else if !configs.is_empty() {
        let config = pick(&configs, wanted.config)?;
        let mut splits = Chosen::new();
        for (split, patterns) in &config.files {
            let mut files = Vec::new();
            for pattern in patterns {
                let folder = config
                    .folder
                    .as_deref()
                    .map(|folder| folder.trim_matches('/'));
                let pattern = match folder.filter(|folder| !folder.is_empty()) {
                    Some(folder) => format!("{folder}/{pattern}"),
                    None => pattern.clone(),
                };
                files.extend(matches(&data, &pattern)?.into_iter().map(str::to_owned));
            }
            files.sort_unstable();
            files.dedup();
            if !files.is_empty() && split_name_fault(split).is_none() {
                splits.insert(split.clone(), files);
            }
        }
        match splits.is_empty() && config.files.is_empty() {
            true => by_folder(
                &data,
                config.folder.as_deref().or(Some(config.name.as_str())),
            )?,
            false => splits,
        }
    } else {
        by_folder(&data, wanted.config)?
    };
    if found.is_empty() {
        return Err(
            StageError::invalid("the repository has no data files of a known format").help(
                format!(
                    "known are {}; {}",
                    Format::EXTENSIONS,
                    some_of("it has", paths)
                ),
            ),
        );
    }
    only(found, wanted.splits)
}

fn owned(splits: BTreeMap<String, Vec<&str>>) -> Chosen {
    splits
        .into_iter()
        .map(|(split, paths)| (split, paths.into_iter().map(str::to_owned).collect()))
        .collect()
}

fn only(mut found: Chosen, splits: &[String]) -> Result<Chosen, StageError> {
    for split in splits {
        if !found.contains_key(split) {
            let names = || found.keys().map(String::as_str);
            let error =
                StageError::invalid(format!("the data has no split `{split}`")).at("splits");
            return Err(match nearest(split, names()) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error.help(format!("it has {}", list(names()))),
            });
        }
    }
    if !splits.is_empty() {
        found.retain(|split, _| splits.contains(split));
    }
    Ok(found)
}

/// Whether a file holds data, by its name. `json` is left out where it is none: the settings of a model, statistics of a data set.
pub fn is_data(path: &str) -> bool {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let settings = [
        "dataset_infos.json",
        "dataset_dict.json",
        "dataset_info.json",
        "state.json",
        "config.json",
    ];
    Format::of(name).is_some()
        && !settings.contains(&name)
        && !path.split('/').any(|part| part.starts_with('.'))
}

/// The data of a folder: all below `CONFIG/`, or below `data/`, or everything.
fn by_folder(data: &[&str], config: Option<&str>) -> Result<Chosen, StageError> {
    let below = |folder: &str| -> Vec<&str> {
        let prefix = format!("{folder}/");
        data.iter()
            .copied()
            .filter(|path| path.starts_with(&prefix))
            .collect()
    };
    let files = match config {
        None => match below("data") {
            files if files.is_empty() => data.to_vec(),
            files => files,
        },
        Some(config) => match (below(config), below(&format!("data/{config}"))) {
            (files, _) | (_, files) if !files.is_empty() => files,
            _ if config == "default" => return by_folder(data, None),
            _ => {
                let mut folders: Vec<&str> = data
                    .iter()
                    .filter_map(|path| path.split_once('/').map(|(folder, _)| folder))
                    .collect();
                folders.dedup();
                let error = StageError::invalid(format!("the repository has no config `{config}`"))
                    .at("config");
                return Err(match nearest(config, folders.iter().copied()) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error.help(some_of("its folders are", &folders)),
                });
            }
        },
    };
    group_by_split(files).map(owned)
}

/// The paths that a pattern means: a path, a glob, or a folder.
fn matches<'p>(paths: &[&'p str], pattern: &str) -> Result<Vec<&'p str>, StageError> {
    let glob = Pattern::new(pattern).map_err(|error| {
        StageError::invalid(format!("`{pattern}` is no pattern of files: {}", error.msg))
    })?;
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let folder = format!("{}/", pattern.trim_end_matches('/'));
    Ok(paths
        .iter()
        .copied()
        .filter(|path| glob.matches_with(path, options) || path.starts_with(&folder))
        .collect())
}

/// The paths that one of several patterns means.
///
/// # Errors
/// Where one is no pattern, or means nothing.
pub fn matching(paths: &[&str], patterns: &[String]) -> Result<Vec<String>, StageError> {
    let mut chosen = Vec::new();
    for pattern in patterns {
        let here = matches(paths, pattern).map_err(|error| error.at("files"))?;
        if here.is_empty() {
            return Err(StageError::invalid(format!("no file matches `{pattern}`"))
                .at("files")
                .help(some_of("the repository has", paths)));
        }
        chosen.extend(here.into_iter().map(str::to_owned));
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

fn some_of(words: &str, paths: &[&str]) -> String {
    let shown = list(paths.iter().copied().take(8));
    match paths.len() {
        0 => format!("{words} none"),
        1..=8 => format!("{words} {shown}"),
        more => format!("{words} {shown} and {} more", more - 8),
    }
}

/// A data set among several, as a README describes it.
#[derive(Debug)]
struct Config {
    name: String,
    default: bool,
    folder: Option<String>,
    files: Vec<(String, Vec<String>)>,
}

fn pick<'c>(configs: &'c [Config], wanted: Option<&str>) -> Result<&'c Config, StageError> {
    let names = || configs.iter().map(|config| config.name.as_str());
    match wanted {
        Some(wanted) => configs
            .iter()
            .find(|config| config.name == wanted)
            .ok_or_else(|| {
                let error = StageError::invalid(format!("the repository has no config `{wanted}`"))
                    .at("config");
                match nearest(wanted, names()) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error.help(format!("it has {}", list(names()))),
                }
            }),
        None => match configs {
            [only] => Ok(only),
            _ => configs
                .iter()
                .find(|config| config.default || config.name == "default")
                .ok_or_else(|| {
                    StageError::invalid(
                        "the repository has several data sets, and none is the default",
                    )
                    .at("config")
                    .help(format!("say `config:`, one of {}", list(names())))
                }),
        },
    }
}

/// The `configs:` of the YAML between the first two lines `---` of a README; none where there is no such
/// thing.
fn configs_of(readme: &str) -> Vec<Config> {
    let text = readme.strip_prefix('\u{feff}').unwrap_or(readme);
    let front = text
        .strip_prefix("---")
        .and_then(|rest| rest.split_once("\n---"))
        .map(|(front, _)| front);
    let described: Option<Value> = front.and_then(|front| serde_yaml::from_str(front).ok());
    let configs = described
        .as_ref()
        .and_then(|value| value.get("configs")?.as_array());
    configs
        .into_iter()
        .flatten()
        .filter_map(|config| {
            Some(Config {
                name: config
                    .get("config_name")
                    .and_then(Value::as_str)
                    .unwrap_or("default")
                    .to_owned(),
                default: config
                    .get("default")
                    .and_then(Value::as_bool)
                    .unwrap_or_default(),
                folder: config
                    .get("data_dir")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
                files: match config.get("data_files") {
                    None => Vec::new(),
                    Some(files) => files_of(files)?,
                },
            })
        })
        .collect()
}

/// `data_files`: a pattern, a list of patterns, a list of splits with theirs, or a map of them.
fn files_of(files: &Value) -> Option<Vec<(String, Vec<String>)>> {
    let patterns = |value: &Value| -> Option<Vec<String>> {
        match value {
            Value::String(pattern) => Some(vec![pattern.clone()]),
            Value::Array(items) => items
                .iter()
                .map(|item| Some(item.as_str()?.to_owned()))
                .collect(),
            _ => None,
        }
    };
    match files {
        Value::Object(splits) => splits
            .iter()
            .map(|(split, value)| Some((split.clone(), patterns(value)?)))
            .collect(),
        Value::Array(items) if items.iter().all(Value::is_object) => items
            .iter()
            .map(|item| {
                let split = item.get("split").and_then(Value::as_str).unwrap_or("train");
                Some((split.to_owned(), patterns(item.get("path")?)?))
            })
            .collect(),
        other => Some(vec![("train".to_owned(), patterns(other)?)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::told;

    const README: &str = "---\nconfigs:\n- config_name: cola\n  data_files:\n  - split: train\n    path: cola/train-*\n  - split: test\n    path: cola/test-*\n- config_name: mrpc\n  data_files:\n    train: [mrpc/a.parquet, mrpc/b.parquet]\n---\n# text\n";
    const PATHS: [&str; 6] = [
        "README.md",
        "cola/train-00000-of-00002.parquet",
        "cola/train-00001-of-00002.parquet",
        "cola/test-00000-of-00001.parquet",
        "mrpc/a.parquet",
        "mrpc/b.parquet",
    ];

    fn chosen(paths: &[&str], readme: Option<&str>, wanted: Wanted<'_>) -> String {
        match choose(paths, readme, wanted) {
            Ok(chosen) => format!("{chosen:?}"),
            Err(error) => told(&error),
        }
    }

    fn config(config: &str) -> Wanted<'_> {
        Wanted {
            config: Some(config),
            ..Wanted::default()
        }
    }

    #[test]
    fn a_readme_says_what_the_data_is() {
        let wanted = |name| chosen(&PATHS, Some(README), config(name));
        insta::assert_snapshot!(wanted("cola"), @r#"{"test": ["cola/test-00000-of-00001.parquet"], "train": ["cola/train-00000-of-00002.parquet", "cola/train-00001-of-00002.parquet"]}"#);
        insta::assert_snapshot!(wanted("mrpc"), @r#"{"train": ["mrpc/a.parquet", "mrpc/b.parquet"]}"#);
        insta::assert_snapshot!(wanted("coal"), @r#"
        the repository has no config `coal`
          at config
          help: did you mean `cola`?
        "#);
        insta::assert_snapshot!(chosen(&PATHS, Some(README), Wanted::default()), @r#"
        the repository has several data sets, and none is the default
          at config
          help: say `config:`, one of `cola` and `mrpc`
        "#);
    }

    #[test]
    fn without_a_readme_folders_say_it() {
        insta::assert_snapshot!(chosen(&PATHS, None, config("cola")), @r#"{"test": ["cola/test-00000-of-00001.parquet"], "train": ["cola/train-00000-of-00002.parquet", "cola/train-00001-of-00002.parquet"]}"#);
        insta::assert_snapshot!(chosen(&PATHS, None, config("colla")), @r#"
        the repository has no config `colla`
          at config
          help: did you mean `cola`?
        "#);
        let data = [
            "data/train-00000-of-00001.parquet",
            "other/test.csv",
            "x.txt",
        ];
        insta::assert_snapshot!(chosen(&data, None, Wanted::default()), @r#"{"train": ["data/train-00000-of-00001.parquet"]}"#);
        insta::assert_snapshot!(chosen(&["a.txt"], None, Wanted::default()), @r#"
        the repository has no data files of a known format
          help: known are csv, tsv, jsonl, json, parquet, arrow; it has `a.txt`
        "#);
    }

    #[test]
    fn splits_and_files_can_be_chosen() {
        let splits = ["test".to_owned()];
        let wanted = Wanted {
            splits: &splits,
            ..config("cola")
        };
        insta::assert_snapshot!(chosen(&PATHS, Some(README), wanted), @r#"{"test": ["cola/test-00000-of-00001.parquet"]}"#);
        let splits = ["tset".to_owned()];
        let wanted = Wanted {
            splits: &splits,
            ..config("cola")
        };
        insta::assert_snapshot!(chosen(&PATHS, Some(README), wanted), @r#"
        the data has no split `tset`
          at splits
          help: did you mean `test`?
        "#);
        let files = ["cola/*.parquet".to_owned()];
        let wanted = Wanted {
            files: &files,
            ..Wanted::default()
        };
        insta::assert_snapshot!(chosen(&PATHS, None, wanted), @r#"{"test": ["cola/test-00000-of-00001.parquet"], "train": ["cola/train-00000-of-00002.parquet", "cola/train-00001-of-00002.parquet"]}"#);
        let files = ["*.csv".to_owned()];
        let wanted = Wanted {
            files: &files,
            ..Wanted::default()
        };
        insta::assert_snapshot!(chosen(&PATHS, None, wanted), @r#"
        no data file matches `*.csv`
          at files
          help: the repository has `cola/train-00000-of-00002.parquet`, `cola/train-00001-of-00002.parquet`, `cola/test-00000-of-00001.parquet`, `mrpc/a.parquet` and `mrpc/b.parquet`
        "#);
    }
}
