//! What the user said: `prep.default.toml`, overlaid by a file and by `--set`.
//!
//! In: TOML. Out: a [`PrepConfig`]; what it means for a job is [`crate::prep::plan`]. Never: a key
//! that is silently ignored.

use serde::{Deserialize, Serialize};

use crate::caption::nouns::NounsOptions;
use crate::error::ConfigError;
use crate::image::{Filter, PIXELS_MAX_DEFAULT};
use crate::prep::memory::{DECODE_BYTES_PER_PX, Memory};

/// The commented default file: the manual of every key.
pub const DEFAULT_TOML: &str = include_str!("../prep.default.toml");

/// Most threads that a setting or flag may ask for.
pub const THREADS_MAX: u64 = 4096;

/// Section `source`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "prep.default.toml is the manual of every key")]
pub struct SourceConfig {
    pub root: String,
    pub allow_missing_end: bool,
    pub spool_dir: String,
    pub spool_bytes: u64,
    pub requests: usize,
    pub retries: usize,
    pub timeout_secs: f64,
}

/// Section `image`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "prep.default.toml is the manual of every key")]
pub struct ImageConfig {
    pub mode: ImageMode,
    pub short_side_px: u32,
    pub filter: Filter,
    pub quality: u8,
    pub chroma: ChromaConfig,
    pub keep_small_jpeg: bool,
    pub check: bool,
    pub background: [u8; 3],
    pub allow_truncated: bool,
    pub pixels_max: u64,
    pub bytes_max: u64,
    pub rows_per_group: u32,
}

/// `image.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "prep.default.toml is the manual of every key")]
pub enum ImageMode {
    Resize,
    Keep,
    Reference,
}

/// `image.chroma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "prep.default.toml is the manual of every key")]
pub enum ChromaConfig {
    #[serde(rename = "420")]
    Yuv420,
    #[serde(rename = "444")]
    Yuv444,
}

/// Section `caption`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "prep.default.toml is the manual of every key")]
pub struct CaptionConfig {
    pub sources: Vec<String>,
    pub rule: String,
    pub bytes_max: usize,
}

/// `budget.on_bad_sample`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "prep.default.toml is the manual of every key")]
pub enum BadSample {
    Skip,
    Stop,
    Quarantine,
}

/// Section `filter`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "prep.default.toml is the manual of every key")]
pub struct FilterConfig {
    pub side_min_px: u32,
    pub aspect_max: f64,
    pub captions_min: usize,
    pub caption_bytes_min: usize,
    pub caption_bytes_max: usize,
    pub duplicates: Duplicates,
    pub keep_keys: String,
    pub drop_keys: String,
    #[serde(rename = "where")]
    pub conditions: Vec<String>,
}

/// `filter.duplicates`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "prep.default.toml is the manual of every key")]
pub enum Duplicates {
    Keep,
    Drop,
}

/// Section `budget`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "prep.default.toml is the manual of every key")]
pub struct BudgetConfig {
    pub on_bad_sample: BadSample,
    pub quarantine_dir: String,
    pub failure_count: i64,
    pub failure_rate: f64,
    pub probation: u64,
    pub damaged_shards: u64,
}

/// Section `runtime`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "prep.default.toml is the manual of every key")]
pub struct RuntimeConfig {
    pub threads: usize,
    pub memory_bytes: u64,
    pub redo_changed: bool,
    pub redo_config: bool,
    pub redo_lost: bool,
}

/// All settings of `catlip-prep run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "prep.default.toml is the manual of every key")]
pub struct PrepConfig {
    pub source: SourceConfig,
    pub image: ImageConfig,
    pub caption: CaptionConfig,
    pub nouns: NounsOptions,
    pub filter: FilterConfig,
    pub budget: BudgetConfig,
    pub runtime: RuntimeConfig,
}

