//! Safetensors files: named tensors of numbers, read without copying, written in one stable form. The weights of
//! a model are one such file, or several.
//!
//! The file is 8 bytes of length, that many bytes of JSON (`{"__metadata__": {…}, "name": {"dtype", "shape",
//! "data_offsets"}}`), and the numbers. It is written here by hand: names ascending, at most one entry of metadata
//! (the library's order of several is random), numbers streamed.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use serde::Serialize;
use taper_engine::{StageError, StageErrorKind};

use super::mapping::map;

/// A tensor to be written.
#[derive(Clone, Copy, Debug)]
pub struct NamedTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its numbers, row-major.
    pub values: &'a [f32],
}

/// Writes tensors as a safetensors file with one entry of metadata.
///
/// # Errors
/// Those of writing.
pub fn write(
    mut out: impl Write,
    metadata: (&str, &str),
    tensors: &[NamedTensor<'_>],
) -> std::io::Result<()> {
    #[derive(Serialize)]
    struct Info<'a> {
        dtype: &'static str,
        shape: &'a [usize],
        data_offsets: [usize; 2],
    }

    let mut sorted: Vec<&NamedTensor<'_>> = tensors.iter().collect();
    sorted.sort_by_key(|tensor| tensor.name);
    let (key, value) = metadata;
    let mut header = format!(
        "{{\"__metadata__\":{{{}:{}}}",
        serde_json::to_string(key)?,
        serde_json::to_string(value)?
    );
    let mut offset = 0;
    for tensor in &sorted {
        let end = offset + size_of_val(tensor.values);
        let info = Info {
            dtype: "F32",
            shape: tensor.shape,
            data_offsets: [offset, end],
        };
        header.push(',');
        header.push_str(&serde_json::to_string(tensor.name)?);
        header.push(':');
        header.push_str(&serde_json::to_string(&info)?);
        offset = end;
    }
    header.push('}');
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let mut buffer = Vec::new();
    for tensor in &sorted {
        for values in tensor.values.chunks(1 << 16) {
            buffer.clear();
            buffer.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            out.write_all(&buffer)?;
        }
    }
    out.flush()
}

/// The weights of a model: what its safetensors files hold together.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The files; no tensor is in two of them.
    pub files: Vec<WeightsFile>,
}

impl Weights {
    /// The tensors of all files, names ascending.
    ///
    /// # Errors
    /// Where a file is no safetensors file, or two have the same tensor.
    pub fn tensors(&self) -> Result<Vec<(String, TensorView<'_>)>, StageError> {
        let mut tensors = Vec::new();
        for file in &self.files {
            tensors.extend(file.tensors()?);
        }
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        match tensors.array_windows().find(|[(a, _), (b, _)]| a == b) {
            None => Ok(tensors),
            Some([(name, _), _]) => Err(StageError::invalid(format!(
                "tensor `{name}` is in two of the files with the weights"
            ))),
        }
    }
}

/// A safetensors file, mapped.
#[derive(Clone, Debug)]
pub struct WeightsFile {
    name: String,
    bytes: Bytes,
}

impl WeightsFile {
    /// Opens the file at `path`, which messages call `name`, and checks its header against its length.
    ///
    /// # Errors
    /// Where the file cannot be read, is cut, or is no safetensors file.
    pub fn open(path: &Path, name: &str) -> Result<Self, StageError> {
        let file = Self {
            name: name.to_owned(),
            bytes: map(path)?,
        };
        file.tensors()?;
        Ok(file)
    }

    /// The tensors, names ascending.
    ///
    /// # Errors
    /// Where the file is no safetensors file.
    pub fn tensors(&self) -> Result<Vec<(String, TensorView<'_>)>, StageError> {
        let file = SafeTensors::deserialize(&self.bytes).map_err(|error| self.damaged(&error))?;
        let mut tensors = file.tensors();
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(tensors)
    }

    /// The entry `key` of its metadata, where there is one.
    pub fn metadata(&self, key: &str) -> Option<String> {
        let (_, metadata) = SafeTensors::read_metadata(&self.bytes).ok()?;
        metadata.metadata().as_ref()?.get(key).cloned()
    }

