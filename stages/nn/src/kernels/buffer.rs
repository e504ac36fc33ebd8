//! Numbers that live from step to step: a buffer grows to the longest length that is asked for and stays
//! there, so that the steady state neither allocates nor clears anything.

use std::ops::{Deref, DerefMut};

use crate::Real;
use crate::pages::zeros;

/// Bytes in a line of the cache, at whose beginning every buffer begins.
const LINE: usize = 64;

/// A buffer; it is the slice of its first numbers.
#[derive(Clone, Debug)]
pub struct Buffer<R> {
    storage: Vec<R>,
    start: usize,
    len: usize,
}

impl<R> Default for Buffer<R> {
    fn default() -> Self {
        Self {
            storage: Vec::new(),
            start: 0,
            len: 0,
        }
    }
}

impl<R: Real> Buffer<R> {
    /// Gives it another length. What it holds then is of no meaning.
    pub fn resize(&mut self, len: usize) {
        let spare = LINE / size_of::<R>();
        if self.start + len > self.storage.len() {
            let room = len.max(self.storage.len() + self.storage.len() / 4);
            // Freed first, so that the old and the new are not held at once.
            self.storage = Vec::new();
            self.storage = zeros(room + spare);
            self.start = self.storage.as_ptr().align_offset(LINE).min(spare);
        }
        self.len = len;
    }
}

impl<R> Deref for Buffer<R> {
    type Target = [R];

    fn deref(&self) -> &[R] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl<R> DerefMut for Buffer<R> {
    fn deref_mut(&mut self) -> &mut [R] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

impl<'a, R> IntoIterator for &'a Buffer<R> {
    type Item = &'a R;
    type IntoIter = std::slice::Iter<'a, R>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, R> IntoIterator for &'a mut Buffer<R> {
    type Item = &'a mut R;
    type IntoIter = std::slice::IterMut<'a, R>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_its_storage() {
        let mut buffer = Buffer::<f32>::default();
        buffer.resize(1000);
        let place = buffer.as_ptr();
        for len in [10, 1000, 0, 999] {
            buffer.resize(len);
            assert_eq!((buffer.len(), buffer.as_ptr()), (len, place));
            assert_eq!(buffer.as_ptr().align_offset(LINE), 0);
        }
        buffer.resize(1001);
        assert_eq!(buffer.len(), 1001);
        assert_eq!(buffer.as_ptr().align_offset(LINE), 0);
    }
}
