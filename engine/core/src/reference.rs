//! What can be written in a pipeline file, told from the kinds themselves: the JSON Schema for editors and the
//! parameters of each kind for people.

use serde_json::{Map, Value, json};

use crate::diagnostic::list;
use crate::pipeline::SETTINGS;
use crate::registry::{Catalogue, Kinds};
use crate::schema;

/// A parameter or a setting of a kind.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What it wants, in words.
    pub wants: String,
    /// Whether it has to be given.
    pub required: bool,
    /// What it is otherwise, as YAML would take it.
    pub default: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it changes a byte of the result, so that it enters the key.
    pub in_key: bool,
}

impl Catalogue {
    /// The parameters of a kind, then its settings, in the order in which the kind has them.
    pub fn parameters(&self, kind: &str) -> Vec<Parameter> {
        let Some(schemas) = self.get(kind) else {
            return Vec::new();
        };
        let both = [(&schemas.params, true), (&schemas.settings, false)];
        let parts = both.into_iter().flat_map(|(schema, in_key)| {
            let object = schema::resolved(self.definitions(), schema.as_value());
            let properties = object.get("properties").and_then(Value::as_object);
            let required = names(object, "required");
            properties
                .into_iter()
                .flatten()
                .map(move |(name, property)| {
                    let text = |key: &str| {
                        let inner = schema::resolved(self.definitions(), property);
                        let found = property.get(key).or_else(|| inner.get(key));
                        found.and_then(Value::as_str).map(str::to_owned)
                    };
                    let default = property.get("default").filter(|default| !default.is_null());
                    Parameter {
                        name: name.clone(),
                        wants: schema::wants(self.definitions(), property),
                        required: required.contains(&name.as_str()),
                        default: default.map(in_yaml),
                        description: text("description"),
                        in_key,
                    }
                })
        });
        parts.collect()
    }
}

