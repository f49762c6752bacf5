//! What is wrong with a pickle, with the opcode and where it stands.
//!
//! In: the first byte of an instruction. Out: Python's name for it, and why it is refused.

use std::fmt;

/// The first byte of a pickle's instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcode(pub u8);

/// Python's names (`pickletools.opcodes`), by byte.
const NAMES: [(u8, &str); 68] = [
    (b'(', "MARK"),
    (b'.', "STOP"),
    (b'0', "POP"),
    (b'1', "POP_MARK"),
    (b'2', "DUP"),
    (b'F', "FLOAT"),
    (b'I', "INT"),
    (b'J', "BININT"),
    (b'K', "BININT1"),
    (b'L', "LONG"),
    (b'M', "BININT2"),
    (b'N', "NONE"),
    (b'P', "PERSID"),
    (b'Q', "BINPERSID"),
    (b'R', "REDUCE"),
    (b'S', "STRING"),
    (b'T', "BINSTRING"),
    (b'U', "SHORT_BINSTRING"),
    (b'V', "UNICODE"),
    (b'X', "BINUNICODE"),
    (b'a', "APPEND"),
    (b'b', "BUILD"),
    (b'c', "GLOBAL"),
    (b'd', "DICT"),
    (b'}', "EMPTY_DICT"),
    (b'e', "APPENDS"),
    (b'g', "GET"),
    (b'h', "BINGET"),
    (b'i', "INST"),
    (b'j', "LONG_BINGET"),
    (b'l', "LIST"),
    (b']', "EMPTY_LIST"),
    (b'o', "OBJ"),
    (b'p', "PUT"),
    (b'q', "BINPUT"),
    (b'r', "LONG_BINPUT"),
    (b's', "SETITEM"),
    (b't', "TUPLE"),
    (b')', "EMPTY_TUPLE"),
    (b'u', "SETITEMS"),
    (b'G', "BINFLOAT"),
    (0x80, "PROTO"),
    (0x81, "NEWOBJ"),
    (0x82, "EXT1"),
    (0x83, "EXT2"),
    (0x84, "EXT4"),
    (0x85, "TUPLE1"),
    (0x86, "TUPLE2"),
    (0x87, "TUPLE3"),
    (0x88, "NEWTRUE"),
    (0x89, "NEWFALSE"),
    (0x8a, "LONG1"),
    (0x8b, "LONG4"),
    (b'B', "BINBYTES"),
    (b'C', "SHORT_BINBYTES"),
    (0x8c, "SHORT_BINUNICODE"),
    (0x8d, "BINUNICODE8"),
    (0x8e, "BINBYTES8"),
    (0x8f, "EMPTY_SET"),
    (0x90, "ADDITEMS"),
    (0x91, "FROZENSET"),
    (0x92, "NEWOBJ_EX"),
    (0x93, "STACK_GLOBAL"),
    (0x94, "MEMOIZE"),
    (0x95, "FRAME"),
    (0x96, "BYTEARRAY8"),
    (0x97, "NEXT_BUFFER"),
    (0x98, "READONLY_BUFFER"),
];

impl Opcode {
    /// Why an opcode that is not run is refused.
    pub fn refusal(self) -> PickleProblem {
        match self.0 {
            b'R' | b'b' | b'c' | b'i' | b'o' | 0x81..=0x84 | 0x92 | 0x93 => PickleProblem::Code,
            b'S' | b'T' | b'U' => PickleProblem::Kind { what: "a byte string of Python 2" },
            b'P' | b'Q' => PickleProblem::Kind { what: "a reference to something outside" },
            0x8f..=0x91 => PickleProblem::Kind { what: "a set" },
            0x96 => PickleProblem::Kind { what: "a bytearray" },
            0x97 | 0x98 => PickleProblem::Kind { what: "a buffer outside" },
            _ => PickleProblem::NoOpcode,
        }
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(byte, _)| *byte == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "0x{:02x}", self.0),
        }
    }
}

