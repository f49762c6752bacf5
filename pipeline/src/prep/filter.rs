//! Which samples are wanted.
//!
//! In: the section `filter` of the config. Out: for a sample, whether it stays, or the reason that
//! the ledger gets. Each question is asked as soon as it can be answered, the cheap ones before an
//! image is decoded. Never: looks at another part.

use std::collections::HashSet;
use std::path::Path;

use crate::config::FilterConfig;
use crate::error::{ConfigError, PrepError, SampleError};
use crate::source::byte_order_mark::without_mark;
use crate::source::captions::Caption;

/// The section `filter`, resolved.
pub struct Filter {
    config: FilterConfig,
    keep_keys: Option<KeyList>,
    drop_keys: Option<KeyList>,
    conditions: Vec<Condition>,
}

/// Keys of a file, and what tells this list from another.
struct KeyList {
    keys: HashSet<Vec<u8>>,
    hash: String,
}

impl Filter {
    /// Reads the lists of keys and the conditions.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`] for a list that cannot be read, [`PrepError::Config`] for a condition
    /// that is none.
    pub fn new(config: &FilterConfig) -> Result<Self, PrepError> {
        let conditions = config
            .conditions
            .iter()
            .map(|text| Condition::parse(text))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            keep_keys: KeyList::read(&config.keep_keys)?,
            drop_keys: KeyList::read(&config.drop_keys)?,
            conditions,
            config: config.clone(),
        })
    }

    /// The config as it decides the output: lists by what they hold, not by where they lie.
    pub fn identity(&self) -> FilterConfig {
        let hash = |list: &Option<KeyList>| {
            list.as_ref().map_or_else(String::new, |list| list.hash.clone())
        };
        FilterConfig {
            keep_keys: hash(&self.keep_keys),
            drop_keys: hash(&self.drop_keys),
            ..self.config.clone()
        }
    }

    /// Whether samples of that key are wanted.
    ///
    /// # Errors
    ///
    /// [`SampleError::Filtered`] as `filter-key`.
    pub fn check_key(&self, key: &[u8]) -> Result<(), SampleError> {
        let filtered = |message: &str| Err(filtered("filter-key", message.to_owned()));
        if self.keep_keys.as_ref().is_some_and(|list| !list.keys.contains(key)) {
            return filtered("its key is not in `filter.keep_keys`");
        }
        if self.drop_keys.as_ref().is_some_and(|list| list.keys.contains(key)) {
            return filtered("its key is in `filter.drop_keys`");
        }
        Ok(())
    }

    /// Whether enough captions are of a wanted length.
    ///
    /// # Errors
    ///
    /// [`SampleError::Filtered`] as `filter-captions`.
    pub fn check_captions(&self, captions: &[Caption]) -> Result<(), SampleError> {
        let lengths = self.config.caption_bytes_min..=self.config.caption_bytes_max;
        let found = captions.iter().filter(|c| lengths.contains(&c.text.len())).count();
        let expected = self.config.captions_min;
        if found >= expected {
            return Ok(());
        }
        let (from, to) = (lengths.start(), lengths.end());
        let message =
            format!("{found} captions of {from} to {to} bytes, at least {expected} wanted");
        Err(filtered("filter-captions", message))
    }

    /// Whether every condition holds for the sample's json.
    ///
    /// # Errors
    ///
    /// [`SampleError::Filtered`] as `filter-where`; [`SampleError::Json`] for a json that is none.
    pub fn check_json(&self, json: Option<&str>) -> Result<(), SampleError> {
        if self.conditions.is_empty() {
            return Ok(());
        }
        let json: serde_json::Value = match json {
            Some(text) => serde_json::from_str(text).map_err(|e| SampleError::Json {
                member: "json".to_owned(),
                message: e.to_string(),
            })?,
            None => serde_json::Value::Null,
        };
        self.conditions.iter().try_for_each(|condition| condition.check(&json))
    }

    /// Whether a source image of that size is wanted.
    ///
    /// # Errors
    ///
    /// [`SampleError::Filtered`] as `filter-side` or `filter-aspect`.
    pub fn check_size(&self, (width_px, height_px): (u32, u32)) -> Result<(), SampleError> {
        let (short, long) = (width_px.min(height_px), width_px.max(height_px));
        let FilterConfig { side_min_px, aspect_max, .. } = self.config;
        if short < side_min_px {
            let message = format!("short side of {short} px, at least {side_min_px} wanted");
            return Err(filtered("filter-side", message));
        }
        let aspect = f64::from(long) / f64::from(short.max(1));
        if aspect_max != 0.0 && aspect > aspect_max {
            let message = format!("sides of {aspect:.2} to 1, at most {aspect_max} wanted");
            return Err(filtered("filter-aspect", message));
        }
        Ok(())
    }
}

