//! A stage's key: what can change a byte of its result, hashed.
//!
//! | value | in the key | why |
//! |---|---|---|
//! | the kind's name and version | yes | they say which program runs |
//! | every parameter, defaults filled in | yes | [`Kind::Params`](crate::Kind::Params) |
//! | an input | its artifact's digest | the same bytes give the same result, whoever made them |
//! | files of the project | the digest of their contents | likewise |
//! | what was resolved outside (commit, hashes) | yes | a branch may move, an address may change |
//! | the seed | where the kind is [`SEEDED`](crate::Kind::SEEDED) | elsewhere it changes nothing |
//! | the device's class | where the kind [`COMPUTES`](crate::Kind::COMPUTES) | each class has its own rounding |
//! | the sort of processor | where a kind says that its bits [follow it](crate::Kind::arithmetic) | two sorts may round otherwise |
//! | that only one batch is looked at (`run --smoke`) | where the kind computes | what comes out is not the real thing |
//! | the precision | where the kind has the parameter | it is one of the parameters |
//! | the device's number | no | one GPU is like the next |
//! | names of stages, params, variants and files | no | a name changes no byte |
//! | comments, order and style of the file, descriptions | no | likewise |
//! | `retries`, `timeout`, `cores`, `memory`, `export`, `frozen` | no | they say when and where, not what |
//! | [`Kind::Settings`](crate::Kind::Settings) (`checkpoint_every`, `tensorboard`) | no | they change no byte |
//! | threads, jobs, host, clock | no | a result must not depend on them |
//!
//! The tests of this module and those of [`plan`](crate::plan) hold the table.
//!
//! The ingredients are kept beside the key in the cache, so that a stage can run from them alone and that
//! a change can be told in words.

use std::collections::BTreeMap;

use serde::Serialize;
use taper_cache::Key;

use crate::canonical::{DecodeError, Map, Value};

/// Everything that a key is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingredients {
    /// The kind's name.
    pub kind: String,
    /// The kind's version.
    pub version: u32,
    /// The parameters, with digests in the place of inputs and local paths.
    pub params: Value,
    /// What was found outside.
    pub resolved: Option<Value>,
    /// The seed, where the kind is seeded.
    pub seed: Option<u64>,
    /// The device's class, where the kind computes.
    pub device: Option<String>,
    /// What the bits follow beyond it, where they do.
    pub arithmetic: Option<String>,
    /// Whether only one batch is looked at.
    pub smoke: bool,
}

/// Why bytes are not the ingredients of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IngredientsError {
    /// They are not canonical.
    #[error(transparent)]
    Bytes(#[from] DecodeError),
    /// They are, but of something else.
    #[error("`{0}` of the ingredients is missing or of another type")]
    Field(&'static str),
    /// They have a field that this version does not know.
    #[error("this version does not know all of the ingredients")]
    Unknown,
}

/// An ingredient that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Which: `params.optimizer.adamw.lr`.
    pub ingredient: String,
    /// What it was; nothing where it is new.
    pub old: Option<String>,
    /// What it is; nothing where it is gone.
    pub new: Option<String>,
}

