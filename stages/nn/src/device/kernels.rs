//! The kernels of `cuda/`, by their arguments. Each call is one launch.

use super::{Address, Argument, Card, Element, Fault, Grid, Operand, Plain, Precision, Product};
use crate::kernels;

/// As in `norm.cu`: where each row of a buffer stands in the data.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Places {
    pub row_of: Address,
    pub positions: Address,
    pub rows: Address,
}

/// As in `arithmetic.h`: which elements a dropout layer drops.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Mask {
    key: [u32; 2],
    threshold: u32,
    scale: f32,
}

impl Mask {
    /// Drops nothing.
    pub const NONE: Self = Self {
        key: [0; 2],
        threshold: 0,
        scale: 1.0,
    };

    pub fn of(mask: Option<&kernels::Mask>) -> Self {
        mask.map_or(Self::NONE, |mask| Self {
            key: mask.key(),
            threshold: u32::from(mask.threshold()),
            scale: mask.scale(),
        })
    }

    pub fn drops_nothing(&self) -> bool {
        self.threshold == 0
    }
}

/// As in `columns.cu`: sums to be added up.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct SumTask {
    pub sums: Address,
    pub target: Address,
    pub columns: u32,
    pub parts: u32,
    pub stride: u32,
    pub adds: u32,
}

impl SumTask {
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.sums.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.target.0.to_le_bytes());
        let words = [self.columns, self.parts, self.stride, self.adds];
        for (to, word) in bytes[16..].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// As in `optimizer.cu`: a part of a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub offset: u64,
    pub length: u32,
    pub decays: bool,
    pub clears: bool,
}

impl Chunk {
    /// The most numbers of a chunk; that of `sum_of_squares`.
    pub const LENGTH: usize = 4096;

    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let flags = u32::from(self.decays) | u32::from(self.clears) << 1;
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..].copy_from_slice(&flags.to_le_bytes());
        bytes
    }
}

/// As in `attention.cu`: what the kernels of one layer read.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Heads {
    pub operands: [Address; 3],
    pub biases: [Address; 3],
    pub query_offsets: Address,
    pub offsets: Address,
    pub rows: Address,
    pub query_stride: u32,
    pub key_stride: u32,
    pub heads: u32,
    pub width: u32,
    pub scale: f32,
    pub mask: Mask,
}

/// As in `attention.cu`: what the way back reads besides, and where its results go.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct HeadGradients {
    pub gradient: Address,
    pub statistics: Address,
    pub common: Address,
    pub targets: [Address; 3],
}

/// As in `other_networks.cu`: how a convolution goes over rows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Convolution {
    pub offsets: Address,
    pub rows: u32,
    pub tokens: u32,
    pub filters: u32,
    pub width: u32,
    pub padding: u32,
    pub row_width: u32,
}

/// As in `other_networks.cu`: one direction of one recurrent layer.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Recurrence {
    pub gates: Address,
    pub recurrent: Address,
    pub hidden: Address,
    pub cell: Address,
    pub cell_tanh: Address,
    pub weights: Address,
    pub bias: Address,
    pub hidden_gradient: Address,
    pub kind: u32,
    pub size: u32,
    pub gate_size: u32,
    pub rows: u32,
    pub steps: u32,
    pub first: u32,
    pub reverse: u32,
}

impl Plain for Places {}
impl Plain for Mask {}
impl Plain for Heads {}
impl Plain for HeadGradients {}
impl Plain for Convolution {}
impl Plain for Recurrence {}
impl Plain for kernels::optimizer::AdamScalars {}
impl Plain for kernels::optimizer::SgdScalars {}

/// How many rows an attention is over, and how long the longest are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub rows: usize,
    pub queries: usize,
    pub longest_queries: usize,
    pub longest: usize,
}

