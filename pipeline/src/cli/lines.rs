//! A stream of lines in blocks, worked on by several threads, in order again at the end.
//!
//! In: anything that can be read. Out: blocks of whole lines, and what the work makes of them.
//! Never: holds more than three blocks a thread, or waits for more input while lines are there.
//!
//! A block is what one read gave, up to the last line feed. So a fast producer is read in large
//! blocks, and a line that somebody types is answered at once.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Bytes that are asked for at once: some 4,000 captions, two milliseconds of work.
const READ_BYTES: usize = 1 << 18;

/// Whole lines of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of its first line, from 1.
    pub first_line: u64,
    /// The lines with their line feeds; the last line of a stream may have none. Of a line above
    /// the limit one byte more than the limit is there.
    pub bytes: Vec<u8>,
}

impl Block {
    /// Its lines with their numbers, without line feeds.
    pub fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let lines = self.bytes.split_inclusive(|&byte| byte == b'\n');
        lines
            .zip(self.first_line..)
            .map(|(line, number)| (number, line.strip_suffix(b"\n").unwrap_or(line)))
    }
}

/// Reads a stream in blocks.
pub struct Blocks<R> {
    input: R,
    line_bytes_max: usize,
    /// The begin of the line whose end is not read yet.
    begun: Vec<u8>,
    /// Whether what comes is the rest of a line above the limit.
    is_in_rest: bool,
    next_line: u64,
}

impl<R: Read> Blocks<R> {
    /// Blocks of `input`; of a longer line than `line_bytes_max` only one byte more is kept.
    pub fn new(input: R, line_bytes_max: usize) -> Self {
        Self { input, line_bytes_max, begun: Vec::new(), is_in_rest: false, next_line: 1 }
    }

    /// The next block, or none at the end.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn next_block(&mut self) -> io::Result<Option<Block>> {
        let mut bytes = std::mem::take(&mut self.begun);
        loop {
            let start = bytes.len();
            bytes.resize(start + READ_BYTES, 0);
            let read = match self.input.read(&mut bytes[start..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
                other => match other? {
                    0 => {
                        bytes.truncate(start);
                        return Ok(self.block(bytes));
                    }
                    read => read,
                },
            };
            bytes.truncate(start + read);
            if self.is_in_rest {
                let end = bytes[start..].iter().position(|&byte| byte == b'\n');
                self.is_in_rest = end.is_none();
                bytes.drain(start..end.map_or(bytes.len(), |end| start + end + 1));
            }
            if let Some(last) = bytes[start..].iter().rposition(|&byte| byte == b'\n') {
                self.begun = bytes.split_off(start + last + 1);
                // The line that ends first here was begun in an earlier read.
                self.shorten_first(&mut bytes);
                return Ok(self.block(bytes));
            }
            if bytes.len() > self.line_bytes_max {
                // Known to be bad: said now, though its end may never come.
                bytes.truncate(self.line_bytes_max + 1);
                bytes.push(b'\n');
                self.is_in_rest = true;
                return Ok(self.block(bytes));
            }
        }
    }

    /// Cuts the first line to one byte above the limit.
    fn shorten_first(&self, bytes: &mut Vec<u8>) {
        let limit = self.line_bytes_max.saturating_add(1);
        if let Some(end) = bytes.iter().position(|&byte| byte == b'\n').filter(|&end| end > limit) {
            bytes.drain(limit..end);
        }
    }

    fn block(&mut self, bytes: Vec<u8>) -> Option<Block> {
        let first_line = self.next_line;
        self.next_line += bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        (!bytes.is_empty()).then_some(Block { first_line, bytes })
    }
}