impl Default for PrepConfig {
    fn default() -> Self {
        Self {
            source: SourceConfig {
                root: String::new(),
                allow_missing_end: false,
                spool_dir: String::new(),
                spool_bytes: 16 << 30,
                requests: 8,
                retries: 8,
                timeout_secs: 30.0,
            },
            image: ImageConfig {
                mode: ImageMode::Resize,
                short_side_px: 320,
                filter: Filter::Lanczos3,
                quality: 90,
                chroma: ChromaConfig::Yuv420,
                keep_small_jpeg: true,
                check: true,
                background: [255; 3],
                allow_truncated: false,
                pixels_max: PIXELS_MAX_DEFAULT,
                bytes_max: 8_000_000,
                rows_per_group: 256,
            },
            caption: CaptionConfig {
                sources: ["json:captions", "json:caption", "txt"].map(str::to_owned).to_vec(),
                rule: "corenet".to_owned(),
                bytes_max: 1 << 20,
            },
            nouns: NounsOptions::default(),
            filter: FilterConfig {
                side_min_px: 0,
                aspect_max: 0.0,
                captions_min: 1,
                caption_bytes_min: 0,
                caption_bytes_max: 1 << 30,
                duplicates: Duplicates::Keep,
                keep_keys: String::new(),
                drop_keys: String::new(),
                conditions: Vec::new(),
            },
            budget: BudgetConfig {
                on_bad_sample: BadSample::Skip,
                quarantine_dir: String::new(),
                failure_count: -1,
                failure_rate: 0.05,
                probation: 1000,
                damaged_shards: 0,
            },
            runtime: RuntimeConfig {
                threads: 0,
                memory_bytes: 4 << 30,
                redo_changed: false,
                redo_config: false,
                redo_lost: false,
            },
        }
    }
}

impl PrepConfig {
    /// The defaults, overlaid by the text of a file and by `section.key=value` settings.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming the key, its range, or the nearest key that is known.
    pub fn load(file: Option<&std::path::Path>, settings: &[String]) -> Result<Self, ConfigError> {
        let config: Self = overlay(DEFAULT_TOML, file, settings)?;
        config.check()?;
        Ok(config)
    }

    /// As [`PrepConfig::load`] for a command that reads the keys `read` only, `nouns.` for a whole
    /// section: a setting that it would pass over is refused.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Ignored`], and those of [`PrepConfig::load`].
    pub fn load_for(
        command: &'static str,
        read: &'static [&'static str],
        file: Option<&std::path::Path>,
        settings: &[String],
    ) -> Result<Self, ConfigError> {
        let config = Self::load(file, settings)?;
        for setting in settings {
            let key = setting.split('=').next().unwrap_or_default();
            let is_read =
                |read: &&str| key == *read || read.ends_with('.') && key.starts_with(read);
            if !read.iter().any(is_read) {
                return Err(ConfigError::Ignored { key: key.to_owned(), command, read });
            }
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let image = &self.image;
        range("source.requests", self.source.requests as u64, 1, 256)?;
        range("source.retries", self.source.retries as u64, 0, 1000)?;
        if !(0.1..=3600.0).contains(&self.source.timeout_secs) {
            return Err(ConfigError::Range {
                key: "source.timeout_secs",
                found: self.source.timeout_secs.to_string(),
                expected: "0.1 to 3600.0".to_owned(),
            });
        }
        range("image.short_side_px", u64::from(image.short_side_px), 16, 8192)?;
        range("image.quality", u64::from(image.quality), 1, 100)?;
        range("image.rows_per_group", u64::from(image.rows_per_group), 1, 65_536)?;
        range("image.pixels_max", image.pixels_max, 1, 1 << 32)?;
        range("caption.bytes_max", self.caption.bytes_max as u64, 1, 1 << 30)?;
        range("runtime.threads", self.runtime.threads as u64, 0, THREADS_MAX)?;
        let needed_bytes = Memory::needed_bytes(image.pixels_max);
        if self.runtime.memory_bytes < needed_bytes {
            return Err(ConfigError::Range {
                key: "runtime.memory_bytes",
                found: self.runtime.memory_bytes.to_string(),
                expected: format!(
                    "at least {needed_bytes}, since half of it must hold one image of \
                     image.pixels_max = {} at {DECODE_BYTES_PER_PX} bytes a pixel; or lower that",
                    image.pixels_max
                ),
            });
        }
        // A row group is read at once and its offsets are 32-bit.
        let group_bytes = u128::from(image.rows_per_group) * u128::from(image.bytes_max);
        if group_bytes >= 1 << 31 {
            return Err(ConfigError::Range {
                key: "image.bytes_max",
                found: image.bytes_max.to_string(),
                expected: format!(
                    "below {} with image.rows_per_group = {} (their product below 2 GiB)",
                    (1u64 << 31) / u64::from(image.rows_per_group),
                    image.rows_per_group
                ),
            });
        }
        let needs_dir = self.budget.on_bad_sample == BadSample::Quarantine;
        if needs_dir && self.budget.quarantine_dir.is_empty() {
            return Err(ConfigError::Range {
                key: "budget.quarantine_dir",
                found: "empty".to_owned(),
                expected: "a folder, since budget.on_bad_sample is quarantine".to_owned(),
            });
        }
        let aspect = self.filter.aspect_max;
        if aspect != 0.0 && !(1.0..1e6).contains(&aspect) {
            return Err(refused("filter.aspect_max", aspect, "0 or 1.0 to 1000000".to_owned()));
        }
        if !(0.0..=1.0).contains(&self.budget.failure_rate) {
            let found = self.budget.failure_rate;
            return Err(refused("budget.failure_rate", found, "0.0 to 1.0".to_owned()));
        }
        Ok(())
    }
}

