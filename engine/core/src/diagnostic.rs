//! Problems of a pipeline, each with its place; all of them at once.

use std::fmt;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode, SourceSpan,
    ThemeCharacters, ThemeStyles,
};
use serde_json::json;

use crate::node::Span;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The pipeline cannot run.
    Error,
    /// It can, but probably not as it was meant.
    Warning,
}

impl Severity {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A problem.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What sort of problem: `unknown-key`. Never changes, so that programs can rely on it.
    pub code: &'static str,
    /// What is wrong, one sentence, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where; nowhere if it is about a whole file.
    pub span: Option<Span>,
    /// What to write under the place.
    pub label: Option<String>,
    /// Other places that belong to it.
    pub related: Vec<(Span, String)>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            ..Self::about_file(code, message)
        }
    }

    /// A warning at a place.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, span, message)
        }
    }

    /// An error about a whole file.
    pub fn about_file(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            help: None,
            span: None,
            label: None,
            related: Vec::new(),
        }
    }

    /// With a remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With a remedy, where there is one.
    #[must_use]
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    /// With words under the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// With another place that belongs to it.
    #[must_use]
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }
}

/// A text that places are in: the pipeline file, a word of the command line.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name: a path, `--set lr=abc`.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// The line and the column (in characters) of a byte, both from 1.
    pub fn line_and_column(&self, byte: u32) -> (usize, usize) {
        let byte = (byte as usize).min(self.text.len());
        let before = self.text.get(..byte).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before[start..].chars().count() + 1)
    }
}

/// Problems and the texts that they are about.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The texts, by [`Span::source`].
    pub sources: Vec<Source>,
    /// The problems, sorted by place.
    pub diagnostics: Vec<Diagnostic>,
}

/// How a report is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// For pipes and logs: no colours, ASCII only.
    Plain,
    /// For terminals without colours.
    Unicode,
    /// For terminals.
    Colours,
}

/// More problems than this are counted, not shown.
const SHOWN: usize = 50;

impl Report {
    /// Problems of these texts, sorted by place.
    pub fn new(sources: Vec<Source>, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by(|a, b| (a.span, a.code, &a.message).cmp(&(b.span, b.code, &b.message)));
        diagnostics.dedup_by(|a, b| (a.span, a.code, &a.message) == (b.span, b.code, &b.message));
        Self {
            sources,
            diagnostics,
        }
    }

    /// Whether there are errors, not only warnings.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many problems are of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        let all = self.diagnostics.iter();
        all.filter(|diagnostic| diagnostic.severity == severity)
            .count()
    }

    /// For people: every problem with its line and an underline, `width` columns wide; then how many there are.
    pub fn render(&self, look: Look, width: usize) -> String {
        let handler = GraphicalReportHandler::new_themed(theme(look))
            .with_width(width)
            .with_links(false)
            .with_context_lines(1);
        let mut text = String::new();
        for diagnostic in self.diagnostics.iter().take(SHOWN) {
            let shown = Shown {
                diagnostic,
                source: self.source_of(diagnostic).map(|source| {
                    let language = "yaml";
                    NamedSource::new(&source.name, source.text.clone()).with_language(language)
                }),
                sources: &self.sources,
            };
            let mut one = String::new();
            if handler.render_report(&mut one, &shown).is_err() {
                one = format!("{}\n", diagnostic.message);
            }
            if !text.is_empty() {
                text.push('\n');
            }
            for line in one.lines() {
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        if self.diagnostics.len() > SHOWN {
            let more = self.diagnostics.len() - SHOWN;
            text.push_str(&format!("and {more} more\n"));
        }
        let counts: Vec<_> = [(errors, "error"), (warnings, "warning")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}{}", if count == 1 { "" } else { "s" }))
            .collect();
        if !counts.is_empty() {
            text.push('\n');
            text.push_str(&counts.join(", "));
            text.push('\n');
        }
        text
    }

    /// For programs: `{"diagnostics": [{"severity", "code", "message", "help", "file", "line", "column", "span"}]}`.
    pub fn to_json(&self) -> serde_json::Value {
        let all = self.diagnostics.iter().map(|diagnostic| {
            let source = self.source_of(diagnostic);
            let place = diagnostic
                .span
                .zip(source)
                .map(|(span, source)| (source.line_and_column(span.start), span));
            json!({
                "severity": diagnostic.severity.name(),
                "code": diagnostic.code,
                "message": diagnostic.message,
                "help": diagnostic.help,
                "file": source.map(|source| &source.name),
                "line": place.map(|((line, _), _)| line),
                "column": place.map(|((_, column), _)| column),
                "span": place.map(|(_, span)| [span.start, span.end]),
            })
        });
        json!({ "diagnostics": all.collect::<Vec<_>>() })
    }

    fn source_of(&self, diagnostic: &Diagnostic) -> Option<&Source> {
        let index = diagnostic.span.map_or(0, |span| span.source as usize);
        self.sources.get(index)
    }
}

fn theme(look: Look) -> GraphicalTheme {
    let characters = match look {
        Look::Plain => ThemeCharacters::ascii(),
        Look::Unicode | Look::Colours => ThemeCharacters::unicode(),
    };
    let styles = match look {
        Look::Plain | Look::Unicode => ThemeStyles::none(),
        Look::Colours => ThemeStyles::ansi(),
    };
    GraphicalTheme { characters, styles }
}

/// A diagnostic as miette draws it.
struct Shown<'r> {
    diagnostic: &'r Diagnostic,
    source: Option<NamedSource<String>>,
    sources: &'r [Source],
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostic.fmt(f)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Where there is no line to show, the message has to name the file.
        match (self.diagnostic.span, &self.source) {
            (None, Some(source)) => {
                write!(f, "{}: {}", source.name(), self.diagnostic.message)
            }
            _ => f.write_str(&self.diagnostic.message),
        }
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.diagnostic.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.diagnostic.span?;
        self.source.as_ref().map(|source| source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let primary = self.diagnostic.span?;
        let first = LabeledSpan::new_primary_with_span(
            self.diagnostic.label.clone(),
            source_span(primary, self.sources),
        );
        let related = self.diagnostic.related.iter();
        let same_source = related.filter(move |(span, _)| span.source == primary.source);
        let others = same_source.map(|(span, label)| {
            LabeledSpan::new_with_span(Some(label.clone()), source_span(*span, self.sources))
        });
        Some(Box::new(std::iter::once(first).chain(others)))
    }
}

