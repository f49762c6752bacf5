//! The binary `catlip-train`.

fn main() {}
