//! Random numbers that are addressed, not drawn: Philox4x32-10 of a key and a counter.
//!
//! Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A [`Stream`] is
//! a key; every number in it has an address, so none depends on which others were asked for, in which order
//! or by which thread. Streams are derived from the seed, a [`Purpose`] and further numbers (a layer, an
//! epoch) by Philox itself.

mod vectors;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The 10 rounds over `N` counters at once, word by word, for the compiler to put in vectors.
#[inline(always)]
pub fn philox<const N: usize>(mut counter: [[u32; N]; 4], mut key: [u32; 2]) -> [[u32; N]; 4] {
    for _ in 0..10 {
        let mut next = [[0; N]; 4];
        for lane in 0..N {
            let first = u64::from(counter[0][lane]) * u64::from(MULTIPLIERS[0]);
            let second = u64::from(counter[2][lane]) * u64::from(MULTIPLIERS[1]);
            next[0][lane] = (second >> 32) as u32 ^ counter[1][lane] ^ key[0];
            next[1][lane] = second as u32;
            next[2][lane] = (first >> 32) as u32 ^ counter[3][lane] ^ key[1];
            next[3][lane] = first as u32;
        }
        counter = next;
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// What random numbers are for. The numbers are part of the format: none may change or be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights.
    Initialization = 1,
    /// Masks of dropout.
    Dropout = 2,
    /// The order of rows in an epoch.
    Order = 3,
    /// The `shuffle` stage.
    Shuffle = 4,
    /// The `subsample` stage.
    Subsample = 5,
    /// The `split` stage.
    Split = 6,
    /// Sample data made by the program.
    Sample = 7,
    /// Everything in tests and benchmarks.
    Test = 8,
}

/// An endless array of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
}

