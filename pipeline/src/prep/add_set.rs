//! A column set for the parts that lack it.
//!
//! In: a data set, the name and origin of the set, and how a part of it is made. Out: the snapshot
//! that has it. Resumable: each part has a receipt of its own. Started again after success it does
//! nothing; started again after an append it makes what the new parts lack. Never: reads or writes
//! another column set than it must.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow_schema::Schema;
use catlip_schemas::version::FORMAT_VERSION;
use catlip_schemas::{ColumnSetEntry, Counts, FileEntry, Manifest, PartName, Receipt};

use super::change::{Draft, commit};
use super::columns::ColumnWriter;
use super::file_check::same;
use super::folder::Folder;
use super::run::write_receipt;
use super::snapshot::{DataSet, Part};
use super::work::{Receipts, receipts_of};
use crate::error::PrepError;
use crate::metrics::PrepMetrics;

/// Parts in work beside the threads that compute, so that fsync holds nobody up.
const PARTS_AHEAD: usize = 2;

/// A column set to be made.
pub struct SetJob<'j> {
    /// Its name.
    pub name: String,
    /// Id of its schema.
    pub schema_id: &'static str,
    /// Its columns.
    pub schema: Arc<Schema>,
    /// What it is made from: the rule, or the table.
    pub origin: serde_json::Value,
    /// What the snapshot says of it, such as `relabel`.
    pub verb: &'static str,
    /// Threads that compute.
    pub threads: usize,
    /// Counters.
    pub metrics: &'j PrepMetrics,
    /// Set by a signal.
    pub stop: &'j AtomicBool,
}

/// What became of a column set.
#[derive(Clone, Debug, PartialEq)]
pub struct SetSummary {
    /// Number of the snapshot.
    pub snapshot: u64,
    /// The set.
    pub name: String,
    /// Parts made by this run.
    pub parts_made: u64,
    /// Parts of the snapshot that have it.
    pub parts_with: u64,
    /// All parts.
    pub parts: u64,
    /// Rows, captions and synsets of the parts made.
    pub counts: Counts,
}

