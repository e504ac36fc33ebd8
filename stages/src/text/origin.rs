//! Where the tokenizer of a `tokenize` stage comes from.

use std::borrow::Cow;
use std::fmt;

use rayon::prelude::*;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use taper_engine::{Context, Input, LocalPath, Outside, StageError, Unit};
use tokenizers::Tokenizer;

use super::columns::TextColumns;
use super::source::{CONFIG_FILE, TokenizerFiles, VOCABULARY_FILE};
use super::wordpiece::WordPieceTraining;
use crate::artifact::tokens::TOKENIZER_FILE;
use crate::artifact::{Table, Text};
use crate::data::hub::{Hub, HubFile, Repository, RepositoryKind};

/// Where the tokenizer comes from: the name of a stage (a model, tokens or files), `{ hub: REPOSITORY }`,
/// `{ path: FILE }` or `{ train: … }`.
#[derive(Clone, Debug)]
pub enum TokenizerSource {
    /// A stage that makes a model, tokens or files.
    Stage(Input<TokenizerFiles>),
    /// A repository of the hub.
    Hub(HubTokenizer),
    /// A `tokenizer.json` or `vocab.txt` of the project, or a folder with one.
    Path(LocalPath),
    /// One that is trained on the split `train`; without such a split, on all.
    Train(Training),
}

/// A repository of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubTokenizer {
    /// Its name: `OWNER/NAME`.
    pub hub: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// How a tokenizer is trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Training {
    /// WordPiece, with BERT's normalizer and special tokens.
    Wordpiece(WordPieceTraining),
}

const MAIN: &str = "main";

impl Serialize for TokenizerSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        match self {
            Self::Stage(input) => input.serialize(serializer),
            Self::Hub(source) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("hub", &source.hub)?;
                map.serialize_entry("revision", &source.revision)?;
                map.end()
            }
            Self::Path(path) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("path", path)?;
                map.end()
            }
            Self::Train(training) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("train", training)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for TokenizerSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum SourceKey {
    Hub,
    Path,
    Revision,
    Train,
}

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = TokenizerSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a stage, `{ hub: REPOSITORY }`, `{ path: FILE }` or `{ train: wordpiece }`")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<TokenizerSource, E> {
        Input::deserialize(de::value::StrDeserializer::new(name)).map(TokenizerSource::Stage)
    }

    fn visit_bytes<E: de::Error>(self, digest: &[u8]) -> Result<TokenizerSource, E> {
        Input::deserialize(de::value::BytesDeserializer::new(digest)).map(TokenizerSource::Stage)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TokenizerSource, A::Error> {
        let mut hub = None;
        let mut revision = None;
        let mut path = None;
        let mut train = None;
        while let Some(key) = map.next_key()? {
            match key {
                SourceKey::Hub => hub = Some(map.next_value()?),
                SourceKey::Revision => revision = Some(map.next_value()?),
                SourceKey::Path => path = Some(map.next_value()?),
                SourceKey::Train => train = Some(map.next_value()?),
            }
        }
        match (hub, revision, path, train) {
            (Some(hub), revision, None, None) => Ok(TokenizerSource::Hub(HubTokenizer {
                hub,
                revision: revision.unwrap_or_else(|| MAIN.to_owned()),
            })),
            (None, None, Some(path), None) => Ok(TokenizerSource::Path(path)),
            (None, None, None, Some(training)) => Ok(TokenizerSource::Train(training)),
            (None, Some(_), ..) => Err(de::Error::custom("`revision` belongs to `hub`")),
            _ => Err(de::Error::custom(
                "a tokenizer has exactly one of `hub`, `path` and `train`",
            )),
        }
    }
}

