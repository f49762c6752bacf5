//! `catlip-prep index`.

use super::print;
use super::run::stop_flag;
use crate::error::PrepError;
use crate::metrics::PrepMetrics;
use crate::prep::index::make_index;

/// Arguments of `index`.
#[derive(clap::Args)]
pub struct IndexArgs {
    /// Plain, local shards: files, globs, braces such as `train-{00000..00099}.tar`, or @list.txt.
    #[arg(long, required = true, num_args = 1.., value_name = "SHARDS")]
    input: Vec<String>,
    /// One setting of `catlip-prep config`, such as caption.rule=nouns.
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
}

/// Shards in, their index beside them out; its folder is printed.
pub fn run(args: &IndexArgs) -> Result<(), PrepError> {
    let metrics = PrepMetrics::default();
    let stop = stop_flag("the index".as_ref())?;
    let (index, summary) = make_index(&args.input, &args.settings, &metrics, &stop)?;
    eprintln!(
        "{} rows of {} samples in {} shards, {} shards read now",
        summary.totals.rows, summary.totals.samples, summary.parts, summary.parts_made
    );
    print::result(&format!("{}\n", index.folder.display()))
}
