//! What can go wrong: a bad sample is counted and skipped, a bad run stops.
//!
//! Facts stand in the errors of the stages ([`SampleError`]); outcomes, hints and exit codes of a
//! whole run stand in [`PrepError`] and [`exit`].

use std::path::{Path, PathBuf};

use catlip_schemas::SchemaError;

use crate::caption::UnknownRule;
use crate::demo::DemoError;
use crate::prep::error::{ChangeError, lines};
use crate::prep::vocab_pickle::VocabPickleError;
use crate::source::{SourceError, StoreError};

mod sample;
mod text;

pub use sample::{STAGE_FILTER, SampleError};
pub use text::error_text;

/// Exit codes of `catlip-prep` and `catlip-train`.
pub mod exit {
    /// Everything was done.
    pub const OK: u8 = 0;
    /// An error with no code of its own, such as a failing disk.
    pub const FAILED: u8 = 1;
    /// The command line is wrong (clap's own code).
    pub const USAGE: u8 = 2;
    /// A config key or value is wrong.
    pub const CONFIG: u8 = 3;
    /// More samples failed than the budget allows.
    pub const BUDGET: u8 = 4;
    /// The input is missing or is not what it must be.
    pub const INPUT: u8 = 5;
    /// The output already holds something else.
    pub const CONFLICT: u8 = 6;
    /// A data set, run or checkpoint is damaged or incomplete.
    pub const DAMAGED: u8 = 7;
    /// No space is left on the output's disk.
    pub const DISK_FULL: u8 = 8;
    /// A signal asked to stop; what is whole was kept, the same command goes on.
    pub const INTERRUPTED: u8 = 9;
}

/// What is wrong with a config.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Text that is no TOML, or a key or value that is not known.
    #[error("{origin}: {message}")]
    Parse {
        /// The file or `--set` text.
        origin: String,
        /// What is wrong, with line or nearest key.
        message: String,
    },
    /// A value of another type than its key has.
    #[error("{origin}: `{key}` is {found}, expected {expected}")]
    Value {
        /// The file or `--set` text.
        origin: String,
        /// Section and key.
        key: String,
        /// The value.
        found: String,
        /// The type, or the words that are known.
        expected: String,
    },
    /// A value outside its range.
    #[error("`{key}` is {found}, expected {expected}")]
    Range {
        /// Section and key.
        key: &'static str,
        /// The value.
        found: String,
        /// The range.
        expected: String,
    },
    /// A setting that a command would pass over.
    #[error("--set {key}: `{command}` does not read that setting, only {}", settings_read(.read))]
    Ignored {
        /// Section and key.
        key: String,
        /// The command.
        command: &'static str,
        /// The keys that it reads; one that ends in a dot is a section.
        read: &'static [&'static str],
    },
    /// A file that cannot be read.
    #[error("cannot read the config {path}")]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

fn is_full(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::StorageFull
}

fn settings_read(read: &[&str]) -> String {
    let name = |key: &&str| match key.strip_suffix('.') {
        Some(section) => format!("those of `{section}`"),
        None => format!("`{key}`"),
    };
    read.iter().map(name).collect::<Vec<_>>().join(" and ")
}

