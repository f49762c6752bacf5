//! `catlip-remote-feed [--rounds N] [--latency-ms MS] [--images N] [--batch N] SHARD…`: what a far
//! store costs the feed.
//!
//! In: shards. Out: one line of JSON: images a second of `catlip-train bench feed` over a data set
//! in a folder and over the same in S3 (s3s-fs), each request of which waits so long more, by
//! turns, and the median of their ratios. The feed has core 0, server and network core 1.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use catlip_tests::servers::{Act, Cloud, Proxy, s3_variables};
use catlip_tests::{program, told};

type Failure = Box<dyn std::error::Error>;
type Variables = Vec<(String, String)>;

/// What is fed.
#[derive(Clone, Copy)]
struct Amount {
    images: u64,
    batch: u64,
}

fn main() -> Result<ExitCode, Failure> {
    let (mut rounds, mut latency_ms) = (5, 50);
    let mut amount = Amount { images: 4096, batch: 256 };
    let (mut shards, mut arguments) = (Vec::new(), std::env::args().skip(1));
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64, Failure> {
            Ok(arguments.next().ok_or("a number is missing")?.parse()?)
        };
        match argument.as_str() {
            "--rounds" => rounds = number()?,
            "--latency-ms" => latency_ms = number()?,
            "--images" => amount.images = number()?,
            "--batch" => amount.batch = number()?,
            _ => shards.push(argument),
        }
    }
    // Inherited by the server and by the threads of the proxy.
    let own = std::process::id().to_string();
    succeed(Command::new("taskset").args(["--pid", "--cpu-list", "1", &own]))?;
    let Some(cloud) = Cloud::quick_s3() else { return Ok(ExitCode::SUCCESS) };
    let latency = Duration::from_millis(latency_ms);
    let proxy = Proxy::start(cloud.port, move |_| Act::PassAfter(latency));
    let folder = tempfile::tempdir()?;
    let local = folder.path().join("data");
    prepare(&shards, &local, &Variables::new())?;
    prepare(&shards, Path::new("s3://lake/data"), &cloud.variables)?;
    let far = s3_variables(proxy.port);
    let (mut locals, mut fars) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        locals.push(feed(&local, &Variables::new(), amount)?);
        fars.push(feed(Path::new("s3://lake/data"), &far, amount)?);
    }
    let ratios = locals.iter().zip(&fars).map(|(local, far)| far / local).collect();
    println!(
        "{}",
        serde_json::json!({
            "latency_ms": latency_ms, "rounds": rounds,
            "images": amount.images, "batch": amount.batch,
            "local_images_per_sec": locals, "s3_images_per_sec": fars, "ratio": median(ratios),
        })
    );
    Ok(ExitCode::SUCCESS)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The data set of `shards`, their images as they are.
fn prepare(shards: &[String], output: &Path, variables: &Variables) -> Result<(), Failure> {
    let mut command = program("catlip-prep");
    command.args(["run", "--quiet", "--output"]).arg(output).envs(variables.iter().cloned());
    command.args(["--set", "image.mode=keep", "--set", "image.rows_per_group=64"]);
    succeed(command.args(shards.iter().flat_map(|shard| ["--input", shard])))?;
    Ok(())
}

/// Images a second of a feed that has core 0.
fn feed(data: &Path, variables: &Variables, amount: Amount) -> Result<f64, Failure> {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0"]).arg(program("catlip-train").get_program());
    command.args(["bench", "feed", "--images", &amount.images.to_string(), "--data"]).arg(data);
    command.args(["--set", &format!("train.batch={}", amount.batch)]);
    command.args(["--set", "feed.window_bytes=67108864"]).envs(variables.iter().cloned());
    let text = succeed(&mut command)?;
    let words = text.lines().find_map(|line| line.strip_prefix("feed "));
    let rate = words.and_then(|words| words.split_whitespace().next());
    Ok(rate.ok_or_else(|| format!("no line of the feed: {text}"))?.parse()?)
}

/// What a program that must end well prints.
fn succeed(command: &mut Command) -> Result<String, Failure> {
    let (code, out, err) = told(&command.output()?);
    if code != 0 {
        return Err(format!("{command:?} ended with code {code}: {out}{err}").into());
    }
    Ok(out)
}
