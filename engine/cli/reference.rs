//! The reference of kinds, made from the types of the parameters: what is documented is what is read.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;
use taper_engine::reference::settings;
use taper_engine::registry::{AnyKind, Catalogue};

use crate::workplace::KINDS;

/// What is known of one kind.
pub struct Page {
    /// The kind's name.
    pub name: &'static str,
    /// What it does.
    pub text: String,
    /// A stage as a user would write it.
    pub example: &'static str,
    /// Whether a seed enters its key.
    seeded: bool,
    /// Its parameters, and what stands side by side with them.
    params: Vec<Param>,
    /// The types that its parameters name, in the order in which they are met.
    types: Vec<Type>,
}

struct Param {
    name: String,
    kind: String,
    default: Option<String>,
    required: bool,
    text: String,
}

struct Type {
    name: String,
    text: String,
    /// Fields of a map, or forms of a choice.
    rows: Vec<Param>,
}

/// How the page that leads to the others begins.
pub const TITLE: &str = "# Stages\n\n";

/// The pages of all kinds, in their order.
pub fn pages() -> Vec<Page> {
    let catalogue = KINDS.catalogue();
    KINDS.iter().map(|kind| page(kind, &catalogue)).collect()
}

/// The first sentence of what a kind does.
pub fn summary(page: &Page) -> &str {
    let first = page.text.split_inclusive(". ").next();
    first.unwrap_or_default().trim()
}

/// The page that leads to the others, as Markdown: the kinds, and what may stand beside the kind of any stage.
pub fn index(pages: &[Page]) -> String {
    let mut text = format!(
        "{TITLE}A stage is a name with its kind below it, and beside the kind what holds for any stage:\n\n\
         ```yaml\nstages:\n  model: {{ train: {{ data: words, … }}, seed: 7, memory: 8GB }}\n```\n\n\
         | kind | |\n|---|---|\n"
    );
    for page in pages {
        let _ = writeln!(text, "| [`{0}`]({0}.md) | {1} |", page.name, summary(page));
    }
    text.push_str("\n| beside the kind | |\n|---|---|\n");
    for (name, words) in settings() {
        let _ = writeln!(text, "| `{name}` | {words} |");
    }
    text
}

fn page(kind: &'static dyn AnyKind, catalogue: &Catalogue) -> Page {
    let mut reader = Reader {
        catalogue,
        met: BTreeSet::new(),
        types: Vec::new(),
    };
    let mut params = Vec::new();
    let mut text = String::new();
    if let Some(schemas) = catalogue.get(kind.name()) {
        let schema = reader.resolve(schemas.params.as_value());
        text = words(schema);
        for schema in [&schemas.params, &schemas.settings] {
            params.extend(reader.fields(reader.resolve(schema.as_value())));
        }
    }
    let mut next = 0;
    // Types name types: those that are found on the way are read in their turn.
    while next < reader.types.len() {
        let name = reader.types[next].name.clone();
        if let Some(schema) = catalogue.definitions().get(&name) {
            let rows = reader.rows(schema);
            reader.types[next].rows = rows;
        }
        next += 1;
    }
    Page {
        name: kind.name(),
        text,
        example: kind.example(),
        seeded: kind.seeded(),
        params,
        types: reader.types,
    }
}

struct Reader<'c> {
    catalogue: &'c Catalogue,
    met: BTreeSet<String>,
    types: Vec<Type>,
}