/// A job stops: what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PrepError {
    /// The config is wrong.
    #[error("the config is wrong")]
    Config(#[from] ConfigError),
    /// The input as a whole is wrong.
    #[error("the input cannot be read")]
    Source(#[from] SourceError),
    /// A shard or the output cannot be reached where it lies.
    #[error("a store failed")]
    Store(#[source] StoreError),
    /// No rule of that name.
    #[error(transparent)]
    Rule(#[from] UnknownRule),
    /// A rule that reads a file of the shard, where only captions are at hand.
    #[error("rule `{rule}` reads a file of each sample, but relabel has their captions only")]
    NotFromCaptions {
        /// The rule.
        rule: String,
    },
    /// A file of the data set does not follow the format.
    #[error("{path} is damaged")]
    Schema {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: SchemaError,
    },
    /// A file that cannot be read or written.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The disk of the output is full.
    #[error("no space is left on the disk of {path}")]
    DiskFull {
        /// The file that was written.
        path: PathBuf,
    },
    /// A Parquet file that cannot be read or written.
    #[error("cannot {verb} {path}: {message}")]
    Parquet {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the library says, or the store below it.
        message: String,
        /// What the user can do, where a store failed.
        hint: Option<&'static str>,
    },
    /// A file whose bytes are not what its receipt or manifest says.
    #[error("{path}: {what} is {found}, expected {expected}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
        /// As found.
        found: String,
        /// As promised.
        expected: String,
    },
    /// Nothing is where a data set should be.
    #[error("there is no data set at {path}")]
    NotThere {
        /// Folder or URL.
        path: PathBuf,
    },
    /// Several such files.
    #[error("{} files are not what the manifest says:{}", .files.len(), lines(.files))]
    DamagedFiles {
        /// What each is, and should be.
        files: Vec<String>,
    },
    /// The output folder is not this job's.
    #[error("{path} {message}")]
    OutputTaken {
        /// The folder.
        path: PathBuf,
        /// What it holds.
        message: String,
    },
    /// A change of a data set that is refused.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A job of which nothing came, mostly since no sample has a caption where they are looked for.
    #[error(
        "no sample became a row: {missing} of {samples} have no caption in `caption.sources` = \
         {sources} ({first})"
    )]
    NoCaptions {
        /// Samples without a caption.
        missing: u64,
        /// All samples.
        samples: u64,
        /// The setting.
        sources: String,
        /// Shard, key and files of the first one.
        first: String,
    },
    /// Rows cannot point into a shard.
    #[error(
        "`image.mode` is \"reference\", but shard {shard} is compressed: it has no byte ranges"
    )]
    NoByteRanges {
        /// The shard.
        shard: String,
    },
    /// The path is no data set, or has no committed snapshot.
    #[error("{path} is no whole data set: {message}")]
    NoDataSet {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        message: String,
    },
    /// More samples failed than the budget allows.
    #[error(
        "too many bad samples: {failed} of {samples} ({rate:.1} %), the budget is {budget:.1} % \
         (last: {last})"
    )]
    FailureRate {
        /// Bad samples.
        failed: u64,
        /// Samples so far.
        samples: u64,
        /// In percent.
        rate: f64,
        /// `budget.failure_rate` in percent.
        budget: f64,
        /// Shard, key and error of the last one.
        last: String,
    },
    /// More samples failed than the budget's number.
    #[error("too many bad samples: {failed} of {samples}, the budget is {budget} (last: {last})")]
    FailureCount {
        /// Bad samples.
        failed: u64,
        /// Samples so far.
        samples: u64,
        /// `budget.failure_count`, or 0 where `budget.on_bad_sample` is `stop`.
        budget: u64,
        /// Shard, key and error of the last one.
        last: String,
    },
    /// More shards are damaged than the budget allows.
    #[error("{} of the source shards cannot be read whole, the budget is {budget}:{}",
        .shards.len(), lines(.shards))]
    DamagedShards {
        /// Their names, with what is wrong.
        shards: Vec<String>,
        /// `budget.damaged_shards`.
        budget: u64,
    },
    /// A line of a text file that is no caption.
    #[error("line {number} of {path} cannot be labelled: {message}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        number: u64,
        /// What is wrong with it.
        message: String,
    },
    /// A file that is no vocabulary of the reference.
    #[error("{path} is no vocabulary")]
    VocabPickle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: VocabPickleError,
    },
    /// A file above a limit, judged before it is read.
    #[error("{path} has more than {limit} bytes, the limit of its kind")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// Flags that do not go together.
    #[error("{0}")]
    Usage(String),
    /// The demo cannot be drawn.
    #[error("the demo cannot be drawn")]
    Demo(#[from] DemoError),
    /// A machine of a cluster that would make other bytes than the driver means.
    #[error("this machine's {what} is {found}, the driver's is {expected}{}", lines(.keys))]
    OtherMachine {
        /// What differs.
        what: &'static str,
        /// Here.
        found: String,
        /// There.
        expected: String,
        /// `filter.keep_keys: here, was there`.
        keys: Vec<String>,
    },
    /// A signal asked to stop.
    #[error("stopped by a signal after {done} of {parts} parts")]
    Interrupted {
        /// Parts that are whole.
        done: u64,
        /// All parts.
        parts: u64,
    },
}

impl From<StoreError> for PrepError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Local { verb, path, source } => Self::io(verb, &path, source),
            other => Self::Store(other),
        }
    }
}

impl PrepError {
    /// An input or output error at `path`; a full disk and a failed store are told apart.
    pub fn io(verb: &'static str, path: &Path, source: std::io::Error) -> Self {
        let source = match source.downcast::<StoreError>() {
            Ok(error) => return Self::from(error),
            Err(source) => source,
        };
        if is_full(&source) {
            return Self::DiskFull { path: path.into() };
        }
        Self::Io { verb, path: path.into(), source }
    }

