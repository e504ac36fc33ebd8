//! Anything that serializes, to values; with inputs and local paths replaced by digests.

use std::borrow::Cow;
use std::fmt::Display;

use serde::{Serialize, Serializer, ser};

use super::deserialize::from_value;
use super::value::{Map, Value};
use crate::kind::{INPUT_NEWTYPE, InputKind, LOCAL_NEWTYPE, LocalKind};

/// Why something has no canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// A float is NaN.
    #[error("a number is NaN: it has no canonical form")]
    NotANumber,
    /// An integer beyond 64 bits.
    #[error("the number {0} does not fit into 64 bits")]
    TooLarge(String),
    /// `Some` of what is written as null.
    #[error("a value that is there would be written as one that is not")]
    Ambiguous,
    /// A key is in a map twice.
    #[error("the key `{0}` is in a map twice")]
    TwoKeys(String),
    /// Said by the type or by whoever looks up digests.
    #[error("{0}")]
    Other(String),
}

impl ser::Error for CanonicalError {
    fn custom<T: Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }
}

impl serde::de::Error for CanonicalError {
    fn custom<T: Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }
}

/// A reference that was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An [`Input`](crate::Input).
    Input(InputKind),
    /// A [`LocalPath`](crate::LocalPath).
    Local(LocalKind),
}

/// A reference and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundAt {
    /// The dotted path of the parameter: `inputs.reviews`.
    pub path: String,
    /// What it is.
    pub found: Found,
}

/// The value of something without inputs and local paths.
///
/// # Errors
/// [`CanonicalError`].
pub fn to_value<T: Serialize + ?Sized>(thing: &T) -> Result<Value, CanonicalError> {
    to_value_with(thing, &mut |found| {
        Err(CanonicalError::Other(format!(
            "`{}` has to be an artifact by now",
            found.path
        )))
    })
}

/// The value of something; `reference` says what is to stand in the place of inputs and local paths.
///
/// # Errors
/// [`CanonicalError`], and those of `reference`.
pub fn to_value_with<T: Serialize + ?Sized>(
    thing: &T,
    reference: &mut dyn FnMut(FoundAt) -> Result<Value, CanonicalError>,
) -> Result<Value, CanonicalError> {
    let mut writer = Writer {
        path: Vec::new(),
        reference,
    };
    thing.serialize(&mut writer)
}

/// Every input and local path in `thing`, in the order of its fields.
///
/// # Errors
/// [`CanonicalError`].
pub fn references<T: Serialize + ?Sized>(thing: &T) -> Result<Vec<FoundAt>, CanonicalError> {
    let mut met = Vec::new();
    to_value_with(thing, &mut |found| {
        met.push(found);
        Ok(Value::Bool(true))
    })?;
    Ok(met)
}

struct Writer<'h> {
    path: Vec<Cow<'static, str>>,
    reference: &'h mut dyn FnMut(FoundAt) -> Result<Value, CanonicalError>,
}

impl Writer<'_> {
    fn below<T: Serialize + ?Sized>(
        &mut self,
        part: impl Into<Cow<'static, str>>,
        thing: &T,
    ) -> Result<Value, CanonicalError> {
        self.path.push(part.into());
        let value = thing.serialize(&mut *self);
        self.path.pop();
        value
    }
}

fn integer(value: i128) -> Result<Value, CanonicalError> {
    let limit = 1_i128 << 64;
    if (-limit..limit).contains(&value) {
        Ok(Value::Integer(value))
    } else {
        Err(CanonicalError::TooLarge(value.to_string()))
    }
}

fn variant_of(name: &'static str, value: Value) -> Value {
    Value::Map(Map::from_sorted(vec![(Value::text(name), value)]))
}

fn map_of(entries: Vec<(Value, Value)>) -> Result<Value, CanonicalError> {
    Map::new(entries)
        .map(Value::Map)
        .map_err(|key| CanonicalError::TwoKeys(key.to_string()))
}

impl<'w, 'h> Serializer for &'w mut Writer<'h> {
    type Ok = Value;
    type Error = CanonicalError;
    type SerializeSeq = List<'w, 'h>;
    type SerializeTuple = List<'w, 'h>;
    type SerializeTupleStruct = List<'w, 'h>;
    type SerializeTupleVariant = List<'w, 'h>;
    type SerializeMap = Entries<'w, 'h>;
    type SerializeStruct = Entries<'w, 'h>;
    type SerializeStructVariant = Entries<'w, 'h>;

    fn serialize_bool(self, value: bool) -> Result<Value, CanonicalError> {
        Ok(Value::Bool(value))
    }

