//! Removal of what nothing names any more.
//!
//! *Roots* are what lock files and pins name: never removed. What recorded runs name is removed only to fit
//! a size, oldest run first; what was made since the last recorded run stays, since a run may be on its way.
//! All other actions go, oldest first to a size, and then every manifest and blob that no action and no root
//! names. Ages are numbers of executions, never clocks. Run records stay: they are small, and all that is
//! needed to run again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::CacheError;
use crate::layout::Shelf;
use crate::locks::{Keeping, is_of_the_dead, may_be_held};
use crate::runs::names;
use crate::staging::remove_folder;
use crate::{Action, Digest, Key, RunId, Store, planted};

/// What must stay, beside pins and runs: what lock files name.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// Keys of locked stages.
    pub keys: BTreeSet<Key>,
    /// Artifacts of locked stages, and files of the project.
    pub artifacts: BTreeSet<Digest>,
}

/// Whether anything is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Removal {
    /// It is.
    #[default]
    Real,
    /// It is only counted.
    Dry,
}

/// What to do with unfinished work: partial downloads and checkpoints of stages that did not end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unfinished {
    /// It stays.
    #[default]
    Keep,
    /// It goes, except that of stages that run now.
    Remove,
}

/// How to collect.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcOptions {
    /// Remove no more than needed for the blobs to have at most this many bytes, and what runs name where
    /// the rest is not enough.
    pub max_bytes: Option<u64>,
    /// Whether anything is removed.
    pub removal: Removal,
    /// What to do with unfinished work.
    pub unfinished: Unfinished,
}

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct GcReport {
    /// Actions removed.
    pub actions: usize,
    /// Blobs removed.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of the blobs that stay.
    pub kept_bytes: u64,
    /// Temporary, unfinished and quarantined files and folders removed.
    pub leftovers: usize,
}

/// How dear an action is: what compares less goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Nothing names it; its generation.
    Unnamed(u64),
    /// A run names it; the last execution of the newest such run.
    OfRun(u64),
    /// A lock, a pin, or a run on its way.
    Rooted,
}

