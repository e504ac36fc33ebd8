//! Values to canonical bytes.

use super::float::{as_half, as_single};
use super::value::{INPUT_TAG, LOCAL_TAG, Value};

impl Value {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(0xf6),
            Self::Bool(false) => out.push(0xf4),
            Self::Bool(true) => out.push(0xf5),
            // The serializer and the decoder keep integers to 64 bits and a sign.
            Self::Integer(value @ 0..) => head(0, *value as u64, out),
            Self::Integer(value) => head(1, (-1 - value) as u64, out),
            Self::Float(value) => float(*value, out),
            Self::Bytes(bytes) => string(2, bytes, out),
            Self::Text(text) => string(3, text.as_bytes(), out),
            Self::List(items) => {
                head(4, items.len() as u64, out);
                for item in items {
                    item.encode(out);
                }
            }
            Self::Map(map) => {
                head(5, map.len() as u64, out);
                for (key, value) in map.iter() {
                    key.encode(out);
                    value.encode(out);
                }
            }
            Self::Input(digest) => {
                head(6, INPUT_TAG, out);
                string(2, digest.as_bytes(), out);
            }
            Self::Local(digest) => {
                head(6, LOCAL_TAG, out);
                string(2, digest.as_bytes(), out);
            }
        }
    }
}

/// A major type and its argument, in the shortest form.
fn head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    if argument < 24 {
        out.push(major | argument as u8);
    } else if let Ok(short) = u8::try_from(argument) {
        out.extend([major | 24, short]);
    } else if let Ok(short) = u16::try_from(argument) {
        out.push(major | 25);
        out.extend(short.to_be_bytes());
    } else if let Ok(short) = u32::try_from(argument) {
        out.push(major | 26);
        out.extend(short.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend(argument.to_be_bytes());
    }
}

fn string(major: u8, bytes: &[u8], out: &mut Vec<u8>) {
    head(major, bytes.len() as u64, out);
    out.extend(bytes);
}

fn float(value: f64, out: &mut Vec<u8>) {
    let single = as_single(value);
    if let Some(half) = single.and_then(as_half) {
        out.push(0xf9);
        out.extend(half.to_be_bytes());
    } else if let Some(single) = single {
        out.push(0xfa);
        out.extend(single.to_be_bytes());
    } else {
        out.push(0xfb);
        out.extend(value.to_be_bytes());
    }
}
