//! `catlip-prep labels`: a filter from captions to synsets.
//!
//! In: a caption a line, or JSON lines with captions. Out: a JSON line for each, or an explanation
//! for people. Order is kept, memory is bounded, and a line is answered as soon as it is there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;

use super::caption_line::{CaptionLine, Captions, Format};
use super::lines::{Block, Blocks, in_order};
use super::{explain, print};
use crate::caption::{LabelRule, rule};
use crate::config::{PrepConfig, THREADS_MAX};
use crate::error::PrepError;
use crate::source::SourceError;
use crate::source::byte_order_mark::without_mark;

/// Limit of a line: four times `caption.bytes_max`, since JSON escapes make a text longer. 64
/// threads hold at most 192 blocks of that size, 805 MB.
const LINE_BYTES_MAX_DEFAULT: usize = 4 << 20;

/// What `--help` says before the flags.
pub const ABOUT: &str = "\
Reads captions and prints their labels: WordNet 3.0 noun synsets in token order, repeats kept.

In, one of two forms (told apart by whether the first line begins with `{`):
  a caption a line    UTF-8; an empty line is an empty caption
  JSON lines          objects with `caption`, `captions`, `texts` or `text` (the first that is
                      there, or the one of --field): a string, a list of strings, or null;
                      lines of blanks are passed over
