//! Philox for 16 counters that differ in the first word by one, in the registers of the CPU.
//!
//! Each word lies in 64 bits, the upper ones without meaning, since the processor multiplies the lower
//! halves as they lie.

#![expect(
    unsafe_code,
    reason = "a function compiled for a CPU's features may be called only where it has them"
)]

use super::{MULTIPLIERS, WEYL, philox};
use crate::kernels::dispatch::{Level, level};

/// The random words of the counters `[first + lane, rest…]`, each cut in 16 bits: `bits[32 * word + lane]`
/// the lower halves, `bits[32 * word + 16 + lane]` the upper ones.
#[inline(always)]
pub(super) fn halves(key: [u32; 2], first: u32, rest: [u32; 3]) -> [u16; 128] {
    match level() {
        // SAFETY: the level is never above what was detected.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::avx512(key, first, rest) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::avx2(key, first, rest) },
        _ => plain(key, first, rest),
    }
}

fn plain(key: [u32; 2], first: u32, rest: [u32; 3]) -> [u16; 128] {
    let mut counter = [[0; 16], [rest[0]; 16], [rest[1]; 16], [rest[2]; 16]];
    for (lane, word) in counter[0].iter_mut().enumerate() {
        *word = first.wrapping_add(lane as u32);
    }
    let mut bits = [0; 128];
    for (words, bits) in philox(counter, key).iter().zip(bits.chunks_exact_mut(32)) {
        for (lane, word) in words.iter().enumerate() {
            bits[lane] = *word as u16;
            bits[16 + lane] = (word >> 16) as u16;
        }
    }
    bits
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{MULTIPLIERS, WEYL};

    /// Writes the ten rounds over `$count` registers of words.
    macro_rules! rounds {
        ($words:ident, $key:ident, $set:ident, $multiply:ident, $shift:ident, $xor:ident) => {
            let factors = MULTIPLIERS.map(|factor| $set(i64::from(factor)));
            for _ in 0..10 {
                let keys = $key.map(|key| $set(i64::from(key)));
                for words in &mut $words {
                    let first = $multiply(words[0], factors[0]);
                    let second = $multiply(words[2], factors[1]);
                    *words = [
                        $xor($xor($shift::<32>(second), words[1]), keys[0]),
                        second,
                        $xor($xor($shift::<32>(first), words[3]), keys[1]),
                        first,
                    ];
                }
                $key = [$key[0].wrapping_add(WEYL[0]), $key[1].wrapping_add(WEYL[1])];
            }
        };
    }

    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn avx512(mut key: [u32; 2], first: u32, rest: [u32; 3]) -> [u16; 128] {
        let lanes = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        let rest = rest.map(|word| _mm512_set1_epi64(i64::from(word)));
        let start = _mm512_add_epi64(_mm512_set1_epi64(i64::from(first)), lanes);
        let mut words = [0, 8].map(|begin| {
            let counter = _mm512_add_epi64(start, _mm512_set1_epi64(begin));
            [counter, rest[0], rest[1], rest[2]]
        });
        rounds!(
            words,
            key,
            _mm512_set1_epi64,
            _mm512_mul_epu32,
            _mm512_srli_epi64,
            _mm512_xor_si512
        );
        let mut picks = [0u16; 32];
        for (place, pick) in picks.iter_mut().enumerate() {
            // The quarter `place / 16` of the 64 bits of lane `place % 16`.
            *pick = (place % 16 * 4 + place / 16) as u16;
        }
        // SAFETY: 32 numbers of 16 bits fill the register.
        let picks = unsafe { _mm512_loadu_si512(picks.as_ptr().cast()) };
        let mut bits = [0u16; 128];
        for (word, bits) in bits.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let halves = _mm512_permutex2var_epi16(words[0][word], picks, words[1][word]);
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(bits.as_mut_ptr().cast(), halves) };
        }
        bits
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(mut key: [u32; 2], first: u32, rest: [u32; 3]) -> [u16; 128] {
        let lanes = _mm256_setr_epi64x(0, 1, 2, 3);
        let rest = rest.map(|word| _mm256_set1_epi64x(i64::from(word)));
        let start = _mm256_add_epi64(_mm256_set1_epi64x(i64::from(first)), lanes);
        let mut words = [0, 4, 8, 12].map(|begin| {
            let counter = _mm256_add_epi64(start, _mm256_set1_epi64x(begin));
            [counter, rest[0], rest[1], rest[2]]
        });
        rounds!(
            words,
            key,
            _mm256_set1_epi64x,
            _mm256_mul_epu32,
            _mm256_srli_epi64,
            _mm256_xor_si256
        );
        // The words of 8 lanes in their order.
        let join = |low: __m256i, high: __m256i| {
            let (low, high) = (_mm256_castsi256_ps(low), _mm256_castsi256_ps(high));
            let mixed = _mm256_castps_si256(_mm256_shuffle_ps::<0x88>(low, high));
            _mm256_permute4x64_epi64::<0xd8>(mixed)
        };
        let narrow = |low: __m256i, high: __m256i| {
            _mm256_permute4x64_epi64::<0xd8>(_mm256_packus_epi32(low, high))
        };
        let lower = _mm256_set1_epi32(0xffff);
        let mut bits = [0u16; 128];
        for (word, bits) in bits.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = join(words[0][word], words[1][word]);
            let high = join(words[2][word], words[3][word]);
            let halves = [
                narrow(_mm256_and_si256(low, lower), _mm256_and_si256(high, lower)),
                narrow(_mm256_srli_epi32::<16>(low), _mm256_srli_epi32::<16>(high)),
            ];
            for (bits, half) in bits.as_chunks_mut::<16>().0.iter_mut().zip(halves) {
                // SAFETY: 16 numbers of 16 bits take the register.
                unsafe { _mm256_storeu_si256(bits.as_mut_ptr().cast(), half) };
            }
        }
        bits
    }
}
