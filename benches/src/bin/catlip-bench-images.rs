//! Measures the image work of one thread on a folder of JPEGs, beside `peers/images.py`.
//!
//! In: `catlip-bench-images FOLDER [REPEAT]`. Out: images per second of this thread's CPU time, so
//! that other work on the machine counts little, and a hash of what was made.

use std::path::PathBuf;

use catlip_benches::Failure;
use catlip_pipeline::config::PrepConfig;
use catlip_pipeline::feed::Viewing;
use catlip_pipeline::feed::draw::{Draws, Purpose};
use catlip_pipeline::feed::view::fill_slot;
use catlip_pipeline::image::{CropDecoder, DecodeOptions, Filter, Header};
use catlip_pipeline::metrics::PrepMetrics;
use catlip_pipeline::prep::PrepPlan;
use catlip_pipeline::prep::stored::{Tools, store};

/// What is done to each image.
#[derive(Clone, Copy)]
enum Work {
    /// Short side 256, JPEG of quality 95.
    Prepare(&'static str),
    /// A view of 224 px.
    View(Viewing),
    /// All pixels.
    Decode,
}

/// Nanoseconds that this thread ran.
fn cpu_nanos() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// What `catlip-prep run` is told to do the same: nothing is kept as it is, as the peers do.
fn plan(filter: &str) -> Result<PrepPlan, Failure> {
    let settings = [
        "image.short_side_px=256",
        "image.quality=95",
        "image.keep_small_jpeg=false",
        &format!("image.filter={filter}"),
    ];
    Ok(PrepPlan::new(PrepConfig::load(None, &settings.map(str::to_owned))?)?)
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: catlip-bench-images FOLDER [REPEAT]")?;
    let repeat: u64 = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, Failure>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    paths.sort();
    let images: Vec<Vec<u8>> =
        paths.iter().map(std::fs::read).collect::<Result<_, std::io::Error>>()?;
    let filter = Filter::Bilinear;
    let (area, aspect) = ((0.08, 1.0), (0.75, 4.0 / 3.0));
    let crop = Viewing::RandomCrop { area, aspect, flip: 0.5, filter };
    let works = [
        ("prepare, bilinear", Work::Prepare("bilinear")),
        ("prepare, lanczos3", Work::Prepare("lanczos3")),
        ("random crop to 224 px", Work::View(crop)),
        ("centre of 224 px", Work::View(Viewing::Centre { resize_px: 256, filter })),
        ("decode all", Work::Decode),
    ];
    let mut decoder = CropDecoder::default();
    let mut slot = vec![0; 224 * 224 * 3];
    let options = DecodeOptions::default();
    let (metrics, mut tools) = (PrepMetrics::default(), Tools::default());
    for (name, work) in works {
        let plan = plan(if let Work::Prepare(filter) = work { filter } else { "bilinear" })?;
        let mut hasher = blake3::Hasher::new();
        let start = cpu_nanos()?;
        for round in 0..repeat {
            for (number, bytes) in images.iter().enumerate() {
                match work {
                    Work::Prepare(_) => {
                        hasher.update(&store(&plan, &metrics, bytes, &mut tools)?.bytes);
                    }
                    Work::View(viewing) => {
                        let mut draws = Draws::new(Purpose::View, 1, round, number as u64, 0);
                        let seen = (&viewing, 224);
                        fill_slot(bytes, &options, seen, &mut draws, &mut decoder, &mut slot)?;
                        hasher.update(&slot[..64]);
                    }
                    Work::Decode => {
                        decoder.check(bytes, &Header::read(bytes, &options)?, &options)?;
                    }
                }
            }
        }
        let secs = (cpu_nanos()? - start) as f64 / 1e9;
        let rate = (images.len() as u64 * repeat) as f64 / secs;
        let hash = hasher.finalize().to_hex();
        println!("{name:<24} {rate:>8.0} images/s   {}", &hash[..8]);
    }
    Ok(())
}