impl Stream {
    /// The stream of a seed for one purpose.
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        let root = Self {
            key: [seed as u32, (seed >> 32) as u32],
        };
        root.derive([purpose as u32, 0, 0, 1])
    }

    /// The stream below this one that `number` names (a tensor, a layer, an epoch).
    pub fn child(self, number: u64) -> Self {
        self.derive([number as u32, (number >> 32) as u32, 0, 2])
    }

    /// The stream below this one that `name` names: one child for each 8 bytes of it, then one
    /// for its length.
    pub fn named(self, name: &str) -> Self {
        let mut stream = self;
        for bytes in name.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            stream = stream.child(u64::from_le_bytes(word));
        }
        stream.derive([name.len() as u32, 0, 0, 4])
    }

    /// What its blocks are computed with.
    pub(crate) fn key(self) -> [u32; 2] {
        self.key
    }

    fn derive(self, counter: [u32; 4]) -> Self {
        let block = self.block(counter);
        Self {
            key: [block[0], block[1]],
        }
    }

    /// The 128 random bits at a counter.
    pub fn block(self, counter: [u32; 4]) -> [u32; 4] {
        philox(counter.map(|word| [word]), self.key).map(|word| word[0])
    }

    /// The blocks of 16 counters `[first + lane, rest…]` cut in 16 bits: `[32 * word + lane]` are the lower
    /// halves of a word, `[32 * word + 16 + lane]` the upper ones.
    #[inline(always)]
    pub(crate) fn halves(self, first: u32, rest: [u32; 3]) -> [u16; 128] {
        vectors::halves(self.key, first, rest)
    }

    /// The 128 random bits at `index`; `kind` keeps the different uses of one index apart.
    fn at(self, index: u64, kind: u32) -> [u32; 4] {
        self.block([index as u32, (index >> 32) as u32, kind, 3])
    }

    /// 64 random bits.
    pub fn bits(self, index: u64) -> u64 {
        let block = self.at(index, 0);
        u64::from(block[0]) | u64::from(block[1]) << 32
    }

    /// A number of [0, 1), a multiple of 2^-24.
    pub fn uniform_f32(self, index: u64) -> f32 {
        (self.bits(index) >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// A number of [0, 1), a multiple of 2^-53.
    pub fn uniform_f64(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// A number of the standard normal distribution (Box and Muller 1958), by the `libm` crate.
    pub fn normal(self, index: u64) -> f64 {
        let block = self.at(index, 0);
        let first = u64::from(block[0]) | u64::from(block[1]) << 32;
        let second = u64::from(block[2]) | u64::from(block[3]) << 32;
        // (0, 1], whose logarithm is finite
        let radius = ((first >> 11) + 1) as f64 * (1.0 / 9_007_199_254_740_992.0);
        let angle = (second >> 11) as f64 * (std::f64::consts::TAU / 9_007_199_254_740_992.0);
        libm::sqrt(-2.0 * libm::log(radius)) * libm::cos(angle)
    }

    /// An integer of `0..bound`, each equally likely (Lemire 2019, with rejection). `bound` is not 0.
    pub fn below(self, index: u64, bound: u64) -> u64 {
        debug_assert!(bound > 0, "no integer is below 0");
        let threshold = bound.wrapping_neg() % bound.max(1);
        let mut attempt = 0;
        loop {
            let block = self.at(index, attempt);
            let bits = u64::from(block[0]) | u64::from(block[1]) << 32;
            let product = u128::from(bits) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
            attempt += 1;
        }
    }

    /// A random order of `0..len` (Fisher and Yates).
    pub fn permutation(self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for last in (1..len).rev() {
            let other = self.below(last as u64, last as u64 + 1) as usize;
            order.swap(last, other);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors publish with Random123 (kat_vectors).
    #[test]
    fn philox_gives_the_published_answers() {
        let known = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [0xffff_ffff; 4],
                [0xffff_ffff; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, answer) in known {
            assert_eq!(Stream { key }.block(counter), answer);
        }
    }

    #[test]
    fn streams_of_other_names_are_other_streams() {
        let root = Stream::new(42, Purpose::Initialization);
        let mut streams = vec![
            root,
            Stream::new(43, Purpose::Initialization),
            Stream::new(42, Purpose::Dropout),
            root.child(0),
            root.child(1),
            root.child(1 << 32),
            root.child(0).child(1),
            root.named(""),
            root.named("bert.embeddings"),
            root.named("bert.embedding"),
        ];
        let bits: std::collections::BTreeSet<u64> =
            streams.drain(..).map(|stream| stream.bits(0)).collect();
        assert_eq!(bits.len(), 10);
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let stream = Stream::new(1, Purpose::Test);
        let count = 40_000;
        let mean = |f: &dyn Fn(u64) -> f64| (0..count).map(f).sum::<f64>() / count as f64;
        assert!((mean(&|i| f64::from(stream.uniform_f32(i))) - 0.5).abs() < 0.01);
        assert!((mean(&|i| stream.uniform_f64(i).powi(2)) - 1.0 / 3.0).abs() < 0.01);
        assert!(mean(&|i| stream.normal(i)).abs() < 0.02);
        assert!((mean(&|i| stream.normal(i).powi(2)) - 1.0).abs() < 0.03);
        assert!((mean(&|i| stream.normal(i).powi(4)) - 3.0).abs() < 0.2);
    }

    #[test]
    fn a_permutation_holds_each_index_once_and_is_fair() {
        let stream = Stream::new(7, Purpose::Test);
        for len in [0, 1, 2, 17, 1000] {
            let mut order = stream.permutation(len);
            order.sort_unstable();
            assert_eq!(order, (0..len).collect::<Vec<_>>());
        }
        let mut counts = [0; 6];
        for seed in 0..6000 {
            let order = Stream::new(seed, Purpose::Test).permutation(3);
            counts[order[0] * 2 + usize::from(order[1] > order[2])] += 1;
        }
        assert!(
            counts.iter().all(|&count| (850..1150).contains(&count)),
            "{counts:?}"
        );
    }

    #[test]
    fn integers_below_a_bound_are_equally_likely() {
        let stream = Stream::new(3, Purpose::Test);
        let mut counts = [0; 7];
        for index in 0..14_000 {
            counts[stream.below(index, 7) as usize] += 1;
        }
        assert!(
            counts.iter().all(|&count| (1800..2200).contains(&count)),
            "{counts:?}"
        );
        assert_eq!(stream.below(0, 1), 0);
        assert!(stream.below(0, u64::MAX) < u64::MAX);
    }
}
