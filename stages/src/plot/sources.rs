//! The inputs of a figure: one, a list, or a map from the names that the figure shows.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{
    BytesDeserializer, MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use taper_engine::{Artifact, Input};

/// Inputs: `model`, `[model, other]` or `{ small: model, large: other }`. One and a list of one are the
/// same. The names of a map are part of the figure; names of stages are not.
#[derive(Clone, Debug)]
pub enum Sources<A> {
    /// In the order in which they are drawn.
    List(Vec<Input<A>>),
    /// By name.
    Named(BTreeMap<String, Input<A>>),
}

impl<A> Sources<A> {
    /// The inputs and what the figure calls them: nothing where there is one alone.
    pub fn named(&self) -> Vec<(String, &Input<A>)> {
        match self {
            Self::List(inputs) if inputs.len() == 1 => vec![(String::new(), &inputs[0])],
            Self::List(inputs) => inputs
                .iter()
                .enumerate()
                .map(|(index, input)| (format!("run {}", index + 1), input))
                .collect(),
            Self::Named(inputs) => inputs
                .iter()
                .map(|(name, input)| (name.clone(), input))
                .collect(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::List(inputs) => inputs.is_empty(),
            Self::Named(inputs) => inputs.is_empty(),
        }
    }
}

impl<A: Artifact> Serialize for Sources<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::List(inputs) => inputs.serialize(serializer),
            Self::Named(inputs) => inputs.serialize(serializer),
        }
    }
}

impl<'de, A> Deserialize<'de> for Sources<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourcesVisitor(PhantomData))
    }
}

struct SourcesVisitor<A>(PhantomData<fn() -> A>);

impl<'de, A> de::Visitor<'de> for SourcesVisitor<A> {
    type Value = Sources<A>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a stage, a list of them, or a map from names to stages")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Input::deserialize(StrDeserializer::new(name)).map(|input| Sources::List(vec![input]))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Input::deserialize(BytesDeserializer::new(bytes)).map(|input| Sources::List(vec![input]))
    }

    fn visit_seq<S: de::SeqAccess<'de>>(self, items: S) -> Result<Self::Value, S::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(Sources::List)
    }

    fn visit_map<M: de::MapAccess<'de>>(self, entries: M) -> Result<Self::Value, M::Error> {
        BTreeMap::deserialize(MapAccessDeserializer::new(entries)).map(Sources::Named)
    }
}

impl<A: Artifact> JsonSchema for Sources<A> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Sources_{}", Input::<A>::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let input = generator.subschema_for::<Input<A>>();
        json_schema!({
            "description": "A stage, a list of stages, or a map from the names that the figure shows to stages.",
            "anyOf": [
                input,
                { "type": "array", "items": input, "minItems": 1 },
                { "type": "object", "additionalProperties": input, "minProperties": 1 },
            ],
        })
    }
}

/// Names: `loss` or `[loss, eval_loss]`. One and a list of one are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Names(pub Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> de::Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name or a list of names")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Names, E> {
        Ok(Names(vec![name.to_owned()]))
    }

    fn visit_seq<S: de::SeqAccess<'de>>(self, items: S) -> Result<Names, S::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(Names)
    }
}

impl JsonSchema for Names {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Names".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A name or a list of names.",
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" }, "minItems": 1 },
            ],
        })
    }
}
