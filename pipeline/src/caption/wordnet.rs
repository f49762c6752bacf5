//! The nouns of WordNet 3.0.
//!
//! In: the compiled table of `pipeline/wordnet/` (its README has the layout). Out: senses of a
//! lemma, and head lemma, lemmas and hypernyms of a synset.
//! Never: reads a file at run time, knows verbs, adjectives or glosses, or trusts the table's
//! numbers: each is checked once, at parsing, so that no look-up can miss.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::sync::LazyLock;

use catlip_schemas::SynsetId;

use super::word_table::WordTable;

/// First bytes of a compiled table.
const MAGIC: &[u8; 8] = b"catlipWN";

/// Version of the layout that is read.
const VERSION: u32 = 1;

/// Limit of a table after inflation: WordNet 3.0 has 2.8 MB, so this is five times as much.
const INFLATED_BYTES_MAX: usize = 14_000_000;

/// What is wrong with a compiled table.
#[derive(Debug, thiserror::Error)]
pub enum WordNetError {
    /// Not a compiled table.
    #[error("no compiled WordNet: the first {} bytes are not `catlipWN`", MAGIC.len())]
    Magic,
    /// Another layout.
    #[error("layout version is {found}, expected {VERSION}")]
    Version {
        /// The version in the header.
        found: u32,
    },
    /// More than any WordNet needs.
    #[error("table has {found} bytes inflated, above the limit of {INFLATED_BYTES_MAX}")]
    TooLarge {
        /// Bytes by the header.
        found: usize,
    },
    /// Not a zlib stream, or a damaged one.
    #[error("table does not inflate")]
    Inflate(#[source] std::io::Error),
    /// A section that does not fit what is there.
    #[error("section `{section}` needs {needed} bytes, {left} are left")]
    Cut {
        /// Name of the section.
        section: &'static str,
        /// Its bytes.
        needed: usize,
        /// Bytes left.
        left: usize,
    },
    /// Bytes after the last section.
    #[error("{found} bytes stand after the last section")]
    Trailing {
        /// How many.
        found: usize,
    },
    /// A number outside its range.
    #[error("section `{section}`, row {row}: found {found}, expected {expected}")]
    Number {
        /// Name of the section.
        section: &'static str,
        /// Index within the section.
        row: usize,
        /// What is there.
        found: usize,
        /// What may be there.
        expected: String,
    },
    /// Texts that are not ASCII lines in rising order.
    #[error("section `{section}`, line {row}: {message}")]
    Text {
        /// Name of the section.
        section: &'static str,
        /// Index of the line.
        row: usize,
        /// What is wrong.
        message: &'static str,
    },
}

/// Nouns of one WordNet. Synsets and lemmas are rows in rising order of offset and of spelling.
#[derive(Debug)]
pub struct WordNet {
    lemmas: Lines,
    /// Rows of synsets by lemma, first sense first.
    senses: Lists,
    offsets: Vec<SynsetId>,
    /// Rows of lemmas by synset, the head first.
    members: Lists,
    /// Rows of synsets by synset.
    hypernyms: Lists,
    exceptions: HashMap<String, Vec<String>>,
}

static EMBEDDED: LazyLock<WordNet> = LazyLock::new(|| {
    // The table is committed and tested with this code: that it fails is a broken build.
    WordNet::parse(include_bytes!("../../wordnet/nouns.bin"))
        .unwrap_or_else(|error| panic!("the embedded nouns.bin is broken: {error}"))
});

impl WordNet {
    /// WordNet 3.0, built into the binary; parsed at the first call.
    pub fn embedded() -> &'static Self {
        &EMBEDDED
    }

