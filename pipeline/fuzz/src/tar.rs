//! Hostile shards: headers, long names, gzip, cuts.

use std::io::Write;

use catlip_pipeline::source::SampleReader;
use catlip_pipeline::source::bytes::{Compression, TarBytes};
use catlip_pipeline::source::tar::{MemberKind, TarReader};

use crate::drive::Random;

/// Bytes of a shard that is mutated further.
const BYTES_MAX: usize = 1 << 16;

/// What headers and PAX records turn on.
const WORDS: [&[u8]; 20] = [
    b"ustar\x0000",
    b"ustar  \0",
    b"x",
    b"g",
    b"L",
    b"K",
    b"S",
    b"5",
    b"2",
    b"0",
    b"12 size=700\n",
    b"17 path=real.jpg\n",
    b"3 x=1\n",
    b"22 GNU.sparse.major=1\n",
    b"99999999999",
    b"77777777777\0",
    b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\0",
    b"a.jpg",
    b"__index__.json",
];

/// Makes the checksum of the header at `at` right, so that what is behind it is reached.
pub fn seal(shard: &mut [u8], at: usize) {
    let Some(block) = shard.get_mut(at..at + 512) else { return };
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Blocks of a shard that mean something: members, PAX records, long names, ends.
fn append(shard: &mut Vec<u8>, random: &mut Random) {
    let kind = b"00000xxLgSK512"[random.below(14)];
    let data: Vec<u8> = match kind {
        b'x' | b'g' => (0..1 + random.below(3))
            .flat_map(|_| WORDS[10 + random.below(4)].iter().copied())
            .collect(),
        b'L' | b'K' => vec![b'n'; 90 + random.below(200)],
        _ => vec![random.below(256) as u8; random.below(1500)],
    };
    let at = shard.len();
    let mut block = [0; 512];
    let name = format!("{}.{}", random.below(4), ["jpg", "txt", "JPG", "pkl"][random.below(4)]);
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(WORDS[random.below(2)]);
    shard.extend(block);
    seal(shard, at);
    shard.extend(&data);
    shard.resize(shard.len().next_multiple_of(512), 0);
    if random.below(6) == 0 {
        shard.extend([0; 1024]);
    }
}

/// Changes one thing.
fn mutate(shard: &mut Vec<u8>, random: &mut Random) {
    let block_at = random.below(shard.len() / 512 + 1) * 512;
    let field = [0, 100, 124, 135, 148, 156, 257, 345, 482][random.below(9)];
    let at = if random.below(3) > 0 { block_at + field } else { random.below(shard.len() + 1) };
    let at = at.min(shard.len());
    match random.below(8) {
        0..=2 => append(shard, random),
        3 if at < shard.len() => shard[at] ^= 1 << random.below(8),
        4 => shard.truncate(at),
        5 => {
            let end = (at + random.below(600)).min(shard.len());
            shard.drain(at..end);
        }
        _ => {
            let word = WORDS[random.below(WORDS.len())];
            shard.splice(at..(at + word.len()).min(shard.len()), word.iter().copied());
        }
    }
    if random.below(2) == 0 {
        seal(shard, block_at);
    }
}

/// What must hold for the bytes of any shard; whether it gives samples, rejects or both.
///
/// # Panics
///
/// If a promise is broken.
pub fn check(shard: &[u8]) -> &'static str {
    let is_plain = Compression::of(shard) == Compression::Plain;
    let Ok(bytes) = TarBytes::open(shard) else { return "not opened" };
    for member in TarReader::new(bytes) {
        let Ok(member) = member else { continue };
        let is_there = match member.kind {
            MemberKind::File if is_plain => {
                let at = member.offset as usize;
                shard.get(at..at + member.data.len()) == Some(&*member.data)
            }
            MemberKind::File => true,
            MemberKind::Link | MemberKind::Sparse => member.data.is_empty(),
        };
        assert!(is_there, "a member's bytes are not those at its offset");
    }
    let Ok(bytes) = TarBytes::open(shard) else { return "not opened" };
    let (mut samples, mut rejects) = (0_u64, 0_u64);
    let mut keys = std::collections::HashSet::new();
    for sample in SampleReader::new(bytes, false) {
        match sample {
            Ok(sample) => {
                samples += 1;
                assert!(!sample.files.is_empty(), "a sample without files");
                let mut extensions: Vec<_> = sample.files.iter().map(|f| &f.extension).collect();
                extensions.sort();
                extensions.dedup();
                assert_eq!(extensions.len(), sample.files.len(), "an extension twice");
                assert!(keys.insert(sample.key), "a key twice");
            }
            Err(reject) => {
                rejects += 1;
                assert!(!reject.error.to_string().is_empty());
            }
        }
    }
    let has_end = shard.chunks(512).any(|block| block.iter().all(|&b| b == 0));
    assert!(!is_plain || has_end || rejects > 0, "a shard without an end is taken for whole");
    match (samples, rejects) {
        (0, 0) => "empty",
        (0, _) => "rejects",
        (_, 0) => "samples",
        _ => "samples and rejects",
    }
}

/// Makes one shard after another.
pub fn maker() -> impl FnMut(&mut Random, &mut Vec<u8>) {
    let mut plain = Vec::new();
    move |random, shard| {
        if plain.len() > BYTES_MAX || random.below(16) == 0 {
            plain.clear();
        }
        for _ in 0..=random.below(4) {
            mutate(&mut plain, random);
        }
        shard.clone_from(&plain);
        // Most shards have an end, and only then are their last samples taken.
        if random.below(4) > 0 {
            shard.resize(shard.len().next_multiple_of(512) + 1024, 0);
        }
        if random.below(4) > 0 {
            return;
        }
        let level = flate2::Compression::fast();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
        gzip.write_all(&plain).expect("memory takes all");
        *shard = gzip.finish().expect("memory takes all");
        if random.below(2) == 0 {
            let at = random.below(shard.len());
            shard[at] ^= 1 << random.below(8);
        }
    }
}
