//! Which columns are text: one name, or two for pairs.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One column of text, or the two of pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextColumns(pub Vec<String>);

impl Default for TextColumns {
    fn default() -> Self {
        Self(vec!["text".to_owned()])
    }
}

impl Serialize for TextColumns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TextColumns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ColumnsVisitor)
    }
}

struct ColumnsVisitor;

impl<'de> Visitor<'de> for ColumnsVisitor {
    type Value = TextColumns;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a column, or a list of two")
    }

    fn visit_str<E: de::Error>(self, column: &str) -> Result<TextColumns, E> {
        Ok(TextColumns(vec![column.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut columns: A) -> Result<TextColumns, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = columns.next_element()? {
            names.push(name);
        }
        match names.len() {
            1 | 2 => Ok(TextColumns(names)),
            count => Err(de::Error::invalid_length(count, &self)),
        }
    }
}

impl JsonSchema for TextColumns {
    fn schema_name() -> Cow<'static, str> {
        "TextColumns".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The column of text, or the two columns of pairs.",
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": 2 },
            ],
        })
    }
}