Out, a line for each line in, in the same order:
  a caption a line    {\"caption\":\"a dog\",\"synsets\":[\"n2084071\"]}
  JSON lines          the object as it came, with one field more: `synsets`. It is a list for a
                      string, a list of lists for a list of strings, null for null.";

/// What `--help` says after the flags.
pub const NOTES: &str = "\
What is no caption (not UTF-8, no JSON, no such field, a number, a line above the limit) ends the
job with the number of the line; see --bad. NUL and other controls may stand in a caption: they are
removed before words are looked for. A closed output pipe ends the job quietly.

Examples:
  echo 'two dogs on a beach' | catlip-prep labels --explain
  zcat captions.jsonl.gz | catlip-prep labels --keys wnid --bad mark | gzip > labels.jsonl.gz

Exit codes: 0 done, 2 the command line is wrong, 3 no such rule, 5 the input is missing or a line
is no caption, 1 input or output fails, 8 the disk is full.";

/// The command line of `labels`.
#[derive(clap::Args)]
pub struct LabelsArgs {
    /// Rule that turns captions into synsets.
    #[arg(long, default_value = "corenet")]
    rule: String,
    /// One setting of the rule, such as nouns.phrases=false.
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
    /// File of captions, or - for standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// How synsets are printed: n2084071 or n02084071.
    #[arg(long, value_enum, default_value = "corenet")]
    keys: Keys,
    /// What a line is.
    #[arg(long, value_enum, default_value = "auto")]
    format: FormatArg,
    /// Field of the JSON lines that holds the captions.
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    /// Field that the labels are written to; a line that has it already is bad.
    #[arg(long, value_name = "NAME", default_value = "synsets")]
    into: String,
    /// What is done with a line that is no caption.
    #[arg(long, value_enum, default_value = "stop")]
    bad: OnBad,
    /// Show what becomes of each word and why: as text, or as JSON lines with --explain=json.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true,
          default_missing_value = "text", value_name = "HOW")]
    explain: Option<Explain>,
    /// Limit of a line in bytes.
    #[arg(long, value_name = "N", default_value_t = LINE_BYTES_MAX_DEFAULT)]
    line_bytes_max: usize,
    /// Threads that label, at most 4096. 0: one a core.
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = RangedU64ValueParser::<usize>::new().range(0..=THREADS_MAX))]
    threads: usize,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Keys {
    /// As CatLIP's vocabulary has them, not padded.
    Corenet,
    /// As ImageNet has them, eight digits.
    Wnid,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum FormatArg {
    /// JSON lines if the first line begins with `{`, else text.
    Auto,
    /// A caption a line.
    Text,
    /// JSON lines.
    Json,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum OnBad {
    /// End with an error.
    Stop,
    /// Print {"line":7,"error":"…","synsets":null} in its place and go on.
    Mark,
    /// Print nothing in its place and go on.
    Skip,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Explain {
    /// A table for each caption.
    Text,
    /// JSON lines with `steps`: token, lemma, synset, name, whether it was kept, and why.
    Json,
}

/// What is done with a line.
struct Labelling {
    rule: Arc<dyn LabelRule>,
    keys: Keys,
    field: Option<String>,
    into: String,
    bad: OnBad,
    explain: Option<Explain>,
    line_bytes_max: usize,
}

/// What became of a block.
#[derive(Default)]
struct Labelled {
    out: Vec<u8>,
    num_lines: u64,
    num_bad: u64,
    first_bad: Option<(u64, String)>,
    /// Whether the first bad line ends the job.
    stops: bool,
}

/// Labels the lines of the input.
///
/// # Errors
///
/// [`PrepError::Line`] for a line that is no caption, unless such lines are marked or skipped;
/// [`PrepError::Source`] for an input that is missing; [`PrepError::Rule`]; [`PrepError::Io`] and
/// [`PrepError::DiskFull`].
pub fn run(args: LabelsArgs) -> Result<(), PrepError> {
    let path = args.input.clone();
    let (format, threads) = (args.format, args.threads);
    let labelling = labelling(args)?;
    if path == Path::new("-") {
        let path = Path::new("standard input");
        return label(labelling, io::stdin(), path, format, threads, &mut print::raw());
    }
    let unreadable = |source| SourceError::Unreadable { path: path.clone(), source };
    let file = File::open(&path).map_err(unreadable)?;
    label(labelling, file, &path, format, threads, &mut print::raw())
}

fn labelling(args: LabelsArgs) -> Result<Labelling, PrepError> {
    Ok(Labelling {
        rule: {
            let config = PrepConfig::load_for("labels", &["nouns."], None, &args.settings)?;
            rule(&args.rule, &config.nouns)?
        },
        keys: args.keys,
        field: args.field,
        into: args.into,
        bad: args.bad,
        explain: args.explain,
        line_bytes_max: args.line_bytes_max,
    })
}

fn label(
    labelling: Labelling,
    input: impl Read + Send + 'static,
    path: &Path,
    format: FormatArg,
    threads: usize,
    out: &mut dyn Write,
) -> Result<(), PrepError> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let unreadable = |e| PrepError::io("read", path, e);
    let to_output = |e| PrepError::io("write", Path::new("standard output"), e);
    let mut blocks = Blocks::new(input, labelling.line_bytes_max);
    // The first line decides for all; it is known before any block is handed on.
    let known = Arc::new(OnceLock::new());
    let source = {
        let known = known.clone();
        move || {
            let block = blocks.next_block()?;
            if let Some(block) = &block {
                known.get_or_init(|| format_of(format, block));
            }
            Ok(block)
        }
    };
    let (mut num_lines, mut num_bad, mut first_bad) = (0, 0, None);
    let is_text = labelling.explain == Some(Explain::Text);
    let mut legend = is_text.then_some(explain::LEGEND);
    let work = move |block: Block| {
        let format = known.get().copied().unwrap_or(Format::Text);
        labelling.block(&block, format)
    };
    let ended = in_order(threads, source, work, |labelled: io::Result<Labelled>| {
        let labelled = labelled.map_err(|e| Some(unreadable(e)))?;
        let text = [legend.take().unwrap_or_default().as_bytes(), &labelled.out].concat();
        match out.write_all(&text).and_then(|()| out.flush()) {
            // The reader has seen enough, as `head` does.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Err(None),
            other => other.map_err(|e| Some(to_output(e)))?,
        }
        num_lines += labelled.num_lines;
        num_bad += labelled.num_bad;
        first_bad = first_bad.take().or(labelled.first_bad);
        match first_bad.take_if(|_| labelled.stops) {
            Some((number, message)) => {
                Err(Some(PrepError::Line { path: path.into(), number, message }))
            }
            None => Ok(()),
        }
    });
    if let Err(Some(error)) = ended {
        return Err(error);
    }
    if let Some((number, message)) = first_bad {
        print::note(&format!(
            "{num_bad} of {num_lines} lines were no captions; the first: line {number}: {message}"
        ));
    }
    Ok(())
}

fn format_of(asked: FormatArg, first: &Block) -> Format {
    let begin = first.lines().next().map_or(&[][..], |(_, line)| line);
    let begin = without_mark(begin).trim_ascii_start();
    match asked {
        FormatArg::Json => Format::Json,
        FormatArg::Auto if begin.starts_with(b"{") => Format::Json,
        _ => Format::Text,
    }
}

impl Labelling {
    fn block(&self, block: &Block, format: Format) -> Labelled {
        let mut labelled = Labelled::default();
        for (number, line) in block.lines() {
            labelled.num_lines += 1;
            let line = if number == 1 { without_mark(line) } else { line };
            let Err(message) = self.line(line, format, &mut labelled.out) else { continue };
            labelled.num_bad += 1;
            if self.bad == OnBad::Mark {
                self.mark(number, &message, &mut labelled.out);
            }
            labelled.first_bad.get_or_insert((number, message));
            if self.bad == OnBad::Stop {
                labelled.stops = true;
                break;
            }
        }
        labelled
    }

    /// Writes what becomes of one line, or says why it is no caption.
    fn line(&self, line: &[u8], format: Format, out: &mut Vec<u8>) -> Result<(), String> {
        if line.len() > self.line_bytes_max {
            return Err(format!(
                "it has more than {} bytes, the limit (--line-bytes-max)",
                self.line_bytes_max
            ));
        }
        let text = std::str::from_utf8(line).map_err(|e| {
            let (byte, at) = (line[e.valid_up_to()], e.valid_up_to());
            format!("it is not UTF-8: byte 0x{byte:02x} at offset {at}")
        })?;
        let text = text.strip_suffix('\r').unwrap_or(text);
        let Some(parsed) = CaptionLine::parse(text, format, self.field.as_deref(), &self.into)?
        else {
            return Ok(());
        };
        if self.explain == Some(Explain::Text) {
            self.explain_text(&parsed.captions, out);
            return Ok(());
        }
        parsed.begin(out);
        self.field(out, &self.into, &parsed.captions, |out, caption| self.synsets(out, caption));
        if self.explain.is_some() {
            let rule = self.rule.as_ref();
            self.field(out, "steps", &parsed.captions, |out, caption| {
                explain::write_json(out, &rule.explain(caption), |synset| self.key(synset));
            });
        }
        out.extend(b"}\n");
        Ok(())
    }

    /// `,"name":` and what `write` writes for each caption, as a list for a list of captions.
    fn field(
        &self,
        out: &mut Vec<u8>,
        name: &str,
        captions: &Captions,
        write: impl Fn(&mut Vec<u8>, &str),
    ) {
        out.push(b',');
        write_json_string(out, name);
        out.push(b':');
        let one = |out: &mut Vec<u8>, caption: &Option<String>| match caption {
            Some(caption) => write(out, caption),
            None => out.extend(b"null"),
        };
        match captions {
            Captions::One(caption) => one(out, caption),
            Captions::Many(list) => {
                write_list(out, list, one);
            }
        }
    }

    fn synsets(&self, out: &mut Vec<u8>, caption: &str) {
        write_list(out, &self.rule.synsets(caption).0, |out, &synset| {
            // Keys are letters and digits: nothing to escape.
            let _ = match self.keys {
                Keys::Wnid => write!(out, "\"n{:08}\"", synset.0),
                Keys::Corenet => write!(out, "\"n{}\"", synset.0),
            };
        });
    }

    fn key(&self, synset: catlip_schemas::SynsetId) -> String {
        match self.keys {
            Keys::Wnid => synset.wnid(),
            Keys::Corenet => synset.corenet_key(),
        }
    }

    fn explain_text(&self, captions: &Captions, out: &mut Vec<u8>) {
        for caption in captions.each() {
            let text = match caption {
                Some(caption) => {
                    let explanation = self.rule.explain(caption);
                    explain::text(caption, &explanation, |synset| self.key(synset))
                }
                None => "\nno caption (null)\n".to_owned(),
            };
            out.extend(text.as_bytes());
        }
    }

    fn mark(&self, number: u64, message: &str, out: &mut Vec<u8>) {
        if self.explain == Some(Explain::Text) {
            out.extend(format!("\nline {number}: {message}\n").as_bytes());
            return;
        }
        out.extend(format!("{{\"line\":{number},\"error\":").as_bytes());
        write_json_string(out, message);
        out.push(b',');
        write_json_string(out, &self.into);
        out.extend(b":null}\n");
    }
}

/// Writes `[a,b]`.
fn write_list<T>(out: &mut Vec<u8>, list: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (i, value) in list.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, value);
    }
    out.push(b']');
}