impl<'c> Reader<'c> {
    fn resolve<'s>(&self, schema: &'s Value) -> &'s Value
    where
        'c: 's,
    {
        match target(schema) {
            Some(name) => self.catalogue.definitions().get(name).unwrap_or(schema),
            None => schema,
        }
    }

    fn fields(&mut self, schema: &Value) -> Vec<Param> {
        let required: BTreeSet<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let Some(properties) = schema["properties"].as_object() else {
            return Vec::new();
        };
        properties
            .iter()
            .map(|(name, property)| Param {
                name: name.clone(),
                kind: self.kind(property),
                default: property
                    .get("default")
                    .filter(|default| !default.is_null())
                    .map(yaml),
                required: required.contains(name.as_str()),
                text: words(property),
            })
            .collect()
    }

    /// The forms of a choice, or the fields of a map.
    fn rows(&mut self, schema: &Value) -> Vec<Param> {
        if let Some(names) = schema["enum"].as_array() {
            return names.iter().filter_map(Value::as_str).map(form).collect();
        }
        let forms = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
        let Some(forms) = forms else {
            return self.fields(schema);
        };
        let mut rows = Vec::new();
        for one in forms {
            if let Some(name) = one["const"].as_str() {
                rows.push(Param {
                    text: words(one),
                    ..form(name)
                });
            } else if let Some(names) = one["enum"].as_array() {
                rows.extend(names.iter().filter_map(Value::as_str).map(form));
            } else if one["properties"].is_object() {
                let text = words(one);
                rows.extend(self.fields(one).into_iter().map(|field| Param {
                    text: if text.is_empty() {
                        field.text
                    } else {
                        text.clone()
                    },
                    required: false,
                    ..field
                }));
            } else {
                rows.push(Param {
                    text: words(one),
                    ..form(&self.kind(one))
                });
            }
        }
        rows
    }

    /// What a value is, in words.
    fn kind(&mut self, schema: &Value) -> String {
        if let Some(input) = schema["x-taper-input"].as_array() {
            let types: Vec<&str> = input.iter().filter_map(Value::as_str).collect();
            return format!("stage ({})", types.join(" or "));
        }
        if schema["x-taper-local"] == true {
            return "path".to_owned();
        }
        if let Some(name) = target(schema) {
            return self.named(name);
        }
        for forms in ["anyOf", "oneOf"] {
            if let Some(forms) = schema[forms].as_array() {
                let mut kinds: Vec<String> = Vec::new();
                for one in forms.iter().filter(|one| one["type"] != "null") {
                    let kind = match one["const"].as_str() {
                        Some(name) => format!("`{name}`"),
                        None => self.kind(one),
                    };
                    if !kinds.contains(&kind) {
                        kinds.push(kind);
                    }
                }
                return kinds.join(" or ");
            }
        }
        if let Some(names) = schema["enum"].as_array() {
            let names: Vec<String> = names
                .iter()
                .filter(|n| !n.is_null())
                .map(|n| format!("`{}`", yaml(n)))
                .collect();
            return names.join(" or ");
        }
        let name = match &schema["type"] {
            Value::String(name) => name.as_str(),
            Value::Array(names) => names
                .iter()
                .filter_map(Value::as_str)
                .find(|name| *name != "null")
                .unwrap_or("value"),
            _ => "value",
        };
        match name {
            "integer" => "whole number".to_owned(),
            "string" => "text".to_owned(),
            "boolean" => "true or false".to_owned(),
            "array" if schema["items"].is_object() => {
                format!("list of {}", self.kind(&schema["items"]))
            }
            "array" => "list".to_owned(),
            "object" if schema["additionalProperties"].is_object() => {
                format!("map to {}", self.kind(&schema["additionalProperties"]))
            }
            "object" if schema["properties"].is_object() => {
                let names = schema["properties"].as_object().into_iter().flatten();
                let names: Vec<String> = names.map(|(name, _)| format!("`{name}`")).collect();
                format!("map of {}", names.join(", "))
            }
            "object" => "map".to_owned(),
            other => other.to_owned(),
        }
    }

    /// A type with a name of its own: described beside, where it is more than a word.
    fn named(&mut self, name: &str) -> String {
        let Some(schema) = self.catalogue.definitions().get(name) else {
            return name.to_owned();
        };
        let plain = schema["x-taper-input"].is_array() || schema["x-taper-local"] == true;
        let has_rows = schema["properties"].is_object()
            || schema["oneOf"].is_array()
            || schema["enum"].is_array();
        if plain || !has_rows {
            return self.kind(schema);
        }
        if self.met.insert(name.to_owned()) {
            self.types.push(Type {
                name: name.to_owned(),
                text: words(schema),
                rows: Vec::new(),
            });
        }
        format!("{name}↓")
    }
}

fn form(name: &str) -> Param {
    Param {
        name: name.to_owned(),
        kind: String::new(),
        default: None,
        required: false,
        text: String::new(),
    }
}

