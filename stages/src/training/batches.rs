//! From rows of tokens to batches: packed, in the order of the epoch, one step ahead of the training.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use taper_nn::Batch;

use super::order::Ordering;
use super::params::BatchPadding;
use crate::artifact::tokens::{self, TokenSettings, TokenSplit};

/// How rows are put side by side for networks that read their padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// How far rows are padded.
    pub padding: BatchPadding,
    /// The most tokens a row has.
    pub max_length: usize,
    /// The id of the padding token.
    pub padding_id: u32,
}

impl Width {
    /// How rows of tokens are padded: to `max_length` where they were padded when they were made, else as
    /// `padding` says.
    pub fn new(tokens: &TokenSettings, padding: BatchPadding) -> Self {
        Self {
            padding: match tokens.padding {
                tokens::Padding::None => padding,
                tokens::Padding::MaxLength => BatchPadding::MaxLength,
            },
            max_length: tokens.max_length,
            padding_id: tokens.pad_token_id,
        }
    }

    /// The width of a batch whose longest row has `longest` tokens.
    fn of(&self, longest: usize) -> usize {
        match self.padding {
            BatchPadding::Longest => longest,
            BatchPadding::MaxLength => longest.max(self.max_length),
            BatchPadding::MultipleOf(multiple) => longest.next_multiple_of(multiple.max(1)),
        }
    }
}

/// The rows `rows` of a split as one batch; the first is the `first`-th of the epoch's order.
pub fn pack(split: &TokenSplit, rows: &[u32], first: u64, width: Width) -> Batch {
    let mut batch = Batch {
        offsets: vec![0],
        padding_id: width.padding_id,
        ..Batch::default()
    };
    let mut longest = 0;
    for (&row, index) in rows.iter().zip(first..) {
        let row = split.row(row as usize);
        longest = longest.max(row.ids.len());
        batch.ids.extend(row.ids.iter().map(|&id| id as u32));
        batch
            .type_ids
            .extend(row.type_ids.iter().map(|&segment| segment as u32));
        batch.offsets.push(batch.ids.len() as u32);
        batch.rows.push(index);
        batch.labels.extend(row.label);
    }
    if batch.type_ids.iter().all(|&segment| segment == 0) {
        batch.type_ids.clear();
    }
    batch.width = width.of(longest);
    batch
}

/// The batches of all rows in the order of the data: how evaluations read them.
pub fn in_order(
    split: &TokenSplit,
    batch_size: usize,
    width: Width,
) -> impl Iterator<Item = Batch> + '_ {
    let rows: Vec<u32> = (0..split.len() as u32).collect();
    (0..rows.len()).step_by(batch_size).map(move |start| {
        let end = (start + batch_size).min(rows.len());
        pack(split, &rows[start..end], start as u64, width)
    })
}

/// What one optimizer step is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct StepBatches {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The batches whose gradients are accumulated.
    pub batches: Vec<Batch>,
    /// Rows of the epoch that are done after this step.
    pub rows_done: u64,
    /// Whether the epoch ends with this step.
    pub ends_epoch: bool,
}

/// The steps of a training, without an end: epoch after epoch, each with the last batch as small as it comes.
#[derive(Debug)]
pub struct Steps<'a> {
    split: &'a TokenSplit,
    ordering: Ordering,
    width: Width,
    batch_size: usize,
    accumulate: usize,
    lengths: Vec<u32>,
    epoch: u64,
    done: usize,
    order: Vec<u32>,
}

impl<'a> Steps<'a> {
    /// The steps over `split` from the `done`-th row of `epoch` on; `accumulate` batches of `batch_size` rows make a
    /// step.
    pub fn new(
        split: &'a TokenSplit,
        ordering: Ordering,
        width: Width,
        batch_size: usize,
        accumulate: usize,
        (epoch, done): (u64, u64),
    ) -> Self {
        let lengths: Vec<u32> = (0..split.len())
            .map(|row| split.length(row) as u32)
            .collect();
        let order = ordering.of_epoch(epoch, &lengths);
        Self {
            split,
            ordering,
            width,
            batch_size,
            accumulate,
            lengths,
            epoch,
            done: usize::try_from(done).unwrap_or(usize::MAX),
            order,
        }
    }
}

