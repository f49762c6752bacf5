//! `catlip-prep labels`: a filter from captions to synsets.
//!
//! In: one caption a line, or JSON lines with a `caption` field; a file whose first line begins
//! with `{` is JSON. Out: `{"caption": …, "synsets": ["n2084071", …]}` a line, in token order.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde_json::Value;

use crate::caption::{LabelRule, rule};
use crate::config::PrepConfig;
use crate::error::PrepError;

/// Labels the lines of `input`, or of standard input for `-`.
pub fn run(
    rule_name: &str,
    settings: &[String],
    input: &Path,
    as_wnids: bool,
) -> Result<(), PrepError> {
    let rule = rule(rule_name, &PrepConfig::load(None, settings)?.nouns)?;
    let rule = rule.as_ref();
    let stdout = BufWriter::new(std::io::stdout().lock());
    if input == Path::new("-") {
        return label_lines(rule, std::io::stdin().lock(), input, stdout, as_wnids);
    }
    let file = File::open(input).map_err(|e| PrepError::io("read", input, e))?;
    label_lines(rule, BufReader::new(file), input, stdout, as_wnids)
}

fn label_lines(
    rule: &dyn LabelRule,
    mut lines: impl BufRead,
    path: &Path,
    mut out: impl Write,
    as_wnids: bool,
) -> Result<(), PrepError> {
    let mut is_json = None;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read =
            lines.read_until(b'\n', &mut line).map_err(|e| PrepError::io("read", path, e))?;
        if read == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let bad = |message: String| PrepError::Line { path: path.into(), number, message };
        let text = std::str::from_utf8(&line).map_err(|e| bad(format!("it is not UTF-8: {e}")))?;
        let json = *is_json.get_or_insert_with(|| text.trim_start().starts_with('{'));
        let caption = if json { json_caption(text).map_err(bad)? } else { text.to_owned() };
        let synsets = rule.synsets(&caption);
        let keys: Vec<String> =
            synsets.0.iter().map(|s| if as_wnids { s.wnid() } else { s.corenet_key() }).collect();
        let line = serde_json::json!({ "caption": caption, "synsets": keys });
        match writeln!(out, "{line}") {
            // The reader has seen enough, as `head` does.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.map_err(|e| PrepError::io("write", Path::new("standard output"), e))?,
        }
    }
    match out.flush() {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(PrepError::io("write", Path::new("standard output"), e))
        }
        _ => Ok(()),
    }
}

fn json_caption(text: &str) -> Result<String, String> {
    let json: Value = serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
    match json.get("caption") {
        Some(Value::String(caption)) => Ok(caption.clone()),
        Some(other) => Err(format!("`caption` is {other}, expected a string")),
        None => Err("it has no field `caption`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(input: &[u8], as_wnids: bool) -> Result<String, String> {
        let rule = rule("corenet", &PrepConfig::default().nouns).unwrap();
        let mut out = Vec::new();
        label_lines(rule.as_ref(), input, Path::new("captions"), &mut out, as_wnids)
            .map(|()| String::from_utf8(out).unwrap())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn lines_and_json_lines_give_the_same() {
        let expected = "{\"caption\":\"An image of black dog.\",\
                        \"synsets\":[\"n5928118\",\"n4960277\",\"n2084071\"]}\n";
        assert_eq!(labelled(b"An image of black dog.\n", false).unwrap(), expected);
        let json = br#"{"caption": "An image of black dog.", "url": 1}"#;
        assert_eq!(labelled(json, false).unwrap(), expected);
        assert!(labelled(b"a dog", true).unwrap().contains("[\"n02084071\"]"));
    }

    #[test]
    fn a_wrong_line_is_named() {
        assert_eq!(
            labelled(b"{\"caption\":\"a\"}\n{\"text\":\"b\"}\n", false).unwrap_err(),
            "line 2 of captions cannot be labelled: it has no field `caption`"
        );
        assert!(labelled(b"ok\ncaf\xe9\n", false).unwrap_err().contains("line 2"));
    }
}
