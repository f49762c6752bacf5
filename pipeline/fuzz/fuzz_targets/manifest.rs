//! Hostile receipts, manifests, lists and tables; what must hold stands in `src/manifest.rs`.
#![cfg_attr(feature = "libfuzzer", no_main)]

catlip_fuzz::target!(manifest);
