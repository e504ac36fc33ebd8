//! Actions: which artifact a key made. All that a run in which nothing has changed has to read of a stage is
//! this one file, so it holds the manifest too.
//!
//! ```text
//! taper action 1
//! key <64 hexadecimal digits>
//! kind tokenize
//! generation <number of executions recorded in this cache when it was made>
//! artifact <64 hexadecimal digits>
//! part <name> <type>                     one line an output, where there are several; ascending
//! needs <64 hexadecimal digits>          one line an artifact that the stage read; ascending
//! ingredients <hexadecimal digits>       the pre-image of the key
//! <the manifest>
//! b3 <the BLAKE3 of all lines above>
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::commit::Batch;
use crate::error::{CacheError, Lookup, NOT_AS_WRITTEN};
use crate::files;
use crate::manifest::{ArtifactType, Manifest};
use crate::{Digest, Key, Store, planted};

/// What a key made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// The key.
    pub key: Key,
    /// The stage's kind.
    pub kind: String,
    /// What the key is the hash of.
    pub ingredients: Vec<u8>,
    /// The artifact that was made.
    pub manifest: Manifest,
    /// Its digest.
    pub artifact: Digest,
    /// Outputs that are artifacts of their own, each in the folder of its name.
    pub parts: BTreeMap<String, ArtifactType>,
    /// The artifacts that the stage read: kept as long as the action is.
    pub needs: BTreeSet<Digest>,
    /// How many executions this cache had recorded when it was made: its age, for `gc`.
    pub generation: u64,
}

impl Action {
    /// An action of today. [`Store::put_action`] fills the generation in.
    pub fn new(
        kind: impl Into<String>,
        ingredients: Vec<u8>,
        manifest: Manifest,
        parts: BTreeMap<String, ArtifactType>,
        needs: BTreeSet<Digest>,
    ) -> Self {
        Self {
            key: Key::of_ingredients(&ingredients),
            kind: kind.into(),
            artifact: manifest.digest(),
            ingredients,
            manifest,
            parts,
            needs,
            generation: 0,
        }
    }

    /// The artifact that a later stage gets: the whole, or the output with this name.
    pub fn output(&self, name: Option<&str>) -> Option<Manifest> {
        match name {
            None => Some(self.manifest.clone()),
            Some(name) => self.manifest.part(name, *self.parts.get(name)?),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!(
            "taper action 1\nkey {}\nkind {}\ngeneration {}\nartifact {}\n",
            self.key, self.kind, self.generation, self.artifact
        );
        for (name, artifact_type) in &self.parts {
            writeln!(text, "part {name} {artifact_type}").expect("strings grow");
        }
        for digest in &self.needs {
            writeln!(text, "needs {digest}").expect("strings grow");
        }
        writeln!(text, "ingredients {}", to_hex(&self.ingredients)).expect("strings grow");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.manifest.to_bytes());
        files::seal(bytes)
    }

    /// Reads an action and checks it: its seal, its key against its pre-image, its artifact against its
    /// manifest.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(files::unseal(bytes)?).ok()?;
        let mut rest = text.strip_prefix("taper action 1\n")?;
        let mut next = |field: &str| -> Option<&str> {
            let (value, after) = rest
                .strip_prefix(field)?
                .strip_prefix(' ')?
                .split_once('\n')?;
            rest = after;
            Some(value)
        };
        let key: Key = next("key")?.parse().ok()?;
        let kind = next("kind")?.to_owned();
        let generation = next("generation")?.parse().ok()?;
        let artifact: Digest = next("artifact")?.parse().ok()?;
        let mut parts = BTreeMap::new();
        while let Some(part) = next("part") {
            let (name, artifact_type) = part.rsplit_once(' ')?;
            parts.insert(name.to_owned(), artifact_type.parse().ok()?);
        }
        let mut needs = BTreeSet::new();
        while let Some(digest) = next("needs") {
            needs.insert(digest.parse().ok()?);
        }
        let ingredients = from_hex(next("ingredients")?)?;
        let whole =
            key == Key::of_ingredients(&ingredients) && artifact == Digest::of(rest.as_bytes());
        whole.then_some(Self {
            key,
            kind,
            ingredients,
            manifest: Manifest::from_bytes(rest.as_bytes()).ok()?,
            artifact,
            parts,
            needs,
            generation,
        })
    }
}

