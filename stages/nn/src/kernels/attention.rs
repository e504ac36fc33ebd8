//! Scaled dot-product attention (Vaswani and others 2017, <https://arxiv.org/abs/1706.03762>) over packed
//! rows, with dropout of the probabilities.
//!
//! Each sequence and head stands for itself; no score leaves its tile of queries, and the way back computes
//! the probabilities again from each query's greatest score and sum, and the mask from its address.
//!
//! For query i and key j of a head of width d, with sums over features and keys as in `gemm` and the rows'
//! own as in `reduce`:
//!
//! - `s = q·k`, `m = max(s)`, `e = exp((s - m) / sqrt(d))` or 0 below 2^-64, `r = 1 / sum(e)`
//! - `out = (sum over j of e v, where the mask keeps e) * (r * mask's scale)`
//! - back, from the gradient `g` of out: `p = e r`, `dp = g·v` (masked and scaled), `D = g·out`,
//!   `ds = p (dp - D) / sqrt(d)`; `dv = sum over i of p g` (masked and scaled), `dq = sum over j of ds k`,
//!   `dk = sum over i of ds q`. Sums over queries go in blocks of 128, each from 0, added in ascending
//!   order.

use crate::Real;
use crate::kernels::dropout::{GROUP, Mask, Packed};
use crate::kernels::gemm::{self, Matrix, MatrixMut};
use crate::kernels::reduce;
use crate::parallel::{Shared, tiles};

/// Queries whose scores are in memory at a time; of the way back a constant of the format.
pub const QUERIES: usize = 128;

/// The attention of one layer over one batch.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Where the sequences are.
    pub packed: Packed<'a>,
    /// The number of heads.
    pub heads: usize,
    /// The width of all heads together.
    pub hidden: usize,
    /// Which probabilities are dropped; `None` in evaluation.
    pub mask: Option<&'a Mask>,
}

/// How queries, keys and values lie in memory.
#[derive(Clone, Copy, Debug)]
pub enum Qkv<T> {
    /// Beside each other, `[tokens, 3 * hidden]`: every token asks.
    AllQueries(T),
    /// The first token of each sequence asks alone.
    FirstQueries {
        /// `[sequences, hidden]`
        query: T,
        /// Keys and values beside each other, `[tokens, 2 * hidden]`.
        key_value: T,
    },
}

/// A buffer of operands: how many rows it has, and how many `hidden` wide operands lie beside each other.
struct Operands<T> {
    buffer: T,
    rows: usize,
    count: usize,
}

/// Where an operand lies: in which buffer, and behind how many others.
type Place = (usize, usize);

impl<T> Qkv<T> {
    /// The buffers, and where queries, keys and values lie in them.
    fn layout(self, tokens: usize, sequences: usize) -> (Vec<Operands<T>>, [Place; 3]) {
        let operands = |buffer, rows, count| Operands {
            buffer,
            rows,
            count,
        };
        match self {
            Self::AllQueries(qkv) => (vec![operands(qkv, tokens, 3)], [(0, 0), (0, 1), (0, 2)]),
            Self::FirstQueries { query, key_value } => (
                vec![
                    operands(query, sequences, 1),
                    operands(key_value, tokens, 2),
                ],
                [(0, 0), (1, 0), (1, 1)],
            ),
        }
    }

    fn queries(&self, tokens: usize, sequences: usize) -> usize {
        match self {
            Self::AllQueries(_) => tokens,
            Self::FirstQueries { .. } => sequences,
        }
    }
}

impl Attention<'_> {
    fn head_width(&self) -> usize {
        self.hidden / self.heads
    }
}

/// One head of one sequence.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Task<'a, R> {
    /// Queries `[queries, head width]`, keys and values `[len, head width]`.
    query: Matrix<'a, R>,
    key: Matrix<'a, R>,
    value: Matrix<'a, R>,
    scale: R,
    mask: Option<&'a Mask>,
    row: u64,
    head: u32,
    heads: usize,
}

/// Where the results of a task go.
#[doc(hidden)]
pub struct Output<'a, R> {
    out: Shared<'a, R>,
    stride: usize,
    start: usize,
    statistics: Shared<'a, R>,
    statistics_start: usize,
}

