//! What a run puts into the next snapshot.
//!
//! In: the parts that are wanted, by number, and their receipts. Out: a snapshot that has them
//! beside what it had; parts of shards that changed give way to the new ones, and after a change of
//! the config all do. Rows that were left out stay left out, wherever they come to stand.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use catlip_schemas::columns::receipt_file;
use catlip_schemas::{ColumnSetEntry, Counts, Manifest, PartName, Receipt, SourceUse};

use super::change::{Draft, commit};
use super::error::{ChangeError, LINES_SHOWN};
use super::folder::Folder;
use super::numbers::Numbers;
use super::plan::PrepPlan;
use super::rejects::{CAPTION_MISSING, SHARD_DAMAGE, read_ledger};
use super::snapshot::{DataSet, Part};
use super::tombstones::Tombstones;
use super::work::{check_same_config, receipts_of};
use crate::error::PrepError;

/// What a run wants to be in the next snapshot.
pub struct RunCommit<'r> {
    /// Hash of its config.
    pub config_hash: &'r str,
    /// Its config.
    pub config: &'r serde_json::Value,
    /// The column sets of its parts.
    pub column_sets: &'r [ColumnSetEntry],
    /// The plan, where a run may replace the parts of another config.
    pub may_redo: Option<&'r PrepPlan>,
    /// `budget.damaged_shards`.
    pub damaged_shards: u64,
    /// Every number that was given.
    pub numbers: &'r Numbers,
    /// The parts that are to be there.
    pub wanted: Vec<PartName>,
}

impl RunCommit<'_> {
    /// Commits them.
    ///
    /// # Errors
    ///
    /// [`PrepError::DamagedShards`], [`PrepError::NoCaptions`], [`ChangeError`],
    /// [`PrepError::Io`].
    pub fn commit(&self, output: &Folder) -> Result<Manifest, PrepError> {
        let receipts = std::cell::RefCell::new(BTreeMap::new());
        commit(output, |old| {
            let mut receipts = receipts.borrow_mut();
            self.draft(output, old, &mut receipts)
        })
    }

    fn draft(
        &self,
        output: &Folder,
        old: Option<&DataSet>,
        receipts: &mut BTreeMap<PartName, Receipt>,
    ) -> Result<Draft, PrepError> {
        let same = old.filter(|data| data.manifest.config_hash == self.config_hash);
        if let (Some(data), None) = (old, same) {
            self.check_redo(output, data)?;
        }
        let mut draft = same.map_or_else(|| self.first_draft(), Draft::of);
        let there: HashSet<PartName> = draft.parts.iter().map(|part| part.name).collect();
        let added: Vec<PartName> =
            self.wanted.iter().copied().filter(|part| !there.contains(part)).collect();
        let unread = added.iter().copied().filter(|part| !receipts.contains_key(part));
        let read = receipts_of(output, self.tag(), unread.collect::<Vec<_>>())?;
        receipts.extend(read);
        let new: Vec<&Receipt> = added.iter().filter_map(|part| receipts.get(part)).collect();
        check_damage(output, &new, self.damaged_shards)?;
        let replaced = self.replaced(&draft.parts);
        for receipt in receipts_of(output, self.tag(), replaced.iter().copied())?.values() {
            draft.totals.subtract(&receipt.counts);
        }
        draft.parts.retain(|part| !replaced.contains(&part.name));
        for receipt in new {
            draft.totals.merge(&receipt.counts);
            let part = Part::from_receipt(receipt).map_err(|source| PrepError::Schema {
                path: output.path(&receipt_file(PartName { shard: 0, cut: 0 }, self.tag())),
                source,
            })?;
            draft.parts.push(part);
        }
        let replaces = if same.is_some() { replaced.len() } else { there_were(old) };
        draft.change = match replaces {
            0 => format!("run: {} parts appended", added.len()),
            count => format!("run: {} parts made, {count} replaced", added.len()),
        };
        self.check_captions(output, &draft)?;
        if let Some(old) = old {
            carry_tombstones(old, &mut draft)?;
        }
        Ok(draft)
    }

    fn tag(&self) -> &str {
        &self.config_hash[..8]
    }

    /// Refuses a data set without a row, if that is because captions were looked for in the wrong
    /// place: committed, it would stand in the way of the right one.
    fn check_captions(&self, output: &Folder, draft: &Draft) -> Result<(), PrepError> {
        let Counts { rows, samples, rejects, .. } = &draft.totals;
        let missing = rejects.get(CAPTION_MISSING).copied().unwrap_or(0);
        if *rows > 0 || missing == 0 || missing * 2 < *samples {
            return Ok(());
        }
        let mut first = String::new();
        for part in &draft.parts {
            let Some(file) = part.files.get("rejects") else { continue };
            let ledger = read_ledger(output, &file.file)?;
            if let Some(reject) = ledger.iter().find(|reject| reject.reason == CAPTION_MISSING) {
                first = format!("{}, key {}: {}", reject.shard, reject.key, reject.message);
                break;
            }
        }
        let (missing, samples) = (missing, *samples);
        let sources = self.config["caption"]["sources"].to_string();
        Err(PrepError::NoCaptions { missing, samples, sources, first })
    }

    fn first_draft(&self) -> Draft {
        Draft {
            config_hash: self.config_hash.to_owned(),
            config: self.config.clone(),
            totals: Counts::default(),
            column_sets: self.column_sets.to_vec(),
            parts: Vec::new(),
            dropped: Tombstones::default(),
            change: String::new(),
        }
    }

    /// Parts of shards of the list that have a newer part now.
    fn replaced(&self, parts: &[Part]) -> BTreeSet<PartName> {
        let wanted: BTreeSet<PartName> = self.wanted.iter().copied().collect();
        let there: BTreeSet<PartName> = parts.iter().map(|part| part.name).collect();
        let has_newer = |part: &&Part| {
            let source = self.numbers.source(part.name);
            let mut all = self.numbers.parts_of(&part.source.shard);
            match source.is_none_or(|source| source.samples == SourceUse::Whole) {
                true => !wanted.contains(&part.name) && all.any(|newer| wanted.contains(&newer)),
                // Samples that were tried again go with the part that they were missing in.
                false => all.any(|newer| wanted.contains(&newer) && !there.contains(&newer)),
            }
        };
        parts.iter().filter(has_newer).map(|part| part.name).collect()
    }

    /// Another config may replace a snapshot only if it was asked to and covers every part.
    fn check_redo(&self, output: &Folder, old: &DataSet) -> Result<(), PrepError> {
        let Some(plan) = self.may_redo else {
            return Err(PrepError::OutputTaken {
                path: output.place(),
                message: format!(
                    "was committed under another config meanwhile ({})",
                    &old.manifest.config_hash[..8]
                ),
            });
        };
        let manifest = &old.manifest;
        check_same_config(output, plan, "was", &manifest.config_hash, &manifest.config)?;
        let wanted: HashSet<&str> = self
            .wanted
            .iter()
            .filter_map(|&part| self.numbers.source(part))
            .map(|source| source.shard.as_str())
            .collect();
        let mut shards: Vec<String> =
            old.parts.iter().map(|part| part.source.shard.clone()).collect();
        shards.retain(|shard| !wanted.contains(shard.as_str()));
        match shards.is_empty() {
            true => Ok(()),
            false => Err(ChangeError::ShardsNotNamed { shards }.into()),
        }
    }
}

