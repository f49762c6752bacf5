//! `catlip-prep inspect`: what is in a data set, as text and as a page that needs nothing else.

use std::fmt::Write;
use std::path::PathBuf;

use super::run::stores;
use crate::error::PrepError;
use crate::prep::DataSet;
use crate::prep::commit::write_whole;
use crate::prep::inspect::{Histogram, Inspection, Shown, SynsetCount, inspect};

/// Samples in the grid of the page; 60 of 30 KB make a page of 2.5 MB.
const SHOWN: usize = 60;

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub struct InspectArgs {
    /// The data set: a folder or a URL.
    folder: PathBuf,
    /// Which snapshot; the newest if it is left out.
    #[arg(long, value_name = "N")]
    snapshot: Option<u64>,
    /// Which labels, such as corenet-1; needed where the data set has several.
    #[arg(long, default_value = "", value_name = "RULE")]
    labels: String,
    /// How many synsets of the vocabulary's head and tail.
    #[arg(long, default_value_t = 20)]
    top: usize,
    /// Write a page with samples, captions, labels and distributions.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Counts a data set and prints or draws what it holds.
pub fn run(args: &InspectArgs) -> Result<(), PrepError> {
    let folder = stores().folder(&args.folder)?;
    let data = DataSet::open_at(&folder, args.snapshot)?.with_labels(&args.labels)?;
    let shown = if args.html.is_some() { SHOWN } else { 0 };
    let found = inspect(&data, args.top, shown)?;
    print!("{}", text(&found));
    if let Some(path) = &args.html {
        write_whole(path, page(&found).as_bytes()).map_err(|e| PrepError::io("write", path, e))?;
        println!("\n{}", path.display());
    }
    Ok(())
}

fn text(found: &Inspection) -> String {
    let (manifest, totals) = (&found.manifest, &found.manifest.totals);
    let mut text = format!(
        "snapshot {}: {} rows in {} parts, {} captions, {} samples seen, {} rejected\n\n\
         snapshots\n",
        manifest.snapshot,
        found.rows,
        manifest.parts.parts,
        found.labels_per_caption.count(),
        totals.samples,
        totals.num_rejects()
    );
    for (number, rows, dropped, change) in &found.history {
        let _ = writeln!(text, "{number:>8} {rows:>12} rows, {dropped} dropped: {change}");
    }
    text.push_str("\ncolumn sets\n");
    for set in &manifest.column_sets {
        let parts = set.parts.unwrap_or(manifest.parts.parts);
        let _ = writeln!(text, "    {:<24} {:>14} bytes, {parts} parts", set.name, set.bytes);
    }
    if !totals.rejects.is_empty() {
        text.push_str("\nrejected\n");
        for (reason, count) in &totals.rejects {
            let _ = writeln!(text, "    {reason:<24} {count:>14}");
        }
    }
    let labels = &found.labels_per_caption;
    let _ = writeln!(
        text,
        "\n{}: {} distinct, {:.2} a caption, {:.1} % of captions without; short side {:.0} px on \
         average",
        found.labels,
        found.num_synsets,
        labels.mean(),
        100.0 * labels.bins[0] as f64 / labels.count().max(1) as f64,
        found.short_side_px.mean()
    );
    for row in &found.head {
        let _ = writeln!(
            text,
            "    {} {:<24} {:>10} times, in {} captions",
            row.wnid, row.lemma, row.occurrences, row.captions
        );
    }
    text
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;\
padding:0 1rem;color:#1c2330;background:#fff}h2{margin:2.2rem 0 .6rem;font-size:1.15rem}\
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:1rem}\
figure{margin:0}figure img{width:100%;aspect-ratio:1;object-fit:cover;border-radius:.4rem;\
background:#eef0f4}figcaption{font-size:.8rem;line-height:1.35;overflow-wrap:anywhere}\
figcaption p{margin:.4rem 0}.l{color:#2456b8;display:block}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.15rem .8rem;\
text-align:right;border-bottom:1px solid #e3e6ec}td:first-child,th:first-child{text-align:left}\
.two{display:flex;flex-wrap:wrap;gap:3rem}svg text{font:11px system-ui,sans-serif;fill:#5a6476}\
rect{fill:#4a7bd8}@media(prefers-color-scheme:dark){body{color:#e6e9ef;background:#14171d}\
td,th{border-color:#2b313c}.l{color:#8ab0f5}figure img{background:#232832}}";

/// The page: no script, no other file, nothing fetched.
fn page(found: &Inspection) -> String {
    let manifest = &found.manifest;
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>snapshot {n}</title><style>{STYLE}</style>\
         <h1>{rows} rows, snapshot {n}</h1><p>{captions} captions, {synsets} distinct synsets \
         ({labels}), {mean:.2} labels a caption; {rejected} of {samples} samples rejected.</p>",
        n = manifest.snapshot,
        rows = found.rows,
        captions = found.labels_per_caption.count(),
        synsets = found.num_synsets,
        labels = escaped(&found.labels),
        mean = found.labels_per_caption.mean(),
        rejected = manifest.totals.num_rejects(),
        samples = manifest.totals.samples,
    );
    page.push_str("<div class=\"two\"><div><h2>Labels per caption</h2>");
    page.push_str(&bars(&found.labels_per_caption));
    page.push_str("</div><div><h2>Short side of the images, px</h2>");
    page.push_str(&bars(&found.short_side_px));
    page.push_str("</div></div><div class=\"two\"><div><h2>Vocabulary, head</h2>");
    page.push_str(&synset_table(&found.head));
    page.push_str("</div><div><h2>Vocabulary, tail</h2>");
    page.push_str(&synset_table(&found.tail));
    page.push_str(
        "</div></div><div class=\"two\"><div><h2>Snapshots</h2><table><tr><th>change<th>number<th>rows<th>dropped",
    );
    for (number, rows, dropped, change) in &found.history {
        let _ = write!(page, "<tr><td>{}<td>{number}<td>{rows}<td>{dropped}", escaped(change));
    }
    page.push_str("</table></div>");
    if !manifest.totals.rejects.is_empty() {
        page.push_str("<div><h2>Rejected</h2><table><tr><th>reason<th>entries");
        for (reason, count) in &manifest.totals.rejects {
            let _ = write!(page, "<tr><td>{}<td>{count}", escaped(reason));
        }
        page.push_str("</table></div>");
    }
    page.push_str("</div><h2>Samples</h2><div class=\"grid\">");
    found.shown.iter().for_each(|shown| page.push_str(&figure(shown)));
    page.push_str("</div></html>\n");
    page
}

fn figure(shown: &Shown) -> String {
    let mut text = String::from("<figure>");
    if !shown.image.is_empty() {
        let image = base64(&shown.image);
        let (encoding, key) = (escaped(&shown.encoding), escaped(&shown.key));
        let _ = write!(text, "<img alt=\"{key}\" src=\"data:image/{encoding};base64,{image}\">");
    }
    text.push_str("<figcaption>");
    for (caption, labels) in &shown.captions {
        let labels = escaped(&labels.join(", "));
        let _ = write!(text, "<p>{}<span class=\"l\">{labels}</span></p>", escaped(caption));
    }
    text.push_str("</figcaption></figure>");
    text
}

fn synset_table(rows: &[SynsetCount]) -> String {
    let mut text = String::from("<table><tr><th>synset<th>wnid<th>times<th>captions");
    for row in rows {
        let _ = write!(
            text,
            "<tr><td>{}<td>{}<td>{}<td>{}",
            escaped(&row.lemma),
            row.wnid,
            row.occurrences,
            row.captions
        );
    }
    text + "</table>"
}

/// A histogram as bars, up to the last bin that holds anything.
fn bars(histogram: &Histogram) -> String {
    const WIDTH: usize = 18;
    const HEIGHT: f64 = 120.0;
    let used = histogram.bins.iter().rposition(|&count| count > 0).map_or(1, |last| last + 1);
    let most = histogram.bins.iter().copied().max().unwrap_or(0).max(1);
    let mut text = format!(
        "<svg width=\"{}\" height=\"150\" role=\"img\" aria-label=\"mean {:.1}\">",
        used * WIDTH + 20,
        histogram.mean()
    );
    for (bin, &count) in histogram.bins.iter().take(used).enumerate() {
        let height = HEIGHT * count as f64 / most as f64;
        let (x, from) = (bin * WIDTH, bin as u64 * histogram.step);
        let _ = write!(
            text,
            "<rect x=\"{x}\" y=\"{:.1}\" width=\"{}\" height=\"{height:.1}\"><title>from {from}: \
             {count}</title></rect>",
            HEIGHT - height,
            WIDTH - 2
        );
        if bin % 4 == 0 {
            let _ = write!(text, "<text x=\"{x}\" y=\"138\">{from}</text>");
        }
    }
    text + "</svg>"
}

/// Text that stands in HTML, in an attribute or outside of one.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// RFC 4648, padded.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            out.push(if digit <= three.len() { DIGITS[value as usize] as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded_as_the_standard_says() {
        let coded = ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes()));
        assert_eq!(coded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
        assert_eq!(base64(&[0xff, 0xfe]), "//4=");
    }

    #[test]
    fn a_caption_cannot_write_html() {
        assert_eq!(escaped("<b a='\"'>&"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;");
    }
}