/// What becomes of an image that came before in the same part.
pub fn duplicate(image_hash: [u8; 16]) -> SampleError {
    let hash: String = image_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    filtered("filter-duplicate", format!("an earlier row of the part has the image {hash}"))
}

fn filtered(reason: &'static str, message: String) -> SampleError {
    SampleError::Filtered { reason, message }
}

impl KeyList {
    fn read(path: &str) -> Result<Option<Self>, PrepError> {
        if path.is_empty() {
            return Ok(None);
        }
        let path = Path::new(path);
        let bytes = std::fs::read(path).map_err(|e| PrepError::io("read", path, e))?;
        let lines = without_mark(&bytes).split(|&b| b == b'\n');
        let lines = lines.map(|l| l.strip_suffix(b"\r").unwrap_or(l));
        let keys = lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
        let hash = format!("blake3-{}", blake3::hash(&bytes).to_hex());
        Ok(Some(Self { keys, hash }))
    }
}

/// A field of the json compared with a number.
#[derive(Clone, Debug, PartialEq)]
struct Condition {
    text: String,
    path: Vec<String>,
    comparison: &'static str,
    number: f64,
}

/// Longer ones first, so that `>=` is not read as `>`.
const COMPARISONS: [&str; 6] = [">=", "<=", "==", "!=", ">", "<"];

