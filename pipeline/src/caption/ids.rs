//! Labels that the shard brings itself: synset ids in a file of the sample.
//!
//! In: the text of that file, ids such as `n02084071` between spaces or line ends. Out: their
//! synsets. Never: an id that WordNet 3.0 does not have as a noun.

use catlip_schemas::{SynsetId, Synsets};

use super::LabelRule;
use super::explain::{Explanation, Outcome, Step};
use super::wordnet::WordNet;

/// The rule `file:EXTENSION`.
#[derive(Debug)]
pub struct FileIds {
    extension: String,
    id: String,
}

impl FileIds {
    /// Reads ids from the file with this extension; none for an extension that no file of a data
    /// set could carry in its name.
    pub fn new(extension: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        let fits = (1..=32).contains(&extension.len()) && extension.chars().all(is_plain);
        let id = format!("file-{extension}-1");
        fits.then(|| Self { extension: extension.to_owned(), id })
    }
}

/// The synsets of the ids in `text`, or the first word that is none.
///
/// # Errors
///
/// That word.
pub fn parse(text: &str) -> Result<Synsets, &str> {
    let known = |word| {
        let synset: SynsetId = str::parse(word).map_err(|_| word)?;
        WordNet::embedded().head_lemma(synset).map(|_| synset).ok_or(word)
    };
    text.split_whitespace().map(known).collect::<Result<_, _>>().map(Synsets)
}

impl LabelRule for FileIds {
    fn id(&self) -> &str {
        &self.id
    }

    fn file(&self) -> Option<&str> {
        Some(&self.extension)
    }

    fn synsets(&self, text: &str) -> Synsets {
        self.explain(text).synsets()
    }

    fn explain(&self, text: &str) -> Explanation {
        let step = |word: &str| {
            let synset = parse(word).ok().and_then(|found| found.0.first().copied());
            let outcome = if synset.is_some() { Outcome::Kept } else { Outcome::NoNoun };
            Step { token: word.to_owned(), lemma: word.to_owned(), synset, outcome }
        };
        let steps = text.split_whitespace().map(step).collect();
        Explanation { text: text.to_owned(), steps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_whatever_stands_between_them() {
        let dog: SynsetId = "n02084071".parse().unwrap();
        let cat: SynsetId = "n02121620".parse().unwrap();
        assert_eq!(parse("n02084071\n").unwrap().0, [dog]);
        assert_eq!(parse(" n2084071 n02121620\r\nn02084071").unwrap().0, [dog, cat, dog]);
        assert_eq!(parse("").unwrap().0, []);
    }

    #[test]
    fn what_is_no_noun_of_wordnet_is_named() {
        assert_eq!(parse("n02084071 dog").unwrap_err(), "dog");
        assert_eq!(parse("n02084072").unwrap_err(), "n02084072");
        let rule = FileIds::new("wnid").unwrap();
        assert_eq!(rule.synsets("n02084072 n02084071").0.len(), 1);
    }

    #[test]
    fn an_extension_that_leads_elsewhere_is_refused() {
        for extension in ["", "a/b", "WNID", "a b", "ü"] {
            assert!(FileIds::new(extension).is_none(), "{extension}");
        }
    }
}