/// What the way back reads besides, and where its results go.
#[doc(hidden)]
pub struct Gradients<'a, R> {
    out: Matrix<'a, R>,
    gradient: Matrix<'a, R>,
    statistics: &'a [R],
    /// Those of queries, keys and values.
    targets: [gemm::Target<'a, R>; 3],
}

/// Calls `each(group start, bits)` for the groups of random bits that `len` keys need.
#[inline(always)]
fn for_each_group(
    mask: &Mask,
    (row, position, head): (u64, u32, u32),
    len: usize,
    mut each: impl FnMut(usize, &[u16; GROUP]),
) {
    for (group, start) in (0..len).step_by(GROUP).enumerate() {
        each(start, &mask.group(row, position, head, group as u32));
    }
}

/// A product within a task.
#[inline(always)]
fn product<R: Real>(a: Matrix<'_, R>, b: Matrix<'_, R>, c: gemm::Target<'_, R>, adds: bool) {
    R::gemm_task(&gemm::Task {
        a,
        b,
        packed: None,
        c,
        adds,
        finish: gemm::Finish::Nothing,
    });
}

#[inline(always)]
pub(crate) fn attention_task<R: Real>(task: &Task<'_, R>, out: Output<'_, R>, scores: &mut [R]) {
    let (queries, len, width) = (task.query.rows, task.key.rows, task.query.columns);
    for first in (0..queries).step_by(QUERIES) {
        let count = QUERIES.min(queries - first);
        let scores = &mut scores[..count * len];
        product(
            task.query.part(first, count, 0, width),
            task.key.transposed(),
            gemm::Target::of(MatrixMut::new(scores, count, len)),
            false,
        );
        let mut factors = [R::ZERO; QUERIES];
        for (query, scores) in scores.chunks_exact_mut(len).enumerate() {
            let greatest = reduce::greatest(scores);
            for score in scores.iter_mut() {
                *score = ((*score - greatest) * task.scale).exp_or_nothing();
            }
            let inverse = R::ONE / reduce::sum(scores);
            factors[query] = inverse;
            let statistics = part(
                out.statistics,
                out.statistics_start + (first + query) * 2 * task.heads,
                2,
            );
            statistics[0] = greatest;
            statistics[1] = inverse;
            if let Some(mask) = task.mask {
                let address = (task.row, (first + query) as u32, task.head);
                for_each_group(mask, address, len, |start, bits| {
                    for (score, &bits) in scores[start..].iter_mut().zip(bits) {
                        *score = if mask.keeps(bits) { *score } else { R::ZERO };
                    }
                });
                factors[query] = inverse * mask.scale();
            }
        }
        let start = out.start + first * out.stride;
        product(
            Matrix::new(scores, count, len),
            task.value,
            gemm::Target {
                data: out.out,
                start,
                stride: out.stride,
            },
            false,
        );
        for (query, &factor) in factors[..count].iter().enumerate() {
            for x in part(out.out, start + query * out.stride, width) {
                *x *= factor;
            }
        }
    }
}

