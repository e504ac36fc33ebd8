//! Canonical bytes to values; no other bytes are taken.

use taper_cache::Digest;

use super::float::{as_half, as_single, from_half};
use super::value::{INPUT_TAG, LOCAL_TAG, Map, Value};

/// Deeper than any parameter; keeps hostile bytes from exhausting the stack.
const DEPTH: usize = 128;

/// Why bytes are not canonical.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset} of the ingredients: {why}")]
pub struct DecodeError {
    /// Where, from 0.
    pub offset: usize,
    /// The rule that is broken.
    pub why: &'static str,
}

impl Value {
    /// Reads canonical bytes.
    ///
    /// # Errors
    /// Where the bytes are not what [`Value::to_bytes`] would write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader { bytes, offset: 0 };
        let value = reader.value(0)?;
        if reader.offset != bytes.len() {
            return Err(reader.error("there is something after the value"));
        }
        Ok(value)
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
    offset: usize,
}

impl<'b> Reader<'b> {
    fn error(&self, why: &'static str) -> DecodeError {
        DecodeError {
            offset: self.offset,
            why,
        }
    }

    fn take(&mut self, count: u64) -> Result<&'b [u8], DecodeError> {
        let rest = &self.bytes[self.offset..];
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= rest.len())
            .ok_or_else(|| self.error("the bytes end too early"))?;
        self.offset += count;
        Ok(&rest[..count])
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.try_into().expect("`take` gives as many as asked for"))
    }

    /// A major type, the short form of its argument, and the argument.
    fn head(&mut self) -> Result<(u8, u8, u64), DecodeError> {
        let [first] = self.number()?;
        let (major, short) = (first >> 5, first & 0x1f);
        let (argument, least) = match short {
            0..=23 => (u64::from(short), 0),
            24 => (u64::from(u8::from_be_bytes(self.number()?)), 24),
            25 => (u64::from(u16::from_be_bytes(self.number()?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(self.number()?)), 1 << 16),
            27 => (u64::from_be_bytes(self.number()?), 1 << 32),
            31 => return Err(self.error("lengths have to be definite")),
            _ => return Err(self.error("the byte is reserved")),
        };
        if major < 7 && argument < least {
            return Err(self.error("a number is not in its shortest form"));
        }
        Ok((major, short, argument))
    }

    fn value(&mut self, depth: usize) -> Result<Value, DecodeError> {
        if depth > DEPTH {
            return Err(self.error("values are nested too deeply"));
        }
        let (major, short, argument) = self.head()?;
        Ok(match major {
            0 => Value::Integer(argument.into()),
            1 => Value::Integer(-1 - i128::from(argument)),
            2 => Value::Bytes(self.take(argument)?.to_vec()),
            3 => {
                let text = std::str::from_utf8(self.take(argument)?);
                Value::text(text.map_err(|_| self.error("a text is not UTF-8"))?)
            }
            4 => {
                let items = (0..argument).map(|_| self.value(depth + 1));
                Value::List(items.collect::<Result<_, _>>()?)
            }
            5 => Value::Map(self.map(argument, depth)?),
            6 => {
                let Value::Bytes(bytes) = self.value(depth + 1)? else {
                    return Err(self.error("a tag has to hold the bytes of a digest"));
                };
                let digest = bytes
                    .try_into()
                    .map(Digest::from_bytes)
                    .map_err(|_| self.error("a digest has 32 bytes"))?;
                match argument {
                    INPUT_TAG => Value::Input(digest),
                    LOCAL_TAG => Value::Local(digest),
                    _ => return Err(self.error("the tag is unknown")),
                }
            }
            _ => self.simple(short, argument)?,
        })
    }

    fn map(&mut self, entries: u64, depth: usize) -> Result<Map, DecodeError> {
        let mut read = Vec::new();
        let mut last: Option<&[u8]> = None;
        for _ in 0..entries {
            let start = self.offset;
            let key = self.value(depth + 1)?;
            let bytes = &self.bytes[start..self.offset];
            if last.is_some_and(|last| last >= bytes) {
                return Err(self.error("the keys of a map are not in order"));
            }
            last = Some(bytes);
            read.push((key, self.value(depth + 1)?));
        }
        Ok(Map::from_sorted(read))
    }

    /// What stands under major type 7: true, false, null, floats.
    fn simple(&self, short: u8, argument: u64) -> Result<Value, DecodeError> {
        let float = match short {
            20 => return Ok(Value::Bool(false)),
            21 => return Ok(Value::Bool(true)),
            22 => return Ok(Value::Null),
            25 => from_half(argument as u16),
            26 => {
                let single = f32::from_bits(argument as u32);
                if as_half(single).is_some() {
                    return Err(self.error("a float is not in its shortest form"));
                }
                f64::from(single)
            }
            27 => {
                let double = f64::from_bits(argument);
                if as_single(double).is_some() {
                    return Err(self.error("a float is not in its shortest form"));
                }
                double
            }
            _ => return Err(self.error("the simple value is unknown")),
        };
        if float.is_nan() {
            return Err(self.error("not a number"));
        }
        Ok(Value::Float(float))
    }
}
