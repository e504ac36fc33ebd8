//! Buffers that a thread keeps between tasks, so that the steady state allocates nothing.

use std::cell::RefCell;

/// Numbers in the alignment of a buffer: a line of the cache of `f32`.
const ALIGNMENT: usize = 64;

/// A number that threads keep buffers of.
#[doc(hidden)]
pub trait Scratch: Sized {
    /// Runs `work` with `len` numbers of any value, the first at the beginning of a line of the cache.
    #[doc(hidden)]
    fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [Self]) -> T) -> T;
}

macro_rules! scratch {
    ($number:ty) => {
        impl Scratch for $number {
            fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [Self]) -> T) -> T {
                thread_local! {
                    static FREE: RefCell<Vec<Vec<$number>>> = const { RefCell::new(Vec::new()) };
                }
                let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
                let spare = ALIGNMENT / size_of::<$number>();
                if buffer.len() < len + spare {
                    buffer.resize(len + spare, 0.0);
                }
                let start = buffer.as_ptr().align_offset(ALIGNMENT).min(spare);
                let result = work(&mut buffer[start..start + len]);
                FREE.with_borrow_mut(|free| free.push(buffer));
                result
            }
        }
    };
}
scratch!(f32);
scratch!(f64);
