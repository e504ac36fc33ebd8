//! The folder of references, and how its files are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Tensors by name; `f32` values are exact in `f64`.
pub type Tensors = BTreeMap<String, Vec<f64>>;

/// The data shared with this repository: `TAPER_SHARED`, or `shared` beside the workspace.
pub fn shared() -> PathBuf {
    match std::env::var_os("TAPER_SHARED") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    }
}

/// The references: `TAPER_GOLDENS`, or `goldens` in the shared data.
pub fn goldens() -> PathBuf {
    match std::env::var_os("TAPER_GOLDENS") {
        Some(folder) => folder.into(),
        None => shared().join("goldens"),
    }
}

pub fn bytes(path: &Path) -> Vec<u8> {
    std::fs::File::open(path)
        .and_then(|mut file| {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut bytes)?;
            Ok(bytes)
        })
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}; TAPER_GOLDENS or TAPER_SHARED say where the references are",
                path.display()
            )
        })
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&bytes(path)).unwrap()
}

pub fn tensors(path: &Path) -> Tensors {
    let bytes = bytes(path);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |dtype, data: &[u8]| -> Vec<f64> {
        match dtype {
            Dtype::F32 => data
                .as_chunks()
                .0
                .iter()
                .map(|&chunk| f64::from(f32::from_le_bytes(chunk)))
                .collect(),
            Dtype::F64 => data
                .as_chunks()
                .0
                .iter()
                .map(|&chunk| f64::from_le_bytes(chunk))
                .collect(),
            Dtype::I64 => data
                .as_chunks()
                .0
                .iter()
                .map(|&chunk| i64::from_le_bytes(chunk) as f64)
                .collect(),
            other => panic!("{}: unexpected {other:?}", path.display()),
        }
    };
    file.iter()
        .map(|(name, view)| (name.to_owned(), numbers(view.dtype(), view.data())))
        .collect()
}

pub fn floats(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
        .collect()
}

/// The greatest distance between two sequences.
pub fn distance(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    got.iter()
        .zip(expected)
        .map(|(got, expected)| (got - expected).abs())
        .fold(0.0, |a, b| if b.is_nan() { b } else { f64::max(a, b) })
}
