//! The pipeline file as it is written: its parts, with kinds found and nothing put in yet.

use std::time::Duration;

use taper_cache::manifest::is_portable;

use crate::diagnostic::{Diagnostic, nearest, suggest};
use crate::node::{Entry, Meaning, Node, Shape, Span};
use crate::params::is_name;
use crate::plan::{DeviceChoice, StageSettings};
use crate::registry::{AnyKind, Kinds};
use crate::size;

/// The keys of a pipeline file.
pub const KEYS: [&str; 7] = [
    "taper",
    "name",
    "description",
    "seed",
    "params",
    "matrix",
    "stages",
];

/// What may stand beside a stage's kind.
pub const SETTINGS: [&str; 9] = [
    "device",
    "seed",
    "retries",
    "timeout",
    "cores",
    "memory",
    "export",
    "frozen",
    "description",
];

/// A pipeline as written.
pub struct Pipeline<'n> {
    /// Its name.
    pub name: Option<&'n str>,
    /// What it is for.
    pub description: Option<&'n str>,
    /// The seed.
    pub seed: Option<&'n Node>,
    /// The params.
    pub params: &'n [Entry],
    /// The matrix.
    pub matrix: Option<&'n Node>,
    /// The stages.
    pub stages: Vec<StageText<'n>>,
    /// The names of stages that cannot be read, which is reported.
    pub unread: Vec<&'n str>,
}

/// A stage as written.
pub struct StageText<'n> {
    /// Its name.
    pub name: &'n str,
    /// Where its name stands.
    pub span: Span,
    /// Its kind.
    pub kind: &'static dyn AnyKind,
    /// Where its kind's name stands.
    pub kind_span: Span,
    /// What stands below the kind.
    pub body: &'n Node,
    /// What stands beside it.
    pub settings: Vec<&'n Entry>,
}

/// Takes a pipeline apart. Reports all that is wrong with its parts; what is wrong is left out.
pub fn read<'n>(node: &'n Node, kinds: Kinds, problems: &mut Vec<Diagnostic>) -> Pipeline<'n> {
    let mut pipeline = Pipeline {
        name: None,
        description: None,
        seed: None,
        params: &[],
        matrix: None,
        stages: Vec::new(),
        unread: Vec::new(),
    };
    let Some(entries) = node.entries() else {
        let message = format!("a pipeline file is a map, found {}", node.describe());
        problems.push(
            Diagnostic::error("not-a-pipeline", node.span, message)
                .help("it begins with `taper: 1` and has `stages:`"),
        );
        return pipeline;
    };
    for entry in entries {
        match entry.key.as_str() {
            "taper" => version(&entry.value, problems),
            "name" => pipeline.name = text(entry, problems),
            "description" => pipeline.description = text(entry, problems),
            "seed" => pipeline.seed = Some(&entry.value),
            "params" => pipeline.params = names(entry, "params", problems),
            "matrix" => pipeline.matrix = Some(&entry.value),
            "stages" => {
                let stages = names(entry, "stages", problems);
                for entry in stages {
                    match stage(entry, kinds, problems) {
                        Some(stage) => pipeline.stages.push(stage),
                        None => pipeline.unread.push(&entry.key),
                    }
                }
                if entry.value.entries().is_some_and(<[_]>::is_empty) || entry.value.is_null() {
                    problems.push(no_stages(entry.key_span, "`stages` is empty"));
                }
            }
            unknown => {
                let message = format!("there is no key `{unknown}` in a pipeline file");
                let help = match kinds.get(unknown) {
                    Some(_) => Some(format!(
                        "`{unknown}` is a kind: it stands in a stage, `stages: {{ NAME: {{ {unknown}: … }} }}`"
                    )),
                    None => suggest(unknown, "known keys", KEYS),
                };
                problems.push(
                    Diagnostic::error("unknown-key", entry.key_span, message).maybe_help(help),
                );
            }
        }
    }
    let start = Span {
        end: node.span.start,
        ..node.span
    };
    if node.get("taper").is_none() {
        problems.push(
            Diagnostic::error("missing-version", start, "`taper: 1` is missing")
                .help("begin the file with `taper: 1`: it says which rules the file follows"),
        );
    }
    let meant = |entry: &Entry| nearest(&entry.key, KEYS) == Some("stages");
    if !entries.iter().any(meant) {
        problems.push(no_stages(start, "`stages` is missing"));
    }
    pipeline
}

