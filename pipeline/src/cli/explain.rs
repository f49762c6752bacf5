//! An explanation as a table for people, or as JSON.
//!
//! In: what a rule says about a caption. Out: text. Never: control characters of a caption, which
//! could write over the screen.

use catlip_schemas::SynsetId;

use crate::caption::Explanation;
use crate::caption::explain::{Step, describe};
use crate::caption::wordnet::WordNet;

/// Columns of a word or a synset at most; the longest name of a synset with its facts has more.
const WORD_COLUMNS_MAX: usize = 24;

/// What a reader must know before the first table.
pub const LEGEND: &str = "\
How captions become labels. WordNet is a list of the meanings of English nouns. One meaning is a
synset: the words that share it, under a number such as n02084071 and the name of its first word.
Each word of a caption is cut out (token), brought to its base form (lemma) and looked up. Its
synset is, as a rule, the most frequent meaning of that lemma. A synset that is kept is a label.
The rule `corenet` keeps a synset only if it bears the lemma as its name: `photo` means photograph,
which is named otherwise, so it is dropped, and with it `a` (angstrom) and `in` (inch). The rule
`nouns` drops words that are seldom nouns in running text. Labels are shown as --keys has them:
n2084071 is n02084071.
";

/// The table of one caption.
pub fn text(caption: &str, explanation: &Explanation, key: impl Fn(SynsetId) -> String) -> String {
    let wordnet = WordNet::embedded();
    let mut out = format!("\ncaption: {}\n", visible(caption));
    if explanation.text != caption.trim().to_lowercase() {
        out.push_str(&format!("read as: {}\n", visible(&explanation.text)));
    }
    let rows: Vec<[String; 4]> = explanation.steps.iter().map(|step| row(wordnet, step)).collect();
    let heads = ["token", "lemma", "verdict", "synset"].map(str::to_owned);
    let rows = if rows.is_empty() { rows } else { [vec![heads], rows].concat() };
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2, 3].map(|column| width(column).unwrap_or(0));
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("  {cell:<width$}"));
        out.push_str(cells.collect::<String>().trim_end());
        out.push('\n');
    }
    out.push_str(&format!("labels: {}\n", labels(wordnet, &explanation.steps, key)));
    out
}

/// A token in words: itself, its lemma, what became of it, its synset.
fn row(wordnet: &WordNet, step: &Step) -> [String; 4] {
    let verdict = if step.outcome.is_kept() { "kept" } else { "dropped" };
    let synset = step.synset.map(|synset| describe(wordnet, synset, &step.lemma));
    [
        shortened(&step.token),
        shortened(&step.lemma),
        format!("{verdict}: {}", step.outcome),
        synset.unwrap_or_default(),
    ]
}

fn labels(wordnet: &WordNet, steps: &[Step], key: impl Fn(SynsetId) -> String) -> String {
    let kept = steps.iter().filter(|step| step.outcome.is_kept()).filter_map(|step| step.synset);
    let names: Vec<String> = kept
        .map(|synset| {
            let name = wordnet.head_lemma(synset).unwrap_or_default().replace('_', " ");
            format!("{name} {}", key(synset))
        })
        .collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Writes the steps as a JSON list.
pub fn write_json(out: &mut Vec<u8>, explanation: &Explanation, key: impl Fn(SynsetId) -> String) {
    let wordnet = WordNet::embedded();
    let steps = explanation.steps.iter().map(|step| {
        serde_json::json!({
            "token": step.token,
            "lemma": step.lemma,
            "synset": step.synset.map(&key),
            "name": step.synset.and_then(|synset| wordnet.head_lemma(synset)),
            "kept": step.outcome.is_kept(),
            "because": step.outcome.to_string(),
        })
    });
    let steps = serde_json::Value::from_iter(steps);
    out.extend(steps.to_string().as_bytes());
}

/// A word that fits its column.
fn shortened(word: &str) -> String {
    let mut word = visible(word);
    if let Some((cut, _)) = word.char_indices().nth(WORD_COLUMNS_MAX) {
        word.truncate(cut);
        word.pop();
        word.push('…');
    }
    word
}

/// Text without characters that steer a terminal or turn the direction of writing.
fn visible(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}')
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match steers(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caption::nouns::NounsOptions;
    use crate::caption::{LabelRule, rule};

    fn corenet() -> std::sync::Arc<dyn LabelRule> {
        rule("corenet", &NounsOptions::default()).unwrap()
    }

    #[test]
    fn captions_are_explained_word_by_word() {
        let captions = [
            "Photo of men riding bikes near a hot dog stand",
            "Two dogs and a bicycle in front of cars.",
            "black/white t-shirt, $19.99 – 100% cotton",
            "A woman's glasses &amp; scissors on the table",
            "Paris, 2012: 'are we there yet?'",
        ];
        let explained =
            captions.map(|caption| text(caption, &corenet().explain(caption), SynsetId::wnid));
        let shown = LEGEND.to_owned() + &explained.concat();
        // The file is what a person would read: look at it before changing it.
        assert_eq!(shown, include_str!("../../tests/data/explain.txt"), "{shown}");
    }

    #[test]
    fn what_steers_a_terminal_is_shown_as_its_number() {
        let caption = "dog\u{7}\u{202E}\u{9B}31m";
        let shown = text(caption, &corenet().explain(caption), SynsetId::wnid);
        assert!(shown.contains("caption: dog\\u{7}\\u{202e}\\u{9b}31m\n"), "{shown}");
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    }

    #[test]
    fn a_word_of_any_length_keeps_the_columns() {
        let caption = "é".repeat(1000) + " dog";
        let shown = text(&caption, &corenet().explain(&caption), SynsetId::wnid);
        assert!(shown.lines().skip(2).all(|line| line.chars().count() < 200), "{shown}");
        assert!(shown.contains("ééé…"), "{shown}");
    }

    #[test]
    fn an_empty_caption_has_no_table() {
        let shown = text("", &corenet().explain(""), SynsetId::wnid);
        assert_eq!(shown, "\ncaption: \nlabels: none\n");
    }
}
