//! What the program's process does to itself before it becomes the program. The standard library has no safe way
//! to say it, so this is the one place of the crate with `unsafe` for it.
#![expect(unsafe_code, reason = "code between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::fs::Mode;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal, umask};

/// Files that the program makes can be read by all and written by their owner, whatever the user's umask.
pub const UMASK: u32 = 0o022;

/// Binds a process to this one: it ends when the thread that starts it ends, also where that is killed. Its
/// umask is always the same.
pub fn bind(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs in a process that has one thread and a copy of this one's memory, in which
    // locks may be held for ever. It makes system calls only: it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || prepare(parent));
    }
}

fn prepare(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(parent) {
        // It had ended before it could be asked for: nobody waits for this process any more.
        return Err(io::ErrorKind::Interrupted.into());
    }
    umask(Mode::from_raw_mode(UMASK));
    Ok(())
}
