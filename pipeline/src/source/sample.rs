//! The files that share a key, as WebDataset groups them.
//!
//! In: the members of one shard. Out: samples, or what was wrong with one. The key is the path up
//! to the first dot of its last component, the extension is the rest, in lower case. Members of
//! one key stand side by side; a key whose one file is a pickle is a sample of the reference, and
//! unpacked. Never: half a sample of a shard that is cut.

use std::borrow::Cow;
use std::collections::HashMap;

use super::bytes::TarBytes;
use super::pickled;
use super::tar::{Member, MemberKind, TarError, TarReader};
use crate::error::SampleError;

/// One file of a sample.
#[derive(Debug)]
pub struct File<'a> {
    /// Extension in lower case, such as `jpg` or `seg.png`.
    pub extension: String,
    /// Offset of its first byte in the tar stream.
    pub offset: u64,
    /// Its content.
    pub data: Cow<'a, [u8]>,
}

/// The files that share a key in one shard.
#[derive(Debug)]
pub struct Sample<'a> {
    /// The key as bytes: not every shard is UTF-8.
    pub key: Vec<u8>,
    /// Its files in the order of the shard.
    pub files: Vec<File<'a>>,
}

impl Sample<'_> {
    /// Offset of its first file in the tar stream.
    pub fn offset(&self) -> u64 {
        self.files.first().map_or(0, |f| f.offset)
    }

    /// The extensions of its files, for messages.
    pub fn extensions(&self) -> String {
        self.files.iter().map(|f| f.extension.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// A sample that is none, or damage of the shard: one entry of the ledger.
#[derive(Debug)]
pub struct Reject {
    /// The sample's key; empty for damage before the first one.
    pub key: Vec<u8>,
    /// Offset in the tar stream.
    pub offset: u64,
    /// What was wrong.
    pub error: SampleError,
}

/// A sample to which files may still come, and what is already wrong with it.
struct Open<'a> {
    sample: Sample<'a>,
    problem: Option<SampleError>,
}

/// An iterator over the samples of one shard.
pub struct SampleReader<'a> {
    tar: TarReader<'a>,
    allow_missing_end: bool,
    open: Option<Open<'a>>,
    pending: Vec<Reject>,
    first_offsets: HashMap<Vec<u8>, u64>,
    unnamed: u64,
    ended: bool,
}

impl<'a> SampleReader<'a> {
    /// Reads the samples of the tar in `bytes`.
    ///
    /// Without the end-of-archive mark nobody knows whether the last sample is whole: it is
    /// rejected, or kept if `allow_missing_end`.
    pub fn new(bytes: TarBytes<'a>, allow_missing_end: bool) -> Self {
        Self {
            tar: TarReader::new(bytes),
            allow_missing_end,
            open: None,
            pending: Vec::new(),
            first_offsets: HashMap::new(),
            unnamed: 0,
            ended: false,
        }
    }

    /// Offset in the tar stream up to which was read.
    pub fn position(&self) -> u64 {
        self.tar.position()
    }

    /// Members so far that belong to no sample: folders, links, names without an extension.
    pub fn passed_over(&self) -> u64 {
        self.tar.passed_over() + self.unnamed
    }

    /// Takes one member; gives the sample before it if that is complete now.
    fn take(&mut self, member: Member<'a>) -> Option<Open<'a>> {
        let Some((key, extension)) = split_name(&member.name) else {
            self.unnamed += 1;
            return None;
        };
        let problem = match member.kind {
            MemberKind::File => None,
            MemberKind::Link => Some("a link"),
            MemberKind::Sparse => Some("a sparse file"),
        };
        let problem =
            problem.map(|kind| SampleError::MemberKind { extension: extension.clone(), kind });
        let file = File { extension, offset: member.offset, data: member.data };
        match &mut self.open {
            Some(open) if open.sample.key == key => {
                open.sample.files.push(file);
                open.problem = open.problem.take().or(problem);
                None
            }
            _ => {
                let sample = Sample { key: key.to_vec(), files: vec![file] };
                self.open.replace(Open { sample, problem })
            }
        }
    }

    /// Checks what only the whole shard or the whole sample can tell.
    fn check(&mut self, open: Open<'a>) -> Result<Sample<'a>, Reject> {
        let Open { mut sample, problem } = open;
        let offset = sample.offset();
        let key = sample.key.clone();
        let reject = |error| Reject { key, offset, error };
        if let Some(&first_offset) = self.first_offsets.get(&sample.key) {
            return Err(reject(SampleError::KeyRepeats { first_offset }));
        }
        self.first_offsets.insert(sample.key.clone(), offset);
        if let Some(problem) = problem {
            return Err(reject(problem));
        }
        for (i, file) in sample.files.iter().enumerate() {
            if sample.files[..i].iter().any(|f| f.extension == file.extension) {
                let extension = file.extension.clone();
                return Err(reject(SampleError::MemberRepeats { extension }));
            }
        }
        if let [file] = &sample.files[..]
            && file.extension == pickled::EXTENSION
        {
            sample.files = pickled::unpack(file).map_err(reject)?;
        }
        Ok(sample)
    }

    /// What remains when the tar ends, well or badly.
    ///
    /// A shard that ends inside a file of the next key leaves the sample before it whole; one that
    /// ends inside a header leaves it in doubt.
    fn end(&mut self, error: Option<TarError>) -> Option<Open<'a>> {
        self.ended = true;
        let last = self.open.take();
        let Some(error) = error else { return last };
        if self.allow_missing_end && matches!(error, TarError::NoEnd { .. }) {
            return last;
        }
        let inside = self.tar.inside().and_then(split_name).map(|(key, _)| key.to_vec());
        let message = error.to_string();
        let error = if error.is_cut() {
            SampleError::ShardCut { message }
        } else {
            SampleError::ShardDamaged { message }
        };
        let (whole, key, offset) = match (last, inside) {
            (Some(last), Some(key)) if last.sample.key != key => (Some(last), key, 0),
            (Some(last), _) => (None, last.sample.key.clone(), last.sample.offset()),
            (None, key) => (None, key.unwrap_or_default(), 0),
        };
        self.pending.push(Reject { key, offset, error });
        whole
    }
}

impl<'a> Iterator for SampleReader<'a> {
    type Item = Result<Sample<'a>, Reject>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let complete = match self.tar.next() {
                Some(Ok(member)) => self.take(member),
                Some(Err(error)) => self.end(Some(error)),
                None => self.end(None),
            };
            if let Some(sample) = complete {
                return Some(self.check(sample));
            }
        }
        self.pending.pop().map(Err)
    }
}

