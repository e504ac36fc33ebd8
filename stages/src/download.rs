//! `download`: data and models from the hub, from an address, from files of the project, or out of the
//! program itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use taper_cache::{ArtifactType, Digest};
use taper_engine::{
    ArtifactFiles, Context, Kind, LocalPath, Makes, NoSettings, Outside, Reference, Reporter,
    Stage, StageError,
};

use crate::copying;
use crate::data::choice::{Wanted, choose, is_data, matching};
use crate::data::columns::Declared;
use crate::data::format::{Format, SourceFile};
use crate::data::hash::{Expected, Hash};
use crate::data::http::{Client, HttpError, file_name};
use crate::data::hub::{Hub, HubFile, Repository, RepositoryKind, Snapshot, check_id, model_files};
use crate::data::import::{Splits, import};
use crate::data::names::{group_by_split, split_name_fault, split_of};
use crate::data::samples::acceptability;

/// The kind; see [`Params`].
pub struct Download;

/// What an address gave, in the scratch folder: of resolving, which hands it on, and of running.
const FETCHED: &str = "download";

/// Gets data, a model or files: from a hub, an address, the project's files, or made by the program itself.
/// Exactly one of `hub`, `url`, `path` and `sample` says where from; what is found there is pinned in the lock
/// file and verified.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// A repository of the Hugging Face hub: `stanfordnlp/imdb`. HF_ENDPOINT, HF_TOKEN, HF_HOME and
    /// HF_HUB_OFFLINE are honoured.
    pub hub: Option<String>,
    /// An address, `http://` or `https://`, of one file.
    pub url: Option<String>,
    /// Files of the project: one file, a folder whose files are named like splits (`train.csv`), a glob, or
    /// one of these for each split: `{ train: a.csv, test: b.csv }`.
    pub path: Option<Local>,
    /// A data set that the program makes itself.
    pub sample: Option<Sample>,
    /// What it is: `dataset` (what the files hold becomes tables), `model` (configuration, tokenizer,
    /// weights) or `files` (as they are).
    #[serde(rename = "type")]
    pub download_type: DownloadType,
    /// Of `hub`: one of several data sets in the repository.
    pub config: Option<String>,
    /// The splits to read; all where none is named.
    pub splits: Vec<String>,
    /// Of `hub`: a branch, a tag or a commit; `main` without it. The lock file holds the commit.
    pub revision: Option<String>,
    /// Of `hub`: patterns of the files to take (`cola/*.parquet`), in the place of what the repository says.
    pub files: Vec<String>,
    /// Of `url`: the SHA-256 that the file has to have. Without it and `b3`, the lock file holds that of the
    /// first download.
    pub sha256: Option<String>,
    /// Of `url`: the BLAKE3 hash that the file has to have.
    pub b3: Option<String>,
    /// Of `url` and `path`: what the files hold, where their extensions do not say it.
    pub format: Option<Format>,
    /// The types of columns, where they should not be found out or are to be classes:
    /// `{ text: string, label: class }`. Other columns keep the types that they have.
    #[schemars(with = "BTreeMap<String, crate::data::columns::ColumnType>")]
    pub columns: Declared,
    /// Of `sample`: the rows of each split; 4000 and 1000 for `train` and `test` without it.
    pub rows: Option<BTreeMap<String, u64>>,
    /// Of `sample`: what it is drawn from. It is the data's own: the seed of the pipeline does not change it.
    pub seed: Option<u64>,
}

/// What is downloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DownloadType {
    /// Tables.
    #[default]
    Dataset,
    /// Configuration, tokenizer, weights.
    Model,
    /// Files as they are.
    Files,
}

/// A data set inside the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sample {
    /// English-like sentences from a small grammar, acceptable or with one rule broken; columns `text` and
    /// `label` (`unacceptable`, `acceptable`), half of the rows of each class, no sentence twice.
    Acceptability,
}

/// Files of the project: the same for all splits, or some for each.
#[derive(Clone, Debug)]
pub enum Local {
    /// Split by their names.
    All(LocalPath),
    /// Of each split.
    Each(BTreeMap<String, LocalPath>),
}

