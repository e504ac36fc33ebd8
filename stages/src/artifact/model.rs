//! A model: a Hugging Face folder, from the hub or from a `train` stage.
//!
//! ```text
//! config.json          the network and its classes, see `config.rs`
//! model.safetensors    its weights, see `weights.rs`
//! tokenizer.json       the tokenizer that its tokens were made with
//! tokens.json          how text became tokens
//! training.json        the parameters of the training, and how it ended
//! history.jsonl        what was logged
//! ```
//! A model from the hub has whichever files its repository has; the weights of a large one are several files
//! with an index, `model.safetensors.index.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use taper_cache::ArtifactType;
use taper_engine::{Artifact, ArtifactFiles, StageError};
use taper_nn::{Parameters, Tensor};

use super::config::{self, CONFIG_FILE, ModelConfig};
use super::tokens::{TOKENIZER_FILE, TokenSettings};
use super::weights::{self, NamedTensor, Weights, WeightsFile};

/// The name of the weights' file.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The name of the file that says which of several files has which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// The name of the history's file.
pub const HISTORY_FILE: &str = "history.jsonl";
/// The name of the file that says how the model was trained.
pub const TRAINING_FILE: &str = "training.json";

/// A model's files.
#[derive(Clone, Debug)]
pub struct Model {
    files: ArtifactFiles,
}

impl Artifact for Model {
    const TYPES: &'static [ArtifactType] = &[ArtifactType::Model];

    fn open(files: ArtifactFiles) -> Result<Self, StageError> {
        Ok(Self { files })
    }
}

impl Model {
    /// The files.
    pub fn files(&self) -> &ArtifactFiles {
        &self.files
    }

    /// The path of a file that a model has to have.
    ///
    /// # Errors
    /// Where it has none of this name; the message says what it has.
    pub fn path(&self, name: &str) -> Result<PathBuf, StageError> {
        self.files.path(name).ok_or_else(|| {
            let names: Vec<_> = self.files.names().collect();
            let error = StageError::invalid(format!(
                "the model has no `{name}`; it has {}",
                names.join(", ")
            ));
            match name {
                WEIGHTS_FILE if names.iter().any(|name| name.ends_with(".bin")) => error.help(
                    "weights are read from safetensors only: take a revision of the repository that has \
                     them, or save the model again with a recent transformers",
                ),
                _ => error.help("a model has to be a Hugging Face folder"),
            }
        })
    }

    /// The fields of its `config.json`.
    ///
    /// # Errors
    /// Where the file is missing or no JSON.
    pub fn config_fields(&self) -> Result<Value, StageError> {
        config::parse(&fs_err::read(self.path(CONFIG_FILE)?)?)
    }

    /// What its `config.json` says.
    ///
    /// # Errors
    /// Where the file is missing, or the network is none of those that are trained here.
    pub fn config(&self) -> Result<ModelConfig, StageError> {
        ModelConfig::from_fields(&self.config_fields()?)
    }

    /// Its weights: `model.safetensors`, else the files that the index names.
    ///
    /// # Errors
    /// Where a file is missing or damaged, or lacks a tensor that the index says it has.
    pub fn weights(&self) -> Result<Weights, StageError> {
        let open = |name: &str| WeightsFile::open(&self.path(name)?, name);
        let index = match self.files.path(INDEX_FILE) {
            Some(index) if self.files.path(WEIGHTS_FILE).is_none() => Index::read(&index)?,
            _ => {
                let files = vec![open(WEIGHTS_FILE)?];
                return Ok(Weights { files });
            }
        };
        let names: BTreeSet<&String> = index.weight_map.values().collect();
        let files: Result<_, StageError> = names.into_iter().map(|name| open(name)).collect();
        let weights = Weights { files: files? };
        let found = weights.tensors()?;
        let absent = index.weight_map.iter().find(|(tensor, _)| {
            let name = |(name, _): &(String, _)| name.cmp(tensor);
            found.binary_search_by(name).is_err()
        });
        match absent {
            None => Ok(weights),
            Some((tensor, file)) => Err(StageError::invalid(format!(
                "`{INDEX_FILE}` says that `{file}` has the tensor `{tensor}`, and it has not"
            ))
            .help("its files have to be of one revision: fetch the model again")),
        }
    }