#[inline(always)]
pub(crate) fn attention_backward_task<R: Real>(
    task: &Task<'_, R>,
    out: Gradients<'_, R>,
    scratch: &mut [R],
) {
    let (rows, len, width) = (task.query.rows, task.key.rows, task.query.columns);
    let [query_target, key_target, value_target] = out.targets;
    let (probabilities, slopes) = scratch.split_at_mut(QUERIES.min(rows) * len);
    for first in (0..rows).step_by(QUERIES) {
        let count = QUERIES.min(rows - first);
        let queries = task.query.part(first, count, 0, width);
        let gradient = out.gradient.part(first, count, 0, width);
        let probabilities = &mut probabilities[..count * len];
        let slopes = &mut slopes[..count * len];
        product(
            queries,
            task.key.transposed(),
            gemm::Target::of(MatrixMut::new(probabilities, count, len)),
            false,
        );
        product(
            gradient,
            task.value.transposed(),
            gemm::Target::of(MatrixMut::new(slopes, count, len)),
            false,
        );
        let rows = probabilities
            .chunks_exact_mut(len)
            .zip(slopes.chunks_exact_mut(len));
        for (query, (probabilities, slopes)) in rows.enumerate() {
            let at = (first + query) * 2 * task.heads;
            let (greatest, inverse) = (out.statistics[at], out.statistics[at + 1]);
            let common = reduce::dot(gradient.row(query), out.out.row(first + query));
            for p in probabilities.iter_mut() {
                *p = ((*p - greatest) * task.scale).exp_or_nothing() * inverse;
            }
            if let Some(mask) = task.mask {
                let keep = mask.scale::<R>();
                let address = (task.row, (first + query) as u32, task.head);
                for_each_group(mask, address, len, |start, bits| {
                    let pairs = probabilities[start..].iter_mut().zip(&mut slopes[start..]);
                    for ((p, slope), &bits) in pairs.zip(bits) {
                        let keeps = mask.keeps(bits);
                        let dp = if keeps { *slope * keep } else { R::ZERO };
                        *slope = *p * (dp - common) * task.scale;
                        *p = if keeps { *p * keep } else { R::ZERO };
                    }
                });
            } else {
                for (p, slope) in probabilities.iter().zip(slopes) {
                    *slope = *p * (*slope - common) * task.scale;
                }
            }
        }
        let adds = first > 0;
        let probabilities = Matrix::new(probabilities, count, len);
        let slopes = Matrix::new(slopes, count, len);
        product(slopes, task.key, query_target.part(first, 0), false);
        product(slopes.transposed(), queries, key_target, adds);
        product(probabilities.transposed(), gradient, value_target, adds);
    }
}

/// The attention of each query: `out` `[queries, hidden]`. `statistics` `[queries, heads, 2]` keeps each query's
/// greatest score and the inverse of its sum for the way back. A sequence without tokens gives its query 0.
///
/// # Panics
/// Where the shapes do not fit.
pub fn attention<R: Real>(
    attention: &Attention<'_>,
    qkv: Qkv<&[R]>,
    out: &mut [R],
    statistics: &mut [R],
) {
    let queries = check(attention, &qkv, out.len(), statistics.len());
    let (heads, hidden) = (attention.heads, attention.hidden);
    if queries < attention.packed.tokens() {
        out.fill(R::ZERO);
    }
    let out = Shared::new(out);
    let statistics = Shared::new(statistics);
    for_each_task(attention, qkv, 4, |task, [query, _]| {
        let head = task.head as usize;
        let output = Output {
            out,
            stride: hidden,
            start: query * hidden + head * attention.head_width(),
            statistics,
            statistics_start: (query * heads + head) * 2,
        };
        R::with_scratch(QUERIES.min(task.query.rows) * task.key.rows, |scratch| {
            R::attention_task(&task, output, scratch);
        });
    });
}

/// The gradients of queries, keys and values in `qkv_gradient`, overwritten, from the `gradient` of `out`. The
/// others are as [`attention`] had and left them.
///
/// # Panics
/// Where the shapes do not fit.
pub fn attention_backward<R: Real>(
    attention: &Attention<'_>,
    qkv: Qkv<&[R]>,
    out: &[R],
    statistics: &[R],
    gradient: &[R],
    qkv_gradient: Qkv<&mut [R]>,
) {
    let queries = check(attention, &qkv, out.len(), statistics.len());
    let (heads, hidden) = (attention.heads, attention.hidden);
    let packed = attention.packed;
    assert_eq!(gradient.len(), out.len(), "the gradient has out's shape");
    let (buffers, places) = qkv_gradient.layout(packed.tokens(), packed.rows.len());
    let buffers: Vec<_> = buffers
        .into_iter()
        .map(|operands| {
            let Operands {
                buffer,
                rows,
                count,
            } = operands;
            assert_eq!(
                buffer.len(),
                rows * count * hidden,
                "the gradient has qkv's shape"
            );
            if count == 1 {
                buffer.fill(R::ZERO);
            }
            gemm::Target::of(MatrixMut::new(buffer, rows, count * hidden))
        })
        .collect();
    let width = attention.head_width();
    let out = Matrix::new(out, queries, hidden);
    let gradient = Matrix::new(gradient, queries, hidden);
    for_each_task(attention, qkv, 10, |task, [query, token]| {
        let head = task.head as usize;
        let rows = task.query.rows;
        let target = |(buffer, column): Place, row| {
            buffers[buffer].part(row, column * hidden + head * width)
        };
        let gradients = Gradients {
            out: out.part(query, rows, head * width, width),
            gradient: gradient.part(query, rows, head * width, width),
            statistics: &statistics[(query * heads + head) * 2..],
            targets: [
                target(places[0], query),
                target(places[1], token),
                target(places[2], token),
            ],
        };
        R::with_scratch(2 * QUERIES.min(rows) * task.key.rows, |scratch| {
            R::attention_backward_task(&task, gradients, scratch);
        });
    });
}