/// Writes a string with its quotes.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    // Writing to memory cannot fail, and every string is JSON.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        labels: LabelsArgs,
    }

    /// What the filter prints for `input`, or the error, with the words of its command line.
    fn labelled(input: &[u8], words: &str) -> Result<String, String> {
        let words = ["labels"].into_iter().chain(words.split_whitespace());
        let args = Line::try_parse_from(words).map_err(|e| e.to_string())?.labels;
        let mut out = Vec::new();
        let input = io::Cursor::new(input.to_vec());
        let (format, threads) = (args.format, args.threads);
        let labelling = labelling(args).map_err(|e| e.to_string())?;
        label(labelling, input, Path::new("captions"), format, threads, &mut out)
            .map(|()| String::from_utf8(out).unwrap())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn lines_and_json_lines_give_the_same_labels() {
        let synsets = "\"synsets\":[\"n5928118\",\"n4960277\",\"n2084071\"]}\n";
        assert_eq!(
            labelled(b"An image of black dog.\n", "").unwrap(),
            format!("{{\"caption\":\"An image of black dog.\",{synsets}")
        );
        assert_eq!(
            labelled(br#"{"caption": "An image of black dog.", "url": 1} "#, "").unwrap(),
            format!("{{\"caption\": \"An image of black dog.\", \"url\": 1,{synsets}")
        );
        assert!(labelled(b"a dog", "--keys wnid").unwrap().contains("[\"n02084071\"]"));
    }

    #[test]
    fn fields_of_an_object_stay_as_they_were_to_the_letter() {
        let line = r#"{"id": 12345678901234567890, "x":1.10,  "text":"\u0064og" ,"y":[{}]"#;
        assert_eq!(
            labelled(format!("{line}}}").as_bytes(), "--into labels").unwrap(),
            format!("{line},\"labels\":[\"n2084071\"]}}\n")
        );
    }

    #[test]
    fn a_list_of_captions_gives_a_list_of_lists_and_null_gives_null() {
        let labels = |line: &[u8]| {
            let out = labelled(line, "--format json").unwrap();
            out.split_once("\"synsets\":").unwrap().1.to_owned()
        };
        assert_eq!(labels(br#"{"texts":["a dog", "", null]}"#), "[[\"n2084071\"],[],null]}\n");
        assert_eq!(labels(br#"{"captions":[]}"#), "[]}\n");
        assert_eq!(labels(br#"{"text":null}"#), "null}\n");
    }

    #[test]
    fn the_first_of_the_known_fields_or_the_named_one_is_labelled() {
        let line = br#"{"text":"a cat","caption":"a dog","alt":"a car"}"#;
        assert!(labelled(line, "").unwrap().ends_with("\"synsets\":[\"n2084071\"]}\n"));
        assert!(labelled(line, "--field alt").unwrap().ends_with("\"synsets\":[\"n2958343\"]}\n"));
    }

    #[test]
    fn what_is_no_caption_is_named_with_its_line() {
        let error = |input: &[u8]| {
            let input = [b"{\"caption\":\"a\"}\n", input].concat();
            let error = labelled(&input, "").unwrap_err();
            error.strip_prefix("line 2 of captions cannot be labelled: ").unwrap().to_owned()
        };
        assert_eq!(
            error(br#"{"url":"b"}"#),
            "it has no field `caption`, `captions`, `texts`, `text`"
        );
        assert_eq!(
            error(br#"{"caption":7}"#),
            "`caption` is 7, expected a string, a list of strings, or null"
        );
        assert_eq!(
            error(br#"{"texts":["a",["b"]]}"#),
            "`texts[1]` is [\"b\"], expected a string or null"
        );
        assert_eq!(
            error(br#"{"caption":"a","synsets":[]}"#),
            "it already has a field `synsets`; name another with --into"
        );
        assert_eq!(error(br#"{"caption":"a","caption":"b"}"#), "field `caption` comes twice");
        assert_eq!(
            error(br#"{"caption":"a"} {}"#),
            "it is no JSON object: trailing characters at column 17"
        );
        assert_eq!(
            error(br#"{"caption":"\ud800"}"#),
            "it is no JSON object: unexpected end of hex escape at column 19"
        );
        assert_eq!(
            error(b"[\"a\"]"),
            "it is no JSON object: invalid type: sequence, expected an object at column 0"
        );
        assert_eq!(error(b"caf\xe9"), "it is not UTF-8: byte 0xe9 at offset 3");
    }

    #[test]
    fn a_long_wrong_value_is_shortened() {
        let line = format!("{{\"caption\":{{\"a\":\"{}\"}}}}", "é".repeat(1000));
        let error = labelled(line.as_bytes(), "").unwrap_err();
        assert!(error.len() < 200 && error.contains("éé…, expected a string"), "{error}");
    }

    #[test]
    fn bad_lines_are_marked_or_skipped_when_asked() {
        let input = b"a dog\ncaf\xe9\na cat";
        let (dog, cat) = (
            "{\"caption\":\"a dog\",\"synsets\":[\"n2084071\"]}\n",
            "{\"caption\":\"a cat\",\"synsets\":[\"n2121620\"]}\n",
        );
        let mark = "{\"line\":2,\"error\":\"it is not UTF-8: byte 0xe9 at offset 3\",\
                    \"synsets\":null}\n";
        assert_eq!(labelled(input, "--bad mark").unwrap(), format!("{dog}{mark}{cat}"));
        assert_eq!(labelled(input, "--bad skip").unwrap(), format!("{dog}{cat}"));
    }

    #[test]
    fn a_line_above_the_limit_is_bad_and_the_next_is_read() {
        let input = [&[b'x'; 1 << 20][..], b"\na dog\n"].concat();
        let error = labelled(&input, "--line-bytes-max 1000").unwrap_err();
        assert!(error.ends_with("it has more than 1000 bytes, the limit (--line-bytes-max)"));
        let rest = labelled(&input, "--line-bytes-max 1000 --bad skip").unwrap();
        assert_eq!(rest, "{\"caption\":\"a dog\",\"synsets\":[\"n2084071\"]}\n");
    }

    #[test]
    fn empty_lines_controls_and_other_ends_of_lines_have_a_meaning() {
        let caption = |input: &[u8]| labelled(input, "").unwrap();
        assert_eq!(caption(b""), "");
        assert_eq!(caption(b"\n"), "{\"caption\":\"\",\"synsets\":[]}\n");
        assert_eq!(caption(b"dog\r\n"), "{\"caption\":\"dog\",\"synsets\":[\"n2084071\"]}\n");
        assert_eq!(caption(b"do\0g"), "{\"caption\":\"do\\u0000g\",\"synsets\":[\"n2084071\"]}\n");
        assert_eq!(
            caption(b"\xef\xbb\xbf{\"caption\":\"dog\"}\r\n\n  \n"),
            "{\"caption\":\"dog\",\"synsets\":[\"n2084071\"]}\n"
        );
    }

    #[test]
    fn any_number_of_threads_prints_the_same() {
        let input: String = (0..20_000).map(|i| format!("{i} dogs and a cat\n")).collect();
        let one = labelled(input.as_bytes(), "--threads 1").unwrap();
        assert_eq!(one.lines().count(), 20_000);
        assert!(one == labelled(input.as_bytes(), "--threads 5").unwrap());
    }

    #[test]
    fn an_explanation_as_json_has_the_steps() {
        let out = labelled(b"the dogs", "--explain=json --keys wnid").unwrap();
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json["synsets"], serde_json::json!(["n02084071"]));
        assert_eq!(
            json["steps"],
            serde_json::json!([
                {
                    "token": "the", "lemma": "the", "synset": null, "name": null,
                    "kept": false, "because": "no noun of WordNet"
                },
                {
                    "token": "dogs", "lemma": "dog", "synset": "n02084071", "name": "dog",
                    "kept": true, "because": "its synset bears its name"
                }
            ])
        );
    }
}
