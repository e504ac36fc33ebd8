//! How a program of the user's is started. With `fork` its process would begin as a copy of this one: with thousands
//! of stages in memory, to make the copy takes several times as long as what the program does. So it
//! begins in this one's memory, on a stack of its own, while the thread that starts it stands still, until it has
//! become the program: what `posix_spawn` does, which can neither bind a process to its parent nor set its
//! umask. This is the one place of the crate with `unsafe` for it.
#![expect(unsafe_code, reason = "code between clone and exec")]

use std::ffi::{CString, OsStr, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, WaitOptions, waitpid};

/// Files that the program makes can be read by all and written by their owner, whatever the user's umask.
pub const UMASK: u32 = 0o022;

/// The bytes of the stack on which a process becomes the program: it needs a few hundred.
const STACK: usize = 64 << 10;
/// The highest number of a signal.
const LAST_SIGNAL: c_int = 64;

/// A program that is to be started.
pub struct Program<'a> {
    /// Its name or path, and its arguments.
    pub arguments: &'a [String],
    /// Its whole environment, as `NAME=VALUE`.
    pub environment: Vec<Vec<u8>>,
    /// Where programs without a `/` in their names are looked for: folders with `:` between them.
    pub search: &'a OsStr,
    /// Where it begins to work.
    pub folder: &'a Path,
    /// Its standard streams.
    pub streams: [BorrowedFd<'a>; 3],
}

/// All that the new process reads, made before it begins, since it must not allocate.
struct Birth {
    /// Where the program may be, in the order in which it is looked for.
    candidates: Vec<CString>,
    /// Its arguments; the first two places are for a shell that reads it.
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    folder: CString,
    streams: [c_int; 3],
    parent: c_int,
    /// Whether it is bound to the thread that starts it.
    bound: bool,
    /// What went wrong, as the system numbers it.
    error: AtomicI32,
}

impl Program<'_> {
    /// Starts it, as the leader of a process group of its own, bound to this thread: it ends when the thread ends,
    /// also where that is killed.
    ///
    /// # Errors
    /// Where there is no such program, or no process is to be had.
    pub fn start(&self) -> io::Result<Pid> {
        let text = |bytes: &[u8]| CString::new(bytes);
        let texts = |all: Vec<&[u8]>| all.into_iter().map(text).collect::<Result<Vec<_>, _>>();
        let arguments = texts(self.arguments.iter().map(String::as_bytes).collect())?;
        let environment = texts(self.environment.iter().map(Vec::as_slice).collect())?;
        let pointers = |texts: &[CString]| -> Vec<*const c_char> {
            let pointers = texts.iter().map(|text| text.as_ptr());
            pointers.chain([ptr::null()]).collect()
        };
        let mut birth = Birth {
            candidates: self.candidates()?,
            arguments: [vec![ptr::null()], pointers(&arguments)].concat(),
            environment: pointers(&environment),
            folder: text(self.folder.as_os_str().as_bytes())?,
            streams: self.streams.map(|stream| stream.as_raw_fd()),
            parent: rustix::process::getpid().as_raw_nonzero().get(),
            bound: !taper_cache::planted("child-unbound"),
            error: AtomicI32::new(0),
        };
        let id = bear(&mut birth)?;
        match birth.error.load(Ordering::Relaxed) {
            0 => Ok(id),
            code => {
                // It has ended; nobody else waits for it.
                let _ = waitpid(Some(id), WaitOptions::empty());
                Err(io::Error::from_raw_os_error(code))
            }
        }
    }

    fn candidates(&self) -> io::Result<Vec<CString>> {
        let Some(name) = self.arguments.first().map(String::as_bytes) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if name.is_empty() || name.contains(&b'/') {
            return Ok(vec![CString::new(name)?]);
        }
        let folders = self.search.as_bytes().split(|byte| *byte == b':');
        let paths = folders.map(|folder| match folder {
            [] => CString::new(name),
            folder => CString::new([folder, b"/", name].concat()),
        });
        Ok(paths.collect::<Result<_, _>>()?)
    }
}