    /// Reads a compiled table.
    ///
    /// # Errors
    ///
    /// [`WordNetError`] for anything that `compile.py` does not write; never a table that a
    /// look-up could fall out of.
    pub fn parse(file: &[u8]) -> Result<Self, WordNetError> {
        let raw = inflate(file)?;
        let mut sections = Sections { rest: &raw };
        let num_lemmas = sections.count("lemmas")?;
        let num_synsets = sections.count("synsets")?;
        let num_senses = sections.count("senses")?;
        let num_hypernyms = sections.count("hypernyms")?;
        let num_exceptions = sections.count("exceptions")?;

        let lemmas = sections.lines("lemmas", num_lemmas)?;
        let per_lemma = sections.bytes("senses per lemma", num_lemmas)?;
        let sense_rows = sections.rows("senses", num_senses, num_synsets)?;
        let senses = Lists::new("senses per lemma", per_lemma, sense_rows)?;
        let offsets = sections.offsets(num_synsets)?;
        let heads = sections.bytes("heads", num_synsets)?;
        let members = members_by_synset(&senses, heads)?;
        let per_synset = sections.bytes("hypernyms per synset", num_synsets)?;
        let hypernym_rows = sections.rows("hypernyms", num_hypernyms, num_synsets)?;
        let hypernyms = Lists::new("hypernyms per synset", per_synset, hypernym_rows)?;
        let exceptions = read_exceptions(&sections.lines("exceptions", num_exceptions)?);
        if !sections.rest.is_empty() {
            return Err(WordNetError::Trailing { found: sections.rest.len() });
        }
        Ok(Self { lemmas, senses, offsets, members, hypernyms, exceptions })
    }

    /// The most frequent noun sense of a lemma such as `dog` or `ice_cream`.
    pub fn first_sense(&self, lemma: &str) -> Option<SynsetId> {
        self.senses(lemma).next()
    }

    /// The most frequent noun sense of a lemma, if the lemma is the one that names the synset.
    pub fn sense_named(&self, lemma: &str) -> Option<SynsetId> {
        let row = self.lemma_row(lemma)?;
        let &synset = self.senses.get(row).first()?;
        let &head = self.members.get(synset as usize).first()?;
        (head as usize == row).then(|| self.synset(synset))
    }

    /// All noun senses of a lemma, in WordNet's order; none for what is no noun lemma.
    pub fn senses(&self, lemma: &str) -> impl Iterator<Item = SynsetId> {
        let row = self.lemma_row(lemma);
        row.into_iter().flat_map(|row| self.senses.get(row)).map(|&synset| self.synset(synset))
    }

    /// Whether `lemma` is a noun in its base form.
    pub fn is_noun_lemma(&self, lemma: &str) -> bool {
        self.lemma_row(lemma).is_some()
    }

    /// The first lemma of a synset, which gives it its name.
    pub fn head_lemma(&self, synset: SynsetId) -> Option<&str> {
        self.lemmas(synset).next()
    }

    /// The lemmas of a synset: the head, then the others by spelling.
    pub fn lemmas(&self, synset: SynsetId) -> impl Iterator<Item = &str> {
        let row = self.synset_row(synset);
        row.into_iter().flat_map(|row| self.members.get(row)).map(|&l| self.lemmas.get(l as usize))
    }

    /// The synsets that `synset` is a kind or an instance of, in WordNet's order.
    pub fn hypernyms(&self, synset: SynsetId) -> impl Iterator<Item = SynsetId> {
        let row = self.synset_row(synset);
        row.into_iter().flat_map(|row| self.hypernyms.get(row)).map(|&above| self.synset(above))
    }

    /// Whether `synset`, or one that it is a kind or an instance of, is one that is sought.
    pub fn is_kind_of(&self, synset: SynsetId, is_sought: impl Fn(SynsetId) -> bool) -> bool {
        let mut above: Vec<u32> =
            self.synset_row(synset).map(|row| row as u32).into_iter().collect();
        while let Some(row) = above.pop() {
            if is_sought(self.synset(row)) {
                return true;
            }
            above.extend_from_slice(self.hypernyms.get(row as usize));
        }
        false
    }

    /// The lemmas of an irregular form such as `mice`.
    pub fn exceptions(&self, form: &str) -> Option<&[String]> {
        self.exceptions.get(form).map(Vec::as_slice)
    }

    /// Every noun lemma by rising spelling.
    pub fn noun_lemmas(&self) -> impl Iterator<Item = &str> + Clone {
        (0..self.lemmas.len()).map(|row| self.lemmas.get(row))
    }

