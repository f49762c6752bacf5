//! Labels hostile captions of a size and of twice that size, for `linear.sh` to count instructions.
//!
//! In: bytes of the smaller caption, and units if not all. Out: `path<TAB>bytes<TAB>unit` for
//! each call of `measured`, in order. Never: measures anything itself; a clock cannot tell 2.0 from
//! 2.1 on a busy machine.

use std::hint::black_box;
use std::sync::LazyLock;

use catlip_pipeline::caption::corenet::{Corenet, literal_synsets};
use catlip_pipeline::caption::nouns::{Nouns, NounsOptions};
use catlip_pipeline::caption::{LabelRule, fast};
use catlip_schemas::Synsets;

/// What a caption is made of, again and again: whatever some rule looks for, alone and in the
/// places where it looks back or ahead.
const UNITS: [&str; 84] = [
    "&amp;",
    "&",
    "&a",
    "&amp;amp;",
    "&#38;",
    "%41",
    "%",
    "+",
    " ",
    "\n",
    "\t",
    "<",
    "<a",
    "<a>",
    "a<b\n>",
    ".",
    "..",
    ". ",
    ".) ",
    ".)",
    ".\"",
    ".' ",
    "a.",
    "a. ",
    "st. ",
    "st.) ",
    "st.)",
    "1. ",
    "q. ",
    ". . ",
    ".\u{A0}",
    "a.\u{A0}b",
    "!",
    "!? ",
    ",",
    ", ",
    ":,",
    "a,",
    "-",
    "---",
    "a--",
    "'",
    "''",
    "\"",
    "\"'",
    "`",
    "'a",
    "a' ",
    "a'b ",
    "can't ",
    "cannot",
    "cannot-",
    "gonna ",
    "(",
    "s",
    "ses",
    "es ",
    "mens",
    "a_",
    "\x1B[1",
    "\u{301}",
    "e\u{301}",
    "\u{301}\u{327}",
    "\u{FB01}",
    "\u{3000}",
    "d\u{43E}g ",
    "dog ",
    "hot dog ",
    "hot ",
    "hot-",
    "hot-dog ",
    "-dog",
    "skate board ",
    "orange and ",
    "orange, ",
    "john ",
    "sitting ",
    "a/",
    "Ã",
    "Ã©",
    "ÃƒÂ©",
    "â€™",
    "猫Ã©",
    "Ã ",
];

static NOUNS: LazyLock<Nouns> = LazyLock::new(|| Nouns::new(NounsOptions::default()));

/// The work whose instructions are counted.
#[inline(never)]
fn measured(synsets: fn(&str) -> Synsets, caption: &str) -> usize {
    black_box(synsets(black_box(caption))).0.len()
}

/// Takes words and forgets them.
struct Nobody;

impl fast::Visitor for Nobody {
    fn word(&mut self, word: fast::Word<'_>) {
        black_box(word);
    }
}

/// A way from a caption to its synsets.
type Path = fn(&str) -> Synsets;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let bytes = arguments.first().and_then(|bytes| bytes.parse().ok()).unwrap_or(1 << 15);
    let asked = arguments.get(1..).unwrap_or_default();
    let is_asked = |unit: &&str| asked.is_empty() || asked.iter().any(|asked| asked == unit);
    let paths: [(&str, Path); 5] = [
        ("rule", |caption| Corenet.synsets(caption)),
        ("literal", literal_synsets),
        ("words", |caption| {
            black_box(fast::words(caption, &mut Nobody).is_ok());
            Synsets(Vec::new())
        }),
        ("nouns", |caption| NOUNS.synsets(caption)),
        ("nouns, literal", |caption| NOUNS.literal_synsets(caption)),
    ];
    // Tables that are built at first use are no work of a caption.
    for unit in UNITS {
        black_box((Corenet.synsets(unit), NOUNS.synsets(unit), NOUNS.literal_synsets(unit)));
    }
    black_box(literal_synsets("Dogs &amp; cats, e.g. in the st. james"));
    for unit in UNITS.into_iter().filter(is_asked) {
        for (name, synsets) in paths {
            for bytes in [bytes, 2 * bytes] {
                let caption = unit.repeat(bytes / unit.len());
                measured(synsets, &caption);
                println!("{name}\t{}\t{}", caption.len(), unit.escape_debug());
            }
        }
    }
}
