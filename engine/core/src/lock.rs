//! The lock file `NAME.lock` beside a pipeline: what was resolved outside, and each stage's key and artifact.
//! Committed to git, it lets another machine ask nobody and compare what it makes.
//!
//! ```yaml
//! # taper's lock of p.yaml, to be committed: what was resolved, what was made.
//! version: 1
//! stages:
//!   corpus:
//!     kind: download
//!     key: 9f2c…
//!     artifact: 41aa…
//!     request: 77b0…            # what was asked of the world outside
//!     resolved:                 # and what it answered, if anything
//!       commit: e6281661ce1c…
//!     local:                    # files of the project, by path
//!       data/more.csv: 5d1e…
//! ```
//!
//! It is YAML. Since a run in which nothing changed spends most of its time on it, exactly what is written
//! here is read line by line; anything else (an editor's reformatting) is read by the YAML library.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use taper_cache::{Digest, Key, Roots};

use crate::canonical::Value;
use crate::error::EngineError;

/// What a lock file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lock {
    /// The stages by name.
    pub stages: BTreeMap<String, LockedStage>,
}

/// What a lock file says of a stage.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedStage {
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: Key,
    /// What it made.
    pub artifact: Digest,
    /// The digest of what was asked of the world outside, where the kind asks.
    #[serde(default)]
    pub request: Option<Digest>,
    /// What was found outside.
    #[serde(default)]
    pub resolved: Option<Value>,
    /// The files of the project that it read: path as written, digest of the artifact.
    #[serde(default)]
    pub local: BTreeMap<String, Digest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    stages: Option<BTreeMap<String, LockedStage>>,
}

impl Lock {
    /// The lock file of a pipeline file: `p.yaml` has `p.lock`.
    pub fn path_of(pipeline: &Path) -> PathBuf {
        pipeline.with_extension("lock")
    }

    /// Reads a lock file; one that is not there is empty.
    ///
    /// # Errors
    /// Where it is not what this program writes.
    pub fn read(path: &Path) -> Result<Self, EngineError> {
        let text = match fs_err::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(EngineError::file("read", path)(error)),
        };
        Self::parse(&text).map_err(|message| EngineError::Lock {
            path: path.to_path_buf(),
            message,
        })
    }

    /// Reads the text of a lock file.
    ///
    /// # Errors
    /// A message for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(lock) = parse_lines(text) {
            return Ok(lock);
        }
        if text.lines().any(|line| line.starts_with("<<<<<<< ")) {
            return Err("it has the marks of a merge that git could not finish".to_owned());
        }
        let file: File = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        if file.version != 1 {
            return Err(format!(
                "it has version {}, and this program knows version 1",
                file.version
            ));
        }
        Ok(Self {
            stages: file.stages.unwrap_or_default(),
        })
    }

    /// The text of a lock file of the pipeline file called `file`.
    pub fn to_text(&self, file: &str) -> String {
        let mut text = format!(
            "# taper's lock of {file}, to be committed: what was resolved, what was made.\nversion: 1\n"
        );
        text.push_str(if self.stages.is_empty() {
            "stages: {}\n"
        } else {
            "stages:\n"
        });
        for (name, stage) in &self.stages {
            stage.write(name, &mut text);
        }
        text
    }

    /// What the cache must keep for it.
    pub fn roots(&self) -> Roots {
        let stages = self.stages.values();
        let locals = stages.clone().flat_map(|stage| stage.local.values());
        Roots {
            keys: stages.clone().map(|stage| stage.key).collect(),
            artifacts: stages
                .map(|stage| &stage.artifact)
                .chain(locals)
                .copied()
                .collect(),
        }
    }

    /// What would differ, for people: the first stage and what of it.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let names = self.stages.keys().chain(other.stages.keys());
        let mut names: Vec<&String> = names.collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().find_map(
            |name| match (self.stages.get(name), other.stages.get(name)) {
                (Some(old), Some(new)) => old
                    .difference(new)
                    .map(|what| format!("the {what} of stage `{name}`")),
                (None, Some(_)) => Some(format!("stage `{name}` is new")),
                (Some(_), None) => Some(format!("stage `{name}` is gone")),
                (None, None) => None,
            },
        )
    }
}

