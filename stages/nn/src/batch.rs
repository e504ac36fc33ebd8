//! What a network is given: rows of token ids, packed.

/// Rows of token ids without any padding: row `i` is `ids[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids of all rows, one after the other.
    pub ids: Vec<u32>,
    /// Segment ids, as many as `ids`, or empty where all are 0.
    pub type_ids: Vec<u32>,
    /// Where each row begins; one more than there are rows.
    pub offsets: Vec<u32>,
    /// For each row its index in the epoch's order: addresses its random numbers.
    pub rows: Vec<u64>,
    /// The class of each row; empty where it is not known.
    pub labels: Vec<u32>,
    /// The width to which models that read padding (textcnn, rnn, lstm, gru) pad each row; at least the
    /// longest row. BERT does not look at it.
    pub width: usize,
    /// The id of the padding token.
    pub padding_id: u32,
}

impl Batch {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of row `row`.
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }

    /// The ids that it may read, ascending, each once: those of its tokens and of the padding.
    pub fn named(&self) -> Vec<u32> {
        let mut named = self.ids.clone();
        named.push(self.padding_id);
        named.sort_unstable();
        named.dedup();
        named
    }

    /// The tokens of all rows.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }
}

/// Where the random numbers of dropout come from: nothing else enters them, so that masks depend on no
/// packing, no thread and no device. Within, they are addressed by layer, the row's index in the epoch's
/// order, position and element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropout {
    /// The stage's seed.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
}
