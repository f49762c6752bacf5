//! `catlip-train selftest`: what the device must do, tried where it is.

use catlip_pipeline::error::exit;
use clap::Args;
use tch::Device;

use super::{kernel_cache, print, say};
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::plan;
use crate::selftest::{self, Check, On, Outcome, Scale};

#[derive(Debug, Args)]
pub(super) struct SelftestArgs {
    /// auto (CUDA where there is one), cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// On a GPU too, toy sizes only: not ViT-B/16 at every size of the variable sampler, 12 GB
    #[arg(long)]
    small: bool,
}

pub(super) fn run(args: &SelftestArgs) -> Result<u8, TrainError> {
    let settings = [format!("runtime.device={}", toml::Value::from(args.device.as_str()))];
    let config = TrainConfig::load(None, &settings)?;
    let device = plan::open_device(&config)?;
    let cache = plan::kernel_cache(&config, kernel_cache().as_deref());
    say(&device.report);
    let scale = match device.device {
        Device::Cuda(_) if !args.small => Scale::Full,
        _ => Scale::Small,
    };
    let mut counts = [0; 3];
    let on = On { device: device.device, scale, kernel_cache: cache.as_deref() };
    let failed = selftest::run(on, &mut |check| {
        counts[kind(&check.outcome)] += 1;
        print(&line(check));
    });
    let [ok, failed_too, skipped] = counts;
    print(&format!("{ok} ok, {failed_too} failed, {skipped} skipped"));
    Ok(if failed == 0 { exit::OK } else { exit::FAILED })
}

fn kind(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Ok(_) => 0,
        Outcome::Failed(_) => 1,
        Outcome::Skipped(_) => 2,
    }
}

fn line(Check { name, outcome }: &Check) -> String {
    match outcome {
        Outcome::Ok(text) => format!("ok       {name}: {text}"),
        Outcome::Failed(text) => format!("failed   {name}: {text}"),
        Outcome::Skipped(why) => format!("skipped  {name}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_became_of_a_test_and_why() {
        let check = |outcome| Check { name: "a sum is a sum", outcome };
        assert_eq!(
            line(&check(Outcome::Ok("off by 0".into()))),
            "ok       a sum is a sum: off by 0"
        );
        assert_eq!(
            line(&check(Outcome::Skipped("no GPU".into()))),
            "skipped  a sum is a sum: no GPU"
        );
        assert!(line(&check(Outcome::Failed("no".into()))).starts_with("failed   "));
    }
}