/// The widths of heads that there are kernels for; others take the next greater one.
const HEAD_WIDTHS: [usize; 4] = [16, 32, 64, 128];
/// The widest head.
pub(super) const WIDEST_HEAD: usize = 128;
/// Queries or keys of a tile of attention.
const TILE: usize = 64;
const ATTENTION_THREADS: usize = 128;
const NORM_WARPS: usize = 4;
const COLUMN_THREADS: usize = 128;
const ROW_THREADS: usize = 128;
const STEP_THREADS: usize = 256;
/// The most shared memory of a block, on every device from compute capability 8.0 on.
const MOST_SHARED: usize = 160 << 10;

/// What a normalization reads and leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm {
    pub gamma: Address,
    pub beta: Address,
    pub epsilon: f32,
    /// What is normalized, and for each row its mean and inverse deviation.
    pub sum: Address,
    pub statistics: Address,
    pub places: Places,
    pub tokens: usize,
    pub width: usize,
}

/// The most numbers of a hidden state of a recurrent network, and of its gates: both lie in shared memory.
pub(super) const WIDEST_RECURRENCE: usize = MOST_SHARED / 4;

/// The widest row that is normalized.
pub(super) const WIDEST_NORM: usize = MOST_SHARED / (2 * NORM_WARPS * 4);

impl Card {
    fn run(
        &self,
        kernel: &str,
        blocks: [usize; 3],
        threads: usize,
        shared: usize,
        arguments: &[&dyn Argument],
    ) -> Result<(), Fault> {
        if blocks.contains(&0) {
            return Ok(());
        }
        let grid = Grid {
            blocks,
            threads,
            shared,
        };
        self.device.launch(kernel, grid, arguments)
    }

    fn columns(
        &self,
        kernel: &str,
        (rows, columns): (usize, usize),
        arguments: &[&dyn Argument],
    ) -> Result<(), Fault> {
        let blocks = [
            columns.div_ceil(COLUMN_THREADS),
            rows.div_ceil(super::sums::ROWS),
            1,
        ];
        self.run(kernel, blocks, COLUMN_THREADS, 0, arguments)
    }

    fn rows(&self, kernel: &str, rows: usize, arguments: &[&dyn Argument]) -> Result<(), Fault> {
        self.run(kernel, [rows, 1, 1], ROW_THREADS, 0, arguments)
    }

    /// Where there is a `product`, `norm.sum = dropout(product + bias) + residual`; else the residual is
    /// normalized as it is. `y` is the normalization after the dropout behind it, `copy` the same for products.
    pub(super) fn add_norm(
        &self,
        norm: &Norm,
        (product, bias): (Address, Address),
        [before, behind]: [Mask; 2],
        residual: Address,
        (y, copy): (Address, Address),
    ) -> Result<(), Fault> {
        let (tokens, width) = (norm.tokens as u32, norm.width as u32);
        self.run(
            &format!("add_norm_{}", self.element().name()),
            [norm.tokens.div_ceil(NORM_WARPS), 1, 1],
            NORM_WARPS * 32,
            NORM_WARPS * norm.width * 4,
            &[
                &product,
                &bias,
                &before,
                &residual,
                &norm.sum,
                &norm.gamma,
                &norm.beta,
                &norm.epsilon,
                &norm.statistics,
                &behind,
                &y,
                &copy,
                &norm.places,
                &tokens,
                &width,
            ],
        )
    }

    /// Turns the gradient of y, before the dropout behind, into that of the sum; `dropped` becomes that of
    /// the product, where it is wanted.
    pub(super) fn add_norm_backward(
        &self,
        norm: &Norm,
        gradient: Address,
        before: Mask,
        dropped: Address,
    ) -> Result<(), Fault> {
        let (tokens, width) = (norm.tokens as u32, norm.width as u32);
        self.run(
            &format!("add_norm_backward_{}", self.element().name()),
            [norm.tokens.div_ceil(NORM_WARPS), 1, 1],
            NORM_WARPS * 32,
            2 * NORM_WARPS * norm.width * 4,
            &[
                &gradient,
                &norm.sum,
                &norm.statistics,
                &norm.gamma,
                &before,
                &dropped,
                &norm.places,
                &tokens,
                &width,
            ],
        )
    }

