//! Walks data along a JSON Schema and reports everything that does not fit, each with its place.
//!
//! Typed reading stops at the first error; this does not. It knows the part of JSON Schema that is derived
//! for parameter types, and two things of our own: a choice whose parameters all have defaults may be
//! written as its bare name, and the names of stages and paths are told apart from other texts.

use serde_json::{Map, Value};
use taper_cache::ArtifactType;

use crate::diagnostic::{Diagnostic, either, list, suggest};
use crate::node::{Entry, Meaning, Node, Shape, Span};
use crate::params::is_unknown;
use crate::pipeline::SETTINGS;

/// The definitions that `$ref`s name.
pub type Definitions = Map<String, Value>;

/// The problems of the map of parameters `node` of the kind `name`; `also_known` are keys that may be meant
/// but belong elsewhere.
pub fn validate(
    definitions: &Definitions,
    schema: &Value,
    also_known: &[&str],
    name: &str,
    node: &Node,
) -> Walked {
    let mut walk = Walk {
        definitions,
        walked: Walked::default(),
    };
    let place = Place {
        span: node.span,
        name,
    };
    walk.map(walk.resolve(schema), node, place, also_known);
    walk.walked
}

/// What was seen on the way.
#[derive(Default)]
pub struct Walked {
    /// What does not fit.
    pub problems: Vec<Diagnostic>,
    /// Every text that names a stage.
    pub inputs: Vec<NamedInput>,
}

/// A text that names a stage.
#[derive(Clone, Debug)]
pub struct NamedInput {
    /// The text.
    pub node: Node,
    /// The parameter that it is the value of.
    pub name: String,
    /// The artifact types that are taken.
    pub types: Vec<ArtifactType>,
}

/// The keys of an object schema.
pub fn keys<'s>(definitions: &'s Definitions, schema: &'s Value) -> Vec<&'s str> {
    let properties = resolved(definitions, schema).get("properties");
    let properties = properties.and_then(Value::as_object);
    properties
        .map(|properties| properties.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

/// A schema with its reference followed.
pub fn resolved<'s>(definitions: &'s Definitions, schema: &'s Value) -> &'s Value {
    let walk = Walk {
        definitions,
        walked: Walked::default(),
    };
    walk.resolve(schema)
}

/// What a schema wants, in words.
pub fn wants<'s>(definitions: &'s Definitions, schema: &'s Value) -> String {
    let walk = Walk {
        definitions,
        walked: Walked::default(),
    };
    either(&in_words(&walk.alternatives(schema)))
}

/// What a value is called in messages: the key that it is the value of.
#[derive(Clone, Copy)]
struct Place<'n> {
    span: Span,
    name: &'n str,
}

struct Walk<'s> {
    definitions: &'s Definitions,
    walked: Walked,
}

