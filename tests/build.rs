//! Gives the tests that train the run path of libtorch, which the trainer's build script knows.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(run_path) = std::env::var("DEP_CATLIP_TRAINER_RUN_PATH") {
        println!("cargo::rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{run_path}");
    }
}
