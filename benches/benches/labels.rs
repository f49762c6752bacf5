//! `cargo bench --bench labels`: how fast captions become synsets.

fn main() -> Result<(), catlip_benches::Failure> {
    catlip_benches::labels::speed::report(false, std::io::stdout())
}
