//! The order of a data set as large as DataComp-1B, from its row groups alone.

use catlip_pipeline::feed::order::{GroupRows, Layout, RowAt};
use catlip_pipeline::feed::{BatchSampler, Selection, Stream, trace};

use crate::{Failure, Measured, measure};

/// Rows of a row group of 320-px images, and row groups of a part of 10,000 rows.
const ROWS: u32 = 256;
const GROUPS: u32 = 39;
/// Positions that are looked up.
const LOOKED_UP: u64 = 1000;

/// Lays out `parts` parts, finds rows at positions and positions of rows.
///
/// # Errors
///
/// A row that does not stand where it was found.
pub fn measure_order(parts: u32) -> Result<Vec<Measured>, Failure> {
    let group = |part, group| GroupRows { part, group, rows: ROWS };
    let all = (0..parts).flat_map(|part| (0..GROUPS).map(move |g| group(part, g))).collect();
    let layout = Layout::Shuffled { seed: 1, lanes: 64, window_groups: 16 };
    let stream = Stream::of_one(Selection::of_groups(all), layout, BatchSampler::fixed(224, 1024));
    let rows = stream.selection.num_rows();
    let mut order = None;
    let laid_out = measure("order: an epoch laid out", "row groups", |hasher| {
        let laid_out = stream.order(0, 3);
        let ratio = laid_out.groups_read().count() as f64 / f64::from(parts * GROUPS);
        hasher.update(&ratio.to_le_bytes());
        if ratio > 1.05 && parts > 1000 {
            return Err(format!("{ratio} × the row groups are read, expected 1.05 at most").into());
        }
        order = Some(laid_out);
        Ok(u64::from(parts * GROUPS))
    })?;
    let order = order.ok_or("the order was laid out")?;
    let looked_up = measure("order: a row found from its position, and back", "rows", |hasher| {
        for n in 0..LOOKED_UP {
            let position = n * (rows / LOOKED_UP);
            let (lane, index) = order.lane_of(position);
            let (window, at) = order.window_of(lane, index);
            let row: RowAt = order.window_rows(lane, window)[at as usize];
            hasher.update(&row.group.to_le_bytes());
            if n % 100 == 0 && order.position_of(row) != Some(position) {
                return Err(format!("{row:?} does not stand at {position}").into());
            }
        }
        Ok(LOOKED_UP)
    })?;
    let seen = measure("order: rows of a step", "rows", |hasher| {
        let step = trace::steps(&stream, 3, 5).next().ok_or("an epoch has more than 5 steps")?;
        for row in &step.rows {
            hasher.update(&row.nth.to_le_bytes());
        }
        Ok(step.rows.len() as u64)
    })?;
    Ok(vec![laid_out, looked_up, seen])
}
