//! `catlip-prep`: shards in, a data set out.

fn main() -> std::process::ExitCode {
    catlip_pipeline::cli::main()
}
