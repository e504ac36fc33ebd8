//! Embeddings: rows of tables gathered and added, and their gradients scattered.

use crate::Real;
use crate::parallel::{Shared, tiles};

/// Tokens in a tile of the gather.
const TOKENS: usize = 32;
/// Columns in a tile of the scatter.
const WIDTH: usize = 128;

#[inline(always)]
pub(crate) fn embedding_tile<R: Real>(
    out: &mut [R],
    width: usize,
    tables: &[(&[u32], &[R])],
    first: usize,
) {
    for (token, out) in out.chunks_exact_mut(width).enumerate() {
        for (index, (ids, table)) in tables.iter().enumerate() {
            let id = ids[first + token] as usize;
            let row = &table[id * width..][..width];
            if index == 0 {
                out.copy_from_slice(row);
            } else {
                for (out, &row) in out.iter_mut().zip(row) {
                    *out += row;
                }
            }
        }
    }
}

/// `out[token] = table[ids[token]]`, summed over the `tables` in their order; `out` is `[tokens, width]`,
/// each table `[ids, width]` with the ids of all tokens beside it.
///
/// # Panics
/// Where an id is outside its table.
pub fn embedding<R: Real>(tables: &[(&[u32], &[R])], width: usize, out: &mut [R]) {
    if width == 0 || out.is_empty() {
        return;
    }
    assert!(
        tables.iter().all(|(ids, _)| ids.len() * width == out.len()),
        "out is [tokens, width]"
    );
    let tokens = out.len() / width;
    let operations = out.len() * tables.len();
    let out = Shared::new(out);
    tiles(tokens.div_ceil(TOKENS), operations, |tile| {
        let first = tile * TOKENS;
        let count = TOKENS.min(tokens - first);
        R::embedding_tile(
            part(out, first * width, count * width),
            width,
            tables,
            first,
        );
    });
}

/// Adds the gradient `[tokens, width]` of each token to the row of its id, tokens in ascending order.
pub fn embedding_backward<R: Real>(
    ids: &[u32],
    gradient: &[R],
    width: usize,
    table_gradient: &mut [R],
) {
    assert_eq!(
        gradient.len(),
        ids.len() * width,
        "gradient is [tokens, width]"
    );
    assert!(
        ids.iter()
            .all(|&id| (id as usize + 1) * width <= table_gradient.len()),
        "ids within the table"
    );
    let table = Shared::new(table_gradient);
    tiles(width.div_ceil(WIDTH), gradient.len() * 4, |tile| {
        let first = tile * WIDTH;
        let count = WIDTH.min(width - first);
        for (token, &id) in ids.iter().enumerate() {
            let row = part(table, id as usize * width + first, count);
            R::add_tile(row, &gradient[token * width + first..][..count]);
        }
    });
}

#[expect(unsafe_code, reason = "tiles write to their own tokens or columns")]
fn part<'a, R>(out: Shared<'a, R>, start: usize, len: usize) -> &'a mut [R] {
    // SAFETY: each token of the gather and each column of the scatter belongs to one tile, which holds one
    // part at a time.
    unsafe { out.part(start, len) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gemm::tests::numbers;
    use crate::parallel::with_threads;

    #[test]
    fn rows_are_gathered_in_the_order_of_the_tables() {
        let width = 5;
        let (words, kinds) = (numbers::<f32>(7 * width, 1), numbers::<f32>(2 * width, 2));
        let (ids, types) = (vec![6, 0, 0, 3], vec![1, 0, 1, 1]);
        let mut out = vec![0.0; 4 * width];
        embedding(&[(&ids, &words), (&types, &kinds)], width, &mut out);
        for token in 0..4 {
            for column in 0..width {
                assert_eq!(
                    out[token * width + column],
                    words[ids[token] as usize * width + column]
                        + kinds[types[token] as usize * width + column]
                );
            }
        }
    }

    #[test]
    fn gradients_go_back_in_the_order_of_the_tokens() {
        let (tokens, width, rows) = (500, 300, 11);
        let gradient = numbers::<f32>(tokens * width, 3);
        let ids: Vec<u32> = (0..tokens as u32)
            .map(|token| token * token % rows)
            .collect();
        let mut expected = numbers::<f32>(rows as usize * width, 4);
        let initial = expected.clone();
        for (token, &id) in ids.iter().enumerate() {
            for column in 0..width {
                expected[id as usize * width + column] += gradient[token * width + column];
            }
        }
        for threads in [1, 2, 7] {
            let mut table = initial.clone();
            with_threads(threads, || {
                embedding_backward(&ids, &gradient, width, &mut table)
            });
            assert_eq!(table, expected);
        }
    }
}
