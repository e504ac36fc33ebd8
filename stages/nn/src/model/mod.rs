//! The networks: one file a family, and what they share.

pub mod architecture;
pub mod bert;
pub mod cell;
pub mod encoder;
pub mod head;
pub mod linear;
pub mod recurrent;
mod sequence;
pub mod textcnn;

pub use architecture::Architecture;
pub use bert::{Bert, BertConfig, Pooling};
pub use cell::RecurrentKind;
pub use head::{Head, HeadConfig};
pub use recurrent::{Recurrent, RecurrentConfig};
pub use textcnn::{TextCnn, TextCnnConfig};