/// The number of queries, where the buffers have the right lengths.
fn check<T>(attention: &Attention<'_>, qkv: &Qkv<T>, out: usize, statistics: usize) -> usize {
    let packed = attention.packed;
    let queries = qkv.queries(packed.tokens(), packed.rows.len());
    assert!(attention.heads > 0, "at least one head");
    assert_eq!(attention.hidden % attention.heads, 0, "heads of one width");
    assert_eq!(out, queries * attention.hidden, "out is [queries, hidden]");
    assert_eq!(
        statistics,
        queries * attention.heads * 2,
        "statistics are [queries, heads, 2]"
    );
    queries
}

/// Calls `work` with each head of each sequence, its first query and its first token.
fn for_each_task<'a, R: Real>(
    attention: &Attention<'a>,
    qkv: Qkv<&'a [R]>,
    products: usize,
    work: impl Fn(Task<'a, R>, [usize; 2]) + Send + Sync,
) {
    let packed = attention.packed;
    let (heads, hidden) = (attention.heads, attention.hidden);
    let width = attention.head_width();
    let scale = R::ONE / R::from_f64(width as f64).sqrt();
    let mask = attention.mask.filter(|mask| !mask.drops_nothing());
    let all_ask = matches!(qkv, Qkv::AllQueries(_));
    let (buffers, places) = qkv.layout(packed.tokens(), packed.rows.len());
    let matrix = |(buffer, column): Place| {
        let Operands {
            buffer,
            rows,
            count,
        } = buffers[buffer];
        Matrix::new(buffer, rows, count * hidden).part(0, rows, column * hidden, hidden)
    };
    let operands = places.map(matrix);
    let operations = packed
        .offsets
        .windows(2)
        .map(|ends| (ends[1] - ends[0]) as usize)
        .map(|len| if all_ask { len * len } else { len })
        .sum::<usize>()
        * hidden
        * products;
    tiles(packed.rows.len() * heads, operations, |index| {
        let (sequence, head) = (index / heads, index % heads);
        let start = packed.offsets[sequence] as usize;
        let len = packed.offsets[sequence + 1] as usize - start;
        if len == 0 {
            return;
        }
        let (query, queries) = if all_ask { (start, len) } else { (sequence, 1) };
        let part =
            |which: usize, first, rows| operands[which].part(first, rows, head * width, width);
        let task = Task {
            query: part(0, query, queries),
            key: part(1, start, len),
            value: part(2, start, len),
            scale,
            mask,
            row: packed.rows[sequence],
            head: head as u32,
            heads,
        };
        work(task, [query, start]);
    });
}

