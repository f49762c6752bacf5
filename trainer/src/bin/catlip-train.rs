//! The binary `catlip-train`.

use std::process::ExitCode;

fn main() -> ExitCode {
    catlip_trainer::cli::run(option_env!("CATLIP_COMMIT"))
}
