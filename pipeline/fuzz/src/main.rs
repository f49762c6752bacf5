//! Fuzzes without a nightly compiler: mutates our own captions for a time, by a seed.
//!
//! In: `catlip-fuzz [SECONDS [SEED]]`. Out: the number of captions tried and bytes read. A caption
//! that breaks a promise is shown by the panic's message.

use std::time::{Duration, Instant};

/// Pieces on which some rule turns.
const PIECES: &str = "' \" ` '' \"\" `` . .. ... ? ! , : ; - -- --- ( ) [ ] { } < > <b> & &amp; \
    &#39; &lt; % %41 %C3 %A9 + * @ # $ / _ = ~ | \\ 's 'm 'd 'll 're 've n't 't 'n 'a cannot gimme \
    gonna gotta lemme wanna d'ye more'n 'tis 'twas dog dogs st. dr. jr. e.g. u.s. q. j. ph.d no. 1 \
    2.5 1. 3,000 9:30 glass glasses possess womens swimming_pool hot_dog fire trucks \
    skate board school busess april fools' orange and sitting john é É ß İ ſ ı K ﬁ ² ½ ٣ д 猫 \
    – — … “ ” ‘ ’ ‚ „ « » ® ™ 👍 \u{A0} \u{3000} \u{2028} \u{85} \u{92} \u{301} \u{338} \u{200B} \
    \u{FEFF} \u{FFFD} \u{37E} \u{1FEF} \u{AC00} \u{1161} ．";

/// Bytes of a caption that is mutated further; half of the longest that the stack holds, twice.
const BYTES_MAX: usize = 2048;

/// Xorshift: a fuzzer needs no better one.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let seconds = arguments.next().unwrap_or(10);
    let seed: u64 = arguments.next().unwrap_or(1);
    let golden = include_str!("../../tests/data/corenet-golden.jsonl");
    let captions: Vec<&str> = golden.lines().filter_map(caption_of).collect();
    let mut pieces: Vec<&str> = PIECES.split(' ').filter(|piece| !piece.is_empty()).collect();
    pieces.extend([" ", " ", " ", "  ", "\n", "\t", "\r\n", "\x1B[1m", "\0"]);
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let (mut tried, mut bytes) = (0_u64, 0_u64);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut caption = Vec::new();
    while Instant::now() < end {
        for _ in 0..1000 {
            if caption.len() > BYTES_MAX || random.below(4) == 0 {
                caption.clear();
                if random.below(3) > 0 {
                    caption.extend(captions[random.below(captions.len())].as_bytes());
                }
            }
            for _ in 0..=random.below(6) {
                mutate(&mut caption, &mut random, &captions, &pieces);
            }
            catlip_fuzz::captions(&caption);
            catlip_fuzz::captions(String::from_utf8_lossy(&caption).as_bytes());
            tried += 1;
            bytes += caption.len() as u64;
        }
    }
    println!("captions: {tried} tried, {bytes} bytes, seed {seed}, {seconds} s, clean");
}

/// Changes one thing.
fn mutate(caption: &mut Vec<u8>, random: &mut Random, captions: &[&str], pieces: &[&str]) {
    let at = random.below(caption.len() + 1);
    let piece = pieces[random.below(pieces.len())];
    match random.below(12) {
        0..=5 => drop(caption.splice(at..at, piece.bytes())),
        6 => drop(caption.splice(at.., piece.bytes())),
        7 => drop(caption.splice(at..at, piece.repeat(2 + random.below(3)).into_bytes())),
        8 => {
            let other = captions[random.below(captions.len())].as_bytes();
            caption.splice(at.., other[random.below(other.len() + 1)..].iter().copied());
        }
        9 => {
            let end = (at + 1 + random.below(8)).min(caption.len());
            caption.drain(at..end);
        }
        10 => {
            let end = (at + random.below(20)).min(caption.len());
            caption.extend_from_within(at..end);
        }
        _ => {
            if let Some(byte) = caption.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

/// The caption of a line of the golden file, its JSON escapes as they stand: more to trip over.
fn caption_of(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("{\"caption\": \"")?;
    rest.split_once("\", \"norm\"").map(|(caption, _)| caption)
}
