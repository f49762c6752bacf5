//! Defects that were found in another reader of such shards, each tried on ours.
//!
//! Writers, shuffling and threads of that library have no counterpart here; what applies to a
//! reader and to its lists does.

use super::*;
use crate::source::list::ShardList;

fn header(name: &[u8], bytes: usize, kind: u8, magic: &[u8; 8]) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..135].copy_from_slice(format!("{bytes:011o}").as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(magic);
    seal(&mut block);
    block
}

fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

const GNU: &[u8; 8] = b"ustar  \0";

fn member(name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, data.len(), b'0', GNU).to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// `count` samples of a `jpg` and a `txt`.
fn samples(count: usize) -> Vec<Vec<u8>> {
    let sample = |i: usize| {
        let name = |extension: &str| format!("g{i:04}.{extension}").into_bytes();
        [member(&name("jpg"), &[i as u8; 700]), member(&name("txt"), b"dog")].concat()
    };
    (0..count).map(sample).collect()
}

fn read(bytes: &[u8]) -> (usize, Vec<&'static str>) {
    let (mut whole, mut reasons) = (0, Vec::new());
    for sample in SampleReader::new(TarBytes::open(bytes).unwrap(), false) {
        match sample {
            Ok(sample) => {
                assert_eq!(sample.extensions(), "jpg, txt");
                whole += 1;
            }
            Err(reject) => reasons.push(reject.error.reason()),
        }
    }
    (whole, reasons)
}

const END: [u8; 1024] = [0; 1024];

#[test]
fn defect_1_a_malformed_pax_record_is_an_error_not_the_end() {
    let mut shard = samples(5).concat();
    shard.extend(header(b"pax", 6, b'x', b"ustar\x0000"));
    shard.extend([&b"3 x=1\n"[..], &[0; 506]].concat());
    shard.extend(samples(5).concat());
    shard.extend(END);
    // The last sample before it may have lost a file, so it is no row.
    assert_eq!(read(&shard), (4, vec!["shard-damaged"]));
}

#[test]
fn defect_6_a_cut_at_an_entry_border_is_no_end() {
    let shard = samples(3).concat();
    assert_eq!(read(&shard), (2, vec!["shard-cut"]));
    assert_eq!(read(&[shard, END.to_vec()].concat()), (3, vec![]));
}

#[test]
fn defect_7_a_cut_inside_an_entry_emits_no_half_sample() {
    let shard = samples(3).concat();
    let last_bytes = samples(1)[0].len();
    for cut in 1..last_bytes {
        let (whole, reasons) = read(&shard[..shard.len() - cut]);
        // Half a header may have been of one more file of the sample before.
        let expected = if cut > last_bytes - 512 { 1 } else { 2 };
        assert_eq!((whole, reasons), (expected, vec!["shard-cut"]), "{cut} bytes are missing");
    }
}

#[test]
fn defect_8_the_size_of_a_pax_header_is_obeyed() {
    let mut shard = header(b"pax", 12, b'x', b"ustar\x0000").to_vec();
    shard.extend([&b"12 size=700\n"[..], &[0; 500]].concat());
    shard.extend(header(b"g.jpg", 0, b'0', b"ustar\x0000"));
    shard.extend([&[1; 700][..], &[0; 324]].concat());
    shard.extend(member(b"g.txt", b"dog"));
    shard.extend(END);
    assert_eq!(read(&shard), (1, vec![]));
}

#[test]
fn defect_9_a_name_that_is_not_utf8_costs_nothing() {
    let mut all = samples(2);
    all.push([member(b"caf\xe9.jpg", b"1"), member(b"caf\xe9.txt", b"dog")].concat());
    all.extend(samples(4).split_off(2));
    assert_eq!(read(&[all.concat(), END.to_vec()].concat()), (5, vec![]));
}

#[test]
fn defect_10_times_in_a_gnu_header_are_no_folder() {
    let mut block = header(b"g0000.txt", 0, b'0', GNU);
    block[345..356].copy_from_slice(b"14524770400");
    seal(&mut block);
    let shard = [&block[..], &END].concat();
    let mut reader = SampleReader::new(TarBytes::open(&shard).unwrap(), false);
    assert_eq!(reader.next().unwrap().unwrap().key, b"g0000");
}

#[test]
fn defect_11_a_file_with_a_percent_sign_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("100%25.tar");
    std::fs::write(&path, b"").unwrap();
    let list = ShardList::expand(&[path.to_str().unwrap().to_owned()], None).unwrap();
    assert_eq!(list.0[0].path(), path);
}

#[test]
fn defect_13_what_a_dead_writer_left_is_never_taken_for_whole() {
    // Every prefix of a shard but those that hold an end mark.
    let shard = [samples(2).concat(), END.to_vec()].concat();
    let without_end = shard.len() - END.len();
    for at in (0..without_end).step_by(128) {
        let (whole, reasons) = read(&shard[..at]);
        assert!(whole < 2 && reasons.len() == 1, "{at}: {whole}, {reasons:?}");
    }
}

#[test]
fn a_sample_with_a_link_or_a_sparse_file_is_no_sample_without_it() {
    for kind in [b'1', b'2', b'S'] {
        let mut shard = header(b"a.jpg", 0, kind, GNU).to_vec();
        shard.extend(member(b"a.txt", b"dog"));
        shard.extend(samples(1).concat());
        shard.extend(END);
        assert_eq!(read(&shard), (1, vec!["member-kind"]));
    }
}
