//! Which part number stands for which shard.
//!
//! In: names of shards. Out: their numbers, the same for every job on the data set. A number is
//! given once, by a list in `sources/` that is created exclusively before the part is made; the
//! name of a list says which number it begins with, so lists follow each other without gaps. A list
//! that has grown, in whatever order, leaves the numbers that were given as they are.

use std::collections::HashMap;

use catlip_schemas::version::FORMAT_VERSION;
use catlip_schemas::{NumberedSource, PartName, SourceList, SourceUse};

use super::change::json_text;
use super::folder::Folder;
use super::snapshot::DataSet;
use crate::error::PrepError;

/// The numbers given so far.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    sources: Vec<NumberedSource>,
    /// Numbers that stand for all samples of a shard, rising.
    whole: HashMap<String, Vec<u32>>,
    /// How many of them are on disk.
    written: usize,
}

impl Numbers {
    /// Reads the lists of the data set in `output`.
    ///
    /// A data set of format version 1 has none; there the parts of its snapshot are the list.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Schema`].
    pub fn load(output: &Folder, old: Option<&DataSet>) -> Result<Self, PrepError> {
        let mut numbers = Self::default();
        loop {
            let name = SourceList::file(numbers.next());
            let Some(bytes) = output.find(&name)? else { break };
            let path = output.path(&name);
            let list = SourceList::from_json(&bytes)
                .map_err(|source| PrepError::Schema { path: path.clone(), source })?;
            if list.first != numbers.next() || list.sources.is_empty() {
                return Err(PrepError::Damaged {
                    path,
                    what: "first number and length".to_owned(),
                    found: format!("{} and {}", list.first, list.sources.len()),
                    expected: format!("{} and more than 0", numbers.next()),
                });
            }
            list.sources.into_iter().for_each(|source| numbers.push(source));
        }
        numbers.written = numbers.sources.len();
        if numbers.sources.is_empty() {
            for part in old.iter().flat_map(|data| &data.parts) {
                let shard = part.source.shard.clone();
                numbers.push(NumberedSource { shard, samples: SourceUse::Whole });
            }
        }
        Ok(numbers)
    }

    /// The next number that nobody has.
    pub fn next(&self) -> u32 {
        u32::try_from(self.sources.len()).unwrap_or(u32::MAX)
    }

    /// The parts that stand for all samples of a shard, the newest first: several if it changed.
    pub fn parts_of<'n>(&'n self, shard: &str) -> impl Iterator<Item = PartName> + 'n {
        let numbers = self.whole.get(shard).map_or(&[][..], |numbers| numbers);
        numbers.iter().rev().map(|&shard| PartName { shard, cut: 0 })
    }

    /// What a number stands for.
    pub fn source(&self, part: PartName) -> Option<&NumberedSource> {
        self.sources.get(part.shard as usize)
    }

    /// Every number with what it stands for.
    pub fn all(&self) -> impl Iterator<Item = (PartName, &NumberedSource)> {
        let numbered = self.sources.iter().enumerate();
        numbered.map(|(shard, source)| (PartName { shard: shard as u32, cut: 0 }, source))
    }

    /// Gives the next numbers to `sources`, here only: a dry run goes no further.
    pub fn give(&mut self, sources: Vec<NumberedSource>) {
        sources.into_iter().for_each(|source| self.push(source));
    }

    /// Writes what was given here; false if another job gave these numbers first.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::DiskFull`].
    pub fn keep(&mut self, output: &Folder) -> Result<bool, PrepError> {
        if self.written == self.sources.len() {
            return Ok(true);
        }
        let list = SourceList {
            format_version: FORMAT_VERSION,
            first: self.written as u32,
            sources: self.sources[self.written..].to_vec(),
        };
        let is_new = output.put_new(&SourceList::file(list.first), &json_text(&list))?;
        if is_new {
            self.written = self.sources.len();
        }
        Ok(is_new)
    }

    fn push(&mut self, source: NumberedSource) {
        if source.samples == SourceUse::Whole {
            let number = self.next();
            self.whole.entry(source.shard.clone()).or_default().push(number);
        }
        self.sources.push(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(names: &[&str]) -> Vec<NumberedSource> {
        let source =
            |name: &&str| NumberedSource { shard: (*name).to_owned(), samples: SourceUse::Whole };
        names.iter().map(source).collect()
    }

    #[test]
    fn lists_follow_each_other_and_the_second_writer_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let folder = &Folder::from(dir.path());
        let mut first = Numbers::load(folder, None).unwrap();
        let mut second = first.clone();
        first.give(whole(&["a", "c"]));
        assert!(first.keep(folder).unwrap());
        second.give(whole(&["b"]));
        assert!(!second.keep(folder).unwrap());
        let mut again = Numbers::load(folder, None).unwrap();
        again.give(whole(&["b", "a"]));
        assert!(again.keep(folder).unwrap() && again.keep(folder).unwrap());
        let read = Numbers::load(folder, None).unwrap();
        let numbers = |name: &str| read.parts_of(name).map(|p| p.shard).collect::<Vec<_>>();
        assert_eq!((numbers("a"), numbers("b"), numbers("z")), (vec![3, 0], vec![2], vec![]));
        assert_eq!(read.next(), 4);
    }
}