    fn serialize_i8(self, value: i8) -> Result<Value, CanonicalError> {
        integer(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<Value, CanonicalError> {
        integer(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<Value, CanonicalError> {
        integer(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<Value, CanonicalError> {
        integer(value.into())
    }

    fn serialize_i128(self, value: i128) -> Result<Value, CanonicalError> {
        integer(value)
    }

    fn serialize_u8(self, value: u8) -> Result<Value, CanonicalError> {
        integer(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<Value, CanonicalError> {
        integer(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<Value, CanonicalError> {
        integer(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<Value, CanonicalError> {
        integer(value.into())
    }

    fn serialize_u128(self, value: u128) -> Result<Value, CanonicalError> {
        integer(
            value
                .try_into()
                .map_err(|_| CanonicalError::TooLarge(value.to_string()))?,
        )
    }

    fn serialize_f32(self, value: f32) -> Result<Value, CanonicalError> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<Value, CanonicalError> {
        if value.is_nan() {
            return Err(CanonicalError::NotANumber);
        }
        Ok(Value::Float(value))
    }

    fn serialize_char(self, value: char) -> Result<Value, CanonicalError> {
        Ok(Value::text(value))
    }

    fn serialize_str(self, value: &str) -> Result<Value, CanonicalError> {
        Ok(Value::text(value))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, CanonicalError> {
        Ok(Value::Bytes(value.to_vec()))
    }

    fn serialize_none(self) -> Result<Value, CanonicalError> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, thing: &T) -> Result<Value, CanonicalError> {
        match thing.serialize(self)? {
            Value::Null => Err(CanonicalError::Ambiguous),
            value => Ok(value),
        }
    }

    fn serialize_unit(self) -> Result<Value, CanonicalError> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, CanonicalError> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Value, CanonicalError> {
        Ok(Value::text(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        thing: &T,
    ) -> Result<Value, CanonicalError> {
        let found = match name {
            INPUT_NEWTYPE => Found::Input(from_value(&to_value(thing)?)?),
            LOCAL_NEWTYPE => Found::Local(from_value(&to_value(thing)?)?),
            _ => return thing.serialize(self),
        };
        let path = self.path.join(".");
        (self.reference)(FoundAt { path, found })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        thing: &T,
    ) -> Result<Value, CanonicalError> {
        Ok(variant_of(variant, self.below(variant, thing)?))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'w, 'h>, CanonicalError> {
        Ok(List {
            writer: self,
            items: Vec::new(),
            variant: None,
        })
    }

    fn serialize_tuple(self, _: usize) -> Result<List<'w, 'h>, CanonicalError> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<List<'w, 'h>, CanonicalError> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<List<'w, 'h>, CanonicalError> {
        Ok(List {
            writer: self,
            items: Vec::new(),
            variant: Some(variant),
        })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries<'w, 'h>, CanonicalError> {
        Ok(Entries {
            writer: self,
            entries: Vec::new(),
            key: Value::Null,
            variant: None,
        })
    }

    fn serialize_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Entries<'w, 'h>, CanonicalError> {
        self.serialize_map(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Entries<'w, 'h>, CanonicalError> {
        Ok(Entries {
            writer: self,
            entries: Vec::new(),
            key: Value::Null,
            variant: Some(variant),
        })
    }
}

struct List<'w, 'h> {
    writer: &'w mut Writer<'h>,
    items: Vec<Value>,
    variant: Option<&'static str>,
}

impl List<'_, '_> {
    fn push<T: Serialize + ?Sized>(&mut self, thing: &T) -> Result<(), CanonicalError> {
        let item = self.writer.below(self.items.len().to_string(), thing)?;
        self.items.push(item);
        Ok(())
    }

    fn finish(self) -> Value {
        let list = Value::List(self.items);
        match self.variant {
            Some(variant) => variant_of(variant, list),
            None => list,
        }
    }
}

macro_rules! list {
    ($trait:ident, $method:ident) => {
        impl ser::$trait for List<'_, '_> {
            type Ok = Value;
            type Error = CanonicalError;

            fn $method<T: Serialize + ?Sized>(&mut self, thing: &T) -> Result<(), CanonicalError> {
                self.push(thing)
            }

            fn end(self) -> Result<Value, CanonicalError> {
                Ok(self.finish())
            }
        }
    };
}

list!(SerializeSeq, serialize_element);
list!(SerializeTuple, serialize_element);
list!(SerializeTupleStruct, serialize_field);
list!(SerializeTupleVariant, serialize_field);

struct Entries<'w, 'h> {
    writer: &'w mut Writer<'h>,
    entries: Vec<(Value, Value)>,
    key: Value,
    variant: Option<&'static str>,
}

impl Entries<'_, '_> {
    fn field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        thing: &T,
    ) -> Result<(), CanonicalError> {
        let value = self.writer.below(name, thing)?;
        self.entries.push((Value::text(name), value));
        Ok(())
    }

    fn finish(self) -> Result<Value, CanonicalError> {
        let map = map_of(self.entries)?;
        Ok(match self.variant {
            Some(variant) => variant_of(variant, map),
            None => map,
        })
    }
}

impl ser::SerializeMap for Entries<'_, '_> {
    type Ok = Value;
    type Error = CanonicalError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CanonicalError> {
        self.key = key.serialize(&mut *self.writer)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, thing: &T) -> Result<(), CanonicalError> {
        let key = std::mem::replace(&mut self.key, Value::Null);
        let value = self.writer.below(key.to_string(), thing)?;
        self.entries.push((key, value));
        Ok(())
    }

    fn end(self) -> Result<Value, CanonicalError> {
        self.finish()
    }
}

macro_rules! fields {
    ($trait:ident) => {
        impl ser::$trait for Entries<'_, '_> {
            type Ok = Value;
            type Error = CanonicalError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                thing: &T,
            ) -> Result<(), CanonicalError> {
                self.field(name, thing)
            }

            fn end(self) -> Result<Value, CanonicalError> {
                self.finish()
            }
        }
    };
}

fields!(SerializeStruct);
fields!(SerializeStructVariant);
