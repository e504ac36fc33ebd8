//! Memory that lives for one pass over a batch: handed out front to back, taken back all at once, and kept from pass to
//! pass, so that the steady state allocates nothing.

use std::sync::Arc;

use super::memory::Memory;
use super::{Address, Device, Element, Fault};

/// Every piece begins at a multiple of this many bytes.
const ALIGNMENT: usize = 256;
/// The smallest block that is allocated.
const BLOCK: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Arena {
    device: Arc<dyn Device>,
    blocks: Vec<Memory>,
    mark: Mark,
}

/// How much is handed out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    block: usize,
    used: usize,
}

impl Arena {
    pub fn new(device: &Arc<dyn Device>) -> Self {
        Self {
            device: Arc::clone(device),
            blocks: Vec::new(),
            mark: Mark::default(),
        }
    }

    /// Memory for so many numbers; what it holds is of no meaning.
    pub fn take(&mut self, count: usize, element: Element) -> Result<Address, Fault> {
        let bytes = (count * element.bytes()).next_multiple_of(ALIGNMENT);
        while let Some(block) = self.blocks.get(self.mark.block) {
            if self.mark.used + bytes <= block.bytes() {
                let address = Address(block.address().0 + self.mark.used as u64);
                self.mark.used += bytes;
                return Ok(address);
            }
            self.mark = Mark {
                block: self.mark.block + 1,
                used: 0,
            };
        }
        // Blocks grow with what there is, so that few are needed, and shrink to what is wanted where memory is short.
        let held: usize = self.blocks.iter().map(Memory::bytes).sum();
        let generous = bytes.max(held / 4).max(BLOCK);
        let block = match Memory::new(&self.device, generous) {
            Err(Fault::OutOfMemory { .. }) if generous > bytes => Memory::new(&self.device, bytes)?,
            other => other?,
        };
        self.mark.used = bytes;
        self.blocks.push(block);
        Ok(self.blocks[self.mark.block].address())
    }

    /// Memory for so many floats.
    pub fn floats(&mut self, count: usize) -> Result<Address, Fault> {
        self.take(count, Element::F32)
    }

    /// How much is handed out now, for [`Arena::back_to`].
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Takes back what was handed out since.
    pub fn back_to(&mut self, mark: Mark) {
        self.mark = mark;
    }

    /// Takes everything back.
    pub fn clear(&mut self) {
        self.mark = Mark::default();
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(Memory::bytes).sum()
    }
}
