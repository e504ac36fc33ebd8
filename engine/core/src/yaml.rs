//! YAML text to a tree of plain data with places. The only file that knows the YAML parser.
//!
//! Plain data only: tags are refused, keys are scalars and no key stands twice in a map. Anchors, aliases
//! and merge keys (`<<`) are expanded here, within a budget, so that a small text cannot grow without bound.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use crate::diagnostic::Diagnostic;
use crate::node::{Entry, Node, Scalar, Shape, Span};

/// The largest file that is read, in bytes.
pub const LARGEST_FILE: u64 = 16 << 20;
/// The deepest nesting, aliases expanded.
const DEEPEST: usize = 64;
/// The most nodes that aliases may add.
const MOST_FROM_ALIASES: usize = 100_000;

/// A text that is YAML; its problems are those that do not hide others.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The whole document.
    pub node: Node,
    /// Duplicate keys, tags, keys that are no scalars.
    pub problems: Vec<Diagnostic>,
}

/// Checks that bytes are UTF-8.
///
/// # Errors
/// The place of the first byte that is not.
pub fn decode(bytes: &[u8]) -> Result<&str, Box<Diagnostic>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let start = u32::try_from(error.valid_up_to()).unwrap_or(u32::MAX);
        let place = Span {
            source: 0,
            start,
            end: start,
        };
        if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] = bytes {
            let problem = Diagnostic::about_file("not-utf8", "it is UTF-16, not UTF-8");
            return problem.help("save the file as UTF-8").into();
        }
        let message = format!(
            "the file is not UTF-8: byte {} is {:#04x}",
            error.valid_up_to(),
            bytes[error.valid_up_to()]
        );
        Diagnostic::error("not-utf8", place, message)
            .help("save the file as UTF-8")
            .into()
    })
}

/// Parses one document.
///
/// # Errors
/// What makes the text no YAML, or more than the budgets allow.
pub fn parse(text: &str, source: u32) -> Result<Parsed, Box<Diagnostic>> {
    let places = Places::new(text, source);
    if text.len() as u64 > LARGEST_FILE {
        return Err(too_large(text.len() as u64).into());
    }
    let mut builder = Builder {
        text,
        frames: Vec::new(),
        anchors: BTreeMap::new(),
        nodes: 0,
        from_aliases: 0,
        root: None,
        problems: Vec::new(),
    };
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax_error(text, &places, &error))?;
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                return Err(Diagnostic::error(
                    "several-documents",
                    places.span(span.start, span.end),
                    "a pipeline file is one YAML document, this is a second",
                )
                .help("put the second pipeline into a file of its own")
                .into());
            }
        }
        builder.event(event, places.span(span.start, span.end))?;
    }
    match builder.root {
        Some(node) if !node.is_null() => Ok(Parsed {
            node,
            problems: builder.problems,
        }),
        _ => Err(
            Diagnostic::about_file("empty-file", "there is nothing in it")
                .help("`taper new` writes a pipeline to start from")
                .into(),
        ),
    }
}

/// The problem of a file of so many bytes.
pub fn too_large(bytes: u64) -> Diagnostic {
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    Diagnostic::about_file(
        "file-too-large",
        format!(
            "it has {} MiB, a pipeline file has at most {}",
            mebibytes(bytes),
            mebibytes(LARGEST_FILE)
        ),
    )
    .help("data belongs into files of its own, which a `download` stage reads by their `path`")
}

/// The parser counts characters, places are bytes.
struct Places {
    source: u32,
    /// The byte of every 64th character; nothing where each character is a byte.
    checkpoints: Vec<u32>,
    text: String,
}

impl Places {
    fn new(text: &str, source: u32) -> Self {
        if text.is_ascii() {
            return Self {
                source,
                checkpoints: Vec::new(),
                text: String::new(),
            };
        }
        let every_64th = text.char_indices().step_by(64);
        Self {
            source,
            checkpoints: every_64th.map(|(byte, _)| byte as u32).collect(),
            text: text.to_owned(),
        }
    }

    fn byte(&self, mark: Marker) -> u32 {
        let index = mark.index();
        if self.checkpoints.is_empty() {
            return index as u32;
        }
        let Some(checkpoint) = self.checkpoints.get(index / 64) else {
            return self.text.len() as u32;
        };
        let rest = &self.text[*checkpoint as usize..];
        let within = rest.char_indices().nth(index % 64);
        checkpoint + within.map_or(rest.len(), |(byte, _)| byte) as u32
    }

