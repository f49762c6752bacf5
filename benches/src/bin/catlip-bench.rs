//! Measures each stage; `--tiny` in the tests, so that it cannot rot.

fn main() -> Result<(), catlip_benches::Failure> {
    let tiny = std::env::args().any(|argument| argument == "--tiny");
    let scenes = if tiny { 64 } else { 6000 };
    let folder = tempfile::tempdir()?;
    println!("{:<38} {:>12} {:>9} {:>16}   hash", "stage", "items", "s", "items/s");
    for m in catlip_benches::run(folder.path(), scenes)? {
        let rate = m.items as f64 / m.secs.max(1e-9);
        println!(
            "{:<38} {:>12} {:>9.3} {rate:>16.0}   {} ({})",
            m.stage, m.items, m.secs, m.hash, m.unit
        );
    }
    println!();
    catlip_benches::labels::report(tiny, std::io::stdout())
}
