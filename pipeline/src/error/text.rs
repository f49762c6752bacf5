//! An error as a person reads it.

use std::error::Error;
use std::fmt::Write;

/// An error with its causes and the hint: `error: …`, `  caused by: …`, `hint: …`.
pub fn error_text(error: &dyn Error, hint: Option<&str>) -> String {
    let mut last = error.to_string();
    let mut text = format!("error: {last}\n");
    let mut cause = error.source();
    while let Some(inner) = cause {
        let next = inner.to_string();
        // Some libraries repeat in each error all that its cause says.
        if !last.contains(&next) {
            let _ = writeln!(text, "  caused by: {next}");
            last = next;
        }
        cause = inner.source();
    }
    if let Some(hint) = hint {
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::PrepError;
    use crate::source::SourceError;

    #[test]
    fn an_error_reads_from_what_to_why_to_what_to_do() {
        let error = PrepError::from(SourceError::NoMatch {
            input: "train-{0..9}.tar".into(),
            tried: "train-3.tar".into(),
        });
        assert_eq!(
            error_text(&error, error.hint()),
            "error: the input cannot be read\n  \
             caused by: `train-{0..9}.tar` matches no file (tried train-3.tar)\n\
             hint: check the path; quote globs and braces so that the shell leaves them alone\n"
        );
    }
}
