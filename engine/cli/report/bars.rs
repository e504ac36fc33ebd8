//! Bars on a terminal: one a stage that runs, with rate and time left, below the lines that stay.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use taper_engine::{Event, Unit};

use super::reporter::Show;
use super::words;
use crate::output::Output;

/// Shows events as bars.
pub struct Bars {
    output: Output,
    /// Made with the first stage that runs: where everything is cached, the terminal is left alone.
    screen: Option<MultiProgress>,
    bars: BTreeMap<String, Bar>,
}

struct Bar {
    bar: ProgressBar,
    label: String,
    numbers: String,
    kind: &'static str,
}

impl Bars {
    /// Nothing yet.
    pub fn new(output: Output) -> Self {
        Self {
            output,
            screen: None,
            bars: BTreeMap::new(),
        }
    }

    fn begin(&mut self, stage: &str, kind: &'static str) {
        let screen = self.screen.get_or_insert_with(|| {
            MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10))
        });
        let bar = screen.add(ProgressBar::new_spinner());
        bar.set_style(waiting());
        bar.set_prefix(stage.to_owned());
        bar.set_message(kind);
        let fresh = Bar {
            bar,
            label: String::new(),
            numbers: String::new(),
            kind,
        };
        self.bars.insert(stage.to_owned(), fresh);
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
        // What is resolved outside has progress before its stage begins.
        if !self.bars.contains_key(stage) {
            self.begin(stage, "");
        }
        let Some(shown) = self.bars.get_mut(stage) else {
            return;
        };
        if shown.label != *label {
            shown.label.clone_from(label);
            shown.bar.reset();
            match total {
                Some(total) => {
                    shown.bar.set_length(*total);
                    shown.bar.set_style(known(*unit));
                }
                None => {
                    shown.bar.unset_length();
                    shown.bar.set_style(unknown(*unit));
                }
            }
        }
        shown.bar.set_position(*done);
        shown.tell();
    }
}

impl Bar {
    fn tell(&self) {
        let what = if self.label.is_empty() {
            self.kind
        } else {
            &self.label
        };
        let gap = if self.numbers.is_empty() { "" } else { "  " };
        self.bar.set_message(format!("{what}{gap}{}", self.numbers));
    }
}

impl Show for Bars {
    fn show(&mut self, event: Event) {
        match &event {
            Event::StageStarted { stage, kind, .. } => {
                if let Some(old) = self.bars.remove(stage) {
                    old.bar.finish_and_clear();
                }
                self.begin(stage, kind);
                return;
            }
            Event::Progress { .. } => return self.progress(&event),
            Event::Metrics { stage, values, .. } => {
                if let Some(shown) = self.bars.get_mut(stage) {
                    shown.numbers = words::numbers(values);
                    shown.tell();
                }
            }
            Event::StageFinished { stage, .. }
            | Event::StageFailed { stage, .. }
            | Event::StageSkipped { stage, .. } => {
                if let Some(shown) = self.bars.remove(stage) {
                    shown.bar.finish_and_clear();
                }
            }
            Event::StageWaits { .. } | Event::Note { .. } | Event::Warning { .. } => {}
        }
        let Some(line) = words::line(&event, &self.output) else {
            return;
        };
        match &self.screen {
            Some(screen) => screen.suspend(|| self.output.say(line)),
            None => self.output.say(line),
        }
    }

    fn turn(&mut self) {
        for shown in self.bars.values() {
            shown.bar.tick();
        }
    }

    fn end(&mut self) {
        for shown in self.bars.values() {
            shown.bar.finish_and_clear();
        }
        self.bars.clear();
    }
}

fn waiting() -> ProgressStyle {
    style("{spinner} {prefix} {msg:.dim} {elapsed:.dim}")
}

fn unknown(unit: Unit) -> ProgressStyle {
    match unit {
        Unit::Bytes => style("{spinner} {prefix} {binary_bytes} {binary_bytes_per_sec} {msg:.dim}"),
        unit => style("{spinner} {prefix} {human_pos} {unit} {rate} {msg:.dim}").with_key(
            "unit",
            move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(name(unit));
            },
        ),
    }
}

fn known(unit: Unit) -> ProgressStyle {
    match unit {
        Unit::Bytes => style(
            "{spinner} {prefix} [{bar:24}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {left} left {msg:.dim}",
        ),
        unit => {
            style("{spinner} {prefix} [{bar:24}] {pos}/{len} {unit} {rate} {left} left {msg:.dim}")
                .with_key(
                    "unit",
                    move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                        let _ = out.write_str(name(unit));
                    },
                )
        }
    }
}

const fn name(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "bytes",
        Unit::Rows => "rows",
        Unit::Steps => "steps",
        Unit::Files => "files",
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates are fixed")
        .progress_chars("━╸ ")
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
        .with_key(
            "rate",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let rate = state.per_sec();
                let _ = match rate {
                    rate if rate >= 100.0 => write!(out, "{rate:.0}/s"),
                    rate => write!(out, "{rate:.1}/s"),
                };
            },
        )
        .with_key(
            "left",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let left = crate::table::seconds(state.eta().as_secs_f64().round());
                let _ = out.write_str(if state.pos() == 0 { "?" } else { &left });
            },
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_one() {
        for unit in [Unit::Bytes, Unit::Rows, Unit::Steps, Unit::Files] {
            let _ = (known(unit), unknown(unit), waiting());
        }
    }
}
