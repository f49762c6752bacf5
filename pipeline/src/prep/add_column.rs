//! Values that somebody computed elsewhere, joined to a data set: scores, recaptions, flags.
//!
//! In: a data set and a [`Table`] of sample ids or keys. Out: the column set `added.NAME`, whose
//! rows are those of the data set; rows without a value are null. Never: changes a value.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use arrow_array::{RecordBatch, UInt32Array};
use catlip_schemas::Counts;
use catlip_schemas::columns::ADDED_PREFIX;
use rayon::prelude::*;

use super::add_set::{SetJob, SetSummary};
use super::error::ChangeError;
use super::snapshot::{DataSet, Part};
use super::table::{Keys, Table};
use crate::error::PrepError;
use crate::metrics::PrepMetrics;

/// Limit of a name: it becomes a folder.
const NAME_BYTES_MAX: usize = 64;

/// Unknown keys that an error shows.
const UNKNOWN_SHOWN: usize = 20;

/// What is joined, and how.
pub struct JoinRequest<'r> {
    /// Name of the column set, without its prefix.
    pub name: &'r str,
    /// The table, as the errors name it.
    pub path: &'r Path,
    /// The table.
    pub table: &'r Table,
    /// Pass over keys that no row has.
    pub allow_unknown: bool,
    /// Threads that read and write.
    pub threads: usize,
}

/// What was joined.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinSummary {
    /// The column set.
    pub set: SetSummary,
    /// Rows of the data set with a value.
    pub matched: u64,
    /// Rows without.
    pub unmatched: u64,
    /// Keys of the table that no row has.
    pub unknown: u64,
}

/// Joins a table as a new column set.
///
/// # Errors
///
/// [`ChangeError::UnknownKeys`], [`ChangeError::Table`] for a key that several rows have or a wrong
/// name, [`ChangeError::Exists`]; [`PrepError`].
pub fn add_column(
    data: &DataSet,
    request: &JoinRequest<'_>,
    metrics: &PrepMetrics,
    stop: &AtomicBool,
) -> Result<JoinSummary, PrepError> {
    check_name(request)?;
    let table = request.table;
    let set = format!("{ADDED_PREFIX}{}", request.name);
    let schema = table.values.schema();
    let columns: Vec<_> =
        schema.fields().iter().map(|f| format!("{}: {}", f.name(), f.data_type())).collect();
    let origin = serde_json::json!({ "columns": columns, "table": table.hash });
    let known = data.manifest.column_sets.iter().find(|entry| entry.name == set);
    if let Some(entry) = known
        && (entry.parts.is_none() && entry.origin.as_ref() != Some(&origin)
            || entry.origin.as_ref().map(|o| &o["columns"]) != Some(&origin["columns"]))
    {
        let message = format!("has a column set {set} already, from another table");
        return Err(ChangeError::Exists { path: data.folder.place(), message }.into());
    }
    let found = count_matches(data, request)?;
    let job = SetJob {
        name: set,
        schema_id: "added-1",
        schema,
        origin,
        verb: "add-column",
        threads: request.threads,
        metrics,
        stop,
    };
    let set = job.run(data, |part, writer| {
        let rows = matches_of(data, part, &table.keys)?;
        let wrong =
            |e: arrow_schema::ArrowError| PrepError::parquet("join", request.path, &e.into());
        let indices = UInt32Array::from(rows);
        let columns = table.values.columns().iter();
        let columns = columns
            .map(|column| arrow_select::take::take(column, &indices, None))
            .collect::<Result<_, _>>()
            .map_err(wrong)?;
        let batch = RecordBatch::try_new(table.values.schema(), columns).map_err(wrong)?;
        metrics.rows.add(batch.num_rows() as u64);
        writer.write(&batch)?;
        Ok(Counts { rows: batch.num_rows() as u64, ..Counts::default() })
    })?;
    let rows: u64 = data.parts.iter().map(Part::rows).sum();
    Ok(JoinSummary {
        set,
        matched: found.matched,
        unmatched: rows - found.matched,
        unknown: found.unknown,
    })
}

fn check_name(request: &JoinRequest<'_>) -> Result<(), PrepError> {
    let name = request.name;
    let is_good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_good) {
        return Ok(());
    }
    let message = format!(
        "`{name}` is no name of a column set: expected 1 to {NAME_BYTES_MAX} of a-z, 0-9, - and _"
    );
    Err(ChangeError::Table { path: request.path.into(), message }.into())
}

/// For each row of a part its row in the table.
fn matches_of(data: &DataSet, part: &Part, keys: &Keys) -> Result<Vec<Option<u32>>, PrepError> {
    Ok(match keys {
        Keys::Ids(ids) => {
            data.read_sample_ids(part)?.iter().map(|id| ids.get(id).copied()).collect()
        }
        Keys::Names(names) => {
            data.read_keys(part)?.iter().map(|key| names.get(key).copied()).collect()
        }
    })
}

struct Matches {
    matched: u64,
    unknown: u64,
}

/// Reads the keys of the data set once before anything is written.
fn count_matches(data: &DataSet, request: &JoinRequest<'_>) -> Result<Matches, PrepError> {
    let keys = &request.table.keys;
    let all: Vec<Vec<u32>> = data
        .parts
        .par_iter()
        .map(|part| Ok(matches_of(data, part, keys)?.into_iter().flatten().collect()))
        .collect::<Result<_, PrepError>>()?;
    let columns = request.table.values.columns();
    let mut used = HashSet::new();
    let mut matched = 0;
    for row in all.into_iter().flatten() {
        matched += u64::from(columns.iter().any(|column| column.is_valid(row as usize)));
        if !used.insert(row) {
            let message = format!(
                "the key of {} stands for several rows of the data set: add a column source_shard, \
                 or use sample_id",
                request.table.place(row as usize)
            );
            return Err(ChangeError::Table { path: request.path.into(), message }.into());
        }
    }
    let unknown = (keys.len() - used.len()) as u64;
    if unknown > 0 && !request.allow_unknown {
        let mut names: Vec<String> = match keys {
            Keys::Ids(ids) => ids
                .iter()
                .filter(|(_, row)| !used.contains(row))
                .map(|(k, _)| k.to_string())
                .collect(),
            Keys::Names(names) => names
                .iter()
                .filter(|(_, row)| !used.contains(row))
                .map(|(k, _)| k.clone())
                .collect(),
        };
        names.sort();
        names.truncate(UNKNOWN_SHOWN);
        return Err(ChangeError::UnknownKeys {
            path: request.path.into(),
            count: unknown,
            rows: keys.len() as u64,
            keys: names,
        }
        .into());
    }
    Ok(Matches { matched, unknown })
}
