//! The order of samples: a pure function of (seed, epoch) over the rows of a snapshot.
//!
//! In: how many rows each row group offers. Out: for each position of the epoch's global stream the
//! row that stands there. Position p belongs to lane p mod L, at index p div L (FORMAT.md §2).
//! Never: depends on ranks, threads or time.

use super::draw::{Draws, Purpose};

/// A row group of `images` and how many of its rows are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRows {
    /// Index of the part in the snapshot.
    pub part: u32,
    /// Index of the row group in the part.
    pub group: u32,
    /// Rows on offer.
    pub rows: u32,
}

/// How an epoch is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The order of the data set: one lane, nothing permuted. For evaluation.
    Sequential,
    /// L lanes; row groups permuted in a lane, samples in windows of K row groups.
    Shuffled {
        /// Seed of the run.
        seed: u64,
        /// L.
        lanes: u32,
        /// K.
        window_groups: u32,
    },
}

/// A row: the group in the list that the order was made from, and the nth row on offer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowAt {
    /// Index in the list of groups.
    pub group: u32,
    /// Which of the rows on offer, from 0.
    pub nth: u32,
}

/// The slice of a row group that one lane reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    group: u32,
    first: u32,
    rows: u32,
}

/// The rows of one lane in one epoch.
#[derive(Clone, Debug)]
struct Lane {
    pieces: Vec<Piece>,
    /// Row at which each window begins, and the end.
    window_starts: Vec<u64>,
}

/// The order of one epoch.
#[derive(Clone, Debug)]
pub struct Order {
    layout: Layout,
    epoch: u64,
    num_rows: u64,
    window_groups: usize,
    /// Number of the first group in the numbering that rows are named by.
    first_group: u32,
    lanes: Vec<Lane>,
}

impl Order {
    /// Lays out `epoch` over `groups`, which stand in the order of parts.
    pub fn new(groups: &[GroupRows], layout: Layout, epoch: u64) -> Self {
        let num_rows = groups.iter().map(|g| u64::from(g.rows)).sum();
        let (num_lanes, window_groups) = match layout {
            Layout::Sequential => (1, 1),
            Layout::Shuffled { lanes, window_groups, .. } => (lanes.max(1), window_groups.max(1)),
        };
        let window_groups = window_groups as usize;
        let laid_out = parts_in_order(groups, layout, epoch);
        let mut lanes = cut_into_lanes(groups, &laid_out, num_rows, num_lanes);
        for (number, pieces) in lanes.iter_mut().enumerate() {
            if let Layout::Shuffled { seed, .. } = layout {
                Draws::new(Purpose::Groups, seed, epoch, number as u64, 0).shuffle(pieces);
            }
        }
        let lanes = lanes
            .into_iter()
            .map(|pieces| Lane { window_starts: window_starts(&pieces, window_groups), pieces })
            .collect();
        Self { layout, epoch, num_rows, window_groups, first_group: 0, lanes }
    }

    /// The same order with its groups numbered from `first` on: one set of several.
    pub fn numbered_from(mut self, first: u32) -> Self {
        self.first_group = first;
        self
    }

    /// Positions of the epoch: each row on offer once.
    pub fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// L.
    pub fn num_lanes(&self) -> u64 {
        self.lanes.len() as u64
    }

    /// The lane of a position and the index in it.
    pub fn lane_of(&self, position: u64) -> (u32, u64) {
        ((position % self.num_lanes()) as u32, position / self.num_lanes())
    }

    /// The window of a lane's index, and the index in the window.
    pub fn window_of(&self, lane: u32, index: u64) -> (u32, u64) {
        let starts = &self.lanes[lane as usize].window_starts;
        let window = starts.partition_point(|&start| start <= index) - 1;
        (window as u32, index - starts[window])
    }

    /// Windows of a lane.
    pub fn num_windows(&self, lane: u32) -> u32 {
        (self.lanes[lane as usize].window_starts.len() - 1) as u32
    }

    /// The row groups that a window reads.
    pub fn window_groups(&self, lane: u32, window: u32) -> impl Iterator<Item = u32> + '_ {
        self.window_pieces(lane, window).iter().map(|piece| self.first_group + piece.group)
    }

    /// The rows of a window in their order.
    pub fn window_rows(&self, lane: u32, window: u32) -> Vec<RowAt> {
        let mut rows: Vec<RowAt> = self
            .window_pieces(lane, window)
            .iter()
            .flat_map(|p| {
                let group = self.first_group + p.group;
                (p.first..p.first + p.rows).map(move |nth| RowAt { group, nth })
            })
            .collect();
        if let Layout::Shuffled { seed, .. } = self.layout {
            let mut draws =
                Draws::new(Purpose::Samples, seed, self.epoch, u64::from(lane), u64::from(window));
            draws.shuffle(&mut rows);
        }
        rows
    }

    /// The row groups that all lanes read, one after the other; one of two lanes comes twice.
    pub fn groups_read(&self) -> impl Iterator<Item = u32> + '_ {
        let pieces = self.lanes.iter().flat_map(|lane| lane.pieces.iter());
        pieces.map(|piece| self.first_group + piece.group)
    }

    /// The position of a row; `None` if the row is not on offer.
    pub fn position_of(&self, row: RowAt) -> Option<u64> {
        let group = row.group.checked_sub(self.first_group)?;
        let holds = |piece: &Piece| {
            piece.group == group && (piece.first..piece.first + piece.rows).contains(&row.nth)
        };
        let found = self.lanes.iter().enumerate();
        let (lane, piece) =
            found.filter_map(|(lane, l)| Some((lane, l.pieces.iter().position(holds)?))).next()?;
        let window = piece / self.window_groups;
        let rows = self.window_rows(lane as u32, window as u32);
        let at = rows.iter().position(|other| *other == row)? as u64;
        Some((self.lanes[lane].window_starts[window] + at) * self.num_lanes() + lane as u64)
    }

    fn window_pieces(&self, lane: u32, window: u32) -> &[Piece] {
        let pieces = &self.lanes[lane as usize].pieces;
        let first = window as usize * self.window_groups;
        &pieces[first..pieces.len().min(first + self.window_groups)]
    }
}