    fn span(&self, start: Marker, end: Marker) -> Span {
        let start = self.byte(start);
        Span {
            source: self.source,
            start,
            end: self.byte(end).max(start),
        }
    }
}

struct Anchor {
    node: Node,
    nodes: usize,
    depth: usize,
}

/// A list or a map that is being read.
struct Frame {
    span: Span,
    anchor: usize,
    /// How many nodes there were before it.
    before: usize,
    /// How deep what is in it goes.
    depth: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// What `<<` brings in; it gives way to what is written.
        merged: Vec<Entry>,
        key: Option<Key>,
    },
}

struct Key {
    text: String,
    span: Span,
    /// Whether it is `<<`.
    merges: bool,
}

struct Builder<'t> {
    text: &'t str,
    frames: Vec<Frame>,
    /// By the parser's number; nothing while the anchor's own node is being read.
    anchors: BTreeMap<usize, Anchor>,
    nodes: usize,
    from_aliases: usize,
    root: Option<Node>,
    problems: Vec<Diagnostic>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Diagnostic>> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse(tag.as_deref(), span);
                self.nodes += 1;
                let quoted = style != ScalarStyle::Plain;
                let scalar = Scalar {
                    text: text.into_owned(),
                    quoted,
                };
                let node = Node::scalar(self.trimmed(span), scalar);
                self.keep(anchor, &node, 1, 0);
                self.place(node, 0);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse(tag.as_deref(), span);
                self.open(span, anchor, Inside::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse(tag.as_deref(), span);
                let inside = Inside::Map {
                    entries: Vec::new(),
                    merged: Vec::new(),
                    key: None,
                };
                self.open(span, anchor, inside)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => self.alias(anchor, span)?,
            _ => {}
        }
        Ok(())
    }

    fn refuse(&mut self, tag: Option<&Tag>, span: Span) {
        if let Some(tag) = tag {
            let written = self.text[span.start as usize..].split_whitespace().next();
            let written = written.map_or(tag.to_string(), str::to_owned);
            let problem = Diagnostic::error(
                "yaml-tag",
                span,
                format!("`{written}` is a tag: pipelines are plain data, without tags"),
            );
            self.problems
                .push(problem.help("leave it out; quotes make a text of anything"));
        }
    }

    /// A span without the line ends that the parser counts in.
    fn trimmed(&self, span: Span) -> Span {
        let covered = self.text.get(span.start as usize..span.end as usize);
        let length = covered.map_or(0, |text| text.trim_end().len()) as u32;
        Span {
            end: span.start + length,
            ..span
        }
    }

    fn open(&mut self, span: Span, anchor: usize, inside: Inside) -> Result<(), Box<Diagnostic>> {
        if self.frames.len() >= DEEPEST {
            return Err(too_deep(span).into());
        }
        self.frames.push(Frame {
            span,
            anchor,
            before: self.nodes,
            depth: 0,
            inside,
        });
        self.nodes += 1;
        Ok(())
    }

    fn close(&mut self, end: Span) {
        let frame = self.frames.pop().expect("the parser closes what it opened");
        let flow = self.text[frame.span.start as usize..].starts_with(['[', '{']);
        let last = match &frame.inside {
            Inside::List(items) => items.last().map(|item| item.span.end),
            Inside::Map { entries, .. } => entries
                .last()
                .map(|entry| entry.value.span.end.max(entry.key_span.end)),
        };
        let span = Span {
            end: match last {
                Some(last) if !flow && last > frame.span.start => last,
                _ => end.end.max(frame.span.end),
            },
            ..frame.span
        };
        let shape = match frame.inside {
            Inside::List(items) => Shape::List(items),
            Inside::Map {
                entries, merged, ..
            } => {
                let written = self.without_duplicates(entries);
                Shape::Map(with_merged(written, merged))
            }
        };
        let node = Node {
            span,
            origin: None,
            shape,
        };
        let depth = frame.depth + 1;
        self.keep(frame.anchor, &node, self.nodes - frame.before, depth);
        self.place(node, depth);
    }

    /// Remembers the node of an anchor.
    fn keep(&mut self, anchor: usize, node: &Node, nodes: usize, depth: usize) {
        if anchor != 0 {
            let node = node.clone();
            self.anchors.insert(anchor, Anchor { node, nodes, depth });
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Box<Diagnostic>> {
        let Some(anchor) = self.anchors.get(&anchor) else {
            return Err(Diagnostic::error(
                "recursive-anchor",
                span,
                "the anchor that this names is around it",
            )
            .help("an anchor cannot hold itself")
            .into());
        };
        self.from_aliases += anchor.nodes;
        if self.from_aliases > MOST_FROM_ALIASES {
            return Err(Diagnostic::error(
                "too-many-aliases",
                span,
                format!("aliases stand for more than {MOST_FROM_ALIASES} values here"),
            )
            .help("write out what is repeated, or make several pipelines")
            .into());
        }
        if self.frames.len() + anchor.depth > DEEPEST {
            return Err(too_deep(span).into());
        }
        self.nodes += anchor.nodes;
        let (node, depth) = (anchor.node.clone(), anchor.depth);
        self.place(node, depth);
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, node: Node, depth: usize) {
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return;
        };
        frame.depth = frame.depth.max(depth);
        match &mut frame.inside {
            Inside::List(items) => items.push(node),
            Inside::Map {
                entries,
                merged,
                key,
            } => match key.take() {
                None => *key = Some(read_key(node, self.text, &mut self.problems)),
                Some(key) if key.text.is_empty() => {}
                Some(key) if key.merges => match merge(node) {
                    Some(more) => merged.extend(more),
                    None => self.problems.push(
                        Diagnostic::error("bad-merge", key.span, "`<<` merges maps only")
                            .help("write `<<: *anchor`, or `<<: [*one, *two]`"),
                    ),
                },
                Some(key) => {
                    let mut value = node;
                    if value.is_null() && value.span.start == value.span.end {
                        value.span = key.span;
                    }
                    entries.push(Entry {
                        key: key.text,
                        key_span: key.span,
                        value,
                    });
                }
            },
        }
    }

    /// Reports keys that stand twice and keeps the first of each.
    fn without_duplicates(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by(|a, b| entries[*a].key.cmp(&entries[*b].key).then(a.cmp(b)));
        let mut drop = Vec::new();
        for pair in order.windows(2) {
            let (first, second) = (&entries[pair[0]], &entries[pair[1]]);
            if first.key == second.key {
                let problem = Diagnostic::error(
                    "duplicate-key",
                    second.key_span,
                    format!("the key `{}` stands twice in one map", second.key),
                );
                self.problems.push(
                    problem
                        .label("again here")
                        .related(first.key_span, "first here")
                        .help("keep one of the two"),
                );
                drop.push(pair[1]);
            }
        }
        if drop.is_empty() {
            return entries;
        }
        let kept = entries.into_iter().enumerate();
        kept.filter(|(index, _)| !drop.contains(index))
            .map(|(_, entry)| entry)
            .collect()
    }
}

