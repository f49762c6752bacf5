//! What a feed reads: one data set or several, each with its images and how they are decoded.
//!
//! In: data sets, the stores in which their images lie. Out: row groups, each by one read; parts
//! numbered across all sets. A data set of mode `reference` has its images in the source shards.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use catlip_schemas::ColumnSet;

use super::cache::Cached;
use super::group::{GroupError, GroupImages};
use super::hedge::Hedged;
use super::memory::Memory;
use super::shard_rows::ShardRows;
use super::view::decode_options;
use crate::error::PrepError;
use crate::image::DecodeOptions;
use crate::prep::snapshot::Part;
use crate::prep::{DataSet, Folder};
use crate::source::store::StoreError;

/// Reads a range of an object: of a [`Folder`], perhaps behind a cache or a second request.
pub trait Ranges: Send + Sync {
    /// Bytes `range` of the object `name`, in `buffer` where that can be.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn read(&self, name: &str, range: Range<u64>, buffer: Vec<u8>) -> Result<Vec<u8>, StoreError>;

    /// Where it is, for messages.
    fn place(&self) -> String;
}

/// How stores are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadPlan {
    /// A request that takes longer, and much longer than usual, is made again.
    pub hedge_after: Option<Duration>,
    /// Folder and limit in bytes of what is kept on the local disk.
    pub cache: Option<(PathBuf, u64)>,
}

impl ReadPlan {
    /// Reads of `files`.
    fn of(&self, files: &Folder) -> Result<Arc<dyn Ranges>, PrepError> {
        let mut reads: Arc<dyn Ranges> = Arc::new(files.clone());
        if let Some(after) = self.hedge_after {
            reads = Arc::new(Hedged::new(reads, after));
        }
        if let Some((folder, limit)) = &self.cache {
            reads = Arc::new(Cached::new(files.clone(), reads, folder, *limit)?);
        }
        Ok(reads)
    }
}

impl Ranges for Folder {
    fn read(&self, name: &str, range: Range<u64>, buffer: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        self.read_range_in(name, range, buffer)
    }

    fn place(&self) -> String {
        self.store().place()
    }
}

/// One data set.
pub struct Source {
    /// The snapshot that is read.
    pub data: Arc<DataSet>,
    /// How its images are decoded.
    pub options: DecodeOptions,
    images: Images,
}

/// Where the images are.
enum Images {
    /// In the column set `images`.
    Stored(Arc<dyn Ranges>),
    /// In the source shards.
    Shards(ShardRows),
}

impl Source {
    /// A data set whose images are a column set of it, in `files`: its own folder.
    ///
    /// # Errors
    ///
    /// [`PrepError::NoDataSet`] if it has no images of its own.
    pub fn stored(data: Arc<DataSet>, files: Arc<dyn Ranges>) -> Result<Self, PrepError> {
        if is_reference(&data) {
            return Err(PrepError::NoDataSet {
                path: data.folder.place(),
                message: "its images lie in the source shards (image.mode = \"reference\"), and \
                          nobody said where those are"
                    .to_owned(),
            });
        }
        let options = decode_options(&data.manifest.config);
        Ok(Self { data, options, images: Images::Stored(files) })
    }

    /// A data set in its folder; `shards` is the folder of its source shards, where its images are
    /// there.
    ///
    /// # Errors
    ///
    /// As [`Source::stored`]; [`PrepError::Store`] for a cache that cannot be.
    pub fn open(
        data: Arc<DataSet>,
        shards: Option<&Folder>,
        reads: &ReadPlan,
    ) -> Result<Self, PrepError> {
        match shards {
            Some(shards) if is_reference(&data) => {
                let reads = reads.of(shards)?;
                Ok(Self::in_shards(data, shards.clone(), reads))
            }
            _ => {
                let files = reads.of(&data.folder)?;
                Self::stored(data, files)
            }
        }
    }

    /// A data set whose images lie in its source shards below `shards`.
    pub fn in_shards(data: Arc<DataSet>, shards: Folder, reads: Arc<dyn Ranges>) -> Self {
        let options = decode_options(&data.manifest.config);
        let images = Images::Shards(ShardRows::new(data.clone(), shards, reads));
        Self { data, options, images }
    }

    /// Reads row group `group` of a part into `memory`.
    ///
    /// # Errors
    ///
    /// [`GroupError`] with the object and the place in it.
    pub fn read_group(
        &self,
        part: &Part,
        group: u32,
        memory: &Arc<Memory>,
    ) -> Result<GroupImages, GroupError> {
        match &self.images {
            Images::Stored(files) => {
                let file = self.data.file(part, &ColumnSet::Images);
                let file = file.map_err(|e| GroupError::Data(Arc::new(e)))?;
                let entry = &file.groups[group as usize];
                GroupImages::read(files.as_ref(), &file.file, entry, memory)
            }
            Images::Shards(shards) => shards.read_group(part, group, memory),
        }
    }
}

/// Several data sets, whose parts are numbered on from one to the next.
#[derive(Clone)]
pub struct Sources {
    all: Arc<[Source]>,
    /// Number of the first part of each, and the end of the last.
    first_parts: Arc<[u32]>,
}

impl Sources {
    /// The data sets in that order.
    pub fn new(all: Vec<Source>) -> Self {
        let mut first_parts = vec![0];
        for source in &all {
            first_parts.push(first_parts[first_parts.len() - 1] + source.data.parts.len() as u32);
        }
        Self { all: all.into(), first_parts: first_parts.into() }
    }

    /// One data set in its folder, with images of its own.
    ///
    /// # Errors
    ///
    /// As [`Source::stored`].
    pub fn of_one(data: Arc<DataSet>) -> Result<Self, PrepError> {
        Ok(Self::new(vec![Source::open(data, None, &ReadPlan::default())?]))
    }

    /// The data sets.
    pub fn all(&self) -> &[Source] {
        &self.all
    }

    /// Parts of all data sets.
    pub fn num_parts(&self) -> u32 {
        self.first_parts[self.all.len()]
    }

    /// The data set of a part, and the part.
    pub fn part(&self, number: u32) -> (&Source, &Part) {
        let set = self.first_parts.partition_point(|&first| first <= number) - 1;
        let source = &self.all[set];
        (source, &source.data.parts[(number - self.first_parts[set]) as usize])
    }
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let folders = self.all.iter().map(|source| &source.data.folder);
        f.debug_list().entries(folders).finish()
    }
}

/// Whether the images of a data set lie in its source shards.
pub fn is_reference(data: &DataSet) -> bool {
    data.manifest.config["image"]["mode"].as_str() == Some("reference")
}

/// Rows of each row group of a part: of `images`, or as many as `images` would have.
pub fn rows_of_groups(data: &DataSet, part: &Part) -> Vec<u32> {
    if let Some(file) = part.files.get("images") {
        return file.groups.iter().map(|group| group.rows).collect();
    }
    let most = rows_per_group(data);
    let rows = part.rows();
    (0..rows.div_ceil(most)).map(|group| (rows - group * most).min(most) as u32).collect()
}

/// R of a data set without `images`.
pub(super) fn rows_per_group(data: &DataSet) -> u64 {
    data.manifest.config["image"]["rows_per_group"].as_u64().unwrap_or(256).max(1)
}