impl Store {
    /// Removes what nothing names any more.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn collect(&self, roots: &Roots, options: &GcOptions) -> Result<GcReport, CacheError> {
        if !self.exists() {
            return Ok(GcReport::default());
        }
        // Who only counts keeps nobody waiting.
        let _alone = match planted("gc-unlocked") || options.removal == Removal::Dry {
            true => Keeping::none(),
            false => Keeping::alone(&self.layout().locks()),
        };
        let worths = self.worths(roots)?;
        let (removed, live) = self.choose(roots, options, &worths)?;
        let blobs = self.shelved(Shelf::Blobs)?.named;
        let mut report = GcReport {
            actions: removed.len(),
            ..GcReport::default()
        };
        let mut dead_blobs = Vec::new();
        for digest in blobs {
            let size = self.size_of(&digest);
            if live.blobs.contains(&digest) {
                report.kept_bytes += size;
            } else {
                report.blobs += 1;
                report.bytes += size;
                dead_blobs.push(digest);
            }
        }
        // Names go before what they name, so that a kill in between leaves nothing that points nowhere.
        if options.removal == Removal::Real && planted("blobs-removed-first") {
            for digest in &dead_blobs {
                remove_file(&self.layout().blob(digest))?;
            }
        }
        if options.removal == Removal::Real {
            for key in &removed {
                self.remove_action(key)?;
                // Whoever makes it again now is already telling how it goes.
                if !self.may_run(key) {
                    remove_folder(&self.layout().record(key))?;
                }
            }
            for digest in self.shelved(Shelf::Manifests)?.named {
                if !live.manifests.contains(&digest) {
                    remove_file(&self.layout().manifest(&digest))?;
                }
            }
            for digest in &dead_blobs {
                remove_file(&self.layout().blob(digest))?;
            }
            self.forget()?;
        }
        report.leftovers = self.sweep(options)?;
        Ok(report)
    }

    /// Every action, and how dear it is.
    fn worths(&self, roots: &Roots) -> Result<Vec<(Worth, Action)>, CacheError> {
        let executions = self.executions()?;
        let now = executions.last().copied().unwrap_or(0);
        let pins: BTreeSet<Digest> = self.pins()?.into_values().collect();
        let mut last: BTreeMap<RunId, u64> = BTreeMap::new();
        for sequence in executions {
            if let Some(execution) = self.execution(sequence)?.found() {
                last.insert(execution.run, sequence);
            }
        }
        let mut of_runs: BTreeMap<Key, Worth> = BTreeMap::new();
        for id in self.runs()? {
            let Some(run) = self.run(&id)?.found() else {
                continue;
            };
            let worth = if pins.contains(&id.0) {
                Worth::Rooted
            } else {
                Worth::OfRun(last.get(&id).copied().unwrap_or(0))
            };
            for stage in &run.stages {
                let of_run = of_runs.entry(stage.key).or_insert(worth);
                *of_run = worth.max(*of_run);
            }
        }
        let mut worths = Vec::new();
        for digest in self.shelved(Shelf::Actions)?.named {
            let Some(action) = self.action(&Key(digest))?.found() else {
                continue;
            };
            let rooted = roots.keys.contains(&action.key)
                || roots.artifacts.contains(&action.artifact)
                || pins.contains(&action.artifact);
            let worth = match of_runs.get(&action.key) {
                _ if rooted => Worth::Rooted,
                Some(worth) => *worth,
                None if action.generation >= now => Worth::Rooted,
                None => Worth::Unnamed(action.generation),
            };
            worths.push((worth, action));
        }
        worths.sort_by_key(|(worth, action)| (*worth, action.key));
        Ok(worths)
    }

    /// Which actions go, and what then lives.
    fn choose(
        &self,
        roots: &Roots,
        options: &GcOptions,
        worths: &[(Worth, Action)],
    ) -> Result<(Vec<Key>, Live), CacheError> {
        let held: Vec<Live> = worths
            .iter()
            .map(|(_, action)| self.held_by(action))
            .collect::<Result<_, _>>()?;
        let mut rooted = Live::default();
        for digest in roots.artifacts.iter().chain(self.pins()?.values()) {
            self.hold(digest, &mut rooted)?;
        }
        let mut holders: BTreeMap<Digest, usize> = BTreeMap::new();
        for live in held.iter().chain([&rooted]) {
            for digest in &live.blobs {
                *holders.entry(*digest).or_default() += 1;
            }
        }
        // Read once: what is looked at again may be gone.
        let sizes: BTreeMap<Digest, u64> = holders
            .keys()
            .map(|digest| (*digest, self.size_of(digest)))
            .collect();
        let mut bytes: u64 = sizes.values().sum();
        let mut removed = Vec::new();
        let mut live = rooted;
        for ((worth, action), holds) in worths.iter().zip(held) {
            let too_much = options.max_bytes.is_some_and(|limit| bytes > limit);
            let goes = match worth {
                Worth::Unnamed(_) => options.max_bytes.is_none() || too_much,
                Worth::OfRun(_) => too_much,
                Worth::Rooted => false,
            };
            if !goes {
                live.extend(holds);
                continue;
            }
            removed.push(action.key);
            for digest in &holds.blobs {
                if let Some(count) = holders.get_mut(digest) {
                    *count -= 1;
                    if *count == 0 {
                        bytes -= sizes[digest];
                    }
                }
            }
        }
        Ok((removed, live))
    }

    fn held_by(&self, action: &Action) -> Result<Live, CacheError> {
        let mut live = Live::default();
        live.manifests.insert(action.artifact);
        for name in action.parts.keys() {
            if let Some(part) = action.output(Some(name)) {
                live.manifests.insert(part.digest());
            }
        }
        let blobs = action.manifest.blobs.values();
        live.blobs.extend(blobs.map(|blob| blob.digest));
        for digest in &action.needs {
            self.hold(digest, &mut live)?;
        }
        Ok(live)
    }

    fn hold(&self, digest: &Digest, live: &mut Live) -> Result<(), CacheError> {
        if let Some(manifest) = self.manifest(digest)?.found() {
            live.manifests.insert(*digest);
            live.blobs
                .extend(manifest.blobs.values().map(|blob| blob.digest));
        }
        Ok(())
    }

    /// Whether somebody may be making what this key makes.
    fn may_run(&self, key: &Key) -> bool {
        may_be_held(&self.layout().key_lock(key))
    }

    /// Removes what killed programs left, and what was set aside.
    fn sweep(&self, options: &GcOptions) -> Result<usize, CacheError> {
        let layout = self.layout();
        let mut leftovers = Vec::new();
        for name in names(&layout.staging())? {
            let path = layout.staging().join(&name);
            if !may_be_held(&path) || is_of_the_dead(&name) || planted("gc-removes-work") {
                leftovers.push(path);
            }
        }
        for name in names(&layout.quarantine())? {
            leftovers.push(layout.quarantine().join(name));
        }
        for name in names(&layout.scratches())? {
            let key = name.parse::<Key>();
            let finished = key.as_ref().is_ok_and(|key| layout.action(key).exists());
            let running = key.is_ok_and(|key| self.may_run(&key));
            if !running && (finished || options.unfinished == Unfinished::Remove) {
                leftovers.push(layout.scratches().join(name));
            }
        }
        if options.removal == Removal::Real {
            for path in &leftovers {
                if path.symlink_metadata().is_ok_and(|there| there.is_dir()) {
                    remove_folder(path)?;
                } else {
                    remove_file(path)?;
                }
            }
        }
        Ok(leftovers.len())
    }
}

