//! How the program is linked. On Linux it lies at a fixed address: one that may lie anywhere begins by correcting 65 000 pointers on
//! 260 pages, each page a fault, and that is half of what a run with nothing to do takes. Libraries, heap and stack lie anywhere all the same.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=engine/cli/build.rs");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let is_static = target("FEATURE").split(',').any(|it| it == "crt-static");
    if target("OS") == "linux" && target("ENV") == "gnu" && !is_static {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
