//! Tests of the tar reader: the `tar` crate writes, bytes are then broken by hand.

use super::*;

type Files = Vec<(Vec<u8>, Vec<u8>)>;

fn read(shard: &[u8]) -> (Files, Option<TarError>) {
    let mut files = Vec::new();
    for member in TarReader::new(TarBytes::open(shard).unwrap()) {
        match member {
            Ok(m) => files.push((m.name, m.data.into_owned())),
            Err(e) => return (files, Some(e)),
        }
    }
    (files, None)
}

fn written(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A header block written by hand: name, size field, kind, magic.
fn header(name: &[u8], size: &[u8; 12], kind: u8, magic: &[u8; 8]) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(size);
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

const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";

fn octal(size: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field[..11].copy_from_slice(format!("{size:011o}").as_bytes());
    field
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    bytes.resize(data.len().next_multiple_of(512), 0);
    bytes
}

const END: [u8; 1024] = [0; 1024];

#[test]
fn files_come_in_order_with_their_bytes() {
    let long = "d/".repeat(80) + "long.jpg";
    let shard = written(&[("a.jpg", b"AAA"), (&long, &[7; 513]), ("a.txt", b"")]);
    let (files, error) = read(&shard);
    assert!(error.is_none());
    assert_eq!(files[0], (b"a.jpg".to_vec(), b"AAA".to_vec()));
    assert_eq!(files[1], (long.into_bytes(), vec![7; 513]));
    assert_eq!(files[2], (b"a.txt".to_vec(), vec![]));
}

#[test]
fn gzip_and_zstd_shards_read_the_same() {
    let plain = written(&[("a.jpg", &[1; 5000]), ("a.txt", b"dog")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &plain).unwrap();
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    assert_eq!(read(&gzip.finish().unwrap()).0, read(&plain).0);
    assert_eq!(read(&zstd).0, read(&plain).0);
}

#[test]
fn a_cut_inside_a_member_says_where_and_how_much() {
    let shard = written(&[("a.jpg", &[1; 600]), ("b.jpg", &[2; 600])]);
    let (files, error) = read(&shard[..1536 + 512 + 100]);
    assert_eq!(files.len(), 1);
    assert_eq!(
        error.unwrap().to_string(),
        "it ends inside `b.jpg` at byte 2048: expected 600 bytes, found 100"
    );
}

#[test]
fn a_cut_at_a_border_is_no_end() {
    let shard = written(&[("a.jpg", &[1; 600]), ("b.jpg", &[2; 600])]);
    let (files, error) = read(&shard[..1536]);
    assert_eq!(files.len(), 1);
    assert!(matches!(error.unwrap(), TarError::NoEnd { offset: 1536 }));
}

#[test]
fn a_cut_gzip_stream_is_cut() {
    let plain = written(&[("a.jpg", &[1; 600]), ("b.bin", &(0..=255).collect::<Vec<u8>>())]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &plain).unwrap();
    let whole = gzip.finish().unwrap();
    let (_, error) = read(&whole[..whole.len() - 40]);
    assert!(error.unwrap().is_cut());
}

#[test]
fn text_is_no_tar() {
    let (files, error) = read(&b"hello, this is a caption and no tar file. ".repeat(30));
    assert!(files.is_empty());
    let error = error.unwrap();
    assert!(!error.is_cut() && error.to_string().contains("this is no tar"), "{error}");
}

#[test]
fn a_pax_size_wins_over_the_header() {
    let mut shard = Vec::new();
    let pax = b"12 size=700\n17 path=real.jpg\n";
    shard.extend(header(b"pax", &octal(pax.len() as u64), b'x', USTAR));
    shard.extend(padded(pax));
    shard.extend(header(b"short.jpg", &octal(3), b'0', USTAR));
    shard.extend(padded(&[9; 700]));
    shard.extend(END);
    let (files, error) = read(&shard);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(files, [(b"real.jpg".to_vec(), vec![9; 700])]);
}

#[test]
fn a_malformed_pax_field_ends_the_shard_with_an_error() {
    for pax in [&b"3 x=1\n"[..], b"99 path=a\n", b"nospace", b"x path=a\n", b"8 path\nxx"] {
        let mut shard = written(&[("first.jpg", b"1")]);
        shard.truncate(1024);
        shard.extend(header(b"pax", &octal(pax.len() as u64), b'x', USTAR));
        shard.extend(padded(pax));
        shard.extend(header(b"b.jpg", &octal(0), b'0', USTAR));
        shard.extend(END);
        let (files, error) = read(&shard);
        assert_eq!(files.len(), 1);
        assert!(matches!(error, Some(TarError::Header { offset: 1024, .. })), "{pax:?}: {error:?}");
    }
}

#[test]
fn a_base_256_size_above_8_gib_is_understood() {
    let mut field = [0; 12];
    field[0] = 0x80;
    field[4..].copy_from_slice(&(9u64 << 30).to_be_bytes());
    let mut shard = header(b"big.bin", &field, b'0', GNU).to_vec();
    shard.extend(END);
    let (_, error) = read(&shard);
    assert!(matches!(error, Some(TarError::Cut { expected, .. }) if expected == 9 << 30));
}

#[test]
fn names_that_are_not_utf8_are_bytes() {
    let mut shard = header(b"caf\xe9.jpg", &octal(2), b'0', GNU).to_vec();
    shard.extend(padded(b"ok"));
    shard.extend(END);
    assert_eq!(read(&shard).0, [(b"caf\xe9.jpg".to_vec(), b"ok".to_vec())]);
}

#[test]
fn times_of_a_gnu_header_are_no_prefix() {
    let mut block = header(b"g0.txt", &octal(0), b'0', GNU);
    block[345..356].copy_from_slice(b"14524770400");
    seal(&mut block);
    let mut shard = block.to_vec();
    shard.extend(END);
    assert_eq!(read(&shard).0[0].0, b"g0.txt");
}

#[test]
fn a_ustar_prefix_is_part_of_the_name() {
    let mut block = header(b"name.txt", &octal(0), b'0', USTAR);
    block[345..348].copy_from_slice(b"dir");
    seal(&mut block);
    let mut shard = block.to_vec();
    shard.extend(END);
    assert_eq!(read(&shard).0[0].0, b"dir/name.txt");
}

#[test]
fn folders_are_passed_over_and_links_and_sparse_files_named_without_bytes() {
    let mut shard = header(b"dir/", &octal(0), b'5', USTAR).to_vec();
    shard.extend(header(b"link.jpg", &octal(77), b'2', USTAR));
    shard.extend(header(b"hard.jpg", &octal(0), b'1', USTAR));
    let mut sparse = header(b"sparse.bin", &octal(512), b'S', GNU);
    sparse[482] = 1;
    seal(&mut sparse);
    shard.extend(sparse);
    shard.extend([0; 512]);
    shard.extend([5; 512]);
    let pax = b"22 GNU.sparse.major=1\n28 GNU.sparse.name=real.jpg\n";
    shard.extend(header(b"pax", &octal(pax.len() as u64), b'x', USTAR));
    shard.extend(padded(pax));
    shard.extend(header(b"GNUSparseFile.0/real.jpg", &octal(512), b'0', USTAR));
    shard.extend([6; 512]);
    shard.extend(header(b"fifo", &octal(9), b'6', USTAR));
    shard.extend(header(b"a.txt", &octal(1), b'0', USTAR));
    shard.extend(padded(b"x"));
    shard.extend(END);
    let mut reader = TarReader::new(TarBytes::open(&shard).unwrap());
    let members: Vec<_> = reader
        .by_ref()
        .map(|m| m.unwrap())
        .map(|m| (m.kind, String::from_utf8(m.name).unwrap(), m.data.len()))
        .collect();
    let member = |kind, name: &str, bytes| (kind, name.to_owned(), bytes);
    assert_eq!(
        members,
        [
            member(MemberKind::Link, "link.jpg", 0),
            member(MemberKind::Link, "hard.jpg", 0),
            member(MemberKind::Sparse, "sparse.bin", 0),
            member(MemberKind::Sparse, "real.jpg", 0),
            member(MemberKind::File, "a.txt", 1),
        ]
    );
    assert_eq!(reader.passed_over(), 2);
}

/// A real file of 9 GiB without its bytes: the map is as long, the disk holds two headers.
#[test]
fn an_entry_above_8_gib_is_read_whole() {
    use std::os::unix::fs::FileExt;
    let big_bytes = 9u64 << 30;
    let mut field = [0; 12];
    field[0] = 0x80;
    field[4..].copy_from_slice(&big_bytes.to_be_bytes());
    let by_pax = [
        &header(b"pax", &octal(19), b'x', USTAR)[..],
        &padded(format!("19 size={big_bytes}\n").as_bytes()),
        &header(b"big.bin", &octal(0), b'0', USTAR),
    ]
    .concat();
    for head in [header(b"big.bin", &field, b'0', GNU).to_vec(), by_pax] {
        let file = tempfile::tempfile().unwrap();
        let data_at = head.len() as u64;
        file.write_all_at(&head, 0).unwrap();
        let small = [&header(b"big.txt", &octal(3), b'0', GNU)[..], &padded(b"dog"), &END].concat();
        file.write_all_at(&small, data_at + big_bytes).unwrap();
        let map = crate::source::map::MappedFile::of_file(&file).unwrap();
        let mut reader = TarReader::new(TarBytes::open(&map).unwrap());
        let big = reader.next().unwrap().unwrap();
        assert_eq!((big.data.len() as u64, big.offset), (big_bytes, data_at));
        assert_eq!(&*reader.next().unwrap().unwrap().data, b"dog");
        assert!(reader.next().is_none());
    }
}

/// Bytes of a gzip stream may be damaged and still inflate: its checksum, after the end mark,
/// tells.
#[test]
fn a_wrong_checksum_behind_the_end_mark_is_reported() {
    let plain = written(&[("a.bin", &[7; 2000])]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    std::io::Write::write_all(&mut gzip, &plain).unwrap();
    let mut bytes = gzip.finish().unwrap();
    let at = bytes.windows(8).position(|w| w == [7; 8]).unwrap();
    bytes[at] = 8;
    let (files, error) = read(&bytes);
    assert_eq!((files.len(), files[0].1[0]), (1, 8));
    assert!(matches!(error, Some(TarError::Compression { .. })), "{error:?}");
}

mod against_the_tar_crate {
    use proptest::prelude::*;

    use super::*;

    fn files() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        let name = "[a-z]{1,8}(/[a-z]{1,40}){0,5}\\.[a-z]{1,4}";
        prop::collection::vec((name, prop::collection::vec(any::<u8>(), 0..2000)), 0..12)
    }

    proptest! {
        #[test]
        fn whatever_it_writes_is_read(files in files()) {
            let refs: Vec<_> = files.iter().map(|(n, d)| (n.as_str(), &d[..])).collect();
            let (found, error) = read(&written(&refs));
            prop_assert!(error.is_none());
            let expected: Files =
                files.iter().map(|(n, d)| (n.clone().into_bytes(), d.clone())).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn whatever_is_cut_is_an_error_and_never_another_file(files in files(), at in 0.0..1.0f64) {
            let refs: Vec<_> = files.iter().map(|(n, d)| (n.as_str(), &d[..])).collect();
            let shard = written(&refs);
            let data_bytes = shard.len() - 1024;
            let (found, error) = read(&shard[..(data_bytes as f64 * at) as usize]);
            prop_assert!(error.unwrap().is_cut());
            for (got, (name, data)) in found.iter().zip(&files) {
                prop_assert_eq!(&got.0, name.as_bytes());
                prop_assert_eq!(&got.1, data);
            }
        }

        #[test]
        fn hostile_bytes_never_panic(mut shard in prop::collection::vec(any::<u8>(), 0..3000),
                                     good in any::<bool>()) {
            if good && shard.len() >= 512 {
                let mut block: [u8; 512] = shard[..512].try_into().unwrap();
                seal(&mut block);
                shard[..512].copy_from_slice(&block);
            }
            let _ = read(&shard);
        }
    }
}

/// Writes tars as Python's `tarfile` does, in all of its formats, and prints what is in them:
/// file, name in hex, length, CRC-32; what is no regular file is left out.
const PYTHON: &str = r#"
import io, os, random, sys, tarfile, zlib
folder, seed = sys.argv[1], int(sys.argv[2])
draw = random.Random(seed)
letters = "abcxyz0189_-+ é猫"
for number in range(60):
    path = os.path.join(folder, f"{number:02}.tar")
    form = draw.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    mode = draw.choice(["w", "w", "w:gz"])
    with tarfile.open(path, mode, format=form, encoding="utf-8") as tar:
        for i in range(draw.randrange(12)):
            word = lambda most: "".join(draw.choices(letters, k=draw.randint(1, most)))
            parts = [word(draw.choice([8, 40])) for _ in range(draw.randint(1, 4))]
            name = "/".join(parts) + "." + word(4)
            if form == tarfile.USTAR_FORMAT:
                name = word(20) + ".x"
            info = tarfile.TarInfo(name)
            odd = 5 if form == tarfile.USTAR_FORMAT else 12345.678
            info.mtime = draw.choice([0, 1, 2**33 - 1, odd])
            info.uname = word(6)
            kind = draw.choice("ffffffdsh")
            if kind == "f":
                data = draw.randbytes(draw.choice([0, 1, 511, 512, 513, draw.randrange(5000)]))
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                print(f"{number:02}.tar", name.encode().hex(), len(data), zlib.crc32(data))
            else:
                info.type = {"d": tarfile.DIRTYPE, "s": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}[kind]
                info.linkname = "" if kind == "d" else word(30)
                tar.addfile(info)
"#;

#[test]
fn what_pythons_tarfile_writes_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut python = std::process::Command::new("python3");
    let Ok(output) = python.args(["-c", PYTHON]).arg(folder.path()).arg("7").output() else {
        println!("skipped: no python3");
        return;
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let expected = String::from_utf8(output.stdout).unwrap();
    let mut found = String::new();
    for number in 0..60 {
        let shard = std::fs::read(folder.path().join(format!("{number:02}.tar"))).unwrap();
        for member in TarReader::new(TarBytes::open(&shard).unwrap()) {
            let member = member.unwrap();
            if member.kind != MemberKind::File {
                continue;
            }
            let name: String = member.name.iter().map(|b| format!("{b:02x}")).collect();
            let mut crc = flate2::Crc::new();
            crc.update(&member.data);
            let (bytes, crc) = (member.data.len(), crc.sum());
            found += &format!("{number:02}.tar {name} {bytes} {crc}\n");
        }
    }
    assert!(expected.lines().count() > 100);
    assert_eq!(found, expected);
}