/// JSON as people write it in YAML, in one line.
fn in_yaml(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(in_yaml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Object(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{key}: {}", in_yaml(value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

fn names<'s>(schema: &'s Value, key: &str) -> Vec<&'s str> {
    let names = schema.get(key).and_then(Value::as_array);
    names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// The JSON Schema of a whole pipeline file, as it is written: a param may stand for any value, and a choice
/// whose parameters all have defaults may be its bare name.
pub fn pipeline_schema(kinds: Kinds) -> Value {
    let catalogue = kinds.catalogue();
    let mut stage = Map::new();
    let mut one_kind = Vec::new();
    for kind in kinds.iter() {
        if let Some(schema) = kind_schema(&catalogue, kind.name(), kind.example()) {
            stage.insert(kind.name().to_owned(), schema);
            one_kind.push(json!({ "required": [kind.name()] }));
        }
    }
    for (name, schema) in stage_settings() {
        stage.insert(name.to_owned(), schema);
    }
    let mut definitions: Map<String, Value> = catalogue
        .definitions()
        .iter()
        .map(|(name, schema)| {
            let mut schema = schema.clone();
            as_written(&catalogue, &mut schema);
            (name.clone(), schema)
        })
        .collect();
    definitions.insert(
        "param".to_owned(),
        json!({
            "type": "string",
            "pattern": "\\$",
            "description": "`$NAME` stands for the param NAME; `${NAME}` is spliced into a longer text.",
        }),
    );
    definitions.insert(
        "stage".to_owned(),
        json!({
            "type": "object",
            "description": "A stage: one kind with its parameters, and settings beside it.",
            "properties": stage,
            "oneOf": one_kind,
            "additionalProperties": false,
        }),
    );
    let name = json!({ "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$" });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A taper pipeline",
        "type": "object",
        "properties": {
            "taper": { "const": 1, "description": "The version of the rules that the file follows." },
            "name": { "type": "string", "description": "What the pipeline is called; otherwise its file's name." },
            "description": { "type": "string", "description": "What the pipeline is for." },
            "seed": or_param(json!({
                "type": "integer", "minimum": 0, "default": 0,
                "description": "Every random choice derives from it.",
            })),
            "params": {
                "type": "object", "propertyNames": name,
                "description": "Names for values, to be changed in one place or with `--set NAME=VALUE`.",
            },
            "matrix": {
                "type": "object", "propertyNames": name,
                "description": "Params that have several values: one variant for each combination.",
                "additionalProperties": { "type": "array", "minItems": 1, "uniqueItems": true },
            },
            "stages": {
                "type": "object", "propertyNames": name, "minProperties": 1,
                "description": "The stages by their names.",
                "additionalProperties": { "$ref": "#/$defs/stage" },
            },
        },
        "required": ["taper", "stages"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// Parameters and settings of a kind, side by side.
fn kind_schema(catalogue: &Catalogue, name: &str, example: &str) -> Option<Value> {
    let schemas = catalogue.get(name)?;
    let params = schema::resolved(catalogue.definitions(), schemas.params.as_value());
    let settings = schema::resolved(catalogue.definitions(), schemas.settings.as_value());
    let mut properties = Map::new();
    for part in [params, settings] {
        if let Some(more) = part.get("properties").and_then(Value::as_object) {
            properties.extend(
                more.iter()
                    .map(|(name, schema)| (name.clone(), schema.clone())),
            );
        }
    }
    let description = params.get("description").and_then(Value::as_str);
    let required = names(params, "required");
    let mut schema = json!({
        "type": if required.is_empty() { json!(["object", "null"]) } else { json!("object") },
        "description": format!("{}\n\n{}", description.unwrap_or_default(), example.trim()).trim(),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    as_written(catalogue, &mut schema);
    Some(schema)
}

/// What may stand beside the kind of any stage, and what each is for.
pub fn settings() -> impl Iterator<Item = (&'static str, String)> {
    stage_settings().into_iter().map(|(name, schema)| {
        let text = schema["description"].as_str().unwrap_or_default();
        (name, text.to_owned())
    })
}

fn stage_settings() -> [(&'static str, Value); SETTINGS.len()] {
    [
        (
            "device",
            or_param(json!({
                "type": "string", "pattern": "^(auto|cpu|metal|cuda(:[0-9]+)?)$", "default": "auto",
                "description": "Where to compute: auto, cpu, cuda, cuda:N, metal. A GPU is one stage's of a run at a time, beside a `command` too.",
            })),
        ),
        (
            "seed",
            or_param(json!({
                "type": "integer", "minimum": 0,
                "description": "The seed of this stage, instead of the pipeline's.",
            })),
        ),
        (
            "retries",
            or_param(json!({
                "type": "integer", "minimum": 0, "maximum": 1000, "default": 0,
                "description": "How often a failure that may pass is tried again.",
            })),
        ),
        (
            "timeout",
            json!({
                "type": ["string", "number"],
                "description": "After how long the stage is stopped: `90s`, `5m`, `1h30m`, or seconds.",
            }),
        ),
        (
            "cores",
            or_param(json!({
                "type": "integer", "minimum": 1, "maximum": 65_536, "default": 1,
                "description": "How many cores the stage keeps busy: it counts as that many of --jobs.",
            })),
        ),
        (
            "memory",
            json!({
                "type": ["string", "integer"],
                "description": "How much memory the stage needs, `8GB`: those that say so begin when there is room for all of them.",
            }),
        ),
        (
            "export",
            json!({
                "type": "string",
                "description": "Where in the project the artifact is put.",
            }),
        ),
        (
            "frozen",
            or_param(json!({
                "type": "boolean", "default": false,
                "description": "Never run again: use what the lock has.",
            })),
        ),
        (
            "description",
            json!({ "type": "string", "description": "What the stage is for." }),
        ),
    ]
}

/// A value, or a param that stands for it. What editors show stays outside.
fn or_param(mut schema: Value) -> Value {
    let mut outside = Map::new();
    if let Some(schema) = schema.as_object_mut() {
        for key in ["description", "default"] {
            if let Some(value) = schema.remove(key) {
                outside.insert(key.to_owned(), value);
            }
        }
    }
    outside.insert(
        "anyOf".to_owned(),
        json!([schema, { "$ref": "#/$defs/param" }]),
    );
    Value::Object(outside)
}

/// Turns the schema of a type into that of what is written: params in the place of values, bare names in the
/// place of choices.
fn as_written(catalogue: &Catalogue, schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::Array(mut branches)) = object.remove("oneOf") {
        let bare: Vec<String> = branches
            .iter()
            .filter_map(schema::variant)
            .filter(|(_, payload)| {
                let payload = schema::resolved(catalogue.definitions(), payload);
                payload.get("type") == Some(&json!("object"))
                    && names(payload, "required").is_empty()
            })
            .map(|(name, _)| name.to_owned())
            .collect();
        if !bare.is_empty() {
            let description = format!(
                "Short for defaults throughout: {}.",
                list(bare.iter().map(String::as_str))
            );
            branches.push(json!({ "enum": bare, "description": description }));
        }
        object.insert("anyOf".to_owned(), Value::Array(branches));
    }
    for key in ["anyOf", "allOf"] {
        if let Some(Value::Array(branches)) = object.get_mut(key) {
            branches
                .iter_mut()
                .for_each(|branch| as_written(catalogue, branch));
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = object.get_mut(key) {
            value_position(catalogue, below);
        }
    }
    if let Some(Value::Array(items)) = object.get_mut("prefixItems") {
        items
            .iter_mut()
            .for_each(|item| value_position(catalogue, item));
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties
            .iter_mut()
            .for_each(|(_, property)| value_position(catalogue, property));
    }
}

/// A place where a value stands, so that a param may.
fn value_position(catalogue: &Catalogue, schema: &mut Value) {
    if !schema.is_object() {
        return;
    }
    as_written(catalogue, schema);
    let any_text = schema.get("type") == Some(&json!("string"))
        && schema.get("enum").is_none()
        && schema.get("const").is_none();
    if !any_text {
        *schema = or_param(schema.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::TOYS;

    #[test]
    fn parameters_are_told_from_the_types() {
        let told: Vec<_> = TOYS
            .catalogue()
            .parameters("fit")
            .into_iter()
            .map(|parameter| {
                format!(
                    "{}: {} | {} | {}",
                    parameter.name,
                    parameter.wants,
                    parameter.default.unwrap_or_else(|| "-".to_owned()),
                    if parameter.required {
                        "required"
                    } else if parameter.in_key {
                        ""
                    } else {
                        "setting"
                    },
                )
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        data: the name of a stage | - | required
        optimizer: `adamw` or `sgd` | { adamw: { lr: 0.001 } } | 
        shape: `narrow` or `wide` | narrow | 
        weights: a list | [] | 
        rows: a map | {} | 
        fast: true or false | false | 
        limit: a whole number | - | 
        checkpoint_every: a whole number | - | setting
        ");
    }

    #[test]
    fn the_schema_of_the_file_says_what_can_be_written() {
        let schema = pipeline_schema(TOYS);
        let fit = &schema["$defs"]["stage"]["properties"]["fit"];
        assert_eq!(fit["required"], json!(["data"]));
        assert_eq!(
            fit["properties"]["fast"]["anyOf"],
            json!([{ "type": "boolean" }, { "$ref": "#/$defs/param" }])
        );
        assert!(fit["properties"].get("checkpoint_every").is_some());
        let optimizer = &schema["$defs"]["Optimizer"]["anyOf"];
        let bare = optimizer.as_array().and_then(|branches| branches.last());
        assert_eq!(bare.map(|bare| &bare["enum"]), Some(&json!(["adamw"])));
        let settings = schema["$defs"]["stage"]["properties"].as_object();
        for name in SETTINGS {
            assert!(
                settings.is_some_and(|settings| settings.contains_key(name)),
                "{name}"
            );
        }
        // Every reference leads somewhere.
        let text = schema.to_string();
        for reference in text.split("\"#/$defs/").skip(1) {
            let name = reference.split('"').next().unwrap_or_default();
            assert!(schema["$defs"].get(name).is_some(), "{name}");
        }
    }
}