fn range(key: &'static str, found: u64, from: u64, to: u64) -> Result<(), ConfigError> {
    if (from..=to).contains(&found) {
        return Ok(());
    }
    Err(refused(key, found, format!("{from} to {to}")))
}

/// A value that `key` may not have.
pub fn refused(key: &'static str, found: impl ToString, expected: String) -> ConfigError {
    ConfigError::Range { key, found: found.to_string(), expected }
}

/// Refuses a number outside `from..=to`, and one that is no number.
///
/// # Errors
///
/// [`ConfigError::Range`].
pub fn within(key: &'static str, found: f64, from: f64, to: f64) -> Result<(), ConfigError> {
    if (from..=to).contains(&found) {
        return Ok(());
    }
    Err(refused(key, found, format!("{from} to {to}")))
}

/// Lays a file and `section.key=value` settings over a default TOML and reads the result.
///
/// A key that the default does not have is refused with the nearest one that it has.
///
/// # Errors
///
/// [`ConfigError::Unreadable`], [`ConfigError::Parse`]; [`ConfigError::Value`] for one of another
/// type.
pub fn overlay<T: serde::de::DeserializeOwned>(
    default: &str,
    file: Option<&std::path::Path>,
    settings: &[String],
) -> Result<T, ConfigError> {
    let mut table = parse("the default config", default)?;
    let (default, mut said) = (table.clone(), Vec::new());
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
        let origin = path.display().to_string();
        let over = parse(&origin, &text)?;
        merge(&origin, "", &mut table, over.clone())?;
        said.push((origin, over));
    }
    for setting in settings {
        let origin = format!("--set {setting}");
        let wrong = |message: &str| ConfigError::Parse {
            origin: origin.clone(),
            message: message.to_owned(),
        };
        let (path, value) =
            setting.split_once('=').ok_or_else(|| wrong("expected section.key=value"))?;
        let (section, key) =
            path.split_once('.').ok_or_else(|| wrong("expected section.key=value"))?;
        // A bare word is a string, so that --set caption.rule=corenet needs no quotes.
        let value = format!("v = {value}")
            .parse::<toml::Table>()
            .ok()
            .and_then(|mut t| t.remove("v"))
            .unwrap_or_else(|| toml::Value::String(value.to_owned()));
        let one = toml::Table::from_iter([(key.to_owned(), value)]);
        let over = toml::Table::from_iter([(section.to_owned(), toml::Value::Table(one))]);
        merge(&origin, "", &mut table, over.clone())?;
        said.push((origin, over));
    }
    toml::Value::Table(table).try_into().map_err(|e: toml::de::Error| {
        let of_one = said.iter().find_map(|(origin, over)| {
            wrong_value::<T>(&default, &[], over).map(|(key, value, message)| {
                let (found, expected) = (value.to_string(), expected(&message));
                ConfigError::Value { origin: origin.clone(), key, found, expected }
            })
        });
        of_one.unwrap_or_else(|| ConfigError::Parse {
            origin: file.map_or_else(|| "the settings".to_owned(), |p| p.display().to_string()),
            message: e.message().to_owned(),
        })
    })
}

/// The first value of `over` that the default config does not become a `T` with: its key, itself,
/// and what serde says, which knows no key.
fn wrong_value<T: serde::de::DeserializeOwned>(
    default: &toml::Table,
    above: &[&str],
    over: &toml::Table,
) -> Option<(String, toml::Value, String)> {
    over.iter().find_map(|(key, value)| {
        let path = [above, &[key.as_str()]].concat();
        // What the default has a table for is a section, of which one value is wrong.
        let is_section = above.is_empty() && default.get(key).is_some_and(toml::Value::is_table);
        if let (toml::Value::Table(inner), true) = (value, is_section) {
            return wrong_value::<T>(default, &path, inner);
        }
        let one = |inner: toml::Value, key: &&str| {
            toml::Value::Table(toml::Table::from_iter([((*key).to_owned(), inner)]))
        };
        let mut table = default.clone();
        if let toml::Value::Table(alone) = path.iter().rev().fold(value.clone(), one) {
            merge("", "", &mut table, alone).ok()?;
        }
        let outcome: Result<T, toml::de::Error> = toml::Value::Table(table).try_into();
        outcome.err().map(|error| (path.join("."), value.clone(), error.message().to_owned()))
    })
}

