//! `taper stages`.

use std::path::PathBuf;

use serde_json::json;
use taper_engine::diagnostic::suggest;
use taper_engine::reference::settings;

use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::reference::{self, index, pages, summary};
use crate::table::{Rows, Tone};

/// List the kinds of stages and what may stand beside them, or explain one: its parameters, an example.
///
///     taper stages
///     taper stages train
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A kind; without it, all are listed.
    kind: Option<String>,
    /// Write a Markdown page of each kind, and one that leads to them, into this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "kind")]
    markdown: Option<PathBuf>,
    /// Tell a program: [{"name", "text", "example"}].
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
}

/// Lists or explains.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let mut pages = pages();
    if let Some(folder) = &args.markdown {
        let first = folder.join("README.md");
        let is_ours = |text: String| text.starts_with(reference::TITLE);
        if first.exists() && !fs_err::read_to_string(&first).is_ok_and(is_ours) {
            let message = format!("{} is there already, and none of taper's", first.display());
            return Err(Failure::usage(message).help("give a folder for these pages alone"));
        }
        fs_err::create_dir_all(folder)?;
        for page in &pages {
            fs_err::write(folder.join(format!("{}.md", page.name)), page.markdown())?;
        }
        fs_err::write(&first, index(&pages))?;
        output.say(format!("{} pages in {}", pages.len() + 1, folder.display()));
        return Ok(Exit::Done);
    }
    if let Some(kind) = &args.kind {
        let Some(index) = pages.iter().position(|page| page.name == kind) else {
            let failure = Failure::usage(format!("there is no kind `{kind}`"));
            let names = pages.iter().map(|page| page.name);
            let help = suggest(kind, "there are", names);
            return Err(match help {
                Some(help) => failure.help(help),
                None => failure,
            });
        };
        pages = vec![pages.swap_remove(index)];
    }
    if args.json {
        let all: Vec<_> = pages
            .iter()
            .map(|page| json!({ "name": page.name, "text": page.text, "example": page.example }))
            .collect();
        output.json(&all)?;
        return Ok(Exit::Done);
    }
    if args.kind.is_some() {
        output.data(pages[0].plain())?;
        return Ok(Exit::Done);
    }
    let mut rows = Rows::bare(output.out);
    for page in &pages {
        rows.row([(page.name, Tone::Good), (summary(page), Tone::Plain)]);
    }
    output.data(rows.finish())?;
    output.data("\nbeside the kind of any stage:\n")?;
    let mut rows = Rows::bare(output.out);
    for (name, text) in settings() {
        rows.row([(name, Tone::Good), (text.as_str(), Tone::Plain)]);
    }
    output.data(rows.finish())?;
    output.say("taper stages KIND explains one");
    Ok(Exit::Done)
}
