//! The versions of what is written, in one place.

use crate::error::SchemaError;

/// Version of the data set's files: manifest, receipts, lists of sources. See `FORMAT.md`.
pub const FORMAT_VERSION: u32 = 2;

/// Version of the bytes that one shard becomes; it is part of the config hash, so that a program
/// which would make other bytes from the same config does not add to what another began.
pub const PART_VERSION: u32 = 3;

/// Version of the order of samples. A change of any draw, permutation or lane rule raises it.
pub const ORDER_VERSION: u32 = 1;

/// Version of a training checkpoint's files. 2: the moments in as many files as ranks. 3: it says
/// whether a stop made it.
pub const CHECKPOINT_VERSION: u32 = 3;

/// Refuses a file of a version that is zero or newer than `newest`.
///
/// # Errors
///
/// [`SchemaError::Version`] with both numbers.
pub fn check_version(what: &'static str, found: u32, newest: u32) -> Result<(), SchemaError> {
    if (1..=newest).contains(&found) {
        Ok(())
    } else {
        Err(SchemaError::Version { what, found, newest })
    }
}
