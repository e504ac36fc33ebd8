//! The Hugging Face hub: what a repository holds at a commit, and its files, verified.
//!
//! Where things are (the cache in `HF_HOME`, its folders, the token's file) is known by the crate `hf-hub`;
//! what is asked is asked here, because nothing may enter the cache that does not have the size and the hash
//! which the hub itself announces, and because each refusal has a remedy.

use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};
use serde::{Deserialize, Serialize};
use taper_engine::{Reporter, StageError};

use super::hash::{Expected, Hash};
use super::http::{Bearer, Client, HttpError, Refusal, escape_path};

const ENDPOINT: &str = "https://huggingface.co";

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryKind {
    /// Data.
    Dataset,
    /// Weights and tokenizers.
    Model,
}

impl RepositoryKind {
    fn noun(self) -> &'static str {
        match self {
            Self::Dataset => "data set",
            Self::Model => "model",
        }
    }

    /// The folder of the API.
    fn folder(self) -> &'static str {
        match self {
            Self::Dataset => "datasets",
            Self::Model => "models",
        }
    }

    /// What stands before the name in addresses of pages and files.
    fn prefix(self) -> &'static str {
        match self {
            Self::Dataset => "datasets/",
            Self::Model => "",
        }
    }
}

/// A repository of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// What it holds.
    pub kind: RepositoryKind,
    /// `OWNER/NAME`, or an old name without owner.
    pub id: String,
}

/// A file of a repository at a commit: all that is needed to know that it is the one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubFile {
    /// Its path in the repository.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of large files, the id of the git blob of small ones.
    pub hash: Hash,
}

/// A repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The commit.
    pub commit: String,
    /// Its files, by path.
    pub files: Vec<HubFile>,
}

impl Snapshot {
    /// The paths of its files.
    pub fn paths(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.path.as_str()).collect()
    }

    /// The file at `path`.
    pub fn file(&self, path: &str) -> Option<&HubFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// A hub, with the token and the local cache that go with it.
#[derive(Clone, Debug)]
pub struct Hub {
    endpoint: String,
    cache: Option<Cache>,
    signed_in: bool,
    offline: bool,
    /// Asks it.
    pub client: Client,
}

/// The answer of the API; what is not needed is not read.
#[derive(Deserialize)]
struct Information {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Hub {
    /// The hub of the environment: `HF_ENDPOINT`, `HF_TOKEN` or the file of `hf auth login`, `HF_HOME`,
    /// `HF_HUB_CACHE`, `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        let variable = |name: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        let cache = variable("HF_HUB_CACHE")
            .map(|path| Cache::new(path.into()))
            .or_else(|| variable("HF_HOME").map(|home| Cache::new(Path::new(&home).join("hub"))))
            .or_else(|| {
                let home = std::env::home_dir()?;
                Some(Cache::new(home.join(".cache/huggingface/hub")))
            });
        let home = variable("HF_HOME").map(PathBuf::from);
        let token = variable("HF_TOKEN")
            .or_else(|| variable("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| {
                let file = variable("HF_TOKEN_PATH").map(PathBuf::from);
                let file = file.or_else(|| home.map(|home| home.join("token")));
                let file = file.or_else(|| cache.as_ref().map(Cache::token_path))?;
                fs_err::read_to_string(file).ok()
            })
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        let offline = variable("HF_HUB_OFFLINE").is_some_and(|value| {
            matches!(
                value.to_ascii_lowercase().as_str(),
                "1" | "on" | "yes" | "true"
            )
        });
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Self::new(
            &endpoint,
            token,
            cache.map(|cache| cache.path().clone()),
            offline,
        )
    }

    /// A hub at an address, with a token, the folder of a Hugging Face cache, and whether it may be asked.
    pub fn new(
        endpoint: &str,
        token: Option<String>,
        cache: Option<PathBuf>,
        offline: bool,
    ) -> Self {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let signed_in = token.is_some();
        let bearer = token.map(|token| Bearer {
            origin: endpoint.clone(),
            token,
        });
        Self {
            client: Client::new(bearer),
            cache: cache.map(Cache::new),
            endpoint,
            signed_in,
            offline,
        }
    }

    /// The same, not to be asked.
    #[must_use]
    pub fn offline(self, offline: bool) -> Self {
        Self {
            offline: self.offline || offline,
            ..self
        }
    }