impl JsonSchema for TokenizerSource {
    fn schema_name() -> Cow<'static, str> {
        "TokenizerSource".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let stage = generator.subschema_for::<Input<TokenizerFiles>>();
        let path = generator.subschema_for::<LocalPath>();
        let training = generator.subschema_for::<Training>();
        json_schema!({
            "description": "The name of a stage (a model, tokens or files), `{ hub: REPOSITORY }`, `{ path: FILE }` or `{ train: … }`.",
            "anyOf": [
                stage,
                {
                    "type": "object",
                    "properties": {
                        "hub": { "type": "string", "description": "A repository of the hub: OWNER/NAME." },
                        "revision": { "type": "string", "default": MAIN, "description": "A branch, a tag or a commit." },
                    },
                    "required": ["hub"],
                    "additionalProperties": false,
                },
                {
                    "type": "object",
                    "properties": { "path": path },
                    "required": ["path"],
                    "additionalProperties": false,
                },
                {
                    "type": "object",
                    "properties": { "train": training },
                    "required": ["train"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

/// The files of a tokenizer, as the hub has them at a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedTokenizer {
    /// The commit.
    pub commit: String,
    /// Its files.
    pub files: Vec<HubFile>,
}

impl HubTokenizer {
    fn repository(&self) -> Repository {
        Repository {
            kind: RepositoryKind::Model,
            id: self.hub.clone(),
        }
    }

    /// Finds the tokenizer's files: `tokenizer.json`, else `vocab.txt` with its settings.
    fn resolve(&self, outside: &Outside<PinnedTokenizer>) -> Result<PinnedTokenizer, StageError> {
        let hub = Hub::from_env().offline(outside.offline);
        let snapshot = hub.snapshot(&self.repository(), &self.revision, &outside.reporter)?;
        let names: &[&str] = match snapshot.file(TOKENIZER_FILE) {
            Some(_) => &[TOKENIZER_FILE],
            None => &[VOCABULARY_FILE, CONFIG_FILE],
        };
        let files: Vec<_> = names
            .iter()
            .filter_map(|name| snapshot.file(name))
            .cloned()
            .collect();
        if snapshot.file(names[0]).is_none() {
            return Err(StageError::invalid(format!(
                "`{}` has no `{TOKENIZER_FILE}` and no `{VOCABULARY_FILE}`",
                self.hub
            ))
            .help("name a repository whose tokenizer is of the fast kind")
            .at("hub"));
        }
        Ok(PinnedTokenizer {
            commit: snapshot.commit,
            files,
        })
    }

    fn open(&self, pinned: &PinnedTokenizer, context: &Context) -> Result<Tokenizer, StageError> {
        let hub = Hub::from_env().offline(context.offline);
        let mut files = TokenizerFiles::default();
        for file in &pinned.files {
            let path = hub.fetch(
                &self.repository(),
                &pinned.commit,
                file,
                &context.scratch,
                &context.reporter,
            )?;
            match file.path.as_str() {
                TOKENIZER_FILE => files.tokenizer = Some(path),
                VOCABULARY_FILE => files.vocabulary = Some(path),
                _ => files.config = Some(path),
            }
        }
        files.read()
    }
}

impl TokenizerSource {
    /// Pins a tokenizer of the hub.
    ///
    /// # Errors
    /// Those of the hub, and where the repository has no tokenizer.
    pub fn resolve(
        &self,
        outside: &Outside<PinnedTokenizer>,
    ) -> Result<Option<PinnedTokenizer>, StageError> {
        match (self, &outside.locked) {
            (Self::Hub(_), Some(locked)) => Ok(Some(locked.clone())),
            (Self::Hub(hub), None) => hub.resolve(outside).map(Some).map_err(within),
            _ => Ok(None),
        }
    }

    /// Reads the tokenizer, or trains it on the split `train` of the tables; without such a split, on all.
    ///
    /// # Errors
    /// Where it cannot be read, or the text to train on cannot.
    pub fn open(
        &self,
        pinned: Option<&PinnedTokenizer>,
        text: &TextColumns,
        tables: &[(&str, &Table)],
        context: &Context,
    ) -> Result<Tokenizer, StageError> {
        match self {
            Self::Stage(input) => context
                .open(input)
                .and_then(|files| files.read())
                .map_err(within),
            Self::Path(path) => context
                .local(path)
                .and_then(|files| TokenizerFiles::find(&files)?.read())
                .map_err(within),
            Self::Hub(source) => {
                let pinned = pinned.ok_or_else(|| {
                    StageError::failed(format!("`{}` is not resolved", source.hub))
                })?;
                source.open(pinned, context).map_err(within)
            }
            Self::Train(Training::Wordpiece(training)) => {
                let columns = columns_to_train_on(text, tables)?;
                let rows = columns.iter().map(|column| column.len() as u64).sum();
                let progress =
                    context
                        .reporter
                        .progress("training the tokenizer", Some(rows), Unit::Rows);
                let texts = columns.par_iter().flat_map(|column| {
                    (0..column.len()).into_par_iter().map(|row| column.get(row))
                });
                let tokenizer = training.train(texts)?;
                progress.add(rows);
                Ok(tokenizer)
            }
        }
    }
}

fn columns_to_train_on(
    text: &TextColumns,
    tables: &[(&str, &Table)],
) -> Result<Vec<Text>, StageError> {
    let train = tables.iter().position(|(split, _)| *split == "train");
    let chosen = train.map_or(tables, |place| &tables[place..=place]);
    let mut columns = Vec::new();
    for (_, table) in chosen {
        for column in &text.0 {
            columns.push(table.text(column).map_err(|error| error.at("text"))?);
        }
    }
    Ok(columns)
}

/// An error of a tokenizer's source, at the parameter's place.
fn within(error: StageError) -> StageError {
    let place = match &error.param {
        Some(param) => format!("tokenizer.{param}"),
        None => "tokenizer".to_owned(),
    };
    error.at(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_one_thing() {
        let read = |json: &str| serde_json::from_str::<TokenizerSource>(json);
        assert!(
            matches!(read(r#"{"hub": "a/b"}"#).unwrap(), TokenizerSource::Hub(hub) if hub.revision == "main")
        );
        assert!(matches!(
            read(r#""stage""#).unwrap(),
            TokenizerSource::Stage(_)
        ));
        for (json, expected) in [
            (r#"{"hub": "a/b", "path": "c"}"#, "exactly one of"),
            (r#"{"revision": "main"}"#, "`revision` belongs to `hub`"),
            (r#"{"hubb": "a/b"}"#, "unknown field `hubb`"),
            ("3", "expected the name of a stage"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
