//! Bugs that can be planted, one at a time, to see that the trials of the whole program would notice them
//! (`cargo test --test trials -- planted`). A program that is built for release has none of them.

/// Whether this bug is planted: where `TAPER_PLANTED` names it (several with commas), and debug assertions are on.
/// What a machine has only elsewhere, as a kernel that is too old, is planted too.
#[cfg(debug_assertions)]
pub fn planted(bug: &str) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var("TAPER_PLANTED").ok());
    planted
        .iter()
        .any(|bugs| bugs.split(',').any(|name| name == bug))
}

/// No bug is planted in a program that is built for release.
#[cfg(not(debug_assertions))]
pub const fn planted(_bug: &str) -> bool {
    false
}
