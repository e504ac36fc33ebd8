//! A batch in a device's memory, with what kernels need to find their way in it.

use std::sync::Arc;

use super::kernels::Places;
use super::memory::Memory;
use super::{Address, Device, Fault};
use crate::Batch;

/// The buffer that batches are put in, one after the other.
#[derive(Debug)]
pub(super) struct Inbox {
    device: Arc<dyn Device>,
    memory: Option<Memory>,
    words: Vec<u32>,
}

/// The tokens of a batch as a network reads them, padding included where it reads that.
#[derive(Debug)]
pub(super) struct Layout {
    pub ids: Vec<u32>,
    /// For each its position in its row, and its row.
    pub positions: Vec<u32>,
    pub row_of: Vec<u32>,
    /// The id whose embedding has no gradient.
    pub without: Option<u32>,
}

impl Layout {
    /// Row after row, without padding.
    pub fn packed(batch: &Batch, without: Option<u32>) -> Self {
        let (positions, row_of) = (0..batch.len())
            .flat_map(|row| {
                (0..batch.range(row).len() as u32).map(move |position| (position, row as u32))
            })
            .unzip();
        Self {
            ids: batch.ids.clone(),
            positions,
            row_of,
            without,
        }
    }
}

/// Where a batch lies; numbers are of 32 bits where nothing else is said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    /// Rows.
    pub len: usize,
    /// Tokens of all rows.
    pub tokens: usize,
    /// Tokens of the longest row.
    pub longest: usize,
    /// For each token its id, its segment, its position in its row, and its row.
    pub ids: Address,
    pub types: Address,
    pub positions: Address,
    pub row_of: Address,
    /// Where each row begins, and the end; the same for rows of one token.
    pub offsets: Address,
    pub firsts: Address,
    /// For each row its index in the epoch's order, of 64 bits.
    pub rows: Address,
    /// Which ids are named, and for each the tokens that name it, in ascending order: those of id `i` are
    /// `order[starts[i]..starts[i + 1]]`.
    pub named_count: usize,
    pub named: Address,
    pub starts: Address,
    pub order: Address,
}

impl Rows {
    /// Which row and position each token is.
    pub fn tokens_places(&self) -> Places {
        Places {
            row_of: self.row_of,
            positions: self.positions,
            rows: self.rows,
        }
    }

    /// The same for one vector a row.
    pub fn rows_places(&self) -> Places {
        Places {
            row_of: Address::NONE,
            positions: Address::NONE,
            rows: self.rows,
        }
    }
}

/// Token ids grouped: the ids that there are, ascending, where each group begins, and the tokens.
pub(super) struct Groups {
    pub named: Vec<u32>,
    pub starts: Vec<u32>,
    pub order: Vec<u32>,
}

/// Groups tokens by id; those of id `without` are left out.
pub(super) fn group(ids: &[u32], without: Option<u32>) -> Groups {
    let mut pairs: Vec<u64> = (0..)
        .zip(ids)
        .filter(|&(_, &id)| Some(id) != without)
        .map(|(token, &id)| u64::from(id) << 32 | token)
        .collect();
    pairs.sort_unstable();
    let mut groups = Groups {
        named: Vec::new(),
        starts: Vec::new(),
        order: Vec::with_capacity(pairs.len()),
    };
    for pair in pairs {
        let id = (pair >> 32) as u32;
        if groups.named.last() != Some(&id) {
            groups.named.push(id);
            groups.starts.push(groups.order.len() as u32);
        }
        groups.order.push(pair as u32);
    }
    groups.starts.push(groups.order.len() as u32);
    groups
}

impl Inbox {
    pub fn new(device: &Arc<dyn Device>) -> Self {
        Self {
            device: Arc::clone(device),
            memory: None,
            words: Vec::new(),
        }
    }

    /// Puts a batch there in the place of the last, laid out as a network reads it.
    pub fn put(&mut self, batch: &Batch, layout: &Layout) -> Result<Rows, Fault> {
        let Layout {
            ids,
            positions,
            row_of,
            without,
        } = layout;
        let groups = group(ids, *without);
        let mut types = batch.type_ids.clone();
        types.resize(batch.tokens(), 0);
        let firsts: Vec<u32> = (0..=batch.len() as u32).collect();
        let rows: Vec<u32> = batch
            .rows
            .iter()
            .flat_map(|&row| [row as u32, (row >> 32) as u32])
            .collect();
        // Rows first: their numbers are of 64 bits.
        let parts: [&[u32]; 10] = [
            &rows,
            ids,
            &types,
            positions,
            row_of,
            &batch.offsets,
            &firsts,
            &groups.named,
            &groups.starts,
            &groups.order,
        ];
        self.words.clear();
        let mut starts = [0; 10];
        for (start, part) in starts.iter_mut().zip(parts) {
            *start = self.words.len();
            self.words.extend_from_slice(part);
        }
        let bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let memory = match self.memory.take() {
            Some(memory) if memory.bytes() >= bytes.len() => memory,
            small => {
                drop(small);
                Memory::new(&self.device, bytes.len() + bytes.len() / 4)?
            }
        };
        self.device.upload(&bytes, memory.address())?;
        let [
            rows,
            ids,
            types,
            positions,
            row_of,
            offsets,
            firsts,
            named,
            starts,
            order,
        ] = starts.map(|start| Address(memory.address().0 + 4 * start as u64));
        self.memory = Some(memory);
        Ok(Rows {
            len: batch.len(),
            tokens: batch.tokens(),
            longest: (0..batch.len())
                .map(|row| batch.range(row).len())
                .max()
                .unwrap_or(0),
            ids,
            types,
            positions,
            row_of,
            offsets,
            firsts,
            rows,
            named_count: groups.named.len(),
            named,
            starts,
            order,
        })
    }
}
