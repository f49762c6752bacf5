//! What can go wrong: a bad sample is counted and skipped, a bad run stops.
//!
//! Facts stand in the errors of the stages ([`SampleError`]); outcomes, hints and exit codes of a
//! whole run stand in [`PrepError`] and [`exit`].

use std::path::{Path, PathBuf};

use catlip_schemas::SchemaError;

use crate::caption::UnknownRule;
use crate::config::ConfigError;
use crate::demo::DemoError;
use crate::prep::vocab_pickle::VocabPickleError;
use crate::source::SourceError;

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

/// One sample is bad: it goes to the ledger with its stage and reason, and is skipped.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// No member of the sample is an image.
    #[error("no image among its files ({members}); expected one of: {expected}")]
    ImageMissing {
        /// Extensions of the sample's members.
        members: String,
        /// Extensions that are read as images.
        expected: String,
    },
    /// Two members are images, so which one is meant is unknown.
    #[error("{found} images among its files ({members}); expected exactly one")]
    ImageAmbiguous {
        /// How many.
        found: usize,
        /// Extensions of the sample's members.
        members: String,
    },
    /// None of the caption sources gives a caption.
    #[error("no caption: none of {sources} is there (its files: {members})")]
    CaptionMissing {
        /// The configured sources.
        sources: String,
        /// Extensions of the sample's members.
        members: String,
    },
    /// Bytes of a caption file or json that are not UTF-8.
    #[error("`{member}` is not UTF-8: byte 0x{byte:02x} at offset {offset}")]
    NotUtf8 {
        /// Extension of the member.
        member: String,
        /// The first wrong byte.
        byte: u8,
        /// Its offset in the member.
        offset: usize,
    },
    /// A json member that does not parse or lacks the expected type.
    #[error("`{member}` is not the expected json: {message}")]
    Json {
        /// Extension of the member.
        member: String,
        /// What the parser says.
        message: String,
    },
    /// A caption above the limit.
    #[error("caption has {bytes} bytes, above the limit of {limit}")]
    CaptionTooLong {
        /// Its bytes.
        bytes: usize,
        /// `caption.bytes_max`.
        limit: usize,
    },
    /// An image member of zero bytes.
    #[error("`{member}` has 0 bytes")]
    ImageEmpty {
        /// Extension of the member.
        member: String,
    },
    /// Bytes that are no known image format.
    #[error("first bytes {head} are no JPEG, PNG or WebP")]
    ImageFormat {
        /// The first bytes in hex.
        head: String,
    },
    /// An image above the pixel limit, judged from its header.
    #[error("image is {width_px} × {height_px} px, above the limit of {pixels_max} px")]
    ImageTooLarge {
        /// Width in the header.
        width_px: u32,
        /// Height in the header.
        height_px: u32,
        /// `image.pixels_max`.
        pixels_max: u64,
    },
    /// An encoded image above the byte limit.
    #[error("image has {bytes} bytes, above the limit of {limit}")]
    ImageTooManyBytes {
        /// Its bytes.
        bytes: usize,
        /// `image.bytes_max`.
        limit: usize,
    },
    /// A decoder gave up.
    #[error("{format} does not decode: {message}")]
    ImageCorrupt {
        /// JPEG, PNG or WebP.
        format: &'static str,
        /// What the decoder says.
        message: String,
    },
    /// An image of a kind that is not decoded.
    #[error("{format} of a kind that is not supported: {message}")]
    ImageUnsupported {
        /// JPEG, PNG or WebP.
        format: &'static str,
        /// Which kind.
        message: String,
    },
    /// A key that was already read from the same shard.
    #[error("key was already read at byte {first_offset} of the same shard")]
    KeyRepeats {
        /// Offset of the first sample of that key.
        first_offset: u64,
    },
    /// Two members of one sample with the same extension.
    #[error("extension `{extension}` comes twice in one sample")]
    MemberRepeats {
        /// The extension.
        extension: String,
    },
    /// The shard ends inside or right after this sample, without an end-of-archive mark.
    #[error("the shard is cut: {message}")]
    ShardCut {
        /// Where and what was expected.
        message: String,
    },
    /// A damaged header; nothing after it can be read.
    #[error("the shard is damaged: {message}")]
    ShardDamaged {
        /// Where and what was expected.
        message: String,
    },
}

