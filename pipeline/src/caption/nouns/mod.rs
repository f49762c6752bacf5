//! The rule `nouns`: the things that a caption names, as CatLIP's paper describes its labels.
//!
//! In: a caption. Out: the synsets of its nouns in token order, repeats kept.
//! Never: asks a tagger; what a word or phrase means is looked up, so that all of it can be worked
//! out beforehand.
//!
//! The line: the cleaning and the tokens of `corenet` → phrases → words. Every step is an option,
//! and `docs/labels.md` says what each brings. `fast` does the same with the tables of `lookup`.

use std::ops::Range;
use std::sync::OnceLock;

use catlip_schemas::{SynsetId, Synsets};
use serde::{Deserialize, Serialize};

use super::LabelRule;
use super::clean::clean;
use super::explain::{Explanation, Outcome, Step};
use super::fast::Unusual;
use super::lemmas::lemmatize;
use super::tokens::tokens;
use super::wordnet::WordNet;

mod collected;
mod fast;
mod forms;
mod lookup;
mod neighbours;
pub mod phrases;
pub mod tables;
pub mod words;

use lookup::Lookup;
use phrases::phrase;
use tables::{Class, Tables};
use words::{Word, word};

/// Letters of each half of a compound that is written apart: `skate board` is one, `a board` not.
const HALF_LETTERS_MIN: usize = 3;

/// Words before which a plural is no plural but a verb: `a man rows his boat`.
const DETERMINERS: [&str; 8] = ["a", "an", "the", "his", "her", "their", "its", "another"];

/// What may stand between two colours of one thing: `an orange and white cat`.
const COLOUR_JOINTS: [&str; 2] = ["and", ","];

/// `person`, `animal`, `people`, `social group` and `animal group`.
const ALIVE: [SynsetId; 5] =
    [SynsetId(7846), SynsetId(15388), SynsetId(7942152), SynsetId(7950920), SynsetId(7993929)];

/// Section `nouns` of the config: the steps of the rule, each of which can be left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "prep.default.toml is the manual of every key")]
pub struct NounsOptions {
    pub noun_filter: bool,
    pub colours: bool,
    pub numerals: bool,
    pub activities: bool,
    pub names: bool,
    pub phrases: bool,
    pub heads: bool,
    pub compounds: bool,
    pub synonyms: bool,
    pub plurals: bool,
    pub senses: bool,
}

impl Default for NounsOptions {
    fn default() -> Self {
        Self {
            noun_filter: true,
            colours: true,
            numerals: true,
            activities: true,
            names: true,
            phrases: true,
            heads: true,
            compounds: true,
            synonyms: true,
            plurals: true,
            senses: true,
        }
    }
}

impl NounsOptions {
    /// These options but for one, by its name in the config; another name changes nothing.
    pub fn without(&self, name: &str) -> Self {
        let is_on = |option: &str, is_on: bool| is_on && option != name;
        Self {
            noun_filter: is_on("noun_filter", self.noun_filter),
            colours: is_on("colours", self.colours),
            numerals: is_on("numerals", self.numerals),
            activities: is_on("activities", self.activities),
            names: is_on("names", self.names),
            phrases: is_on("phrases", self.phrases),
            heads: is_on("heads", self.heads),
            compounds: is_on("compounds", self.compounds),
            synonyms: is_on("synonyms", self.synonyms),
            plurals: is_on("plurals", self.plurals),
            senses: is_on("senses", self.senses),
        }
    }

    /// Every option by its name in the config.
    pub fn by_name(&self) -> [(&'static str, bool); 11] {
        [
            ("noun_filter", self.noun_filter),
            ("colours", self.colours),
            ("numerals", self.numerals),
            ("activities", self.activities),
            ("names", self.names),
            ("phrases", self.phrases),
            ("heads", self.heads),
            ("compounds", self.compounds),
            ("synonyms", self.synonyms),
            ("plurals", self.plurals),
            ("senses", self.senses),
        ]
    }
}

/// The rule with its options.
#[derive(Debug)]
pub struct Nouns {
    options: NounsOptions,
    id: String,
    lookup: OnceLock<Lookup>,
}

fn is_alive(synset: SynsetId) -> bool {
    WordNet::embedded().is_kind_of(synset, |above| ALIVE.contains(&above))
}

/// What became of one or more tokens that are read together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The tokens.
    pub tokens: Range<usize>,
    /// What they name, or why they are no label.
    pub synset: Result<SynsetId, Outcome>,
}

