//! Long buffers in large pages, where the system has them on request.
//!
//! A training touches gigabytes. In pages of 4 KiB, the first touch of each is a visit to the kernel, and every
//! pass over weights and moments misses the table of pages; 2 MiB at a time, both are rare.
#![expect(unsafe_code, reason = "the system is told about memory by its address")]

use crate::Real;

/// Bytes of a large page.
const PAGE: usize = 2 << 20;

/// So many zeros, in large pages where that is worth it.
pub fn zeros<R: Real>(len: usize) -> Vec<R> {
    zeros_behind(0, len)
}

/// The same, but those before `few` in small pages, for what is touched here and there only: no more than that
/// shall be there.
pub fn zeros_behind<R: Real>(few: usize, len: usize) -> Vec<R> {
    let mut zeros = vec![R::ZERO; len];
    in_large_pages(&mut zeros[few.min(len)..]);
    zeros
}

/// Asks for large pages for the part of `buffer` that fills some. It holds for what is not touched yet; that the
/// system has none is no error.
fn in_large_pages<R: Real>(buffer: &mut [R]) {
    #[cfg(target_os = "linux")]
    {
        let skipped = buffer.as_ptr().align_offset(PAGE).min(buffer.len());
        let whole = size_of_val(&buffer[skipped..]) / PAGE * PAGE;
        if whole > 0 {
            let place = buffer[skipped..].as_mut_ptr().cast();
            // SAFETY: these pages are this buffer's, and the advice changes nothing that they hold.
            let told =
                unsafe { rustix::mm::madvise(place, whole, rustix::mm::Advice::LinuxHugepage) };
            // A kernel without large pages refuses: then they stay small.
            told.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zeros_of_any_length() {
        for len in [0, 1, 1000, PAGE / 4, 3 * PAGE / 4 + 17] {
            let mut zeros = zeros::<f32>(len);
            assert_eq!(zeros.len(), len);
            assert!(zeros.iter().all(|&zero| zero == 0.0));
            zeros.fill(1.0);
        }
    }

    /// As the kernel tells of the memory in which a buffer lies, where it has large pages at all.
    #[test]
    #[cfg(target_os = "linux")]
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel's")]
    fn long_buffers_ask_for_large_pages() {
        if std::fs::metadata("/sys/kernel/mm/transparent_hugepage").is_err() {
            return;
        }
        let asks = |buffer: &[f32]| {
            let place = buffer.as_ptr() as usize + size_of_val(buffer) / 2;
            let mut within = false;
            let maps = std::fs::read_to_string("/proc/self/smaps").expect("of this process");
            for line in maps.lines() {
                let range = line
                    .split(' ')
                    .next()
                    .and_then(|range| range.split_once('-'));
                let number = |text| usize::from_str_radix(text, 16).ok();
                if let Some((Some(start), Some(end))) = range.map(|(s, e)| (number(s), number(e))) {
                    within = (start..end).contains(&place);
                } else if within && line.starts_with("VmFlags:") {
                    return line.split(' ').any(|flag| flag == "hg");
                }
            }
            panic!("a buffer lies in a mapping");
        };
        assert!(asks(&zeros::<f32>(4 * PAGE)));
    }
}