fn too_deep(span: Span) -> Diagnostic {
    Diagnostic::error(
        "too-deep",
        span,
        format!("values are nested more than {DEEPEST} deep here"),
    )
}

fn read_key(node: Node, text: &str, problems: &mut Vec<Diagnostic>) -> Key {
    let span = node.span;
    match node.shape {
        Shape::Scalar(scalar) if !scalar.text.is_empty() => {
            let written = text.get(span.start as usize..span.end as usize);
            Key {
                merges: !scalar.quoted && scalar.text == "<<" && written == Some("<<"),
                text: scalar.text,
                span,
            }
        }
        _ => {
            let found = node.describe();
            problems.push(
                Diagnostic::error("bad-key", span, format!("{found} cannot be a key"))
                    .help("keys are names"),
            );
            Key {
                text: String::new(),
                span,
                merges: false,
            }
        }
    }
}

/// The entries that `<<` brings in.
fn merge(node: Node) -> Option<Vec<Entry>> {
    match node.shape {
        Shape::Map(entries) => Some(entries),
        Shape::List(items) => {
            let merged: Option<Vec<_>> = items.into_iter().map(merge).collect();
            Some(merged?.into_iter().flatten().collect())
        }
        Shape::Scalar(_) => None,
    }
}

/// What is written, then what is merged and not written; of what is merged twice the first.
fn with_merged(mut written: Vec<Entry>, merged: Vec<Entry>) -> Vec<Entry> {
    for entry in merged {
        if !written.iter().any(|known| known.key == entry.key) {
            written.push(entry);
        }
    }
    written
}