impl Serialize for Local {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All(path) => path.serialize(serializer),
            Self::Each(paths) => paths.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Local {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LocalVisitor;

        impl<'de> Visitor<'de> for LocalVisitor {
            type Value = Local;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or one for each split: `{ train: a.csv, test: b.csv }`")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<Local, E> {
                let reference = Reference::Name(path.to_owned());
                Ok(Local::All(LocalPath { reference }))
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Local, E> {
                let bytes = bytes
                    .try_into()
                    .map_err(|_| E::invalid_length(bytes.len(), &"the 32 bytes of a digest"))?;
                let reference = Reference::Artifact(Digest::from_bytes(bytes));
                Ok(Local::All(LocalPath { reference }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Local, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(Local::Each)
            }
        }
        deserializer.deserialize_any(LocalVisitor)
    }
}

impl JsonSchema for Local {
    fn schema_name() -> Cow<'static, str> {
        "Local".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let path = generator.subschema_for::<LocalPath>();
        json_schema!({
            "description": "A file, a folder or a glob, relative to the project's root; or one for each split.",
            "anyOf": [path, { "type": "object", "additionalProperties": path, "minProperties": 1 }],
        })
    }
}

/// What was meant in the world outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Resolved {
    /// A repository at a commit.
    Hub {
        /// The commit.
        commit: String,
        /// The files that are taken, by path.
        files: Vec<Pinned>,
    },
    /// What an address gave when it was first asked.
    Url {
        /// Bytes.
        size: u64,
        /// Their SHA-256.
        sha256: String,
    },
}

/// A file that is taken from a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// The split that it belongs to, of data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The file.
    pub file: HubFile,
}

