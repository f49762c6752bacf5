//! `report.html`: what a run came to, in one file without links.
//!
//! In: the plan, the log, the last evaluation, the times of the stages. Out: the text of the page.
//! Never: reads or writes a file; loads anything from elsewhere; names the machine.

pub mod chart;
pub mod picture;

use std::fmt::Write;

use catlip_pipeline::feed::BatchSampler;
use catlip_schemas::{LabelId, Vocab};

use crate::eval::{EvalSummary, Evaluation, ShownRow, SynsetScore};
use crate::plan::TrainPlan;
use crate::run_folder::LogLine;
use chart::{Chart, Series};

const STYLE: &str = include_str!("style.css");

/// Steps over which the loss curve is smoothed, as a share of the curve: 1 of 20 points.
const SMOOTHED_SHARE: usize = 20;

/// Time and images of one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageTime {
    /// Its name.
    pub name: String,
    /// Images that went through it.
    pub images: u64,
    /// Seconds in it, summed over its threads.
    pub busy_secs: f64,
    /// Its threads.
    pub num_threads: usize,
}

/// The page of a run.
pub fn html(
    plan: &TrainPlan,
    num_params: i64,
    lines: &[LogLine],
    evaluation: Option<&Evaluation>,
    stages: &[StageTime],
) -> String {
    let name = plan.run.path().file_name().map_or_else(String::new, |n| n.to_string_lossy().into());
    let name = escaped(&name);
    let sections = [
        heading(plan, &name, num_params),
        evaluation.map_or_else(String::new, |e| cards(&e.report.summary)),
        curves(lines),
        evaluation.map_or_else(String::new, |e| images(e, &plan.vocab)),
        evaluation.map_or_else(String::new, |e| synsets(&e.report.synsets)),
        stage_table(stages),
        settings(plan),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name} · catlip</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}\
         </main>\n</body>\n</html>\n",
        sections.concat()
    )
}

fn heading(plan: &TrainPlan, name: &str, num_params: i64) -> String {
    let vit = &plan.vit;
    let facts = [
        format!("ViT {} × {} blocks, {} heads", vit.width, vit.depth, vit.num_heads),
        format!("{:.1} M parameters", num_params as f64 / 1e6),
        format!("a token each {} px", vit.patch_px),
        format!("{} synsets", grouped(plan.vocab.len() as u64)),
        format!("{} training images", grouped(plan.priors.rows)),
        format!(
            "{} steps of {}",
            grouped(plan.schedule.steps),
            step_sizes(&plan.feed.stream.sampler)
        ),
    ];
    let facts: String = facts.iter().map(|fact| format!("<span>{fact}</span>")).collect();
    format!("<header>\n<h1>{name}</h1>\n<p class=\"facts\">{facts}</p>\n</header>\n")
}

fn cards(summary: &EvalSummary) -> String {
    let mut out = String::from("<section class=\"cards\">\n");
    let mut card = |value: String, name: &str, beside: String| {
        _ = writeln!(
            out,
            "<div class=\"card\"><div class=\"value\">{value}</div>\
             <div class=\"name\">{name}</div><div class=\"beside\">{beside}</div></div>"
        );
    };
    if let (Some(map), Some(baseline)) = (summary.map, summary.map_baseline) {
        let beside = format!("label frequencies alone: {baseline:.3}, × {:.1}", map / baseline);
        card(format!("{map:.3}"), "held-out mAP", beside);
    }
    card(
        format!("{:.1} %", summary.bce_improvement_percent),
        "lower cross-entropy",
        format!("{:.3} instead of {:.3}", summary.bce, summary.bce_baseline),
    );
    if let Some(recall) = summary.recall.get(summary.recall.len() / 2) {
        let beside = format!("the most frequent {}: {:.3}", recall.at, recall.baseline);
        card(format!("{:.3}", recall.model), &format!("recall at {}", recall.at), beside);
    }
    let beside = format!("{} of {} synsets scored", summary.labels_scored, summary.labels);
    card(grouped(summary.rows), "held-out images", beside);
    out.push_str("</section>\n");
    out
}

