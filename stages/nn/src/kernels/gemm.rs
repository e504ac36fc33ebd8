//! Matrix products.
//!
//! Each element of C is a sum over k in blocks of 256: every block is one chain of fused multiply-adds in
//! ascending order, begun at 0; the blocks are added in ascending order, to C or to the first of them; then
//! the bias is added. Nothing else enters: registers hold neighbours along n or m, never along k.

use crate::Real;
use crate::parallel::{Shared, threads, tiles};

mod pack;
mod packed;
mod task;
mod tile;

pub use packed::{PackedOperand, gemm_packed};
pub use task::Product;

/// The length of a chain along k: a constant of the format.
pub const BLOCK: usize = 256;

/// A matrix in memory: element (i, j) is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, R> {
    pub(crate) data: &'a [R],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a, R: Copy> Matrix<'a, R> {
    /// `[rows, columns]`, row-major, without gaps.
    pub fn new(data: &'a [R], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "data is [rows, columns]");
        Self::with_stride(data, rows, columns, columns)
    }

    /// `[rows, columns]`, row-major, a row beginning every `stride` numbers.
    pub fn with_stride(data: &'a [R], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * stride + columns <= data.len(),
            "the matrix lies within its data"
        );
        Self {
            data,
            rows,
            columns,
            row_stride: stride,
            column_stride: 1,
        }
    }

    /// The same numbers with rows and columns changed over.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// A part of it.
    pub fn part(self, first_row: usize, rows: usize, first_column: usize, columns: usize) -> Self {
        assert!(
            first_row + rows <= self.rows && first_column + columns <= self.columns,
            "a part within the matrix"
        );
        let start = first_row * self.row_stride + first_column * self.column_stride;
        Self {
            data: &self.data[start.min(self.data.len())..],
            rows,
            columns,
            ..self
        }
    }

    /// Row `row` of a matrix whose columns lie next to each other.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [R] {
        debug_assert_eq!(self.column_stride, 1);
        &self.data[row * self.row_stride..][..self.columns]
    }

    /// Element (row, column).
    #[cfg(test)]
    pub(crate) fn at(&self, row: usize, column: usize) -> R {
        self.data[row * self.row_stride + column * self.column_stride]
    }
}

/// A matrix to write to: row-major, a row beginning every `row_stride` numbers.
#[derive(Debug)]
pub struct MatrixMut<'a, R> {
    pub(crate) data: &'a mut [R],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
}

impl<'a, R> MatrixMut<'a, R> {
    /// `[rows, columns]` without gaps.
    pub fn new(data: &'a mut [R], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "data is [rows, columns]");
        Self::with_stride(data, rows, columns, columns)
    }

    /// `[rows, columns]`, a row beginning every `stride` numbers.
    pub fn with_stride(data: &'a mut [R], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * stride + columns <= data.len(),
            "the matrix lies within its data"
        );
        assert!(columns <= stride || rows <= 1, "rows do not overlap");
        Self {
            data,
            rows,
            columns,
            row_stride: stride,
        }
    }
}

/// What becomes of a product.
#[derive(Debug)]
pub enum Epilogue<'a, R> {
    /// `C = A B`
    Overwrite,
    /// `C = C + A B`
    Add,
    /// `C = A B + bias`, one number of bias a column.
    Bias(&'a [R]),
    /// `C = gelu(A B + bias)`, and the argument of gelu in a matrix of C's shape where it is wanted.
    BiasGelu(&'a [R], Option<MatrixMut<'a, R>>),
}

