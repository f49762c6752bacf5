//! Why a change of a data set is refused.

use std::path::PathBuf;

use crate::error::exit;

/// A change that was not made: what was found, what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The config of a job is not that of the data set.
    #[error("{path} {was} made under config {expected}, this one is {found}; they differ in:{}",
        lines(.keys))]
    ConfigChanged {
        /// The data set.
        path: PathBuf,
        /// `was` or `is being`.
        was: &'static str,
        /// Eight digits of the config now.
        found: String,
        /// Eight digits of the config then.
        expected: String,
        /// `image.quality: 50, was 90`.
        keys: Vec<String>,
    },
    /// Source shards are not what they were when their parts were made.
    #[error("{} of the source shards have changed since their parts were made:{}",
        .shards.len(), lines(.shards))]
    SourcesChanged {
        /// Name, part, size and ETag now and then.
        shards: Vec<String>,
    },
    /// A shard that the data set has under another name.
    #[error(
        "shard {shard} has the bytes of part {part}, which was made from {known}: its samples \
             would come twice"
    )]
    SameShard {
        /// Its name now.
        shard: String,
        /// The part.
        part: String,
        /// Its name then.
        known: String,
    },
    /// A new config was to be applied to parts whose shards were not named.
    #[error("{} of the parts cannot be made again, because the input does not name their shards:{}",
        .shards.len(), lines(.shards))]
    ShardsNotNamed {
        /// Their shards.
        shards: Vec<String>,
    },
    /// Parts that nobody has made yet.
    #[error("{} of {parts} parts are not made yet:{}", .missing.len(), lines(.missing))]
    PartsMissing {
        /// Part and shard.
        missing: Vec<String>,
        /// All parts.
        parts: u64,
    },
    /// Nothing was made that could be committed.
    #[error("{path} holds {found} unfinished jobs (configs {tags}), so which to commit is unknown")]
    WhichConfig {
        /// The data set.
        path: PathBuf,
        /// How many.
        found: usize,
        /// Eight digits of each config.
        tags: String,
    },
    /// Others commit without end.
    #[error("the commit to {path} met another {tries} times in a row")]
    Conflicts {
        /// The data set.
        path: PathBuf,
        /// How often.
        tries: usize,
    },
    /// A snapshot that does not exist.
    #[error("{path} has no snapshot {found}, the newest is {newest}")]
    NoSnapshot {
        /// The data set.
        path: PathBuf,
        /// What was asked for.
        found: u64,
        /// What is there.
        newest: u64,
    },
    /// Several sets of labels, none chosen.
    #[error("{path} has {} column sets of synsets ({}), so which one is meant is unknown",
        .sets.len(), .sets.join(", "))]
    SeveralLabels {
        /// The data set.
        path: PathBuf,
        /// Their names.
        sets: Vec<String>,
    },
    /// A column set that is not there, or not for every part.
    #[error("column set {set} {message} in snapshot {snapshot} of {path}")]
    NoColumnSet {
        /// The data set.
        path: PathBuf,
        /// The snapshot.
        snapshot: u64,
        /// The set.
        set: String,
        /// Whether it is absent or has holes.
        message: String,
    },
    /// A table that cannot be joined.
    #[error("{path}: {message}")]
    Table {
        /// The table.
        path: PathBuf,
        /// What is wrong, with row or column.
        message: String,
    },
    /// Keys that no row of the data set has.
    #[error("{count} of {rows} keys of {path} name no row of the data set:{}", lines(.keys))]
    UnknownKeys {
        /// The table or list.
        path: PathBuf,
        /// Unknown ones.
        count: u64,
        /// All of them.
        rows: u64,
        /// The first ones.
        keys: Vec<String>,
    },
    /// Something of that name is there already.
    #[error("{path} {message}")]
    Exists {
        /// The data set.
        path: PathBuf,
        /// What is there.
        message: String,
    },
}

/// How many lines an error shows of a list.
pub const LINES_SHOWN: usize = 10;

/// A list for people: each on a line of its own, the first ones only.
pub fn lines(all: &[String]) -> String {
    let mut text: String =
        all.iter().take(LINES_SHOWN).map(|line| format!("\n    {line}")).collect();
    if all.len() > LINES_SHOWN {
        text.push_str(&format!("\n    and {} more", all.len() - LINES_SHOWN));
    }
    text
}

impl ChangeError {
    /// The exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ConfigChanged { .. } | Self::Conflicts { .. } | Self::Exists { .. } => {
                exit::CONFLICT
            }
            Self::SourcesChanged { .. }
            | Self::SameShard { .. }
            | Self::ShardsNotNamed { .. }
            | Self::Table { .. }
            | Self::NoColumnSet { .. }
            | Self::UnknownKeys { .. } => exit::INPUT,
            Self::PartsMissing { .. } => exit::DAMAGED,
            Self::WhichConfig { .. } | Self::SeveralLabels { .. } | Self::NoSnapshot { .. } => {
                exit::CONFIG
            }
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::ConfigChanged { was: "is being", .. } => {
                "a job with other settings began here: use them, choose another --output, or, if \
                 that job has ended, make every part by these with --set runtime.redo_config=true"
            }
            Self::ConfigChanged { .. } => {
                "use the settings of the data set, choose another --output, or make every part \
                 again in a new snapshot with --set runtime.redo_config=true"
            }
            Self::SourcesChanged { .. } => {
                "restore the shards, or have their parts made again in a new snapshot with --set \
                 runtime.redo_changed=true"
            }
            Self::SameShard { .. } => {
                "names are relative to `source.root`, by default the folder that all shards of \
                 the list share: set it to what it was before"
            }
            Self::ShardsNotNamed { .. } => "name the shards of all parts, not only new ones",
            Self::PartsMissing { .. } => {
                "run the missing shares, or commit what is there with --partial"
            }
            Self::WhichConfig { .. } => "name one with --config-tag",
            Self::NoSnapshot { .. } => "`catlip-prep inspect DIR` lists the snapshots",
            Self::SeveralLabels { .. } => {
                "choose one, with --labels NAME (in a recipe, `data.label_set`)"
            }
            Self::NoColumnSet { .. } => {
                "relabel or add-column again makes it for the parts that lack it; `catlip-prep \
                 inspect DIR` lists what is there"
            }
            Self::UnknownKeys { .. } => "check the keys, or pass over them with --allow-unknown",
            Self::Conflicts { .. } | Self::Table { .. } | Self::Exists { .. } => return None,
        })
    }
}
