//! Reading data from files, addresses and the hub; writing Arrow.

pub mod amount;
pub mod choice;
pub mod columns;
pub mod format;
pub mod hash;
pub mod http;
pub mod hub;
pub mod import;
pub mod names;
pub mod random;
pub mod rows;
pub mod samples;
pub mod strata;
pub mod tables;