/// The parser's complaint in words that help.
fn syntax_error(text: &str, places: &Places, error: &ScanError) -> Diagnostic {
    let info = error.info();
    let at = places.byte(*error.marker()).min(text.len() as u32);
    let place = places.span(*error.marker(), *error.marker());
    if let Some(tab) = tab_in_the_way(text, at as usize) {
        let tab = Span {
            start: tab,
            end: tab + 1,
            ..place
        };
        return Diagnostic::error("tab", tab, "a tab stands where YAML wants spaces")
            .help("indent with spaces");
    }
    if info.contains("unknown anchor") {
        let rest = &text[at as usize..];
        let end = rest.find(|c: char| c.is_whitespace() || ",]}".contains(c));
        let end = at + end.unwrap_or(rest.len()) as u32;
        let name = &text[at as usize..end as usize];
        let message = format!("`{name}` names no anchor before it");
        return Diagnostic::error("unknown-anchor", Span { end, ..place }, message)
            .help("an anchor is set with `&name`; a text that begins with `*` needs quotes");
    }
    let help = match info {
        _ if info.contains("mapping values are not allowed") => {
            Some("a text with `: ` in it needs quotes; otherwise look at the indentation")
        }
        _ if info.contains("quoted scalar") => Some("look for a quote that is not closed"),
        _ if info.contains("flow") || info.contains("bracket") => {
            Some("look for a `[` or `{` that is not closed, or a missing comma")
        }
        _ if info.contains("indentation") || info.contains("block mapping") => {
            Some("keys of one map stand in one column")
        }
        _ if info.contains("simple key") => Some("a key ends with `:`"),
        _ if info.contains("cannot start any token") || info.contains("plain scalar") => {
            Some("a text that begins with a sign of YAML's own needs quotes")
        }
        _ => None,
    };
    Diagnostic::error("yaml-syntax", place, format!("this is not YAML: {info}"))
        .maybe_help(help.map(str::to_owned))
}