    /// Sums for the gradients of gamma and beta, from that of y.
    pub(super) fn norm_columns(
        &self,
        norm: &Norm,
        gradient: Address,
        [gamma, beta]: [Address; 2],
    ) -> Result<(), Fault> {
        let (rows, columns) = (norm.tokens as u32, norm.width as u32);
        self.columns(
            "norm_columns",
            (norm.tokens, norm.width),
            &[
                &gradient,
                &norm.sum,
                &norm.statistics,
                &rows,
                &columns,
                &gamma,
                &beta,
            ],
        )
    }

    /// Drops numbers of x `[tokens, width]`.
    pub(super) fn drop(
        &self,
        x: Address,
        mask: Mask,
        places: Places,
        (tokens, width): (usize, usize),
    ) -> Result<(), Fault> {
        if mask.drops_nothing() {
            return Ok(());
        }
        let blocks = [tokens.div_ceil(NORM_WARPS), 1, 1];
        let sizes = (tokens as u32, width as u32);
        self.run(
            "drop",
            blocks,
            NORM_WARPS * 32,
            0,
            &[&x, &mask, &places, &sizes.0, &sizes.1],
        )
    }

    pub(super) fn column_sums(
        &self,
        x: Address,
        element: Element,
        (rows, columns): (usize, usize),
        sums: Address,
    ) -> Result<(), Fault> {
        let sizes = (rows as u32, columns as u32);
        self.columns(
            &format!("column_sums_{}", element.name()),
            (rows, columns),
            &[&x, &sizes.0, &sizes.1, &sums],
        )
    }

    pub(super) fn bias_gelu(
        &self,
        (x, bias): (Address, Address),
        y: Address,
        (rows, columns): (usize, usize),
    ) -> Result<(), Fault> {
        let sizes = (rows as u32, columns as u32);
        self.columns(
            &format!("bias_gelu_{}", self.element().name()),
            (rows, columns),
            &[&x, &bias, &y, &sizes.0, &sizes.1],
        )
    }

    pub(super) fn bias_gelu_backward(
        &self,
        gradient: Address,
        (x, bias): (Address, Address),
        (rows, columns): (usize, usize),
        sums: Address,
    ) -> Result<(), Fault> {
        let sizes = (rows as u32, columns as u32);
        self.columns(
            &format!("bias_gelu_backward_{}", self.element().name()),
            (rows, columns),
            &[&gradient, &x, &bias, &sizes.0, &sizes.1, &sums],
        )
    }

    /// Sums of the rows of each class, `[classes, columns]`.
    pub(super) fn class_sums(
        &self,
        gradient: Address,
        (class_of, classes): (Address, usize),
        (rows, columns): (usize, usize),
        sums: Address,
    ) -> Result<(), Fault> {
        let sizes = (classes as u32, rows as u32, columns as u32);
        self.columns(
            "class_sums",
            (rows, columns),
            &[&gradient, &class_of, &sizes.0, &sizes.1, &sizes.2, &sums],
        )
    }

    pub(super) fn finish_sums(&self, table: Address, tasks: usize) -> Result<(), Fault> {
        self.run("finish_sums", [tasks, 1, 1], 256, 0, &[&table])
    }

    /// The sum of the embeddings of words and, where they are given, of two other tables, each with its ids.
    pub(super) fn embed(
        &self,
        tokens: usize,
        [words, types, positions]: [(Address, Address); 3],
        width: usize,
        out: Address,
    ) -> Result<(), Fault> {
        let size = width as u32;
        self.rows(
            "embed",
            tokens,
            &[
                &words.0,
                &words.1,
                &types.0,
                &types.1,
                &positions.0,
                &positions.1,
                &size,
                &out,
            ],
        )
    }

