//! Captions to synsets.
//!
//! In: a caption as it stands in the shard. Out: its [`Synsets`], by a named and versioned rule.
//! Never: needs a file or the network at run time, knows a vocabulary, or drops a repeat.
//!
//! The line of the rule `corenet`: clean (with repair, mojibake and entities) → sentences →
//! tokens → lemmas → WordNet. Each module is a literal port of what the reference runs, in the
//! order in which it runs it, to be read beside it; `characters` is what Python means by a space or
//! a word.

use std::sync::Arc;

use catlip_schemas::Synsets;

pub mod clean;
pub mod repair;
pub mod mojibake;
pub mod entities;
pub mod characters;
pub mod sentences;
pub mod tokens;
pub mod lemmas;
pub mod word_table;
pub mod fast;
pub mod wordnet;
pub mod explain;
pub mod corenet;
pub mod nouns;
pub mod ids;

use nouns::{Nouns, NounsOptions};

pub use explain::Explanation;

/// A way to read synsets from a caption.
pub trait LabelRule: Send + Sync {
    /// Rule and version, such as `corenet-1`, then the options that are not at their default:
    /// whoever changes an outcome changes the id.
    fn id(&self) -> &str;

    /// Extension of the file of a sample that is read instead of its captions.
    fn file(&self) -> Option<&str> {
        None
    }

    /// The synsets of `caption` in token order, repeats kept.
    fn synsets(&self, caption: &str) -> Synsets;

    /// The same with every token, its lemma, its synset and the reason, for people. The synsets
    /// that it calls kept are those of [`Self::synsets`].
    fn explain(&self, caption: &str) -> Explanation;
}

/// Every rule's name in the config.
const NAMES: [&str; 2] = ["corenet", "nouns"];
/// What stands before an extension in the name of a rule that reads that file.
const FILE_PREFIX: &str = "file:";

/// The rule of that name; `nouns` are the options of the rule of that name.
///
/// # Errors
///
/// [`UnknownRule`], with the known names.
pub fn rule(name: &str, nouns: &NounsOptions) -> Result<Arc<dyn LabelRule>, UnknownRule> {
    match name {
        "corenet" => Ok(Arc::new(corenet::Corenet)),
        "nouns" => Ok(Arc::new(Nouns::new(nouns.clone()))),
        _ if name.starts_with(FILE_PREFIX) => {
            let rule = ids::FileIds::new(&name[FILE_PREFIX.len()..]);
            let rule = rule.ok_or_else(|| unknown(name))?;
            Ok(Arc::new(rule))
        }
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> UnknownRule {
    let known = format!("{}, {FILE_PREFIX}EXTENSION", NAMES.join(", "));
    UnknownRule { found: name.to_owned(), known }
}

/// A label rule that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("label rule `{found}` is unknown; known: {known}")]
pub struct UnknownRule {
    /// What was asked for.
    pub found: String,
    /// The names that exist.
    pub known: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, nouns: &NounsOptions) -> Result<String, String> {
        rule(name, nouns).map(|rule| rule.id().to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_rule_is_found_by_its_name_and_says_its_version() {
        for name in NAMES {
            assert_eq!(id(name, &NounsOptions::default()).unwrap(), format!("{name}-1"));
        }
    }

    #[test]
    fn an_option_that_is_off_stands_in_the_id_of_the_rule_that_has_it() {
        let off = NounsOptions { noun_filter: false, senses: false, ..NounsOptions::default() };
        assert_eq!(id("nouns", &off).unwrap(), "nouns-1.no-noun-filter.no-senses");
        assert_eq!(id("corenet", &off).unwrap(), "corenet-1");
    }

    #[test]
    fn a_rule_of_a_file_is_named_by_its_extension() {
        assert_eq!(id("file:wnid", &NounsOptions::default()).unwrap(), "file-wnid-1");
        assert!(id("file:", &NounsOptions::default()).is_err());
    }

    #[test]
    fn an_unknown_rule_is_refused_with_the_known_names() {
        let error = id("noun", &NounsOptions::default()).unwrap_err();
        assert_eq!(error, "label rule `noun` is unknown; known: corenet, nouns, file:EXTENSION");
    }

    #[test]
    fn what_each_rule_explains_as_kept_is_what_it_keeps() {
        let captions = [
            "A man rows his fire truck past John Smith, sitting on two black/white skate boards.",
            "an orange cat and ice-cream at the traffic light; glasses of 2 kids' dog|cat",
            "",
        ];
        for name in NAMES {
            let rule = rule(name, &NounsOptions::default()).unwrap();
            for caption in captions {
                assert_eq!(rule.explain(caption).synsets(), rule.synsets(caption), "{name}");
            }
        }
    }
}
