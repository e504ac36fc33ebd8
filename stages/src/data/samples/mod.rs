//! Data sets that are made inside the program: what a machine without network runs on.

pub mod acceptability;
mod english;