/// What was read before a token, as far as it changes what the token means.
#[derive(Debug, Default)]
struct Before {
    readings: Vec<Reading>,
    /// The token before is a given name, so this one is a surname.
    is_given_name: bool,
    /// One of the first `num_asked` readings is somebody who can sit and stand.
    is_somebody: bool,
    num_asked: usize,
}

impl Before {
    /// Whether a label is a living being or a group of them. No label is asked twice.
    fn is_somebody_named(&mut self) -> bool {
        let mut unasked = self.readings[self.num_asked..].iter();
        self.is_somebody =
            self.is_somebody || unasked.any(|reading| reading.synset.is_ok_and(is_alive));
        self.num_asked = self.readings.len();
        self.is_somebody
    }
}

impl Nouns {
    /// The rule with `options`.
    pub fn new(options: NounsOptions) -> Self {
        let off = options.by_name().into_iter().filter(|(_, is_on)| !is_on);
        let off: String = off.map(|(name, _)| format!(".no-{}", name.replace('_', "-"))).collect();
        Self { options, id: format!("nouns-1{off}"), lookup: OnceLock::new() }
    }

    /// The rule as it is defined, step by step: the source of truth.
    pub fn literal_synsets(&self, caption: &str) -> Synsets {
        self.literal_synsets_of(&tokens(&clean(caption)))
    }

    fn literal_synsets_of(&self, tokens: &[String]) -> Synsets {
        let readings = self.readings(tokens);
        Synsets(readings.into_iter().filter_map(|reading| reading.synset.ok()).collect())
    }

    /// The same for a usual caption, many times as fast.
    ///
    /// # Errors
    ///
    /// [`Unusual`]: only [`Self::literal_synsets`] knows the synsets of this caption.
    pub fn fast_synsets(&self, caption: &str) -> Result<Synsets, Unusual> {
        fast::fast_synsets(self, self.lookup(), caption)
    }

    fn lookup(&self) -> &Lookup {
        self.lookup.get_or_init(|| Lookup::new(self))
    }

    /// The tokens in their order, each as it is read, and what it gives.
    pub fn readings(&self, tokens: &[String]) -> Vec<Reading> {
        let mut before = Before::default();
        let mut at = 0;
        while at < tokens.len() {
            let (num_tokens, synset) = self.read(&tokens[at..], &mut before);
            let range = at..at + num_tokens;
            before.readings.push(Reading { tokens: range.clone(), synset });
            if let Ok(synset) = synset {
                before.readings.extend(self.head(tokens, &range, synset));
            } else if num_tokens == 1 && self.options.compounds {
                let parts = parts(&tokens[at]).filter_map(|part| word(&self.options, part).ok());
                let reading =
                    |part: Word| Reading { tokens: range.clone(), synset: Ok(part.synset) };
                before.readings.extend(parts.map(reading));
            }
            before.is_given_name = num_tokens == 1 && self.is_given_name(&tokens[at]);
            at = range.end;
        }
        before.readings
    }

    /// Whether `token` is the given name of somebody whose surname may follow.
    fn is_given_name(&self, token: &str) -> bool {
        self.options.names && Tables::embedded().given_names.contains(token)
    }

    /// How many of `tokens` are read at once, and what they name.
    fn read(&self, tokens: &[String], before: &mut Before) -> (usize, Result<SynsetId, Outcome>) {
        let options = &self.options;
        if options.phrases
            && let Some(phrase) = phrase(options, tokens)
        {
            return (phrase.num_tokens, phrase.synset.ok_or(Outcome::Idiom));
        }
        let found = match word(options, &tokens[0]) {
            Ok(found) => found,
            Err(outcome) => return (1, self.rejoined(&tokens[0]).ok_or(outcome)),
        };
        let before_determiner =
            || tokens.get(1).is_some_and(|next| DETERMINERS.contains(&next.as_str()));
        let is_verb = options.noun_filter && found.has_ending && before_determiner();
        let is_of_a_thing = found.class == Class::Posture && !before.is_somebody_named();
        if before.is_given_name {
            return (1, Err(Outcome::PersonName));
        }
        if is_verb || is_of_a_thing {
            return (1, Err(Outcome::SeldomNoun));
        }
        if options.compounds
            && found.class == Class::Noun
            && let Some(synset) = self.compound(tokens)
        {
            return (2, Ok(synset));
        }
        (1, Ok(self.before_noun(tokens).unwrap_or(found.synset)))
    }