/// A tab that the parser stumbled over: beside `at`, or in the indentation of its line or the lines around it.
fn tab_in_the_way(text: &str, at: usize) -> Option<u32> {
    let beside = [at.checked_sub(1), Some(at)];
    let is_tab = |byte: &usize| text.as_bytes().get(*byte) == Some(&b'\t');
    if let Some(tab) = beside.into_iter().flatten().find(is_tab) {
        return Some(tab as u32);
    }
    let before = text.get(..at)?;
    let start_of = |text: &str| text.rfind('\n').map_or(0, |newline| newline + 1);
    let line = start_of(before);
    let above = start_of(before[..line].trim_end());
    let below = text[at..]
        .find('\n')
        .map_or(text.len(), |newline| at + newline + 1);
    [above, line, below].into_iter().find_map(|start| {
        let indentation = text[start..].find(|c| c != ' ' && c != '\t')?;
        let tab = text[start..start + indentation].find('\t')?;
        Some((start + tab) as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree in one line, or `line:column code` of the first problem.
    fn read(text: &str) -> Result<String, String> {
        let told = |problem: &Diagnostic| {
            let place = problem.span.map(|span| {
                let source = crate::Source {
                    name: String::new(),
                    text: text.to_owned(),
                };
                let (line, column) = source.line_and_column(span.start);
                format!("{line}:{column} ")
            });
            format!("{}{}", place.unwrap_or_default(), problem.code)
        };
        let parsed = parse(text, 0).map_err(|problem| told(&problem))?;
        match parsed.problems.first() {
            Some(problem) => Err(told(problem)),
            None => Ok(parsed.node.inline()),
        }
    }

    #[test]
    fn plain_data_is_read() {
        for (text, shown) in [
            ("a: 1\nb: [x, 'y z', \"2\"]\n", "{a: 1, b: [x, y z, \"2\"]}"),
            ("---\na: 1\n...\n", "{a: 1}"),
            ("\u{feff}a: 1\n", "{a: 1}"),
            ("a: &x {b: 1}\nc: *x\n", "{a: {b: 1}, c: {b: 1}}"),
            (
                "a: &x {b: 1, c: 2}\nd: {c: 3, <<: *x}\n",
                "{a: {b: 1, c: 2}, d: {c: 3, b: 1}}",
            ),
            (
                "a: &x {b: 1}\nc: &y {b: 2, d: 3}\ne:\n  <<: [*x, *y]\n",
                "{a: {b: 1}, c: {b: 2, d: 3}, e: {b: 1, d: 3}}",
            ),
            ("a: {'<<': 1}\n", "{a: {<<: 1}}"),
            ("&k a: 1\nb: *k\n", "{a: 1, b: a}"),
            ("a: |\n  x\n  y\n", "{a: \"x\\ny\\n\"}"),
            ("a:\r\n  b: 1\r\n", "{a: {b: 1}}"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(shown), "{text}");
        }
    }

    #[test]
    fn what_is_no_plain_data_is_refused_at_its_place() {
        let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
        for (text, problem) in [
            ("", "empty-file"),
            ("# nothing\n", "empty-file"),
            ("~\n", "empty-file"),
            ("a: 1\nb: 2\na: 3\n", "3:1 duplicate-key"),
            ("a: {b: 1, b: 2}\n", "1:11 duplicate-key"),
            ("a:\n\tb: 1\n", "2:1 tab"),
            ("a:\tb\n", "1:3 tab"),
            ("a:\n  b: 1\n \tc: 2\n", "3:2 tab"),
            ("a: 1\n---\nb: 2\n", "2:1 several-documents"),
            ("a: !!str 1\n", "1:4 yaml-tag"),
            ("a: !ruby/object {}\n", "1:4 yaml-tag"),
            ("a: *b\n", "1:4 unknown-anchor"),
            ("a: &x [*x]\n", "1:8 recursive-anchor"),
            ("a: {<<: 3}\n", "1:5 bad-merge"),
            ("? [a]\n: 1\n", "1:3 bad-key"),
            ("{{a: 1}: 2}", "1:2 bad-key"),
            (": 1\n", "1:1 bad-key"),
            ("a: b: c\n", "1:5 yaml-syntax"),
            ("a: [1, 2\n", "2:1 yaml-syntax"),
            ("a: 'x\n", "1:4 yaml-syntax"),
            ("a: \"\\q\"\n", "1:4 yaml-syntax"),
            ("a:\n   b: 1\n  c: 2\n", "3:3 yaml-syntax"),
            ("a: @x\n", "1:4 yaml-syntax"),
            (deep.as_str(), "1:65 too-deep"),
        ] {
            assert_eq!(read(text), Err(problem.to_owned()), "{text}");
        }
    }

    #[test]
    fn bytes_have_to_be_utf8() {
        let problem = decode(b"a: \xff").expect_err("it is not UTF-8");
        assert_eq!(problem.code, "not-utf8");
        assert_eq!(problem.span.map(|span| span.start), Some(3));
        let problem = decode(b"\xff\xfea\0").expect_err("it is UTF-16");
        assert!(problem.message.contains("UTF-16"));
    }

    #[test]
    fn places_are_bytes_of_the_text() {
        let text = "ä: 'ö ß'\nlist: [\"…\", zwölf, x]\nblock:\n  - é\n  - k: v\n";
        let node = parse(text, 0).expect("good").node;
        let slice = |path: &str| {
            let span = node.at(path).span;
            &text[span.start as usize..span.end as usize]
        };
        assert_eq!(slice("ä"), "'ö ß'");
        assert_eq!(slice("list"), "[\"…\", zwölf, x]");
        assert_eq!(slice("list.0"), "\"…\"");
        assert_eq!(slice("list.1"), "zwölf");
        assert_eq!(slice("block"), "- é\n  - k: v");
        assert_eq!(slice("block.1.k"), "v");
        assert_eq!(slice("block.1.missing"), "k: v");
    }

    #[test]
    fn aliases_cannot_grow_without_bound() {
        let mut text = "a0: &a0 lol\n".to_owned();
        for level in 1..60 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        let started = std::time::Instant::now();
        assert!(
            read(&text)
                .expect_err("too much")
                .ends_with("too-many-aliases")
        );
        assert!(started.elapsed().as_millis() < 1000);

        let mut text = "a0: &a0 [x]\n".to_owned();
        for level in 1..60 {
            text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert!(read(&text).is_ok());
        text.push_str("b: [[[[[*a59]]]]]\n");
        assert!(read(&text).expect_err("too deep").ends_with("too-deep"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[ \\n\\t:\\-\\[\\]{},&*!|>'\"%@`#?a-c0-9é<~.]{0,60}") {
            if let Ok(parsed) = parse(&text, 0) {
                let node = &parsed.node;
                let span = node.span.start as usize..node.span.end as usize;
                proptest::prop_assert!(text.get(span).is_some());
                let _ = node.inline();
            }
        }
    }
}
