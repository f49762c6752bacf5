//! Samples of the reference's own shards: one pickle each, `k/<i>.pkl` in `k.tar.gz`.
//!
//! In: the pickle, a dict of `image` (base64 of an encoded image) and `texts` or `text`. Out: the
//! files that a WebDataset shard would hold: the image, and a `txt` or a `json` of captions, so
//! that nobody behind knows of pickles. Never: runs what a pickle says.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::pickle::Pickle;
use super::sample::File;
use crate::error::SampleError;

/// The extension of such a file.
pub const EXTENSION: &str = "pkl";

/// The files that stand in the pickle `file`.
///
/// `texts` is preferred to `text`, as the reference has it. A text of `None` is no caption; a list
/// of texts is a list of captions and not, as in the reference, one caption with brackets.
///
/// # Errors
///
/// [`SampleError::Pickle`] for a pickle that is not read, and for a dict of other values.
pub fn unpack<'a>(file: &File<'a>) -> Result<Vec<File<'a>>, SampleError> {
    let wrong = |message: String| SampleError::Pickle { message };
    let Pickle::Dict(pairs) = Pickle::read(&file.data).map_err(|e| wrong(e.to_string()))? else {
        return Err(wrong("it is no dict".to_owned()));
    };
    // Of a key that comes again the last value holds.
    let value = |name: &str| {
        let mut pairs = pairs.iter().rev();
        pairs.find(|(key, _)| matches!(key, Pickle::Str(key) if key == name)).map(|(_, v)| v)
    };
    let text: &[u8] = match value("image") {
        Some(Pickle::Str(text)) => text.as_bytes(),
        Some(Pickle::Bytes(bytes)) => bytes,
        Some(other) => return Err(wrong(format!("its `image` is {}, not base64", other.kind()))),
        None => return Err(wrong("it has no `image`".to_owned())),
    };
    let image = STANDARD
        .decode(text)
        .map_err(|e| wrong(format!("its `image` of {} bytes is no base64: {e}", text.len())))?;
    let made = |extension: &str, data: Vec<u8>| File {
        extension: extension.to_owned(),
        offset: file.offset,
        data: Cow::Owned(data),
    };
    // Which format it is, the bytes decide; `jpg` only says that it is an image.
    let mut files = vec![made("jpg", image)];
    let (name, captions) = match (value("texts"), value("text")) {
        (Some(texts), _) if *texts != Pickle::None => ("texts", texts),
        (_, Some(text)) => ("text", text),
        _ => return Ok(files),
    };
    match captions {
        Pickle::None => {}
        Pickle::Str(text) => files.push(made("txt", text.as_bytes().to_vec())),
        Pickle::List(all) | Pickle::Tuple(all) => {
            let caption = |one: &Pickle<'_>| match one {
                Pickle::Str(text) => Ok(text.to_string()),
                other => Err(wrong(format!("one of its `{name}` is {}, not a str", other.kind()))),
            };
            let captions = all.iter().map(caption).collect::<Result<Vec<_>, _>>()?;
            let json = serde_json::json!({ "captions": captions });
            files.push(made("json", json.to_string().into_bytes()));
        }
        other => return Err(wrong(format!("its `{name}` is {}, not a str", other.kind()))),
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::bytes::TarBytes;
    use crate::source::sample::SampleReader;

    /// A dict of strings, by hand: protocol 2 as Python writes it, values given as opcodes.
    fn dict(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = b"\x80\x02}(".to_vec();
        for (key, value) in pairs {
            bytes.extend(text(key));
            bytes.extend(value);
        }
        bytes.extend(b"u.");
        bytes
    }

    fn text(text: &str) -> Vec<u8> {
        [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn unpacked(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let data = Cow::Borrowed(bytes);
        let file = File { extension: EXTENSION.to_owned(), offset: 512, data };
        let files = unpack(&file).map_err(|e| e.to_string())?;
        Ok(files.into_iter().map(|f| (f.extension, f.data.into_owned())).collect())
    }

    #[test]
    fn a_pickle_is_an_image_and_its_captions() {
        let image = ("image", text("AAEC/w=="));
        let jpg = ("jpg".to_owned(), vec![0, 1, 2, 255]);
        let found = unpacked(&dict(&[image.clone(), ("text", text("a dog"))])).unwrap();
        assert_eq!(found, [jpg.clone(), ("txt".to_owned(), b"a dog".to_vec())]);
        let list = [b"]("[..].to_vec(), text("one"), text("two"), b"e".to_vec()].concat();
        let both = dict(&[image.clone(), ("text", text("no")), ("texts", list)]);
        let json = br#"{"captions":["one","two"]}"#.to_vec();
        assert_eq!(unpacked(&both).unwrap(), [jpg.clone(), ("json".to_owned(), json)]);
        let none = dict(&[image, ("text", b"N".to_vec())]);
        assert_eq!(unpacked(&none).unwrap(), [jpg]);
    }

    #[test]
    fn what_is_no_such_pickle_is_told() {
        let image = ("image", text("AAEC/w=="));
        for (bytes, message) in [
            (b"cos\nsystem\n(S'ls'\ntR.".to_vec(), "it would run code"),
            (b"\x80\x02N.".to_vec(), "it is no dict"),
            (dict(&[("text", text("a"))]), "it has no `image`"),
            (dict(&[("image", text("AA\nEC"))]), "is no base64"),
            (dict(&[("image", b"K\x07".to_vec())]), "its `image` is an int"),
            (dict(&[image.clone(), ("text", b"K\x07".to_vec())]), "its `text` is an int"),
            (dict(&[image, ("texts", b"](K\x07e".to_vec())]), "one of its `texts` is an int"),
        ] {
            let error = unpacked(&bytes).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_shard_of_pickles_reads_like_one_of_files() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut builder = tar::Builder::new(&mut gzip);
        let good = dict(&[("image", text("AAEC/w==")), ("text", text("a dog"))]);
        for (name, data) in [("7/0.pkl", &good[..]), ("7/1.pkl", b"no pickle"), ("7/2.pkl", &good)]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, data).unwrap();
        }
        builder.finish().unwrap();
        drop(builder);
        let shard = gzip.finish().unwrap();
        let found: Vec<_> = SampleReader::new(TarBytes::open(&shard).unwrap(), false)
            .map(|s| match s {
                Ok(s) => format!("{} {}", String::from_utf8_lossy(&s.key), s.extensions()),
                Err(r) => format!("{} {}", String::from_utf8_lossy(&r.key), r.error.reason()),
            })
            .collect();
        assert_eq!(found, ["7/0 jpg, txt", "7/1 pickle", "7/2 jpg, txt"]);
    }
}