    /// The last word of a phrase that is a kind of it: a `fire truck` is a truck, too.
    fn head(&self, tokens: &[String], phrase: &Range<usize>, synset: SynsetId) -> Option<Reading> {
        let last = phrase.end - 1;
        let head = self.head_of(&tokens[last], synset).filter(|_| phrase.len() >= 2)?;
        Some(Reading { tokens: last..phrase.end, synset: Ok(head) })
    }

    /// What `last`, the last word of a phrase that means `synset`, means too.
    fn head_of(&self, last: &str, synset: SynsetId) -> Option<SynsetId> {
        Some(word(&self.options, last).ok()?.synset).filter(|head| self.is_head(*head, synset))
    }

    /// Whether `synset` is a kind of `head`, and both are wanted.
    fn is_head(&self, head: SynsetId, synset: SynsetId) -> bool {
        self.options.heads
            && head != synset
            && WordNet::embedded().is_kind_of(synset, |above| above == head)
    }

    /// The compound of the first two tokens, both of them nouns: `skate board`.
    fn compound(&self, tokens: &[String]) -> Option<SynsetId> {
        let [first, second, ..] = tokens else { return None };
        if first.len().min(second.len()) < HALF_LETTERS_MIN
            || word(&self.options, second).ok()?.class != Class::Noun
        {
            return None;
        }
        Some(word(&self.options, &format!("{first}{second}")).ok()?.synset)
    }

    /// What the first of `tokens` means if a noun follows it, or a second colour of that noun:
    /// `an orange cat`, `an orange and white cat`.
    fn before_noun(&self, tokens: &[String]) -> Option<SynsetId> {
        let tables = Tables::embedded();
        let synset = tables.senses_before_noun.get(tokens[0].as_str())?;
        let class = |at: usize| Some(word(&self.options, tokens.get(at)?).ok()?.class);
        let is_joint = |token: &String| COLOUR_JOINTS.contains(&token.as_str());
        let joins_a_colour = tokens.get(1).is_some_and(is_joint) && class(2) == Some(Class::Colour);
        let is_before = joins_a_colour || matches!(class(1), Some(Class::Noun | Class::Colour));
        (self.options.senses && is_before).then_some(*synset)
    }

    /// The meaning of a token with hyphens that is a word or phrase without them: `ice-cream`.
    fn rejoined(&self, token: &str) -> Option<SynsetId> {
        if !self.options.compounds || !token.contains('-') {
            return None;
        }
        let halves: Vec<String> = token.split('-').map(str::to_owned).collect();
        if self.options.phrases
            && let Some(found) = phrase(&self.options, &halves)
            && found.num_tokens == halves.len()
        {
            return found.synset;
        }
        Some(word(&self.options, &halves.concat()).ok()?.synset)
    }
}

/// The words of a token that is none: `black/white`, `dog|cat`, `'puppy`.
fn parts(token: &str) -> impl Iterator<Item = &str> {
    let parts = token.split(['/', '|', '_', '\'', '’', '‘']).filter(|part| !part.is_empty());
    parts.filter(move |part| part.len() < token.len())
}

impl LabelRule for Nouns {
    fn id(&self) -> &str {
        &self.id
    }

    fn synsets(&self, caption: &str) -> Synsets {
        self.fast_synsets(caption).unwrap_or_else(|_| {
            // Only how it is cut is unusual: what the words mean the tables know.
            fast::synsets_of(self, self.lookup(), &tokens(&clean(caption)))
        })
    }

    fn explain(&self, caption: &str) -> Explanation {
        let text = clean(caption);
        let tokens = tokens(&text);
        let step = |reading: Reading| {
            let token = tokens[reading.tokens.clone()].join(" ");
            let lemma = match &tokens[reading.tokens] {
                [only] => lemmatize(WordNet::embedded(), only).into_owned(),
                several => several.join("_"),
            };
            let (synset, outcome) = match reading.synset {
                Ok(synset) => (Some(synset), Outcome::Meant),
                Err(outcome) => (None, outcome),
            };
            Step { token, lemma, synset, outcome }
        };
        let steps = self.readings(&tokens).into_iter().map(step).collect();
        Explanation { text, steps }
    }
}