fn there_were(old: Option<&DataSet>) -> usize {
    old.map_or(0, |data| data.parts.len())
}

/// Rows that were left out stay so in the parts that replace theirs: found by their ids.
fn carry_tombstones(old: &DataSet, draft: &mut Draft) -> Result<(), PrepError> {
    if old.dropped.is_empty() {
        return Ok(());
    }
    draft.dropped = old.dropped.clone();
    let file_of = |part: &Part| part.files.get("meta").map(|file| file.file.clone());
    let kept: HashSet<_> = draft.parts.iter().map(|part| (part.name, file_of(part))).collect();
    let mut gone = HashSet::new();
    for part in old.parts.iter().filter(|part| !kept.contains(&(part.name, file_of(part)))) {
        if old.dropped.in_part(part.name) > 0 {
            let ids = old.read_sample_ids(part)?.into_iter().zip(0..);
            gone.extend(ids.filter(|&(_, row)| old.dropped.is_dropped(part.name, row)));
        }
        draft.dropped.forget(part.name);
    }
    let gone: HashSet<_> = gone.into_iter().map(|(id, _)| id).collect();
    let before: HashSet<_> = old.parts.iter().map(|part| (part.name, file_of(part))).collect();
    for part in &draft.parts {
        if gone.is_empty() || before.contains(&(part.name, file_of(part))) {
            continue;
        }
        for (id, row) in old.read_sample_ids(part)?.into_iter().zip(0..) {
            if gone.contains(&id) {
                draft.dropped.drop_row(part.name, part.rows(), row);
            }
        }
    }
    Ok(())
}

/// Refuses if more shards are damaged than the budget allows; says of those that are shown where
/// they end and what is there.
fn check_damage(output: &Folder, receipts: &[&Receipt], budget: u64) -> Result<(), PrepError> {
    let is_damaged = |receipt: &&&Receipt| {
        SHARD_DAMAGE.iter().any(|&reason| receipt.counts.rejects.contains_key(reason))
    };
    let damaged: Vec<_> = receipts.iter().filter(is_damaged).collect();
    if damaged.len() as u64 <= budget {
        return Ok(());
    }
    let mut shards = Vec::new();
    for (at, receipt) in damaged.into_iter().enumerate() {
        let mut line = receipt.source.shard.clone();
        let ledger = receipt.files.iter().find(|file| file.column_set == "rejects");
        if let Some(file) = ledger.filter(|_| at < LINES_SHOWN) {
            let mut rejects = read_ledger(output, &file.file)?;
            rejects.retain(|reject| SHARD_DAMAGE.contains(&reject.reason.as_str()));
            rejects.iter().for_each(|reject| line.push_str(&format!(": {}", reject.message)));
        }
        shards.push(line);
    }
    Err(PrepError::DamagedShards { shards, budget })
}
