//! Hostile shards; what must hold stands in `src/tar.rs`.
#![cfg_attr(feature = "libfuzzer", no_main)]

catlip_fuzz::target!(tar);
