//! Linear layers, and the few things that all networks do with their buffers.

use std::ops::Range;

use crate::kernels::{Epilogue, Matrix, MatrixMut, column_sums, gemm};
use crate::parameters::{Initial, Parameters};
use crate::{Gradients, Real};

/// `out = x wᵀ`, for `x` `[rows, inputs]`, `w` `[outputs, inputs]` and `out` `[rows, outputs]`.
pub(crate) fn product<R: Real>(x: &[R], w: &[R], inputs: usize, out: &mut [R]) {
    let (rows, outputs) = (x.len() / inputs, w.len() / inputs);
    gemm(
        Matrix::new(x, rows, inputs),
        Matrix::new(w, outputs, inputs).transposed(),
        MatrixMut::new(out, rows, outputs),
        Epilogue::Overwrite,
    );
}

/// A linear layer `y = x Wᵀ + b`: where its tensors lie.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// W, `[outputs, inputs]`.
    pub weight: Range<usize>,
    /// b, `[outputs]`.
    pub bias: Range<usize>,
    /// The numbers of a row of x.
    pub inputs: usize,
    /// The numbers of a row of y.
    pub outputs: usize,
}

impl Linear {
    /// A layer of `[inputs, outputs]` whose tensors are `NAME.weight` and `NAME.bias`.
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        sizes: [usize; 2],
        initials: [Initial; 2],
    ) -> Self {
        let names = [format!("{name}.weight"), format!("{name}.bias")];
        Self::with_names(parameters, names, sizes, initials)
    }

    /// The same with the names of weight and bias given.
    pub fn with_names(
        parameters: &mut Parameters,
        [weight, bias]: [String; 2],
        [inputs, outputs]: [usize; 2],
        [weight_initial, bias_initial]: [Initial; 2],
    ) -> Self {
        Self {
            weight: parameters.add(weight, &[outputs, inputs], weight_initial),
            bias: parameters.add(bias, &[outputs], bias_initial),
            inputs,
            outputs,
        }
    }

    /// W as it lies among the weights.
    pub fn matrix<'a, R: Real>(&self, weights: &'a [R]) -> Matrix<'a, R> {
        Matrix::new(&weights[self.weight.clone()], self.outputs, self.inputs)
    }

    /// Writes y to `out`.
    pub fn forward<R: Real>(&self, weights: &[R], x: &[R], out: &mut [R]) {
        let rows = x.len() / self.inputs;
        gemm(
            Matrix::new(x, rows, self.inputs),
            self.matrix(weights).transposed(),
            MatrixMut::new(out, rows, self.outputs),
            Epilogue::Bias(&weights[self.bias.clone()]),
        );
    }

    /// Writes gelu(y) to `activated`, and y where it is wanted.
    pub fn forward_gelu<R: Real>(
        &self,
        weights: &[R],
        x: &[R],
        y: Option<&mut [R]>,
        activated: &mut [R],
    ) {
        let rows = x.len() / self.inputs;
        let y = y.map(|y| MatrixMut::new(y, rows, self.outputs));
        gemm(
            Matrix::new(x, rows, self.inputs),
            self.matrix(weights).transposed(),
            MatrixMut::new(activated, rows, self.outputs),
            Epilogue::BiasGelu(&weights[self.bias.clone()], y),
        );
    }

    /// Writes the gradient of x to `x_gradient`, given that of y.
    pub fn backward<R: Real>(&self, weights: &[R], gradient: &[R], x_gradient: &mut [R]) {
        self.multiply_back(weights, gradient, x_gradient, Epilogue::Overwrite);
    }

    /// Adds the gradient of x to `x_gradient`, given that of y.
    pub fn backward_adding<R: Real>(&self, weights: &[R], gradient: &[R], x_gradient: &mut [R]) {
        self.multiply_back(weights, gradient, x_gradient, Epilogue::Add);
    }

    fn multiply_back<R: Real>(
        &self,
        weights: &[R],
        gradient: &[R],
        x_gradient: &mut [R],
        epilogue: Epilogue<'_, R>,
    ) {
        let rows = gradient.len() / self.outputs;
        gemm(
            Matrix::new(gradient, rows, self.outputs),
            self.matrix(weights),
            MatrixMut::new(x_gradient, rows, self.inputs),
            epilogue,
        );
    }

    /// Adds the gradients of W and b to the network's, given x and the gradient of y.
    pub fn add_gradients<R: Real>(
        &self,
        x: &[R],
        gradient: &[R],
        gradients: &mut Gradients<'_, R>,
    ) {
        let rows = x.len() / self.inputs;
        let gradient = Matrix::new(gradient, rows, self.outputs);
        let x = Matrix::new(x, rows, self.inputs);
        gradients.add_product(&self.weight, gradient.transposed(), x);
        column_sums(gradient, gradients.sums(&self.bias));
    }
}