fn no_stages(span: Span, message: &str) -> Diagnostic {
    Diagnostic::error("no-stages", span, message)
        .help("a stage is a name with its kind below it: `stages: { data: { download: { … } } }`")
}

fn version(node: &Node, problems: &mut Vec<Diagnostic>) {
    if node.meaning() == Some(Meaning::Integer(1)) {
        return;
    }
    let message = format!(
        "this program reads pipelines of version 1, found {}",
        node.describe()
    );
    let help = match node.meaning() {
        Some(Meaning::Integer(version)) if version > 1 => "a newer program is needed",
        _ => "write `taper: 1`",
    };
    problems.push(Diagnostic::error("unsupported-version", node.span, message).help(help));
}

fn text<'n>(entry: &'n Entry, problems: &mut Vec<Diagnostic>) -> Option<&'n str> {
    match &entry.value.shape {
        Shape::Scalar(scalar) if !entry.value.is_null() => Some(&scalar.text),
        _ => {
            problems.push(wrong_type(entry, "a text"));
            None
        }
    }
}

fn wrong_type(entry: &Entry, wants: &str) -> Diagnostic {
    let message = format!(
        "`{}` wants {wants}, found {}",
        entry.key,
        entry.value.describe()
    );
    Diagnostic::error("wrong-type", entry.value.span, message)
}

/// A map from names; those that cannot be one are reported.
fn names<'n>(entry: &'n Entry, what: &str, problems: &mut Vec<Diagnostic>) -> &'n [Entry] {
    let Some(entries) = entry.value.entries() else {
        if !entry.value.is_null() {
            problems.push(wrong_type(entry, "a map"));
        }
        return &[];
    };
    for named in entries {
        if !is_name(&named.key) {
            let message = format!("`{}` cannot be a name in `{what}`", named.key);
            problems.push(
                Diagnostic::error("bad-name", named.key_span, message)
                    .help("a name begins with a letter and has letters, digits, `_` and `-`"),
            );
        }
    }
    entries
}

fn stage<'n>(
    entry: &'n Entry,
    kinds: Kinds,
    problems: &mut Vec<Diagnostic>,
) -> Option<StageText<'n>> {
    let Some(entries) = entry.value.entries() else {
        let message = format!(
            "the stage `{}` wants a map with its kind, found {}",
            entry.key,
            entry.value.describe()
        );
        problems.push(
            Diagnostic::error("wrong-type", entry.value.span, message)
                .help(format!("`{}: {{ KIND: {{ … }} }}`", entry.key)),
        );
        return None;
    };
    let (mut found, mut settings) = (Vec::new(), Vec::new());
    let mut unknown = false;
    for part in entries {
        if let Some(kind) = kinds.get(&part.key) {
            found.push((kind, part));
        } else if SETTINGS.contains(&part.key.as_str()) {
            settings.push(part);
        } else {
            unknown = true;
            let message = format!("`{}` is neither a kind nor a setting of a stage", part.key);
            let known = kinds.iter().map(AnyKind::name).chain(SETTINGS);
            problems.push(
                Diagnostic::error("unknown-kind", part.key_span, message).maybe_help(suggest(
                    &part.key,
                    "there are",
                    known,
                )),
            );
        }
    }
    match found.as_slice() {
        [(kind, part)] => Some(StageText {
            name: &entry.key,
            span: entry.key_span,
            kind: *kind,
            kind_span: part.key_span,
            body: &part.value,
            settings,
        }),
        [] if unknown => None,
        [] => {
            let kinds: Vec<_> = kinds.iter().map(AnyKind::name).collect();
            problems.push(
                Diagnostic::error(
                    "missing-kind",
                    entry.key_span,
                    format!("the stage `{}` has no kind", entry.key),
                )
                .help(format!("kinds: {}", kinds.join(", "))),
            );
            None
        }
        [(first, first_part), more @ ..] => {
            for (second, part) in more {
                let message = format!(
                    "the stage `{}` has two kinds, `{}` and `{}`",
                    entry.key,
                    first.name(),
                    second.name()
                );
                problems.push(
                    Diagnostic::error("two-kinds", part.key_span, message)
                        .related(first_part.key_span, "the first kind")
                        .help("make two stages of it"),
                );
            }
            None
        }
    }
}