    /// Where its `tokenizer.json` is, where it has one.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        self.files.path(TOKENIZER_FILE)
    }

    /// How text became the tokens that it was trained on, where it was trained here.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn token_settings(&self) -> Result<Option<TokenSettings>, StageError> {
        TokenSettings::read(&self.files)
    }
}

/// What [`INDEX_FILE`] says.
#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn read(path: &std::path::Path) -> Result<Self, StageError> {
        serde_json::from_slice(&fs_err::read(path)?)
            .map_err(|error| StageError::invalid(format!("`{INDEX_FILE}` cannot be read: {error}")))
    }
}

/// Writes weights as `model.safetensors`: names ascending, the metadata that transformers looks for.
///
/// # Errors
/// Those of writing.
pub fn write_weights(
    path: &std::path::Path,
    parameters: &Parameters,
    values: &[f32],
) -> Result<(), StageError> {
    let tensors: Vec<_> = parameters
        .tensors()
        .iter()
        .map(|tensor| NamedTensor {
            name: &tensor.name,
            shape: &tensor.shape,
            values: &values[tensor.range()],
        })
        .collect();
    let file = std::io::BufWriter::with_capacity(1 << 20, fs_err::File::create(path)?);
    Ok(weights::write(file, ("format", "pt"), &tensors)?)
}

/// Weights that were read into a network, and what did not fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The weights' buffer.
    pub values: Vec<f32>,
    /// Tensors of the network that the file lacks, begun anew.
    pub missing: Vec<String>,
    /// Tensors of the file that the network has not.
    pub unexpected: Vec<String>,
    /// Tensors of the head whose size differs, begun anew.
    pub remade: Vec<String>,
}

/// Reads weights into the buffer of a network. Names count with and without `bert.`, and with the
/// old `gamma` and `beta` for `weight` and `bias`. What is missing begins as a new network of this `seed` does, and so does a
/// head of another size.
///
/// # Errors
/// Where a tensor's shape differs, its numbers are no floating-point numbers, or nothing but the head is there.
pub fn load_weights(
    parameters: &Parameters,
    weights: &Weights,
    seed: u64,
) -> Result<Loaded, StageError> {
    let mut given: Vec<_> = weights
        .tensors()?
        .into_iter()
        .map(|(name, tensor)| (canonical_name(&name), name, tensor))
        .collect();
    let mut loaded = Loaded {
        values: taper_nn::pages::zeros(parameters.buffer_len()),
        ..Loaded::default()
    };
    let mut body_found = false;
    for tensor in parameters.tensors() {
        let target = &mut loaded.values[tensor.range()];
        let wanted = canonical_name(&tensor.name);
        let place = given.iter().position(|(name, _, _)| *name == wanted);
        let Some((_, name, view)) = place.map(|place| given.swap_remove(place)) else {
            tensor.initialize(seed, target);
            loaded.missing.push(tensor.name.clone());
            continue;
        };
        if view.shape() == tensor.shape {
            weights::read_into(&name, &view, target)?;
            body_found |= !is_head(tensor);
        } else if is_head(tensor) {
            tensor.initialize(seed, target);
            loaded.remade.push(tensor.name.clone());
        } else {
            return Err(StageError::invalid(format!(
                "tensor `{name}` has the shape {:?}; the network needs {:?}",
                view.shape(),
                tensor.shape
            ))
            .help("the weights and the sizes of the network (`config.json`, or `model`) have to belong together"));
        }
    }
    if !body_found {
        let names: Vec<_> = given
            .iter()
            .map(|(_, name, _)| name.as_str())
            .take(3)
            .collect();
        return Err(StageError::invalid(format!(
            "the weights hold none of the network's tensors; they begin with {}",
            names.join(", ")
        )));
    }
    loaded.unexpected = given
        .into_iter()
        .map(|(_, name, _)| name)
        .filter(|name| !is_buffer(name))
        .collect();
    loaded.unexpected.sort();
    Ok(loaded)
}

