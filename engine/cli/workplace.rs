//! Where a command works: the project, its cache, and a pipeline that has been checked.

use std::path::{Path, PathBuf};

use taper_cache::{
    ArtifactType, Digest, Execution, Lookup, Manifest, RunId, RunRecord, Store, Wanted,
};
use taper_engine::{Kinds, Lock, Project};

use crate::failure::Failure;

/// The kinds of this program.
pub const KINDS: Kinds = Kinds::new(taper_stages::KINDS);

/// A project and its cache.
pub struct Workplace {
    /// The project.
    pub project: Project,
    /// Its cache.
    pub store: Store,
}

impl Workplace {
    /// That of a pipeline file, or of a folder.
    ///
    /// # Errors
    /// Where the project or the cache cannot be opened.
    pub fn of(start: &Path) -> Result<Self, Failure> {
        let cache = std::env::var_os("TAPER_CACHE").map(PathBuf::from);
        let project = Project::find(start, cache)?;
        let store = Store::open(&project.cache)?;
        Ok(Self { project, store })
    }

    /// That of the folder in which the program was started.
    ///
    /// # Errors
    /// Where the project or the cache cannot be opened.
    pub fn here() -> Result<Self, Failure> {
        Self::of(Path::new("."))
    }

    /// The recorded run that a prefix of its id means.
    ///
    /// # Errors
    /// Where there is none, several, or its record is damaged.
    pub fn run(&self, prefix: &str) -> Result<RunRecord, Failure> {
        let id = self.find_run(prefix)?;
        self.record(&id)
    }

    /// The id that a prefix means.
    ///
    /// # Errors
    /// Where there is none, or several.
    pub fn find_run(&self, prefix: &str) -> Result<RunId, Failure> {
        self.store
            .find_run(prefix)
            .map_err(|error| Failure::from(error).help("`taper log` lists the runs of this cache"))
    }

    /// The record of a run.
    ///
    /// # Errors
    /// Where it is not there or damaged.
    pub fn record(&self, id: &RunId) -> Result<RunRecord, Failure> {
        found(self.store.run(id)?, "run", &id.short())
    }

    /// An artifact of the cache.
    ///
    /// # Errors
    /// Where it is not there or damaged.
    pub fn artifact(&self, digest: &Digest) -> Result<Manifest, Failure> {
        found(self.store.manifest(digest)?, "artifact", &digest.short())
    }

    /// The run that was done last.
    ///
    /// # Errors
    /// Where nothing has been run yet, or its record is damaged.
    pub fn last_run(&self) -> Result<RunRecord, Failure> {
        match self.store.summaries(Wanted::All)?.next() {
            Some(summary) => self.record(&summary?.run),
            None => Err(Failure::usage("nothing has been run yet").help("taper run PIPELINE.yaml")),
        }
    }

    /// The executions of a run, the newest last. Damaged records are left out.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn executions_of(&self, run: &RunId) -> Result<Vec<Execution>, Failure> {
        let mut found = Vec::new();
        for summary in self.store.summaries(Wanted::Run(*run))? {
            found.extend(self.store.execution(summary?.sequence)?.found());
        }
        found.reverse();
        Ok(found)
    }

    /// The artifact that `PIPELINE.yaml:STAGE`, `RUN:STAGE` or the digest of an artifact means, and what to
    /// call it.
    ///
    /// # Errors
    /// Where nothing in the cache has this name.
    pub fn named_artifact(&self, name: &str) -> Result<(String, Manifest), Failure> {
        if let Ok(digest) = name.parse::<Digest>() {
            return Ok((digest.short(), self.artifact(&digest)?));
        }
        let Some((place, stage)) = name.rsplit_once(':') else {
            return Err(Failure::usage(format!("`{name}` names no artifact"))
                .help("write PIPELINE.yaml:STAGE, RUN:STAGE, or an artifact's 64 digits"));
        };
        let path = Path::new(place);
        let digest = if path.is_file() {
            let lock = Lock::path_of(path);
            let lock = Lock::read(&lock)?;
            let names = lock.stages.keys().map(String::as_str);
            lock.stages
                .get(stage)
                .map(|stage| stage.artifact)
                .ok_or_else(|| unknown_stage(place, stage, names))?
        } else {
            let run = self.run(place)?;
            let names = run.stages.iter().map(|stage| stage.name.as_str());
            run.stage(stage)
                .map(|stage| stage.artifact)
                .ok_or_else(|| unknown_stage(place, stage, names))?
        };
        Ok((stage.to_owned(), self.artifact(&digest)?))
    }

    /// The metrics of an artifact; `None` where it is of another type, or not in the cache.
    pub fn metrics(&self, artifact: &Digest) -> Option<serde_json::Map<String, serde_json::Value>> {
        let manifest = self.store.manifest(artifact).ok()?.found()?;
        if manifest.artifact_type != ArtifactType::Metrics {
            return None;
        }
        let path = self.file(&manifest, "metrics.json")?;
        serde_json::from_slice(&fs_err::read(path).ok()?).ok()
    }

    /// Where a file of an artifact is.
    pub fn file(&self, manifest: &Manifest, name: &str) -> Option<PathBuf> {
        let blob = manifest.blobs.get(name)?;
        Some(self.store.layout().blob(&blob.digest))
    }
}

fn unknown_stage<'a>(
    place: &str,
    stage: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Failure {
    let failure = Failure::usage(format!("{place} has no stage `{stage}` with a result"));
    match taper_engine::diagnostic::suggest(stage, "it has", names) {
        Some(help) => failure.help(help),
        None => failure.help(format!("`taper run {place}` makes one")),
    }
}

/// What was looked up, or why it cannot be had.
fn found<T>(lookup: Lookup<T>, what: &'static str, name: &str) -> Result<T, Failure> {
    match lookup {
        Lookup::Found(value) => Ok(value),
        Lookup::Missing => Err(taper_cache::CacheError::Missing {
            what,
            name: name.to_owned(),
        }
        .into()),
        Lookup::Damaged(damage) => Err(taper_cache::CacheError::Damaged(damage).into()),
    }
}
