//! A stage's device, opened, and what goes wrong there told in the stage's words.

use taper_engine::{Device, StageError};
use taper_nn::device::{Card, Fault};
use taper_nn::{Batch, Parameters, device};

use crate::training::params::Precision;

/// Why a device of this class cannot compute with this precision; nothing where it can.
pub fn unfit(device: Device, precision: Precision) -> Option<StageError> {
    match device {
        Device::Cpu if precision != Precision::F32 => Some(
            StageError::invalid(format!(
                "`precision: {}` is not there on the CPU",
                precision.name()
            ))
            .help(
                "write `precision: f32`, or leave it out; or compute on a GPU with `device: cuda`",
            )
            .at("precision"),
        ),
        Device::Metal => Some(
            StageError::invalid("nothing is computed on Metal yet")
                .help("set `device: cpu`")
                .at("device"),
        ),
        Device::Cpu | Device::Cuda(_) => None,
    }
}

/// The device beside the CPU that a stage computes on; none for the CPU.
///
/// # Errors
/// Where it is not there, or cannot compute with this precision.
pub fn open(device: Device, precision: Precision) -> Result<Option<Card>, StageError> {
    if let Some(error) = unfit(device, precision) {
        return Err(error);
    }
    match device {
        Device::Cpu | Device::Metal => Ok(None),
        Device::Cuda(number) => {
            let precision = match precision {
                Precision::F32 => device::Precision::F32,
                Precision::Tf32 => device::Precision::Tf32,
                Precision::Bf16 => device::Precision::Bf16,
            };
            Card::cuda(number, precision).map(Some).map_err(|fault| {
                StageError::failed(fault.to_string())
                    .help("`taper doctor` lists the devices; `device: cpu` always works")
                    .at("device")
            })
        }
    }
}

/// What a stage was doing when a device failed.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The model's type: `bert`.
    pub model: &'a str,
    /// How many numbers its weights are.
    pub weights: usize,
    /// The batch, where there is one.
    pub batch: Option<&'a Batch>,
}

impl<'a> Work<'a> {
    /// On a model with these tensors.
    pub fn on(model: &'a str, parameters: &Parameters) -> Self {
        Self {
            model,
            weights: parameters.tensors().iter().map(|tensor| tensor.len()).sum(),
            batch: None,
        }
    }

    /// With a batch.
    #[must_use]
    pub fn with(self, batch: &'a Batch) -> Self {
        Self {
            batch: Some(batch),
            ..self
        }
    }

    /// The error that a fault is.
    pub fn failed(&self, fault: Fault) -> StageError {
        let (wanted, free) = match fault {
            Fault::OutOfMemory { wanted, free } => (wanted, free),
            Fault::Unfit(what) => {
                return StageError::invalid(format!(
                    "this `{}` cannot be computed on a GPU: {what}",
                    self.model
                ))
                .help("set `device: cpu`")
                .at("device");
            }
            Fault::Failed(what) => return StageError::failed(what).at("device"),
        };
        let model = format!("a `{}` of {} weights", self.model, self.weights);
        let (what, help) = match self.batch {
            None => (
                model,
                "take a smaller model, or a device with more memory; other programs may hold some of it: `nvidia-smi` shows them",
            ),
            Some(batch) => {
                let lengths = (0..batch.len()).map(|row| batch.range(row).len());
                let what = format!(
                    "a batch of {} rows, {} tokens, {} in the longest, of {model}",
                    batch.len(),
                    batch.tokens(),
                    lengths.max().unwrap_or(0)
                );
                (
                    what,
                    "lower `batch_size` (a `train` stage raises `accumulate` by as much), lower `max_length` in the `tokenize` stage, or write `precision: bf16`",
                )
            }
        };
        StageError::failed(format!(
            "the GPU's memory is too small for {what}: {} were asked for, {} are free",
            mebibytes(wanted),
            mebibytes(free)
        ))
        .help(help)
        .at(if self.batch.is_some() {
            "batch_size"
        } else {
            "device"
        })
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{bytes} bytes ({} MiB)", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_memory_says_for_what_and_what_to_do() {
        let batch = Batch {
            ids: vec![1; 7],
            offsets: vec![0, 3, 7],
            ..Batch::default()
        };
        let mut parameters = Parameters::default();
        parameters.add("weight", &[10, 10], taper_nn::Initial::Zeros);
        let work = Work::on("bert", &parameters).with(&batch);
        let fault = Fault::OutOfMemory {
            wanted: 3 << 20,
            free: 1 << 20,
        };
        let error = work.failed(fault);
        assert_eq!(
            error.message,
            "the GPU's memory is too small for a batch of 2 rows, 7 tokens, 4 in the longest, of a `bert` of 100 \
             weights: 3145728 bytes (3 MiB) were asked for, 1048576 bytes (1 MiB) are free"
        );
        assert_eq!(error.param.as_deref(), Some("batch_size"));
        assert!(error.help.is_some_and(|help| help.contains("accumulate")));
    }

    #[test]
    fn the_cpu_is_exact() {
        assert!(open(Device::Cpu, Precision::F32).is_ok_and(|card| card.is_none()));
        let error = open(Device::Cpu, Precision::Bf16).err();
        assert!(error.is_some_and(|error| error.param.as_deref() == Some("precision")));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_program_without_cuda_says_so() {
        let error = open(Device::Cuda(0), Precision::F32).err();
        let message = error.map(|error| error.message);
        assert_eq!(
            message.as_deref(),
            Some("this program was built without CUDA")
        );
    }
}