impl Iterator for Steps<'_> {
    type Item = StepBatches;

    fn next(&mut self) -> Option<StepBatches> {
        if self.done >= self.order.len() {
            self.epoch += 1;
            self.done = 0;
            self.order = self.ordering.of_epoch(self.epoch, &self.lengths);
        }
        let rows = &self.order[self.done..];
        let rows = &rows[..rows.len().min(self.batch_size * self.accumulate)];
        if rows.is_empty() {
            return None;
        }
        let batches = rows
            .chunks(self.batch_size)
            .zip((self.done..).step_by(self.batch_size))
            .map(|(rows, first)| pack(self.split, rows, first as u64, self.width))
            .collect();
        self.done += rows.len();
        Some(StepBatches {
            epoch: self.epoch,
            batches,
            rows_done: self.done as u64,
            ends_epoch: self.done == self.order.len(),
        })
    }
}

/// Takes the items of `source` on a thread of its own, one ahead of the receiver; ends when the receiver is
/// dropped.
///
/// # Errors
/// Where no thread can be started.
pub fn ahead<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    source: impl Iterator<Item = T> + Send + 'scope,
) -> std::io::Result<Receiver<T>> {
    let (sender, receiver) = sync_channel(1);
    let run = move || {
        for item in source {
            if sender.send(item).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().spawn_scoped(scope, run)?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::fixture::{Row, split};
    use crate::training::params::DataOrder;

    fn rows() -> Vec<Row> {
        (0..7)
            .map(|row| Row {
                ids: vec![row + 1; row as usize % 3 + 1],
                segments: vec![0; row as usize % 3 + 1],
                label: Some((row % 2) as u32),
            })
            .collect()
    }

    const WIDTH: Width = Width {
        padding: BatchPadding::Longest,
        max_length: 10,
        padding_id: 0,
    };

    fn steps(split: &TokenSplit, from: (u64, u64)) -> Steps<'_> {
        let ordering = Ordering {
            seed: 1,
            data_order: DataOrder::Shuffled,
            group_by_length: None,
        };
        Steps::new(split, ordering, WIDTH, 2, 2, from)
    }

    #[test]
    fn rows_are_packed_without_padding() {
        let split = split(&rows());
        let batch = pack(&split, &[2, 0], 40, WIDTH);
        assert_eq!(batch.ids, [3, 3, 3, 1]);
        assert_eq!(batch.offsets, [0, 3, 4]);
        assert_eq!(batch.rows, [40, 41]);
        assert_eq!(batch.labels, [0, 0]);
        assert_eq!(batch.width, 3);
        assert!(batch.type_ids.is_empty());
        let width = |padding| pack(&split, &[1], 0, Width { padding, ..WIDTH }).width;
        assert_eq!(width(BatchPadding::MaxLength), 10);
        assert_eq!(width(BatchPadding::MultipleOf(8)), 8);
    }

    #[test]
    fn every_epoch_meets_every_row_once_and_its_last_step_is_short() {
        let split = split(&rows());
        let epochs: Vec<_> = steps(&split, (0, 0)).take(4).collect();
        assert_eq!(
            epochs
                .iter()
                .map(|step| (step.epoch, step.rows_done, step.ends_epoch))
                .collect::<Vec<_>>(),
            [(0, 4, false), (0, 7, true), (1, 4, false), (1, 7, true)]
        );
        assert_eq!(
            epochs[1].batches.iter().map(Batch::len).collect::<Vec<_>>(),
            [2, 1]
        );
        let mut seen: Vec<u32> = epochs[..2]
            .iter()
            .flat_map(|step| &step.batches)
            .flat_map(|batch| {
                batch.offsets[..batch.len()]
                    .iter()
                    .map(|&o| batch.ids[o as usize])
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn going_on_from_the_middle_gives_the_same_steps() {
        let split = split(&rows());
        let whole: Vec<_> = steps(&split, (0, 0)).take(6).collect();
        for (index, step) in whole.iter().enumerate().take(5) {
            let rest: Vec<_> = std::thread::scope(|scope| {
                let receiver = ahead(scope, steps(&split, (step.epoch, step.rows_done)))
                    .expect("a thread can be started");
                receiver.iter().take(5 - index).collect()
            });
            assert_eq!(rest, whole[index + 1..]);
        }
    }
}
