//! The order in which an epoch meets the rows: a function of the seed, the epoch and nothing else.

use taper_nn::random::{Purpose, Stream};

use super::params::DataOrder;

/// How the rows of every epoch are put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordering {
    /// The stage's seed.
    pub seed: u64,
    /// Shuffled or as they are.
    pub data_order: DataOrder,
    /// Where rows of similar length are to come together: the size of a batch.
    pub group_by_length: Option<usize>,
}

/// Batches that are sorted by length together: few enough to stay random, many enough to find alike rows
/// (the figure of transformers' LengthGroupedSampler).
const BATCHES_A_GROUP: usize = 50;

impl Ordering {
    /// The rows in the order of `epoch`, where `lengths` are those of all rows.
    ///
    /// With `group_by_length` the random order is cut into groups of batches; each group is sorted, long rows
    /// first, and the group with the longest row of all comes first, so that what does not fit in memory
    /// fails at once.
    pub fn of_epoch(&self, epoch: u64, lengths: &[u32]) -> Vec<u32> {
        let mut order: Vec<u32> = match self.data_order {
            DataOrder::Given => (0..lengths.len()).map(|row| row as u32).collect(),
            DataOrder::Shuffled => Stream::new(self.seed, Purpose::Order)
                .child(epoch)
                .permutation(lengths.len())
                .into_iter()
                .map(|row| row as u32)
                .collect(),
        };
        let Some(batch_size) = self.group_by_length else {
            return order;
        };
        let length = |row: &u32| lengths[*row as usize];
        // At least four groups, as transformers has it: one group would be no longer random.
        let batches = (lengths.len() / (batch_size * 4)).clamp(1, BATCHES_A_GROUP);
        let group = batches * batch_size;
        for rows in order.chunks_mut(group) {
            rows.sort_by_key(|row| std::cmp::Reverse(length(row)));
        }
        let longest = (0..order.len())
            .step_by(group)
            .max_by_key(|&start| (length(&order[start]), std::cmp::Reverse(start)));
        if let Some(start) = longest {
            // Exchanging first rows would break the order inside the groups: whole groups move.
            let end = (start + group).min(order.len());
            order[..end].rotate_right(end - start);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shuffled(group_by_length: Option<usize>) -> Ordering {
        Ordering {
            seed: 42,
            data_order: DataOrder::Shuffled,
            group_by_length,
        }
    }

    #[test]
    fn epochs_differ_and_repeat() {
        let lengths = vec![1; 100];
        let ordering = shuffled(None);
        assert_eq!(
            ordering.of_epoch(0, &lengths),
            ordering.of_epoch(0, &lengths)
        );
        assert_ne!(
            ordering.of_epoch(0, &lengths),
            ordering.of_epoch(1, &lengths)
        );
        let given = Ordering {
            data_order: DataOrder::Given,
            ..ordering
        };
        assert!(given.of_epoch(3, &lengths).into_iter().eq(0..100));
    }

    proptest! {
        #[test]
        fn every_row_comes_once_and_the_longest_first(
            lengths in proptest::collection::vec(1_u32..500, 0..700),
            batch_size in 1_usize..9,
        ) {
            let order = shuffled(Some(batch_size)).of_epoch(2, &lengths);
            if let Some(&first) = order.first() {
                prop_assert_eq!(Some(&lengths[first as usize]), lengths.iter().max());
            }
            let mut rows = order;
            rows.sort_unstable();
            prop_assert!(rows.into_iter().eq(0..lengths.len() as u32));
        }
    }

    #[test]
    fn grouped_batches_waste_little() {
        let lengths: Vec<u32> = (0..1000).map(|row| 1 + row * 7919 % 200).collect();
        let width_sum = |group_by_length| -> u32 {
            shuffled(group_by_length)
                .of_epoch(0, &lengths)
                .chunks(8)
                .map(|batch| {
                    batch
                        .iter()
                        .map(|&row| lengths[row as usize])
                        .max()
                        .unwrap()
                        * 8
                })
                .sum()
        };
        let tokens: u32 = lengths.iter().sum();
        assert!(width_sum(Some(8)) < tokens * 11 / 10);
        assert!(width_sum(None) > tokens * 3 / 2);
    }
}