    fn damaged(&self, error: &SafeTensorError) -> StageError {
        let what = match error {
            SafeTensorError::HeaderTooSmall
            | SafeTensorError::InvalidHeaderLength
            | SafeTensorError::MetadataIncompleteBuffer => {
                "is cut: it is shorter than its header says"
            }
            _ => "is no safetensors file",
        };
        StageError::new(
            StageErrorKind::Damaged,
            format!(
                "`{}` {what} ({} bytes; {error})",
                self.name,
                self.bytes.len()
            ),
        )
        .help("fetch or train the model again")
    }
}

/// Copies a tensor of any floating-point type into `target`, which has as many numbers.
///
/// # Errors
/// Where it holds no floating-point numbers; the message says what.
pub fn read_into(
    name: &str,
    tensor: &TensorView<'_>,
    target: &mut [f32],
) -> Result<(), StageError> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => convert(data, target, f32::from_le_bytes),
        Dtype::F64 => convert(data, target, |bytes| f64::from_le_bytes(bytes) as f32),
        Dtype::BF16 => convert(data, target, |[low, high]| {
            f32::from_le_bytes([0, 0, low, high])
        }),
        Dtype::F16 => convert(data, target, |bytes| from_half(u16::from_le_bytes(bytes))),
        other => {
            return Err(StageError::invalid(format!(
                "tensor `{name}` holds {other:?}, not floating-point numbers"
            ))
            .help("quantized weights cannot be trained: use the original ones"));
        }
    }
    Ok(())
}

fn convert<const N: usize>(data: &[u8], target: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (target, bytes) in target.iter_mut().zip(data.as_chunks::<N>().0) {
        *target = value(*bytes);
    }
}

/// IEEE 754 half precision: 1 bit of sign, 5 of exponent, 10 of fraction.
fn from_half(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from(bits >> 10 & 0x1F);
    let fraction = u32::from(bits & 0x3FF);
    let magnitude = match exponent {
        // Subnormal: fraction · 2^-24, exactly.
        0 => return f32::from_bits(sign | (fraction as f32 * 2.0_f32.powi(-24)).to_bits()),
        31 => 0xFF << 23 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        let tensors = [
            NamedTensor {
                name: "b.weight",
                shape: &[2, 2],
                values: &[1.0, -2.5, f32::MIN_POSITIVE, 4.0],
            },
            NamedTensor {
                name: "a",
                shape: &[],
                values: &[7.0],
            },
        ];
        write(&mut bytes, ("format", "pt"), &tensors).unwrap();
        bytes
    }

    #[test]
    fn the_library_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs_err::write(&path, sample()).unwrap();
        let file = WeightsFile::open(&path, "model.safetensors").unwrap();
        assert_eq!(file.metadata("format").as_deref(), Some("pt"));
        let tensors = file.tensors().unwrap();
        let names: Vec<_> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b.weight"]);
        assert_eq!(tensors[1].1.shape(), [2, 2]);
        let mut values = [0.0; 4];
        read_into("b.weight", &tensors[1].1, &mut values).unwrap();
        assert_eq!(values, [1.0, -2.5, f32::MIN_POSITIVE, 4.0]);
    }

    #[test]
    fn a_cut_file_is_said_to_be_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut");
        let whole = sample();
        for len in [0, 5, 20, whole.len() - 1] {
            fs_err::write(&path, &whole[..len]).unwrap();
            let error = WeightsFile::open(&path, "model.safetensors").unwrap_err();
            assert_eq!(error.kind, StageErrorKind::Damaged);
            assert!(error.message.contains("model.safetensors"), "{error}");
        }
        assert!(
            WeightsFile::open(&path, "model.safetensors")
                .unwrap_err()
                .message
                .contains("is cut")
        );
    }

    #[test]
    fn small_formats_are_widened_exactly() {
        for (bits, value) in [
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x7BFF, 65504.0),
            (0x0001, 2.0_f32.powi(-24)),
            (0x8000, -0.0),
            (0x3555, 0.333_251_95),
            (0x7C00, f32::INFINITY),
        ] {
            assert_eq!(from_half(bits).to_bits(), f32::to_bits(value), "{bits:#x}");
        }
        let bytes = [0x80, 0x3F, 0x20, 0xC0];
        let view = TensorView::new(Dtype::BF16, vec![2], &bytes).unwrap();
        let mut values = [0.0; 2];
        read_into("w", &view, &mut values).unwrap();
        assert_eq!(values, [1.0, -2.5]);
    }
}