    /// What a repository holds at a revision: a branch, a tag, a commit.
    ///
    /// # Errors
    /// Where there is no such repository or revision, where it may not be read, where the hub does not
    /// answer, and offline.
    pub fn snapshot(
        &self,
        repository: &Repository,
        revision: &str,
        reporter: &Reporter,
    ) -> Result<Snapshot, StageError> {
        check_id(&repository.id)?;
        if self.offline {
            return Err(StageError::failed(format!(
                "there is no network to be used, and the lock file does not say which commit of `{}` is meant",
                repository.id
            ))
            .at("hub")
            .help("run once with the network (without `--offline` and HF_HUB_OFFLINE), and commit the lock file"));
        }
        let url = format!(
            "{}/api/{}/{}/revision/{}?blobs=true",
            self.endpoint,
            repository.kind.folder(),
            escape_path(&repository.id),
            escape_path(revision).replace('/', "%2F"),
        );
        let body = self
            .client
            .get(&url, reporter)
            .map_err(|error| self.explain(error, repository, revision))?;
        let unreadable = |what: String| {
            StageError::failed(format!(
                "{} does not answer as a hub does: {what}",
                self.endpoint
            ))
            .help("is HF_ENDPOINT the address of a Hugging Face hub?")
        };
        let information: Information =
            serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string()))?;
        let mut files = Vec::new();
        for sibling in information.siblings {
            let path = sibling.rfilename;
            let (size, hash) = match (sibling.lfs, sibling.size, sibling.blob_id) {
                (Some(lfs), _, _) => (lfs.size, Hash::Sha256(lfs.sha256)),
                (None, Some(size), Some(id)) => (size, Hash::Git(id)),
                _ => return Err(unreadable(format!("it has no size or hash for `{path}`"))),
            };
            if !hash.is_whole() {
                return Err(unreadable(format!("`{hash}` of `{path}` is no hash")));
            }
            files.push(HubFile { path, size, hash });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Snapshot {
            commit: information.sha,
            files,
        })
    }

    /// Where a file is, verified: in the Hugging Face cache if it is there, else downloaded into `scratch`.
    ///
    /// # Errors
    /// Where it may not be read, does not come whole, and offline where it is not there.
    pub fn fetch(
        &self,
        repository: &Repository,
        commit: &str,
        file: &HubFile,
        scratch: &Path,
        reporter: &Reporter,
    ) -> Result<PathBuf, StageError> {
        let expected = Expected {
            size: Some(file.size),
            hash: Some(file.hash.clone()),
        };
        let fetched = scratch.join("hub").join(file.hash.digits());
        let places = self.cached(repository, commit, file).into_iter();
        for place in places.chain([fetched.clone()]) {
            if place.is_file() && expected.fault(&place)?.is_none() {
                return Ok(place);
            }
        }
        if self.offline {
            return Err(StageError::failed(format!(
                "there is no network to be used, and `{}` of `{}` is not in the Hugging Face cache",
                file.path, repository.id
            ))
            .help("run once with the network (without `--offline` and HF_HUB_OFFLINE)"));
        }
        let url = format!(
            "{}/{}{}/resolve/{}/{}",
            self.endpoint,
            repository.kind.prefix(),
            escape_path(&repository.id),
            escape_path(commit),
            escape_path(&file.path),
        );
        self.client
            .download(&url, &fetched, &expected, &file.path, reporter)
            .map_err(|error| self.explain(error, repository, commit))?;
        Ok(fetched)
    }

    /// Where the local cache would have the file.
    fn cached(&self, repository: &Repository, commit: &str, file: &HubFile) -> Vec<PathBuf> {
        let Some(cache) = &self.cache else {
            return Vec::new();
        };
        let kind = match repository.kind {
            RepositoryKind::Dataset => RepoType::Dataset,
            RepositoryKind::Model => RepoType::Model,
        };
        let repo = cache.repo(Repo::new(repository.id.clone(), kind));
        vec![
            repo.pointer_path(commit).join(&file.path),
            repo.blob_path(file.hash.digits()),
        ]
    }

    /// What a refusal means, and what to do about it.
    fn explain(&self, error: HttpError, repository: &Repository, revision: &str) -> StageError {
        let refusal = match error {
            HttpError::Stage(error) => return error,
            HttpError::Refused(refusal) => refusal,
        };
        let Refusal { status, code, .. } = refusal.as_ref();
        let (noun, id) = (repository.kind.noun(), &repository.id);
        let page = format!("{}/{}{id}", self.endpoint, repository.kind.prefix());
        let sign_in = format!(
            "make a token at {}/settings/tokens, and `export HF_TOKEN=…` (or `hf auth login`)",
            self.endpoint
        );
        let said = refusal.message.as_ref();
        let said = said.map(|said| format!(": {said}")).unwrap_or_default();
        match (*status, code.as_deref(), self.signed_in) {
            (401 | 403, Some("GatedRepo"), false) => StageError::failed(format!(
                "the {noun} `{id}` is gated, and you are not signed in"
            ))
            .help(format!("accept its terms at {page}; then {sign_in}")),
            (401 | 403, Some("GatedRepo"), true) => StageError::failed(format!(
                "the {noun} `{id}` is gated, and your token is not admitted to it"
            ))
            .help(format!(
                "ask for access at {page} with the account of the token"
            )),
            (401, _, true) => StageError::failed(format!("the hub does not take your token{said}"))
                .help(format!(
                    "HF_TOKEN or the token in HF_HOME is wrong or has expired: {sign_in}"
                )),
            (401, Some("RepoNotFound"), false) => StageError::invalid(format!(
                "the hub has no {noun} `{id}` that everyone may read"
            ))
            .help(format!("is the name right? If it is private, {sign_in}")),
            (401, _, false) => {
                StageError::failed(format!("the hub wants you to sign in{said}")).help(sign_in)
            }
            (403, ..) => {
                StageError::failed(format!("the hub denies access to the {noun} `{id}`{said}"))
                    .help(format!(
                        "look at {page} with the account of your token: may it read this?"
                    ))
            }
            (404, Some("RevisionNotFound"), _) => {
                StageError::invalid(format!("the {noun} `{id}` has no revision `{revision}`"))
                    .at("revision")
                    .help(format!(
                        "its branches, tags and commits are at {page}/commits/main"
                    ))
            }
            (404, Some("EntryNotFound"), _) => StageError::invalid(format!(
                "the {noun} `{id}` has no such file at {revision}: {}",
                refusal.url
            ))
            .help("the lock file may be of another repository: resolve it anew"),
            (404, ..) => {
                StageError::invalid(format!("the hub has no {noun} `{id}`")).help(match repository
                    .kind
                {
                    RepositoryKind::Dataset => {
                        "is the name right (`OWNER/NAME`)? For a model, say `type: model`"
                    }
                    RepositoryKind::Model => {
                        "is the name right (`OWNER/NAME`)? For a data set, leave out `type: model`"
                    }
                })
            }
            (429, ..) => StageError::transient(format!(
                "the hub says that there were too many requests, {} times",
                self.client.attempts
            ))
            .help("wait some minutes; signed in (HF_TOKEN), you may ask more often"),
            _ => return refusal.explain(),
        }
        .at_if_none("hub")
    }
}

