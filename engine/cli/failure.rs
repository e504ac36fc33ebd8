//! What ends a command early: what happened, what to do about it, and the exit code.

use std::fmt;

use taper_cache::error::CacheError;
use taper_engine::EngineError;
use taper_engine::diagnostic::Report;

use crate::exit_code::Exit;

/// Why a command could not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What is told on stderr.
    pub told: Told,
}

/// What is told about a failure.
#[derive(Debug)]
pub enum Told {
    /// One sentence, and a remedy.
    Message {
        /// What happened.
        message: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// Problems of a pipeline, each with its place.
    Report(Box<Report>),
}

impl Failure {
    /// A failure with a sentence.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            told: Told::Message {
                message: message.into(),
                help: None,
            },
        }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Invalid, message)
    }

    /// A pipeline that cannot run.
    pub fn invalid(report: Report) -> Self {
        Self {
            exit: Exit::Invalid,
            told: Told::Report(Box::new(report)),
        }
    }

    /// With a remedy.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        if let Told::Message { help, .. } = &mut self.told {
            *help = Some(text.into());
        }
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.told {
            Told::Message { message, .. } => f.write_str(message),
            Told::Report(_) => f.write_str("the pipeline is invalid"),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let help = error.help();
        let exit = match &error {
            EngineError::Cache(error) => exit_of(error),
            _ => Exit::Invalid,
        };
        let failure = Self::new(exit, error.to_string());
        match help {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        EngineError::from(error).into()
    }
}

/// A prefix that means nothing and an export that leaves the project are the user's; the rest is the
/// cache's.
fn exit_of(error: &CacheError) -> Exit {
    match error {
        CacheError::Missing { what: "run", .. }
        | CacheError::Ambiguous { .. }
        | CacheError::NotAPrefix(_)
        | CacheError::UnsafeExport { .. } => Exit::Invalid,
        _ => Exit::Cache,
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::StageFailed, error.to_string())
    }
}

impl From<taper_engine::StageError> for Failure {
    fn from(error: taper_engine::StageError) -> Self {
        use taper_engine::StageErrorKind;
        let exit = match error.kind {
            StageErrorKind::Invalid => Exit::Invalid,
            StageErrorKind::Failed | StageErrorKind::Transient => Exit::StageFailed,
            StageErrorKind::Interrupted => Exit::Interrupted,
            StageErrorKind::Damaged => Exit::Cache,
        };
        let failure = Self::new(exit, error.message);
        match error.help {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}
