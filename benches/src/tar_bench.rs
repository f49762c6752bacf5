//! Tar to samples on one thread, beside the `tar` crate in the same run.
//!
//! In: shards. Out: bytes, files, seconds and the sum of all payload bytes of each pass; both
//! readers must come to the same sum. The sum is there so that every byte is really read: a reader
//! that hands out slices of a map has else read nothing but headers.

use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use catlip_pipeline::source::SampleReader;
use catlip_pipeline::source::bytes::TarBytes;
use catlip_pipeline::source::map::MappedFile;

use crate::Failure;

/// What one pass over all shards came to.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Whose reader.
    pub reader: &'static str,
    /// Bytes of all files in the shards.
    pub payload_bytes: u64,
    /// Files.
    pub files: u64,
    /// Sum of all payload bytes.
    pub sum: u64,
    /// Seconds.
    pub secs: f64,
    /// Seconds in which the thread had a core: what counts on a machine that others use too.
    pub cpu_secs: f64,
}

/// Seconds that this thread has run so far; 0 where the system does not say.
fn cpu_secs() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok());
    nanos.unwrap_or(0.0) / 1e9
}

/// Words of 8 bytes whose byte sums fit four lanes of 16 bits: 128 × 2 × 255 = 65,280.
const WORDS_MAX: usize = 128;

/// The sum of some bytes, pairs of them in lanes of 16 bits, so that it costs little beside the
/// reading that is measured.
fn sum_of(bytes: &[u8]) -> u64 {
    const LANES: u64 = 0x00ff_00ff_00ff_00ff;
    let (blocks, rest) = bytes.as_chunks::<{ 8 * WORDS_MAX }>();
    let mut sum = 0;
    for block in blocks {
        let lanes: u64 = block
            .as_chunks::<8>()
            .0
            .iter()
            .map(|&word| u64::from_le_bytes(word))
            .map(|word| (word & LANES) + ((word >> 8) & LANES))
            .fold(0, u64::wrapping_add);
        sum += (0..4).map(|lane| lanes >> (16 * lane) & 0xffff).sum::<u64>();
    }
    sum + rest.iter().map(|&b| u64::from(b)).sum::<u64>()
}

fn pass(
    reader: &'static str,
    work: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), Failure>,
) -> Result<Pass, Failure> {
    let (mut payload_bytes, mut files, mut sum) = (0, 0, 0);
    let (start, cpu_start) = (Instant::now(), cpu_secs());
    work(&mut |data| {
        payload_bytes += data.len() as u64;
        files += 1;
        sum += sum_of(data);
    })?;
    let (secs, cpu_secs) = (start.elapsed().as_secs_f64(), cpu_secs() - cpu_start);
    Ok(Pass { reader, payload_bytes, files, sum, secs, cpu_secs })
}

/// Our reader over `shards`.
///
/// # Errors
///
/// The first file that cannot be read or sample that is rejected.
pub fn ours(shards: &[PathBuf]) -> Result<Pass, Failure> {
    pass("catlip", |take| {
        for shard in shards {
            let map = MappedFile::open(shard)?;
            for sample in SampleReader::new(TarBytes::open(&map)?, false) {
                for file in sample.map_err(|reject| reject.error)?.files {
                    take(&file.data);
                }
            }
        }
        Ok(())
    })
}

/// The `tar` crate over the same maps: it reads through [`Read`], so it copies once.
///
/// # Errors
///
/// The first file that cannot be read.
pub fn tar_crate(shards: &[PathBuf]) -> Result<Pass, Failure> {
    pass("tar crate", |take| {
        let mut data = Vec::new();
        for shard in shards {
            let map = MappedFile::open(shard)?;
            for entry in tar::Archive::new(&map[..]).entries()? {
                let mut entry = entry?;
                if !entry.header().entry_type().is_file() {
                    continue;
                }
                data.clear();
                entry.read_to_end(&mut data)?;
                take(&data);
            }
        }
        Ok(())
    })
}

/// Passes of both in turn, `rounds` each.
///
/// # Errors
///
/// The first failure, or two sums that differ.
pub fn compare(shards: &[PathBuf], rounds: usize) -> Result<Vec<Pass>, Failure> {
    let mut passes = Vec::new();
    for _ in 0..rounds {
        passes.push(ours(shards)?);
        passes.push(tar_crate(shards)?);
    }
    let same = |a: &Pass, b: &Pass| (a.sum, a.files) == (b.sum, b.files);
    if passes.iter().any(|pass| !same(pass, &passes[0])) {
        return Err(format!("the readers differ: {passes:?}").into());
    }
    Ok(passes)
}

/// A shard of `samples` samples with a file of `file_bytes` drawn bytes and a caption each.
///
/// # Errors
///
/// What the system says.
pub fn draw(path: &std::path::Path, samples: u64, file_bytes: usize) -> Result<(), Failure> {
    let mut builder = tar::Builder::new(std::io::BufWriter::new(std::fs::File::create(path)?));
    let mut data = vec![0; file_bytes];
    for number in 0..samples {
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut data);
        for (extension, bytes) in [("jpg", &data[..]), ("txt", b"a dog on a beach")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("{number:09}.{extension}"), bytes)?;
        }
    }
    std::io::Write::flush(&mut builder.into_inner()?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_readers_come_to_the_same_sum() -> Result<(), Failure> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.tar");
        draw(&path, 20, 5000)?;
        let passes = compare(&[path], 2)?;
        assert_eq!((passes.len(), passes[0].files), (4, 40));
        assert_eq!(passes[0].payload_bytes, 20 * (5000 + 16));
        let slow: u64 = (0..=255u8).cycle().take(9999).map(u64::from).sum();
        assert_eq!(sum_of(&(0..=255u8).cycle().take(9999).collect::<Vec<_>>()), slow);
        Ok(())
    }
}