/// The settings of a stage, params put in, and its own seed. Reports what is wrong.
pub fn settings(
    entries: &[(&Entry, Node)],
    problems: &mut Vec<Diagnostic>,
) -> (StageSettings, Option<u64>) {
    let mut settings = StageSettings::default();
    let mut seed = None;
    for (entry, value) in entries {
        let name = entry.key.as_str();
        let text = match &value.shape {
            Shape::Scalar(scalar) if !value.is_null() => Some(scalar.text.as_str()),
            _ => None,
        };
        let outcome = match (name, value.meaning(), text) {
            ("description", _, Some(text)) => {
                settings.description = Some(text.to_owned());
                Ok(())
            }
            ("seed", ..) => read_seed(value).map(|value| seed = Some(value)),
            ("device", _, Some(text)) => device(text).map(|device| {
                settings.device = device;
                settings.device_span = Some(value.origin.unwrap_or(value.span));
            }),
            ("retries", Some(Meaning::Integer(count @ 0..=1000)), _) => {
                settings.retries = count as u32;
                Ok(())
            }
            ("timeout", _, Some(text)) => {
                duration(text).map(|timeout| settings.timeout = Some(timeout))
            }
            ("cores", Some(Meaning::Integer(count @ 1..=65_536)), _) => {
                settings.cores = count as usize;
                Ok(())
            }
            ("memory", _, Some(text)) => memory(text).map(|memory| settings.memory = memory),
            ("export", Some(Meaning::Text(path)), _) => {
                export(path).map(|path| settings.export = Some(path))
            }
            ("frozen", Some(Meaning::Bool(frozen)), _) => {
                settings.frozen = frozen;
                Ok(())
            }
            _ => Err(Wrong {
                help: match (name, text) {
                    ("frozen", Some("yes" | "on")) => Some("write true".to_owned()),
                    ("frozen", Some("no" | "off")) => Some("write false".to_owned()),
                    _ => None,
                },
                ..Wrong::new(format!(
                    "`{name}` wants {}, found {}",
                    wanted(name),
                    value.describe()
                ))
            }),
        };
        if let Err(wrong) = outcome {
            let mut problem =
                Diagnostic::error(wrong.code, value.span, wrong.message).maybe_help(wrong.help);
            if let Some(origin) = value.origin {
                problem = problem.related(origin, "the value is given here");
            }
            problems.push(problem);
        }
    }
    (settings, seed)
}

fn wanted(setting: &str) -> &'static str {
    match setting {
        "device" => "`auto`, `cpu`, `cuda`, `cuda:N` or `metal`",
        "retries" => "a whole number from 0 to 1000",
        "timeout" => "a time such as `90s`, `5m` or `2h`",
        "cores" => "a whole number from 1 to 65536",
        "memory" => "a size such as `8GB`",
        "export" => "a path in the project",
        "frozen" => "true or false",
        _ => "a text",
    }
}

/// What is wrong with a setting.
pub struct Wrong {
    code: &'static str,
    message: String,
    help: Option<String>,
}

impl Wrong {
    fn new(message: String) -> Self {
        Self {
            code: "wrong-type",
            message,
            help: None,
        }
    }

    /// As a problem at a place.
    pub fn at(self, span: Span) -> Diagnostic {
        Diagnostic::error(self.code, span, self.message).maybe_help(self.help)
    }
}

/// A seed: a whole number of 64 bits without a sign.
///
/// # Errors
/// Where it is something else.
pub fn read_seed(value: &Node) -> Result<u64, Wrong> {
    match value.meaning() {
        Some(Meaning::Integer(seed)) => u64::try_from(seed).map_err(|_| Wrong {
            code: "out-of-range",
            message: format!("`seed` has to be at least 0, found {seed}"),
            help: None,
        }),
        meaning => Err(Wrong {
            help: match (&value.shape, meaning) {
                (Shape::Scalar(scalar), Some(Meaning::Text(_))) => scalar.number_hint(),
                _ => None,
            },
            ..Wrong::new(format!(
                "`seed` wants a whole number, found {}",
                value.describe()
            ))
        }),
    }
}

