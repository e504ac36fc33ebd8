//! The encoding's rules, each ambiguity, and the vectors that other programs can be checked against.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use taper_cache::Digest;

use super::*;
use crate::kind::{InputKind, LocalKind, Reference};
use crate::{ArtifactFiles, Input, LocalPath, StageError};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let pair = |pair| std::str::from_utf8(pair).expect("ASCII");
    digits
        .map(|digits| u8::from_str_radix(pair(digits), 16).expect("hexadecimal"))
        .collect()
}

fn map<const N: usize>(entries: [(Value, Value); N]) -> Value {
    Value::Map(Map::new(entries.into()).expect("keys differ"))
}

fn integer(value: i128) -> Value {
    Value::Integer(value)
}

fn list(values: impl IntoIterator<Item = i128>) -> Value {
    Value::List(values.into_iter().map(integer).collect())
}

/// RFC 8949, appendix A: those that are in this encoding.
#[test]
fn examples_of_the_standard() {
    let text = Value::text;
    let float = Value::Float;
    let nested = Value::List(vec![integer(1), list([2, 3]), list([4, 5])]);
    for (value, bytes) in [
        (integer(0), "00"),
        (integer(1), "01"),
        (integer(10), "0a"),
        (integer(23), "17"),
        (integer(24), "1818"),
        (integer(25), "1819"),
        (integer(100), "1864"),
        (integer(1000), "1903e8"),
        (integer(1_000_000), "1a000f4240"),
        (integer(1_000_000_000_000), "1b000000e8d4a51000"),
        (integer(18_446_744_073_709_551_615), "1bffffffffffffffff"),
        (integer(-18_446_744_073_709_551_616), "3bffffffffffffffff"),
        (integer(-1), "20"),
        (integer(-10), "29"),
        (integer(-100), "3863"),
        (integer(-1000), "3903e7"),
        (float(0.0), "f90000"),
        (float(-0.0), "f98000"),
        (float(1.0), "f93c00"),
        (float(1.1), "fb3ff199999999999a"),
        (float(1.5), "f93e00"),
        (float(65504.0), "f97bff"),
        (float(100_000.0), "fa47c35000"),
        (float(3.402_823_466_385_288_6e38), "fa7f7fffff"),
        (float(1.0e300), "fb7e37e43c8800759c"),
        (float(5.960_464_477_539_063e-8), "f90001"),
        (float(0.000_061_035_156_25), "f90400"),
        (float(-4.0), "f9c400"),
        (float(-4.1), "fbc010666666666666"),
        (float(f64::INFINITY), "f97c00"),
        (float(f64::NEG_INFINITY), "f9fc00"),
        (Value::Bool(false), "f4"),
        (Value::Bool(true), "f5"),
        (Value::Null, "f6"),
        (Value::Bytes(Vec::new()), "40"),
        (Value::Bytes(vec![1, 2, 3, 4]), "4401020304"),
        (text(""), "60"),
        (text("a"), "6161"),
        (text("IETF"), "6449455446"),
        (text("\"\\"), "62225c"),
        (text("\u{fc}"), "62c3bc"),
        (text("\u{6c34}"), "63e6b0b4"),
        (text("\u{10151}"), "64f0908591"),
        (list([]), "80"),
        (list([1, 2, 3]), "83010203"),
        (nested, "8301820203820405"),
        (
            list(1..=25),
            "98190102030405060708090a0b0c0d0e0f101112131415161718181819",
        ),
        (map([]), "a0"),
        (
            map([(integer(1), integer(2)), (integer(3), integer(4))]),
            "a201020304",
        ),
        (
            map([(text("a"), integer(1)), (text("b"), list([2, 3]))]),
            "a26161016162820203",
        ),
    ] {
        assert_eq!(hex(&value.to_bytes()), bytes, "{value}");
        assert_eq!(Value::from_bytes(&unhex(bytes)), Ok(value));
    }
}

/// RFC 8949, section 4.2.1: keys by their encoding, so shorter ones first.
#[test]
fn keys_are_in_the_order_of_the_standard() {
    let keys = [
        integer(10),
        integer(100),
        integer(-1),
        Value::text("z"),
        Value::text("aa"),
        list([100]),
        list([-1]),
        Value::Bool(false),
    ];
    let entries = keys.iter().rev().map(|key| (key.clone(), Value::Null));
    let sorted = Map::new(entries.collect()).expect("keys differ");
    assert!(sorted.iter().map(|(key, _)| key).eq(&keys));
    let twice = vec![(integer(1), Value::Null), (integer(1), Value::Null)];
    assert_eq!(Map::new(twice), Err(integer(1)));
}