    /// Every irregular form, in no order.
    pub fn irregular_forms(&self) -> impl Iterator<Item = &str> + Clone {
        self.exceptions.keys().map(String::as_str)
    }

    /// Every synset by rising offset.
    pub fn synsets(&self) -> impl ExactSizeIterator<Item = SynsetId> {
        self.offsets.iter().copied()
    }

    fn synset(&self, row: u32) -> SynsetId {
        self.offsets[row as usize]
    }

    fn synset_row(&self, synset: SynsetId) -> Option<usize> {
        self.offsets.binary_search(&synset).ok()
    }

    fn lemma_row(&self, lemma: &str) -> Option<usize> {
        self.lemmas.find(lemma)
    }
}

/// Turns senses by lemma into lemmas by synset; `heads` says which of them comes first.
fn members_by_synset(senses: &Lists, heads: &[u8]) -> Result<Lists, WordNetError> {
    let mut members = vec![Vec::new(); heads.len()];
    for lemma in 0..senses.len() {
        for &synset in senses.get(lemma) {
            members[synset as usize].push(lemma as u32);
        }
    }
    for (row, (members, &head)) in members.iter_mut().zip(heads).enumerate() {
        let num_members = members.len();
        let Some(up_to_head) = members.get_mut(..=usize::from(head)) else {
            let expected = format!("less than the {num_members} lemmas of the synset");
            return Err(WordNetError::Number {
                section: "heads",
                row,
                found: head.into(),
                expected,
            });
        };
        up_to_head.rotate_right(1);
    }
    Ok(Lists::from_lists(&members))
}

/// Lines of an irregular form and its lemmas.
fn read_exceptions(lines: &Lines) -> HashMap<String, Vec<String>> {
    (0..lines.len())
        .map(|row| {
            let mut words = lines.get(row).split(' ').map(str::to_owned);
            (words.next().unwrap_or_default(), words.collect())
        })
        .collect()
}

/// Checks the header and inflates what follows it.
fn inflate(file: &[u8]) -> Result<Vec<u8>, WordNetError> {
    let mut header = Sections { rest: file };
    if header.bytes("magic", MAGIC.len()).ok() != Some(MAGIC) {
        return Err(WordNetError::Magic);
    }
    let version = header.count("version")?;
    if version != VERSION as usize {
        return Err(WordNetError::Version { found: version as u32 });
    }
    let declared = header.count("inflated bytes")?;
    if declared > INFLATED_BYTES_MAX {
        return Err(WordNetError::TooLarge { found: declared });
    }
    let mut raw = Vec::with_capacity(declared);
    // One byte more than declared shows that there is more, and never inflates a bomb.
    let mut inflated = flate2::read::ZlibDecoder::new(header.rest).take(declared as u64 + 1);
    inflated.read_to_end(&mut raw).map_err(WordNetError::Inflate)?;
    if raw.len() == declared {
        return Ok(raw);
    }
    Err(WordNetError::Number {
        section: "inflated bytes",
        row: 0,
        found: raw.len(),
        expected: declared.to_string(),
    })
}

/// What of a table is not read yet.
struct Sections<'a> {
    rest: &'a [u8],
}