/// The name under which tensors of different times and classes are one.
fn canonical_name(name: &str) -> String {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    match name.rsplit_once('.') {
        Some((layer, "gamma")) => format!("{layer}.weight"),
        Some((layer, "beta")) => format!("{layer}.bias"),
        _ => name.to_owned(),
    }
}

/// Whether the tensor's size follows the number of classes.
pub fn is_head(tensor: &Tensor) -> bool {
    ["classifier.", "output_layer."]
        .iter()
        .any(|head| tensor.name.starts_with(head))
}

/// What transformers once saved beside weights: numbers that follow from the sizes.
fn is_buffer(name: &str) -> bool {
    name.ends_with("position_ids") || name.ends_with("token_type_ids")
}

#[cfg(test)]
mod tests {
    use taper_cache::{Blob, BlobName, Digest, Manifest};
    use taper_nn::parameters::Initial;

    use super::*;

    fn parameters(classes: usize) -> Parameters {
        let mut parameters = Parameters::default();
        let normal = Initial::Normal { deviation: 1.0 };
        parameters.add("bert.embeddings.word_embeddings.weight", &[3, 2], normal);
        parameters.add("bert.embeddings.LayerNorm.weight", &[2], Initial::Ones);
        parameters.add("bert.pooler.dense.bias", &[2], normal);
        parameters.add("classifier.weight", &[classes, 2], normal);
        parameters
    }

    /// The files of a folder as a model.
    fn model(folder: &std::path::Path, names: &[&str]) -> Model {
        let blob = |name: &&str| {
            let bytes = fs_err::read(folder.join(name)).unwrap();
            let blob = Blob {
                digest: Digest::of(&bytes),
                size: bytes.len() as u64,
            };
            (BlobName::new(*name).unwrap(), blob)
        };
        let manifest = Manifest::new(ArtifactType::Model, names.iter().map(blob).collect());
        let manifest = manifest.unwrap();
        let paths: BTreeMap<_, _> = manifest
            .blobs
            .iter()
            .map(|(name, blob)| (blob.digest, folder.join(name.as_str())))
            .collect();
        Model::open(ArtifactFiles::new(manifest, move |digest| {
            paths[digest].clone()
        }))
        .unwrap()
    }

