//! Sets `cfg(loom)` for this crate alone: as a flag of the whole build it would reach every
//! dependency, and some of them mean something else by it.

fn main() {
    println!("cargo::rustc-cfg=loom");
}
