//! Runs the program that a pickle is: a machine with a stack, marks and a memo.
//!
//! In: the bytes. Out: [`Made`], values that know their parts by number.
//! Never: makes more than the limits allow, or looks above the last mark for a value.

use std::borrow::Cow;
use std::collections::HashMap;

use super::error::{Opcode, PickleError, PickleProblem as Problem};
use super::tree::{Id, Made, Node};
use super::{DEPTH_MAX, NAME_BYTES_MAX, NUMBER_BYTES_MAX, ORDERED_DICT, Pickle, VALUES_MAX};

/// The machine in the middle of its program.
pub struct Machine<'a> {
    bytes: &'a [u8],
    /// Names that may stand here as data.
    names: &'static [&'static str],
    at: usize,
    opcode: Opcode,
    opcode_at: usize,
    /// Where the frame ends that we are in, if we are in one.
    frame_end: usize,
    nodes: Vec<Node<'a>>,
    made_at: Vec<usize>,
    stack: Vec<Id>,
    /// Heights of the stack where marks stand.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    pushed: usize,
}

impl<'a> Machine<'a> {
    /// A machine that has run nothing yet, and to which `names` are data.
    pub fn new(bytes: &'a [u8], names: &'static [&'static str]) -> Self {
        Self {
            bytes,
            names,
            at: 0,
            opcode: Opcode(0),
            opcode_at: 0,
            frame_end: 0,
            nodes: Vec::new(),
            made_at: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            pushed: 0,
        }
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    ///
    /// [`PickleError`] with the opcode that cannot be run.
    pub fn run(mut self) -> Result<Made<'a>, PickleError> {
        while let Some(&byte) = self.bytes.get(self.at) {
            self.opcode = Opcode(byte);
            self.opcode_at = self.at;
            self.at += 1;
            match self.step() {
                Ok(None) => {}
                Ok(Some(root)) => {
                    let (bytes, nodes, made_at) = (self.bytes, self.nodes, self.made_at);
                    return Ok(Made { bytes, nodes, made_at, root });
                }
                Err(problem) => {
                    return Err(PickleError {
                        problem,
                        opcode: self.opcode,
                        offset: self.opcode_at,
                    });
                }
            }
        }
        Err(PickleError { problem: Problem::NoStop, opcode: Opcode(b'.'), offset: self.at })
    }

    /// Runs one opcode; at the end the number of the value that is left.
    fn step(&mut self) -> Result<Option<Id>, Problem> {
        match self.opcode.0 {
            b'.' => return self.stop().map(Some),
            0x80 => self.protocol()?,
            0x95 => self.frame()?,
            b'N' => self.make(Pickle::None)?,
            0x88 => self.make(Pickle::Bool(true))?,
            0x89 => self.make(Pickle::Bool(false))?,
            b'I' | b'J' | b'K' | b'M' | b'L' | 0x8a | 0x8b => {
                let int = self.int()?;
                self.make(int)?;
            }
            b'F' | b'G' => {
                let float = self.float()?;
                self.make(Pickle::Float(float))?;
            }
            b'V' | b'X' | 0x8c | 0x8d => {
                let text = self.text()?;
                self.make(Pickle::Str(text))?;
            }
            b'B' | b'C' | 0x8e => {
                let bytes = self.counted()?;
                self.make(Pickle::Bytes(bytes))?;
            }
            b']' | b')' | b'}' | b'l' | b't' | b'd' | 0x85..=0x87 => self.collect()?,
            b'a' | b'e' | b's' | b'u' => self.extend()?,
            b'p' | b'q' | b'r' | 0x94 => self.memoize()?,
            b'g' | b'h' | b'j' => self.recall()?,
            b'(' => self.mark()?,
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }
            byte if !self.names.is_empty() => self.step_named(byte)?,
            _ => return Err(self.opcode.refusal()),
        }
        Ok(None)
    }

    /// Runs one of the opcodes that are data only to a reader of names.
    fn step_named(&mut self, byte: u8) -> Result<(), Problem> {
        match byte {
            b'c' | 0x93 => self.name(),
            b'R' => self.call(),
            b'Q' => {
                let id = self.pop()?;
                self.make_node(Node::Outside([id]))
            }
            b'b' => {
                self.pop()?;
                // Attributes of an ordered dict, such as the versions of a state dict.
                let onto = self.top()? as usize;
                if matches!(self.nodes[onto], Node::Dict(_)) { Ok(()) } else { Err(Problem::Code) }
            }
            _ => Err(self.opcode.refusal()),
        }
    }

