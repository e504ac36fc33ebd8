//! Files of the project edited while the program reads them.
//!
//! At some call of the program's the data or the script changes: in place with the same size, appended to, or
//! replaced, its time set back or not. Whatever comes out has to be what one of the two states gives, under
//! that state's key; and who runs it is told when the file is not any more what the result was made of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::pool::{Random, each};
use crate::story::{self, Place};
use crate::tracer::{Call, Verdict, Watcher, trace};
use crate::{Found, Setting};

/// Tries.
pub fn run(setting: &Setting) -> Found {
    let mut found = Found::default();
    let fresh = Place::new();
    story::write_project(fresh.path());
    let count = setting.sized(10_u64, 200, 2000);
    let trials = setting.part_of((0..count).collect());
    let failures = each(setting, &trials, |trial| once(setting, &fresh, *trial));
    found.add(trials.len(), "inputs edited in flight", failures);
    found
}

fn once(setting: &Setting, fresh: &Place, trial: u64) -> Result<(), String> {
    let mut random = Random::new(setting.seed, 5000 + trial);
    let place = Place::copy_of(fresh);
    let edit = Edit::new(place.path(), &mut random);
    let told = |error: String| format!("edit {trial}, {edit:?}: {error}");
    // What both states give, each by itself.
    let honest = Setting {
        planted: None,
        ..setting.clone()
    };
    let before = story::run(&honest, Place::copy_of(&place).path())
        .map_err(told)?
        .0;
    let after = Place::copy_of(&place);
    edit.make(after.path());
    let after = story::run(&honest, after.path()).map_err(told)?.0;

    let mut editor = Editor {
        folder: place.path().to_path_buf(),
        edit: &edit,
        at: 1 + random.below(400),
        close: random.once_in(2),
        counted: 0,
        since: None,
    };
    // Half of the runs find the first state cached.
    if random.once_in(2) {
        story::run(setting, place.path()).map_err(told)?;
        editor.at = 1 + random.below(60);
    }
    if editor.close {
        editor.at = 1 + random.below(16);
    }
    let variables = setting.variables();
    let ended = trace(
        &setting.program,
        place.path(),
        &["run", "p.yaml", "--json", "-q"],
        &variables,
        &mut editor,
    );
    if editor.since.is_none() {
        edit.make(place.path());
    }
    let told = |error: String| {
        let close = if editor.close { " of its own" } else { "" };
        format!("edit {trial}, {edit:?} at {}{close}: {error}", editor.at)
    };
    if ended.code != Some(0) && !ended.stderr.contains("change") {
        return Err(told(format!(
            "exit code {:?}: {}",
            ended.code, ended.stderr
        )));
    }
    pairs_are_known(place.path(), &[&before.stages, &after.stages]).map_err(told)?;
    // The last thing that the program does is to look whether its inputs are as they were.
    let in_time = editor.since.is_some_and(|since| since > 6);
    let gave_before = ended.stdout.contains(&before.run);
    if ended.code == Some(0) && !gave_before && !ended.stdout.contains(&after.run) {
        return Err(told("the run is of neither state".to_owned()));
    }
    if in_time && before.run != after.run && gave_before && !ended.stderr.contains("change") {
        return Err(told(
            "nobody is told that the result is of what it was".to_owned(),
        ));
    }
    let (last, _) = story::run(setting, place.path()).map_err(told)?;
    if last.run != after.run {
        return Err(told("the run after it does not see the edit".to_owned()));
    }
    Ok(())
}

/// Every action that was kept is one that a quiet run keeps too, or has a key of its own.
fn pairs_are_known(folder: &Path, known: &[&Vec<(String, String, String)>]) -> Result<(), String> {
    let pairs: BTreeSet<(&str, &str)> = known
        .iter()
        .flat_map(|stages| stages.iter())
        .map(|(_, key, artifact)| (key.as_str(), artifact.as_str()))
        .collect();
    let keys: BTreeSet<&str> = pairs.iter().map(|(key, _)| *key).collect();
    let store =
        taper_cache::Store::open(folder.join(".taper")).map_err(|error| error.to_string())?;
    for key in crate::check::actions(folder) {
        let parsed: taper_cache::Digest = key.parse().map_err(|_| key.clone())?;
        let action = store.action(&taper_cache::Key(parsed));
        let Some(action) = action.map_err(|error| error.to_string())?.found() else {
            return Err(format!("the action {key} is damaged"));
        };
        let artifact = action.artifact.to_string();
        if keys.contains(key.as_str()) && !pairs.contains(&(key.as_str(), artifact.as_str())) {
            return Err(format!("the {} {key} made {artifact}", action.kind));
        }
        if !keys.contains(key.as_str()) {
            return Err(format!("the {} {key} is of neither state", action.kind));
        }
    }
    Ok(())
}

/// What is done to which file.
#[derive(Debug)]
struct Edit {
    file: &'static str,
    way: Way,
    set_back: bool,
    text: String,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// The file's bytes are written over, as many as there were.
    InPlace,
    /// Something is added at its end.
    Append,
    /// Another file takes its name.
    Replace,
}

impl Edit {
    fn new(folder: &Path, random: &mut Random) -> Self {
        let file = ["data.csv", "work.sh"][random.below(2)];
        let way = [Way::InPlace, Way::Append, Way::Replace][random.below(3)];
        let old = fs_err::read_to_string(folder.join(file)).expect("there");
        let text = match (file, way) {
            ("data.csv", Way::Append) => format!("{old}late leaf,1\n"),
            ("data.csv", _) => old.replace("leaf", "tree"),
            (_, Way::Append) => format!("{old}printf 'more\\n' >> out/text/a.txt\n"),
            (_, _) => old.replace("begun", "risen"),
        };
        Self {
            file,
            way,
            set_back: random.once_in(2),
            text,
        }
    }

    fn make(&self, folder: &Path) {
        use std::io::Write as _;
        let path = folder.join(self.file);
        let time: SystemTime = path
            .metadata()
            .and_then(|found| found.modified())
            .expect("a time");
        match self.way {
            Way::InPlace => {
                let mut file = std::fs::OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .expect("opened");
                file.write_all(self.text.as_bytes()).expect("written");
            }
            Way::Append => fs_err::write(&path, &self.text).expect("written"),
            Way::Replace => {
                let beside = folder.join(format!("{}.new", self.file));
                fs_err::write(&beside, &self.text).expect("written");
                fs_err::rename(beside, &path).expect("renamed");
            }
        }
        if self.set_back {
            let file = std::fs::File::open(&path).expect("opened");
            file.set_modified(time).expect("set");
        }
    }
}

struct Editor<'e> {
    folder: PathBuf,
    edit: &'e Edit,
    /// The call behind which the edit is made.
    at: usize,
    /// Whether only calls about the file itself count: so that no window between two of them is too short.
    close: bool,
    counted: usize,
    /// The calls since the edit.
    since: Option<usize>,
}

impl Watcher for Editor<'_> {
    fn before(&mut self, _: &Call) -> Verdict {
        Verdict::Go
    }

    fn after(&mut self, call: &Call, _: i64) {
        if let Some(since) = &mut self.since {
            *since += 1;
            return;
        }
        if self.close && !call.paths.iter().any(|path| path.ends_with(self.edit.file)) {
            return;
        }
        self.counted += 1;
        if self.counted == self.at {
            self.edit.make(&self.folder);
            self.since = Some(0);
        }
    }
}