fn curves(lines: &[LogLine]) -> String {
    let (mut loss, mut rate, mut map, mut baseline) = (vec![], vec![], vec![], vec![]);
    for line in lines {
        match line {
            LogLine::Step(line) => {
                loss.push((line.step as f64, line.loss));
                rate.push((line.step as f64, line.images_per_sec));
            }
            LogLine::Eval(line) => {
                map.extend(line.summary.map.map(|value| (line.step as f64, value)));
                baseline.extend(line.summary.map_baseline.map(|value| (line.step as f64, value)));
            }
            LogLine::Skipped(_) | LogLine::Rollback(_) => {}
        }
    }
    let steps = loss.last().map_or(1.0, |last| last.0);
    let level = baseline.last().map(|last| last.1);
    let level = level.map_or_else(Vec::new, |level| vec![(0.0, level), (steps, level)]);
    let smoothed = smoothed(&loss, loss.len() / SMOOTHED_SHARE);
    let charts = [
        Chart {
            title: "Training loss",
            x_label: "step",
            series: vec![
                Series { name: "each logged batch", style: "faint", points: loss },
                Series { name: "smoothed", style: "first", points: smoothed },
            ],
            from_zero: false,
        },
        Chart {
            title: "Held-out mAP",
            x_label: "step",
            series: vec![
                Series { name: "label frequencies alone", style: "dashed", points: level },
                Series { name: "model", style: "second", points: map },
            ],
            from_zero: true,
        },
        Chart {
            title: "Images a second",
            x_label: "step",
            series: vec![Series { name: "training", style: "third", points: rate }],
            from_zero: true,
        },
    ];
    let charts: String = charts.iter().filter(|c| c.has_points()).map(Chart::svg).collect();
    format!("<section>\n<h2>Curves</h2>\n<div class=\"charts\">\n{charts}</div>\n</section>\n")
}

/// An exponential average that forgets after about `points` points; starts without bias.
fn smoothed(curve: &[(f64, f64)], points: usize) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / points.max(1) as f64;
    let (mut sum, mut weight) = (0.0, 0.0);
    let smooth = |&(x, y): &(f64, f64)| {
        sum = keep * sum + y;
        weight = keep * weight + 1.0;
        (x, sum / weight)
    };
    curve.iter().map(smooth).collect()
}

fn images(evaluation: &Evaluation, vocab: &Vocab) -> String {
    let figures: String = evaluation.shown.iter().map(|row| figure(row, vocab)).collect();
    format!(
        "<section>\n<h2>Held-out images</h2>\n<p class=\"legend\">The highest synsets of each: \
         <span class=\"chip hit\">in its captions</span> <span class=\"chip\">not in them</span> \
         and what was <span class=\"chip missed\">missed</span>.</p>\n\
         <div class=\"grid\">\n{figures}</div>\n</section>\n"
    )
}

fn figure(row: &ShownRow, vocab: &Vocab) -> String {
    let lemma = |label: LabelId| escaped(&vocab.rows()[label as usize].lemma.replace('_', " "));
    let mut out = String::from("<figure>\n");
    if let Some(source) = picture::data_url(row.side_px, &row.pixels) {
        _ = writeln!(out, "<img src=\"{source}\" alt=\"held-out image\" loading=\"lazy\">");
    }
    out.push_str("<figcaption>\n");
    if let Some(caption) = &row.caption {
        _ = writeln!(out, "<p class=\"caption\">{}</p>", escaped(caption));
    }
    for &(label, probability) in &row.predicted {
        let hit = if row.labels.contains(&label) { " hit" } else { "" };
        let percent = 100.0 * probability;
        _ = writeln!(
            out,
            "<div class=\"guess{hit}\"><i style=\"width:{percent:.0}%\"></i>\
             <b>{}</b><span>{percent:.0} %</span></div>",
            lemma(label)
        );
    }
    let is_missed = |label: &&LabelId| row.predicted.iter().all(|(guess, _)| guess != *label);
    let missed: String = row
        .labels
        .iter()
        .filter(is_missed)
        .map(|&label| format!("<span class=\"chip missed\">{}</span>", lemma(label)))
        .collect();
    _ = writeln!(out, "<p>{missed}</p>\n</figcaption>\n</figure>");
    out
}

