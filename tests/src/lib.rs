//! What the tests share. The tests themselves stand in `tests/tests/`, one file per subject.