/// So that every error of the hub points somewhere.
trait AtIfNone {
    fn at_if_none(self, param: &str) -> Self;
}

impl AtIfNone for StageError {
    fn at_if_none(mut self, param: &str) -> Self {
        self.param.get_or_insert_with(|| param.to_owned());
        self
    }
}

/// What is wrong with a repository's name, if anything.
///
/// # Errors
/// Where it cannot be one.
pub fn check_id(id: &str) -> Result<(), StageError> {
    let fine = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let parts: Vec<&str> = id.split('/').collect();
    match parts.len() <= 2 && parts.into_iter().all(fine) {
        true => Ok(()),
        false => Err(
            StageError::invalid(format!("`{id}` cannot name a repository"))
                .at("hub")
                .help("names are `OWNER/NAME`: stanfordnlp/imdb"),
        ),
    }
}

/// The files of a model that this program and others need of it: settings, tokenizer, weights.
pub fn model_files<'p>(paths: &[&'p str]) -> Vec<&'p str> {
    let settings = [
        "added_tokens.json",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors.index.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    ];
    let is_shard = |path: &str| {
        path.starts_with("model-") && path.ends_with(".safetensors") && path.contains("-of-")
    };
    paths
        .iter()
        .copied()
        .filter(|path| settings.contains(path) || *path == "model.safetensors" || is_shard(path))
        .collect()
}
