//! The program `taper`: arguments in, exit code out. Everything that is computed is computed below.

mod args;
mod commands;
mod exit_code;
mod failure;
mod interrupt;
mod locks;
mod metrics;
mod output;
mod prepared;
mod reference;
mod report;
mod style;
mod table;
mod time;
mod workplace;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::exit_code::Exit;
use crate::output::Output;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no mistake; a reader that has gone away is none.
            let _ = error.print();
            let exit = if error.use_stderr() {
                Exit::Invalid
            } else {
                Exit::Done
            };
            return exit.into();
        }
    };
    let output = Output::new(cli.color);
    log(output);
    match commands::run(cli, output) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Logs on stderr what `TAPER_LOG` asks for; without it nothing is set up.
fn log(output: Output) {
    let Some(filter) = std::env::var("TAPER_LOG").ok().filter(|f| !f.is_empty()) else {
        return;
    };
    match tracing_subscriber::EnvFilter::try_new(&filter) {
        Ok(filter) => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(output.err.colours())
            .init(),
        Err(error) => output.warn(format!("TAPER_LOG is not understood: {error}")),
    }
}