    /// A module's name and a name in it.
    fn name(&mut self) -> Result<(), Problem> {
        let found = if self.opcode.0 == b'c' {
            let [module, name] = [self.line(NAME_BYTES_MAX)?, self.line(NAME_BYTES_MAX)?];
            format!("{}.{}", module.escape_ascii(), name.escape_ascii())
        } else {
            let name = self.pop()?;
            let module = self.pop()?;
            let text = |id: Id| match &self.nodes[id as usize] {
                Node::Plain(Pickle::Str(text)) if text.len() <= NAME_BYTES_MAX => Ok(text),
                _ => Err(Problem::Code),
            };
            format!("{}.{}", text(module)?, text(name)?)
        };
        let known = self.names.iter().find(|known| **known == found);
        let known = known.ok_or(Problem::Name { found })?;
        self.make(Pickle::Name(known))
    }

    /// A name and its arguments, kept side by side.
    fn call(&mut self) -> Result<(), Problem> {
        let arguments = self.pop()? as usize;
        let callee = self.pop()? as usize;
        let Node::Plain(Pickle::Name(name)) = self.nodes[callee] else { return Err(Problem::Code) };
        let Node::Tuple(arguments) = &self.nodes[arguments] else { return Err(Problem::Code) };
        match (name, arguments.as_slice()) {
            (ORDERED_DICT, []) => self.make_node(Node::Dict(Vec::new())),
            (ORDERED_DICT, _) => Err(Problem::Code),
            (_, arguments) => {
                let arguments = arguments.to_vec();
                self.make_node(Node::Call(name, arguments))
            }
        }
    }

    fn protocol(&mut self) -> Result<(), Problem> {
        let version = self.take(1)?[0];
        if self.opcode_at != 0 {
            return Err(Problem::NotFirst);
        }
        if version > 5 {
            return Err(Problem::Protocol { found: version });
        }
        Ok(())
    }

    /// A frame says how many bytes a reader may fetch at once. All are here, so that only its
    /// border counts, which no opcode may cross.
    fn frame(&mut self) -> Result<(), Problem> {
        let is_inside = self.at < self.frame_end;
        let needed = self.count(8)?;
        let left = self.bytes.len() - self.at;
        let len = usize::try_from(needed).ok().filter(|&len| len <= left);
        let len = len.ok_or(Problem::Cut { needed, left })?;
        if is_inside {
            return Err(Problem::FrameInFrame);
        }
        self.frame_end = self.at + len;
        Ok(())
    }

    fn stop(&mut self) -> Result<Id, Problem> {
        let trailing = self.bytes.len() - self.at;
        match self.stack.as_slice() {
            _ if !self.marks.is_empty() => Err(Problem::OpenMarks { found: self.marks.len() }),
            _ if trailing > 0 => Err(Problem::Trailing { bytes: trailing }),
            &[root] => Ok(root),
            stack => Err(Problem::NotOneValue { found: stack.len() }),
        }
    }

