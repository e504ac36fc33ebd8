//! What a training logs: `history.jsonl`, one object a logged step. No clock in it, since it is part of the
//! artifact; times go to the run's record.

use std::fmt;
use std::io::Write;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What was logged at one step.
///
/// In JSON one flat object: `{"step": 500, "epoch": 0.16, "loss": 0.69, "lr": 0.0008, "grad_norm": 1.2,
/// "eval_loss": 0.68, "eval_accuracy": 0.55}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Optimizer steps done.
    pub step: u64,
    /// Passes over the training split done.
    pub epoch: f64,
    /// The numbers by name, in the order in which they are written.
    pub values: Vec<(String, f64)>,
}

impl Entry {
    /// An entry without numbers yet.
    pub const fn new(step: u64, epoch: f64) -> Self {
        Self {
            step,
            epoch,
            values: Vec::new(),
        }
    }

    /// Adds a number.
    pub fn push(&mut self, name: impl Into<String>, value: f64) {
        self.values.push((name.into(), value));
    }

    /// The number `name`, where there is one.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values
            .iter()
            .find(|(candidate, _)| candidate == name)
            .map(|(_, value)| *value)
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2 + self.values.len()))?;
        map.serialize_entry("step", &self.step)?;
        map.serialize_entry("epoch", &self.epoch)?;
        for (name, value) in &self.values {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `step`, `epoch` and numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
                let mut step = None;
                let mut epoch = None;
                let mut values = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "step" => step = Some(map.next_value()?),
                        "epoch" => epoch = Some(map.next_value()?),
                        // What is no number (an undefined metric) is left out.
                        _ => values.extend(map.next_value::<Option<f64>>()?.map(|v| (name, v))),
                    }
                }
                Ok(Entry {
                    step: step.ok_or_else(|| de::Error::missing_field("step"))?,
                    epoch: epoch.ok_or_else(|| de::Error::missing_field("epoch"))?,
                    values,
                })
            }
        }

        deserializer.deserialize_map(EntryVisitor)
    }
}

/// Writes entries as JSON lines.
///
/// # Errors
/// Those of writing.
pub fn write(mut out: impl Write, entries: &[Entry]) -> std::io::Result<()> {
    for entry in entries {
        serde_json::to_writer(&mut out, entry)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Reads the JSON lines of a history.
///
/// # Errors
/// The number of the line, from 1, that is no entry, and why.
pub fn read(text: &str) -> Result<Vec<Entry>, (usize, serde_json::Error)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| serde_json::from_str(line).map_err(|error| (index + 1, error)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_in_order() {
        let mut entry = Entry::new(7, 1.0 / 3.0);
        entry.push("loss", 0.1 + 0.2);
        entry.push("eval_loss", 1e-300);
        let entries = [entry, Entry::new(8, 2.0)];
        let mut bytes = Vec::new();
        write(&mut bytes, &entries).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text.lines().next().unwrap(),
            r#"{"step":7,"epoch":0.3333333333333333,"loss":0.30000000000000004,"eval_loss":1e-300}"#
        );
        assert_eq!(read(&text).unwrap(), entries);
        assert_eq!(read("{\"step\":1,\"epoch\":0}\n[]").unwrap_err().0, 2);
    }
}