impl<'a, R> Epilogue<'a, R> {
    /// Whether C is added to, and what is done in the end, for a C of these rows and columns.
    fn parts(self, shape: (usize, usize)) -> (bool, Finish<'a, R>) {
        let (bias, argument) = match self {
            Self::Overwrite => return (false, Finish::Nothing),
            Self::Add => return (true, Finish::Nothing),
            Self::Bias(bias) => (bias, None),
            Self::BiasGelu(bias, argument) => (bias, Some(argument)),
        };
        assert_eq!(bias.len(), shape.1, "one number of bias a column");
        let Some(argument) = argument else {
            return (false, Finish::Bias(bias));
        };
        let argument = argument.map(|argument| {
            let extent = (argument.rows, argument.columns);
            assert_eq!(extent, shape, "gelu's argument has C's shape");
            Target::of(argument)
        });
        (false, Finish::BiasGelu(bias, argument))
    }
}

/// What is done with a rectangle of C when its sums are there.
#[derive(Clone, Copy)]
pub(crate) enum Finish<'a, R> {
    Nothing,
    Bias(&'a [R]),
    BiasGelu(&'a [R], Option<Target<'a, R>>),
}

impl<R> Finish<'_, R> {
    /// The same for a part of C.
    fn part(self, top: usize, left: usize, width: usize) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Bias(bias) => Self::Bias(&bias[left..left + width]),
            Self::BiasGelu(bias, argument) => Self::BiasGelu(
                &bias[left..left + width],
                argument.map(|argument| argument.part(top, left)),
            ),
        }
    }
}

/// One thread's share of a product: a rectangle of C.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Task<'a, R> {
    pub(crate) a: Matrix<'a, R>,
    pub(crate) b: Matrix<'a, R>,
    /// All of B as [`Product::pack_operand`] lays it out, where it is used more than once.
    pub(crate) packed: Option<&'a [R]>,
    pub(crate) c: Target<'a, R>,
    pub(crate) adds: bool,
    pub(crate) finish: Finish<'a, R>,
}

/// A rectangle of a matrix that tasks share.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a, R> {
    pub(crate) data: Shared<'a, R>,
    pub(crate) start: usize,
    pub(crate) stride: usize,
}

impl<'a, R> Target<'a, R> {
    pub(crate) fn of(matrix: MatrixMut<'a, R>) -> Self {
        Self {
            data: Shared::new(matrix.data),
            start: 0,
            stride: matrix.row_stride,
        }
    }

    pub(crate) fn part(self, first_row: usize, first_column: usize) -> Self {
        Self {
            start: self.start + first_row * self.stride + first_column,
            ..self
        }
    }

    /// Panics where `rows` and `columns` from its beginning are not within the buffer.
    #[inline(always)]
    fn check(self, rows: usize, columns: usize) {
        assert!(
            self.start + (rows - 1) * self.stride + columns <= self.data.len(),
            "a rectangle within the buffer"
        );
    }

    /// Where an element is.
    #[inline(always)]
    fn place(self, row: usize, column: usize) -> *mut R {
        self.data
            .as_ptr()
            .wrapping_add(self.start + row * self.stride + column)
    }

    #[expect(unsafe_code, reason = "tasks write to their own rectangles")]
    #[inline(always)]
    fn row(self, row: usize, first: usize, columns: usize) -> &'a mut [R] {
        // SAFETY: rectangles of different tasks do not overlap, and a task holds one row at a time.
        unsafe {
            self.data
                .part(self.start + row * self.stride + first, columns)
        }
    }
}

/// How a product is cut: rows and columns of a task. One task a thread, of the shape that takes the least time to
/// compute and to pack, since each packs its operands anew.
fn grid(rows: usize, columns: usize, threads: usize) -> (usize, usize) {
    /// The fused multiply-adds in whose time a number is packed.
    const PACKING: usize = 40;
    (1..=threads)
        .map(|down| {
            let high = rows.div_ceil(down).next_multiple_of(12);
            let wide = columns.div_ceil(threads / down).next_multiple_of(32);
            (high, wide)
        })
        .min_by_key(|(high, wide)| high * wide + PACKING * (high + wide))
        .unwrap_or((rows, columns))
}

/// Below this many fused multiply-adds a product stays on its thread.
const WORTHWHILE: usize = 500_000;

