//! TensorBoard's event files.
//!
//! In: numbers with a tag and a step. Out: a file of TFRecords, each an `Event` of TensorBoard.
//! Never: reads one; images, text or graphs.
//!
//! A record is its length (u64, little-endian), the masked CRC-32C of these 8 bytes, the data and
//! the masked CRC-32C of the data. An `Event` has the fields 1 wall time (double), 2 step (int64),
//! 3 version (string) or 5 summary; a summary has values of 1 tag (string) and 2 number (float).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the first event of a file says.
const VERSION: &[u8] = b"brain.Event:2";
/// Added to a CRC-32C that was turned right by 15 bits: so that a record of records is no record.
const MASK_DELTA: u32 = 0xa282_ead8;

/// Wire types of protocol buffers.
const VARINT: u8 = 0;
const EIGHT_BYTES: u8 = 1;
const COUNTED: u8 = 2;
const FOUR_BYTES: u8 = 5;

/// An open event file.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// Begins the file at `path` anew.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        let mut events = Self { file };
        events.put(&event(now(), 0, 3, VERSION))?;
        Ok(events)
    }

    /// Writes the numbers of a step.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn add(&mut self, step: u64, numbers: &[(&str, f64)]) -> std::io::Result<()> {
        let mut summary = Vec::new();
        for (tag, number) in numbers {
            let mut value = Vec::new();
            counted(&mut value, 1, tag.as_bytes());
            key(&mut value, 2, FOUR_BYTES);
            value.extend((*number as f32).to_le_bytes());
            counted(&mut summary, 1, &value);
        }
        self.put(&event(now(), step, 5, &summary))
    }

    fn put(&mut self, data: &[u8]) -> std::io::Result<()> {
        self.file.write_all(&record(data))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn event(wall_secs: f64, step: u64, field: u8, content: &[u8]) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, 1, EIGHT_BYTES);
    event.extend(wall_secs.to_le_bytes());
    // A number of 0 is left out.
    if step != 0 {
        key(&mut event, 2, VARINT);
        varint(&mut event, step);
    }
    counted(&mut event, field, content);
    event
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked(data).to_le_bytes());
    record
}

fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(MASK_DELTA)
}

fn key(out: &mut Vec<u8>, field: u8, wire_type: u8) {
    out.push(field << 3 | wire_type);
}

fn counted(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    key(out, field, COUNTED);
    varint(out, content.len() as u64);
    out.extend(content);
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorBoard's own writer gives for these two events; made by `golden/make_events.py`.
    #[test]
    fn records_are_those_of_tensorboard() {
        let mut summary = Vec::new();
        let mut value = Vec::new();
        counted(&mut value, 1, b"loss");
        key(&mut value, 2, FOUR_BYTES);
        value.extend(1.5_f32.to_le_bytes());
        counted(&mut summary, 1, &value);
        let records =
            [record(&event(1.0, 0, 3, VERSION)), record(&event(2.0, 300, 5, &summary))].concat();
        let expected: String = include_str!("../golden/events.hex").split_whitespace().collect();
        let found: String = records.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_that_is_begun_anew_holds_nothing_older() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        EventFile::create(&path).unwrap().add(1, &[("a", 1.0), ("b", 2.0)]).unwrap();
        let longer = std::fs::metadata(&path).unwrap().len();
        EventFile::create(&path).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < longer);
    }
}
