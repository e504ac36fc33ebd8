//! Ctrl-C: the first asks to stop at the next safe point, the second ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit_code::Exit;
use crate::output::Output;

/// A flag that the first Ctrl-C sets.
pub fn flag(output: Output) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let handler = move || {
        if seen.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
        output.say("stopping at the next safe point; Ctrl-C again ends it at once");
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::warn!(%error, "Ctrl-C ends the program at once");
    }
    stop
}
