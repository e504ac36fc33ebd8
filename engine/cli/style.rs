//! Colours: few, and only where a person reads.

use std::fmt;
use std::io::IsTerminal as _;

/// When there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// Where a terminal reads, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How text is set off on one of the program's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colours: Colours,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colours {
    On,
    Off,
}

impl Style {
    /// That of standard output.
    pub fn stdout(when: When) -> Self {
        Self::of(when, std::io::stdout().is_terminal())
    }

    /// That of standard error.
    pub fn stderr(when: When) -> Self {
        Self::of(when, std::io::stderr().is_terminal())
    }

    fn of(when: When, terminal: bool) -> Self {
        let wanted = match when {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
                    || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
                terminal && !refused
            }
        };
        Self {
            colours: if wanted { Colours::On } else { Colours::Off },
        }
    }

    /// Whether text is set off at all.
    pub fn colours(self) -> bool {
        self.colours == Colours::On
    }

    /// What matters most.
    pub fn strong(self, text: impl fmt::Display) -> String {
        self.paint("1", text)
    }

    /// What matters least.
    pub fn faint(self, text: impl fmt::Display) -> String {
        self.paint("2", text)
    }

    /// What went well.
    pub fn good(self, text: impl fmt::Display) -> String {
        self.paint("32", text)
    }

    /// What wants to be read.
    pub fn warning(self, text: impl fmt::Display) -> String {
        self.paint("33", text)
    }

    /// What went wrong.
    pub fn bad(self, text: impl fmt::Display) -> String {
        self.paint("1;31", text)
    }

    /// A remedy, a place.
    pub fn hint(self, text: impl fmt::Display) -> String {
        self.paint("36", text)
    }

    fn paint(self, code: &str, text: impl fmt::Display) -> String {
        match self.colours {
            Colours::On => format!("\x1b[{code}m{text}\x1b[0m"),
            Colours::Off => text.to_string(),
        }
    }
}