/// Splits `dir/key.seg.png` into `dir/key` and `seg.png`; `None` without a dot, without a key, or
/// for WebDataset's own files such as `__index__.json`.
fn split_name(name: &[u8]) -> Option<(&[u8], String)> {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let base = name.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].iter().position(|&b| b == b'.')?;
    let stem = &name[base..dot];
    if stem.is_empty() || (stem.starts_with(b"__") && stem.ends_with(b"__")) {
        return None;
    }
    Some((&name[..dot], String::from_utf8_lossy(&name[dot + 1..]).to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn read(bytes: &[u8], allow_missing_end: bool) -> Vec<String> {
        SampleReader::new(TarBytes::open(bytes).unwrap(), allow_missing_end)
            .map(|s| match s {
                Ok(s) => format!("{}: {}", String::from_utf8_lossy(&s.key), s.extensions()),
                Err(r) => format!("{} {}", r.error.reason(), String::from_utf8_lossy(&r.key)),
            })
            .collect()
    }

    #[test]
    fn files_are_grouped_by_path_up_to_the_first_dot() {
        let bytes =
            shard(&[("d.x/a.jpg", ""), ("d.x/a.seg.PNG", ""), ("d.x/b.txt", ""), ("c.jpg", "")]);
        assert_eq!(read(&bytes, false), ["d.x/a: jpg, seg.png", "d.x/b: txt", "c: jpg"]);
    }

    #[test]
    fn names_without_extension_and_index_files_are_counted() {
        let bytes = shard(&[("README", ""), (".hidden", ""), ("__i__.json", ""), ("a.jpg", "")]);
        let mut reader = SampleReader::new(TarBytes::open(&bytes).unwrap(), false);
        assert_eq!(reader.next().unwrap().unwrap().key, b"a");
        assert!(reader.next().is_none());
        assert_eq!(reader.passed_over(), 3);
    }

    #[test]
    fn a_key_that_comes_again_is_rejected() {
        let bytes = shard(&[("a.jpg", ""), ("b.jpg", ""), ("a.txt", "")]);
        assert_eq!(read(&bytes, false), ["a: jpg", "b: jpg", "key-repeats a"]);
    }

    #[test]
    fn an_extension_that_comes_twice_is_rejected() {
        let bytes = shard(&[("a.jpg", "1"), ("a.JPG", "2")]);
        assert_eq!(read(&bytes, false), ["member-repeats a"]);
    }

    #[test]
    fn a_cut_at_a_border_costs_the_last_sample() {
        let whole = shard(&[("a.jpg", "1"), ("a.txt", "1"), ("b.jpg", "2"), ("b.txt", "2")]);
        let cut = &whole[..3 * 1024];
        assert_eq!(read(cut, false), ["a: jpg, txt", "shard-cut b"]);
        assert_eq!(read(cut, true), ["a: jpg, txt", "b: jpg"]);
    }

    #[test]
    fn a_cut_inside_a_file_never_gives_the_half_sample() {
        let whole = shard(&[("a.jpg", "1"), ("b.jpg", "2"), ("b.txt", "2")]);
        let in_header = read(&whole[..1024 + 1], true);
        assert_eq!(in_header, ["shard-cut a"], "a file of `a` may have followed");
        for at in [1024 + 513, 2048 + 10, 2048 + 512 + 1] {
            assert_eq!(read(&whole[..at], true), ["a: jpg", "shard-cut b"], "{at}");
        }
    }

    #[test]
    fn an_empty_shard_and_a_text_file_are_reported() {
        assert_eq!(read(b"", false), ["shard-cut "]);
        assert_eq!(read(&b"no tar at all ".repeat(60), false), ["shard-damaged "]);
        assert_eq!(read(&[0; 1024], false), Vec::<String>::new());
    }
}

#[cfg(test)]
#[path = "peer_defect_tests.rs"]
mod peer_defects;
