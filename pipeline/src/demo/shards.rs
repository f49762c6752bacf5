//! Writes scenes as WebDataset shards.
//!
//! In: a stream of scenes. Out: `NAME-00000.tar` … with `key.png`, `key.txt` (the first caption)
//! and `key.json` (`{"captions": […]}`) a scene. Never: a shard under its name before it is whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rayon::prelude::*;

use super::random::Draws;
use super::scene::Scene;
use super::words::captions;

/// Tells the stream of words from the streams of layouts, which count up from 0.
const WORDS: u64 = u64::MAX;
/// Scenes drawn at once: enough for all cores, and at 128 px only 64 × 48 KiB = 3 MiB of pixels.
const BATCH: u64 = 64;

/// One scene as the files of its shard.
#[derive(Debug)]
struct Files {
    key: String,
    image: Vec<u8>,
    extension: &'static str,
    captions: Vec<String>,
}

/// Draws the scenes `numbers` and writes them as one shard to `path`; returns its bytes.
pub fn write_shard(
    path: &Path,
    prefix: char,
    seed: u64,
    numbers: std::ops::Range<u64>,
    side_px: usize,
) -> io::Result<u64> {
    let temp = path.with_extension("tar.tmp");
    let mut archive = tar::Builder::new(io::BufWriter::new(File::create(&temp)?));
    for start in numbers.clone().step_by(BATCH as usize) {
        let batch: Vec<_> = (start..(start + BATCH).min(numbers.end)).collect();
        let files: io::Result<Vec<Files>> =
            batch.into_par_iter().map(|number| files_of(prefix, seed, number, side_px)).collect();
        for files in files? {
            append_all(&mut archive, &files)?;
        }
    }
    let file = archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    Ok(fs::metadata(path)?.len())
}

fn files_of(prefix: char, seed: u64, number: u64, side_px: usize) -> io::Result<Files> {
    let scene = Scene::draw(seed, number, side_px);
    let captions = captions(&mut Draws::new(seed, &[number, WORDS]), &scene);
    let (image, extension) = encode(&scene.rgb, side_px as u32)?;
    Ok(Files { key: format!("{prefix}{number:06}"), image, extension, captions })
}

fn append_all(archive: &mut tar::Builder<impl Write>, files: &Files) -> io::Result<()> {
    let json = serde_json::json!({ "captions": files.captions }).to_string();
    let first = files.captions.first().map_or("", String::as_str);
    append(archive, &files.key, files.extension, &files.image)?;
    append(archive, &files.key, "txt", first.as_bytes())?;
    append(archive, &files.key, "json", json.as_bytes())
}

/// One entry; its time and owner are 0, so that equal scenes give equal shards.
fn append(
    archive: &mut tar::Builder<impl Write>,
    key: &str,
    extension: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive.append_data(&mut header, format!("{key}.{extension}"), bytes)
}

/// Compresses `rgb`, `side_px` × `side_px` × 3 bytes; returns the bytes and the file's extension.
fn encode(rgb: &[u8], side_px: u32) -> io::Result<(Vec<u8>, &'static str)> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side_px, side_px);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(rgb)?;
    writer.finish()?;
    Ok((bytes, "png"))
}
