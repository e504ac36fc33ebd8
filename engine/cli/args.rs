//! The command line: what all commands share. Each command's own arguments are in its file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use taper_engine::check::Options;

use crate::commands;
use crate::exit_code;
use crate::style::When;

/// Reproducible machine learning pipelines: a YAML file in git, a run that does only what
/// changed, and a hash that anybody can reproduce.
///
///     taper new demo && cd demo
///     taper run pipeline.yaml
#[derive(Debug, Parser)]
#[command(
    name = "taper",
    version,
    after_help = exit_code::HELP,
    verbatim_doc_comment,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// When to use colours.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        value_name = "WHEN",
        hide_possible_values = true
    )]
    pub color: When,
    /// Work as if started in this folder.
    #[arg(short = 'C', long, global = true, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

macro_rules! commands {
    ($($(#[$meta:meta])* $name:ident = $module:ident),* $(,)?) => {
        /// The commands, in the order in which they are listed.
        #[derive(Debug, Subcommand)]
        pub enum Command {
            $($(#[$meta])* $name(commands::$module::Args),)*
        }

        impl Command {
            /// Does it.
            ///
            /// # Errors
            /// Where it cannot be done.
            pub fn run(
                self,
                output: crate::output::Output,
            ) -> Result<crate::exit_code::Exit, crate::failure::Failure> {
                match self {
                    $(Self::$name(args) => commands::$module::run(args, output),)*
                }
            }
        }
    };
}

commands! {
    New = new,
    Check = check,
    Plan = plan,
    Run = run,
    Explain = explain,
    Graph = graph,
    Log = log,
    Show = show,
    Diff = diff,
    Compare = compare,
    Reproduce = reproduce,
    Export = export,
    Cat = cat,
    Predict = predict,
    Gc = gc,
    Verify = verify,
    Doctor = doctor,
    Stages = stages,
    Schema = schema,
    Completions = completions,
    #[command(hide = true)]
    Exec = exec,
}

/// A pipeline, and what the command line changes in it.
#[derive(Clone, Debug, clap::Args)]
pub struct PipelineArgs {
    /// The pipeline file.
    pub file: PathBuf,
    /// Set a param: `--set lr=3e-4`. Again for more.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Only this variant of the matrix: `--variant lr=1e-3`. Again for more names.
    #[arg(long, value_name = "NAME=VALUE")]
    pub variant: Vec<String>,
}

impl PipelineArgs {
    /// What the engine is told.
    pub fn options(&self) -> Options {
        Options {
            set: self.set.clone(),
            variant: self.variant.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_with_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_long_about().unwrap_or_default().to_string();
            let name = command.get_name();
            assert!(
                help.contains(&format!("    taper {name}")),
                "{name}: {help}"
            );
        }
    }
}