impl LockedStage {
    /// Which of its parts differs from `other`'s, if any does.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        [
            ("kind", self.kind != other.kind),
            ("local files", self.local != other.local),
            (
                "resolved revision",
                self.resolved != other.resolved || self.request != other.request,
            ),
            ("key", self.key != other.key),
            ("artifact", self.artifact != other.artifact),
        ]
        .into_iter()
        .find_map(|(what, differs)| differs.then_some(what))
    }

    fn write(&self, name: &str, text: &mut String) {
        let name = scalar(name);
        write!(
            text,
            "  {name}:\n    kind: {}\n    key: {}\n    artifact: {}\n",
            scalar(&self.kind),
            self.key,
            self.artifact
        )
        .expect("strings grow");
        if let Some(request) = self.request {
            writeln!(text, "    request: {request}").expect("strings grow");
        }
        if let Some(resolved) = &self.resolved {
            // Values are plain data, which YAML has a form for.
            let yaml = serde_yaml::to_string(resolved).expect("plain data");
            text.push_str("    resolved:\n");
            for line in yaml.lines() {
                writeln!(text, "      {line}").expect("strings grow");
            }
        }
        if !self.local.is_empty() {
            text.push_str("    local:\n");
            for (path, digest) in &self.local {
                writeln!(text, "      {}: {digest}", scalar(path)).expect("strings grow");
            }
        }
    }
}

/// A text as YAML: as it is where nothing in it could be read otherwise, else in double quotes.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-./[]=".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if plain {
        text.to_owned()
    } else {
        // JSON's form, with what YAML takes for the end of a line or for nothing written out.
        let quoted = serde_json::Value::from(text).to_string();
        quoted
            .chars()
            .map(|c| match c {
                '\u{7f}'..='\u{9f}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{feff}'
                | '\u{fffe}'
                | '\u{ffff}' => {
                    format!("\\u{:04x}", u32::from(c))
                }
                other => other.to_string(),
            })
            .collect()
    }
}

/// The text that [`scalar`] wrote.
fn unscalar(written: &str) -> Option<String> {
    let text = if written.starts_with('"') {
        serde_json::from_str(written).ok()?
    } else {
        written.to_owned()
    };
    (scalar(&text) == written).then_some(text)
}

