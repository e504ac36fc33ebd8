//! Memory of a device that is given back in the end, and plain numbers as bytes.

use std::sync::Arc;

use super::{Address, Device, Fault};

/// A piece of a device's memory.
#[derive(Debug)]
pub(super) struct Memory {
    device: Arc<dyn Device>,
    address: Address,
    bytes: usize,
}

impl Memory {
    /// Takes so much, at least a byte.
    pub fn new(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, Fault> {
        let bytes = bytes.max(1);
        Ok(Self {
            address: device.allocate(bytes)?,
            device: Arc::clone(device),
            bytes,
        })
    }

    /// The same, all zeros.
    pub fn zeros(device: &Arc<dyn Device>, bytes: usize) -> Result<Self, Fault> {
        let memory = Self::new(device, bytes)?;
        device.clear(memory.address, memory.bytes)?;
        Ok(memory)
    }

    pub fn address(&self) -> Address {
        self.address
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.device.release(self.address, self.bytes);
    }
}

/// Copies floats to a device.
pub(super) fn upload_floats(device: &dyn Device, values: &[f32], to: Address) -> Result<(), Fault> {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    device.upload(&bytes, to)
}

/// Copies floats from a device.
pub(super) fn download_floats(
    device: &dyn Device,
    from: Address,
    count: usize,
) -> Result<Vec<f32>, Fault> {
    let mut bytes = vec![0; count * 4];
    device.download(from, &mut bytes)?;
    let (chunks, _) = bytes.as_chunks();
    Ok(chunks
        .iter()
        .map(|&chunk| f32::from_le_bytes(chunk))
        .collect())
}
