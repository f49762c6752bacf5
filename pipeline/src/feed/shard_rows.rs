//! The images of a data set of mode `reference`, read from its source shards by byte range.
//!
//! In: `meta` of a part and the shard that it was made from. Out: row groups as if `images` were
//! there. Never: reads a shard that is not the one that was prepared.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use catlip_schemas::{ColumnSet, PartName, SampleId};

use super::group::{GroupError, GroupImages};
use super::memory::Memory;
use super::source::{Ranges, rows_per_group};
use crate::error::PrepError;
use crate::prep::snapshot::Part;
use crate::prep::{DataSet, Folder};
use crate::source::spool::ShardIdentity;

/// Bytes between two images that are read along rather than asked for apart: a second request
/// costs a store 20 to 100 ms, in which it delivers some MB.
const GAP_BYTES_MAX: u64 = 1 << 20;

/// Parts whose rows are kept: 1,024 × 10,000 rows × 48 B = 492 MB at most.
const PARTS_KEPT_MAX: usize = 1024;

/// Where a row's image lies.
#[derive(Clone, Copy, Debug)]
struct ShardRow {
    offset: u64,
    bytes: u64,
    id: SampleId,
    hash: [u8; 16],
}

/// The rows of a data set in its source shards.
pub(super) struct ShardRows {
    data: Arc<DataSet>,
    shards: Folder,
    reads: Arc<dyn Ranges>,
    rows: Mutex<HashMap<PartName, Arc<Vec<ShardRow>>>>,
    /// Shards that were seen to be those that were prepared.
    checked: Mutex<HashSet<String>>,
}

impl ShardRows {
    pub fn new(data: Arc<DataSet>, shards: Folder, reads: Arc<dyn Ranges>) -> Self {
        Self { data, shards, reads, rows: Mutex::default(), checked: Mutex::default() }
    }

    pub fn read_group(
        &self,
        part: &Part,
        group: u32,
        memory: &Arc<Memory>,
    ) -> Result<GroupImages, GroupError> {
        self.check_shard(part)?;
        let all = self.rows_of(part).map_err(|e| GroupError::Data(Arc::new(e)))?;
        let most = rows_per_group(&self.data) as usize;
        let first = group as usize * most;
        let rows = &all[first..all.len().min(first + most)];
        let mut bytes = memory.buffer(rows.iter().map(|row| row.bytes).sum());
        bytes.clear();
        let mut images = Vec::with_capacity(rows.len());
        for run in runs(rows) {
            let (from, to) = (run[0].offset, run[run.len() - 1].offset + run[run.len() - 1].bytes);
            let buffer = memory.buffer(to - from);
            let read = self.reads.read(&part.source.shard, from..to, buffer);
            let read = read.map_err(|e| self.wrong(part, from, to - from, &e))?;
            for row in run {
                let begin = (row.offset - from) as usize;
                let at = bytes.len() as u32;
                bytes.extend_from_slice(&read[begin..begin + row.bytes as usize]);
                images.push(at..bytes.len() as u32);
            }
            memory.spare(read);
        }
        let ids = rows.iter().map(|row| row.id).collect();
        let hashes = rows.iter().map(|row| row.hash).collect();
        GroupImages::of_images(bytes, ids, images, hashes, memory)
    }

    fn rows_of(&self, part: &Part) -> Result<Arc<Vec<ShardRow>>, PrepError> {
        // Read under the lock: a part is read once, however many threads ask for it.
        let mut kept = self.rows.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(rows) = kept.get(&part.name) {
            return Ok(rows.clone());
        }
        let numbers = |column: &str| {
            let mut all: Vec<Option<i64>> = Vec::new();
            let take = |array: &arrow_array::ArrayRef| {
                all.extend(array.as_primitive::<Int64Type>().iter());
            };
            self.data.read_column(part, &ColumnSet::Meta, column, take).map(|()| all)
        };
        let (offsets, bytes) = (numbers("source_offset")?, numbers("source_bytes")?);
        let ids = self.data.read_sample_ids(part)?;
        let hashes = self.data.read_image_hashes(part)?;
        let places = offsets.into_iter().zip(bytes).zip(ids.into_iter().zip(hashes));
        let place = |((offset, bytes), (id, hash)): ((Option<i64>, Option<i64>), _)| {
            let offset = offset.and_then(|n| u64::try_from(n).ok());
            let bytes = bytes.and_then(|n| u64::try_from(n).ok());
            // No row is without: prep refuses compressed shards in this mode.
            offset.zip(bytes).map(|(offset, bytes)| ShardRow { offset, bytes, id, hash })
        };
        let rows: Option<Vec<ShardRow>> = places.map(place).collect();
        let rows =
            rows.ok_or_else(|| PrepError::NoByteRanges { shard: part.source.shard.clone() })?;
        if kept.len() >= PARTS_KEPT_MAX {
            kept.clear();
        }
        let rows = Arc::new(rows);
        kept.insert(part.name, rows.clone());
        Ok(rows)
    }

    /// Refuses a shard that is not there any more, or another one.
    fn check_shard(&self, part: &Part) -> Result<(), GroupError> {
        let shard = &part.source.shard;
        let is_known = |known: &HashSet<String>| known.contains(shard);
        if is_known(&self.checked.lock().unwrap_or_else(|e| e.into_inner())) {
            return Ok(());
        }
        let found = ShardIdentity::of_object(self.shards.store(), shard);
        let found = found.map_err(|e| self.wrong(part, 0, part.source.bytes, &e))?;
        let is_same = found.bytes == part.source.bytes && found.etag == part.source.etag;
        if !is_same {
            return Err(GroupError::Shard {
                shard: format!("{}/{shard}", self.shards.store().place()),
                found: format!("{} bytes, {}", found.bytes, found.etag),
                expected: format!("{} bytes, {}", part.source.bytes, part.source.etag),
            });
        }
        self.checked.lock().unwrap_or_else(|e| e.into_inner()).insert(shard.clone());
        Ok(())
    }

    fn wrong(
        &self,
        part: &Part,
        offset: u64,
        bytes: u64,
        error: &dyn std::error::Error,
    ) -> GroupError {
        let place = format!("{}/{}", self.shards.store().place(), part.source.shard);
        GroupError::read(place, offset, bytes, error)
    }
}

/// Cuts rows where the next image begins too far behind the last, or before it.
fn runs(rows: &[ShardRow]) -> impl Iterator<Item = &[ShardRow]> {
    rows.chunk_by(|a, b| {
        let end = a.offset + a.bytes;
        b.offset >= end && b.offset - end <= GAP_BYTES_MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_images_are_asked_for_apart() {
        let row = |offset, bytes| {
            let (id, hash) = (SampleId([0; 16]), [0; 16]);
            ShardRow { offset, bytes, id, hash }
        };
        let rows =
            [row(512, 100), row(1536, 50), row(1536 + 50 + GAP_BYTES_MAX + 1, 10), row(0, 10)];
        let lengths: Vec<usize> = runs(&rows).map(<[ShardRow]>::len).collect();
        assert_eq!(lengths, [2, 1, 1]);
    }
}
