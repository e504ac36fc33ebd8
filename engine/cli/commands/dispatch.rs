//! From the command line to the command.

use crate::args::Cli;
use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// Does what the command line says.
///
/// # Errors
/// Where it cannot be done.
pub fn run(cli: Cli, output: Output) -> Result<Exit, Failure> {
    if let Some(folder) = &cli.directory {
        std::env::set_current_dir(folder).map_err(|error| {
            Failure::usage(format!("cannot work in {}: {error}", folder.display()))
        })?;
    }
    cli.command.run(output)
}
