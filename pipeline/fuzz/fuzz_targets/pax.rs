//! Hostile PAX records and long names; what must hold stands in `src/pax.rs`.
#![cfg_attr(feature = "libfuzzer", no_main)]

catlip_fuzz::target!(pax);
