//! The program `taper`.

fn main() {}