#[derive(Debug, Default)]
struct Live {
    manifests: BTreeSet<Digest>,
    blobs: BTreeSet<Digest>,
}

impl Live {
    fn extend(&mut self, other: Self) {
        self.manifests.extend(other.manifests);
        self.blobs.extend(other.blobs);
    }
}

fn remove_file(path: &Path) -> Result<(), CacheError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if crate::error::is_absent(&error) => Ok(()),
        Err(error) => Err(CacheError::io("remove", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ArtifactType;
    use crate::runs::tests::{execution, record};
    use crate::store::tests::fresh;

    /// Makes an action in a process of its own, as it were: the generation is asked anew.
    fn act(store: &Store, ingredients: &[u8], made: &[u8], needs: &[Digest]) -> Action {
        let store = Store::open(store.layout().root()).expect("opened");
        let staging = store.stage().expect("staged");
        fs_err::write(staging.out().join("file"), made).expect("written");
        let sealed = staging.seal(ArtifactType::Files).expect("sealed");
        let needs = needs.iter().copied().collect();
        let action = Action::new(
            "toy",
            ingredients.to_vec(),
            sealed.manifest().clone(),
            BTreeMap::new(),
            needs,
        );
        sealed.keep(&action).expect("kept");
        action
    }

    fn run_of(store: &Store, ingredients: &[u8], made: &[u8]) {
        let mut run = record(&[("a", ingredients, made)]);
        for stage in &mut run.stages {
            stage.artifact = act(store, ingredients, made, &[]).artifact;
        }
        let run = crate::RunRecord::new("toys", "", BTreeMap::new(), run.stages);
        store.record(&run, None, execution()).expect("recorded");
    }

    fn there(store: &Store, ingredients: &[u8]) -> bool {
        let action = store
            .action(&Key::of_ingredients(ingredients))
            .expect("read")
            .found();
        action.is_some_and(|action| store.has_blobs(&action.manifest))
    }

    #[test]
    fn what_nothing_names_goes_and_what_something_names_stays() {
        let (_folder, store) = fresh();
        let old = act(&store, b"old", b"old bytes", &[]);
        let locked = act(&store, b"locked", b"locked bytes", &[old.artifact]);
        act(&store, b"loose", b"loose bytes", &[]);
        let pinned = act(&store, b"pinned", b"pinned bytes", &[]);
        store.pin("paper", pinned.artifact).expect("pinned");
        run_of(&store, b"run", b"run bytes");
        act(&store, b"new", b"new bytes", &[]);
        let roots = Roots {
            keys: BTreeSet::from([locked.key]),
            artifacts: BTreeSet::new(),
        };
        let dry = GcOptions {
            removal: Removal::Dry,
            ..GcOptions::default()
        };
        let foreseen = store.collect(&roots, &dry).expect("counted");
        assert!(there(&store, b"loose"), "a dry run removes nothing");
        let report = store
            .collect(&roots, &GcOptions::default())
            .expect("collected");
        assert_eq!(report, foreseen);
        assert_eq!((report.actions, report.blobs, report.bytes), (2, 1, 11));
        for kept in [b"locked".as_slice(), b"pinned", b"run", b"new"] {
            assert!(there(&store, kept), "{}", String::from_utf8_lossy(kept));
        }
        assert!(!there(&store, b"loose"));
        let input = store
            .manifest(&old.artifact)
            .expect("read")
            .found()
            .expect("needed");
        assert!(store.has_blobs(&input), "what a locked stage read stays");
        assert_eq!(
            store
                .collect(&roots, &GcOptions::default())
                .expect("again")
                .actions,
            0
        );
    }

    #[test]
    fn to_a_size_the_oldest_goes_first() {
        let (_folder, store) = fresh();
        run_of(&store, b"1", &[1; 100]);
        run_of(&store, b"2", &[2; 100]);
        run_of(&store, b"3", &[3; 100]);
        let options = GcOptions {
            max_bytes: Some(250),
            ..GcOptions::default()
        };
        let report = store
            .collect(&Roots::default(), &options)
            .expect("collected");
        assert_eq!(
            (report.actions, report.bytes, report.kept_bytes),
            (1, 100, 200)
        );
        assert!(!there(&store, b"1") && there(&store, b"2") && there(&store, b"3"));
        assert_eq!(store.runs().expect("listed").len(), 3, "records stay");
    }

    #[test]
    fn what_a_stage_tells_that_runs_again_stays() {
        let (_folder, store) = fresh();
        let key = act(&store, b"a", b"made", &[]).key;
        run_of(&store, b"b", b"other");
        let all = GcOptions {
            max_bytes: Some(0),
            ..GcOptions::default()
        };
        let lock = store.try_lock(&key).expect("works");
        let record = store.record_folder(&key, lock.as_ref()).expect("named");
        fs_err::create_dir_all(&record).expect("made");
        let report = store.collect(&Roots::default(), &all).expect("collected");
        assert_eq!(report.actions, 2);
        assert!(record.exists() && !there(&store, b"a"));
        drop(lock);
        let lock = store.try_lock(&key).expect("works");
        store.record_folder(&key, lock.as_ref()).expect("named");
        assert!(!record.exists(), "the next one begins anew");
    }

    #[test]
    fn leftovers_of_the_dead_go_and_those_of_the_living_stay() {
        let (_folder, store) = fresh();
        let living = store.stage().expect("staged");
        let dead = store.layout().staging().join("work-dead");
        fs_err::create_dir_all(dead.join("out")).expect("made");
        fs_err::write(store.layout().staging().join("file-dead"), "half").expect("written");
        let key = Key::of_ingredients(b"a");
        let lock = store.try_lock(&key).expect("works");
        let scratch = store.scratch(&key, lock.as_ref()).expect("made");
        let scratch = scratch.path();
        fs_err::write(scratch.join("part"), "half").expect("written");
        let report = store
            .collect(&Roots::default(), &GcOptions::default())
            .expect("collected");
        assert_eq!(report.leftovers, 2);
        assert!(living.out().exists() && scratch.exists() && !dead.exists());
        let options = GcOptions {
            unfinished: Unfinished::Remove,
            ..GcOptions::default()
        };
        assert_eq!(
            store
                .collect(&Roots::default(), &options)
                .expect("collected")
                .leftovers,
            0
        );
        drop(lock);
        assert_eq!(
            store
                .collect(&Roots::default(), &options)
                .expect("collected")
                .leftovers,
            1
        );
        assert!(!scratch.exists());
    }
}
