//! What can go wrong: a bad sample is counted and skipped, a bad run stops.
//!
//! Facts stand in the errors of the stages ([`SampleError`]); outcomes, hints and exit codes of a
//! whole run stand in [`PrepError`] and [`exit`].

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