/// Indices of the groups with the parts permuted and each part's groups side by side.
fn parts_in_order(groups: &[GroupRows], layout: Layout, epoch: u64) -> Vec<u32> {
    let mut parts: Vec<Vec<u32>> = Vec::new();
    let mut last = None;
    for (index, group) in groups.iter().enumerate() {
        if last != Some(group.part) {
            parts.push(Vec::new());
            last = Some(group.part);
        }
        if let Some(part) = parts.last_mut() {
            part.push(index as u32);
        }
    }
    if let Layout::Shuffled { seed, .. } = layout {
        Draws::new(Purpose::Parts, seed, epoch, 0, 0).shuffle(&mut parts);
    }
    parts.into_iter().flatten().collect()
}

/// Cuts the groups, laid end to end, into slices of ⌈(N − l) ÷ L⌉ rows for lane l.
fn cut_into_lanes(
    groups: &[GroupRows],
    laid_out: &[u32],
    num_rows: u64,
    num_lanes: u32,
) -> Vec<Vec<Piece>> {
    let num_lanes = u64::from(num_lanes);
    let size = |lane: u64| num_rows / num_lanes + u64::from(lane < num_rows % num_lanes);
    let mut lanes: Vec<Vec<Piece>> = vec![Vec::new(); num_lanes as usize];
    let (mut lane, mut room) = (0u64, size(0));
    for &group in laid_out {
        let rows = groups[group as usize].rows;
        let mut first = 0;
        while first < rows {
            while room == 0 {
                lane += 1;
                room = size(lane);
            }
            let taken = u64::from(rows - first).min(room) as u32;
            lanes[lane as usize].push(Piece { group, first, rows: taken });
            first += taken;
            room -= u64::from(taken);
        }
    }
    lanes
}

fn window_starts(pieces: &[Piece], window_groups: usize) -> Vec<u64> {
    let mut starts = vec![0];
    let mut sum = 0;
    for window in pieces.chunks(window_groups) {
        sum += window.iter().map(|piece| u64::from(piece.rows)).sum::<u64>();
        starts.push(sum);
    }
    starts
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn groups(parts: &[Vec<u32>]) -> Vec<GroupRows> {
        let mut all = Vec::new();
        for (part, rows) in parts.iter().enumerate() {
            for (group, &rows) in rows.iter().enumerate() {
                all.push(GroupRows { part: part as u32, group: group as u32, rows });
            }
        }
        all
    }

    fn stream(order: &Order) -> Vec<RowAt> {
        (0..order.num_rows())
            .map(|position| {
                let (lane, index) = order.lane_of(position);
                let (window, at) = order.window_of(lane, index);
                order.window_rows(lane, window)[at as usize]
            })
            .collect()
    }

    #[test]
    fn sequential_is_the_order_of_the_data_set() {
        let order = Order::new(&groups(&[vec![2, 1], vec![0, 2]]), Layout::Sequential, 3);
        let rows: Vec<_> = stream(&order).iter().map(|r| (r.group, r.nth)).collect();
        assert_eq!(rows, [(0, 0), (0, 1), (1, 0), (3, 0), (3, 1)]);
    }

    #[test]
    fn the_order_is_pinned_by_its_version() {
        let layout = Layout::Shuffled { seed: 5, lanes: 3, window_groups: 2 };
        let order = Order::new(&groups(&[vec![3, 3], vec![2], vec![3, 1]]), layout, 1);
        let rows: Vec<_> = stream(&order).iter().map(|r| (r.group, r.nth)).collect();
        let first = [(4, 0), (0, 1), (2, 1), (3, 1), (1, 0), (1, 1), (3, 0), (0, 2), (2, 0)];
        assert_eq!(rows[..9], first);
        assert_eq!(rows[9..], [(3, 2), (0, 0), (1, 2)]);
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let all = groups(&[vec![16; 4], vec![16; 4]]);
        let at = |seed, epoch| {
            let layout = Layout::Shuffled { seed, lanes: 4, window_groups: 2 };
            stream(&Order::new(&all, layout, epoch))
        };
        assert_ne!(at(1, 0), at(1, 1));
        assert_ne!(at(1, 0), at(2, 0));
        assert_eq!(at(1, 0), at(1, 0));
    }

    proptest! {
        #[test]
        fn every_row_stands_at_exactly_one_position(
            parts in prop::collection::vec(prop::collection::vec(0u32..20, 0..5), 0..6),
            seed in any::<u64>(), epoch in 0u64..5, lanes in 1u32..12, window_groups in 1u32..5,
        ) {
            let all = groups(&parts);
            let order = Order::new(&all, Layout::Shuffled { seed, lanes, window_groups }, epoch);
            let stream = stream(&order);
            let unique: HashSet<_> = stream.iter().collect();
            prop_assert_eq!(unique.len() as u64, order.num_rows());
            for row in &stream {
                prop_assert!(row.nth < all[row.group as usize].rows);
            }
        }
    }
}
