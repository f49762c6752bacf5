//! Rows whose image another row has.
//!
//! In: a data set. Out: the sample ids of every row but the first of those with the same source
//! image, byte by byte. A part is a pure function of its shard, so it cannot know of the others:
//! `filter.duplicates` leaves out what repeats inside a part, and this finds what repeats across
//! parts, once they are there. Never: changes the data set.

use std::collections::HashSet;

use catlip_schemas::SampleId;

use super::snapshot::DataSet;
use crate::error::PrepError;

/// Hashes held at once: about 1 GiB at 40 bytes each, with the table's free room.
const HASHES_MAX: u64 = 1 << 25;

/// The ids of all rows whose image stands in an earlier row, by part and row.
///
/// Reads the column `image_hash` once for every 33 million rows.
///
/// # Errors
///
/// [`PrepError::Io`], [`PrepError::Parquet`].
pub fn duplicates(data: &DataSet) -> Result<Vec<SampleId>, PrepError> {
    found_in_passes(data, data.manifest.totals.rows.div_ceil(HASHES_MAX).max(1))
}

/// Each pass looks at the hashes that leave the same rest, so no two equal ones are parted.
fn found_in_passes(data: &DataSet, passes: u64) -> Result<Vec<SampleId>, PrepError> {
    let mut found = Vec::new();
    for pass in 0..passes {
        let mut seen = HashSet::new();
        for (number, part) in data.parts.iter().enumerate() {
            let hashes = data.read_image_hashes(part)?;
            let is_ours = |hash: &[u8; 16]| {
                let [a, b, c, d, ..] = *hash;
                u64::from(u32::from_le_bytes([a, b, c, d])) % passes == pass
            };
            let mut rows = Vec::new();
            for (row, hash) in hashes.into_iter().enumerate() {
                if is_ours(&hash) && !seen.insert(hash) {
                    rows.push(row);
                }
            }
            if !rows.is_empty() {
                let ids = data.read_sample_ids(part)?;
                found.extend(rows.into_iter().map(|row| (number, row, ids[row])));
            }
        }
    }
    found.sort_unstable_by_key(|&(part, row, _)| (part, row));
    Ok(found.into_iter().map(|(_, _, id)| id).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::config::PrepConfig;
    use crate::metrics::PrepMetrics;
    use crate::prep::{PrepPlan, run};
    use crate::source::ShardList;

    /// A shard whose samples have those images, told apart by their colour.
    fn shard(colours: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (i, &colour) in colours.iter().enumerate() {
            let mut png = Vec::new();
            let mut encoder = png::Encoder::new(&mut png, 1, 1);
            encoder.set_color(png::ColorType::Rgb);
            encoder.write_header().unwrap().write_image_data(&[colour; 3]).unwrap();
            for (extension, data) in [("png", &png[..]), ("txt", b"a dog")] {
                let mut header = tar::Header::new_gnu();
                header.set_size(data.len() as u64);
                builder.append_data(&mut header, format!("{i}.{extension}"), data).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn all_but_the_first_of_equal_images_are_found_in_any_number_of_passes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("s-0.tar"), shard(&[1, 2, 3, 1])).unwrap();
        std::fs::write(path("s-1.tar"), shard(&[4, 2])).unwrap();
        std::fs::write(path("s-2.tar"), shard(&[2, 4, 5])).unwrap();
        let pattern = path("s-*.tar").to_str().unwrap().to_owned();
        let shards = ShardList::expand(&[pattern], None).unwrap();
        let plan = PrepPlan::new(PrepConfig::default()).unwrap();
        let (metrics, stop) = (PrepMetrics::default(), AtomicBool::new(false));
        run(&shards, &path("out"), &plan, &metrics, &stop).unwrap();
        let data = DataSet::open(&path("out")).unwrap();
        let id = |shard: &str, key: &str| SampleId::new(shard, key.as_bytes());
        let expected =
            [id("s-0.tar", "3"), id("s-1.tar", "1"), id("s-2.tar", "0"), id("s-2.tar", "1")];
        assert_eq!(duplicates(&data).unwrap(), expected);
        assert_eq!(found_in_passes(&data, 3).unwrap(), expected);
    }
}
