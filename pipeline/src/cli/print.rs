//! What goes to the terminal: results to standard output, notes to standard error.
//!
//! In: text. Out: nothing. Never: a panic because the reader of a pipe has seen enough.

use std::io::{self, Write};
use std::path::Path;

use crate::error::PrepError;

/// Prints a result.
///
/// # Errors
///
/// [`PrepError::Io`] or [`PrepError::DiskFull`], but not for a closed pipe: whoever closes it has
/// what was wanted.
pub fn result(text: &str) -> Result<(), PrepError> {
    let mut out = raw();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(PrepError::io("write", Path::new("standard output"), e))
        }
        _ => Ok(()),
    }
}

/// Standard output, for those who write it in pieces.
pub fn raw() -> impl Write {
    io::stdout().lock()
}

/// Prints a note for people. That nobody can read it is no reason to fail.
pub fn note(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}
