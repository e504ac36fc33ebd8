//! Events as words, the same on bars and lines.

use std::collections::BTreeMap;

use taper_engine::{Event, Unit};

use crate::output::Output;
use crate::table;

/// A line that stays, where the event deserves one.
pub fn line(event: &Event, output: &Output) -> Option<String> {
    let style = output.err;
    Some(match event {
        Event::StageFinished { cached: true, .. } | Event::Progress { .. } => return None,
        Event::StageStarted { stage, kind, .. } => {
            format!("{} {stage} {}", style.faint("start"), style.faint(kind))
        }
        Event::StageWaits { stage, reason } => {
            format!("{}  {stage}: {reason}", style.faint("wait"))
        }
        Event::StageFinished {
            stage,
            kind,
            seconds,
            ..
        } => format!(
            "{}  {stage} {} {}",
            style.good("done"),
            style.faint(kind),
            table::seconds(*seconds)
        ),
        Event::StageFailed {
            stage,
            kind,
            message,
            help,
            retried,
        } => {
            let mut text = if *retried {
                format!("{} {stage}: {message}", style.warning("retry"))
            } else {
                format!(
                    "{} {stage} {}: {message}",
                    style.bad("error"),
                    style.faint(kind)
                )
            };
            if let Some(help) = help {
                text.push_str(&format!("\n  {}: {help}", style.hint("help")));
            }
            text
        }
        Event::StageSkipped { stage, because } => {
            format!(
                "{}  {stage}, since {because} has no result",
                style.faint("skip")
            )
        }
        Event::Metrics {
            stage,
            step,
            values,
        } => {
            if !values.keys().any(|name| name.starts_with("eval_")) {
                return None;
            }
            format!("      {stage} step {step} {}", style.faint(numbers(values)))
        }
        Event::Note { stage, text } => format!("      {stage}: {text}"),
        Event::Warning {
            stage: Some(stage),
            text,
        } => format!("{}: {stage}: {text}", style.warning("warning")),
        Event::Warning { stage: None, text } => format!("{}: {text}", style.warning("warning")),
    })
}

/// Measures by name, in one line.
pub fn numbers(values: &BTreeMap<String, f64>) -> String {
    let parts: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("{name} {}", table::number(*value)))
        .collect();
    parts.join("  ")
}

/// So much of something: `12.0 MiB`, `1200 rows`.
pub fn amount(value: u64, unit: Unit) -> String {
    let name = match unit {
        Unit::Bytes => return table::bytes(value),
        Unit::Rows => "rows",
        Unit::Steps => "steps",
        Unit::Files => "files",
    };
    format!("{value} {name}")
}
