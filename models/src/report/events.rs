//! Event files, as TensorBoard reads them: numbers over the steps of a run.

use super::ReportError;
use crc::{Crc, CRC_32_ISCSI};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::PathBuf,
    time::SystemTime,
};

/// The checksum of TFRecords.
const CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Numbers by name and step, which grow with a run.
///
/// A file is a row of TFRecords, each an `Event` of TensorFlow's `event.proto`. It is written at
/// its end only, so that TensorBoard can follow it; what could not be written is written the next
/// time. All of it stays in memory, about 70 bytes a number, so that a file that was removed or cut
/// is whole again.
///
/// ```
/// use tlr_models::report::EventFile;
///
/// let dir = tempfile::tempdir()?;
/// let mut events = EventFile::new(dir.path().join("events.out.tfevents.run"));
/// events.scalar("loss/test", 100, 0.25);
/// events.write()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    bytes: Vec<u8>,
    /// How many of these bytes are certain to be in the file.
    written: usize,
}

impl EventFile {
    /// An event file that will be at `path`, whose name has to contain `tfevents` for TensorBoard.
    /// Nothing is written yet.
    ///
    /// Example: [`EventFile`].
    pub fn new(path: PathBuf) -> Self {
        let mut events = Self { path, bytes: Vec::new(), written: 0 };
        // Every event file begins with this event.
        events.event(0, |event| bytes(event, FILE_VERSION, b"brain.Event:2"));
        events
    }

    /// Adds a number, named as TensorBoard groups them: `loss/test` and `loss/train` stand
    /// together.
    ///
    /// Example: [`EventFile`].
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) {
        let mut scalar = Vec::new();
        bytes(&mut scalar, TAG, tag.as_bytes());
        key(&mut scalar, SIMPLE_VALUE, FOUR_BYTES);
        // The format has room for an f32.
        scalar.extend((value as f32).to_le_bytes());
        let mut summary = Vec::new();
        bytes(&mut summary, VALUE, &scalar);
        self.event(step, |event| bytes(event, SUMMARY, &summary));
    }

    /// Writes what was added. The first time, a file that was there before is replaced.
    ///
    /// # Errors
    /// [`ReportError::Io`].
    ///
    /// Example: [`EventFile`].
    pub fn write(&mut self) -> Result<(), ReportError> {
        let written = self.append();
        written.map_err(|source| ReportError::Io { path: self.path.clone(), source })?;
        self.written = self.bytes.len();
        Ok(())
    }

    fn append(&self) -> io::Result<()> {
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(false).open(&self.path)?;
        // The file may end in a part of a record, if the disk was full, and it may have been
        // removed.
        let there = file.metadata()?.len() >= self.written as u64;
        let (written, rest) = self.bytes.split_at(if there { self.written } else { 0 });
        file.set_len(written.len() as u64)?;
        file.seek(SeekFrom::Start(written.len() as u64))?;
        file.write_all(rest)
    }

    fn event(&mut self, step: u64, what: impl FnOnce(&mut Vec<u8>)) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut event = Vec::new();
        key(&mut event, WALL_TIME, EIGHT_BYTES);
        event.extend(now.as_secs_f64().to_le_bytes());
        key(&mut event, STEP, VARINT);
        varint(&mut event, step);
        what(&mut event);
        let length = (event.len() as u64).to_le_bytes();
        self.bytes.extend(length);
        self.bytes.extend(masked(&length).to_le_bytes());
        self.bytes.extend(&event);
        self.bytes.extend(masked(&event).to_le_bytes());
    }
}

/// TFRecord's masked CRC: safe over data that contains CRCs.
fn masked(bytes: &[u8]) -> u32 {
    CASTAGNOLI.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

// Protocol buffers: the numbers of the fields that are used, and how a field is encoded.

/// Field numbers of `Event`.
const WALL_TIME: u8 = 1;
const STEP: u8 = 2;
const FILE_VERSION: u8 = 3;
const SUMMARY: u8 = 5;
/// The field number of `Summary`.
const VALUE: u8 = 1;
/// Field numbers of `Summary.Value`.
const TAG: u8 = 1;
const SIMPLE_VALUE: u8 = 2;

const VARINT: u8 = 0;
const EIGHT_BYTES: u8 = 1;
const WITH_LENGTH: u8 = 2;
const FOUR_BYTES: u8 = 5;

fn key(to: &mut Vec<u8>, field: u8, encoding: u8) {
    to.push(field << 3 | encoding);
}

/// Seven bits a byte, the lowest first; all but the last have the eighth set.
fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn bytes(to: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    key(to, field, WITH_LENGTH);
    varint(to, bytes.len() as u64);
    to.extend(bytes);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    // From RFC 3720, B.4, and from TensorFlow's `crc32c_test.cc`.
    #[test]
    fn the_sum_is_castagnolis() {
        assert_eq!(CASTAGNOLI.checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(CASTAGNOLI.checksum(b"123456789"), 0xe306_9283);
    }

    // By hand from event.proto and summary.proto. Fails if a field has another number or encoding.
    #[test]
    fn an_event_is_a_protocol_buffer() {
        let mut events = EventFile::new(PathBuf::new());
        let first = events.bytes.len();
        events.scalar("a/b", 300, 0.5);
        let event = &events.bytes[first + 12..events.bytes.len() - 4];
        let after_time = [
            &[0x10, 0xac, 0x02][..],         // step: 300
            &[0x2a, 0x0c, 0x0a, 0x0a],       // summary: value:
            &[0x0a, 0x03, b'a', b'/', b'b'], // tag
            &[0x15, 0x00, 0x00, 0x00, 0x3f], // simple_value: 0.5
        ];
        assert_eq!(event[0], 0x09);
        assert_eq!(event[9..], after_time.concat());
        assert_eq!(events.bytes[first..first + 8], (event.len() as u64).to_le_bytes());
    }

    // Fails if a record is lost or written twice, or if an earlier file's end is left.
    #[test]
    fn what_could_not_be_written_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/events.tfevents");
        let mut events = EventFile::new(path.clone());
        events.scalar("a", 1, 1.0);
        let all = events.bytes.clone();
        assert!(events.write().is_err());
        fs::create_dir(dir.path().join("new")).unwrap();
        fs::write(&path, [7; 500]).unwrap();
        events.write().unwrap();
        assert_eq!(fs::read(&path).unwrap(), all);
        events.scalar("a", 2, 2.0);
        assert_eq!(events.bytes[..all.len()], all);
        let all = events.bytes.clone();
        // As if half a record had been written.
        fs::write(&path, &all[..all.len() - 9]).unwrap();
        events.write().unwrap();
        assert_eq!(fs::read(&path).unwrap(), all);
        fs::remove_file(&path).unwrap();
        events.write().unwrap();
        assert_eq!(fs::read(&path).unwrap(), all);
    }
}
