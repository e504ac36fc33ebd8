//! Reading data from files, addresses and the hub; writing Arrow.

pub mod amount;
pub mod columns;
pub mod format;
pub mod import;
pub mod names;
pub mod random;
pub mod rows;
pub mod strata;
pub mod tables;
