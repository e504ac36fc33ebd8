//! The kernels: one file each, with its plain reference beside it as the tests' oracle.
//!
//! What fixes their bits (`reduce` has the rules for sums) is the same at every [`dispatch::Level`], and no
//! number of threads enters it.

pub mod attention;
pub mod backlog;
mod buffer;
pub mod column_sums;
pub mod dispatch;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod gemm;
pub mod layer_norm;
pub mod optimizer;
pub mod peak;
pub mod reduce;
mod scratch;

pub use attention::{Attention, Qkv, attention, attention_backward};
pub use backlog::Backlog;
pub use buffer::Buffer;
pub use column_sums::column_sums;
pub use dropout::{Mask, Packed, dropout, dropout_rows};
pub use elementwise::{
    add, axpy, gelu, gelu_backward, relu, relu_backward, scale, sigmoid, sigmoid_backward, tanh,
    tanh_backward,
};
pub use embedding::{embedding, embedding_backward};
pub use gemm::{Epilogue, Matrix, MatrixMut, PackedOperand, gemm, gemm_packed};
pub use layer_norm::{Normalization, add_layer_norm, layer_norm, layer_norm_backward};
pub use optimizer::{AdamStep, SgdStep, adam, sgd};
pub use reduce::sum_of_squares;
pub use scratch::Scratch;
