//! The published vectors: ingredients, their canonical bytes and their keys, in `tests/vectors/keys.json` at the
//! root of the workspace.
//!
//! They are written by `TAPER_WRITE_VECTORS=1 cargo test -p taper-engine key_vectors`, which is right only when
//! the format is meant to change. In the file a float is `{"$float": "0.001"}`, an input `{"$input": HEX}`, files
//! of the project `{"$local": HEX}`.

use std::path::Path;

use serde_json::{Value as Json, json};
use taper_cache::Digest;

use crate::canonical::{Map, Value};
use crate::key::Ingredients;

fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Integer(value) => match u64::try_from(*value) {
            Ok(value) => json!(value),
            Err(_) => json!(i64::try_from(*value).expect("the vectors have 64-bit numbers")),
        },
        Value::Float(value) => json!({ "$float": format!("{value:?}") }),
        Value::Text(text) => json!(text),
        Value::Bytes(_) => panic!("the vectors have no bytes"),
        Value::Input(digest) => json!({ "$input": digest }),
        Value::Local(digest) => json!({ "$local": digest }),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(map) => {
            let entries = map
                .iter()
                .map(|(key, value)| (key.to_string(), to_json(value)));
            Json::Object(entries.collect())
        }
    }
}

fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => Value::Integer(number.to_string().parse().expect("whole")),
        Json::String(text) => Value::text(text),
        Json::Array(items) => Value::List(items.iter().map(from_json).collect()),
        Json::Object(entries) => {
            let text = |name: &str| entries.get(name).and_then(Json::as_str);
            if let Some(float) = text("$float") {
                return Value::Float(float.parse().expect("a float"));
            }
            if let Some(digest) = text("$input") {
                return Value::Input(digest.parse().expect("a digest"));
            }
            if let Some(digest) = text("$local") {
                return Value::Local(digest.parse().expect("a digest"));
            }
            let entries = entries
                .iter()
                .map(|(key, value)| (Value::text(key), from_json(value)));
            Value::Map(Map::new(entries.collect()).expect("keys of JSON differ"))
        }
    }
}

fn ingredients_to_json(ingredients: &Ingredients) -> Json {
    let Value::Map(map) = Value::from_bytes(&ingredients.to_bytes()).expect("canonical") else {
        panic!("ingredients are a map");
    };
    to_json(&Value::Map(map))
}

fn ingredients_from_json(json: &Json) -> Ingredients {
    Ingredients::from_bytes(&from_json(json).to_bytes()).expect("ingredients")
}

/// One for every sort of ingredient and of value.
fn vectors() -> Vec<(&'static str, Ingredients)> {
    let plain = |kind: &str, params: Json| Ingredients {
        kind: kind.to_owned(),
        version: 1,
        params: from_json(&params),
        resolved: None,
        seed: None,
        device: None,
        arithmetic: None,
        smoke: false,
    };
    let input = json!({ "$input": Digest::of(b"an input") });
    let local = json!({ "$local": Digest::of(b"a file") });
    let float = |text: &str| json!({ "$float": text });
    vec![
        ("no parameters", plain("download", json!({}))),
        (
            "every type of value",
            plain(
                "command",
                json!({
                    "null": null, "true": true, "false": false, "text": "ü", "empty": "",
                    "list": [1, "1", float("1.0")], "map": {"b": 1, "a": 2, "aa": 3}, "nothing": [],
                }),
            ),
        ),
        (
            "whole numbers",
            plain(
                "command",
                json!([
                    0,
                    23,
                    24,
                    255,
                    256,
                    65535,
                    65536,
                    4_294_967_295_u64,
                    4_294_967_296_u64,
                    u64::MAX,
                    -1,
                    -24,
                    -25,
                    i64::MIN
                ]),
            ),
        ),
        (
            "floats",
            plain(
                "command",
                json!(
                    [
                        "0.0", "-0.0", "1.0", "1.5", "65504.0", "65505.0", "0.1", "5e-5", "1e300",
                        "inf"
                    ]
                    .map(float)
                ),
            ),
        ),
        (
            "an input and files of the project",
            plain(
                "command",
                json!({ "inputs": { "reviews": input }, "files": [local] }),
            ),
        ),
        (
            "what was resolved",
            Ingredients {
                resolved: Some(from_json(
                    &json!({ "commit": "b".repeat(40), "files": ["a.parquet"] }),
                )),
                ..plain("download", json!({ "hub": "stanfordnlp/imdb" }))
            },
        ),
        (
            "a seed",
            Ingredients {
                seed: Some(u64::MAX),
                ..plain("shuffle", json!({ "data": input }))
            },
        ),
        (
            "a seed and a device, a later version",
            Ingredients {
                version: 3,
                seed: Some(42),
                device: Some("cpu".to_owned()),
                ..plain(
                    "train",
                    json!({
                        "data": input, "optimizer": { "adamw": { "lr": float("0.001"),
                        "betas": [float("0.9"), float("0.999")] } }, "batch_size": 8, "schedule": "constant",
                    }),
                )
            },
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_published_vectors_hold() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/keys.json");
    let written: Vec<Json> = vectors()
        .iter()
        .map(|(name, ingredients)| {
            json!({
                "name": name,
                "ingredients": ingredients_to_json(ingredients),
                "cbor": hex(&ingredients.to_bytes()),
                "key": ingredients.key(),
            })
        })
        .collect();
    let text = serde_json::to_string_pretty(&written).expect("JSON") + "\n";
    if std::env::var_os("TAPER_WRITE_VECTORS").is_some() {
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("a folder to write to");
        fs_err::write(&path, &text).expect("a file to write");
    }
    let published = fs_err::read_to_string(&path).expect("the vectors are committed");
    assert_eq!(
        published, text,
        "a key has changed: a change of format needs a new version, not new vectors"
    );
    let published: Vec<Json> = serde_json::from_str(&published).expect("JSON");
    for vector in published {
        let ingredients = ingredients_from_json(&vector["ingredients"]);
        assert_eq!(
            vector["cbor"],
            hex(&ingredients.to_bytes()),
            "{}",
            vector["name"]
        );
        assert_eq!(
            vector["key"],
            ingredients.key().to_string(),
            "{}",
            vector["name"]
        );
    }
}
