//! What can be wrong with one sample: its stage, and the word under which it is counted.

/// The stage of samples that are whole and not wanted; they are charged to no budget.
pub const STAGE_FILTER: &str = "filter";

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
    #[error("first bytes {head} are no JPEG, PNG, WebP, GIF or AVIF")]
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
        /// JPEG, PNG, WebP, GIF or AVIF.
        format: &'static str,
        /// What the decoder says.
        message: String,
    },
    /// The file from which labels are read is not there.
    #[error("no labels: `{file}` is not among its files ({members})")]
    LabelsMissing {
        /// Extension of the file.
        file: String,
        /// Extensions of the sample's members.
        members: String,
    },
    /// A label that is no synset.
    #[error("`{file}` has `{found}`, expected a noun of WordNet 3.0 such as n02084071")]
    LabelUnknown {
        /// Extension of the file.
        file: String,
        /// What stands there.
        found: String,
    },
    /// An image of a kind that is not decoded.
    #[error("{format} of a kind that is not supported: {message}")]
    ImageUnsupported {
        /// JPEG, PNG, WebP, GIF or AVIF.
        format: &'static str,
        /// Which kind.
        message: String,
    },
    /// An image of a format that this build was made without.
    #[error("{format}: this build has no feature `{feature}`; build with `--features {feature}`")]
    ImageNotBuilt {
        /// AVIF.
        format: &'static str,
        /// The cargo feature of `catlip-pipeline`.
        feature: &'static str,
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
    /// A member of the sample is no regular file, so its bytes are not where its name is.
    #[error("`{extension}` is {kind} in the tar, which has no bytes of its own there")]
    MemberKind {
        /// The extension.
        extension: String,
        /// A link or a sparse file.
        kind: &'static str,
    },
    /// A whole sample that the config does not want: no failure.
    #[error("filtered: {message}")]
    Filtered {
        /// The word under which it is counted, `filter-…`.
        reason: &'static str,
        /// What was found and what is wanted.
        message: String,
    },
    /// A sample of the reference's shards that does not unpack.
    #[error("its pickle is not read: {message}")]
    Pickle {
        /// Opcode, key or value, expected and found.
        message: String,
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
    /// The stage of the line that found it: `source`, `image`, `caption` or `filter`.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::ImageMissing { .. }
            | Self::ImageAmbiguous { .. }
            | Self::KeyRepeats { .. }
            | Self::MemberRepeats { .. }
            | Self::MemberKind { .. }
            | Self::Pickle { .. }
            | Self::ShardCut { .. }
            | Self::ShardDamaged { .. } => "source",
            Self::CaptionMissing { .. }
            | Self::NotUtf8 { .. }
            | Self::Json { .. }
            | Self::LabelsMissing { .. }
            | Self::LabelUnknown { .. }
            | Self::CaptionTooLong { .. } => "caption",
            Self::ImageEmpty { .. }
            | Self::ImageFormat { .. }
            | Self::ImageTooLarge { .. }
            | Self::ImageTooManyBytes { .. }
            | Self::ImageCorrupt { .. }
            | Self::ImageUnsupported { .. }
            | Self::ImageNotBuilt { .. } => "image",
            Self::Filtered { .. } => STAGE_FILTER,
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
            Self::LabelsMissing { .. } => "labels-missing",
            Self::LabelUnknown { .. } => "label-unknown",
            Self::ImageEmpty { .. } => "image-empty",
            Self::ImageFormat { .. } => "image-format",
            Self::ImageTooLarge { .. } => "image-too-large",
            Self::ImageTooManyBytes { .. } => "image-too-many-bytes",
            Self::ImageCorrupt { .. } => "image-corrupt",
            Self::ImageUnsupported { .. } | Self::ImageNotBuilt { .. } => "image-unsupported",
            Self::Filtered { reason, .. } => reason,
            Self::KeyRepeats { .. } => "key-repeats",
            Self::MemberRepeats { .. } => "member-repeats",
            Self::MemberKind { .. } => "member-kind",
            Self::Pickle { .. } => "pickle",
            Self::ShardCut { .. } => "shard-cut",
            Self::ShardDamaged { .. } => "shard-damaged",
        }
    }
}