/// Reads exactly what [`Lock::to_text`] writes; `None` for anything else.
fn parse_lines(text: &str) -> Option<Lock> {
    let mut lines = text.lines().peekable();
    if !lines.next()?.starts_with("# ") || lines.next()? != "version: 1" {
        return None;
    }
    let mut stages = BTreeMap::new();
    match lines.next()? {
        "stages:" => {}
        "stages: {}" if lines.next().is_none() => return Some(Lock::default()),
        _ => return None,
    }
    while let Some(line) = lines.next() {
        let name = unscalar(line.strip_prefix("  ")?.strip_suffix(':')?)?;
        let kind = unscalar(lines.next()?.strip_prefix("    kind: ")?)?;
        let key = lines.next()?.strip_prefix("    key: ")?.parse().ok()?;
        let artifact = lines.next()?.strip_prefix("    artifact: ")?.parse().ok()?;
        let mut stage = LockedStage {
            kind,
            key,
            artifact,
            request: None,
            resolved: None,
            local: BTreeMap::new(),
        };
        if let Some(request) = lines.peek().and_then(|l| l.strip_prefix("    request: ")) {
            stage.request = Some(request.parse().ok()?);
            lines.next();
        }
        if lines.next_if_eq(&"    resolved:").is_some() {
            let mut yaml = String::new();
            while let Some(line) = lines.peek().and_then(|l| l.strip_prefix("      ")) {
                yaml.push_str(line);
                yaml.push('\n');
                lines.next();
            }
            stage.resolved = Some(serde_yaml::from_str(&yaml).ok()?);
        }
        if lines.next_if_eq(&"    local:").is_some() {
            while let Some(line) = lines.peek().and_then(|l| l.strip_prefix("      ")) {
                let (path, digest) = line.rsplit_once(": ")?;
                stage.local.insert(unscalar(path)?, digest.parse().ok()?);
                lines.next();
            }
        }
        stages.insert(name, stage);
    }
    Some(Lock { stages })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::canonical::{Map, Value};

    fn stage(seed: u8) -> LockedStage {
        LockedStage {
            kind: "download".to_owned(),
            key: Key::of_ingredients(&[seed]),
            artifact: Digest::of(&[seed]),
            request: None,
            resolved: None,
            local: BTreeMap::new(),
        }
    }

    fn resolved() -> LockedStage {
        let files = Map::new(vec![(Value::text("a.parquet"), Value::text("77"))]);
        let entries = vec![
            (Value::text("commit"), Value::text("0123")),
            (Value::text("files"), Value::Map(files.expect("one key"))),
            (Value::text("size"), Value::Integer(12)),
        ];
        LockedStage {
            request: Some(Digest::of(b"request")),
            resolved: Some(Value::Map(Map::new(entries).expect("three keys"))),
            local: BTreeMap::from([("data/a b.csv".to_owned(), Digest::of(b"a"))]),
            ..stage(1)
        }
    }

    fn lock() -> Lock {
        let names = ["corpus", "model[lr=1e-3]", "no"];
        let stages = [resolved(), stage(2), stage(3)];
        Lock {
            stages: names.map(str::to_owned).into_iter().zip(stages).collect(),
        }
    }

    #[test]
    fn the_text_is_for_people_and_yaml() {
        let text = lock().to_text("p.yaml");
        insta::assert_snapshot!(text, @r#"
        # taper's lock of p.yaml, to be committed: what was resolved, what was made.
        version: 1
        stages:
          corpus:
            kind: download
            key: 62f6dfca76cf11e7691d2893e319dbe84650edfd3e7408efef392f28f006a4c5
            artifact: 48fc721fbbc172e0925fa27af1671de225ba927134802998b10a1568a188652b
            request: 154b69cbf0aaa75b1d1af2d159ed0593c3449a125287ed064c23bfd7cad0a0f9
            resolved:
              size: 12
              files:
                a.parquet: '77'
              commit: '0123'
            local:
              "data/a b.csv": 17762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215f
          model[lr=1e-3]:
            kind: download
            key: fde4a2cb52a0898a8b1b74ed28b35130981dc8373001bdaa8b46280837f75326
            artifact: ab13bedf42e84bae0f7c62c7dd6a8ada571e8829bed6ea558217f0361b5e25d0
          "no":
            kind: download
            key: 0ff904e122fd80193439b9d69554aefd1931c1ce6ce7bacd9cc3b290a5fc934b
            artifact: e1e0e81d6ea39b0cf8b86ffd440921011f57400cbc3f76a8a171906a9b8d7505
        "#);
        assert_eq!(parse_lines(&text), Some(lock()));
        let file: File = serde_yaml::from_str(&text).expect("YAML");
        assert_eq!(file.stages, Some(lock().stages));
    }

    #[test]
    fn a_reformatted_lock_is_read_all_the_same() {
        let text = lock().to_text("p.yaml");
        let other = text.replace("    kind: download", "    kind:   'download'  # a comment");
        assert_eq!(parse_lines(&other), None);
        assert_eq!(Lock::parse(&other), Ok(lock()));
        assert_eq!(
            Lock::parse(&Lock::default().to_text("p")),
            Ok(Lock::default())
        );
        assert_eq!(Lock::parse("version: 1\nstages: {}\n"), Ok(Lock::default()));
    }

    #[test]
    fn a_broken_lock_is_refused_in_words() {
        let check = |text: &str, words: &str| {
            let error = Lock::parse(text).expect_err("broken");
            assert!(error.contains(words), "{error}");
        };
        check("version: 2\nstages: {}\n", "version 2");
        check("version: 1\nstages:\n<<<<<<< HEAD\n", "merge");
        check("version: 1\nstages:\n  a: { kind: x }\n", "key");
        check("", "");
    }

    #[test]
    fn what_would_change_is_said() {
        let mut other = lock();
        assert_eq!(lock().difference(&other), None);
        if let Some(stage) = other.stages.get_mut("corpus") {
            stage.artifact = Digest::of(b"other");
        }
        let what = lock().difference(&other);
        assert_eq!(what.as_deref(), Some("the artifact of stage `corpus`"));
        other.stages.remove("corpus");
        let what = lock().difference(&other);
        assert_eq!(what.as_deref(), Some("stage `corpus` is gone"));
    }

    proptest! {
        #[test]
        fn both_readers_agree_for_any_name(
            name in "[^\\p{C}]{1,20}",
            path in "[^\\p{C}]{1,20}",
            commit in "[0-9a-f_.x+-]{1,12}",
        ) {
            let mut locked = stage(4);
            let entries = vec![(Value::text(&commit), Value::text(&commit))];
            locked.resolved = Some(Value::Map(Map::new(entries).expect("one key")));
            locked.local.insert(path, Digest::of(b"b"));
            let lock = Lock { stages: BTreeMap::from([(name, locked)]) };
            let text = lock.to_text("p.yaml");
            prop_assert_eq!(parse_lines(&text), Some(lock.clone()));
            let file: File = serde_yaml::from_str(&text).expect("YAML");
            prop_assert_eq!(file.stages, Some(lock.stages));
        }
    }
}