/// A pickle that is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("opcode {opcode} at byte {offset}: {problem}")]
pub struct PickleError {
    /// What is wrong.
    pub problem: PickleProblem,
    /// The opcode that did it, or that made the value with which it is wrong.
    pub opcode: Opcode,
    /// Where the opcode stands.
    pub offset: usize,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickleProblem {
    /// Something would be imported, called or built.
    #[error("it would run code, which is never done")]
    Code,
    /// A name that the reader does not know.
    #[error("it names `{found}`, which is none of those that may stand here; nothing is imported")]
    Name {
        /// Module and name.
        found: String,
    },
    /// A value that is not plain data.
    #[error(
        "{what} is not read, only None, bool, int, float, str, bytes, list, tuple and dict are"
    )]
    Kind {
        /// In Python's words.
        what: &'static str,
    },
    /// No opcode of any protocol.
    #[error("no protocol has such an opcode")]
    NoOpcode,
    /// A protocol that is not known.
    #[error("protocol {found} is not known, expected 0 to 5")]
    Protocol {
        /// Its number.
        found: u8,
    },
    /// A protocol after the beginning.
    #[error("it may stand at byte 0 only")]
    NotFirst,
    /// Less bytes than are asked for.
    #[error("{needed} bytes are expected, {left} are left")]
    Cut {
        /// How many the opcode asks for.
        needed: u64,
        /// How many are left.
        left: usize,
    },
    /// A frame that begins before the last one has ended.
    #[error("it begins within another frame")]
    FrameInFrame,
    /// A text, number or the like of which a part lies beyond the frame's end.
    #[error("it goes on beyond the end of its frame at byte {frame_end}")]
    FrameCrossed {
        /// Where the frame ends.
        frame_end: usize,
    },
    /// A line without an end.
    #[error("no end of line within {within} bytes")]
    NoLineEnd {
        /// Where it was looked for.
        within: usize,
    },
    /// Letters that are not the number that stands there.
    #[error("`{found}` is not {expected}")]
    Number {
        /// What may be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// An int above 64 bits.
    #[error("an int of {bytes} bytes is above the limit of 8")]
    LongInt {
        /// Its bytes.
        bytes: usize,
    },
    /// A str that is not UTF-8.
    #[error("the text is not UTF-8 from its byte {at} on")]
    NotUtf8 {
        /// The first wrong byte.
        at: usize,
    },
    /// A backslash that does not lead to a character.
    #[error("the backslash at byte {at} of the text is no \\uXXXX or \\UXXXXXXXX of a character")]
    Escape {
        /// Where it stands in the text.
        at: usize,
    },
    /// Nothing on the stack, or nothing above the last mark.
    #[error("the stack is empty")]
    StackEmpty,
    /// No mark on the stack.
    #[error("no mark is on the stack")]
    NoMark,
    /// The bytes end before the program does.
    #[error("it is missing: the pickle is cut")]
    NoStop,
    /// The end, with marks left.
    #[error("{found} marks are left at the end")]
    OpenMarks {
        /// How many.
        found: usize,
    },
    /// The end, without a value or with several.
    #[error("{found} values are left at the end, expected 1")]
    NotOneValue {
        /// How many.
        found: usize,
    },
    /// Bytes after the end.
    #[error("{bytes} bytes follow the end")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// Nothing in that place of the memo.
    #[error("nothing is in the memo at {index}")]
    NotInMemo {
        /// The place.
        index: u64,
    },
    /// Values put into what holds none.
    #[error("below the values is {found}, expected {expected}")]
    Onto {
        /// A list or a dict.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A key without a value.
    #[error("{found} keys and values, expected pairs")]
    OddPairs {
        /// How many.
        found: usize,
    },
    /// A key that Python cannot hash.
    #[error("{found} cannot be a key of a dict")]
    Key {
        /// What it is.
        found: &'static str,
    },
    /// Too many values.
    #[error("more than {limit} values")]
    TooMany {
        /// [`super::VALUES_MAX`].
        limit: usize,
    },
    /// Values that stand in several places, so often that they would fill the memory.
    #[error("by way of the memo it unfolds to more than {limit} values")]
    Unfolds {
        /// [`super::VALUES_MAX`].
        limit: usize,
    },
    /// Too many lists, tuples or dicts inside each other.
    #[error("values are more than {limit} deep inside each other")]
    Deep {
        /// [`super::DEPTH_MAX`].
        limit: usize,
    },
    /// A list, tuple or dict inside itself.
    #[error("the value is inside itself")]
    InsideItself,
}

impl PickleProblem {
    /// Letters that are not the number that is `expected`.
    pub fn number(expected: &'static str, found: &[u8]) -> Self {
        Self::Number { expected, found: found.escape_ascii().to_string() }
    }
}