#[expect(unsafe_code, reason = "tasks write to their own sequence and head")]
#[inline(always)]
fn part<'a, R>(buffer: Shared<'a, R>, start: usize, len: usize) -> &'a mut [R] {
    // SAFETY: a query of a head belongs to one task, which holds one part of a buffer at a time.
    unsafe { buffer.part(start, len) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dropout;
    use crate::kernels::dispatch::{Level, with_level};
    use crate::kernels::gemm::tests::numbers;
    use crate::parallel::with_threads;

    const OFFSETS: [u32; 5] = [0, 1, 6, 6, 29];
    const ROWS: [u64; 4] = [8, 3, 4, 100];

    fn run<R: Real>(attention_of: &Attention<'_>, qkv: &[R], upstream: &[R]) -> (Vec<R>, Vec<R>) {
        let tokens = attention_of.packed.tokens();
        let mut out = vec![R::ZERO; tokens * attention_of.hidden];
        let mut statistics = vec![R::ZERO; tokens * attention_of.heads * 2];
        attention(
            attention_of,
            Qkv::AllQueries(qkv),
            &mut out,
            &mut statistics,
        );
        let mut gradient = vec![R::ZERO; qkv.len()];
        attention_backward(
            attention_of,
            Qkv::AllQueries(qkv),
            &out,
            &statistics,
            upstream,
            Qkv::AllQueries(&mut gradient),
        );
        (out, gradient)
    }

    fn probability_mask() -> Mask {
        Mask::new(&Dropout { seed: 3, epoch: 1 }, 2, 0.25)
    }

    #[test]
    fn without_dropout_it_is_the_textbook_formula() {
        let (heads, hidden) = (2, 6);
        let packed = Packed {
            offsets: &OFFSETS,
            rows: &ROWS,
        };
        let qkv = numbers::<f64>(29 * 3 * hidden, 1);
        let attention_of = Attention {
            packed,
            heads,
            hidden,
            mask: None,
        };
        let (out, _) = run(&attention_of, &qkv, &numbers(29 * hidden, 2));
        for ends in OFFSETS.windows(2) {
            let (start, end) = (ends[0] as usize, ends[1] as usize);
            for (query, head) in (start..end).flat_map(|query| [(query, 0), (query, 1)]) {
                let at = |token: usize, which: usize, d: usize| {
                    qkv[token * 18 + which * 6 + head * 3 + d]
                };
                let weights: Vec<f64> = (start..end)
                    .map(|key| (0..3).map(|d| at(query, 0, d) * at(key, 1, d)).sum::<f64>())
                    .map(|score| libm::exp(score / 3f64.sqrt()))
                    .collect();
                let total: f64 = weights.iter().sum();
                for d in 0..3 {
                    let expected: f64 = (start..end)
                        .map(|key| weights[key - start] / total * at(key, 2, d))
                        .sum();
                    let got = out[query * 6 + head * 3 + d];
                    assert!((got - expected).abs() < 1e-14);
                }
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mask = probability_mask();
        for mask in [None, Some(&mask)] {
            for (heads, hidden, offsets) in [(2, 4, vec![0, 3, 4]), (1, 3, vec![0, 130, 131])] {
                let attention_of = Attention {
                    packed: Packed {
                        offsets: &offsets,
                        rows: &[5, 6],
                    },
                    heads,
                    hidden,
                    mask,
                };
                let tokens = offsets[2] as usize;
                let mut qkv = numbers::<f64>(tokens * 3 * hidden, 1);
                let upstream = numbers::<f64>(tokens * hidden, 2);
                let (_, gradient) = run(&attention_of, &qkv, &upstream);
                let mut places: Vec<usize> = (0..qkv.len()).collect();
                if places.len() > 60 {
                    places.retain(|place| place % 23 == 0);
                }
                for place in places {
                    let before = qkv[place];
                    let mut side = |delta: f64| {
                        qkv[place] = before + delta;
                        let (out, _) = run(&attention_of, &qkv, &upstream);
                        out.iter().zip(&upstream).map(|(x, u)| x * u).sum::<f64>()
                    };
                    let expected = (side(1e-5) - side(-1e-5)) / 2e-5;
                    qkv[place] = before;
                    let got = gradient[place];
                    assert!(
                        (got - expected).abs() < 1e-8,
                        "{place}: {got}, not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn levels_and_threads_change_no_bit() {
        let mask = probability_mask();
        for (heads, hidden, offsets) in [
            (2, 64, OFFSETS.to_vec()),
            (3, 21, OFFSETS.to_vec()),
            (2, 32, vec![0, 200, 200, 201, 460]),
        ] {
            let tokens = offsets[4] as usize;
            let attention_of = Attention {
                packed: Packed {
                    offsets: &offsets,
                    rows: &ROWS,
                },
                heads,
                hidden,
                mask: Some(&mask),
            };
            let qkv = numbers::<f32>(tokens * 3 * hidden, 1);
            let upstream = numbers::<f32>(tokens * hidden, 2);
            let mut first = None;
            for level in Level::ALL {
                for threads in [1, 2, 3] {
                    let got = with_level(level, || {
                        with_threads(threads, || run(&attention_of, &qkv, &upstream))
                    });
                    assert_eq!(
                        &got,
                        first.get_or_insert(got.clone()),
                        "{level:?} {threads}"
                    );
                }
            }
        }
    }

    #[test]
    fn first_queries_alone_are_as_among_all() {
        let mask = probability_mask();
        let (heads, hidden, tokens) = (2, 16, 29);
        let of = Attention {
            packed: Packed {
                offsets: &OFFSETS,
                rows: &ROWS,
            },
            heads,
            hidden,
            mask: Some(&mask),
        };
        let qkv = numbers::<f32>(tokens * 3 * hidden, 1);
        let first = |row: usize| OFFSETS[row] as usize;
        let asks = |row: usize| OFFSETS[row + 1] > OFFSETS[row];
        // Only first queries have a gradient.
        let upstream = numbers::<f32>(4 * hidden, 2);
        let mut all_upstream = vec![0.0; tokens * hidden];
        let (mut query, mut key_value) = (vec![0.0; 4 * hidden], Vec::new());
        for row in (0..4).filter(|&row| asks(row)) {
            let place = row * hidden..(row + 1) * hidden;
            all_upstream[first(row) * hidden..][..hidden].copy_from_slice(&upstream[place.clone()]);
            query[place].copy_from_slice(&qkv[first(row) * 3 * hidden..][..hidden]);
        }
        for token in qkv.chunks(3 * hidden) {
            key_value.extend_from_slice(&token[hidden..]);
        }
        let (all_out, all_gradient) = run(&of, &qkv, &all_upstream);
        let operands = Qkv::FirstQueries {
            query: &query[..],
            key_value: &key_value[..],
        };
        let (mut out, mut statistics) = (vec![1.0; 4 * hidden], vec![0.0; 4 * heads * 2]);
        attention(&of, operands, &mut out, &mut statistics);
        let mut gradients = (vec![1.0; query.len()], vec![1.0; key_value.len()]);
        let targets = Qkv::FirstQueries {
            query: &mut gradients.0[..],
            key_value: &mut gradients.1[..],
        };
        attention_backward(&of, operands, &out, &statistics, &upstream, targets);
        for row in 0..4 {
            let (out, gradient) = [&out, &gradients.0]
                .map(|x| &x[row * hidden..][..hidden])
                .into();
            if asks(row) {
                assert_eq!(out, &all_out[first(row) * hidden..][..hidden]);
                assert_eq!(gradient, &all_gradient[first(row) * 3 * hidden..][..hidden]);
            } else {
                assert!(out.iter().chain(gradient).all(|&x| x == 0.0));
            }
        }
        for (got, all) in gradients
            .1
            .chunks(2 * hidden)
            .zip(all_gradient.chunks(3 * hidden))
        {
            assert_eq!(got, &all[hidden..]);
        }
    }

    #[test]
    fn a_sequence_is_the_same_alone_and_in_company() {
        let mask = probability_mask();
        let (heads, hidden) = (2, 16);
        let qkv = numbers::<f32>(29 * 3 * hidden, 1);
        let upstream = numbers::<f32>(29 * hidden, 2);
        let of = |offsets, rows| Attention {
            packed: Packed { offsets, rows },
            heads,
            hidden,
            mask: Some(&mask),
        };
        let (out, gradient) = run(&of(&OFFSETS, &ROWS), &qkv, &upstream);
        let alone = run(&of(&[0, 23], &[100]), &qkv[6 * 48..], &upstream[6 * 16..]);
        assert_eq!(
            (&out[6 * 16..], &gradient[6 * 48..]),
            (&alone.0[..], &alone.1[..])
        );
    }
}
