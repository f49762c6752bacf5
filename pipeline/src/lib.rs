#![doc = include_str!("../README.md")]

pub mod source;
pub mod image;
pub mod caption;
pub mod prep;
pub mod feed;
pub mod demo;
pub mod metrics;
pub mod config;
pub mod error;
pub mod cli;
