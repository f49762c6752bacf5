//! One line of the filter: its captions, and the begin of what is printed for it.
//!
//! In: a line of text or a JSON object. Out: its captions, and the object without its last brace.
//! Never: changes a field of the object, not even its spaces; looks into fields it does not need.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::labels::write_json_string;

/// Fields in which captions are looked for, in this order.
const FIELDS: [&str; 4] = ["caption", "captions", "texts", "text"];

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A caption.
    Text,
    /// A JSON object with captions.
    Json,
}

/// The captions of a line; `None` is JSON's null.
#[derive(Debug, PartialEq, Eq)]
pub enum Captions {
    /// One caption.
    One(Option<String>),
    /// A list of them.
    Many(Vec<Option<String>>),
}

impl Captions {
    /// Every caption in order.
    pub fn each(&self) -> &[Option<String>] {
        match self {
            Self::One(caption) => std::slice::from_ref(caption),
            Self::Many(captions) => captions,
        }
    }
}

/// A line with its captions.
#[derive(Debug)]
pub struct CaptionLine<'a> {
    line: &'a str,
    format: Format,
    /// What is in it.
    pub captions: Captions,
}

impl<'a> CaptionLine<'a> {
    /// Reads a line; none for a blank line between JSON lines.
    ///
    /// # Errors
    ///
    /// A half-sentence that says why it is no caption.
    pub fn parse(
        line: &'a str,
        format: Format,
        field: Option<&str>,
        into: &str,
    ) -> Result<Option<Self>, String> {
        let captions = match format {
            Format::Text => Captions::One(Some(line.to_owned())),
            Format::Json if line.trim_ascii().is_empty() => return Ok(None),
            Format::Json => json_captions(line, field, into)?,
        };
        Ok(Some(Self { line, format, captions }))
    }

    /// Writes the object up to where another field may follow.
    pub fn begin(&self, out: &mut Vec<u8>) {
        match (self.format, &self.captions) {
            (Format::Text, Captions::One(Some(caption))) => {
                out.extend(b"{\"caption\":");
                write_json_string(out, caption);
            }
            _ => {
                let line = self.line.trim_ascii();
                out.extend(line.strip_suffix('}').unwrap_or(line).as_bytes());
            }
        }
    }
}

fn json_captions(line: &str, field: Option<&str>, into: &str) -> Result<Captions, String> {
    let fields: &[&str] = field.as_ref().map_or(&FIELDS, std::slice::from_ref);
    let mut json = serde_json::Deserializer::from_str(line);
    let object = json.deserialize_map(Fields { fields, into }).and_then(|found| {
        json.end()?;
        Ok(found)
    });
    let found = object.map_err(|e| format!("it is no JSON object: {}", without_line(&e)))?;
    if let Some(name) = found.twice {
        return Err(format!("field `{name}` comes twice"));
    }
    if found.has_into {
        return Err(format!("it already has a field `{into}`; name another with --into"));
    }
    let mut named = fields.iter().zip(found.values);
    match named.find_map(|(name, value)| Some((name, value?))) {
        Some((name, value)) => captions_of(name, value),
        None => Err(format!("it has no field `{}`", fields.join("`, `"))),
    }
}

/// What the parser says, with the column only: it counts lines of its own.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(&*text, |(message, _)| message);
    format!("{message} at column {}", error.column())
}

fn captions_of(name: &str, value: Value) -> Result<Captions, String> {
    let wrong = |name: String, value: &Value, expected: &str| {
        const SHOWN: usize = 40;
        let mut found: String = value.to_string().chars().take(SHOWN + 1).collect();
        if let Some((cut, _)) = found.char_indices().nth(SHOWN) {
            found.replace_range(cut.., "…");
        }
        format!("`{name}` is {found}, expected {expected}")
    };
    let one = |value: &Value| match value {
        Value::Null => Some(None),
        Value::String(text) => Some(Some(text.clone())),
        _ => None,
    };
    match value {
        Value::String(text) => Ok(Captions::One(Some(text))),
        Value::Null => Ok(Captions::One(None)),
        Value::Array(list) => {
            let each = list.iter().enumerate().map(|(i, value)| {
                let wrong = || wrong(format!("{name}[{i}]"), value, "a string or null");
                one(value).ok_or_else(wrong)
            });
            each.collect::<Result<_, _>>().map(Captions::Many)
        }
        other => Err(wrong(name.to_owned(), &other, "a string, a list of strings, or null")),
    }
}

/// The wanted fields of one object.
struct Fields<'f> {
    fields: &'f [&'f str],
    into: &'f str,
}

struct FoundFields {
    /// By place in [`Fields::fields`].
    values: Vec<Option<Value>>,
    has_into: bool,
    twice: Option<String>,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = FoundFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FoundFields, A::Error> {
        let values = self.fields.iter().map(|_| None).collect();
        let mut found = FoundFields { values, has_into: false, twice: None };
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            found.has_into |= name == self.into;
            match self.fields.iter().position(|field| *field == name) {
                Some(place) => {
                    if found.values[place].replace(map.next_value()?).is_some() {
                        found.twice = Some(name.into_owned());
                    }
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}