impl SampleError {
    /// The stage of the line that found it: `source`, `image` or `caption`.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::ImageMissing { .. }
            | Self::ImageAmbiguous { .. }
            | Self::KeyRepeats { .. }
            | Self::MemberRepeats { .. }
            | Self::ShardCut { .. }
            | Self::ShardDamaged { .. } => "source",
            Self::CaptionMissing { .. }
            | Self::NotUtf8 { .. }
            | Self::Json { .. }
            | Self::CaptionTooLong { .. } => "caption",
            Self::ImageEmpty { .. }
            | Self::ImageFormat { .. }
            | Self::ImageTooLarge { .. }
            | Self::ImageTooManyBytes { .. }
            | Self::ImageCorrupt { .. }
            | Self::ImageUnsupported { .. } => "image",
        }
    }

    /// The word under which it is counted; part of the format, never renamed.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ImageMissing { .. } => "image-missing",
            Self::ImageAmbiguous { .. } => "image-ambiguous",
            Self::CaptionMissing { .. } => "caption-missing",
            Self::NotUtf8 { .. } => "caption-not-utf8",
            Self::Json { .. } => "caption-json",
            Self::CaptionTooLong { .. } => "caption-too-long",
            Self::ImageEmpty { .. } => "image-empty",
            Self::ImageFormat { .. } => "image-format",
            Self::ImageTooLarge { .. } => "image-too-large",
            Self::ImageTooManyBytes { .. } => "image-too-many-bytes",
            Self::ImageCorrupt { .. } => "image-corrupt",
            Self::ImageUnsupported { .. } => "image-unsupported",
            Self::KeyRepeats { .. } => "key-repeats",
            Self::MemberRepeats { .. } => "member-repeats",
            Self::ShardCut { .. } => "shard-cut",
            Self::ShardDamaged { .. } => "shard-damaged",
        }
    }
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
    /// No rule of that name.
    #[error("{0}")]
    Rule(#[from] UnknownRule),
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
        /// What the library says.
        message: String,
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
    /// The output folder is not this job's.
    #[error("{path} {message}")]
    OutputTaken {
        /// The folder.
        path: PathBuf,
        /// What it holds.
        message: String,
    },
    /// A source shard is not what it was when its part was made.
    #[error("shard {shard} has changed since part {part} was made: {found}, was {expected}")]
    SourceChanged {
        /// The shard.
        shard: String,
        /// Its part.
        part: String,
        /// Bytes and ETag now.
        found: String,
        /// Bytes and ETag then.
        expected: String,
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
    /// More shards are damaged than the budget allows.
    #[error("{} of the source shards cannot be read whole, the budget is {budget}:{}",
        .shards.len(), list_of(.shards))]
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
    /// A signal asked to stop.
    #[error("stopped by a signal after {done} of {parts} parts")]
    Interrupted {
        /// Parts that are whole.
        done: u64,
        /// All parts.
        parts: u64,
    },
}

fn list_of(lines: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text: String = lines.iter().take(SHOWN).map(|line| format!("\n    {line}")).collect();
    if lines.len() > SHOWN {
        text.push_str(&format!("\n    and {} more", lines.len() - SHOWN));
    }
    text
}

impl PrepError {
    /// An input or output error at `path`; a full disk is told apart.
    pub fn io(verb: &'static str, path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::StorageFull {
            return Self::DiskFull { path: path.into() };
        }
        Self::Io { verb, path: path.into(), source }
    }

    /// A Parquet error at `path`; a full disk below it is told apart.
    pub fn parquet(verb: &'static str, path: &Path, error: &parquet::errors::ParquetError) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(inner) = cause {
            let io = inner.downcast_ref::<std::io::Error>();
            if io.is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull) {
                return Self::DiskFull { path: path.into() };
            }
            cause = inner.source();
        }
        Self::Parquet { verb, path: path.into(), message: error.to_string() }
    }

    /// The exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Rule(_) => exit::CONFIG,
            Self::Usage(_) => exit::USAGE,
            Self::Source(_)
            | Self::SourceChanged { .. }
            | Self::Line { .. }
            | Self::VocabPickle { .. }
            | Self::TooLong { .. } => exit::INPUT,
            Self::Schema { .. } | Self::Damaged { .. } | Self::NoDataSet { .. } => exit::DAMAGED,
            Self::Io { .. } | Self::Parquet { .. } | Self::Demo(_) => exit::FAILED,
            Self::DiskFull { .. } => exit::DISK_FULL,
            Self::OutputTaken { .. } => exit::CONFLICT,
            Self::FailureRate { .. } | Self::DamagedShards { .. } => exit::BUDGET,
            Self::Interrupted { .. } => exit::INTERRUPTED,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Source(SourceError::NoMatch { .. }) => {
                Some("check the path; quote globs and braces so that the shell leaves them alone")
            }
            Self::Source(SourceError::Twice { .. }) => {
                Some("name each shard once, or set `source.root` to a folder above both")
            }
            Self::Source(SourceError::Scheme { .. }) => {
                Some("copy the shards to a local disk or mount the store")
            }
            Self::DiskFull { .. } => {
                Some("free space and start the same command again: whole parts are kept")
            }
            Self::OutputTaken { .. } => Some("choose another --output, or remove this one"),
            Self::SourceChanged { .. } => {
                Some("restore the shard, or say --set runtime.redo_changed=true")
            }
            Self::NoDataSet { .. } => {
                Some("run `catlip-prep run` to its end; the same command goes on where it stopped")
            }
            Self::FailureRate { .. } => Some(
                "look into rejects/; raise `budget.failure_rate` if such losses are acceptable",
            ),
            Self::DamagedShards { .. } => Some(
                "replace the shards, or accept what could be read with --set \
                 budget.damaged_shards=N; start the same command again: nothing is done twice",
            ),
            Self::Damaged { .. } | Self::Schema { .. } => {
                Some("the file was changed or lost bytes after it was written; make it again")
            }
            Self::Line { .. } => Some(
                "go on past such lines with --bad mark or --bad skip; lines that begin with `{` \
                 but are no JSON need --format text",
            ),
            Self::VocabPickle { .. } => Some(
                "a vocabulary is a Parquet file of this program, or a pickled dict of counts such \
                 as {\"n2084071\": 12}; nothing in a pickle is ever run",
            ),
            Self::Interrupted { .. } => Some("start the same command again to go on"),
            _ => None,
        }
    }
}
