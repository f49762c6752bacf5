//! Which rows of a data set are on offer.
//!
//! In: a data set and a test on sample ids. Out: for each row group the rows that pass. A hold-out
//! is such a test; so is a list of rows to leave out.

use catlip_schemas::SampleId;
use rayon::prelude::*;

use super::order::GroupRows;
use super::source::rows_of_groups;
use crate::error::PrepError;
use crate::prep::DataSet;

/// Rows on offer, by row group in the order of parts.
#[derive(Clone, Debug)]
pub struct Selection {
    groups: Vec<GroupRows>,
    /// For each group the numbers of its rows on offer in the part; `None` if all are.
    rows: Vec<Option<Vec<u32>>>,
    /// For each group the number in the part of its first row.
    first_rows: Vec<u32>,
}

impl Selection {
    /// All rows of `groups`, which stand in the order of parts: an order without a data set.
    pub fn of_groups(groups: Vec<GroupRows>) -> Self {
        let mut first_rows = Vec::with_capacity(groups.len());
        let (mut part, mut first) = (None, 0);
        for group in &groups {
            if part != Some(group.part) {
                (part, first) = (Some(group.part), 0);
            }
            first_rows.push(first);
            first += group.rows;
        }
        Self { rows: vec![None; groups.len()], groups, first_rows }
    }

    /// All rows but those that the snapshot leaves out: they have no position in the order.
    pub fn all(data: &DataSet) -> Self {
        let mut selection = Self::every(data);
        if !data.dropped.is_empty() {
            selection.keep(|part, row| !data.dropped.is_dropped(data.parts[part].name, row));
        }
        selection
    }

    fn every(data: &DataSet) -> Self {
        let parts = (0..).zip(&data.parts).flat_map(|(part, entry)| {
            let groups = (0..).zip(rows_of_groups(data, entry));
            groups.map(move |(group, rows)| GroupRows { part, group, rows })
        });
        Self::of_groups(parts.collect())
    }

    /// The rows whose sample id passes `keep`, but those that the snapshot leaves out.
    ///
    /// # Errors
    ///
    /// [`PrepError`] when the ids of a part cannot be read.
    pub fn by_id(
        data: &DataSet,
        keep: impl Fn(&SampleId) -> bool + Sync,
    ) -> Result<Self, PrepError> {
        let ids = data.parts.par_iter().map(|part| data.read_sample_ids(part));
        let kept: Vec<Vec<bool>> = ids
            .map(|ids| Ok(ids?.iter().map(&keep).collect()))
            .collect::<Result<_, PrepError>>()?;
        let mut selection = Self::every(data);
        selection.keep(|part, row| {
            kept[part].get(row as usize) == Some(&true)
                && !data.dropped.is_dropped(data.parts[part].name, row)
        });
        Ok(selection)
    }

    /// The rows of several data sets one behind the other, their parts numbered on.
    ///
    /// `sets` are the selections, each with the number of parts of its data set.
    pub fn join(sets: Vec<(Self, usize)>) -> Self {
        let mut all = Self { groups: Vec::new(), rows: Vec::new(), first_rows: Vec::new() };
        let mut first_part = 0;
        for (set, parts) in sets {
            let numbered = |group: GroupRows| GroupRows { part: first_part + group.part, ..group };
            all.groups.extend(set.groups.into_iter().map(numbered));
            all.rows.extend(set.rows);
            all.first_rows.extend(set.first_rows);
            first_part += parts as u32;
        }
        all
    }

    /// Keeps the rows that `keep` wants, by index of the part and number in the part.
    fn keep(&mut self, keep: impl Fn(usize, u64) -> bool) {
        for (index, group) in self.groups.iter_mut().enumerate() {
            let first = self.first_rows[index];
            let wanted = |&row: &u32| keep(group.part as usize, u64::from(row));
            let rows: Vec<u32> = (first..first + group.rows).filter(wanted).collect();
            group.rows = rows.len() as u32;
            self.rows[index] = Some(rows);
        }
    }

    /// The groups with their rows on offer: what an order is made from.
    pub fn groups(&self) -> &[GroupRows] {
        &self.groups
    }

    /// Rows on offer.
    pub fn num_rows(&self) -> u64 {
        self.groups.iter().map(|g| u64::from(g.rows)).sum()
    }

    /// Where row `row` of part `part` is on offer: the group's index, and which of its rows it is.
    pub fn find(&self, part: u32, row: u32) -> Option<(usize, u32)> {
        (0..self.groups.len()).filter(|&index| self.groups[index].part == part).find_map(|index| {
            let first = self.first_rows[index];
            let nth = match &self.rows[index] {
                Some(rows) => rows.binary_search(&row).ok()? as u32,
                None => row.checked_sub(first).filter(|&n| n < self.groups[index].rows)?,
            };
            Some((index, nth))
        })
    }

    /// The row of the part, and of the group, that is the `nth` on offer in group `index`.
    pub fn row(&self, index: usize, nth: u32) -> (u32, u32) {
        let first = self.first_rows[index];
        let row = self.rows[index].as_ref().map_or(first + nth, |rows| rows[nth as usize]);
        (row, row - first)
    }
}

/// Whether a sample belongs to the hold-out of `percent` per cent: by its id alone, so it stays
/// there when a data set grows or is prepared anew.
pub fn is_held_out(id: &SampleId, percent: f64) -> bool {
    let drawn = (id.prefix() % 10_000) as f64;
    drawn < percent * 100.0
}
