//! The trainer's tests follow.
