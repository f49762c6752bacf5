//! Hostile bytes for every parser, a few seconds each; `benches/robustness.sh` tries them for ten
//! minutes each, `cargo fuzz` by coverage.

use catlip_fuzz::drive::{Random, tries};
use catlip_fuzz::{image, manifest, pax, pickle, tar};

fn holds(
    count: u64,
    make: impl FnMut(&mut Random, &mut Vec<u8>),
    check: fn(&[u8]) -> &'static str,
) {
    match tries(7, make, check, |tried| tried < count) {
        Ok(outcomes) => assert!(outcomes.len() > 1, "all the same: {outcomes:?}"),
        Err(broken) => panic!("number {}: {}: {:?}", broken.number, broken.words, broken.bytes),
    }
}

#[test]
fn no_tar_breaks_a_promise() {
    holds(200_000, tar::maker(), tar::check);
}

#[test]
fn no_pax_header_breaks_a_promise() {
    holds(500_000, pax::maker(), pax::check);
}

#[test]
fn no_pickle_breaks_a_promise() {
    holds(2_000_000, pickle::maker(), pickle::check);
}

#[test]
fn no_image_breaks_a_promise() {
    holds(200_000, image::maker(), image::check);
}

#[test]
fn no_manifest_breaks_a_promise() {
    holds(100_000, manifest::maker(), manifest::check);
}