impl<'a> Sections<'a> {
    fn bytes(&mut self, section: &'static str, needed: usize) -> Result<&'a [u8], WordNetError> {
        let left = self.rest.len();
        let (head, rest) = self.rest.split_at_checked(needed).ok_or(WordNetError::Cut {
            section,
            needed,
            left,
        })?;
        self.rest = rest;
        Ok(head)
    }

    /// One little-endian `u32`.
    fn count(&mut self, section: &'static str) -> Result<usize, WordNetError> {
        let bytes = self.bytes(section, 4)?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }

    /// `len` numbers of 24 bits, stored as all low bytes, all middle bytes, all high bytes.
    fn numbers(&mut self, section: &'static str, len: usize) -> Result<Vec<u32>, WordNetError> {
        // A count is a `u32`: three times it fits 64 bits.
        let planes = self.bytes(section, len * 3)?;
        let byte = |plane: usize, row: usize| u32::from(planes[plane * len + row]);
        Ok((0..len).map(|row| byte(0, row) | byte(1, row) << 8 | byte(2, row) << 16).collect())
    }

    /// `len` rows of a table with `num_rows` rows.
    fn rows(
        &mut self,
        section: &'static str,
        len: usize,
        num_rows: usize,
    ) -> Result<Vec<u32>, WordNetError> {
        let rows = self.numbers(section, len)?;
        match rows.iter().position(|&row| row as usize >= num_rows) {
            None => Ok(rows),
            Some(row) => Err(WordNetError::Number {
                section,
                row,
                found: rows[row] as usize,
                expected: format!("less than {num_rows}"),
            }),
        }
    }

    /// `len` rising offsets, each stored as its distance from the one before.
    fn offsets(&mut self, len: usize) -> Result<Vec<SynsetId>, WordNetError> {
        let section = "offsets";
        let mut offset = 0_i32;
        let mut offsets = Vec::with_capacity(len.min(self.rest.len()));
        for (row, step) in self.numbers(section, len)?.into_iter().enumerate() {
            // A step has 24 bits, so it is never negative as an `i32`.
            let next = offset.checked_add(step as i32).filter(|&next| next > offset);
            offset = next.ok_or_else(|| WordNetError::Number {
                section,
                row,
                found: step as usize,
                expected: format!("1 to {}", i32::MAX - offset),
            })?;
            offsets.push(SynsetId(offset));
        }
        Ok(offsets)
    }

    /// `len` lines of ASCII in strictly rising order.
    fn lines(&mut self, section: &'static str, len: usize) -> Result<Lines, WordNetError> {
        let num_bytes = self.count(section)?;
        let bytes = self.bytes(section, num_bytes)?;
        let wrong = |row, message| WordNetError::Text { section, row, message };
        if !bytes.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~')) {
            return Err(wrong(0, "not printable ASCII"));
        }
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut ranges = Vec::with_capacity(len.min(num_bytes));
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let row = ranges.len();
            let range = start..start + line.len() - 1;
            if !line.ends_with('\n') {
                return Err(wrong(row, "no newline at the end"));
            }
            if range.is_empty() {
                return Err(wrong(row, "empty"));
            }
            if ranges
                .last()
                .is_some_and(|before: &Range<usize>| text[before.clone()] >= text[range.clone()])
            {
                return Err(wrong(row, "not after the line before"));
            }
            start += line.len();
            ranges.push(range);
        }
        if ranges.len() != len {
            return Err(wrong(ranges.len(), "not as many lines as the header says"));
        }
        // A row is less than `len`, which is a `u32`.
        let rows = (0..).zip(&ranges).map(|(row, range)| (&text[range.clone()], row));
        let row_of = WordTable::new(rows);
        Ok(Lines { text, ranges, row_of })
    }
}

/// Texts by row, one after the other in one allocation, and rows by text.
#[derive(Debug)]
struct Lines {
    text: String,
    ranges: Vec<Range<usize>>,
    /// 6 MB for all lemmas. A binary search of `ranges` would do and took most of the time.
    row_of: WordTable<u32>,
}

impl Lines {
    fn len(&self) -> usize {
        self.ranges.len()
    }

    fn get(&self, row: usize) -> &str {
        &self.text[self.ranges[row].clone()]
    }

    fn find(&self, line: &str) -> Option<usize> {
        self.row_of.get(line.as_bytes()).map(|row| row as usize)
    }
}

/// Lists of rows, one after the other in one allocation.
#[derive(Debug)]
struct Lists {
    /// Where each list begins in `rows`, and the end of the last.
    starts: Vec<usize>,
    rows: Vec<u32>,
}

impl Lists {
    /// Cuts `rows` into lists of the given lengths.
    fn new(section: &'static str, lengths: &[u8], rows: Vec<u32>) -> Result<Self, WordNetError> {
        let mut starts = Vec::with_capacity(lengths.len() + 1);
        let mut end = 0;
        starts.push(end);
        for &length in lengths {
            end += usize::from(length);
            starts.push(end);
        }
        if end != rows.len() {
            return Err(WordNetError::Number {
                section,
                row: lengths.len(),
                found: end,
                expected: format!("{} in all", rows.len()),
            });
        }
        Ok(Self { starts, rows })
    }

