//! New labels from the captions alone.
//!
//! In: a data set and a label rule. Out: the column set `synsets.RULE` beside those that are there,
//! in a new snapshot. Never: reads an image.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int32Array, ListArray, RecordBatch, StringArray};
use arrow_buffer::OffsetBuffer;
use catlip_schemas::{ColumnSet, Counts};
use rayon::prelude::*;

use super::add_set::{SetJob, SetSummary};
use super::columns::{build, element};
use super::file_check::check_bytes;
use super::plan::PrepPlan;
use super::snapshot::DataSet;
use crate::caption::LabelRule;
use crate::error::PrepError;
use crate::metrics::PrepMetrics;

/// Captions that one thread labels at a time.
const CAPTIONS_AT_ONCE: usize = 1024;

/// Labels the captions of every part that lacks this rule's labels.
///
/// # Errors
///
/// [`PrepError`]; parts that were finished stay and are not made again.
pub fn relabel(
    data: &DataSet,
    plan: &PrepPlan,
    metrics: &PrepMetrics,
    stop: &AtomicBool,
) -> Result<SetSummary, PrepError> {
    if plan.rule.file().is_some() {
        return Err(PrepError::NotFromCaptions { rule: plan.config.caption.rule.clone() });
    }
    let set = ColumnSet::Synsets(plan.rule.id().to_owned());
    let job = SetJob {
        name: set.name(),
        schema_id: set.schema_id(),
        schema: set.schema(),
        origin: serde_json::json!({ "rule": plan.rule.id() }),
        verb: "relabel",
        threads: plan.threads(),
        metrics,
        stop,
    };
    job.run(data, |part, writer| {
        let mut counts = Counts::default();
        let mut result = Ok(());
        // What is derived has checksums of its own: damage must not get them.
        check_bytes(&data.folder, data.file(part, &ColumnSet::Captions)?)?;
        data.read_column(part, &ColumnSet::Captions, "captions", |column| {
            if result.is_ok() {
                let (batch, added) = label_batch(&set, &*plan.rule, column, metrics);
                counts.merge(&added);
                result = metrics.write.measure(|| writer.write(&batch));
            }
        })?;
        result.map(|()| counts)
    })
}

/// The synsets of a batch of rows.
fn label_batch(
    set: &ColumnSet,
    rule: &dyn LabelRule,
    column: &ArrayRef,
    metrics: &PrepMetrics,
) -> (RecordBatch, Counts) {
    let rows = column.as_list::<i32>();
    let texts = rows.values().as_struct().column(0).as_string::<i32>();
    let offsets = rows.value_offsets();
    let (first, end) = (offsets[0] as usize, offsets[rows.len()] as usize);
    let ranges: Vec<Range<usize>> = (first..end)
        .step_by(CAPTIONS_AT_ONCE)
        .map(|start| start..end.min(start + CAPTIONS_AT_ONCE))
        .collect();
    let labelled: Vec<Labelled> = ranges
        .into_par_iter()
        .map(|range| metrics.label.measure(|| label_range(rule, texts, range)))
        .collect();
    let lengths = labelled.iter().flat_map(|l| l.lengths.iter().map(|&n| n as usize));
    let caption_offsets = OffsetBuffer::from_lengths(lengths);
    let values: Vec<i32> = labelled.iter().flat_map(|l| &l.offsets).copied().collect();
    let counts = Counts {
        rows: rows.len() as u64,
        captions: (end - first) as u64,
        synsets: values.len() as u64,
        ..Counts::default()
    };
    metrics.rows.add(counts.rows);
    metrics.samples.add(counts.rows);
    let outer = element(set);
    let arrow_schema::DataType::List(inner) = outer.data_type() else {
        panic!("synsets are lists of lists");
    };
    let values = Arc::new(Int32Array::from(values));
    let lists = ListArray::new(inner.clone(), caption_offsets, values, None);
    let row_offsets =
        OffsetBuffer::from_lengths(offsets.windows(2).map(|w| (w[1] - w[0]) as usize));
    let column = ListArray::new(outer, row_offsets, Arc::new(lists), None);
    (build(set, vec![Arc::new(column)]), counts)
}

/// Synsets of some captions, end to end.
struct Labelled {
    /// Synsets of each caption.
    lengths: Vec<u32>,
    /// Their WordNet offsets.
    offsets: Vec<i32>,
}

fn label_range(rule: &dyn LabelRule, texts: &StringArray, range: Range<usize>) -> Labelled {
    let mut labelled = Labelled { lengths: Vec::with_capacity(range.len()), offsets: Vec::new() };
    for index in range {
        let synsets = rule.synsets(texts.value(index));
        labelled.lengths.push(synsets.0.len() as u32);
        labelled.offsets.extend(synsets.0.iter().map(|id| id.0));
    }
    labelled
}