/// A span of the first line only, within the text.
fn source_span(span: Span, sources: &[Source]) -> SourceSpan {
    let text = sources
        .get(span.source as usize)
        .map_or("", |source| source.text.as_str());
    let start = (span.start as usize).min(text.len());
    let end = (span.end as usize).clamp(start, text.len());
    let covered = text.get(start..end).unwrap_or_default();
    let line = covered.lines().next().unwrap_or_default().trim_end();
    SourceSpan::new(start.into(), line.len())
}

/// The candidate that `name` was probably meant to be.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let folded = fold(name);
    let length = folded.chars().count();
    let allowed = length.div_ceil(3).clamp(1, 4).min(length.saturating_sub(1));
    candidates
        .into_iter()
        .map(|candidate| (distance(&folded, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Case, `-` and `_` do not count.
fn fold(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// Edits between two names; a plural or a longer form of the same word is near.
fn distance(a: &str, b: &str) -> usize {
    let longer = a.len() >= 4 && b.starts_with(a) || b.len() >= 4 && a.starts_with(b);
    let edits = strsim::damerau_levenshtein(a, b);
    if longer { edits.min(1) } else { edits }
}

/// ``did you mean `x`?`` where something is near, else the list of what there is.
pub fn suggest<'c>(
    name: &str,
    what: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    if let Some(near) = nearest(name, candidates.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let shown = list(candidates.iter().copied().take(24));
    match candidates.len() {
        0 => None,
        1..=24 => Some(format!("{what}: {shown}")),
        more => Some(format!("{what}: {shown} and {} more", more - 24)),
    }
}

/// `` `a`, `b` ``.
pub fn list<'c>(names: impl IntoIterator<Item = &'c str>) -> String {
    let quoted: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// `a`, `a or b`, `a, b or c`.
pub fn either<S: AsRef<str>>(words: &[S]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// `a dataset`, `an evaluate`.
pub fn with_article(word: &str) -> String {
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {word}", if vowel { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let kinds = ["train", "tokenize", "evaluate", "split"];
        for (name, near) in [
            ("trian", Some("train")),
            ("Train", Some("train")),
            ("tokenise", Some("tokenize")),
            ("eval", Some("evaluate")),
            ("splits", Some("split")),
            ("banana", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, kinds), near, "{name}");
        }
        assert_eq!(nearest("batchsize", ["batch_size"]), Some("batch_size"));
        assert_eq!(nearest("batch-size", ["batch_size"]), Some("batch_size"));
    }

    #[test]
    fn a_report_is_sorted_and_drawn() {
        let source = Source {
            name: "a.yaml".to_owned(),
            text: "one: 1\ntwo: zwöi\n".to_owned(),
        };
        let span = |start, end| Span {
            source: 0,
            start,
            end,
        };
        let report = Report::new(
            vec![source],
            vec![
                Diagnostic::warning("late", span(12, 17), "this comes second"),
                Diagnostic::error("early", span(0, 3), "this comes first")
                    .help("write `eins`")
                    .label("here"),
            ],
        );
        insta::assert_snapshot!(report.render(Look::Plain, 80), @r"
        early

          x this comes first
           ,-[a.yaml:1:1]
         1 | one: 1
           : ^|^
           :  `-- here
         2 | two: zwöi
           `----
          help: write `eins`

        late

          ! this comes second
           ,-[a.yaml:2:6]
         1 | one: 1
         2 | two: zwöi
           :      ^^^^
           `----

        1 error, 1 warning
        ");
        assert_eq!(report.to_json()["diagnostics"][1]["line"], 2);
        assert_eq!(report.to_json()["diagnostics"][1]["column"], 6);
    }
}