    /// A Parquet error at `path`; a full disk and a failed store below it are told apart.
    pub fn parquet(verb: &'static str, path: &Path, error: &parquet::errors::ParquetError) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(inner) = cause {
            let io = inner.downcast_ref::<std::io::Error>();
            if io.is_some_and(is_full) {
                return Self::DiskFull { path: path.into() };
            }
            let store = io.and_then(|e| e.get_ref()).and_then(|e| e.downcast_ref::<StoreError>());
            if let Some(store) = store {
                let (message, hint) = (store.with_causes(), store.hint());
                return Self::Parquet { verb, path: path.into(), message, hint };
            }
            cause = inner.source();
        }
        Self::Parquet { verb, path: path.into(), message: error.to_string(), hint: None }
    }

    /// The exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Rule(_)
            | Self::NotFromCaptions { .. }
            | Self::OtherMachine { .. }
            | Self::NoCaptions { .. } => exit::CONFIG,
            Self::Usage(_) | Self::Demo(DemoError::OutOfRange { .. }) => exit::USAGE,
            Self::Change(error) => error.exit_code(),
            Self::Source(_)
            | Self::NoByteRanges { .. }
            | Self::Line { .. }
            | Self::VocabPickle { .. }
            | Self::TooLong { .. }
            | Self::NotThere { .. } => exit::INPUT,
            Self::Io { verb: "read", source, .. }
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                exit::INPUT
            }
            Self::Schema { .. }
            | Self::Damaged { .. }
            | Self::DamagedFiles { .. }
            | Self::NoDataSet { .. } => exit::DAMAGED,
            Self::Store(
                StoreError::NotFound { .. }
                | StoreError::Denied { .. }
                | StoreError::NoCredentials { .. }
                | StoreError::Url { .. }
                | StoreError::Changed { .. },
            ) => exit::INPUT,
            Self::Store(StoreError::Stopped { .. }) => exit::INTERRUPTED,
            Self::Store(StoreError::Full { .. }) => exit::DISK_FULL,
            Self::Store(StoreError::SpoolTooSmall { .. }) => exit::CONFIG,
            Self::Demo(DemoError::Io { source, .. }) if is_full(source) => exit::DISK_FULL,
            Self::OutputTaken { .. } | Self::Demo(DemoError::Occupied { .. }) => exit::CONFLICT,
            Self::Store(_) | Self::Io { .. } | Self::Parquet { .. } | Self::Demo(_) => exit::FAILED,
            Self::DiskFull { .. } => exit::DISK_FULL,
            Self::FailureRate { .. } | Self::FailureCount { .. } | Self::DamagedShards { .. } => {
                exit::BUDGET
            }
            Self::Interrupted { .. } => exit::INTERRUPTED,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Config(ConfigError::Ignored { key, command: "labels" | "relabel", .. })
                if key == "caption.rule" =>
            {
                Some("name the rule with --rule")
            }
            Self::Source(error) => hint_of_source(error),
            Self::Store(error) => error.hint(),
            Self::DiskFull { .. } => {
                Some("free space and start the same command again: whole parts are kept")
            }
            Self::Parquet { hint, .. } => *hint,
            Self::NoCaptions { .. } => Some(
                "name files or fields of a json that the samples have, and start again with the \
                 same --output: nothing was committed to it",
            ),
            Self::NoByteRanges { .. } => Some(
                "decompress the shards, or say --set image.mode=keep to store the original bytes",
            ),
            Self::OutputTaken { .. } | Self::Demo(DemoError::Occupied { .. }) => {
                Some("choose another --output")
            }
            Self::Change(error) => error.hint(),
            Self::FailureCount { .. } => Some(
                "look at the sample; raise `budget.failure_count`, or skip bad samples with --set \
                 budget.on_bad_sample=skip",
            ),
            Self::NotThere { .. } => Some(
                "check the path; a data set is a folder or URL that `catlip-prep run` has written",
            ),
            Self::NoDataSet { .. } => {
                Some("run `catlip-prep run` to its end; the same command goes on where it stopped")
            }
            Self::FailureRate { .. } => Some(
                "look at the sample; raise `budget.failure_rate` if such losses are acceptable",
            ),
            Self::DamagedShards { .. } => Some(
                "replace the shards, or accept what could be read with --set \
                 budget.damaged_shards=N; start the same command again: nothing is done twice",
            ),
            Self::Damaged { .. } | Self::DamagedFiles { .. } | Self::Schema { .. } => Some(
                "changed or lost after it was written. Remove a damaged file of a part and start \
                 the `run` that made it again with --set runtime.redo_lost=true",
            ),
            Self::Line { .. } => Some(
                "go on past such lines with --bad mark or --bad skip; lines that begin with `{` \
                 but are no JSON need --format text",
            ),
            Self::VocabPickle { .. } => Some(
                "a vocabulary is a Parquet file of this program, or a pickled dict of counts such \
                 as {\"n2084071\": 12}; nothing in a pickle is ever run",
            ),
            Self::OtherMachine { .. } => Some(
                "install the same catlip on every machine, and put files that settings name where \
                 all of them read the same bytes",
            ),
            Self::Interrupted { .. } => Some("start the same command again to go on"),
            _ => None,
        }
    }
}

/// What can be done about shards that are not found or not read.
fn hint_of_source(error: &SourceError) -> Option<&'static str> {
    match error {
        SourceError::NoMatch { .. } => {
            Some("check the path; quote globs and braces so that the shell leaves them alone")
        }
        SourceError::EmptyList { .. } => {
            Some("a list has one file, glob or URL a line; look at what should have written it")
        }
        SourceError::Twice { .. } => {
            Some("name each shard once, or set `source.root` to a folder above both")
        }
        SourceError::Mixed { .. } => Some("run a job for each, or copy the shards to one place"),
        SourceError::Store(error) => error.hint(),
        _ => None,
    }
}
