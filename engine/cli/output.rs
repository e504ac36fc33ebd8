//! What the program writes: data on stdout, talk on stderr. A reader that has gone away is no error.

use std::io::{ErrorKind, Write as _};

use serde::Serialize;

use crate::failure::{Failure, Told};
use crate::style::{Style, When};
use taper_engine::diagnostic::{Look, Report};

/// The widest that text is set where nobody says how wide the terminal is.
const WIDTH: usize = 100;

/// How the program talks.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// How text on stdout is set off.
    pub out: Style,
    /// How text on stderr is set off.
    pub err: Style,
}

impl Output {
    /// The output of a program that was asked for colours in this way.
    pub fn new(when: When) -> Self {
        Self {
            out: Style::stdout(when),
            err: Style::stderr(when),
        }
    }

    /// Writes data, with a line end where there is none.
    ///
    /// # Errors
    /// Those of writing, but for a reader that has gone away.
    pub fn data(&self, text: impl AsRef<str>) -> Result<(), Failure> {
        let text = text.as_ref();
        let end = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        self.bytes(format!("{text}{end}").as_bytes())
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// Those of writing, but for a reader that has gone away.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }

    /// Writes one JSON object, on lines of its own.
    ///
    /// # Errors
    /// Those of writing.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).expect("plain values are JSON");
        self.data(text)
    }

    /// Writes one JSON object on one line.
    ///
    /// # Errors
    /// Those of writing.
    pub fn json_line(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).expect("plain values are JSON");
        self.data(text)
    }

    /// Says something to a person. Where stderr is closed, nobody listens.
    pub fn say(&self, text: impl AsRef<str>) {
        let mut stderr = std::io::stderr().lock();
        let _ = writeln!(stderr, "{}", text.as_ref());
    }

    /// Says a warning.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.say(format!(
            "{}: {}",
            self.err.warning("warning"),
            text.as_ref()
        ));
    }

    /// Says a remedy.
    pub fn help(&self, text: impl AsRef<str>) {
        self.say(format!("  {}: {}", self.err.hint("help"), text.as_ref()));
    }

    /// Says problems of a pipeline.
    pub fn report(&self, report: &Report) {
        let look = if self.err.colours() {
            Look::Colours
        } else {
            Look::Plain
        };
        let text = report.render(look, WIDTH);
        self.say(text.trim_end_matches('\n'));
    }

    /// Says why a command ends early.
    pub fn failure(&self, failure: &Failure) {
        match &failure.told {
            Told::Message { message, help } => {
                self.say(format!("{}: {message}", self.err.bad("error")));
                if let Some(help) = help {
                    self.help(help);
                }
            }
            Told::Report(report) => self.report(report),
        }
    }
}
