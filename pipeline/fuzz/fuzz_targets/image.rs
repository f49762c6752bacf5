//! Hostile images; what must hold stands in `src/image.rs`.
#![cfg_attr(feature = "libfuzzer", no_main)]

catlip_fuzz::target!(image);
