//! Random numbers for work on data, addressed by a seed and a purpose.
//!
//! The numbers are the output of BLAKE3 as an extendable-output function, keyed by the context
//! `taper 1 random numbers of data` over the seed (8 bytes, little-endian) and the purpose's bytes, read as
//! little-endian 64-bit integers. Different purposes of one stage are independent of each other: nothing
//! depends on the order in which they are asked.

use blake3::OutputReader;

/// A stream of random numbers.
pub struct Random(OutputReader);

impl Random {
    /// The stream of `seed` for `purpose` (`shuffle/train`).
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("taper 1 random numbers of data");
        hasher.update(&seed.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Self(hasher.finalize_xof())
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A uniform integer below `bound`, without bias: multiplication with rejection (D. Lemire, Fast Random
    /// Integer Generation in an Interval, 2019).
    ///
    /// # Panics
    /// Where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no integer below 0");
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// One of `choices`, each as likely.
    ///
    /// # Panics
    /// Where there is no choice.
    pub fn choose<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// The numbers 0 to `length - 1` in a uniformly random order (Fisher and Yates, from the end).
    pub fn permutation(&mut self, length: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..length).collect();
        for last in (1..length).rev() {
            let other = self.below(last as u64 + 1) as usize;
            order.swap(last, other);
        }
        order
    }

    /// `amount` of the numbers 0 to `length - 1`, each set of them as likely, ascending.
    ///
    /// # Panics
    /// Where `amount` is more than `length`.
    pub fn sample(&mut self, length: usize, amount: usize) -> Vec<usize> {
        let mut chosen = self.permutation(length);
        chosen.truncate(amount);
        assert_eq!(chosen.len(), amount, "a sample is no larger than its whole");
        chosen.sort_unstable();
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of these is a change of what `shuffle`, `subsample`, `split` and the samples make: raise
    /// their versions.
    #[test]
    fn vectors() {
        let mut random = Random::new(42, "shuffle/train");
        insta::assert_debug_snapshot!([random.bits(), random.bits()], @r#"
        [
            15975195793262039446,
            8405686673542108019,
        ]
        "#);
        insta::assert_debug_snapshot!(Random::new(42, "shuffle/test").bits(), @"15431442684166004682");
        insta::assert_compact_debug_snapshot!(Random::new(0, "").permutation(10), @"[5, 0, 6, 9, 4, 8, 1, 2, 3, 7]");
        insta::assert_compact_debug_snapshot!(Random::new(0, "").sample(100, 5), @"[13, 39, 44, 48, 70]");
    }

    #[test]
    fn bounded_integers_are_uniform() {
        let mut random = Random::new(1, "uniform");
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[random.below(7) as usize] += 1;
        }
        let squares: f64 = counts
            .iter()
            .map(|count| (f64::from(*count) - 1e4).powi(2) / 1e4)
            .sum();
        assert!(
            squares < 22.5,
            "chi-squared with 6 degrees of freedom: {squares}"
        );
    }

    proptest::proptest! {
        #[test]
        fn permutations_hold_every_number_once(seed: u64, length in 0_usize..300) {
            let mut order = Random::new(seed, "permutation").permutation(length);
            order.sort_unstable();
            proptest::prop_assert!(order.into_iter().eq(0..length));
        }

        #[test]
        fn samples_are_ascending_and_distinct(seed: u64, length in 0_usize..300, part in 0_usize..=100) {
            let amount = length * part / 100;
            let sample = Random::new(seed, "sample").sample(length, amount);
            proptest::prop_assert_eq!(sample.len(), amount);
            proptest::prop_assert!(sample.windows(2).all(|pair| pair[0] < pair[1]));
            proptest::prop_assert!(sample.iter().all(|row| *row < length));
        }
    }
}