fn synsets(scores: &[SynsetScore]) -> String {
    if scores.is_empty() {
        return String::new();
    }
    let rows: String = scores
        .iter()
        .map(|score| {
            format!(
                "<tr><td>{}</td><td class=\"id\">{}</td><td>{}</td><td>{:.2} %</td>\
                 <td class=\"bar\"><i style=\"width:{:.1}%\"></i><span>{:.3}</span></td></tr>\n",
                escaped(&score.lemma.replace('_', " ")),
                score.wnid,
                grouped(score.positives as u64),
                100.0 * score.training_share,
                100.0 * score.average_precision,
                score.average_precision,
            )
        })
        .collect();
    format!(
        "<section>\n<h2>Synsets</h2>\n<div class=\"scroll\">\n<table>\n<thead><tr><th>lemma</th>\
         <th>synset</th><th>held-out positives</th><th>share in training</th>\
         <th>average precision</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n\
         </section>\n"
    )
}

/// The sizes of a run's steps, in words.
pub fn step_sizes(sampler: &BatchSampler) -> String {
    match sampler.sizes() {
        [only] => format!("{} images at {} px", only.batch, only.side_px),
        [first, .., last] => format!(
            "{} images on average, from {} at {} px to {} at {} px",
            sampler.mean_batch().round(),
            first.batch,
            first.side_px,
            last.batch,
            last.side_px
        ),
        [] => "no images".to_owned(),
    }
}

fn stage_table(stages: &[StageTime]) -> String {
    let rows: String = stages
        .iter()
        .filter(|stage| stage.busy_secs > 0.0)
        .map(|stage| {
            let rate = match stage.images {
                0 => "–".to_owned(),
                images => {
                    let per_thread = images as f64 / stage.busy_secs;
                    grouped((per_thread * stage.num_threads as f64).round() as u64)
                }
            };
            format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.1}</td><td>{rate}</td></tr>\n",
                escaped(&stage.name),
                grouped(stage.images),
                stage.num_threads,
                stage.busy_secs,
            )
        })
        .collect();
    format!(
        "<section>\n<h2>Stages</h2>\n<div class=\"scroll\">\n<table>\n<thead><tr><th>stage</th>\
         <th>images</th><th>threads</th><th>busy seconds, all threads</th>\
         <th>images a second at most</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n\
         </section>\n"
    )
}

fn settings(plan: &TrainPlan) -> String {
    format!(
        "<section>\n<h2>Settings</h2>\n<details>\n<summary>every key of this run</summary>\n\
         <pre>{}</pre>\n</details>\n</section>\n",
        escaped(&plan.config.to_toml())
    )
}

/// 1234567 as `1 234 567`, with spaces that do not break.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use catlip_schemas::{Frequency, SynsetId, VocabRow};

    fn vocab() -> Vocab {
        let row = |synset, lemma: &str| VocabRow {
            synset: SynsetId(synset),
            lemma: lemma.to_owned(),
            frequency: Frequency::default(),
        };
        Vocab::new(vec![row(1, "dog"), row(2, "ice_cream"), row(3, "car")]).unwrap()
    }

    #[test]
    fn a_caption_cannot_write_html() {
        let row = ShownRow {
            side_px: 1,
            pixels: vec![255, 0, 0],
            caption: Some("<script>a & b</script>".to_owned()),
            labels: vec![0, 2],
            predicted: vec![(0, 0.91), (1, 0.2)],
        };
        let text = figure(&row, &vocab());
        assert!(text.contains("&lt;script&gt;a &amp; b&lt;/script&gt;"), "{text}");
        assert!(text.contains("src=\"data:image/jpeg;base64,"), "{text}");
    }

    #[test]
    fn hits_guesses_and_misses_are_told_apart() {
        let row = ShownRow {
            side_px: 1,
            pixels: vec![0; 3],
            caption: None,
            labels: vec![0, 2],
            predicted: vec![(0, 0.91), (1, 0.2)],
        };
        let text = figure(&row, &vocab());
        assert!(text.contains("<div class=\"guess hit\"><i style=\"width:91%\"></i><b>dog</b>"));
        assert!(text.contains("<div class=\"guess\"><i style=\"width:20%\"></i><b>ice cream</b>"));
        assert!(text.contains("<span class=\"chip missed\">car</span>"), "{text}");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let plain = |number| grouped(number).replace('\u{202f}', "_");
        assert_eq!([plain(7), plain(1234), plain(1_234_567)], ["7", "1_234", "1_234_567"]);
    }

    #[test]
    fn a_smoothed_constant_is_that_constant() {
        let curve: Vec<_> = (0..9).map(|x| (f64::from(x), 3.0)).collect();
        assert!(smoothed(&curve, 4).iter().all(|point| (point.1 - 3.0).abs() < 1e-12));
    }
}