/// What serde expected, in words for whoever knows no Rust.
fn expected(message: &str) -> String {
    let expected = message.split_once(", expected ").map_or(message, |(_, expected)| expected);
    match expected.trim_end() {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" | "u32" | "u64" | "usize" => "a whole number from 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" | "floating point number" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list, such as [1, 2]".to_owned(),
        "a string" => "a text in quotes".to_owned(),
        other => other.to_owned(),
    }
}

fn parse(origin: &str, text: &str) -> Result<toml::Table, ConfigError> {
    text.parse().map_err(|e: toml::de::Error| ConfigError::Parse {
        origin: origin.to_owned(),
        message: e.to_string().trim_end().to_owned(),
    })
}

fn merge(
    origin: &str,
    prefix: &str,
    base: &mut toml::Table,
    over: toml::Table,
) -> Result<(), ConfigError> {
    for (key, value) in over {
        let name = format!("{prefix}{key}");
        let known: Vec<String> = base.keys().map(|k| format!("{prefix}{k}")).collect();
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(over)) => {
                merge(origin, &format!("{name}."), inner, over)?;
            }
            (Some(slot), value) => *slot = value,
            (None, _) => {
                let near = nearest(&name, &known)
                    .map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
                return Err(ConfigError::Parse {
                    origin: origin.to_owned(),
                    message: format!("no setting is called `{name}`{near}"),
                });
            }
        }
    }
    Ok(())
}

/// The known name with the smallest edit distance, if at most half of it differs.
pub fn nearest<'n>(name: &str, known: &'n [String]) -> Option<&'n str> {
    known
        .iter()
        .map(|candidate| (edit_distance(name, candidate), candidate.as_str()))
        .min()
        .filter(|&(distance, candidate)| distance * 2 <= candidate.len())
        .map(|(_, candidate)| candidate)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let next = (diagonal + usize::from(ca != *cb)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(settings: &[&str]) -> Result<PrepConfig, String> {
        let settings: Vec<_> = settings.iter().map(|s| s.to_string()).collect();
        PrepConfig::load(None, &settings).map_err(|e| e.to_string())
    }

    #[test]
    fn the_default_file_is_the_default() {
        assert_eq!(load(&[]).unwrap(), PrepConfig::default());
    }

    #[test]
    fn a_setting_wins_over_the_default() {
        let config = load(&["image.quality=75", "caption.sources=[\"txt\"]", "source.root=a/b"]);
        let config = config.unwrap();
        assert_eq!((config.image.quality, config.source.root.as_str()), (75, "a/b"));
        assert_eq!(config.caption.sources, ["txt"]);
    }

    #[test]
    fn a_misspelt_key_names_the_nearest() {
        assert_eq!(
            load(&["image.qualty=75"]).unwrap_err(),
            "--set image.qualty=75: no setting is called `image.qualty`; did you mean \
             `image.quality`?"
        );
        assert_eq!(
            load(&["imag.quality=75"]).unwrap_err(),
            "--set imag.quality=75: no setting is called `imag`; did you mean `image`?"
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_or_range_is_refused() {
        assert_eq!(
            load(&["image.quality=high"]).unwrap_err(),
            "--set image.quality=high: `image.quality` is \"high\", expected a whole number from 0 \
             to 255"
        );
        assert_eq!(
            load(&["image.quality=0"]).unwrap_err(),
            "`image.quality` is 0, expected 1 to 100"
        );
        assert_eq!(
            load(&["image.quality=75", "image.mode=large"]).unwrap_err(),
            "--set image.mode=large: `image.mode` is \"large\", expected one of `resize`, \
             `keep`, `reference`"
        );
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("prep.toml");
        std::fs::write(&file, "[image]\nquality = 80\nshort_side_px = -1\n").unwrap();
        let error = PrepConfig::load(Some(&file), &["image.quality=75".to_owned()]).unwrap_err();
        let expected = ": `image.short_side_px` is -1, expected a whole number from 0";
        assert_eq!(error.to_string(), format!("{}{expected}", file.display()));
        assert!(load(&["image.rows_per_group=1024"]).unwrap_err().contains("below 2 GiB"));
        assert_eq!(
            load(&["runtime.memory_bytes=1000000000"]).unwrap_err(),
            "`runtime.memory_bytes` is 1000000000, expected at least 3579139400, since half of it \
             must hold one image of image.pixels_max = 178956970 at 10 bytes a pixel; or lower that"
        );
    }
}
