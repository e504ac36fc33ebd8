//! Nodes to typed parameters: the last word on what the schemas let pass.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use crate::diagnostic::suggest;
use crate::node::{Entry, Meaning, Node, Shape, Span};

/// Why a node is not of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where.
    pub span: Option<Span>,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {}

impl ReadError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
            span: None,
        }
    }

    fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }
}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {found}"))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {found}"))
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Self {
            help: suggest(name, "there are", known.iter().copied()),
            ..Self::new(format!("there is no choice `{name}`"))
        }
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self {
            help: suggest(name, "there are", known.iter().copied()),
            ..Self::new(format!("there is no key `{name}`"))
        }
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new(format!("`{name}` is missing"))
    }
}

/// Reads a node as `T`.
///
/// # Errors
/// The first thing that is wrong, at the innermost place that is known.
pub fn from_node<T: DeserializeOwned>(node: &Node) -> Result<T, ReadError> {
    T::deserialize(Reader(node)).map_err(|error| error.at(node.span))
}

#[derive(Clone, Copy)]
struct Reader<'de>(&'de Node);

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let read = match &self.0.shape {
            Shape::Scalar(scalar) => match scalar.meaning() {
                Meaning::Null => visitor.visit_unit(),
                Meaning::Bool(value) => visitor.visit_bool(value),
                Meaning::Integer(value) => match (u64::try_from(value), i64::try_from(value)) {
                    (Ok(value), _) => visitor.visit_u64(value),
                    (_, Ok(value)) => visitor.visit_i64(value),
                    _ => visitor.visit_i128(value),
                },
                Meaning::Float(value) => visitor.visit_f64(value),
                Meaning::Text(text) => visitor.visit_borrowed_str(text),
            },
            Shape::List(items) => visitor.visit_seq(Items(items.iter())),
            Shape::Map(entries) => visitor.visit_map(Entries {
                rest: entries.iter(),
                value: None,
            }),
        };
        read.map_err(|error| error.at(self.0.span))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let choice = match &self.0.shape {
            Shape::Scalar(scalar) if !self.0.is_null() => Choice {
                name: &scalar.text,
                span: self.0.span,
                payload: None,
            },
            Shape::Map(entries) if entries.len() == 1 => Choice {
                name: &entries[0].key,
                span: entries[0].key_span,
                payload: Some(&entries[0].value),
            },
            _ => {
                let found = self.0.describe();
                return Err(
                    ReadError::new(format!("expected one choice, found {found}")).at(self.0.span),
                );
            }
        };
        visitor
            .visit_enum(choice)
            .map_err(|error| error.at(self.0.span))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = ReadError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, ReadError> {
        let item = self.0.next();
        item.map(|item| seed.deserialize(Reader(item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, Entry>,
    value: Option<&'de Node>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ReadError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, ReadError> {
        let Some(entry) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some(&entry.value);
        let key = seed.deserialize(Key(&entry.key));
        key.map(Some).map_err(|error| error.at(entry.key_span))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, ReadError> {
        let value = self.value.take().expect("serde asks for a key first");
        seed.deserialize(Reader(value))
            .map_err(|error| error.at(value.span))
    }
}

/// A key is a text, and a number where one is wanted.
#[derive(Clone, Copy)]
struct Key<'de>(&'de str);

macro_rules! number_key {
    ($($method:ident $visit:ident $type:ty),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            match self.0.parse::<$type>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => visitor.visit_borrowed_str(self.0),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_borrowed_str(self.0)
    }

    number_key! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_enum(de::value::BorrowedStrDeserializer::new(self.0))
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Choice<'de> {
    name: &'de str,
    span: Span,
    payload: Option<&'de Node>,
}

impl<'de> de::EnumAccess<'de> for Choice<'de> {
    type Error = ReadError;
    type Variant = Payload<'de>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Payload<'de>), ReadError> {
        let name = seed
            .deserialize(Key(self.name))
            .map_err(|error| error.at(self.span))?;
        Ok((name, Payload(self.payload)))
    }
}

/// What a choice holds; where only its name stands there, nothing, which is all defaults.
struct Payload<'de>(Option<&'de Node>);

impl<'de> Payload<'de> {
    fn read<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, ReadError> {
        match self.0 {
            Some(node) => seed
                .deserialize(Reader(node))
                .map_err(|error| error.at(node.span)),
            None => seed.deserialize(de::value::MapDeserializer::new(std::iter::empty::<(
                &str,
                &str,
            )>())),
        }
    }
}

impl<'de> de::VariantAccess<'de> for Payload<'de> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        match self.0 {
            None => Ok(()),
            Some(node) if node.is_null() || node.entries().is_some_and(<[_]>::is_empty) => Ok(()),
            Some(node) => Err(ReadError::new("this choice takes no parameters").at(node.span)),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, ReadError> {
        self.read(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.read(Visit(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.read(Visit(visitor))
    }
}

/// A visitor as a seed.
struct Visit<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Visit<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_any(self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::yaml;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        #[serde(default)]
        optimizer: Optimizer,
        size: Option<u32>,
        #[serde(default)]
        weights: std::collections::BTreeMap<u8, f32>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Optimizer {
        #[default]
        Plain,
        Adamw(Adamw),
        Decay {
            #[serde(default)]
            rate: f64,
        },
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Adamw {
        lr: f64,
    }

    fn read(text: &str) -> Result<Params, String> {
        let node = yaml::parse(text, 0).expect("good YAML").node;
        from_node(&node).map_err(|error| {
            let span = error.span.expect("every error has a place");
            let place = &text[span.start as usize..span.end as usize];
            format!("{place} | {error}")
        })
    }

    #[test]
    fn a_bare_name_stands_for_all_defaults() {
        for (short, long) in [
            ("{optimizer: adamw}", "{optimizer: {adamw: {}}}"),
            ("{optimizer: decay}", "{optimizer: {decay: {rate: 0}}}"),
            ("{optimizer: plain}", "{optimizer: {plain: }}"),
            ("{}", "{optimizer: plain, size: null}"),
        ] {
            let (short, long) = (read(short), read(long));
            assert!(short.is_ok(), "{short:?}");
            assert_eq!(short, long);
        }
        let weights = read("{weights: {0: 1, 1: 2.5}}")
            .expect("numbers as keys")
            .weights;
        assert_eq!(
            weights.into_iter().collect::<Vec<_>>(),
            [(0, 1.0), (1, 2.5)]
        );
    }

    #[test]
    fn errors_stand_at_the_innermost_place() {
        for (text, error) in [
            (
                "{optimizer: {adamw: {lr: abc}}}",
                "abc | expected f64, found string \"abc\"",
            ),
            ("{optimizer: {adamw: {l: 1}}}", "l | there is no key `l`"),
            ("{optimizer: adam}", "adam | there is no choice `adam`"),
            ("{size: -1}", "-1 | expected u32, found integer `-1`"),
            ("{weights: {x: 1}}", "x | expected u8, found string \"x\""),
            (
                "{optimizer: {plain: 3}}",
                "3 | this choice takes no parameters",
            ),
        ] {
            assert_eq!(read(text), Err(error.to_owned()));
        }
    }
}
