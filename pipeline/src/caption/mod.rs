//! Captions to synsets.
//!
//! In: a caption as it stands in the shard. Out: its [`Synsets`], by a named and versioned rule.
//! Never: needs a file or the network at run time, knows a vocabulary, or drops a repeat.
//!
//! The line of the rule `corenet`: clean (with repair and its entities) → sentences → tokens →
//! lemmas → WordNet. Each module is a literal port of what the reference runs, in the order in
//! which it runs it, to be read beside it; `characters` is what Python means by a space or a word.

use catlip_schemas::Synsets;

pub mod clean;
pub mod repair;
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

pub use explain::Explanation;

/// A way to read synsets from a caption.
pub trait LabelRule: Send + Sync {
    /// Rule and version, such as `corenet-1`: whoever changes an outcome changes the version.
    fn id(&self) -> &'static str;

    /// The synsets of `caption` in token order, repeats kept.
    fn synsets(&self, caption: &str) -> Synsets;

    /// The same with every token, its lemma, its synset and the reason, for people. The synsets
    /// that it calls kept are those of [`Self::synsets`].
    fn explain(&self, caption: &str) -> Explanation;
}

/// Every rule by its name in the config.
const RULES: [(&str, &dyn LabelRule); 1] = [("corenet", &corenet::Corenet)];

/// The rule of that name.
///
/// # Errors
///
/// [`UnknownRule`], with the known names.
pub fn rule(name: &str) -> Result<&'static dyn LabelRule, UnknownRule> {
    let found = RULES.iter().find(|(known, _)| *known == name);
    found.map(|(_, rule)| *rule).ok_or_else(|| UnknownRule {
        found: name.to_owned(),
        known: RULES.map(|(known, _)| known).join(", "),
    })
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

    #[test]
    fn a_rule_is_found_by_its_name_and_says_its_version() {
        assert_eq!(rule("corenet").unwrap().id(), "corenet-1");
    }

    #[test]
    fn an_unknown_rule_is_refused_with_the_known_names() {
        let error = rule("nouns").err().unwrap();
        assert_eq!(error.to_string(), "label rule `nouns` is unknown; known: corenet");
    }
}