    /// Adds the gradients of words to their table.
    pub(super) fn embed_backward(
        &self,
        gradient: Address,
        rows: &super::batch::Rows,
        width: usize,
        table: Address,
    ) -> Result<(), Fault> {
        let size = width as u32;
        self.rows(
            "embed_backward",
            rows.named_count,
            &[
                &gradient,
                &rows.named,
                &rows.starts,
                &rows.order,
                &size,
                &table,
            ],
        )
    }

    /// The gradients of `positions` embeddings.
    pub(super) fn positions_backward(
        &self,
        gradient: Address,
        rows: &super::batch::Rows,
        (positions, width): (usize, usize),
        adds: bool,
        table: Address,
    ) -> Result<(), Fault> {
        let sizes = (rows.len as u32, width as u32, u32::from(adds));
        self.rows(
            "positions_backward",
            positions,
            &[
                &gradient,
                &rows.offsets,
                &sizes.0,
                &sizes.1,
                &sizes.2,
                &table,
            ],
        )
    }

    pub(super) fn gather_firsts(
        &self,
        x: Address,
        rows: &super::batch::Rows,
        width: usize,
        (firsts, copy): (Address, Address),
    ) -> Result<(), Fault> {
        let size = width as u32;
        self.rows(
            &format!("gather_firsts_{}", self.element().name()),
            rows.len,
            &[&x, &rows.offsets, &size, &firsts, &copy],
        )
    }

    pub(super) fn scatter_firsts(
        &self,
        firsts: Address,
        rows: &super::batch::Rows,
        width: usize,
        x: Address,
    ) -> Result<(), Fault> {
        let size = width as u32;
        self.rows(
            "scatter_firsts",
            rows.tokens,
            &[&firsts, &rows.row_of, &rows.positions, &size, &x],
        )
    }

    pub(super) fn mean_rows(
        &self,
        x: Address,
        rows: &super::batch::Rows,
        width: usize,
        means: Address,
    ) -> Result<(), Fault> {
        let size = width as u32;
        self.rows("mean_rows", rows.len, &[&x, &rows.offsets, &size, &means])
    }

    pub(super) fn mean_rows_backward(
        &self,
        gradient: Address,
        rows: &super::batch::Rows,
        width: usize,
        x_gradient: Address,
    ) -> Result<(), Fault> {
        let size = width as u32;
        self.rows(
            "mean_rows_backward",
            rows.tokens,
            &[&gradient, &rows.row_of, &rows.offsets, &size, &x_gradient],
        )
    }

    /// x + bias, with `tanh` through it.
    pub(super) fn add_bias(
        &self,
        x: Address,
        bias: Address,
        (rows, width): (usize, usize),
        tanh: bool,
    ) -> Result<(), Fault> {
        let sizes = (width as u32, u32::from(tanh));
        self.rows("add_bias", rows, &[&x, &bias, &sizes.0, &sizes.1])
    }

    pub(super) fn tanh_backward(
        &self,
        gradient: Address,
        y: Address,
        count: usize,
    ) -> Result<(), Fault> {
        let size = count as u32;
        let blocks = [count.div_ceil(ROW_THREADS), 1, 1];
        let arguments: [&dyn Argument; 3] = [&gradient, &y, &size];
        self.run("tanh_backward", blocks, ROW_THREADS, 0, &arguments)
    }

    fn attention_kernel(
        &self,
        kernel: &str,
        (tiles, extent): (usize, Extent),
        (inputs, scores): (usize, usize),
        heads: &Heads,
        more: &[&dyn Argument],
    ) -> Result<(), Fault> {
        let width = HEAD_WIDTHS
            .into_iter()
            .find(|&width| width >= heads.width as usize)
            .unwrap_or(WIDEST_HEAD);
        let (size, element) = (self.element().bytes(), self.element().name());
        let row = |columns: usize| columns * size + 16;
        let shared = TILE * (inputs * row(width) + scores * row(TILE));
        let mut arguments: Vec<&dyn Argument> = vec![heads];
        arguments.extend(more);
        self.run(
            &format!("{kernel}_{element}_{width}"),
            [tiles.div_ceil(TILE), heads.heads as usize, extent.rows],
            ATTENTION_THREADS,
            shared,
            &arguments,
        )
    }

