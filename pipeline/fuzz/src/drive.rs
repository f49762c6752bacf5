//! Tries hostile bytes for a time, by a seed, with any compiler.
//!
//! In: how bytes are made and what must hold for them; `[SECONDS [SEED]]` of the command line. Out:
//! one JSON object: how many were tried, what became of them. Bytes that break a promise are
//! written to `NAME-SEED-N.bin`, and the program ends with code 1. `cargo fuzz` drives the same
//! checks by coverage.

use std::collections::BTreeMap;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Xorshift: a fuzzer needs no better one.
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Numbers that depend on `bytes` alone, so that a check of them can be repeated.
    pub fn of(bytes: &[u8]) -> Self {
        let fold = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self::new(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// One of some.
    pub fn of_these<'t, T: ?Sized>(&mut self, all: &[&'t T]) -> &'t T {
        all[self.below(all.len())]
    }
}

/// Changes bytes as any format may meet them: bits, numbers, words, cuts, pieces of others.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random, words: &[&[u8]], others: &[Vec<u8>]) {
    let at = random.below(bytes.len() + 1);
    let end = (at + 1 + random.below(16)).min(bytes.len());
    match random.below(9) {
        0..=2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        3 if at < bytes.len() => bytes[at] = random.below(256) as u8,
        4 => drop(bytes.splice(at..at, random.of_these(words).iter().copied())),
        5 => {
            let word = random.of_these(words);
            bytes.splice(at..(at + word.len()).min(bytes.len()), word.iter().copied());
        }
        6 if random.below(4) == 0 => bytes.truncate(at),
        6 if at < end => drop(bytes.drain(at..end)),
        7 => bytes.extend_from_within(at.min(end)..end.max(at)),
        _ => {
            let other = &others[random.below(others.len())];
            let from = random.below(other.len());
            let to = (from + random.below(200)).min(other.len());
            bytes.splice(at..end.max(at), other[from..to].iter().copied());
        }
    }
}

/// Bytes that broke a promise.
pub struct Broken {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Which one they were.
    pub number: u64,
    /// What the panic said.
    pub words: String,
}

/// Tries bytes while `goes_on`, which is told how many were tried: how often each outcome came.
///
/// `make` changes its buffer to the next bytes, `check` panics if a promise is broken and else names
/// what became of them.
///
/// # Errors
///
/// The first bytes that break a promise.
pub fn tries(
    seed: u64,
    mut make: impl FnMut(&mut Random, &mut Vec<u8>),
    check: impl Fn(&[u8]) -> &'static str + RefUnwindSafe,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<BTreeMap<&'static str, u64>, Broken> {
    let mut random = Random::new(seed);
    let mut outcomes = BTreeMap::new();
    let (mut number, mut bytes) = (0, Vec::new());
    while goes_on(number) {
        make(&mut random, &mut bytes);
        match catch_unwind(|| check(&bytes)) {
            Ok(outcome) => *outcomes.entry(outcome).or_default() += 1,
            Err(payload) => {
                let words = payload.downcast_ref::<String>().cloned();
                let words = words
                    .or_else(|| payload.downcast_ref::<&str>().map(|words| (*words).to_owned()));
                return Err(Broken { bytes, number, words: words.unwrap_or_default() });
            }
        }
        number += 1;
    }
    Ok(outcomes)
}

/// The driver's `main`.
pub fn run(
    name: &str,
    make: impl FnMut(&mut Random, &mut Vec<u8>),
    check: impl Fn(&[u8]) -> &'static str + RefUnwindSafe,
) -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let secs = arguments.next().unwrap_or(10);
    let seed: u64 = arguments.next().unwrap_or(1);
    // Panics of decoders that are not ours are caught by the library, and would each print.
    std::panic::set_hook(Box::new(|_| {}));
    let end = Instant::now() + Duration::from_secs(secs);
    match tries(seed, make, check, |_| Instant::now() < end) {
        Ok(outcomes) => {
            let tried: u64 = outcomes.values().sum();
            let outcomes: Vec<_> = outcomes.iter().map(|(o, n)| format!("\"{o}\": {n}")).collect();
            println!(
                "{{\"target\": \"{name}\", \"seconds\": {secs}, \"seed\": {seed}, \"tried\": \
                 {tried}, \"outcomes\": {{{}}}, \"broken_promises\": 0}}",
                outcomes.join(", ")
            );
            ExitCode::SUCCESS
        }
        Err(Broken { bytes, number, words }) => {
            let file = format!("{name}-{seed}-{number}.bin");
            std::fs::write(&file, bytes).expect("the current folder is writable");
            eprintln!("a promise is broken, see {file}: {words}");
            ExitCode::FAILURE
        }
    }
}

/// The program of one target: libFuzzer's with the feature, else [`run`].
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(feature = "libfuzzer")]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            $crate::$name::check(bytes);
        });
        #[cfg(not(feature = "libfuzzer"))]
        fn main() -> std::process::ExitCode {
            $crate::drive::run(stringify!($name), $crate::$name::maker(), $crate::$name::check)
        }
    };
}
