//! Plain lines, where stderr is no terminal: what begins, what ends, and now and then how far it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use taper_engine::Event;

use super::reporter::Show;
use super::words;
use crate::output::Output;

/// How often progress of one stage is worth a line.
const EVERY: Duration = Duration::from_secs(10);

/// Shows events as lines.
pub struct Lines {
    output: Output,
    loudness: Loudness,
    /// When progress of each stage was told last.
    told: BTreeMap<String, Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Loudness {
    All,
    Trouble,
}

impl Lines {
    /// Everything.
    pub fn new(output: Output) -> Self {
        Self {
            output,
            loudness: Loudness::All,
            told: BTreeMap::new(),
        }
    }

    /// Only what wants to be read.
    pub fn quiet(output: Output) -> Self {
        Self {
            loudness: Loudness::Trouble,
            ..Self::new(output)
        }
    }

    fn progress(&mut self, event: &Event) {
        let Event::Progress {
            stage,
            label,
            done,
            total,
            unit,
        } = event
        else {
            return;
        };
        let now = Instant::now();
        let last = self.told.entry(stage.clone()).or_insert(now);
        if now.duration_since(*last) < EVERY {
            return;
        }
        *last = now;
        let done = words::amount(*done, *unit);
        let text = match total {
            Some(total) => format!("{done} of {}", words::amount(*total, *unit)),
            None => done,
        };
        self.output.say(format!("      {stage} {label}: {text}"));
    }
}

impl Show for Lines {
    fn show(&mut self, event: Event) {
        let trouble = matches!(event, Event::Warning { .. } | Event::StageFailed { .. });
        if self.loudness == Loudness::Trouble && !trouble {
            return;
        }
        if let Some(line) = words::line(&event, &self.output) {
            self.output.say(line);
        }
        self.progress(&event);
    }

    fn end(&mut self) {}
}
