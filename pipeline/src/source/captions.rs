//! The captions of a sample.
//!
//! In: a sample and the configured sources, such as `json:captions` and `txt`. Out: the captions
//! of the first source that is there, with their origin. A text file is one caption; a json field
//! is a string or a list of strings. Never: a caption that is not UTF-8; the text of a list.

use serde_json::Value;

use super::Sample;
use crate::error::SampleError;

/// One caption and where it came from: `txt`, `json.captions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caption {
    /// The text as it stands in the shard.
    pub text: String,
    /// Its source.
    pub origin: String,
}

/// Where captions are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptionSource {
    /// The file with this extension, as one caption.
    File(String),
    /// A field of the file with this extension.
    JsonField {
        /// Extension, `json`.
        extension: String,
        /// Name of the field.
        field: String,
    },
}

impl CaptionSource {
    /// Reads `txt` or `json:captions`; `None` for what is neither.
    ///
    /// Extensions are as samples have them: without a dot before them, in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let is_extension = |text: &str| {
            let is_wrong = |c: char| c.is_uppercase() || c.is_whitespace() || "/*?[]{}".contains(c);
            !text.contains(is_wrong) && text.split('.').all(|part| !part.is_empty())
        };
        let Some((extension, field)) = text.split_once(':') else {
            return is_extension(text).then(|| Self::File(text.into()));
        };
        let is_json = extension == "json" || extension.ends_with(".json");
        let is_source = is_json && is_extension(extension) && !field.is_empty();
        is_source.then(|| Self::JsonField { extension: extension.into(), field: field.into() })
    }

    fn name(&self) -> String {
        match self {
            Self::File(extension) => extension.clone(),
            Self::JsonField { extension, field } => format!("{extension}:{field}"),
        }
    }
}

/// The captions of `sample` from the first of `sources` that it has.
///
/// A json file without the field, or with `null` or an empty list there, does not have it.
///
/// # Errors
///
/// [`SampleError::CaptionMissing`], [`SampleError::NotUtf8`], [`SampleError::Json`],
/// [`SampleError::CaptionTooLong`].
pub fn captions(
    sample: &Sample<'_>,
    sources: &[CaptionSource],
    bytes_max: usize,
) -> Result<Vec<Caption>, SampleError> {
    for source in sources {
        let captions = match source {
            CaptionSource::File(extension) => {
                text_of(sample, extension)?.map(|text| vec![(text.to_owned(), extension.clone())])
            }
            CaptionSource::JsonField { extension, field } => text_of(sample, extension)?
                .map(|text| field_texts(extension, field, text))
                .transpose()?
                .filter(|texts| !texts.is_empty())
                .map(|texts| {
                    texts.into_iter().map(|t| (t, format!("{extension}.{field}"))).collect()
                }),
        };
        let Some(captions) = captions else { continue };
        if let Some((text, _)) = captions.iter().find(|(text, _)| text.len() > bytes_max) {
            return Err(SampleError::CaptionTooLong { bytes: text.len(), limit: bytes_max });
        }
        return Ok(captions.into_iter().map(|(text, origin)| Caption { text, origin }).collect());
    }
    Err(SampleError::CaptionMissing {
        sources: sources.iter().map(CaptionSource::name).collect::<Vec<_>>().join(", "),
        members: sample.extensions(),
    })
}

/// The file of that extension as text, if the sample has one.
///
/// # Errors
///
/// [`SampleError::NotUtf8`] with the first wrong byte.
pub fn text_of<'s>(
    sample: &'s Sample<'_>,
    extension: &str,
) -> Result<Option<&'s str>, SampleError> {
    let Some(file) = sample.files.iter().find(|f| f.extension == extension) else {
        return Ok(None);
    };
    std::str::from_utf8(&file.data).map(Some).map_err(|e| SampleError::NotUtf8 {
        member: extension.to_owned(),
        byte: file.data[e.valid_up_to()],
        offset: e.valid_up_to(),
    })
}

fn field_texts(extension: &str, field: &str, text: &str) -> Result<Vec<String>, SampleError> {
    let wrong = |message: String| SampleError::Json { member: extension.to_owned(), message };
    let json: Value = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    match json.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(list)) => list
            .iter()
            .enumerate()
            .map(|(i, item)| {
                item.as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| wrong(format!("`{field}[{i}]` is {item}, expected a string")))
            })
            .collect(),
        Some(other) => {
            Err(wrong(format!("`{field}` is {other}, expected a string or a list of strings")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::source::sample::File;

    fn found(files: &[(&str, &[u8])], sources: &[&str]) -> Result<Vec<String>, String> {
        let files = files
            .iter()
            .map(|(extension, data)| File {
                extension: extension.to_string(),
                offset: 0,
                data: Cow::Borrowed(*data),
            })
            .collect();
        let sources: Vec<_> = sources.iter().filter_map(|s| CaptionSource::parse(s)).collect();
        captions(&Sample { key: b"k".to_vec(), files }, &sources, 20)
            .map(|list| list.into_iter().map(|c| format!("{}={}", c.origin, c.text)).collect())
            .map_err(|e| format!("{}: {e}", e.reason()))
    }

    #[test]
    fn a_source_is_an_extension_or_a_field_of_a_json() {
        let field = |extension: &str, field: &str| {
            Some(CaptionSource::JsonField { extension: extension.into(), field: field.into() })
        };
        assert_eq!(
            CaptionSource::parse("alt-1.txt"),
            Some(CaptionSource::File("alt-1.txt".into()))
        );
        assert_eq!(CaptionSource::parse("json:caption"), field("json", "caption"));
        assert_eq!(CaptionSource::parse("meta.json:Alt: text"), field("meta.json", "Alt: text"));
        for wrong in
            ["", " txt", ".txt", "TXT", "*.txt", "jsn:caption", "json:", ":caption", "JSON:a"]
        {
            assert_eq!(CaptionSource::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_first_source_that_is_there_wins() {
        let files: [(&str, &[u8]); 2] =
            [("txt", b"a cat"), ("json", br#"{"captions":["a dog","b"]}"#)];
        let sources = ["json:captions", "txt"];
        assert_eq!(found(&files, &sources).unwrap(), ["json.captions=a dog", "json.captions=b"]);
        assert_eq!(found(&files[..1], &sources).unwrap(), ["txt=a cat"]);
    }

    #[test]
    fn a_field_that_is_absent_null_or_empty_gives_way() {
        for json in ["{}", r#"{"captions":null}"#, r#"{"captions":[]}"#] {
            let files = [("json", json.as_bytes()), ("txt", b"t".as_slice())];
            assert_eq!(found(&files, &["json:captions", "txt"]).unwrap(), ["txt=t"]);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(
            found(&[("txt", b"caf\xe9")], &["txt"]).unwrap_err(),
            "caption-not-utf8: `txt` is not UTF-8: byte 0xe9 at offset 3"
        );
        assert_eq!(
            found(&[("json", br#"{"captions":["a",7]}"#)], &["json:captions"]).unwrap_err(),
            "caption-json: `json` is not the expected json: `captions[1]` is 7, expected a string"
        );
        assert_eq!(
            found(&[("jpg", b"")], &["json:captions", "txt"]).unwrap_err(),
            "caption-missing: no caption: none of json:captions, txt is there (its files: jpg)"
        );
        assert_eq!(
            found(&[("txt", &[b'a'; 21])], &["txt"]).unwrap_err(),
            "caption-too-long: caption has 21 bytes, above the limit of 20"
        );
    }
}
