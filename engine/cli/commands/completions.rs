//! `taper completions`.

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// Print completions for a shell.
///
///     taper completions bash > ~/.local/share/bash-completion/completions/taper
///     taper completions zsh > ~/.zfunc/_taper
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Prints them.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "taper", &mut text);
    output.bytes(&text)?;
    Ok(Exit::Done)
}