/// The product of A `[m, k]` and B `[k, n]` in C `[m, n]`; transposed operands are views
/// ([`Matrix::transposed`]). `2 m n k` operations.
///
/// # Panics
/// Where the shapes do not fit.
pub fn gemm<R: Real>(
    a: Matrix<'_, R>,
    b: Matrix<'_, R>,
    c: MatrixMut<'_, R>,
    epilogue: Epilogue<'_, R>,
) {
    assert_eq!(a.columns, b.rows, "A is [m, k] and B [k, n]");
    assert_eq!((c.rows, c.columns), (a.rows, b.columns), "C is [m, n]");
    let (rows, columns) = (c.rows, c.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    let (adds, finish) = epilogue.parts((rows, columns));
    let c = Target::of(c);
    let operations = rows * columns * a.columns;
    let (high, wide) = if operations < WORTHWHILE {
        (rows, columns)
    } else {
        grid(rows, columns, threads())
    };
    let across = columns.div_ceil(wide);
    tiles(rows.div_ceil(high) * across, operations, |tile| {
        let (top, left) = (tile / across * high, tile % across * wide);
        let (height, width) = (high.min(rows - top), wide.min(columns - left));
        R::gemm_task(&Task {
            a: a.part(top, height, 0, a.columns),
            b: b.part(0, b.rows, left, width),
            packed: None,
            c: c.part(top, left),
            adds,
            finish: finish.part(top, left, width),
        });
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernels::dispatch::{Level, with_level};
    use crate::parallel::with_threads;
    use crate::random::{Purpose, Stream};

    /// `len` numbers of (-1, 1).
    pub(crate) fn numbers<R: Real>(len: usize, seed: u64) -> Vec<R> {
        let stream = Stream::new(seed, Purpose::Test);
        (0..len as u64)
            .map(|index| R::from_f64(stream.uniform_f64(index) * 2.0 - 1.0))
            .collect()
    }

    /// The rule, spelled out for one element.
    pub(crate) fn element<R: Real>(
        a: Matrix<'_, R>,
        b: Matrix<'_, R>,
        row: usize,
        column: usize,
        initial: Option<R>,
    ) -> R {
        let mut total = initial;
        for start in (0..a.columns).step_by(BLOCK) {
            let mut chain = R::ZERO;
            for k in start..a.columns.min(start + BLOCK) {
                chain = a.at(row, k).mul_add(b.at(k, column), chain);
            }
            total = Some(total.map_or(chain, |total| total + chain));
        }
        total.unwrap_or(R::ZERO)
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    fn check(m: usize, n: usize, k: usize, transposed: [bool; 2], gap: usize, threads: &[usize]) {
        let view = |data, rows: usize, columns: usize, transposed| {
            if transposed {
                Matrix::with_stride(data, columns, rows, rows + gap).transposed()
            } else {
                Matrix::with_stride(data, rows, columns, columns + gap)
            }
        };
        let a_data = numbers::<f32>((m + gap) * (k + gap), 1);
        let b_data = numbers::<f32>((n + gap) * (k + gap), 2);
        let a = view(&a_data, m, k, transposed[0]);
        let b = view(&b_data, k, n, transposed[1]);
        let bias = numbers::<f32>(n, 3);
        let stride = n + gap;
        let initial = numbers::<f32>(m * stride, 4);
        let mut overwritten = initial.clone();
        let mut added = initial.clone();
        let mut biased = initial.clone();
        let mut activated = initial.clone();
        for row in 0..m {
            for (column, &bias) in bias.iter().enumerate() {
                let at = row * stride + column;
                overwritten[at] = element(a, b, row, column, None);
                added[at] = element(a, b, row, column, Some(initial[at]));
                biased[at] = overwritten[at] + bias;
                activated[at] = biased[at].gelu();
            }
        }
        for level in Level::ALL {
            for &threads in threads {
                with_level(level, || {
                    with_threads(threads, || {
                        let case = format!("{m}x{n}x{k} {transposed:?} {level:?} {threads}");
                        let run = |epilogue: Epilogue<'_, f32>| {
                            let mut c = initial.clone();
                            gemm(a, b, MatrixMut::with_stride(&mut c, m, n, stride), epilogue);
                            bits(&c)
                        };
                        assert_eq!(run(Epilogue::Overwrite), bits(&overwritten), "{case}");
                        assert_eq!(run(Epilogue::Add), bits(&added), "{case}");
                        assert_eq!(run(Epilogue::Bias(&bias)), bits(&biased), "{case}");
                        let mut x = initial.clone();
                        let argument = MatrixMut::with_stride(&mut x, m, n, stride);
                        for argument in [Some(argument), None] {
                            let got = run(Epilogue::BiasGelu(&bias, argument));
                            assert_eq!(got, bits(&activated), "{case}");
                        }
                        assert_eq!(bits(&x), bits(&biased), "{case}");
                    });
                });
            }
        }
    }

    #[test]
    fn every_level_and_layout_gives_the_bits_of_the_rule() {
        for (m, n, k) in [
            (1, 1, 1),
            (1, 7, 3),
            (12, 32, 256),
            (13, 33, 257),
            (25, 70, 515),
            (5, 100, 0),
            (40, 3, 300),
        ] {
            for transposed in [[false, false], [true, false], [false, true], [true, true]] {
                check(m, n, k, transposed, 0, &[1]);
                check(m, n, k, transposed, 3, &[1]);
            }
        }
    }

    /// More columns than a block, more rows than stay packed.
    #[test]
    fn large_products_keep_the_rule() {
        check(130, 800, 300, [false, true], 0, &[1, 2]);
        check(4100, 400, 3, [false, false], 0, &[1]);
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        check(150, 140, 300, [false, true], 0, &[1, 2, 3, 4, 5, 6, 7, 8]);
        check(33, 40, 2100, [true, false], 0, &[1, 2, 3, 8]);
    }

    /// In the manner of FPRev (Xie and others 2024): with 2^60 at place i, -2^60 at place j and ones
    /// elsewhere, what is added before the two meet is lost: the result tells how many ones are added after.
    #[test]
    fn the_tree_of_the_sum_is_the_one_promised() {
        let k = 600;
        let huge = 2f32.powi(60);
        for level in Level::ALL {
            with_level(level, || {
                for (i, j) in [
                    (0, 1),
                    (3, 200),
                    (254, 255),
                    (255, 256),
                    (10, 300),
                    (256, 511),
                    (100, 599),
                    (512, 599),
                ] {
                    let mut a = vec![1f32; k];
                    a[i] = huge;
                    a[j] = -huge;
                    let b = vec![1f32; k * 40];
                    let mut c = vec![0f32; 40];
                    gemm(
                        Matrix::new(&a, 1, k),
                        Matrix::new(&b, k, 40),
                        MatrixMut::new(&mut c, 1, 40),
                        Epilogue::Overwrite,
                    );
                    // Within one block: the ones behind j in it, and all other blocks. Across blocks: the
                    // rest of each one's own block is lost too, and everything before.
                    let (first, second) = (i / 256, j / 256);
                    let end = |block: usize| k.min((block + 1) * 256);
                    let expected = if first == second {
                        (end(first) - 1 - j) + (k - end(first)) + first * 256
                    } else {
                        k - end(second)
                    };
                    assert!(
                        c.iter().all(|&c| c == expected as f32),
                        "{i} {j}: {c:?}, not {expected}"
                    );
                }
            });
        }
    }

    #[test]
    fn f64_follows_the_same_rule() {
        let (m, n, k) = (9, 21, 300);
        let (a, b) = (numbers::<f64>(m * k, 1), numbers::<f64>(k * n, 2));
        let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
        let mut c = vec![0.0; m * n];
        gemm(a, b, MatrixMut::new(&mut c, m, n), Epilogue::Overwrite);
        for row in 0..m {
            for column in 0..n {
                assert_eq!(c[row * n + column], element(a, b, row, column, None));
            }
        }
    }
}