    fn write(folder: &std::path::Path, name: &str, tensors: &[NamedTensor<'_>]) {
        let out = fs_err::File::create(folder.join(name)).unwrap();
        weights::write(out, ("format", "pt"), tensors).unwrap();
    }

    fn file(tensors: &[NamedTensor<'_>]) -> (tempfile::TempDir, Weights) {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), WEIGHTS_FILE, tensors);
        let weights = model(folder.path(), &[WEIGHTS_FILE]).weights().unwrap();
        (folder, weights)
    }

    const EMBEDDINGS: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    fn old_names() -> [NamedTensor<'static>; 5] {
        [
            NamedTensor {
                name: "embeddings.word_embeddings.weight",
                shape: &[3, 2],
                values: &EMBEDDINGS,
            },
            NamedTensor {
                name: "bert.embeddings.LayerNorm.gamma",
                shape: &[2],
                values: &[7.0, 8.0],
            },
            NamedTensor {
                name: "classifier.weight",
                shape: &[5, 2],
                values: &[0.5; 10],
            },
            NamedTensor {
                name: "cls.predictions.bias",
                shape: &[3],
                values: &[0.0; 3],
            },
            NamedTensor {
                name: "embeddings.position_ids",
                shape: &[1],
                values: &[0.0],
            },
        ]
    }

    #[test]
    fn old_names_are_understood_and_what_does_not_fit_is_listed() {
        let parameters = parameters(2);
        let (_folder, file) = file(&old_names());
        let loaded = load_weights(&parameters, &file, 9).unwrap();
        assert_eq!(loaded.values[..6], EMBEDDINGS);
        assert_eq!(loaded.values[16..18], [7.0, 8.0]);
        assert_eq!(loaded.missing, ["bert.pooler.dense.bias"]);
        assert_eq!(loaded.unexpected, ["cls.predictions.bias"]);
        assert_eq!(loaded.remade, ["classifier.weight"]);
        let fresh: Vec<f32> = parameters.initialize(9);
        assert_eq!(loaded.values[32..], fresh[32..]);
    }

    #[test]
    fn a_head_of_the_same_size_is_kept() {
        let (_folder, file) = file(&old_names());
        let loaded = load_weights(&parameters(5), &file, 9).unwrap();
        assert!(loaded.remade.is_empty());
        assert_eq!(loaded.values[48..58], [0.5; 10]);
    }

    #[test]
    fn another_shape_is_named_with_both_shapes() {
        let mut tensors = old_names();
        tensors[0].shape = &[2, 3];
        let (_folder, file) = file(&tensors);
        let error = load_weights(&parameters(2), &file, 9).unwrap_err();
        insta::assert_snapshot!(error.message, @"tensor `embeddings.word_embeddings.weight` has the shape [2, 3]; the network needs [3, 2]");
    }

    #[test]
    fn another_network_s_weights_are_refused() {
        let (_folder, file) = file(&old_names()[3..]);
        let error = load_weights(&parameters(2), &file, 9).unwrap_err();
        assert!(error.message.contains("cls.predictions.bias"), "{error}");
    }

    #[test]
    fn weights_written_are_weights_read() {
        let folder = tempfile::tempdir().unwrap();
        let parameters = parameters(2);
        let values: Vec<f32> = parameters.initialize(4);
        write_weights(&folder.path().join(WEIGHTS_FILE), &parameters, &values).unwrap();
        let file = model(folder.path(), &[WEIGHTS_FILE]).weights().unwrap();
        let loaded = load_weights(&parameters, &file, 5).unwrap();
        assert_eq!(loaded.values, values);
        assert!(loaded.missing.is_empty() && loaded.unexpected.is_empty());
    }

    #[test]
    fn weights_in_several_files_are_read_as_from_one() {
        let folder = tempfile::tempdir().unwrap();
        let tensors = old_names();
        let names = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ];
        write(folder.path(), names[0], &tensors[..2]);
        write(folder.path(), names[1], &tensors[2..]);
        let place = |(index, tensor): (usize, &NamedTensor<'_>)| {
            (tensor.name.to_owned(), names[index / 2 % 2].into())
        };
        let map: BTreeMap<String, Value> = tensors.iter().enumerate().map(place).take(4).collect();
        let index = |map| serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
        let put = |map| fs_err::write(folder.path().join(INDEX_FILE), index(map)).unwrap();
        put(map.clone());
        let all = [names[0], names[1], INDEX_FILE];
        let weights = model(folder.path(), &all).weights().unwrap();
        let (_folder, file) = file(&tensors);
        let parameters = parameters(2);
        assert_eq!(
            load_weights(&parameters, &weights, 9).unwrap(),
            load_weights(&parameters, &file, 9).unwrap()
        );
        let told = |names: &[&str]| model(folder.path(), names).weights().unwrap_err().message;
        insta::assert_snapshot!(told(&all[1..]), @"the model has no `model-00001-of-00002.safetensors`; it has model-00002-of-00002.safetensors, model.safetensors.index.json");
        let mut more = map;
        more.insert("pooler.bias".to_owned(), names[0].into());
        put(more);
        insta::assert_snapshot!(told(&all), @"`model.safetensors.index.json` says that `model-00001-of-00002.safetensors` has the tensor `pooler.bias`, and it has not");
        write(folder.path(), names[0], &tensors[1..3]);
        insta::assert_snapshot!(told(&all), @"tensor `classifier.weight` is in two of the files with the weights");
    }
}
