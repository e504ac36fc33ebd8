//! The roof over every product: fused multiply-adds and nothing else, for benchmarks to divide by.

#![expect(
    unsafe_code,
    reason = "a function compiled for a CPU's features may be called only where it has them"
)]

use crate::kernels::dispatch::{Level, level};
use crate::parallel;

/// Chains that run beside each other: enough to hide the latency of any x86-64 CPU, and few enough to stay, with two
/// constants, in the sixteen registers that there are without AVX-512.
const CHAINS: usize = 12;

/// Runs `rounds` rounds on every thread, at the level of the kernels; answers the floating-point operations
/// that were done, and a number that keeps the compiler from leaving them out.
pub fn burn(rounds: usize) -> (u64, f32) {
    let mut sums = vec![0f32; parallel::threads()];
    let (lanes, work): (usize, fn(usize) -> f32) = match level() {
        // SAFETY: the level is never above what was detected.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => (16, |rounds| unsafe { x86::avx512(rounds) }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => (8, |rounds| unsafe { x86::avx2(rounds) }),
        _ => (1, plain),
    };
    parallel::over_blocks(&mut sums, 1, usize::MAX / 1024, |_, sum| {
        *sum = work(rounds)
    });
    let operations = 2 * CHAINS * lanes * rounds * sums.len();
    (operations as u64, sums.iter().sum())
}

fn plain(rounds: usize) -> f32 {
    let mut chains = [1f32; CHAINS];
    for _ in 0..rounds {
        for chain in &mut chains {
            *chain = chain.mul_add(0.5, 1.0);
        }
    }
    chains.iter().sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::CHAINS;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: usize) -> f32 {
        let (factor, term) = (_mm256_set1_ps(0.5), _mm256_set1_ps(1.0));
        let mut chains = [term; CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = _mm256_fmadd_ps(*chain, factor, term);
            }
        }
        let sum = chains[1..]
            .iter()
            .fold(chains[0], |sum, &chain| _mm256_add_ps(sum, chain));
        _mm256_cvtss_f32(sum)
    }

    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn avx512(rounds: usize) -> f32 {
        let (factor, term) = (_mm512_set1_ps(0.5), _mm512_set1_ps(1.0));
        let mut chains = [term; CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = _mm512_fmadd_ps(*chain, factor, term);
            }
        }
        let sum = chains[1..]
            .iter()
            .fold(chains[0], |sum, &chain| _mm512_add_ps(sum, chain));
        _mm512_cvtss_f32(sum)
    }
}