/// Begins the process, and goes on when it has become the program or ended.
fn bear(birth: &mut Birth) -> io::Result<Pid> {
    let mut stack = vec![MaybeUninit::<u128>::uninit(); STACK / size_of::<u128>()];
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are places for what is written there. The new process runs `born` in this memory, on the
    // stack that ends where the pointer says and is far larger than its few frames; this thread, whose errno and
    // whose values it uses, stands still until it has executed the program or ended (CLONE_VFORK), so that nothing
    // is used by both at once and all outlives it. No signal is handled meanwhile, by either: a handler of the
    // new process would run in this one's memory.
    let id = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let id = libc::clone(
            born,
            stack.as_mut_ptr_range().end.cast::<c_void>(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            ptr::from_mut(birth).cast::<c_void>(),
        );
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        match id {
            -1 => return Err(error),
            id => id,
        }
    };
    Pid::from_raw(id).ok_or_else(|| io::ErrorKind::Other.into())
}

/// What the new process does: it becomes the program, or says why not and ends.
extern "C" fn born(birth: *mut c_void) -> c_int {
    // SAFETY: `bear` passes a `Birth` that it has to itself and that it does not touch until this has ended.
    let birth = unsafe { &mut *birth.cast::<Birth>() };
    let code = become_program(birth);
    birth.error.store(code, Ordering::Relaxed);
    // SAFETY: this ends the process at once; nothing that is the parent's is run or written out.
    unsafe { libc::_exit(127) }
}

/// Comes back only with the number of what went wrong. It makes system calls and nothing else.
fn become_program(birth: &mut Birth) -> c_int {
    // SAFETY: these calls take numbers and texts that end with a zero byte, and are such as may be made after a
    // fork. What they change is the new process's own: neither CLONE_FS, CLONE_FILES nor CLONE_SIGHAND is asked for.
    unsafe {
        if libc::setpgid(0, 0) != 0
            || (birth.bound && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0)
        {
            return errno();
        }
        if libc::getppid() != birth.parent {
            // The parent had ended before it could be asked for: nobody waits for this process any more.
            return libc::EINTR;
        }
        libc::umask(UMASK);
        if libc::chdir(birth.folder.as_ptr()) != 0 {
            return errno();
        }
        for (target, stream) in (0..).zip(birth.streams) {
            // The streams are none of the first three, which every Rust program has open.
            if libc::dup2(stream, target) == -1 {
                return errno();
            }
        }
        // Handlers are this program's; that of SIGPIPE is what Rust's library changes.
        for signal in 1..=LAST_SIGNAL {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            if libc::sigaction(signal, ptr::null(), &raw mut action) != 0 {
                continue;
            }
            let kept = matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
            if !kept || signal == libc::SIGPIPE {
                action.sa_sigaction = libc::SIG_DFL;
                action.sa_flags = 0;
                libc::sigaction(signal, &raw const action, ptr::null_mut());
            }
        }
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
    execute(birth)
}

/// Looks for the program as a shell does.
fn execute(birth: &mut Birth) -> c_int {
    const SHELL: &std::ffi::CStr = c"/bin/sh";
    let mut found = libc::ENOENT;
    for candidate in &birth.candidates {
        let environment = birth.environment.as_ptr();
        // SAFETY: all are texts that end with a zero byte, in arrays that end with a null pointer.
        unsafe {
            libc::execve(
                candidate.as_ptr(),
                birth.arguments[1..].as_ptr(),
                environment,
            );
        }
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => found = libc::EACCES,
            libc::ENOEXEC => {
                // A script that does not say what reads it.
                birth.arguments[0] = SHELL.as_ptr();
                birth.arguments[1] = candidate.as_ptr();
                // SAFETY: as above.
                unsafe {
                    libc::execve(SHELL.as_ptr(), birth.arguments.as_ptr(), environment);
                }
                return errno();
            }
            code => return code,
        }
    }
    found
}

fn errno() -> c_int {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}