/// One way to be right.
enum Alternative<'s> {
    /// One of these words.
    Words(Vec<&'s str>),
    /// A map of one entry, or its bare key.
    Choice(&'s str, &'s Value),
    /// Nothing.
    Null,
    /// Anything else.
    Other(&'s Value),
}

impl<'s> Walk<'s> {
    fn resolve(&self, schema: &'s Value) -> &'s Value {
        let mut schema = schema;
        // A chain of references ends; a loop of them is no schema that a type has.
        for _ in 0..16 {
            let name = schema.get("$ref").and_then(Value::as_str);
            match name.and_then(|name| self.definitions.get(name.rsplit('/').next()?)) {
                Some(definition) => schema = definition,
                None => break,
            }
        }
        schema
    }

    fn problem(&mut self, node: &Node, code: &'static str, message: String, help: Option<String>) {
        let mut problem = Diagnostic::error(code, node.span, message).maybe_help(help);
        if let Some(origin) = node.origin {
            problem = problem.related(origin, "the value is given here");
        }
        self.walked.problems.push(problem);
    }

    fn value(&mut self, schema: &'s Value, node: &Node, place: Place<'_>) {
        if is_unknown(node) {
            // It is reported already that the param has no value.
            return;
        }
        let schema = self.resolve(schema);
        if schema.get("allOf").is_some() {
            for part in branches(schema, "allOf") {
                self.value(part, node, place);
            }
        }
        let alternatives = self.alternatives(schema);
        if let [Alternative::Other(only)] = alternatives.as_slice() {
            return self.plain(only, node, place);
        }
        self.one_of(&alternatives, node, place);
    }

    /// Every way to be right, references and nested choices resolved.
    fn alternatives(&self, schema: &'s Value) -> Vec<Alternative<'s>> {
        let schema = self.resolve(schema);
        let one_of = branches(schema, "oneOf").map(|branch| match variant(branch) {
            Some((name, payload)) => vec![Alternative::Choice(name, payload)],
            None => self.alternatives(branch),
        });
        let any_of = branches(schema, "anyOf").map(|branch| self.alternatives(branch));
        let nested: Vec<_> = one_of.chain(any_of).flatten().collect();
        if !nested.is_empty() {
            return nested;
        }
        if let Some(word) = schema.get("const").and_then(Value::as_str) {
            return vec![Alternative::Words(vec![word])];
        }
        if schema.get("enum").is_some() {
            let words = branches(schema, "enum").filter_map(Value::as_str);
            let mut found = vec![Alternative::Words(words.collect())];
            if branches(schema, "enum").any(Value::is_null) {
                found.push(Alternative::Null);
            }
            return found;
        }
        if schema.get("type").and_then(Value::as_str) == Some("null") {
            return vec![Alternative::Null];
        }
        vec![Alternative::Other(schema)]
    }

    fn one_of(&mut self, alternatives: &[Alternative<'s>], node: &Node, place: Place<'_>) {
        let fits: Vec<&'s Value> = alternatives
            .iter()
            .filter_map(|alternative| match alternative {
                Alternative::Other(schema) if fits(schema, node) => Some(*schema),
                _ => None,
            })
            .collect();
        let mut words: Vec<&'s str> = Vec::new();
        let mut choices: Vec<(&'s str, &'s Value)> = Vec::new();
        for alternative in alternatives {
            match alternative {
                Alternative::Words(more) => words.extend(more),
                Alternative::Choice(name, payload) => choices.push((name, payload)),
                Alternative::Null if node.is_null() => return,
                _ => {}
            }
        }
        let known: Vec<&str> = words
            .iter()
            .copied()
            .chain(choices.iter().map(|(name, _)| *name))
            .collect();
        match (&node.shape, node.as_text()) {
            (_, Some(text)) if words.contains(&text) => {}
            (Shape::Scalar(_), Some(text)) if fits.is_empty() && !known.is_empty() => {
                match choices.iter().find(|(name, _)| *name == text) {
                    Some((_, payload)) => self.bare(payload, node, text),
                    None => self.unknown_choice(text, node.span, &known, place),
                }
            }
            (Shape::Map(entries), _)
                if fits.is_empty() && (!choices.is_empty() || is_word(entries, &words)) =>
            {
                self.choice(entries, node, &words, &choices, place);
            }
            _ => match fits.as_slice() {
                [] => self.wrong_type(alternatives, node, place),
                [only] => self.plain(only, node, place),
                several => self.closest(several, node, place),
            },
        }
    }

    /// The problems of whichever fits best.
    fn closest(&mut self, schemas: &[&'s Value], node: &Node, place: Place<'_>) {
        let attempts = schemas.iter().map(|schema| {
            let mut attempt = Self {
                definitions: self.definitions,
                walked: Walked::default(),
            };
            attempt.plain(schema, node, place);
            attempt.walked
        });
        let best = attempts.min_by_key(|walked| walked.problems.len());
        let best = best.unwrap_or_default();
        self.walked.problems.extend(best.problems);
        self.walked.inputs.extend(best.inputs);
    }

    /// A bare name: what it holds has to have defaults throughout.
    fn bare(&mut self, payload: &'s Value, node: &Node, name: &str) {
        let place = Place {
            span: node.span,
            name,
        };
        self.value(payload, &Node::map(node.span, Vec::new()), place);
    }

    /// A map that stands for one of several choices.
    fn choice(
        &mut self,
        entries: &[Entry],
        node: &Node,
        words: &[&str],
        choices: &[(&'s str, &'s Value)],
        place: Place<'_>,
    ) {
        let known: Vec<&str> = words
            .iter()
            .copied()
            .chain(choices.iter().map(|(name, _)| *name))
            .collect();
        let [entry] = entries else {
            let found = list(entries.iter().map(|entry| entry.key.as_str()));
            let chosen: Vec<&str> = entries
                .iter()
                .map(|entry| entry.key.as_str())
                .filter(|key| known.contains(key))
                .collect();
            let help = match chosen.as_slice() {
                [] => format!("there are {}", list(known)),
                [chosen] => {
                    format!("what belongs to `{chosen}` stands below it: `{chosen}: {{ … }}`")
                }
                several => format!("keep {}", either(several)),
            };
            let message = match entries {
                [] => format!("{} wants one choice, found an empty map", named(place)),
                _ => format!("{} wants one choice, found {found}", named(place)),
            };
            let span = if entries.is_empty() {
                node.span
            } else {
                place.span
            };
            let problem = Diagnostic::error("wrong-choice", span, message).help(help);
            return self.walked.problems.push(problem);
        };
        match choices.iter().find(|(name, _)| *name == entry.key) {
            Some((name, payload)) => {
                let place = Place {
                    span: entry.key_span,
                    name,
                };
                if entry.value.is_null() {
                    self.value(payload, &Node::map(entry.key_span, Vec::new()), place);
                } else {
                    self.value(payload, &entry.value, place);
                }
            }
            None if words.contains(&entry.key.as_str()) => {
                let nothing = entry.value.entries().is_some_and(<[_]>::is_empty);
                if !nothing && !entry.value.is_null() {
                    let message = format!("`{}` takes no parameters", entry.key);
                    let help = format!("write its bare name: `{}`", entry.key);
                    self.problem(&entry.value, "wrong-choice", message, Some(help));
                }
            }
            None => self.unknown_choice(&entry.key, entry.key_span, &known, place),
        }
    }

    fn unknown_choice(&mut self, name: &str, span: Span, known: &[&str], place: Place<'_>) {
        let message = format!("{} cannot be `{name}`", named(place));
        let help = suggest(name, "it can be", known.iter().copied());
        self.walked
            .problems
            .push(Diagnostic::error("unknown-choice", span, message).maybe_help(help));
    }

    fn wrong_type(&mut self, alternatives: &[Alternative<'s>], node: &Node, place: Place<'_>) {
        let wants = in_words(alternatives);
        let message = format!(
            "{} wants {}, found {}",
            named(place),
            either(&wants),
            node.describe()
        );
        let numbers = wants.iter().any(|want| want.contains("number"));
        let texts = wants
            .iter()
            .any(|want| ["a text", "the name of a stage", "a path"].contains(&want.as_str()));
        let help = match (&node.shape, node.meaning()) {
            (Shape::Scalar(scalar), Some(Meaning::Text(_))) if numbers => scalar.number_hint(),
            (_, Some(Meaning::Text("yes" | "Yes" | "on" | "On")))
                if wants.iter().any(|want| want.contains("true")) =>
            {
                Some("write true".to_owned())
            }
            (_, Some(Meaning::Text("no" | "No" | "off" | "Off")))
                if wants.iter().any(|want| want.contains("true")) =>
            {
                Some("write false".to_owned())
            }
            (Shape::Scalar(scalar), Some(meaning)) if texts && meaning != Meaning::Null => {
                Some(format!("quotes make a text of it: \"{}\"", scalar.text))
            }
            _ => None,
        };
        self.problem(node, "wrong-type", message, help);
    }

    /// A schema without alternatives.
    fn plain(&mut self, schema: &'s Value, node: &Node, place: Place<'_>) {
        if !fits(schema, node) {
            return self.wrong_type(&[Alternative::Other(schema)], node, place);
        }
        match (&node.shape, node.meaning()) {
            (Shape::Map(_), _) => self.map(schema, node, place, &[]),
            (Shape::List(items), _) => self.list(schema, items, node, place),
            (_, Some(Meaning::Integer(number))) => {
                self.range(schema, node, number as f64, place);
            }
            (_, Some(Meaning::Float(number))) => {
                if number.is_nan() {
                    let message = format!("{} cannot be not-a-number", named(place));
                    return self.problem(node, "out-of-range", message, None);
                }
                self.range(schema, node, number, place);
            }
            (_, Some(Meaning::Text(text))) => {
                let types = branches(schema, "x-taper-input").filter_map(Value::as_str);
                let types: Vec<_> = types.filter_map(|name| name.parse().ok()).collect();
                if !types.is_empty() {
                    self.walked.inputs.push(NamedInput {
                        node: node.clone(),
                        name: place.name.to_owned(),
                        types,
                    });
                }
                let least = schema.get("minLength").and_then(Value::as_u64);
                if least.is_some_and(|least| (text.chars().count() as u64) < least) {
                    let message = format!("{} must not be so short", named(place));
                    self.problem(node, "out-of-range", message, None);
                }
            }
            _ => {}
        }
    }

    fn range(&mut self, schema: &'s Value, node: &Node, number: f64, place: Place<'_>) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let format = schema.get("format").and_then(Value::as_str);
        let by_type = |limits: &[(&str, f64)]| {
            let limit = limits.iter().find(|(name, _)| Some(*name) == format);
            limit.map(|(_, limit)| *limit)
        };
        let largest = bound("maximum").or(by_type(&[
            ("uint8", 255.0),
            ("uint16", 65_535.0),
            ("uint32", 4_294_967_295.0),
            ("int8", 127.0),
            ("int16", 32_767.0),
            ("int32", 2_147_483_647.0),
            ("int64", 9_223_372_036_854_775_807.0),
        ]));
        let rules = [
            (
                bound("minimum"),
                number < bound("minimum").unwrap_or(number),
                "at least",
            ),
            (largest, number > largest.unwrap_or(number), "at most"),
            (
                bound("exclusiveMinimum"),
                bound("exclusiveMinimum").is_some_and(|limit| number <= limit),
                "more than",
            ),
            (
                bound("exclusiveMaximum"),
                bound("exclusiveMaximum").is_some_and(|limit| number >= limit),
                "less than",
            ),
        ];
        for (limit, broken, words) in rules {
            if let (Some(limit), true) = (limit, broken) {
                let message = format!(
                    "{} has to be {words} {limit}, found {}",
                    named(place),
                    node.inline()
                );
                return self.problem(node, "out-of-range", message, None);
            }
        }
    }

    fn list(&mut self, schema: &'s Value, items: &[Node], node: &Node, place: Place<'_>) {
        let count = |name: &str| schema.get(name).and_then(Value::as_u64);
        let (least, most) = (count("minItems"), count("maxItems"));
        let length = items.len() as u64;
        if least.is_some_and(|least| length < least) || most.is_some_and(|most| length > most) {
            let wanted = match (least, most) {
                (Some(least), Some(most)) if least == most => format!("{least}"),
                (Some(least), Some(most)) => format!("{least} to {most}"),
                (Some(least), None) => format!("at least {least}"),
                (_, most) => format!("at most {}", most.unwrap_or_default()),
            };
            let message = format!("{} wants {wanted} values, found {length}", named(place));
            self.problem(node, "wrong-length", message, None);
        }
        let first: Vec<&Value> = branches(schema, "prefixItems").collect();
        for (index, item) in items.iter().enumerate() {
            let place = Place {
                span: item.span,
                name: place.name,
            };
            match first.get(index).copied().or(schema.get("items")) {
                Some(schema) if schema.is_object() => self.value(schema, item, place),
                _ => {}
            }
        }
    }

    fn map(&mut self, schema: &'s Value, node: &Node, place: Place<'_>, also_known: &[&str]) {
        let entries = node.entries().unwrap_or_default();
        let properties = schema.get("properties").and_then(Value::as_object);
        let additional = schema.get("additionalProperties");
        for entry in entries {
            let below = Place {
                span: entry.key_span,
                name: &entry.key,
            };
            let property = properties.and_then(|properties| properties.get(&entry.key));
            match (property, additional) {
                (Some(property), _) => self.value(property, &entry.value, below),
                (None, Some(Value::Bool(false))) => {
                    let known = properties.into_iter().flat_map(Map::keys);
                    let known = known.map(String::as_str).chain(also_known.iter().copied());
                    let message = format!("{} has no parameter `{}`", named(place), entry.key);
                    let help = if SETTINGS.contains(&entry.key.as_str()) {
                        Some(format!(
                            "`{}` stands beside the kind, not below it",
                            entry.key
                        ))
                    } else {
                        suggest(&entry.key, "it has", known)
                    };
                    let problem = Diagnostic::error("unknown-key", entry.key_span, message);
                    self.walked.problems.push(problem.maybe_help(help));
                }
                (None, Some(schema)) if schema.is_object() => {
                    self.value(schema, &entry.value, below);
                }
                _ => {}
            }
        }
        for name in branches(schema, "required").filter_map(Value::as_str) {
            if entries.iter().any(|entry| entry.key == name) {
                continue;
            }
            let wanted = properties
                .and_then(|properties| properties.get(name))
                .map(|schema| wants(self.definitions, schema));
            let message = format!("`{name}` is missing in {}", named(place));
            let problem = Diagnostic::error("missing-key", place.span, message);
            let help = wanted.map(|wants| format!("`{name}` wants {wants}"));
            self.walked.problems.push(problem.maybe_help(help));
        }
        let least = schema.get("minProperties").and_then(Value::as_u64);
        if least.is_some_and(|least| (entries.len() as u64) < least) {
            let message = format!("{} must not be empty", named(place));
            self.problem(node, "wrong-length", message, None);
        }
    }
}

/// What several ways to be right want, in words.
fn in_words(alternatives: &[Alternative<'_>]) -> Vec<String> {
    let mut wants: Vec<String> = Vec::new();
    for alternative in alternatives {
        let want = match alternative {
            Alternative::Words(words) => list(words.iter().copied()),
            Alternative::Choice(name, _) => format!("`{name}`"),
            Alternative::Null => continue,
            Alternative::Other(schema) => wanted(schema),
        };
        if !wants.contains(&want) {
            wants.push(want);
        }
    }
    wants
}

/// Whether a map is a choice that takes no parameters, written like one that does: `{linear: {}}`.
fn is_word(entries: &[Entry], words: &[&str]) -> bool {
    matches!(entries, [entry] if words.contains(&entry.key.as_str()))
}

fn named(place: Place<'_>) -> String {
    format!("`{}`", place.name)
}

/// The name and the parameters of a choice: an object of one required property and no others.
pub fn variant(schema: &Value) -> Option<(&str, &Value)> {
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let properties = schema.get("properties").and_then(Value::as_object)?;
    let (name, payload) = properties.iter().next()?;
    let required = branches(schema, "required").next().and_then(Value::as_str);
    let only = closed && properties.len() == 1 && required == Some(name);
    only.then_some((name, payload))
}

fn branches<'s>(schema: &'s Value, name: &str) -> impl Iterator<Item = &'s Value> {
    let branches = schema.get(name).and_then(Value::as_array);
    branches.into_iter().flatten()
}

/// The types that a schema takes.
fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether a node is of a type that a schema takes.
fn fits(schema: &Value, node: &Node) -> bool {
    let types = types(schema);
    if types.is_empty() {
        return schema != &Value::Bool(false);
    }
    let fitting: &[&str] = match (&node.shape, node.meaning()) {
        (Shape::Map(_), _) => &["object"],
        (Shape::List(_), _) => &["array"],
        (_, Some(Meaning::Null)) => &["null"],
        (_, Some(Meaning::Bool(_))) => &["boolean"],
        (_, Some(Meaning::Integer(_))) => &["integer", "number"],
        (_, Some(Meaning::Float(_))) => &["number"],
        _ => &["string"],
    };
    types.iter().any(|one| fitting.contains(one))
}

/// What a schema wants, in words.
fn wanted(schema: &Value) -> String {
    if schema.get("x-taper-input").is_some() {
        return "the name of a stage".to_owned();
    }
    if schema.get("x-taper-local").is_some() {
        return "a path".to_owned();
    }
    let words: Vec<&str> = types(schema)
        .into_iter()
        .filter_map(|name| match name {
            "object" => Some("a map"),
            "array" => Some("a list"),
            "boolean" => Some("true or false"),
            "integer" => Some("a whole number"),
            "number" => Some("a number"),
            "string" => Some("a text"),
            _ => None,
        })
        .collect();
    if words.is_empty() {
        "something else".to_owned()
    } else {
        either(&words)
    }
}