#[test]
fn no_other_bytes_are_taken() {
    for (bytes, why) in [
        ("", "the bytes end too early"),
        ("0000", "there is something after the value"),
        ("1817", "a number is not in its shortest form"),
        ("190017", "a number is not in its shortest form"),
        ("1b0000000000000017", "a number is not in its shortest form"),
        ("580101", "a number is not in its shortest form"),
        ("fa3f800000", "a float is not in its shortest form"),
        ("fb3ff0000000000000", "a float is not in its shortest form"),
        ("f97e00", "not a number"),
        ("fa7fc00001", "not a number"),
        ("fb7ff8000000000001", "not a number"),
        ("5f42010243030405ff", "lengths have to be definite"),
        ("7f6161ff", "lengths have to be definite"),
        ("9f01ff", "lengths have to be definite"),
        ("bf6161 01ff", "lengths have to be definite"),
        ("62c328", "a text is not UTF-8"),
        ("a2616201616102", "the keys of a map are not in order"),
        ("a2616101616102", "the keys of a map are not in order"),
        ("c074", "the bytes end too early"),
        ("c001", "a tag has to hold the bytes of a digest"),
        ("f7", "the simple value is unknown"),
        ("f0", "the simple value is unknown"),
        ("f818", "the simple value is unknown"),
        ("1c", "the byte is reserved"),
        ("ff", "lengths have to be definite"),
        ("9bffffffffffffffff", "the bytes end too early"),
        ("5bffffffffffffffff", "the bytes end too early"),
    ] {
        let bytes = unhex(&bytes.replace(' ', ""));
        let error = Value::from_bytes(&bytes).expect_err(why);
        assert_eq!(error.why, why, "{}", hex(&bytes));
    }
    let deep = [0x81].repeat(200);
    let error = Value::from_bytes(&deep).expect_err("too deep");
    assert_eq!(error.why, "values are nested too deeply");
    let mut unknown_tag = vec![0xc1, 0x58, 0x20];
    unknown_tag.extend([0; 32]);
    let error = Value::from_bytes(&unknown_tag).expect_err("an unknown tag");
    assert_eq!(error.why, "the tag is unknown");
}

