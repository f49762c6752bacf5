//! Hostile pickles: opcodes, memo, marks, lengths, depth.

use std::borrow::Cow;

use catlip_pipeline::prep::vocab_pickle;
use catlip_pipeline::source::pickle::{DEPTH_MAX, Pickle, VALUES_MAX};
use catlip_pipeline::source::pickled::{self, EXTENSION};
use catlip_pipeline::source::sample::File;

use crate::drive::{Random, mutate};

/// Bytes of a pickle that is mutated further.
const BYTES_MAX: usize = 8192;

/// Opcodes with what they need, those that call code among them, and keys of our dicts.
const WORDS: [&[u8]; 34] = [
    b"\x80\x02",
    b"\x80\x04",
    b"\x80\x05",
    b"\x95\xff\0\0\0\0\0\0\0",
    b".",
    b"(",
    b"]",
    b"}",
    b")",
    b"l",
    b"d",
    b"t",
    b"e",
    b"u",
    b"a",
    b"s",
    b"0",
    b"1",
    b"2",
    b"q\0",
    b"h\0",
    b"\x94",
    b"j\xff\xff\xff\xff",
    b"r\xff\xff\xff\x7f",
    b"cos\nsystem\n",
    b"R",
    b"\x93",
    b"\x8c\x04text",
    b"X\x05\0\0\0image",
    b"B\xff\xff\xff\x7f",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
    b"I-12\n",
    b"F1e400\n",
];

/// Values of a tree and how deep it is; a value that stands in several places counts at each.
fn measure(value: &Pickle<'_>) -> (usize, usize) {
    let all = |parts: &mut dyn Iterator<Item = &Pickle<'_>>| {
        let (count, depth) =
            parts.map(measure).fold((0, 0), |(count, depth), (c, d)| (count + c, depth.max(d)));
        (1 + count, 1 + depth)
    };
    match value {
        Pickle::List(parts) | Pickle::Tuple(parts) => all(&mut parts.iter()),
        Pickle::Dict(pairs) => all(&mut pairs.iter().flat_map(|(key, value)| [key, value])),
        _ => (1, 0),
    }
}

/// Reads a pickle by all our readers of them.
///
/// # Panics
///
/// If a promise is broken: limits hold, an error names its place, what reads once reads again.
pub fn check(bytes: &[u8]) -> &'static str {
    let file = File { extension: EXTENSION.to_owned(), offset: 0, data: Cow::Borrowed(bytes) };
    let unpacked = pickled::unpack(&file);
    let vocab = vocab_pickle::read(bytes);
    match Pickle::read(bytes) {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(unpacked.is_err() && vocab.is_err(), "read although it is no pickle of ours");
            "refused"
        }
        Ok(value) => {
            let (values, depth) = measure(&value);
            assert!(values <= VALUES_MAX && depth <= DEPTH_MAX, "{values} values, {depth} deep");
            match (unpacked, vocab) {
                (Ok(files), _) => {
                    assert!((1..=2).contains(&files.len()), "{} files", files.len());
                    "a sample"
                }
                (_, Ok(_)) => "a vocabulary",
                _ => "other data",
            }
        }
    }
}

/// Makes one pickle after another out of those that Python wrote.
pub fn maker() -> impl FnMut(&mut Random, &mut Vec<u8>) {
    let mut seeds = vec![
        b"\x80\x04}\x94(\x8c\x05image\x94\x8c\x08/9j/4AA=\x94\x8c\x04text\x94\x8c\x01a\x94u.".to_vec(),
        b"\x80\x02}q\0(X\x05\0\0\0imageq\x01X\x04\0\0\0AAAAq\x02X\x05\0\0\0textsq\x03]q\x04(X\x01\0\
          \0\0aX\x01\0\0\0beu."
            .to_vec(),
        b"(dp0\nVn2084071\np1\nI12\nsVn1740\np2\nI3\ns.".to_vec(),
        b"\x80\x03}q\0(X\x08\0\0\0n2084071q\x01K\x0cX\x05\0\0\0n1740q\x02K\x03u.".to_vec(),
        b"\x80\x04](((K\x01K\x02tN\x88\x89G?\xf0\0\0\0\0\0\0e.".to_vec(),
    ];
    // What Python wrote for every kind of value in every protocol.
    for line in include_str!("../../tests/data/pickles.jsonl").lines() {
        seeds.extend(hex_of(line));
    }
    move |random, pickle| {
        if pickle.is_empty() || pickle.len() > BYTES_MAX || random.below(3) == 0 {
            pickle.clone_from(&seeds[random.below(seeds.len())]);
        }
        for _ in 0..=random.below(3) {
            mutate(pickle, random, &WORDS, &seeds);
        }
    }
}

/// The bytes of a line's `"pickle": "HEX"`.
fn hex_of(line: &str) -> Option<Vec<u8>> {
    let (_, rest) = line.split_once("\"pickle\": \"")?;
    let (hex, _) = rest.split_once('"')?;
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