/// Where it comes from.
enum Origin<'p> {
    Hub(Repository),
    Url(&'p str),
    Path(&'p Local),
    Sample(Sample),
}

impl Params {
    fn origin(&self) -> Result<Origin<'_>, StageError> {
        let kind = match self.download_type {
            DownloadType::Model => RepositoryKind::Model,
            DownloadType::Dataset | DownloadType::Files => RepositoryKind::Dataset,
        };
        let hub = self
            .hub
            .clone()
            .map(|id| Origin::Hub(Repository { kind, id }));
        let url = self.url.as_deref().map(Origin::Url);
        let path = self.path.as_ref().map(Origin::Path);
        let sample = self.sample.map(Origin::Sample);
        let mut given: Vec<Origin<'_>> = [hub, url, path, sample].into_iter().flatten().collect();
        match (given.pop(), given.is_empty()) {
            (Some(from), true) => Ok(from),
            (None, _) => Err(StageError::invalid("it is not said where to download from").help(
                "give one of `hub: OWNER/NAME`, `url: https://…`, `path: data.csv`, `sample: acceptability`",
            )),
            (Some(_), false) => Err(StageError::invalid(
                "more than one of `hub`, `url`, `path` and `sample` is given",
            )
            .help("a stage downloads from one place: make two stages of it")),
        }
    }

    /// The options that are given, and the sources that they belong to.
    fn options(&self) -> [(&'static str, bool, &'static [&'static str]); 9] {
        [
            ("config", self.config.is_some(), &["hub"]),
            ("splits", !self.splits.is_empty(), &["hub", "path"]),
            ("revision", self.revision.is_some(), &["hub"]),
            ("files", !self.files.is_empty(), &["hub"]),
            ("sha256", self.sha256.is_some(), &["url"]),
            ("b3", self.b3.is_some(), &["url"]),
            ("format", self.format.is_some(), &["url", "path"]),
            ("rows", self.rows.is_some(), &["sample"]),
            ("seed", self.seed.is_some(), &["sample"]),
        ]
    }

    /// The hash that is given for an address.
    fn hash(&self) -> Option<Hash> {
        let sha256 = self
            .sha256
            .as_ref()
            .map(|digits| Hash::Sha256(digits.to_lowercase()));
        sha256.or(self
            .b3
            .as_ref()
            .map(|digits| Hash::B3(digits.to_lowercase())))
    }

    fn is_dataset(&self) -> bool {
        self.download_type == DownloadType::Dataset
    }
}

impl Kind for Download {
    type Params = Params;
    type Settings = NoSettings;
    type Resolved = Resolved;

    const NAME: &'static str = "download";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "download: { hub: stanfordnlp/imdb, splits: [train, test] }";

    fn makes(&self, params: &Params) -> Makes {
        Makes::One(match params.download_type {
            DownloadType::Dataset => ArtifactType::Dataset,
            DownloadType::Model => ArtifactType::Model,
            DownloadType::Files => ArtifactType::Files,
        })
    }

    fn check(&self, params: &Params) -> Vec<StageError> {
        let from = match params.origin() {
            Ok(from) => from,
            Err(error) => return vec![error],
        };
        let source = match &from {
            Origin::Hub(_) => "hub",
            Origin::Url(_) => "url",
            Origin::Path(_) => "path",
            Origin::Sample(_) => "sample",
        };
        let mut errors = Vec::new();
        for (option, given, sources) in params.options() {
            if given && !sources.contains(&source) {
                let sources: Vec<String> =
                    sources.iter().map(|source| format!("`{source}`")).collect();
                errors.push(
                    StageError::invalid(format!(
                        "`{option}` belongs to {}, not to `{source}`",
                        sources.join(" and ")
                    ))
                    .at(option)
                    .help("remove it"),
                );
            }
        }
        let of_data =
            !params.columns.is_empty() || params.config.is_some() || !params.splits.is_empty();
        if of_data && !params.is_dataset() {
            errors.push(
                StageError::invalid("`columns`, `config` and `splits` belong to data sets")
                    .at("type")
                    .help("remove them, or say `type: dataset`"),
            );
        }
        match from {
            Origin::Hub(repository) => errors.extend(check_id(&repository.id).err()),
            Origin::Url(url) => errors.extend(check_url(params, url)),
            Origin::Path(Local::Each(paths)) => {
                if !params.is_dataset() {
                    errors.push(
                        StageError::invalid("files of splits make a data set")
                            .at("path")
                            .help("give one path, or say `type: dataset`"),
                    );
                }
                let faults = paths.keys().filter_map(|split| split_name_fault(split));
                errors.extend(faults.map(|error| error.at("path")));
            }
            Origin::Path(Local::All(_)) => {}
            Origin::Sample(_) => {
                if !params.is_dataset() {
                    errors.push(
                        StageError::invalid("a sample is a data set")
                            .at("type")
                            .help("remove `type`"),
                    );
                }
                for (split, rows) in params.rows.iter().flatten() {
                    let empty = (*rows == 0).then(|| {
                        StageError::invalid(format!("split `{split}` would be empty"))
                            .help("ask for at least 1 row")
                    });
                    let faults = [split_name_fault(split), empty].into_iter().flatten();
                    errors.extend(faults.map(|error| error.at(format!("rows.{split}"))));
                }
            }
        }
        errors
    }

    fn resolve(
        &self,
        params: &Params,
        outside: &Outside<Resolved>,
    ) -> Result<Option<Resolved>, StageError> {
        resolve_at(&Hub::from_env(), params, outside)
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        run_at(&Hub::from_env(), stage, context)
    }
}

fn check_url(params: &Params, url: &str) -> Vec<StageError> {
    let mut errors = Vec::new();
    if !url.starts_with("https://") && !url.starts_with("http://") {
        errors.push(
            StageError::invalid(format!(
                "`{url}` is no address: it begins with neither `https://` nor `http://`"
            ))
            .at("url")
            .help("for a file of the project, say `path:`"),
        );
    }
    if params.download_type == DownloadType::Model {
        errors.push(
            StageError::invalid("a model is several files, and an address gives one")
                .at("type")
                .help("take it from the `hub`, or from a folder with `path`"),
        );
    }
    if params.is_dataset() && params.format.or(Format::of(file_name(url))).is_none() {
        errors.push(
            StageError::invalid(format!(
                "the address does not say what `{}` holds",
                file_name(url)
            ))
            .at("url")
            .help(format!(
                "say `format:`, one of {}; or `type: files` to keep it as it is",
                Format::EXTENSIONS
            )),
        );
    }
    if params.sha256.is_some() && params.b3.is_some() {
        errors.push(
            StageError::invalid("both `sha256` and `b3` are given")
                .at("b3")
                .help("one is enough"),
        );
    }
    if let Some(hash) = params.hash().filter(|hash| !hash.is_whole()) {
        let param = if params.sha256.is_some() {
            "sha256"
        } else {
            "b3"
        };
        errors.push(
            StageError::invalid(format!(
                "`{}` is no such hash: it has 64 hexadecimal digits",
                hash.digits()
            ))
            .at(param)
            .help(format!(
                "`{param}sum FILE` says it; put it in quotes if it is all digits"
            )),
        );
    }
    errors
}

fn resolve_at(
    hub: &Hub,
    params: &Params,
    outside: &Outside<Resolved>,
) -> Result<Option<Resolved>, StageError> {
    if let Some(locked) = &outside.locked {
        return Ok(Some(locked.clone()));
    }
    match params.origin()? {
        Origin::Hub(repository) => {
            let hub = hub.clone().offline(outside.offline);
            resolve_hub(&hub, params, &repository, outside).map(Some)
        }
        Origin::Url(url) if params.hash().is_none() => {
            if outside.offline {
                return Err(StageError::failed(format!(
                    "there is no network to be used, and the lock file does not say what {url} is"
                ))
                .at("url")
                .help("run once with the network, or give its `sha256`"));
            }
            let fetched = outside.scratch.join(FETCHED);
            let client = Client::new(None);
            let expected = Expected::default();
            download(&client, url, &fetched, &expected, &outside.reporter)?;
            let size = fs_err::metadata(&fetched)?.len();
            let Hash::Sha256(sha256) = Hash::Sha256(String::new()).of_file(&fetched)? else {
                unreachable!("the hash of a file is of the sort that is asked for");
            };
            Ok(Some(Resolved::Url { size, sha256 }))
        }
        Origin::Url(_) | Origin::Path(_) | Origin::Sample(_) => Ok(None),
    }
}

fn resolve_hub(
    hub: &Hub,
    params: &Params,
    repository: &Repository,
    outside: &Outside<Resolved>,
) -> Result<Resolved, StageError> {
    let revision = params.revision.as_deref().unwrap_or("main");
    let snapshot = hub.snapshot(repository, revision, &outside.reporter)?;
    let paths = snapshot.paths();
    let pinned = |path: &str, split: Option<&str>| {
        let file = snapshot.file(path)?.clone();
        Some(Pinned {
            split: split.map(str::to_owned),
            file,
        })
    };
    let files: Vec<Pinned> = if params.is_dataset() {
        let readme = readme_of(hub, repository, &snapshot, outside)?;
        let wanted = Wanted {
            config: params.config.as_deref(),
            splits: &params.splits,
            files: &params.files,
        };
        choose(&paths, readme.as_deref(), wanted)
            .map_err(|error| in_repository(error, &repository.id))?
            .iter()
            .flat_map(|(split, paths)| paths.iter().map(move |path| (path, split)))
            .filter_map(|(path, split)| pinned(path, Some(split)))
            .collect()
    } else if !params.files.is_empty() {
        let chosen = matching(&paths, &params.files)
            .map_err(|error| in_repository(error, &repository.id))?;
        chosen
            .iter()
            .filter_map(|path| pinned(path, None))
            .collect()
    } else {
        let chosen = match params.download_type {
            DownloadType::Model => model_files(&paths),
            _ => paths.clone(),
        };
        chosen
            .into_iter()
            .filter_map(|path| pinned(path, None))
            .collect()
    };
    if params.download_type == DownloadType::Model
        && files.iter().all(|pinned| pinned.file.path != "config.json")
    {
        return Err(StageError::invalid(format!(
            "`{}` has no config.json: it is no model that this program knows",
            repository.id
        ))
        .at("hub")
        .help("for any files, say `type: files`"));
    }
    Ok(Resolved::Hub {
        commit: snapshot.commit,
        files,
    })
}

fn in_repository(mut error: StageError, id: &str) -> StageError {
    error.message = format!("`{id}`: {}", error.message);
    error
}

/// The README, which says what the data files are.
fn readme_of(
    hub: &Hub,
    repository: &Repository,
    snapshot: &Snapshot,
    outside: &Outside<Resolved>,
) -> Result<Option<String>, StageError> {
    let Some(file) = snapshot.file("README.md") else {
        return Ok(None);
    };
    let path = hub.fetch(
        repository,
        &snapshot.commit,
        file,
        &outside.scratch,
        &outside.reporter,
    )?;
    let text = fs_err::read(path)?;
    Ok(String::from_utf8(text).ok())
}

fn run_at(hub: &Hub, stage: &Stage<Download>, context: &Context) -> Result<(), StageError> {
    let params = &stage.params;
    match (params.origin()?, &stage.resolved) {
        (Origin::Hub(repository), Some(Resolved::Hub { commit, files })) => {
            let hub = hub.clone().offline(context.offline);
            run_hub(&hub, params, (&repository, commit, files), context)
        }
        (Origin::Url(url), resolved) => run_url(params, url, resolved.as_ref(), context),
        (Origin::Path(local), _) => run_path(params, local, context),
        (Origin::Sample(Sample::Acceptability), _) => {
            let rows = params
                .rows
                .clone()
                .unwrap_or_else(|| [("train".to_owned(), 4000), ("test".to_owned(), 1000)].into());
            acceptability::write(
                &rows,
                params.seed.unwrap_or_default(),
                &context.out,
                &context.reporter,
            )
        }
        (Origin::Hub(repository), _) => Err(StageError::failed(format!(
            "it is not known which commit of `{}` is meant",
            repository.id
        ))
        .help("resolve the pipeline anew: remove its entry from the lock file")),
    }
}

fn run_hub(
    hub: &Hub,
    params: &Params,
    (repository, commit, files): (&Repository, &str, &[Pinned]),
    context: &Context,
) -> Result<(), StageError> {
    let mut splits = Splits::new();
    for pinned in files {
        let file = &pinned.file;
        let path = hub.fetch(
            repository,
            commit,
            file,
            &context.scratch,
            &context.reporter,
        )?;
        match &pinned.split {
            None => keep(context, &path, &file.path)?,
            Some(split) => {
                let format = Format::of(&file.path).ok_or_else(|| unknown_format(&file.path))?;
                splits.entry(split.clone()).or_default().push(SourceFile {
                    path,
                    name: file.path.clone(),
                    format,
                });
            }
        }
    }
    match params.is_dataset() {
        true => import(&splits, &params.columns, &context.out, &context.reporter),
        false => Ok(()),
    }
}

fn run_url(
    params: &Params,
    url: &str,
    resolved: Option<&Resolved>,
    context: &Context,
) -> Result<(), StageError> {
    let expected = match (params.hash(), resolved) {
        (Some(hash), _) => Expected {
            size: None,
            hash: Some(hash),
        },
        (None, Some(Resolved::Url { size, sha256 })) => Expected {
            size: Some(*size),
            hash: Some(Hash::Sha256(sha256.clone())),
        },
        (None, _) => {
            return Err(
                StageError::failed(format!("it is not known what {url} has to be"))
                    .help("resolve the pipeline anew, or give its `sha256`"),
            );
        }
    };
    let name = file_name(url);
    let fetched = context.scratch.join(FETCHED);
    let there = fetched.is_file() && expected.fault(&fetched)?.is_none();
    if !there {
        if context.offline {
            return Err(StageError::failed(format!(
                "there is no network to be used, and {url} is not in the cache"
            ))
            .at("url")
            .help("run once with the network"));
        }
        download(
            &Client::new(None),
            url,
            &fetched,
            &expected,
            &context.reporter,
        )?;
    }
    if !params.is_dataset() {
        let name = if name.is_empty() { "file" } else { name };
        return keep(context, &fetched, name);
    }
    let format = params
        .format
        .or(Format::of(name))
        .ok_or_else(|| unknown_format(name))?;
    let split = split_of(name).unwrap_or_else(|| "train".to_owned());
    let source = SourceFile {
        path: fetched,
        name: name.to_owned(),
        format,
    };
    let splits = [(split, vec![source])].into();
    import(&splits, &params.columns, &context.out, &context.reporter)
}

fn download(
    client: &Client,
    url: &str,
    to: &Path,
    expected: &Expected,
    reporter: &Reporter,
) -> Result<(), StageError> {
    client
        .download(url, to, expected, file_name(url), reporter)
        .map_err(|error| match error {
            HttpError::Refused(refusal) => refusal.explain(),
            HttpError::Stage(error) => error,
        })
        .map_err(|error| error.at("url"))
}

fn run_path(params: &Params, local: &Local, context: &Context) -> Result<(), StageError> {
    let mut splits = Splits::new();
    match local {
        Local::Each(paths) => {
            for (split, path) in paths {
                let files = context.local(path)?;
                let names = data_files(params, &files)?;
                let sources = sources(params, &files, &names, Some(split))?;
                splits.insert(split.clone(), sources);
            }
        }
        Local::All(path) => {
            let files = context.local(path)?;
            if !params.is_dataset() {
                for name in files.names() {
                    if let Some(path) = files.path(name) {
                        keep(context, &path, name)?;
                    }
                }
                return Ok(());
            }
            let names = data_files(params, &files)?;
            for (split, names) in group_by_split(names).map_err(|error| error.at("path"))? {
                splits.insert(split, sources(params, &files, &names, None)?);
            }
        }
    }
    for split in &params.splits {
        if !splits.contains_key(split) {
            let names: Vec<&str> = splits.keys().map(String::as_str).collect();
            return Err(
                StageError::invalid(format!("the files have no split `{split}`"))
                    .at("splits")
                    .help(format!("they have {}", crate::artifact::table::list(names))),
            );
        }
    }
    if !params.splits.is_empty() {
        splits.retain(|split, _| params.splits.contains(split));
    }
    import(&splits, &params.columns, &context.out, &context.reporter)
}

/// The names of those files that hold data.
fn data_files<'f>(params: &Params, files: &'f ArtifactFiles) -> Result<Vec<&'f str>, StageError> {
    let names: Vec<&str> = files
        .names()
        .filter(|name| params.format.is_some() || is_data(name))
        .collect();
    match names.is_empty() {
        false => Ok(names),
        true => Err(StageError::invalid(format!(
            "no file has a known extension: there is {}",
            crate::artifact::table::list(files.names().take(8))
        ))
        .at("path")
        .help(format!(
            "known are {}; or say `format:`",
            Format::EXTENSIONS
        ))),
    }
}

fn sources(
    params: &Params,
    files: &ArtifactFiles,
    names: &[&str],
    split: Option<&String>,
) -> Result<Vec<SourceFile>, StageError> {
    names
        .iter()
        .map(|name| {
            let format = params
                .format
                .or(Format::of(name))
                .ok_or_else(|| unknown_format(name))?;
            let path = files
                .path(name)
                .ok_or_else(|| StageError::failed(format!("`{name}` is not in the cache")))?;
            let name = match split {
                Some(split) => format!("{name} of {split}"),
                None => (*name).to_owned(),
            };
            Ok(SourceFile { path, name, format })
        })
        .collect()
}

fn unknown_format(name: &str) -> StageError {
    StageError::invalid(format!("it is not known what `{name}` holds")).help(format!(
        "known extensions are {}; or say `format:`",
        Format::EXTENSIONS
    ))
}

/// Puts a verified file into the artifact.
fn keep(context: &Context, path: &Path, name: &str) -> Result<(), StageError> {
    let target = context.out.join(name);
    copying::copy(path, &target, None).map_err(|error| {
        StageError::failed(format!("cannot write {}: {error}", target.display()))
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
