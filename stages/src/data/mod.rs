//! Reading data from files, addresses and the hub; writing Arrow.

pub mod amount;
pub mod names;
pub mod random;
pub mod strata;
