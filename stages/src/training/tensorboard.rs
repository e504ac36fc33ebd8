//! TensorBoard event files: scalars by step, for whoever wants live curves in a browser.
//!
//! They carry the clock, so they are part of the run's record and of no artifact. A file is a sequence of
//! TFRecords, each the bytes of an `Event` message; the few protocol buffer fields that scalars need are
//! written by hand. Formats: `tensorflow/core/util/event.proto`, `tensorflow/core/framework/summary.proto`
//! and `tensorflow/core/lib/io/record_writer.h`.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use fs_err::File;

use super::history::Entry;

/// The file's name: TensorBoard reads whatever has `tfevents` in its name.
pub const FILE: &str = "events.out.tfevents.0.taper";

/// An event file that grows as training goes on.
#[derive(Debug)]
pub struct EventFile {
    file: BufWriter<File>,
}

impl EventFile {
    /// Begins the event file in `folder`, with what was logged before; an older file there is replaced, so
    /// that a resumed training shows each step once.
    ///
    /// # Errors
    /// Those of writing.
    pub fn create(folder: &Path, history: &[Entry]) -> std::io::Result<Self> {
        fs_err::create_dir_all(folder)?;
        let mut events = Self {
            file: BufWriter::new(File::create(folder.join(FILE))?),
        };
        let mut version = Vec::new();
        put_double(&mut version, EVENT_WALL_TIME, wall_time());
        put_bytes(&mut version, EVENT_FILE_VERSION, b"brain.Event:2");
        events.record(&version)?;
        for entry in history {
            events.write(entry)?;
        }
        events.file.flush()?;
        Ok(events)
    }

    /// Adds the scalars of one entry and flushes, so that they can be seen at once.
    ///
    /// # Errors
    /// Those of writing.
    pub fn add(&mut self, entry: &Entry) -> std::io::Result<()> {
        self.write(entry)?;
        self.file.flush()
    }

    fn write(&mut self, entry: &Entry) -> std::io::Result<()> {
        let mut summary = Vec::new();
        for (name, value) in &entry.values {
            let tag = match name.strip_prefix("eval_") {
                Some(metric) => format!("eval/{metric}"),
                None => format!("train/{name}"),
            };
            let mut scalar = Vec::new();
            put_bytes(&mut scalar, VALUE_TAG, tag.as_bytes());
            put_float(&mut scalar, VALUE_SIMPLE, *value as f32);
            put_bytes(&mut summary, SUMMARY_VALUE, &scalar);
        }
        let mut event = Vec::new();
        put_double(&mut event, EVENT_WALL_TIME, wall_time());
        put_varint_field(&mut event, EVENT_STEP, entry.step);
        put_bytes(&mut event, EVENT_SUMMARY, &summary);
        self.record(&event)
    }

    /// A TFRecord: length, its masked CRC, the data, its masked CRC.
    fn record(&mut self, data: &[u8]) -> std::io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        self.file.write_all(&length)?;
        self.file.write_all(&masked_crc(&length).to_le_bytes())?;
        self.file.write_all(data)?;
        self.file.write_all(&masked_crc(data).to_le_bytes())
    }
}

fn wall_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

const EVENT_WALL_TIME: u64 = 1;
const EVENT_STEP: u64 = 2;
const EVENT_FILE_VERSION: u64 = 3;
const EVENT_SUMMARY: u64 = 5;
const SUMMARY_VALUE: u64 = 1;
const VALUE_TAG: u64 = 1;
const VALUE_SIMPLE: u64 = 2;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_varint_field(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

fn put_double(out: &mut Vec<u8>, field: u64, value: f64) {
    put_varint(out, field << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_float(out: &mut Vec<u8>, field: u64, value: f32) {
    put_varint(out, field << 3 | 5);
    out.extend(value.to_le_bytes());
}

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), rotated and offset as TFRecords have it.
fn masked_crc(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 {
                    crc >> 1 ^ 0x82F6_3B78
                } else {
                    crc >> 1
                };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    let crc = !data.iter().fold(u32::MAX, |crc, &byte| {
        TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8
    });
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One field of a message: its number and its bytes (a varint's are its value's, little-endian).
    fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(message: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = message[0];
                *message = &message[1..];
                value |= u64::from(byte & 0x7F) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !message.is_empty() {
            let tag = varint(&mut message);
            let bytes = match tag & 7 {
                0 => varint(&mut message).to_le_bytes().to_vec(),
                wire => {
                    let len = match wire {
                        1 => 8,
                        2 => usize::try_from(varint(&mut message)).unwrap(),
                        5 => 4,
                        other => panic!("wire type {other}"),
                    };
                    let (bytes, rest) = message.split_at(len);
                    message = rest;
                    bytes.to_vec()
                }
            };
            found.push((tag >> 3, bytes));
        }
        found
    }

    fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while !file.is_empty() {
            let len = u64::from_le_bytes(file[..8].try_into().unwrap());
            let length_crc = u32::from_le_bytes(file[8..12].try_into().unwrap());
            assert_eq!(length_crc, masked_crc(&file[..8]));
            let end = 12 + usize::try_from(len).unwrap();
            let data_crc = u32::from_le_bytes(file[end..end + 4].try_into().unwrap());
            assert_eq!(data_crc, masked_crc(&file[12..end]));
            records.push(file[12..end].to_vec());
            file = &file[end + 4..];
        }
        records
    }

    #[test]
    fn crc_is_castagnoli_s() {
        // RFC 3720, B.4: 32 bytes of zeros have the CRC 0x8A9136AA.
        let unmasked = masked_crc(&[0; 32])
            .wrapping_sub(0xA282_EAD8)
            .rotate_left(15);
        assert_eq!(unmasked, 0x8A91_36AA);
    }

    #[test]
    fn scalars_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Entry::new(300, 0.5);
        first.push("loss", 0.25);
        let mut second = Entry::new(301, 0.75);
        second.push("eval_accuracy", 0.5);
        let mut file = EventFile::create(folder.path(), std::slice::from_ref(&first)).unwrap();
        file.add(&second).unwrap();
        let bytes = fs_err::read(folder.path().join(FILE)).unwrap();
        let records = records(&bytes);
        assert_eq!(records.len(), 3);
        assert_eq!(fields(&records[0])[1], (3, b"brain.Event:2".to_vec()));
        let scalars: Vec<_> = records[1..]
            .iter()
            .map(|record| {
                let event = fields(record);
                let step = u64::from_le_bytes(event[1].1.clone().try_into().unwrap());
                let value = fields(&fields(&event[2].1)[0].1);
                let tag = String::from_utf8(value[0].1.clone()).unwrap();
                let number = f32::from_le_bytes(value[1].1.clone().try_into().unwrap());
                (step, tag, number)
            })
            .collect();
        assert_eq!(
            scalars,
            [
                (300, "train/loss".to_owned(), 0.25),
                (301, "eval/accuracy".to_owned(), 0.5)
            ]
        );
    }
}
