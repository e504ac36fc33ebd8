//! Every exit code of the program.

use std::process::ExitCode;

/// How the program ends, as scripts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Done,
    /// A stage failed; what does not depend on it may have run.
    StageFailed,
    /// The command line or the pipeline is wrong; nothing ran.
    Invalid,
    /// A reproduction gave other bytes.
    Differs,
    /// The cache or a remote is damaged or cannot be reached.
    Cache,
    /// The user stopped it; what was done is kept.
    Interrupted,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::StageFailed => 1,
            Self::Invalid => 2,
            Self::Differs => 3,
            Self::Cache => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// For `taper --help`.
pub const HELP: &str = "\
Exit codes:
  0    done
  1    a stage failed
  2    wrong usage, or an invalid pipeline
  3    a reproduction differs
  4    the cache is damaged or cannot be used
  130  interrupted

Environment:
  TAPER_CACHE   the cache's folder; default: .taper in the project's root
  TAPER_LOG     what is logged on stderr: error, warn, info, debug, trace, or a filter
  HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE   as everywhere with Hugging Face
  NO_COLOR      no colours";