impl Condition {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = |expected: &str| ConfigError::Range {
            key: "filter.where",
            found: format!("`{text}`"),
            expected: expected.to_owned(),
        };
        let comparison = COMPARISONS.iter().copied().find(|c| text.contains(c));
        let comparison =
            comparison.ok_or_else(|| wrong("a field, one of >= <= > < == !=, a number"))?;
        let (field, number) = text.split_once(comparison).unwrap_or((text, ""));
        let number: f64 = number.trim().parse().map_err(|_| wrong("a number on the right"))?;
        let path: Vec<String> = field.trim().split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) || number.is_nan() {
            return Err(wrong("a field such as `clip_score` or `meta.width` on the left"));
        }
        Ok(Self { text: text.to_owned(), path, comparison, number })
    }

    fn check(&self, json: &serde_json::Value) -> Result<(), SampleError> {
        let value = self.path.iter().try_fold(json, |at, name| at.get(name));
        let Some(found) = value.and_then(serde_json::Value::as_f64) else {
            let message = format!("`{}` is wanted, the json has no such number", self.text);
            return Err(filtered("filter-where", message));
        };
        let holds = match self.comparison {
            ">=" => found >= self.number,
            "<=" => found <= self.number,
            ">" => found > self.number,
            "<" => found < self.number,
            "==" => found == self.number,
            _ => found != self.number,
        };
        match holds {
            true => Ok(()),
            false => {
                Err(filtered("filter-where", format!("`{}` is wanted, it is {found}", self.text)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PrepConfig;

    fn filter(change: impl FnOnce(&mut FilterConfig)) -> Filter {
        let mut config = PrepConfig::default().filter;
        change(&mut config);
        Filter::new(&config).unwrap()
    }

    fn verdict(result: Result<(), SampleError>) -> String {
        result.map_or_else(|e| format!("{}: {e}", e.reason()), |()| "wanted".to_owned())
    }

    #[test]
    fn conditions_read_numbers_of_the_json() {
        let json = Some(r#"{"score": 0.28, "meta": {"width": 100}, "name": "x"}"#);
        let check = |condition: &str| {
            verdict(filter(|f| f.conditions = vec![condition.to_owned()]).check_json(json))
        };
        for holds in
            ["score >= 0.28", "score<=.28", "meta.width > 99", "meta.width<101", "score==0.28"]
        {
            assert_eq!(check(holds), "wanted", "{holds}");
        }
        assert_eq!(
            check("score > 0.28"),
            "filter-where: filtered: `score > 0.28` is wanted, it is 0.28"
        );
        assert_eq!(check("score != 0.28").split(':').next(), Some("filter-where"));
        for absent in ["name > 1", "meta.height > 1", "score.x > 1"] {
            assert!(check(absent).contains("has no such number"), "{absent}");
        }
    }

    #[test]
    fn a_condition_that_is_none_is_refused() {
        for wrong in ["score", "score >= high", ">= 3", "a..b > 1", "score > nan"] {
            let error = Condition::parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`filter.where` is `{wrong}`")), "{error}");
        }
    }

    #[test]
    fn sizes_and_captions_are_judged() {
        let filter = filter(|f| {
            (f.side_min_px, f.aspect_max, f.captions_min) = (100, 3.0, 2);
            (f.caption_bytes_min, f.caption_bytes_max) = (3, 5);
        });
        assert_eq!(verdict(filter.check_size((300, 100))), "wanted");
        assert_eq!(
            verdict(filter.check_size((99, 300))),
            "filter-side: filtered: short side of 99 px, at least 100 wanted"
        );
        assert_eq!(
            verdict(filter.check_size((100, 301))),
            "filter-aspect: filtered: sides of 3.01 to 1, at most 3 wanted"
        );
        let captions = |texts: &[&str]| -> Vec<Caption> {
            let caption = |t: &&str| Caption { text: (*t).to_owned(), origin: "txt".to_owned() };
            texts.iter().map(caption).collect()
        };
        assert_eq!(verdict(filter.check_captions(&captions(&["abc", "abcde", "a"]))), "wanted");
        assert_eq!(
            verdict(filter.check_captions(&captions(&["abc", "abcdef"]))),
            "filter-captions: filtered: 1 captions of 3 to 5 bytes, at least 2 wanted"
        );
    }

    #[test]
    fn lists_of_keys_count_by_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("a"), "one\r\ntwo\n\n").unwrap();
        std::fs::write(path("b"), "one\r\ntwo\n\n").unwrap();
        let keeping = |list: &str| filter(|f| f.keep_keys = path(list));
        assert_eq!(verdict(keeping("a").check_key(b"two")), "wanted");
        std::fs::write(path("marked"), "\u{feff}one\r\ntwo\n").unwrap();
        assert_eq!(verdict(keeping("marked").check_key(b"one")), "wanted");
        assert_eq!(
            verdict(keeping("a").check_key(b"three")),
            "filter-key: filtered: its key is not in `filter.keep_keys`"
        );
        let dropping = filter(|f| f.drop_keys = path("a"));
        assert_eq!(verdict(dropping.check_key(b"three")), "wanted");
        assert!(dropping.check_key(b"one").is_err());
        assert_eq!(keeping("a").identity(), keeping("b").identity());
        std::fs::write(path("b"), "one").unwrap();
        assert_ne!(keeping("a").identity(), keeping("b").identity());
        let mut absent = PrepConfig::default().filter;
        absent.keep_keys = path("c");
        assert!(matches!(Filter::new(&absent), Err(PrepError::Io { .. })));
    }
}