impl Ingredients {
    /// The canonical bytes: a map of the fields, those that are not there left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_value().to_bytes()
    }

    /// The key.
    pub fn key(&self) -> Key {
        Key::of_ingredients(&self.to_bytes())
    }

    /// Reads the canonical bytes.
    ///
    /// # Errors
    /// [`IngredientsError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IngredientsError> {
        let Value::Map(map) = Value::from_bytes(bytes)? else {
            return Err(IngredientsError::Field("kind"));
        };
        let text = |name| match map.get(name) {
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            None => Ok(None),
            Some(_) => Err(IngredientsError::Field(name)),
        };
        let number = |name| match map.get(name) {
            Some(Value::Integer(number)) => match u64::try_from(*number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(IngredientsError::Field(name)),
            },
            None => Ok(None),
            Some(_) => Err(IngredientsError::Field(name)),
        };
        let ingredients = Self {
            kind: text("kind")?.ok_or(IngredientsError::Field("kind"))?,
            version: number("version")?
                .and_then(|version| version.try_into().ok())
                .ok_or(IngredientsError::Field("version"))?,
            params: map
                .get("params")
                .cloned()
                .ok_or(IngredientsError::Field("params"))?,
            resolved: map.get("resolved").cloned(),
            seed: number("seed")?,
            device: text("device")?,
            arithmetic: text("arithmetic")?,
            smoke: map.get("smoke") == Some(&Value::Bool(true)),
        };
        if ingredients.to_bytes() != bytes {
            return Err(IngredientsError::Unknown);
        }
        Ok(ingredients)
    }

    /// What differs between `old` and these, by ingredient.
    pub fn changes_since(&self, old: &Self) -> Vec<Change> {
        let (old, new) = (old.leaves(), self.leaves());
        let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
        names.sort_unstable();
        names.dedup();
        names
            .into_iter()
            .filter(|name| old.get(*name) != new.get(*name))
            .map(|name| Change {
                ingredient: name.clone(),
                old: old.get(name).cloned(),
                new: new.get(name).cloned(),
            })
            .collect()
    }

    /// Every ingredient by its dotted path, as people write it.
    pub fn leaves(&self) -> BTreeMap<String, String> {
        let mut leaves = BTreeMap::new();
        self.to_value().flatten("", &mut leaves);
        leaves
    }

    fn to_value(&self) -> Value {
        let fields = [
            ("kind", Some(Value::text(&self.kind))),
            ("version", Some(Value::Integer(self.version.into()))),
            ("params", Some(self.params.clone())),
            ("resolved", self.resolved.clone()),
            ("seed", self.seed.map(|seed| Value::Integer(seed.into()))),
            ("device", self.device.as_ref().map(Value::text)),
            ("arithmetic", self.arithmetic.as_ref().map(Value::text)),
            ("smoke", self.smoke.then_some(Value::Bool(true))),
        ];
        let present = fields
            .into_iter()
            .filter_map(|(name, value)| Some((Value::text(name), value?)));
        Value::Map(Map::new(present.collect()).expect("every field has its own name"))
    }
}

#[cfg(test)]
mod tests {
    use taper_cache::Digest;

    use super::*;

    fn ingredients() -> Ingredients {
        Ingredients {
            kind: "train".to_owned(),
            version: 1,
            params: Value::Map(
                Map::new(vec![
                    (Value::text("data"), Value::Input(Digest::of(b"data"))),
                    (Value::text("lr"), Value::Float(1e-3)),
                ])
                .expect("two keys"),
            ),
            resolved: None,
            seed: Some(u64::MAX),
            device: Some("cpu".to_owned()),
            arithmetic: None,
            smoke: false,
        }
    }

    #[test]
    fn each_ingredient_changes_the_key() {
        let base = ingredients();
        type Edit = fn(&mut Ingredients);
        let edits: [Edit; 10] = [
            |i| i.kind.push('x'),
            |i| i.version += 1,
            |i| i.params = Value::Null,
            |i| i.resolved = Some(Value::Null),
            |i| i.seed = Some(0),
            |i| i.seed = None,
            |i| i.device = Some("cuda".to_owned()),
            |i| i.device = None,
            |i| i.arithmetic = Some("fma".to_owned()),
            |i| i.smoke = true,
        ];
        let mut keys = vec![base.key()];
        for edit in edits {
            let mut other = base.clone();
            edit(&mut other);
            keys.push(other.key());
            let read = Ingredients::from_bytes(&other.to_bytes());
            assert_eq!(read, Ok(other));
        }
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), edits.len() + 1);
    }

    #[test]
    fn what_is_unknown_is_refused() {
        let Value::Map(map) = ingredients().to_value() else {
            panic!("ingredients are a map");
        };
        let mut entries: Vec<_> = map.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        entries.push((Value::text("host"), Value::text("here")));
        let more = Value::Map(Map::new(entries.clone()).expect("keys differ"));
        assert_eq!(
            Ingredients::from_bytes(&more.to_bytes()),
            Err(IngredientsError::Unknown)
        );
        entries.retain(|(key, _)| key != &Value::text("version"));
        let fewer = Value::Map(Map::new(entries).expect("keys differ"));
        assert_eq!(
            Ingredients::from_bytes(&fewer.to_bytes()),
            Err(IngredientsError::Field("version"))
        );
    }

    #[test]
    fn a_change_is_told_by_ingredient() {
        let old = ingredients();
        let mut new = old.clone();
        new.seed = None;
        new.params = Value::Map(
            Map::new(vec![
                (Value::text("data"), Value::Input(Digest::of(b"data"))),
                (Value::text("lr"), Value::Float(1e-2)),
            ])
            .expect("two keys"),
        );
        let told: Vec<_> = new
            .changes_since(&old)
            .into_iter()
            .map(|change| {
                format!(
                    "{}: {} -> {}",
                    change.ingredient,
                    change.old.unwrap_or_default(),
                    change.new.unwrap_or_default()
                )
            })
            .collect();
        assert_eq!(
            told,
            ["params.lr: 0.001 -> 0.01", "seed: 18446744073709551615 -> "]
        );
    }
}
