//! What candle's arithmetic follows: the instructions of its products, and how long their sums are.

use gemm_common::cache::CACHE_INFO;

/// The sort of processor that this is, as far as the bits of candle's results follow it: `x86_64 fma, L1 48 KiB in
/// 12 ways`. Its products add up as many terms at once as the instructions and the first cache suggest.
pub fn arithmetic() -> String {
    let level = CACHE_INFO[0];
    format!(
        "{} {}, L1 {} KiB in {} ways",
        std::env::consts::ARCH,
        instructions(),
        level.cache_bytes / 1024,
        level.associativity
    )
}

/// Those that candle's products choose between.
#[cfg(target_arch = "x86_64")]
fn instructions() -> &'static str {
    match is_x86_feature_detected!("fma") {
        true => "fma",
        false => "scalar",
    }
}

/// Those that candle's products choose between.
#[cfg(target_arch = "aarch64")]
fn instructions() -> &'static str {
    match std::arch::is_aarch64_feature_detected!("neon") {
        true => "neon",
        false => "scalar",
    }
}

/// Those that candle's products choose between.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instructions() -> &'static str {
    "scalar"
}
