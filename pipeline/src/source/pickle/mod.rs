//! Reads pickles that hold nothing but data.
//!
//! In: the bytes of one pickle, protocols 0 to 5. Out: a [`Pickle`], a tree of None, bool, int,
//! float, str, bytes, list, tuple and dict; texts and bytes are slices of the input wherever they
//! stand there as they are. Never: imports, calls or builds anything. The opcodes that do so are
//! refused by name, as is whatever follows the end.
//!
//! A reader that knows what a few names mean, such as that of a checkpoint of PyTorch, gets those
//! names, calls of them and references to what lies outside as data too ([`Pickle::read_named`]);
//! every other name is refused.
//!
//! A pickle is a program for a machine with a stack and a memo. The memo can make a value stand in
//! several places, or inside itself. So the machine works on numbers of values; only when the
//! program has ended, and what it made is known to be a tree of bounded size, is the tree built.
//! `machine` runs the program, `tree` builds the tree, `error` says what is wrong.

use std::borrow::Cow;

mod machine;
mod tree;
mod error;

use machine::Machine;

pub use error::{Opcode, PickleError, PickleProblem};

/// Values of one pickle, those that stand in several places counted at each: a vocabulary of
/// 1,000,000 synsets has 2,000,001. One takes up to 130 bytes while it is read: 273 MB in all.
pub const VALUES_MAX: usize = 1 << 21;

/// Lists, tuples and dicts inside each other. Data of ours have 3.
pub const DEPTH_MAX: usize = 64;

/// Bytes of a number written in letters; the longest `f64` has 24, the longest `i64` 20.
pub const NUMBER_BYTES_MAX: usize = 32;

/// Bytes of a module's or a class's name; PyTorch's longest has 22.
pub const NAME_BYTES_MAX: usize = 256;

/// The one name whose call is a value that the machine itself knows.
pub const ORDERED_DICT: &str = "collections.OrderedDict";

/// A value without code.
#[derive(Clone, Debug, PartialEq)]
pub enum Pickle<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An int of up to 64 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// A str.
    Str(Cow<'a, str>),
    /// A bytes.
    Bytes(&'a [u8]),
    /// A list.
    List(Vec<Pickle<'a>>),
    /// A tuple.
    Tuple(Vec<Pickle<'a>>),
    /// A dict: keys with values as they were set. Of a key that comes again the last value holds.
    Dict(Vec<(Pickle<'a>, Pickle<'a>)>),
    /// A name that the reader knows, as `module.name`. Nothing is imported.
    Name(&'static str),
    /// What would be the call of a name with arguments. Nothing is called.
    Call(&'static str, Vec<Pickle<'a>>),
    /// A reference to what lies outside of the pickle.
    Outside(Box<Pickle<'a>>),
}

impl<'a> Pickle<'a> {
    /// Reads the one pickle that `bytes` are.
    ///
    /// # Errors
    ///
    /// [`PickleError`] with the opcode and its offset, for code, kinds of values that are not
    /// data, a pickle that is cut or goes on after its end, and everything above a limit.
    pub fn read(bytes: &'a [u8]) -> Result<Self, PickleError> {
        Machine::new(bytes, &[]).run()?.tree()
    }

    /// Reads the one pickle that `bytes` are, in which `names` may stand, be called and refer to
    /// what lies outside: all of it as data. An ordered dict, if its name is among them, is a dict;
    /// what is set on it as an attribute is passed over.
    ///
    /// # Errors
    ///
    /// As [`Pickle::read`]; every other name is refused.
    pub fn read_named(
        bytes: &'a [u8],
        names: &'static [&'static str],
    ) -> Result<Self, PickleError> {
        Machine::new(bytes, names).run()?.tree()
    }

    /// What it is, in Python's words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Float(_) => "a float",
            Self::Str(_) => "a str",
            Self::Bytes(_) => "a bytes",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dict",
            Self::Name(_) => "a name",
            Self::Call(..) => "a call",
            Self::Outside(_) => "a reference to something outside",
        }
    }
}
