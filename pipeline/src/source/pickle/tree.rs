//! From values that know their parts by number to a tree.
//!
//! In: what the machine made. Out: a [`Pickle`]. Never: builds anything before it is known to be
//! finite, not too deep and, with what stands in several places counted at each, not too large.

use std::borrow::Cow;

use super::error::{Opcode, PickleError, PickleProblem as Problem};
use super::{DEPTH_MAX, Pickle, VALUES_MAX};

/// Bytes of an owned text that count as one value, so that a long text that stands in many places
/// is bounded by [`VALUES_MAX`] too.
const BYTES_PER_VALUE: usize = 64;

/// Number of a value: its place among [`Made::nodes`].
pub type Id = u32;

/// A value whose parts are known by their numbers. Keys and values of a dict take turns.
pub enum Node<'a> {
    /// Without parts.
    Plain(Pickle<'a>),
    /// A list.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A dict.
    Dict(Vec<Id>),
    /// What would be a call.
    Call(&'static str, Vec<Id>),
    /// A reference to what lies outside.
    Outside([Id; 1]),
}

impl Node<'_> {
    /// What it is, in Python's words.
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Plain(value) => value.kind(),
            Node::List(_) => "a list",
            Node::Tuple(_) => "a tuple",
            Node::Dict(_) => "a dict",
            Node::Call(..) => "a call",
            Node::Outside(_) => "a reference to something outside",
        }
    }

    fn parts(&self) -> &[Id] {
        match self {
            Node::Plain(_) => &[],
            Node::List(ids) | Node::Tuple(ids) | Node::Dict(ids) | Node::Call(_, ids) => ids,
            Node::Outside(id) => id,
        }
    }

    /// As how many values it counts, its parts apart.
    fn values(&self) -> u32 {
        match self {
            Node::Plain(Pickle::Str(Cow::Owned(text))) => {
                1 + (text.len() / BYTES_PER_VALUE).min(VALUES_MAX) as u32
            }
            _ => 1,
        }
    }
}

/// What a whole program made.
pub struct Made<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Every value.
    pub nodes: Vec<Node<'a>>,
    /// Offsets of the opcodes that made them.
    pub made_at: Vec<usize>,
    /// The value that was left at the end.
    pub root: Id,
}

/// How far the walk over a value has come.
#[derive(Clone, Copy)]
enum Walk {
    New,
    Open,
    Done { depth: u8, values: u32 },
}

impl<'a> Made<'a> {
    /// The tree below the root.
    ///
    /// # Errors
    ///
    /// [`PickleError`] with the opcode that made the value that is inside itself, or above a limit.
    pub fn tree(&self) -> Result<Pickle<'a>, PickleError> {
        self.check().map_err(|(id, problem)| {
            let offset = self.made_at[id as usize];
            PickleError { problem, opcode: Opcode(self.bytes[offset]), offset }
        })?;
        Ok(self.build(self.root))
    }

    /// One walk that goes into every value once, whatever the depth.
    fn check(&self) -> Result<(), (Id, Problem)> {
        let mut walks = vec![Walk::New; self.nodes.len()];
        let mut path = vec![(self.root, 0)];
        while let Some((id, next)) = path.pop() {
            let Some(&part) = self.nodes[id as usize].parts().get(next) else {
                walks[id as usize] = self.measure(id, &walks).map_err(|problem| (id, problem))?;
                continue;
            };
            walks[id as usize] = Walk::Open;
            path.push((id, next + 1));
            match walks[part as usize] {
                Walk::New => path.push((part, 0)),
                Walk::Open => return Err((part, Problem::InsideItself)),
                Walk::Done { .. } => {}
            }
        }
        Ok(())
    }

    /// Depth and size of a value whose parts are measured.
    fn measure(&self, id: Id, walks: &[Walk]) -> Result<Walk, Problem> {
        let node = &self.nodes[id as usize];
        let (mut depth, mut values) = (0_u8, node.values());
        for &part in node.parts() {
            if let Walk::Done { depth: below, values: more } = walks[part as usize] {
                depth = depth.max(below + 1);
                values = values.saturating_add(more);
            }
        }
        if usize::from(depth) > DEPTH_MAX {
            return Err(Problem::Deep { limit: DEPTH_MAX });
        }
        if values as usize > VALUES_MAX {
            return Err(Problem::Unfolds { limit: VALUES_MAX });
        }
        Ok(Walk::Done { depth, values })
    }

    /// At most [`DEPTH_MAX`] calls deep.
    fn build(&self, id: Id) -> Pickle<'a> {
        let all = |ids: &[Id]| ids.iter().map(|&id| self.build(id)).collect();
        match &self.nodes[id as usize] {
            Node::Plain(value) => value.clone(),
            Node::List(ids) => Pickle::List(all(ids)),
            Node::Tuple(ids) => Pickle::Tuple(all(ids)),
            Node::Call(name, ids) => Pickle::Call(name, all(ids)),
            Node::Outside([id]) => Pickle::Outside(Box::new(self.build(*id))),
            Node::Dict(ids) => {
                let pairs = ids.chunks_exact(2);
                Pickle::Dict(pairs.map(|p| (self.build(p[0]), self.build(p[1]))).collect())
            }
        }
    }
}