fn device(text: &str) -> Result<DeviceChoice, Wrong> {
    text.parse().map_err(|message| Wrong {
        code: "unknown-choice",
        message,
        help: match text {
            "gpu" => Some("write `cuda` or `metal`".to_owned()),
            _ => suggest(text, "devices", ["auto", "cpu", "cuda", "cuda:0", "metal"]),
        },
    })
}

fn memory(text: &str) -> Result<u64, Wrong> {
    size::parse(text).map_err(|why| Wrong {
        help: Some(why),
        ..Wrong::new(format!(
            "`memory` wants a size such as `8GB`, found `{text}`"
        ))
    })
}

/// Numbers with units, largest first; a number alone is seconds.
fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || Wrong {
        help: Some("write `90s`, `5m`, `1h30m`, or a number of seconds".to_owned()),
        ..Wrong::new(format!("`timeout` wants a time, found `{text}`"))
    };
    let seconds = if let Ok(seconds) = text.parse::<f64>() {
        seconds
    } else {
        let (mut rest, mut total, mut last_unit) = (text, 0.0, f64::INFINITY);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
            let (number, after) = rest.split_at(digits.ok_or_else(wrong)?);
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let letters = after.find(|c: char| !c.is_ascii_alphabetic());
            let (unit, after) = after.split_at(letters.unwrap_or(after.len()));
            let unit = match unit {
                "ms" => 1e-3,
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return Err(wrong()),
            };
            if unit >= last_unit {
                return Err(wrong());
            }
            total += number * unit;
            last_unit = unit;
            rest = after;
        }
        total
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(timeout) if timeout > Duration::ZERO => Ok(timeout),
        _ => Err(wrong()),
    }
}

/// A path below the project's root, `.` parts taken out.
fn export(path: &str) -> Result<String, Wrong> {
    let refused = |why: &str| Wrong {
        code: "unsafe-path",
        message: format!("`export: {path}` {why}"),
        help: Some("give a path inside the project, such as `results/scores.json`".to_owned()),
    };
    inside(path).map_err(refused).and_then(|path| {
        for part in path.split('/') {
            // Where case does not count, these are the same folders.
            if [".taper", ".git"].contains(&part.to_lowercase().as_str()) {
                return Err(refused(
                    "would write into a folder that other programs keep",
                ));
            }
            is_portable(part).map_err(|why| refused(&format!("cannot stand everywhere: {why}")))?;
        }
        Ok(path)
    })
}

/// A relative path that stays where it is, `.` parts taken out.
///
/// # Errors
/// Why it does not.
pub fn inside(path: &str) -> Result<String, &'static str> {
    if path.starts_with(['/', '\\', '~']) || path.get(1..2) == Some(":") {
        return Err("is absolute");
    }
    if path.contains('\\') {
        return Err("has a `\\` in it, which is a name here and a folder there");
    }
    if path.chars().any(char::is_control) {
        return Err("has a control character in it");
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err("leaves the project");
                }
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err("names the project itself");
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, seconds) in [
            ("90s", Some(90.0)),
            ("5m", Some(300.0)),
            ("1h30m", Some(5400.0)),
            ("2", Some(2.0)),
            ("0.5", Some(0.5)),
            ("250ms", Some(0.25)),
            ("30m1h", None),
            ("5 m", None),
            ("m", None),
            ("0", None),
            ("-1", None),
            ("1e300", None),
            ("nan", None),
        ] {
            let read = duration(text).ok().map(|time| time.as_secs_f64());
            assert_eq!(read, seconds, "{text}");
        }
    }

    #[test]
    fn exports_stay_in_the_project() {
        for (path, stays) in [
            ("results/scores.json", Some("results/scores.json")),
            ("./results//a/../b.svg", Some("results/b.svg")),
            ("../a", None),
            ("a/../../b", None),
            ("/etc/passwd", None),
            ("C:/a", None),
            ("~/a", None),
            ("a\\b", None),
            (".", None),
            ("", None),
            (".git/config", None),
            ("./.taper/x", None),
        ] {
            assert_eq!(export(path).ok().as_deref(), stays, "{path}");
        }
    }
}