impl SetJob<'_> {
    /// Hash of what decides the bytes; its first digits stand in the names of the files.
    fn config_hash(&self, data: &DataSet) -> String {
        let identity = serde_json::json!({
            "set": self.name,
            "schema": self.schema_id,
            "origin": self.origin,
            "of": data.manifest.config_hash,
        });
        blake3::hash(identity.to_string().as_bytes()).to_hex().to_string()
    }

    /// The parts of `data` that lack the set.
    pub fn missing<'d>(&self, data: &'d DataSet) -> Vec<&'d Part> {
        data.parts.iter().filter(|part| !part.files.contains_key(&self.name)).collect()
    }

    /// Makes the set for every part that lacks it, by `make`, and commits it.
    ///
    /// # Errors
    ///
    /// Those of `make`; [`PrepError::Io`], [`PrepError::DiskFull`], [`PrepError::Interrupted`].
    pub fn run(
        &self,
        data: &DataSet,
        make: impl Fn(&Part, &mut ColumnWriter) -> Result<Counts, PrepError> + Sync,
    ) -> Result<SetSummary, PrepError> {
        let folder = &data.folder;
        let hash = self.config_hash(data);
        let present = Receipts::list(folder)?;
        let missing = self.missing(data);
        let parts = missing.len() as u64;
        let (done, todo): (Vec<&Part>, Vec<&Part>) =
            missing.into_iter().partition(|part| present.has(part.name, &hash[..8]));
        self.metrics.parts.add(done.len() as u64);
        let made = self.make_parts(folder, &hash, &todo, &make)?;
        if self.stop.load(Ordering::Relaxed) {
            return Err(PrepError::Interrupted { done: self.metrics.parts.get(), parts });
        }
        let mut receipts = made;
        receipts.extend(receipts_of(folder, &hash[..8], done.iter().map(|part| part.name))?);
        let mut counts = Counts::default();
        receipts.values().for_each(|receipt| counts.merge(&receipt.counts));
        let manifest = self.commit(data, &receipts)?;
        let entry = manifest.column_sets.iter().find(|entry| entry.name == self.name);
        let all = manifest.parts.parts;
        Ok(SetSummary {
            snapshot: manifest.snapshot,
            name: self.name.clone(),
            parts_made: todo.len() as u64,
            parts_with: entry.map_or(0, |entry| entry.parts.unwrap_or(all)),
            parts: all,
            counts,
        })
    }

    fn make_parts(
        &self,
        folder: &Folder,
        hash: &str,
        todo: &[&Part],
        make: &(impl Fn(&Part, &mut ColumnWriter) -> Result<Counts, PrepError> + Sync),
    ) -> Result<BTreeMap<PartName, Receipt>, PrepError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads)
            .thread_name(|i| format!("set-{i}"))
            .build()
            .map_err(|e| {
                PrepError::io("start threads for", &folder.place(), std::io::Error::other(e))
            })?;
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let outcome: Mutex<Result<BTreeMap<PartName, Receipt>, PrepError>> =
            Mutex::new(Ok(BTreeMap::new()));
        let work = || {
            while !failed.load(Ordering::Relaxed) && !self.stop.load(Ordering::Relaxed) {
                let Some(part) = todo.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                let made = pool.install(|| self.make_part(folder, hash, part, make));
                let mut outcome = outcome.lock().unwrap_or_else(|e| e.into_inner());
                match (made, &mut *outcome) {
                    (Ok(receipt), Ok(all)) => {
                        self.metrics.parts.add(1);
                        all.insert(part.name, receipt);
                    }
                    (Err(error), Ok(_)) => {
                        failed.store(true, Ordering::Relaxed);
                        *outcome = Err(error);
                    }
                    (_, Err(_)) => {}
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..(self.threads + PARTS_AHEAD).min(todo.len()) {
                scope.spawn(work);
            }
        });
        outcome.into_inner().unwrap_or_else(|e| e.into_inner())
    }

    fn make_part(
        &self,
        folder: &Folder,
        hash: &str,
        part: &Part,
        make: &impl Fn(&Part, &mut ColumnWriter) -> Result<Counts, PrepError>,
    ) -> Result<Receipt, PrepError> {
        let file = format!("{}/part-{}-{}.parquet", self.name, part.name, &hash[..8]);
        let mut writer = ColumnWriter::create_small(folder, &self.name, file, self.schema.clone())?;
        let counts = make(part, &mut writer)?;
        let entry = self.metrics.write.measure(|| writer.finish())?;
        same(&folder.path(&entry.file), "number of rows", entry.rows, part.rows())?;
        let receipt = Receipt {
            format_version: FORMAT_VERSION,
            part: part.name.to_string(),
            config_hash: hash.to_owned(),
            source: part.source.clone(),
            counts,
            files: vec![entry],
        };
        write_receipt(folder, &hash[..8], part.name, &receipt)?;
        Ok(receipt)
    }

    fn commit(
        &self,
        data: &DataSet,
        receipts: &BTreeMap<PartName, Receipt>,
    ) -> Result<Manifest, PrepError> {
        let made_from: BTreeMap<PartName, Option<&FileEntry>> =
            data.parts.iter().map(|part| (part.name, part.files.get("meta"))).collect();
        commit(&data.folder, |old| {
            let old = old.unwrap_or(data);
            let mut draft = Draft::of(old);
            let mut count = 0;
            for part in &mut draft.parts {
                // A part that was made again meanwhile has other rows under the same number.
                let is_same = made_from.get(&part.name) == Some(&part.files.get("meta"));
                let receipt = receipts.get(&part.name).filter(|_| is_same);
                let Some(file) = receipt.and_then(|receipt| receipt.files.first()) else {
                    continue;
                };
                if !part.files.contains_key(&self.name) {
                    part.files.insert(self.name.clone(), file.clone());
                    count += 1;
                }
            }
            if count > 0 {
                draft.add_set(ColumnSetEntry {
                    name: self.name.clone(),
                    schema_id: self.schema_id.to_owned(),
                    rows_per_group: None,
                    bytes: 0,
                    parts: None,
                    origin: Some(self.origin.clone()),
                });
                draft.change = format!("{}: {} for {count} parts", self.verb, self.name);
            }
            Ok(draft)
        })
    }
}
