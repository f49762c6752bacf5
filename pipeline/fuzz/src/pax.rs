//! Hostile PAX headers and GNU long names, each in a shard that is else well-formed.

use std::borrow::Cow;

use catlip_pipeline::source::bytes::TarBytes;
use catlip_pipeline::source::tar::{TarError, TarReader};

use crate::drive::{Random, mutate};
use crate::tar::seal;

/// Bytes of a header that is mutated further.
const BYTES_MAX: usize = 4096;

/// What the records turn on.
const WORDS: [&[u8]; 16] = [
    b"12 size=700\n",
    b"18 size=4294967296\n",
    b"17 path=real.jpg\n",
    b"11 path=a\n",
    b"22 GNU.sparse.major=1\n",
    b"27 GNU.sparse.realsize=100\n",
    b"0 ",
    b"3 x=1\n",
    b"9999999999999999999 path=x\n",
    b"-1 path=x\n",
    b"=",
    b"\n",
    b" ",
    b"size=18446744073709551615",
    b"path=",
    b"\0",
];

/// The data of the member behind the header, in which no byte looks like a header.
const DATA: [u8; 700] = [b'D'; 700];

fn member(shard: &mut Vec<u8>, kind: u8, name: &[u8], data: &[u8]) {
    let at = shard.len();
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    shard.extend(block);
    seal(shard, at);
    shard.extend(data);
    shard.resize(shard.len().next_multiple_of(512), 0);
}

/// Reads `extension` as PAX header and as long name of a member, with a member before and behind.
///
/// # Panics
///
/// If a promise is broken: the member before is always whole, nothing is made up, and no error is
/// without an offset inside the shard.
pub fn check(extension: &[u8]) -> &'static str {
    let mut outcome = "refused";
    for kind in [b'x', b'L', b'g'] {
        let mut shard = Vec::new();
        member(&mut shard, b'0', b"first.txt", b"first");
        member(&mut shard, kind, b"././@PaxHeader", extension);
        member(&mut shard, b'0', b"second.jpg", &DATA);
        member(&mut shard, b'0', b"third.txt", b"third");
        shard.extend([0; 1024]);
        let bytes = TarBytes::open(&shard).expect("a plain shard opens");
        let members: Vec<_> = TarReader::new(bytes).collect();
        let first = members[0].as_ref().expect("what stands before a bad header is read");
        assert_eq!((&first.name[..], &first.data[..]), (&b"first.txt"[..], &b"first"[..]));
        for member in members.iter().flatten() {
            let at = member.offset as usize;
            let there = shard.get(at..at + member.data.len());
            assert!(matches!(&member.data, Cow::Borrowed(_)), "a plain shard is not copied");
            assert_eq!(there, Some(&*member.data), "a member's bytes are those at its offset");
        }
        let last = members.last().expect("the first member is there");
        match last {
            Err(TarError::Header { offset, .. }) => assert!(*offset < shard.len() as u64),
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(_) if kind == b'x' => outcome = "read",
            Ok(_) => {}
        }
        if kind != b'x' {
            // A global header and a long name change no size, so all that follows is there.
            let found = members.iter().flatten().any(|member| member.name == b"third.txt");
            assert!(found || last.is_err(), "members behind a header are lost in silence");
        }
    }
    outcome
}

/// Makes one header after another.
pub fn maker() -> impl FnMut(&mut Random, &mut Vec<u8>) {
    let seeds: Vec<Vec<u8>> =
        WORDS[..6].iter().map(|word| word.to_vec()).chain([WORDS[..3].concat()]).collect();
    move |random, header| {
        if header.is_empty() || header.len() > BYTES_MAX || random.below(8) == 0 {
            header.clone_from(&seeds[random.below(seeds.len())]);
        }
        for _ in 0..=random.below(4) {
            mutate(header, random, &WORDS, &seeds);
        }
    }
}