fn encoded<T: Serialize>(thing: T) -> String {
    hex(&to_value(&thing).expect("canonical").to_bytes())
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Choice {
    Unit,
    Newtype(u8),
    Tuple(u8, u8),
    Struct { a: u8 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(u8);

#[test]
fn what_differs_is_written_differently() {
    let written = [
        encoded(1_u8),
        encoded(1.0_f64),
        encoded("1"),
        encoded(true),
        encoded(()),
        encoded([1_u8]),
        encoded([[1_u8]]),
        encoded(["1", ""]),
        encoded(["", "1"]),
        encoded("1,"),
        encoded(-1_i64),
        encoded(u64::MAX),
        encoded(i64::MIN),
        encoded(0.0_f64),
        encoded(-0.0_f64),
        encoded(0.1_f32),
        encoded(0.1_f64),
        encoded(Choice::Newtype(1)),
        encoded(Choice::Tuple(1, 1)),
        encoded(Choice::Struct { a: 1 }),
        encoded(BTreeMap::from([(1_u8, 1_u8)])),
        encoded(BTreeMap::from([("1", 1_u8)])),
        encoded(BTreeMap::from([("1", "1")])),
        encoded(Vec::<u8>::new()),
        encoded(BTreeMap::<u8, u8>::new()),
        encoded(""),
    ];
    let mut unique = written.to_vec();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), written.len());
}

#[test]
fn what_is_the_same_is_written_alike() {
    assert_eq!(encoded(1_u8), encoded(1_i64));
    assert_eq!(encoded(Some(1)), encoded(1));
    assert_eq!(encoded(Newtype(1)), encoded(1));
    assert_eq!(encoded(Choice::Unit), encoded("Unit"));
    assert_eq!(encoded(0.5_f32), encoded(0.5_f64));
    assert_eq!(encoded(0.1_f32), encoded(f64::from(0.1_f32)));
    assert_eq!(encoded(None::<u8>), encoded(()));
    assert_eq!(encoded((1, 2)), encoded(vec![1, 2]));
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    assert_eq!(to_value(&f64::NAN), Err(CanonicalError::NotANumber));
    assert_eq!(to_value(&f32::NAN), Err(CanonicalError::NotANumber));
    assert_eq!(to_value(&Some(())), Err(CanonicalError::Ambiguous));
    assert_eq!(to_value(&Some(None::<u8>)), Err(CanonicalError::Ambiguous));
    let large = 1_i128 << 64;
    assert!(matches!(to_value(&large), Err(CanonicalError::TooLarge(_))));
    assert!(to_value(&(-large)).is_ok());
}

#[test]
fn a_choice_is_read_back() {
    for choice in [
        Choice::Unit,
        Choice::Newtype(1),
        Choice::Tuple(1, 2),
        Choice::Struct { a: 1 },
    ] {
        let value = to_value(&choice).expect("canonical");
        assert_eq!(from_value(&value), Ok(choice));
    }
    assert!(from_value::<f32>(&Value::Float(0.1)).is_err());
    assert!(from_value::<u8>(&integer(256)).is_err());
}

struct View;

impl crate::Artifact for View {
    const TYPES: &'static [taper_cache::ArtifactType] = &[taper_cache::ArtifactType::Model];

    fn open(_: ArtifactFiles) -> Result<Self, StageError> {
        Ok(Self)
    }
}

#[derive(Serialize, Deserialize)]
struct Wired {
    one: Input<View>,
    maybe: Option<Input<View>>,
    named: BTreeMap<String, Vec<Input<View>>>,
    file: LocalPath,
    files: Vec<LocalPath<true>>,
}

#[test]
fn references_become_digests_and_are_read_back() {
    let wired: Wired = serde_json::from_str(
        r#"{"one": "a", "maybe": "b.c", "named": {"x": ["d"]}, "file": "e.csv", "files": ["f"]}"#,
    )
    .expect("JSON");
    let met = references(&wired).expect("canonical");
    let paths: Vec<_> = met.iter().map(|at| at.path.as_str()).collect();
    assert_eq!(paths, ["one", "maybe", "named.x.0", "file", "files.0"]);
    assert_eq!(
        met[1].found,
        Found::Input(InputKind {
            reference: Reference::Name("b.c".to_owned()),
            types: vec![taper_cache::ArtifactType::Model],
        })
    );
    assert_eq!(
        met[4].found,
        Found::Local(LocalKind {
            reference: Reference::Name("f".to_owned()),
            named: true,
        })
    );
    assert!(to_value(&wired).is_err(), "names are not canonical");
    let value = to_value_with(&wired, &mut |at| {
        let digest = Digest::of(at.path.as_bytes());
        Ok(match at.found {
            Found::Input(_) => Value::Input(digest),
            Found::Local(_) => Value::Local(digest),
        })
    })
    .expect("canonical");
    let decoded = Value::from_bytes(&value.to_bytes()).expect("canonical");
    assert_eq!(decoded, value);
    let read: Wired = from_value(&decoded).expect("the same type");
    assert_eq!(
        read.named["x"][0].reference,
        Reference::Artifact(Digest::of(b"named.x.0"))
    );
    assert_eq!(
        read.files[0].reference,
        Reference::Artifact(Digest::of(b"files.0"))
    );
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-(1_i128 << 64)..1_i128 << 64).prop_map(Value::Integer),
        any::<f64>()
            .prop_filter("NaN is refused", |float| !float.is_nan())
            .prop_map(Value::Float),
        any::<f32>()
            .prop_filter("NaN is refused", |float| !float.is_nan())
            .prop_map(|float| Value::Float(float.into())),
        ".*".prop_map(Value::Text),
        any::<Vec<u8>>().prop_map(Value::Bytes),
        any::<[u8; 32]>().prop_map(|bytes| Value::Input(Digest::from_bytes(bytes))),
        any::<[u8; 32]>().prop_map(|bytes| Value::Local(Digest::from_bytes(bytes))),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            prop::collection::vec((inner.clone(), inner), 0..6)
                .prop_filter_map("keys differ", |entries| Map::new(entries).ok())
                .prop_map(Value::Map),
        ]
    })
}

fn same(a: &Value, b: &Value) -> bool {
    a == b && a.to_bytes() == b.to_bytes()
}

proptest! {
    #[test]
    fn every_value_is_read_back(value in values()) {
        let read = Value::from_bytes(&value.to_bytes()).expect("canonical");
        prop_assert!(same(&read, &value));
    }

    #[test]
    fn whatever_is_accepted_is_written_again(bytes in any::<Vec<u8>>()) {
        if let Ok(value) = Value::from_bytes(&bytes) {
            prop_assert_eq!(value.to_bytes(), bytes);
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_means_something_else(
        value in values(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let mut bytes = value.to_bytes();
        let index = at.index(bytes.len());
        bytes[index] ^= flip;
        if let Ok(other) = Value::from_bytes(&bytes) {
            prop_assert!(!same(&other, &value));
        }
    }
}
