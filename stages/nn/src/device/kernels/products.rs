//! Matrix products, which are the device's own.

use crate::device::{Address, Card, Element, Fault, Operand, Precision, Product};

impl Card {
    /// `y = x wᵀ` for x `[rows, inputs]`, w `[outputs, inputs]`, numbers of `element`; y has `stride` numbers of `to` from
    /// row to row.
    pub(in crate::device) fn multiply(
        &self,
        element: Element,
        (x, w): (Address, Address),
        [rows, inputs, outputs]: [usize; 3],
        (y, stride, to): (Address, usize, Element),
    ) -> Result<(), Fault> {
        self.product(&Product {
            rows,
            columns: outputs,
            depth: inputs,
            a: plain(x, inputs),
            b: transposed(w, inputs),
            from: element,
            c: y,
            c_stride: stride,
            to,
            adds: false,
            rounds: self.rounds(),
        })
    }

    /// The gradient of x, written or added to `x_gradient`, numbers of `to`, given that of y.
    pub(in crate::device) fn multiply_back(
        &self,
        element: Element,
        ((gradient, stride), w): ((Address, usize), Address),
        [rows, inputs, outputs]: [usize; 3],
        (x_gradient, to): (Address, Element),
        adds: bool,
    ) -> Result<(), Fault> {
        self.product(&Product {
            rows,
            columns: inputs,
            depth: outputs,
            a: plain(gradient, stride),
            b: plain(w, inputs),
            from: element,
            c: x_gradient,
            c_stride: inputs,
            to,
            adds,
            rounds: self.rounds(),
        })
    }

    /// The gradient of w, written or added, given x and the gradient of y.
    pub(in crate::device) fn multiply_weights(
        &self,
        element: Element,
        ((gradient, stride), x): ((Address, usize), Address),
        [rows, inputs, outputs]: [usize; 3],
        w_gradient: Address,
        adds: bool,
    ) -> Result<(), Fault> {
        self.product(&Product {
            rows: outputs,
            columns: inputs,
            depth: rows,
            a: transposed(gradient, stride),
            b: plain(x, inputs),
            from: element,
            c: w_gradient,
            c_stride: inputs,
            to: Element::F32,
            adds,
            rounds: self.rounds(),
        })
    }

    fn rounds(&self) -> bool {
        self.precision == Precision::Tf32
    }

    fn product(&self, product: &Product) -> Result<(), Fault> {
        if product.rows == 0 || product.columns == 0 || product.depth == 0 && product.adds {
            return Ok(());
        }
        if product.depth == 0 {
            for row in 0..product.rows {
                let start = product.c.plus(row * product.c_stride, product.to);
                self.device
                    .clear(start, product.columns * product.to.bytes())?;
            }
            return Ok(());
        }
        self.device.product(product)
    }
}

fn plain(address: Address, stride: usize) -> Operand {
    Operand {
        address,
        stride,
        transposed: false,
    }
}

fn transposed(address: Address, stride: usize) -> Operand {
    Operand {
        transposed: true,
        ..plain(address, stride)
    }
}