fn target(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/$defs/")
}

/// A description on one line.
fn words(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A value as it would stand in a pipeline file.
fn yaml(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(yaml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Object(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(name, value)| format!("{name}: {}", yaml(value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

impl Page {
    /// As Markdown, for the project's documentation.
    pub fn markdown(&self) -> String {
        let mut text = format!("# `{}`\n\n", self.name);
        if !self.text.is_empty() {
            let _ = writeln!(text, "{}\n", self.text);
        }
        let _ = writeln!(text, "```yaml\n{}\n```\n", self.example.trim());
        if self.seeded {
            let _ = writeln!(
                text,
                "Its random choices follow the stage's `seed`, else the pipeline's.\n"
            );
        }
        markdown_table(&mut text, "parameter", &self.params);
        for one in &self.types {
            let _ = writeln!(text, "\n## {}\n", one.name);
            if !one.text.is_empty() {
                let _ = writeln!(text, "{}\n", one.text);
            }
            markdown_table(&mut text, "name", &one.rows);
        }
        text.replace('↓', "")
    }

    /// As plain text, for the terminal.
    pub fn plain(&self) -> String {
        let mut text = format!("{}: {}\n\n", self.name, self.text);
        for line in self.example.trim().lines() {
            let _ = writeln!(text, "    {line}");
        }
        plain_rows(&mut text, &self.params);
        for one in &self.types {
            let _ = write!(text, "\n{}", one.name);
            if !one.text.is_empty() {
                let _ = write!(text, ": {}", one.text);
            }
            text.push('\n');
            plain_rows(&mut text, &one.rows);
        }
        text.replace('↓', "")
    }
}

fn markdown_table(text: &mut String, first: &str, rows: &[Param]) {
    let cell = |text: &str| text.replace('|', "\\|");
    let plain = |row: &Param| row.kind.is_empty() && row.default.is_none() && !row.required;
    if rows.iter().all(plain) {
        let _ = writeln!(text, "| {first} | meaning |\n|---|---|");
        for row in rows {
            let _ = writeln!(text, "| `{}` | {} |", row.name, cell(&row.text));
        }
        return;
    }
    let _ = writeln!(
        text,
        "| {first} | value | default | meaning |\n|---|---|---|---|"
    );
    for row in rows {
        let kind = match row.kind.strip_suffix('↓') {
            Some(name) => format!("[{name}](#{})", name.to_lowercase()),
            None => cell(&row.kind),
        };
        let default = match (&row.default, row.required) {
            (Some(default), _) => format!("`{}`", cell(default)),
            (None, true) => "required".to_owned(),
            (None, false) => String::new(),
        };
        let _ = writeln!(
            text,
            "| `{}` | {kind} | {default} | {} |",
            row.name,
            cell(&row.text)
        );
    }
}

fn plain_rows(text: &mut String, rows: &[Param]) {
    if rows.is_empty() {
        return;
    }
    text.push('\n');
    for row in rows {
        let _ = write!(text, "  {}", row.name);
        let mut notes = Vec::new();
        if !row.kind.is_empty() {
            notes.push(row.kind.clone());
        }
        if row.required {
            notes.push("required".to_owned());
        }
        if let Some(default) = &row.default {
            notes.push(format!("default {default}"));
        }
        if !notes.is_empty() {
            let _ = write!(text, "  ({})", notes.join(", "));
        }
        text.push('\n');
        if !row.text.is_empty() {
            wrap(text, &row.text, 6, 96);
        }
    }
}

/// Adds `words` in lines of at most `width` characters, set in by `indent`.
fn wrap(text: &mut String, words: &str, indent: usize, width: usize) {
    let mut line = String::new();
    for word in words.split(' ') {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > width {
            let _ = writeln!(text, "{:indent$}{line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(text, "{:indent$}{line}", "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_page_with_its_example() {
        for page in pages() {
            assert!(
                page.markdown().contains(page.example.trim()),
                "{}",
                page.name
            );
            assert!(page.plain().starts_with(page.name));
            assert!(!page.params.is_empty(), "{} has no parameters", page.name);
        }
    }
}
