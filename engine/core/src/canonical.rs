//! The canonical encoding: the one byte form of a stage's ingredients, from which its key is derived.
//!
//! It is deterministic CBOR as RFC 8949, section 4.2.1 ("core deterministic encoding") asks:
//!
//! | what | how |
//! |---|---|
//! | integers, lengths, tags | in the shortest form that holds them; from -2^64 to 2^64 - 1 |
//! | floats | in the shortest of half, single and double that keeps the value; `-0.0` is not `0.0` |
//! | NaN | refused: it has many bit patterns and means that something went wrong |
//! | strings, byte strings, lists, maps | of definite length; strings are UTF-8 |
//! | maps | keys ascending by the bytes of their encoding; no key twice |
//!
//! What Rust's types become:
//!
//! | Rust | CBOR |
//! |---|---|
//! | any integer type | integer |
//! | `f32`, `f64` | float, even where the value is whole: `1.0` is not `1`; an `f32` is written as the `f64` of the same value |
//! | `bool`, `char`, `String` | true or false, text, text |
//! | `Option` | null, or the value itself; `Some` of what would be written as null is refused |
//! | `()`, a unit struct | null |
//! | a list, a tuple, a set | list |
//! | a struct, a map | map, fields by name |
//! | an enum | text for a unit variant, else a map of one entry, the variant's name |
//! | a newtype | what it holds |
//! | [`Input`](crate::Input) | tag [`INPUT_TAG`] on the 32 bytes of the artifact's digest |
//! | [`LocalPath`](crate::LocalPath) | tag [`LOCAL_TAG`] on the 32 bytes of the digest of the files |
//!
//! Reading takes this form and no other, so that two different byte strings never mean the same: whatever
//! [`Value::from_bytes`] accepts, [`Value::to_bytes`] writes again byte for byte. The committed vectors in
//! `tests/vectors/keys.json` hold it; a change of a vector is a change of format.

mod decode;
mod deserialize;
mod encode;
mod float;
mod serialize;
#[cfg(test)]
mod tests;
mod value;

pub use decode::DecodeError;
pub use deserialize::from_value;
pub use serialize::{CanonicalError, Found, FoundAt, references, to_value, to_value_with};
pub use value::{INPUT_TAG, LOCAL_TAG, Map, Value};
