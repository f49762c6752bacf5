//! What the config means for a job.

use std::sync::Arc;

use catlip_schemas::version::PART_VERSION;
use catlip_schemas::{ColumnSet, ColumnSetEntry};

use crate::caption::{self, LabelRule};
use crate::config::{ChromaConfig, ImageMode, PrepConfig};
use crate::error::{ConfigError, PrepError};
use crate::image::READS_AVIF;
use crate::image::jpeg::Chroma;
use crate::prep::filter::Filter;
use crate::prep::memory::Memory;
use crate::source::captions::CaptionSource;
use crate::source::object::Remote;

/// A config, checked and resolved; what decides the bytes of the output stands in its hash.
pub struct PrepPlan {
    /// The config.
    pub config: PrepConfig,
    /// `caption.sources`, read.
    pub caption_sources: Vec<CaptionSource>,
    /// `caption.rule`, found, with its options.
    pub rule: Arc<dyn LabelRule>,
    /// `image.chroma`.
    pub chroma: Chroma,
    /// `filter`, with its lists read.
    pub filter: Filter,
    /// BLAKE3 of what decides the bytes of the output, 64 hex digits.
    pub config_hash: String,
    /// The config as the manifest keeps it: without `budget`, `runtime` and
    /// `source.root`.
    pub config_json: serde_json::Value,
    /// What may be held in memory at once, by all that work by this plan.
    pub memory: Memory,
    /// The way to the stores in which shards lie; only `cli` opens one.
    pub remote: Option<Arc<Remote>>,
}

impl PrepPlan {
    /// Resolves `config`.
    ///
    /// # Errors
    ///
    /// [`PrepError::Rule`] for a rule that is not known; [`PrepError::Config`] for a caption source
    /// that is none; those of [`Filter::new`].
    pub fn new(config: PrepConfig) -> Result<Self, PrepError> {
        let rule = caption::rule(&config.caption.rule, &config.nouns)?;
        let filter = Filter::new(&config.filter)?;
        // serde_json keeps keys sorted, so the text is canonical.
        let mut config_json = serde_json::json!({
            // Not how shards are reached, nor where: that changes no byte.
            "source": { "allow_missing_end": config.source.allow_missing_end },
            "image": config.image,
            "caption": config.caption,
            "filter": filter.identity(),
            // What a build without it rejects, one with it decodes.
            "build": { "avif": READS_AVIF },
        });
        // The options of a rule that is not asked for change no byte.
        if config.caption.rule == "nouns" {
            config_json["nouns"] = serde_json::json!(config.nouns);
        }
        let identity = serde_json::json!({
            "part_version": PART_VERSION,
            "rule": rule.id(),
            "config": config_json,
        });
        Ok(Self {
            caption_sources: caption_sources(&config.caption.sources)?,
            rule,
            chroma: match config.image.chroma {
                ChromaConfig::Yuv420 => Chroma::Yuv420,
                ChromaConfig::Yuv444 => Chroma::Yuv444,
            },
            config_hash: blake3::hash(identity.to_string().as_bytes()).to_hex().to_string(),
            config_json,
            filter,
            memory: Memory::new(config.runtime.memory_bytes),
            config,
            remote: None,
        })
    }

    /// The eight digits that file names carry.
    pub fn config_tag(&self) -> &str {
        &self.config_hash[..8]
    }

    /// The column sets that a part gets, in the order in which they are written. Rows that point
    /// into the source have no `images`.
    pub fn column_sets(&self) -> Vec<ColumnSet> {
        let mut sets = vec![
            ColumnSet::Meta,
            ColumnSet::Captions,
            ColumnSet::Synsets(self.rule.id().to_owned()),
            ColumnSet::Rejects,
        ];
        if self.config.image.mode != ImageMode::Reference {
            sets.insert(0, ColumnSet::Images);
        }
        sets
    }

    /// The same as a snapshot keeps them, before any file is there.
    pub fn column_set_entries(&self) -> Vec<ColumnSetEntry> {
        let entry = |set: &ColumnSet| ColumnSetEntry {
            name: set.name(),
            schema_id: set.schema_id().to_owned(),
            rows_per_group: (*set == ColumnSet::Images).then_some(self.config.image.rows_per_group),
            bytes: 0,
            parts: None,
            origin: None,
        };
        self.column_sets().iter().map(entry).collect()
    }

    /// Threads of the job.
    pub fn threads(&self) -> usize {
        match self.config.runtime.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

/// `caption.sources`, read: a mistyped one would reject every sample.
fn caption_sources(sources: &[String]) -> Result<Vec<CaptionSource>, ConfigError> {
    let wrong = |found: String| ConfigError::Range {
        key: "caption.sources",
        found,
        expected: "a list of extensions such as \"txt\" and fields of a json such as \
                   \"json:caption\", in lower case and without a dot before them"
            .to_owned(),
    };
    if sources.is_empty() {
        return Err(wrong("[]".to_owned()));
    }
    let read = |text: &String| CaptionSource::parse(text).ok_or_else(|| wrong(format!("{text:?}")));
    sources.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(settings: &[&str]) -> String {
        let settings: Vec<_> = settings.iter().map(|s| s.to_string()).collect();
        PrepPlan::new(PrepConfig::load(None, &settings).unwrap()).unwrap().config_hash
    }

    #[test]
    fn only_what_decides_the_bytes_is_in_the_hash() {
        assert_eq!(hash(&[]), hash(&["runtime.threads=3", "budget.damaged_shards=9"]));
        assert_eq!(hash(&[]), hash(&["source.root=/elsewhere"]));
        assert_eq!(hash(&[]), hash(&["source.spool_dir=/a", "source.retries=2"]));
        assert_ne!(hash(&[]), hash(&["image.quality=91"]));
        assert_ne!(hash(&[]), hash(&["caption.sources=[\"txt\"]"]));
    }

    #[test]
    fn a_build_that_reads_other_formats_is_another_config() {
        let plan = PrepPlan::new(PrepConfig::load(None, &[]).unwrap()).unwrap();
        assert_eq!(plan.config_json["build"]["avif"], cfg!(feature = "avif"));
    }

    #[test]
    fn a_caption_source_that_is_none_is_a_wrong_setting() {
        for (sources, found) in [("[]", "[]"), ("[\"txt\",\"jsn:caption\"]", "\"jsn:caption\"")] {
            let settings = [format!("caption.sources={sources}")];
            let plan = PrepPlan::new(PrepConfig::load(None, &settings).unwrap());
            let Err(PrepError::Config(error)) = plan else { panic!("{sources} is no list") };
            let expected = format!("`caption.sources` is {found}, expected a list of extensions");
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn the_options_of_nouns_count_where_that_is_the_rule() {
        let off = "nouns.phrases=false";
        assert_eq!(hash(&[]), hash(&[off]));
        assert_ne!(hash(&["caption.rule=nouns"]), hash(&["caption.rule=nouns", off]));
        let settings = ["caption.rule=nouns", off].map(str::to_owned);
        let plan = PrepPlan::new(PrepConfig::load(None, &settings).unwrap()).unwrap();
        assert_eq!(plan.config_json["nouns"]["phrases"], false);
        assert_eq!(plan.column_sets()[3].name(), "synsets.nouns-1.no-phrases");
    }
}