impl Store {
    /// What `key` made. A damaged action is set aside and counts as missing.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn action(&self, key: &Key) -> Result<Lookup<Action>, CacheError> {
        self.look_up(
            &self.layout().action(key),
            |bytes| match Action::from_bytes(bytes) {
                Some(action) if action.key == *key || planted("key-unchecked") => Ok(action),
                Some(_) => Err("it is another key's".to_owned()),
                None => Err(NOT_AS_WRITTEN.to_owned()),
            },
        )
    }

    /// Keeps an action whose blobs are in the cache already, with its manifests.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn put_action(&self, action: &Action) -> Result<(), CacheError> {
        let mut batch = self.batch()?;
        self.add_action(action, &mut batch)?;
        self.commit(batch)
    }

    /// Keeps an action with a batch, after the blobs that it names.
    pub(crate) fn add_action(&self, action: &Action, batch: &mut Batch) -> Result<(), CacheError> {
        self.add_manifests(action, batch)?;
        let mut action = action.clone();
        action.generation = self.generation()?;
        let path = self.layout().action(&action.key);
        self.add_bytes(batch, path, &action.to_bytes(), 0o666)
    }

    /// Keeps the manifests of an action: the whole, and each of its outputs. Where they are there nothing is touched.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn put_manifests(&self, action: &Action) -> Result<(), CacheError> {
        if manifests_of(action).all(|manifest| self.has_manifest(&manifest)) {
            return Ok(());
        }
        let mut batch = self.batch()?;
        self.add_manifests(action, &mut batch)?;
        self.commit(batch)
    }

    fn add_manifests(&self, action: &Action, batch: &mut Batch) -> Result<(), CacheError> {
        manifests_of(action).try_for_each(|manifest| self.add_manifest(&manifest, batch).map(drop))
    }

    /// Forgets what `key` made.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn remove_action(&self, key: &Key) -> Result<(), CacheError> {
        let path = self.layout().action(key);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if crate::error::is_absent(&error) => Ok(()),
            Err(error) => Err(CacheError::io("remove", path)(error)),
        }
    }

    /// Whether every blob of an artifact is there with its size. Reads nothing.
    pub fn has_blobs(&self, manifest: &Manifest) -> bool {
        planted("blobs-unchecked") || manifest.blobs.values().all(|blob| self.has_blob(blob))
    }
}

/// The whole, and each of its outputs.
fn manifests_of(action: &Action) -> impl Iterator<Item = Cow<'_, Manifest>> {
    let parts = action.parts.iter().filter_map(|(name, artifact_type)| {
        let part = action.manifest.part(name, *artifact_type)?;
        Some(Cow::Owned(part))
    });
    std::iter::once(Cow::Borrowed(&action.manifest)).chain(parts)
}

/// Two hexadecimal digits a byte.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// The bytes of [`to_hex`].
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::fresh;
    use proptest::prelude::*;

    fn action(store: &Store, ingredients: &[u8]) -> Action {
        let staging = store.stage().expect("staged");
        fs_err::create_dir_all(staging.out().join("left")).expect("made");
        fs_err::write(staging.out().join("left/a"), ingredients).expect("written");
        let sealed = staging.seal(ArtifactType::Files).expect("sealed");
        let parts = BTreeMap::from([("left".to_owned(), ArtifactType::Dataset)]);
        let needs = BTreeSet::from([Digest::of(b"input")]);
        let manifest = sealed.manifest().clone();
        let action = Action::new("toy", ingredients.to_vec(), manifest, parts, needs);
        sealed.keep(&action).expect("kept");
        action
    }

    #[test]
    fn an_action_is_read_back_with_its_outputs() {
        let (_folder, store) = fresh();
        let made = action(&store, b"one");
        let found = store.action(&made.key).expect("read").found();
        assert_eq!(found.as_ref(), Some(&made));
        assert!(store.has_blobs(&made.manifest));
        let left = made.output(Some("left")).expect("an output");
        assert_eq!(left.artifact_type, ArtifactType::Dataset);
        assert_eq!(
            store.manifest(&left.digest()).expect("read").found(),
            Some(left)
        );
        assert_eq!(made.output(Some("right")), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (_folder, store) = fresh();
        let bytes = action(&store, b"one").to_bytes();
        assert!(Action::from_bytes(&bytes).is_some());
        for byte in 0..bytes.len() {
            let mut other = bytes.clone();
            other[byte] ^= 1 << (byte % 8);
            assert_eq!(Action::from_bytes(&other), None);
        }
    }

    #[test]
    fn another_keys_action_is_damage() {
        let (_folder, store) = fresh();
        let (one, two) = (action(&store, b"one"), action(&store, b"two"));
        let layout = store.layout();
        fs_err::copy(layout.action(&one.key), layout.action(&two.key)).expect("copied");
        assert!(matches!(
            store.action(&two.key).expect("read"),
            Lookup::Damaged(_)
        ));
        assert_eq!(store.action(&two.key).expect("read"), Lookup::Missing);
    }

    proptest! {
        #[test]
        fn hexadecimal_digits_are_read_back(bytes: Vec<u8>) {
            prop_assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        }
    }
}