    pub(super) fn attention(
        &self,
        heads: &Heads,
        extent: Extent,
        out: Address,
        statistics: Address,
    ) -> Result<(), Fault> {
        let stride = heads.heads * heads.width;
        self.attention_kernel(
            "attention",
            (extent.longest_queries, extent),
            (3, 1),
            heads,
            &[&out, &stride, &statistics],
        )
    }

    /// `gradients.common` is written first, from the context `out` and its gradient.
    pub(super) fn attention_backward(
        &self,
        heads: &Heads,
        extent: Extent,
        out: Address,
        gradients: &HeadGradients,
    ) -> Result<(), Fault> {
        let count = extent.queries * heads.heads as usize;
        let size = count as u32;
        let arguments: [&dyn Argument; 5] = [
            &out,
            &gradients.gradient,
            &size,
            &heads.width,
            &gradients.common,
        ];
        let name = format!("attention_common_{}", self.element().name());
        let blocks = [count.div_ceil(ATTENTION_THREADS / 32), 1, 1];
        self.run(&name, blocks, ATTENTION_THREADS, 0, &arguments)?;
        let asked = (extent.longest_queries, extent);
        self.attention_kernel("attention_queries", asked, (4, 1), heads, &[gradients])?;
        let read = (extent.longest, extent);
        self.attention_kernel("attention_keys", read, (4, 2), heads, &[gradients])
    }

    /// Filters `[filters, dimensions, width]` as columns `[width * filters, dimensions]`.
    pub(super) fn filters_to_columns(
        &self,
        weights: Address,
        [filters, dimensions, width]: [usize; 3],
        columns: Address,
    ) -> Result<(), Fault> {
        let sizes = [filters, dimensions, width].map(|size| size as u32);
        self.rows(
            "filters_to_columns",
            width * filters,
            &[&weights, &sizes[0], &sizes[1], &sizes[2], &columns],
        )
    }

    /// The same back, for gradients.
    pub(super) fn columns_to_filters(
        &self,
        columns: Address,
        [filters, dimensions, width]: [usize; 3],
        adds: bool,
        weights: Address,
    ) -> Result<(), Fault> {
        let sizes = [filters, dimensions, width].map(|size| size as u32);
        let adds = u32::from(adds);
        self.rows(
            "columns_to_filters",
            width * filters,
            &[&columns, &sizes[0], &sizes[1], &sizes[2], &adds, &weights],
        )
    }

    /// The greatest values and their places, `[rows, filters]` both.
    pub(super) fn convolve(
        &self,
        with: &Convolution,
        (products, bias): (Address, Address),
        (features, places): (Address, Address),
    ) -> Result<(), Fault> {
        let count = (with.rows * with.filters) as usize;
        let arguments: [&dyn Argument; 5] = [with, &products, &bias, &features, &places];
        let blocks = [count.div_ceil(ROW_THREADS / 32), 1, 1];
        self.run("convolve", blocks, ROW_THREADS, 0, &arguments)
    }

    /// The gradients of the products, cleared before.
    pub(super) fn convolve_backward(
        &self,
        with: &Convolution,
        gradient: Address,
        (features, places): (Address, Address),
        products: Address,
    ) -> Result<(), Fault> {
        let count = (with.rows * with.filters) as usize;
        let arguments: [&dyn Argument; 5] = [with, &gradient, &features, &places, &products];
        let blocks = [count.div_ceil(ROW_THREADS), 1, 1];
        self.run("convolve_backward", blocks, ROW_THREADS, 0, &arguments)
    }

    /// Columns `first..first + count` of `[rows, width]` as a buffer of their own.
    pub(super) fn take_columns(
        &self,
        from: Address,
        [rows, width, first, count]: [usize; 4],
        to: Address,
    ) -> Result<(), Fault> {
        let sizes = [width, first, count].map(|size| size as u32);
        let arguments: [&dyn Argument; 5] = [&from, &sizes[0], &sizes[1], &sizes[2], &to];
        self.rows("take_columns", rows, &arguments)
    }

