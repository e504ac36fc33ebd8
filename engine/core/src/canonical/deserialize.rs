//! Values to anything that deserializes.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer, VariantAccess, Visitor};
use serde::{Deserializer, de, forward_to_deserialize_any};

use super::serialize::CanonicalError;
use super::value::Value;

/// Reads a value as what it was made from.
///
/// # Errors
/// Where the value is not of this type.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, CanonicalError> {
    T::deserialize(Reader(value))
}

#[derive(Clone, Copy)]
struct Reader<'de>(&'de Value);

impl<'de> IntoDeserializer<'de, CanonicalError> for Reader<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = CanonicalError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CanonicalError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_i128(*value),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            Value::Input(digest) | Value::Local(digest) => {
                visitor.visit_borrowed_bytes(digest.as_bytes())
            }
            Value::List(items) => {
                let mut list = SeqDeserializer::new(items.iter().map(Reader));
                let value = visitor.visit_seq(&mut list)?;
                list.end()?;
                Ok(value)
            }
            Value::Map(map) => {
                let entries = map.iter().map(|(key, value)| (Reader(key), Reader(value)));
                let mut map = MapDeserializer::new(entries);
                let value = visitor.visit_map(&mut map)?;
                map.end()?;
                Ok(value)
            }
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CanonicalError> {
        match self.0 {
            Value::Float(value) if super::float::as_single(*value).is_none() => {
                Err(de::Error::custom("a number has more digits than it can"))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CanonicalError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CanonicalError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CanonicalError> {
        let (name, payload) = match self.0 {
            Value::Text(_) => (self.0, &Value::Null),
            Value::Map(map) if map.len() == 1 => map.iter().next().expect("it has one entry"),
            _ => {
                return Err(de::Error::custom(
                    "a choice is a text or a map of one entry",
                ));
            }
        };
        visitor.visit_enum(Choice { name, payload })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Choice<'de> {
    name: &'de Value,
    payload: &'de Value,
}

impl<'de> de::EnumAccess<'de> for Choice<'de> {
    type Error = CanonicalError;
    type Variant = Reader<'de>;

    fn variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Reader<'de>), CanonicalError> {
        Ok((seed.deserialize(Reader(self.name))?, Reader(self.payload)))
    }
}

impl<'de> VariantAccess<'de> for Reader<'de> {
    type Error = CanonicalError;

    fn unit_variant(self) -> Result<(), CanonicalError> {
        match self.0 {
            Value::Null => Ok(()),
            _ => Err(de::Error::custom("this choice takes no parameters")),
        }
    }

    fn newtype_variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, CanonicalError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, CanonicalError> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CanonicalError> {
        self.deserialize_any(visitor)
    }
}
