//! Text to tokens: tokenizers read, tokenizers trained, rows encoded on all cores.

pub mod columns;
pub mod encoder;
pub mod labels;
pub mod origin;
pub mod source;
pub mod table;
pub mod wordpiece;
pub mod words;

pub use columns::TextColumns;
pub use encoder::{Encoded, Encoder};
pub use source::TokenizerFiles;