    /// The same back.
    pub(super) fn put_columns(
        &self,
        from: Address,
        [rows, width, first, count]: [usize; 4],
        to: Address,
    ) -> Result<(), Fault> {
        let sizes = [width, first, count].map(|size| size as u32);
        let arguments: [&dyn Argument; 5] = [&from, &sizes[0], &sizes[1], &sizes[2], &to];
        self.rows("put_columns", rows, &arguments)
    }

    /// x `[rows, columns]`, transposed.
    pub(super) fn transpose(
        &self,
        x: Address,
        (rows, columns): (usize, usize),
        y: Address,
    ) -> Result<(), Fault> {
        let sizes = (rows as u32, columns as u32);
        self.rows("transpose", rows, &[&x, &sizes.0, &sizes.1, &y])
    }

    /// All steps of a recurrent layer's direction, or, `backward`, all the way back.
    pub(super) fn recur(&self, with: &Recurrence, backward: bool) -> Result<(), Fault> {
        let name = if backward { "recur_backward" } else { "recur" };
        let shared = (2 * with.size + with.gate_size) as usize * 4;
        self.run(name, [with.rows as usize, 1, 1], 256, shared, &[with])
    }

    /// A step of Adam over all chunks.
    pub(super) fn adam(
        &self,
        (chunks, count): (Address, usize),
        scalars: &kernels::optimizer::AdamScalars,
        [weights, gradients, first, second, copy]: [Address; 5],
    ) -> Result<(), Fault> {
        self.run(
            "adam",
            [count, 1, 1],
            STEP_THREADS,
            0,
            &[
                &chunks, scalars, &weights, &gradients, &first, &second, &copy,
            ],
        )
    }

    /// A step of gradient descent over all chunks.
    pub(super) fn sgd(
        &self,
        (chunks, count): (Address, usize),
        scalars: &kernels::optimizer::SgdScalars,
        [weights, gradients, velocity, copy]: [Address; 4],
    ) -> Result<(), Fault> {
        self.run(
            "sgd",
            [count, 1, 1],
            STEP_THREADS,
            0,
            &[&chunks, scalars, &weights, &gradients, &velocity, &copy],
        )
    }

    /// The sum of the squares of all chunks of x, a double, in `total`.
    pub(super) fn sum_of_squares(
        &self,
        (chunks, count): (Address, usize),
        x: Address,
        sums: Address,
        total: Address,
    ) -> Result<(), Fault> {
        let size = count as u32;
        let blocks = [count.div_ceil(STEP_THREADS / 32), 1, 1];
        self.run(
            "squares",
            blocks,
            STEP_THREADS,
            0,
            &[&chunks, &size, &x, &sums],
        )?;
        self.run("squares_total", [1, 1, 1], 1024, 0, &[&sums, &size, &total])
    }

    /// Copies floats as bf16.
    pub(super) fn narrow_all(&self, from: Address, to: Address, count: usize) -> Result<(), Fault> {
        let size = count as u64;
        let blocks = [count.div_ceil(STEP_THREADS), 1, 1];
        self.run("narrow_all", blocks, STEP_THREADS, 0, &[&from, &to, &size])
    }

    /// `y = x wᵀ` for x `[rows, inputs]`, w `[outputs, inputs]`; y has `stride` numbers from row to row.
    pub(super) fn multiply(
        &self,
        element: Element,
        (x, w): (Address, Address),
        [rows, inputs, outputs]: [usize; 3],
        (y, stride): (Address, usize),
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
            to: element,
            adds: false,
            rounds: self.rounds(),
        })
    }

    /// The gradient of x, written or added to `x_gradient`, numbers of `to`, given that of y.
    pub(super) fn multiply_back(
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
    pub(super) fn multiply_weights(
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