    fn from_lists(lists: &[Vec<u32>]) -> Self {
        let ends = lists.iter().scan(0, |end, list| {
            *end += list.len();
            Some(*end)
        });
        Self { starts: std::iter::once(0).chain(ends).collect(), rows: lists.concat() }
    }

    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    fn get(&self, list: usize) -> &[u32] {
        &self.rows[self.starts[list]..self.starts[list + 1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = include_bytes!("../../wordnet/nouns.bin");

    fn wordnet() -> &'static WordNet {
        WordNet::embedded()
    }

    fn head(synset: SynsetId) -> &'static str {
        wordnet().head_lemma(synset).unwrap()
    }

    /// A file with the header and `raw` deflated.
    fn file(raw: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut out = [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat();
        out.extend((raw.len() as u32).to_le_bytes());
        let mut deflate = flate2::write::ZlibEncoder::new(out, flate2::Compression::fast());
        deflate.write_all(raw).unwrap();
        deflate.finish().unwrap()
    }

    /// Two lemmas, two synsets, one hypernym edge, one exception.
    fn small() -> Vec<u8> {
        let mut raw = Vec::new();
        for count in [2_u32, 2, 3, 1, 1] {
            raw.extend(count.to_le_bytes());
        }
        raw.extend(8_u32.to_le_bytes());
        raw.extend(b"cat\ndog\n");
        raw.extend([1, 2]); // senses per lemma
        raw.extend([1, 1, 0, 0, 0, 0, 0, 0, 0]); // cat: row 1; dog: rows 1 and 0
        raw.extend([5, 2, 0, 0, 0, 0]); // offsets 5 and 7
        raw.extend([0, 1]); // heads: dog of {dog}, dog of {cat, dog}
        raw.extend([0, 1]); // hypernyms per synset
        raw.extend([0, 0, 0]); // row 1 is a kind of row 0
        raw.extend(9_u32.to_le_bytes());
        raw.extend(b"dogz dog\n");
        raw
    }

    #[test]
    fn it_has_every_noun_of_wordnet_3_0() {
        assert_eq!(wordnet().synsets().len(), 82_115);
        assert_eq!(wordnet().lemmas.len(), 117_798);
        assert_eq!(wordnet().exceptions.len(), 2_050);
        assert_eq!(wordnet().synsets().last(), Some(SynsetId(15_300_051)));
    }

    #[test]
    fn first_senses_have_the_offsets_of_imagenet_and_the_reference() {
        let wnid = |lemma| wordnet().first_sense(lemma).unwrap().wnid();
        assert_eq!(wnid("dog"), "n02084071");
        assert_eq!(wnid("entity"), "n00001740");
        assert_eq!(wnid("tench"), "n01440764");
        assert_eq!(wnid("garage"), "n03416489");
        assert_eq!(wnid("motorcycle"), "n03790512");
        assert_eq!(wnid("person"), "n00007846");
        assert_eq!(wnid("black"), "n04960277");
        assert_eq!(wnid("grass"), "n12102133");
        assert_eq!(wnid("computer"), "n03082979");
        assert_eq!(wnid("artist"), "n09812338");
        assert_eq!(wnid("ice_cream"), "n07614500");
        assert_eq!(wnid("zebra"), "n02391049");
    }

    #[test]
    fn a_synset_is_named_by_its_head_lemma() {
        let first = |lemma| head(wordnet().first_sense(lemma).unwrap());
        assert_eq!(first("photo"), "photograph");
        assert_eq!(first("tv"), "television");
        assert_eq!(first("kid"), "child");
        assert_eq!(first("a"), "angstrom");
        assert_eq!(first("are"), "are");
        assert_eq!(first("men"), "work_force");
    }

    #[test]
    fn lemmas_begin_with_the_head_and_are_all_there() {
        let dog = wordnet().first_sense("dog").unwrap();
        let lemmas: Vec<_> = wordnet().lemmas(dog).collect();
        assert_eq!(lemmas, ["dog", "canis_familiaris", "domestic_dog"]);
    }

    #[test]
    fn senses_stand_in_wordnets_order() {
        let heads: Vec<_> = wordnet().senses("dog").map(head).collect();
        assert_eq!(heads, ["dog", "frump", "dog", "cad", "frank", "pawl", "andiron"]);
    }

    #[test]
    fn hypernyms_are_kinds_and_instances() {
        let above = |lemma| -> Vec<_> {
            wordnet().hypernyms(wordnet().first_sense(lemma).unwrap()).map(head).collect()
        };
        assert_eq!(above("dog"), ["canine", "domestic_animal"]);
        assert_eq!(above("einstein"), ["physicist"]);
        assert!(above("entity").is_empty());
    }

    #[test]
    fn what_is_no_noun_has_no_sense() {
        for word in ["", "the", "dogs", "Dog", "été", &"dog".repeat(100)] {
            assert!(!wordnet().is_noun_lemma(word), "{word}");
            assert_eq!(wordnet().first_sense(word), None);
        }
    }

    #[test]
    fn an_offset_between_synsets_is_no_synset() {
        for offset in [-1, 0, 2_084_072, i32::MAX] {
            assert_eq!(wordnet().head_lemma(SynsetId(offset)), None);
            assert_eq!(wordnet().hypernyms(SynsetId(offset)).count(), 0);
        }
    }

    #[test]
    fn of_exceptions_that_come_twice_the_last_holds() {
        assert_eq!(wordnet().exceptions("mice").unwrap(), ["mouse"]);
        assert_eq!(wordnet().exceptions("involucra").unwrap(), ["involucrum"]);
        assert_eq!(wordnet().exceptions("dogs"), None);
    }

    #[test]
    fn a_small_table_is_read() {
        let small = WordNet::parse(&file(&small())).unwrap();
        assert_eq!(small.senses("dog").collect::<Vec<_>>(), [SynsetId(7), SynsetId(5)]);
        assert_eq!(small.lemmas(SynsetId(7)).collect::<Vec<_>>(), ["dog", "cat"]);
        assert_eq!(small.hypernyms(SynsetId(7)).collect::<Vec<_>>(), [SynsetId(5)]);
        assert_eq!(small.exceptions("dogz").unwrap(), ["dog"]);
    }

    #[test]
    fn a_table_cut_anywhere_is_an_error() {
        let raw = small();
        for len in 0..raw.len() {
            assert!(WordNet::parse(&file(&raw[..len])).is_err(), "{len} bytes");
        }
        for len in (0..FILE.len()).step_by(4_999) {
            assert!(WordNet::parse(&FILE[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_a_table_that_can_be_asked() {
        let raw = small();
        for bit in 0..raw.len() * 8 {
            let mut raw = raw.clone();
            raw[bit / 8] ^= 1 << (bit % 8);
            if let Ok(table) = WordNet::parse(&file(&raw)) {
                for synset in table.synsets() {
                    table.lemmas(synset).for_each(|lemma| assert!(table.is_noun_lemma(lemma)));
                    table.hypernyms(synset).for_each(|above| assert!(above.0 > 0));
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_of_the_file_is_an_error() {
        for byte in (0..FILE.len()).step_by(99_991).chain(0..16) {
            let mut file = FILE.to_vec();
            file[byte] ^= 1;
            assert!(WordNet::parse(&file).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn errors_name_the_section_and_the_numbers() {
        let message = |raw: &[u8]| WordNet::parse(&file(raw)).unwrap_err().to_string();
        let mut raw = small();
        raw[34] = 9;
        assert_eq!(message(&raw), "section `senses`, row 0: found 9, expected less than 2");
        raw[34] = 1;
        raw.push(0);
        assert_eq!(message(&raw), "1 bytes stand after the last section");
        assert_eq!(message(&raw[..33]), "section `senses per lemma` needs 2 bytes, 1 are left");
    }

    #[test]
    fn a_table_that_claims_too_much_is_refused_before_it_is_inflated() {
        let mut file = file(b"");
        file[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(
            WordNet::parse(&file).unwrap_err().to_string(),
            "table has 4294967295 bytes inflated, above the limit of 14000000"
        );
    }
}