    /// The next `len` bytes.
    fn take(&mut self, len: u64) -> Result<&'a [u8], Problem> {
        let rest = &self.bytes[self.at..];
        let cut = Problem::Cut { needed: len, left: rest.len() };
        let len = usize::try_from(len).ok().filter(|&len| len <= rest.len()).ok_or(cut)?;
        self.pass(len)?;
        Ok(&rest[..len])
    }

    /// Goes on by `len` bytes that are there.
    fn pass(&mut self, len: usize) -> Result<(), Problem> {
        let end = self.at + len;
        if self.at < self.frame_end && self.frame_end < end {
            return Err(Problem::FrameCrossed { frame_end: self.frame_end });
        }
        self.at = end;
        Ok(())
    }

    /// A little-endian number of `width` bytes, up to 8.
    fn count(&mut self, width: u64) -> Result<u64, Problem> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// The bytes up to the next line feed, which is passed too.
    fn line(&mut self, bytes_max: usize) -> Result<&'a [u8], Problem> {
        let rest = &self.bytes[self.at..];
        let window = &rest[..rest.len().min(bytes_max.saturating_add(1))];
        let Some(len) = window.iter().position(|&byte| byte == b'\n') else {
            return Err(Problem::NoLineEnd { within: window.len() });
        };
        self.pass(len + 1)?;
        Ok(&rest[..len])
    }

    /// Bytes after their number.
    fn counted(&mut self) -> Result<&'a [u8], Problem> {
        let width = match self.opcode.0 {
            b'C' | 0x8c => 1,
            b'B' | b'X' => 4,
            _ => 8,
        };
        let len = self.count(width)?;
        self.take(len)
    }

    fn int(&mut self) -> Result<Pickle<'a>, Problem> {
        let int = match self.opcode.0 {
            b'K' => self.count(1)? as i64,
            b'M' => self.count(2)? as i64,
            b'J' => i64::from(self.count(4)? as u32 as i32),
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            _ => return self.int_in_letters(),
        };
        Ok(Pickle::Int(int))
    }

    /// An int in two's complement after the number of its bytes.
    fn long(&mut self, width: u64) -> Result<i64, Problem> {
        let len = self.count(width)?;
        let bytes = self.take(len)?;
        if bytes.len() > 8 {
            return Err(Problem::LongInt { bytes: bytes.len() });
        }
        let fill = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
        let mut whole = [fill; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(whole))
    }

    /// `12`, `12L`, and for `I` also `00` and `01`, which are False and True. Other zeros in front
    /// mean an octal number to some readers, so they are refused.
    fn int_in_letters(&mut self) -> Result<Pickle<'a>, Problem> {
        let is_int = self.opcode.0 == b'I';
        let line = self.line(NUMBER_BYTES_MAX)?;
        match line {
            b"00" if is_int => return Ok(Pickle::Bool(false)),
            b"01" if is_int => return Ok(Pickle::Bool(true)),
            _ => {}
        }
        let text = std::str::from_utf8(line).unwrap_or_default();
        let text = text.strip_suffix('L').filter(|_| !is_int).unwrap_or(text);
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_plain = digits.starts_with(|c: char| c.is_ascii_digit())
            && (!digits.starts_with('0') || text == "0");
        let int = text.parse().ok().filter(|_| is_plain);
        int.map(Pickle::Int).ok_or_else(|| Problem::number("an int of 64 bits", line))
    }

    fn float(&mut self) -> Result<f64, Problem> {
        if self.opcode.0 == b'G' {
            // The one number that is big-endian.
            return Ok(f64::from_bits(self.count(8)?.swap_bytes()));
        }
        let line = self.line(NUMBER_BYTES_MAX)?;
        let float = std::str::from_utf8(line).ok().and_then(|text| text.parse::<f64>().ok());
        // Digits that are too large are no infinity.
        let is_whole = |float: &f64| !float.is_infinite() || !line.iter().any(u8::is_ascii_digit);
        float.filter(is_whole).ok_or_else(|| Problem::number("a float", line))
    }

    fn text(&mut self) -> Result<Cow<'a, str>, Problem> {
        if self.opcode.0 == b'V' {
            return unescape(self.line(usize::MAX)?);
        }
        let bytes = self.counted()?;
        let text = std::str::from_utf8(bytes);
        text.map(Cow::Borrowed).map_err(|e| Problem::NotUtf8 { at: e.valid_up_to() })
    }

    /// Makes a list, tuple or dict of what is on the stack.
    fn collect(&mut self) -> Result<(), Problem> {
        let few = |machine: &mut Self, len: usize| -> Result<Vec<Id>, Problem> {
            let mut ids = (0..len).map(|_| machine.pop()).collect::<Result<Vec<_>, _>>()?;
            ids.reverse();
            Ok(ids)
        };
        let node = match self.opcode.0 {
            b']' => Node::List(Vec::new()),
            b')' => Node::Tuple(Vec::new()),
            b'}' => Node::Dict(Vec::new()),
            b'l' => Node::List(self.pop_to_mark()?),
            b't' => Node::Tuple(self.pop_to_mark()?),
            b'd' => {
                let pairs = self.pop_to_mark()?;
                self.check_pairs(&pairs)?;
                Node::Dict(pairs)
            }
            byte => Node::Tuple(few(self, usize::from(byte - 0x84))?),
        };
        self.make_node(node)
    }

    /// Puts values into the list or dict below them.
    fn extend(&mut self) -> Result<(), Problem> {
        let is_list = matches!(self.opcode.0, b'a' | b'e');
        let values = match self.opcode.0 {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_to_mark()?,
        };
        if !is_list {
            self.check_pairs(&values)?;
        }
        let onto = self.top()? as usize;
        match &mut self.nodes[onto] {
            Node::List(list) if is_list => list.extend(values),
            Node::Dict(pairs) if !is_list => pairs.extend(values),
            other => {
                let expected = if is_list { "a list" } else { "a dict" };
                return Err(Problem::Onto { expected, found: other.kind() });
            }
        }
        Ok(())
    }

    /// Keys and values take turns, and Python could hash each key.
    fn check_pairs(&self, pairs: &[Id]) -> Result<(), Problem> {
        if !pairs.len().is_multiple_of(2) {
            return Err(Problem::OddPairs { found: pairs.len() });
        }
        let mut keys = pairs.iter().step_by(2).map(|&key| &self.nodes[key as usize]);
        match keys.find(|key| matches!(key, Node::List(_) | Node::Dict(_))) {
            Some(key) => Err(Problem::Key { found: key.kind() }),
            None => Ok(()),
        }
    }

    fn memoize(&mut self) -> Result<(), Problem> {
        let index = match self.opcode.0 {
            0x94 => self.memo.len() as u64,
            _ => self.memo_index()?,
        };
        let top = self.top()?;
        self.memo.insert(index, top);
        // Each needs a byte of input only, but a map's place here.
        if self.memo.len() > VALUES_MAX {
            return Err(Problem::TooMany { limit: VALUES_MAX });
        }
        Ok(())
    }

    fn recall(&mut self) -> Result<(), Problem> {
        let index = self.memo_index()?;
        let id = *self.memo.get(&index).ok_or(Problem::NotInMemo { index })?;
        self.push(id)
    }

    fn memo_index(&mut self) -> Result<u64, Problem> {
        match self.opcode.0 {
            b'q' | b'h' => self.count(1),
            b'r' | b'j' => self.count(4),
            _ => {
                let line = self.line(NUMBER_BYTES_MAX)?;
                let index = std::str::from_utf8(line).ok().and_then(|text| text.parse().ok());
                index.ok_or_else(|| Problem::number("a place in the memo", line))
            }
        }
    }

    fn make(&mut self, value: Pickle<'a>) -> Result<(), Problem> {
        self.make_node(Node::Plain(value))
    }

    fn make_node(&mut self, node: Node<'a>) -> Result<(), Problem> {
        let id = self.nodes.len() as Id;
        self.push(id)?;
        self.nodes.push(node);
        self.made_at.push(self.opcode_at);
        Ok(())
    }

    fn push(&mut self, id: Id) -> Result<(), Problem> {
        self.pushed += 1;
        if self.pushed > VALUES_MAX {
            return Err(Problem::TooMany { limit: VALUES_MAX });
        }
        self.stack.push(id);
        Ok(())
    }

    /// The values above the last mark.
    fn reachable(&self) -> &[Id] {
        &self.stack[self.marks.last().copied().unwrap_or(0)..]
    }

    fn top(&self) -> Result<Id, Problem> {
        self.reachable().last().copied().ok_or(Problem::StackEmpty)
    }

    fn pop(&mut self) -> Result<Id, Problem> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn mark(&mut self) -> Result<(), Problem> {
        // Every open mark is a list, tuple or dict that is not finished.
        if self.marks.len() == DEPTH_MAX {
            return Err(Problem::Deep { limit: DEPTH_MAX });
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Problem> {
        let mark = self.marks.pop().ok_or(Problem::NoMark)?;
        Ok(self.stack.split_off(mark))
    }
}

/// Python's raw-unicode-escape as its pickler writes it: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
fn unescape(line: &[u8]) -> Result<Cow<'_, str>, Problem> {
    let plain = |byte: &u8| byte.is_ascii() && *byte != b'\\';
    if let (true, Ok(text)) = (line.iter().all(plain), std::str::from_utf8(line)) {
        return Ok(Cow::Borrowed(text));
    }
    let mut text = String::with_capacity(line.len());
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        if byte != b'\\' {
            text.push(char::from(byte));
            at += 1;
            continue;
        }
        let digits = match line.get(at + 1) {
            Some(b'u') => 4,
            Some(b'U') => 8,
            _ => return Err(Problem::Escape { at }),
        };
        let hex = line.get(at + 2..at + 2 + digits).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|digits| std::str::from_utf8(digits).ok());
        let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        text.push(code.and_then(char::from_u32).ok_or(Problem::Escape { at })?);
        at += 2 + digits;
    }
    Ok(Cow::Owned(text))
}