/// Does `work` on what `source` gives on `threads` threads, and hands the results to `sink` in the
/// order of the source.
///
/// Returns as soon as `sink` fails. A thread that waits for `source` then is left behind, since
/// nobody can wake it: the program is about to end.
///
/// # Errors
///
/// What `sink` returns; it is given the error of `source` in its place.
///
/// # Panics
///
/// If `work` panicked.
pub fn in_order<T, R, E>(
    threads: usize,
    mut source: impl FnMut() -> io::Result<Option<T>> + Send + 'static,
    work: impl Fn(T) -> R + Send + Sync + 'static,
    mut sink: impl FnMut(io::Result<R>) -> Result<(), E>,
) -> Result<(), E>
where
    T: Send + 'static,
    R: Send + 'static,
{
    // One at work and two waiting, before it or after it.
    let (to_workers, jobs) = sync_channel::<(T, SyncSender<R>)>(threads);
    let (to_sink, results) = sync_channel::<io::Result<Receiver<R>>>(2 * threads);
    let jobs = Arc::new(Mutex::new(jobs));
    let work = Arc::new(work);
    for _ in 0..threads {
        let (jobs, work) = (jobs.clone(), work.clone());
        thread::spawn(move || {
            loop {
                let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((block, done)) = job else { return };
                // After the sink has failed nobody waits for it.
                drop(done.send(work(block)));
            }
        });
    }
    thread::spawn(move || {
        loop {
            let (done, result) = sync_channel(1);
            let sent = match source() {
                Ok(None) => return,
                Ok(Some(block)) => {
                    to_sink.send(Ok(result)).is_ok() && to_workers.send((block, done)).is_ok()
                }
                Err(error) => {
                    drop(to_sink.send(Err(error)));
                    return;
                }
            };
            if !sent {
                return;
            }
        }
    });
    for result in results {
        let result = match result {
            Ok(result) => Ok(result.recv().unwrap_or_else(|_| panic!("a thread has panicked"))),
            Err(error) => Err(error),
        };
        sink(result)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives so many bytes a read.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.1.min(buffer.len());
            (&mut self.0).take(len as u64).read(buffer)
        }
    }

    fn lines_of(input: impl Read, line_bytes_max: usize) -> Vec<(u64, Vec<u8>)> {
        let mut blocks = Blocks::new(input, line_bytes_max);
        let mut lines = Vec::new();
        while let Some(block) = blocks.next_block().unwrap() {
            lines.extend(block.lines().map(|(number, line)| (number, line.to_vec())));
        }
        lines
    }

    #[test]
    fn a_line_is_there_as_soon_as_its_end_is() {
        let mut blocks = Blocks::new(Trickle(b"ab\ncd\ne", 4), 100);
        let next = |blocks: &mut Blocks<_>| blocks.next_block().unwrap().unwrap();
        assert_eq!(next(&mut blocks), Block { first_line: 1, bytes: b"ab\n".to_vec() });
        assert_eq!(next(&mut blocks), Block { first_line: 2, bytes: b"cd\n".to_vec() });
        assert_eq!(next(&mut blocks), Block { first_line: 3, bytes: b"e".to_vec() });
        assert_eq!(blocks.next_block().unwrap(), None);
    }

    #[test]
    fn a_line_that_never_ends_is_known_to_be_too_long() {
        let block = Blocks::new(io::repeat(b'x'), 1000).next_block().unwrap().unwrap();
        assert_eq!(block.lines().map(|(_, line)| line.len()).collect::<Vec<_>>(), [1001]);
    }

    #[test]
    fn an_endless_line_takes_no_more_memory_than_the_limit() {
        let endless = io::repeat(b'x').take(1 << 24);
        let input = endless.chain(b"\nnext\n".as_slice());
        let lines = lines_of(input, 1000);
        assert_eq!(lines[0].1.len(), 1001);
        assert_eq!(lines[1], (2, b"next".to_vec()));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn results_come_in_the_order_of_their_source() {
        let mut numbers = (0..500_u32).rev();
        let mut seen = Vec::new();
        let source = move || Ok(numbers.next());
        // Unequal work, so that threads overtake each other.
        let work = |n: u32| (0..(n % 7) * 10_000).fold(n, |sum, i| sum ^ i ^ i);
        let done: Result<(), ()> = in_order(4, source, work, |result| {
            seen.push(result.unwrap());
            Ok(())
        });
        assert_eq!(done, Ok(()));
        assert!(seen.into_iter().eq((0..500).rev()));
    }

    #[test]
    fn a_sink_that_fails_ends_it_though_the_source_goes_on_for_ever() {
        let mut left = 3;
        let ended = in_order(
            2,
            || Ok(Some(())),
            |()| (),
            |_| {
                left -= 1;
                if left == 0 { Err("enough") } else { Ok(()) }
            },
        );
        assert_eq!(ended, Err("enough"));
    }

    #[test]
    fn an_error_of_the_source_comes_after_what_was_read() {
        let mut reads = [Ok(Some(1)), Ok(Some(2)), Err(io::Error::other("torn"))].into_iter();
        let mut heard = Vec::new();
        let source = move || reads.next().unwrap();
        let done: Result<(), ()> = in_order(
            2,
            source,
            |n: i32| n,
            |result| {
                heard.push(result.map_err(|e| e.to_string()));
                Ok(())
            },
        );
        assert_eq!((done, heard), (Ok(()), vec![Ok(1), Ok(2), Err("torn".to_owned())]));
    }

    proptest! {
        #[test]
        fn reads_of_any_size_give_the_same_lines(
            text in "[ab\n]{0,60}",
            size in 1..20_usize,
            line_bytes_max in 1..30_usize,
        ) {
            let shortened = |line: &[u8]| line[..line.len().min(line_bytes_max + 1)].to_vec();
            let whole = text.as_bytes().split_inclusive(|&byte| byte == b'\n');
            let expected: Vec<_> = (1..)
                .zip(whole.map(|line| shortened(line.strip_suffix(b"\n").unwrap_or(line))))
                .collect();
            let found = lines_of(Trickle(text.as_bytes(), size), line_bytes_max);
            let found: Vec<_> = found.into_iter().map(|(n, line)| (n, shortened(&line))).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
