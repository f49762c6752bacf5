//! The pickle reader against Python: what Python wrote, hostile bytes, and what chance makes.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use catlip_pipeline::source::pickle::{DEPTH_MAX, Pickle, VALUES_MAX};
use serde::Deserialize;

/// A pickle that Python wrote, and the value in letters (`data/pickles.py`).
#[derive(Deserialize)]
struct Row {
    protocol: u8,
    pickle: String,
    value: String,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pickles.py")
}

/// What `data/pickles.py` prints, or none without Python.
fn python(arguments: &[&Path]) -> Option<String> {
    match Command::new("python3").arg(script()).args(arguments).output() {
        Err(_) => {
            println!("skipped: no python3");
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
    }
}

fn golden() -> Vec<Row> {
    rows(include_str!("data/pickles.jsonl"))
}

fn rows(text: &str) -> Vec<Row> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value as `data/pickles.py` writes it.
fn letters(value: &Pickle<'_>) -> String {
    let all = |list: &[Pickle<'_>]| list.iter().map(letters).collect::<Vec<_>>().join(",");
    match value {
        Pickle::None => "None".into(),
        Pickle::Bool(true) => "True".into(),
        Pickle::Bool(false) => "False".into(),
        Pickle::Int(int) => format!("i{int}"),
        Pickle::Float(float) => format!("f{:016x}", float.to_bits()),
        Pickle::Str(text) => format!("s{}", hex(text.as_bytes())),
        Pickle::Bytes(bytes) => format!("b{}", hex(bytes)),
        Pickle::List(list) => format!("[{}]", all(list)),
        Pickle::Tuple(list) => format!("({})", all(list)),
        Pickle::Dict(pairs) => {
            let pairs = pairs.iter().map(|(k, v)| format!("{}:{}", letters(k), letters(v)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        other => panic!("{} among plain data", other.kind()),
    }
}

fn error(bytes: &[u8]) -> String {
    Pickle::read(bytes).unwrap_err().to_string()
}

#[test]
fn what_python_pickled_is_read_by_every_protocol() {
    let mut by_protocol = [0; 6];
    for row in golden() {
        let bytes = from_hex(&row.pickle);
        assert_eq!(letters(&Pickle::read(&bytes).unwrap()), row.value, "{}", row.pickle);
        by_protocol[usize::from(row.protocol)] += 1;
    }
    assert!(by_protocol.iter().all(|&rows| rows > 80), "{by_protocol:?}");
}

#[test]
fn what_this_python_pickles_is_read_too() {
    let Some(text) = python(&[]) else { return };
    for row in rows(&text) {
        let bytes = from_hex(&row.pickle);
        assert_eq!(letters(&Pickle::read(&bytes).unwrap()), row.value, "{}", row.pickle);
    }
}

#[test]
fn nothing_is_imported_called_or_built() {
    let cases: [(&[u8], &str); 9] = [
        (b"cos\nsystem\n(S'true'\ntR.", "GLOBAL at byte 0"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "STACK_GLOBAL at byte 14"),
        (b"}}R.", "REDUCE at byte 2"),
        (b"(ios\nsystem\n.", "INST at byte 1"),
        (b"(NoN.", "OBJ at byte 2"),
        (b"}}b.", "BUILD at byte 2"),
        (b"})\x81.", "NEWOBJ at byte 2"),
        (b"})}\x92.", "NEWOBJ_EX at byte 3"),
        (b"\x80\x02\x82\x01.", "EXT1 at byte 2"),
    ];
    for (bytes, place) in cases {
        assert_eq!(error(bytes), format!("opcode {place}: it would run code, which is never done"));
    }
}

#[test]
fn kinds_that_are_no_plain_data_are_refused_by_name() {
    let cases: [(&[u8], &str); 7] = [
        (b"\x8f.", "EMPTY_SET at byte 0: a set"),
        (b"(\x91.", "FROZENSET at byte 1: a set"),
        (b"\x96\0\0\0\0\0\0\0\0.", "BYTEARRAY8 at byte 0: a bytearray"),
        (b"NQ.", "BINPERSID at byte 1: a reference to something outside"),
        (b"\x97.", "NEXT_BUFFER at byte 0: a buffer outside"),
        (b"S'dog'\n.", "STRING at byte 0: a byte string of Python 2"),
        (b"U\x03dog.", "SHORT_BINSTRING at byte 0: a byte string of Python 2"),
    ];
    for (bytes, what) in cases {
        let rest = "is not read, only None, bool, int, float, str, bytes, list, tuple and dict are";
        assert_eq!(error(bytes), format!("opcode {what} {rest}"));
    }
}

#[test]
fn bytes_of_protocols_before_3_are_a_call_and_refused() {
    // pickle.dumps(b"dog", 2)
    let bytes =
        b"\x80\x02c_codecs\nencode\nq\0X\x03\0\0\0dogq\x01X\x06\0\0\0latin1q\x02\x86q\x03Rq\x04.";
    assert_eq!(error(bytes), "opcode GLOBAL at byte 2: it would run code, which is never done");
}

#[test]
fn lengths_that_promise_more_than_is_there_allocate_nothing() {
    assert_eq!(
        error(b"X\xff\xff\xff\xffdog."),
        "opcode BINUNICODE at byte 0: 4294967295 bytes are expected, 4 are left"
    );
    assert_eq!(
        error(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffdog."),
        "opcode BINBYTES8 at byte 0: 18446744073709551615 bytes are expected, 4 are left"
    );
    assert_eq!(
        error(b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN."),
        "opcode FRAME at byte 2: 9223372036854775807 bytes are expected, 2 are left"
    );
    assert_eq!(
        error(b"\x8b\xff\xff\xff\xff."),
        "opcode LONG4 at byte 0: 4294967295 bytes are expected, 1 are left"
    );
    let long = [b"\x8a\xff".as_slice(), &[1; 255], b"."].concat();
    assert_eq!(error(&long), "opcode LONG1 at byte 0: an int of 255 bytes is above the limit of 8");
    let digits = [b"L".as_slice(), &[b'7'; 1000], b"\n."].concat();
    assert_eq!(error(&digits), "opcode LONG at byte 0: no end of line within 33 bytes");
}

#[test]
fn deep_nesting_is_refused_however_it_is_written() {
    let deep = format!("opcode {{}}: values are more than {DEPTH_MAX} deep inside each other");
    let deep = |place: &str| deep.replace("{}", place);
    let depth = 1_000_000;
    let marks = vec![b'('; depth];
    assert_eq!(error(&marks), deep("MARK at byte 64"));
    let tuples = [b"N".as_slice(), &vec![0x85; depth], b"."].concat();
    assert_eq!(error(&tuples), deep("TUPLE1 at byte 65"));
    let lists = [vec![b']'; depth], vec![b'a'; depth - 1], b".".to_vec()].concat();
    assert_eq!(error(&lists), deep(&format!("EMPTY_LIST at byte {}", depth - 66)));
    let fits = [b"N".as_slice(), &[0x85; DEPTH_MAX], b"."].concat();
    assert!(Pickle::read(&fits).is_ok());
}

#[test]
fn values_are_counted_before_they_fill_the_memory() {
    let many = [vec![b'N'; VALUES_MAX + 1], b".".to_vec()].concat();
    let text = error(&many);
    assert_eq!(text, format!("opcode NONE at byte {VALUES_MAX}: more than {VALUES_MAX} values"));
    let remembered = [b"N".as_slice(), &vec![0x94; VALUES_MAX + 1], b"."].concat();
    assert!(error(&remembered).starts_with("opcode MEMOIZE at byte "));
}

#[test]
fn a_few_lists_that_unfold_to_billions_are_refused() {
    // Each list holds the one before it ten times: 10^30 values.
    let mut bytes = b"]\x94".to_vec();
    for index in 0..30_u8 {
        bytes.extend(b"0](");
        bytes.extend([b'h', index].repeat(10));
        bytes.extend(b"e\x94");
    }
    bytes.push(b'.');
    let text = error(&bytes);
    assert!(text.contains("by way of the memo it unfolds to more than"), "{text}");
    assert!(text.starts_with("opcode EMPTY_LIST at byte "), "{text}");
    // So are many places of one long text that must be decoded into memory of its own.
    let long = [b"V\\u0041".as_slice(), &vec![b'x'; 1 << 20], b"\n\x940](".as_slice()].concat();
    let bytes = [long, b"h\0".repeat(1000), b"e.".to_vec()].concat();
    assert!(error(&bytes).contains("unfolds"), "{}", error(&bytes));
}

#[test]
fn what_is_inside_itself_is_refused() {
    assert_eq!(error(b"]\x94h\0a."), "opcode EMPTY_LIST at byte 0: the value is inside itself");
    assert_eq!(
        error(b"}\x94X\x01\0\0\0k](h\0es."),
        "opcode EMPTY_DICT at byte 0: the value is inside itself"
    );
}

#[test]
fn the_memo_holds_what_was_put_and_nothing_else() {
    assert_eq!(error(b"h\0."), "opcode BINGET at byte 0: nothing is in the memo at 0");
    assert_eq!(error(b"Nq\x01h\0."), "opcode BINGET at byte 3: nothing is in the memo at 0");
    assert_eq!(error(b"\x94."), "opcode MEMOIZE at byte 0: the stack is empty");
    assert_eq!(error(b"p-1\n."), "opcode PUT at byte 0: `-1` is not a place in the memo");
    let far = b"Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.";
    assert_eq!(Pickle::read(far), Ok(Pickle::None));
    // A value below a mark is not at hand above it.
    assert_eq!(error(b"N(\x94."), "opcode MEMOIZE at byte 2: the stack is empty");
}

#[test]
fn wrong_programs_are_refused_with_the_reason() {
    let cases: [(&[u8], &str); 24] = [
        (b"", "STOP at byte 0: it is missing: the pickle is cut"),
        (b"\x80\x04N", "STOP at byte 3: it is missing: the pickle is cut"),
        (b".", "STOP at byte 0: 0 values are left at the end, expected 1"),
        (b"NN.", "STOP at byte 2: 2 values are left at the end, expected 1"),
        (b"N(.", "STOP at byte 2: 1 marks are left at the end"),
        (b"N.N.", "STOP at byte 1: 2 bytes follow the end"),
        (b"\x80\x06N.", "PROTO at byte 0: protocol 6 is not known, expected 0 to 5"),
        (b"N\x80\x02.", "PROTO at byte 1: it may stand at byte 0 only"),
        (
            b"\x95\x03\0\0\0\0\0\0\0NX\x01\0\0\0k.",
            "BINUNICODE at byte 10: it goes on beyond the end of its frame at byte 12",
        ),
        (
            b"\x95\x0a\0\0\0\0\0\0\0\x95\x01\0\0\0\0\0\0\0N.",
            "FRAME at byte 9: it begins within another frame",
        ),
        (b"\xff.", "0xff at byte 0: no protocol has such an opcode"),
        (b"<html>", "0x3c at byte 0: no protocol has such an opcode"),
        (b"t.", "TUPLE at byte 0: no mark is on the stack"),
        (b"N\x86.", "TUPLE2 at byte 1: the stack is empty"),
        (b"}Na.", "APPEND at byte 2: below the values is a dict, expected a list"),
        (b"](Nu.", "SETITEMS at byte 3: 1 keys and values, expected pairs"),
        (b"}]Ns.", "SETITEM at byte 3: a list cannot be a key of a dict"),
        (b"N(NNu.", "SETITEMS at byte 4: below the values is None, expected a dict"),
        (b"X\x01\0\0\0\xff.", "BINUNICODE at byte 0: the text is not UTF-8 from its byte 0 on"),
        (b"I0x1\n.", "INT at byte 0: `0x1` is not an int of 64 bits"),
        (b"I010\n.", "INT at byte 0: `010` is not an int of 64 bits"),
        (
            b"L9223372036854775808L\n.",
            "LONG at byte 0: `9223372036854775808L` is not an int of 64 bits",
        ),
        (b"F1e999\n.", "FLOAT at byte 0: `1e999` is not a float"),
        (
            b"Vab\\x41\n.",
            "UNICODE at byte 0: the backslash at byte 2 of the text is no \\uXXXX or \\UXXXXXXXX \
             of a character",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(error(bytes), format!("opcode {expected}"));
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(bits ^ bits >> 31) * n as u128) >> 64) as usize
    }
}

/// Opcodes that are run, and some that are not.
const OPCODES: &[u8] =
    b"(.012FIJKLMNVXaedugeh]lpqrst})GBCcRbiQS\x80\x85\x86\x87\x88\x89\x8a\x8b\x8c\
    \x8d\x8e\x8f\x93\x94\x95\x96";

/// Changes `bytes` in one of the ways in which a damaged pickle differs from a whole one.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len());
    let until = (at + 1 + dice.below(8)).min(bytes.len());
    match dice.below(8) {
        0 => bytes[at] ^= 1 << dice.below(8),
        1 => bytes[at] = OPCODES[dice.below(OPCODES.len())],
        2 => bytes.insert(at, OPCODES[dice.below(OPCODES.len())]),
        3 => drop(bytes.drain(at..until)),
        4 => {
            let again = bytes[at..until].to_vec();
            bytes.splice(at..at, again);
        }
        5 => {
            let from = dice.below(other.len());
            let to = (from + 1 + dice.below(24)).min(other.len());
            bytes.splice(at..until, other[from..to].iter().copied());
        }
        6 => bytes[at..until].fill([0x00, 0x7f, 0x80, 0xff][dice.below(4)]),
        _ => bytes.truncate(at + 1),
    }
}

/// Whether Python would keep all pairs: no two keys are equal there, as 1 and True are.
fn keys_differ(value: &Pickle<'_>) -> bool {
    fn key(value: &Pickle<'_>) -> String {
        match value {
            Pickle::Bool(bool) => format!("{}", f64::from(u8::from(*bool))),
            Pickle::Int(int) => format!("{}", *int as f64),
            Pickle::Float(float) => format!("{}", float + 0.0),
            Pickle::Tuple(list) => list.iter().map(key).collect::<Vec<_>>().join(","),
            other => letters(other),
        }
    }
    match value {
        Pickle::List(list) | Pickle::Tuple(list) => list.iter().all(keys_differ),
        Pickle::Dict(pairs) => {
            let mut keys: Vec<String> = pairs.iter().map(|(k, _)| key(k)).collect();
            keys.sort();
            keys.windows(2).all(|pair| pair[0] != pair[1])
                && pairs.iter().all(|(k, v)| keys_differ(k) && keys_differ(v))
        }
        _ => true,
    }
}

/// Pickles that chance made of whole ones: those that are read, with their values.
fn mutants(seed: u64, count: usize) -> (Vec<(Vec<u8>, String)>, usize) {
    const BASE_BYTES_MAX: usize = 400;
    let bases: Vec<Vec<u8>> = golden().iter().map(|row| from_hex(&row.pickle)).collect();
    let bases: Vec<_> = bases.into_iter().filter(|base| base.len() <= BASE_BYTES_MAX).collect();
    let mut dice = Dice(seed);
    let (mut read, mut refused) = (Vec::new(), 0);
    for _ in 0..count {
        let mut bytes = bases[dice.below(bases.len())].clone();
        for _ in 0..=dice.below(2) {
            mutate(&mut bytes, &bases[dice.below(bases.len())], &mut dice);
            if bytes.is_empty() {
                bytes.push(b'.');
            }
        }
        match Pickle::read(&bytes) {
            Ok(value) if keys_differ(&value) => {
                let letters = letters(&value);
                read.push((bytes, letters));
            }
            Ok(_) => {}
            Err(error) => {
                assert!(error.offset <= bytes.len());
                refused += 1;
            }
        }
    }
    (read, refused)
}

#[test]
fn what_chance_makes_of_a_pickle_is_refused_or_means_what_python_says() {
    let (read, refused) = mutants(1, 60_000);
    println!("{} read, {refused} refused", read.len());
    assert!(read.len() > 3_000 && refused > 30_000, "{} read, {refused} refused", read.len());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mutants.hex");
    let lines: String = read.iter().map(|(bytes, _)| hex(bytes) + "\n").collect();
    fs::write(&path, lines).unwrap();
    let Some(told) = python(&[&path]) else { return };
    assert_eq!(told.lines().count(), read.len());
    let mut refused_there = 0;
    for ((bytes, value), told) in read.iter().zip(told.lines()) {
        match told.strip_prefix("refused: ") {
            None => assert_eq!(value, told, "{}", hex(bytes)),
            // A list within a tuple as key; a memo of which Python wants all places.
            Some("TypeError" | "MemoryError") => refused_there += 1,
            Some(other) => panic!("Python says {other}, we read {value}: {}", hex(bytes)),
        }
    }
    assert!(refused_there < read.len() / 100, "{refused_there} of {}", read.len());
}
