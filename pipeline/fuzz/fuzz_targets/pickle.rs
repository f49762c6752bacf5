//! Hostile pickles; what must hold stands in `src/pickle.rs`.
#![cfg_attr(feature = "libfuzzer", no_main)]

catlip_fuzz::target!(pickle);
