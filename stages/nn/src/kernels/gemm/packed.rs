//! Products whose second operand is used again and again, as the weights of a recurrent network are: it is laid
//! out for the registers once.

use super::{Epilogue, Matrix, MatrixMut, Target, Task};
use crate::Real;
use crate::kernels::Buffer;
use crate::kernels::dispatch::{Level, level};

/// An operand B, laid out for [`gemm_packed`]. Its storage is kept when it is packed again.
#[derive(Clone, Debug)]
pub struct PackedOperand<R> {
    data: Buffer<R>,
    rows: usize,
    columns: usize,
    level: Level,
}

impl<R> Default for PackedOperand<R> {
    fn default() -> Self {
        Self {
            data: Buffer::default(),
            rows: 0,
            columns: 0,
            level: Level::Scalar,
        }
    }
}

impl<R: Real> PackedOperand<R> {
    /// Lays out `b`, `[k, n]`.
    pub fn pack(&mut self, b: Matrix<'_, R>) {
        (self.rows, self.columns) = (b.rows, b.columns);
        self.level = level();
        self.data.resize(b.rows * b.columns.next_multiple_of(32));
        R::pack_operand(b, &mut self.data);
    }

    /// The number of columns of B.
    pub fn columns(&self) -> usize {
        self.columns
    }
}

/// [`super::gemm`] with B packed, on this thread.
///
/// # Panics
/// Where the shapes do not fit, or the kernels' level is no longer that of the packing.
pub fn gemm_packed<R: Real>(
    a: Matrix<'_, R>,
    b: &PackedOperand<R>,
    c: MatrixMut<'_, R>,
    epilogue: Epilogue<'_, R>,
) {
    assert_eq!(a.columns, b.rows, "A is [m, k] and B [k, n]");
    assert_eq!((c.rows, c.columns), (a.rows, b.columns), "C is [m, n]");
    assert_eq!(b.level, level(), "packed for these kernels");
    let (adds, finish) = epilogue.parts((c.rows, c.columns));
    R::gemm_task(&Task {
        a,
        b: Matrix {
            data: &[],
            rows: b.rows,
            columns: b.columns,
            row_stride: 0,
            column_stride: 0,
        },
        packed: Some(&b.data),
        c: Target::of(c),
        adds,
        finish,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::dispatch::with_level;
    use crate::kernels::gemm::gemm;
    use crate::kernels::gemm::tests::numbers;

    #[test]
    fn a_packed_operand_gives_the_same_bits() {
        let mut packed = PackedOperand::default();
        for (m, n, k) in [(1, 1, 1), (8, 96, 96), (5, 33, 257), (30, 401, 300)] {
            let (a, b) = (numbers::<f32>(m * k, 1), numbers::<f32>(n * k, 2));
            let bias = numbers::<f32>(n, 3);
            let a = Matrix::new(&a, m, k);
            for b in [Matrix::new(&b, n, k).transposed(), Matrix::new(&b, k, n)] {
                for level in Level::ALL {
                    with_level(level, || {
                        let (mut c, mut expected) = (vec![0.5; m * n], vec![0.5; m * n]);
                        packed.pack(b);
                        for (c, packed) in [(&mut c, Some(&packed)), (&mut expected, None)] {
                            for adds in [false, true] {
                                let c = MatrixMut::new(c, m, n);
                                let epilogue = match adds {
                                    false => Epilogue::Bias(&bias),
                                    true => Epilogue::Add,
                                };
                                match packed {
                                    Some(packed) => gemm_packed(a, packed, c, epilogue),
                                    None => gemm(a, b, c, epilogue),
                                }
                            }
                        }
                        assert_eq!(c, expected, "{m} {n} {k} {level:?}");
                    });
                }
            }
        }
    }
}
