//! Runs the program one system call at a time.
//!
//! Every thread and every child is stopped before and after each call that counts, so that a suite can kill the program
//! there, make the call fail, or write down what it did. Calls are counted over all threads. The others are let through by
//! a filter in the kernel (seccomp): each stop costs more than most calls. The program is ended with its tracer, so that no
//! trial outlives a suite.

use std::ffi::OsString;
use std::io::{IoSliceMut, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::Variables;

/// What is done with a call that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Go,
    /// The program is killed instead; its children are not.
    Kill,
    /// It is not made, and gives this error.
    Fail(i32),
}

/// A system call below the folder that is looked at.
#[derive(Clone, Debug)]
pub struct Call {
    /// The thread that makes it.
    pub thread: Pid,
    /// What it is called.
    pub name: &'static str,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// What it is about: one path, or two for a rename or a link. Links in them are not followed.
    pub paths: Vec<PathBuf>,
    /// Whether it changes something: a file, a name, or which processes there are.
    pub changes: bool,
    /// Whether the program itself makes it, and not one of its children.
    pub own: bool,
}

/// What looks at calls.
pub trait Watcher {
    /// A call is about to be made.
    fn before(&mut self, call: &Call) -> Verdict;
    /// It has been made, and gave this.
    fn after(&mut self, call: &Call, result: i64);
}

/// How the program ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; nothing where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// Children that lived on after it had ended, and had to be killed.
    pub left: usize,
    /// What programs that it had started changed after it had ended.
    pub later: Vec<String>,
    /// Whether it did not end in time.
    pub hung: bool,
}

/// The longest that a trial may take, in moments of [`MOMENT`]. They are counted one by one: while the whole machine or all
/// of the trials are held still, none go by.
pub const LONGEST: u32 = 600;
/// One of them.
pub const MOMENT: Duration = Duration::from_millis(100);
/// The longest that children may outlive the program.
const GRACE: Duration = Duration::from_secs(2);

/// Ends a program that does not end by itself.
pub struct Watchdog {
    done: mpsc::Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    /// Watches a program.
    pub fn over(program: Pid) -> Self {
        let (done, wait) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let late = (0..LONGEST)
                .all(|_| wait.recv_timeout(MOMENT) == Err(mpsc::RecvTimeoutError::Timeout));
            if late {
                let _ = kill(program, Signal::SIGKILL);
            }
            late
        });
        Self { done, thread }
    }

    /// Whether it had to end the program, which has ended by now.
    pub fn has_bitten(self) -> bool {
        drop(self.done);
        self.thread.join().expect("no panic")
    }
}

/// Runs the program in `folder` with `arguments`; `watcher` sees what it does below `folder`.
pub fn trace(
    program: &Path,
    folder: &Path,
    arguments: &[&str],
    variables: &Variables,
    watcher: &mut dyn Watcher,
) -> Ended {
    let beside = tempfile::tempdir().expect("a folder");
    let stdout = beside.path().join("stdout");
    let stderr = beside.path().join("stderr");
    let create = |path: &Path| std::fs::File::create(path).expect("made");
    let mut command = Command::new(std::env::current_exe().expect("known"));
    command
        .arg(BECOME)
        .arg(program)
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("NO_COLOR", "1")
        .env("RUST_BACKTRACE", "0")
        .envs(variables.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(create(&stdout))
        .stderr(create(&stderr));
    let mut child = command.spawn().expect("it starts");
    let main = Pid::from_raw(i32::try_from(child.id()).expect("small"));
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACESECCOMP
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).expect("this machine lets processes be traced");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"\n").expect("it waits");
    drop(stdin);
    let watchdog = Watchdog::over(main);
    let mut tracer = Tracer {
        main,
        folder: folder.canonicalize().expect("there"),
        begun: false,
        threads: Vec::new(),
        ended: None,
        later: Vec::new(),
        watcher,
    };
    let left = tracer.follow();
    let (ended, later) = (tracer.ended, tracer.later);
    // Reaped already: the standard library has nothing to wait for.
    drop(child);
    Ended {
        code: match ended {
            Some(WaitStatus::Exited(_, code)) => Some(code),
            _ => None,
        },
        stdout: fs_err::read_to_string(stdout).unwrap_or_default(),
        stderr: fs_err::read_to_string(stderr).unwrap_or_default(),
        left,
        later,
        hung: watchdog.has_bitten(),
    }
}

/// The first word of this program's arguments where it is to become the one that is traced.
pub const BECOME: &str = "become";

/// Becomes the program with these arguments, of which the calls that count are shown to who traces it. It waits for a line
/// first, so that it is looked at from its first call on.
pub fn become_traced(mut words: impl Iterator<Item = OsString>) -> std::io::Error {
    let program = words.next().expect("a program");
    let counts = (0..HIGHEST).filter(|number| known(*number, &[0; 6]).is_some());
    let filter = SeccompFilter::new(
        counts.map(|number| (number, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Trace(0),
        TargetArch::x86_64,
    );
    let filter: BpfProgram = filter.expect("a filter").try_into().expect("small");
    std::io::stdin()
        .read_line(&mut String::new())
        .expect("a line");
    seccompiler::apply_filter(&filter).expect("this machine lets calls be filtered");
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .exec()
}

/// Above the numbers of all calls.
const HIGHEST: i64 = 1024;

/// A thread that is being traced.
struct Thread {
    id: Pid,
    /// Whether it is the program's own, and not one of its children's.
    own: bool,
    /// The call that it is in, where it is one that counts, and what was said of it.
    within: Option<(Call, Verdict)>,
}

struct Tracer<'w> {
    main: Pid,
    folder: PathBuf,
    /// Whether it has become the program.
    begun: bool,
    threads: Vec<Thread>,
    ended: Option<WaitStatus>,
    later: Vec<String>,
    watcher: &'w mut dyn Watcher,
}

impl Tracer<'_> {
    /// Follows the program and all its children until the last has ended; how many of them would not.
    fn follow(&mut self) -> usize {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let mut left = 0;
        let mut deadline = None;
        loop {
            let mut now = flags;
            if self.ended.is_some() {
                now |= WaitPidFlag::WNOHANG;
            }
            match waitpid(None, Some(now)) {
                Ok(WaitStatus::StillAlive) => {
                    let deadline =
                        *deadline.get_or_insert_with(|| std::time::Instant::now() + GRACE);
                    if left == 0 && std::time::Instant::now() > deadline {
                        left = self.threads.len();
                        for thread in &self.threads {
                            let _ = kill(thread.id, Signal::SIGKILL);
                        }
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
                Ok(status) => self.step(status),
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return left,
            }
        }
    }

    fn step(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(id, _) | WaitStatus::Signaled(id, ..) => {
                self.threads.retain(|thread| thread.id != id);
                if id == self.main {
                    self.ended = Some(status);
                }
            }
            WaitStatus::PtraceEvent(id, _, event) => {
                match event {
                    libc::PTRACE_EVENT_SECCOMP if self.begun => self.entry(id),
                    libc::PTRACE_EVENT_EXEC if id == self.main => self.begun = true,
                    _ => {}
                }
                self.resume(id, None);
            }
            WaitStatus::PtraceSyscall(id) => {
                self.exit(id);
                self.resume(id, None);
            }
            WaitStatus::Stopped(id, signal) => self.resume(id, Some(signal)),
            _ => {}
        }
    }

    /// Lets a thread go on: up to the end of the call that it is in, or to the next that counts.
    fn resume(&self, id: Pid, signal: Option<Signal>) {
        let is_within = |thread: &Thread| thread.id == id && thread.within.is_some();
        // It may have been killed in the meantime.
        let _ = match self.threads.iter().any(is_within) {
            true => ptrace::syscall(id, signal),
            false => ptrace::cont(id, signal),
        };
    }

    /// A thread has made a call.
    fn exit(&mut self, id: Pid) {
        let mut threads = self.threads.iter_mut();
        let thread = threads.find(|thread| thread.id == id);
        let Some((call, verdict)) = thread.and_then(|thread| thread.within.take()) else {
            return;
        };
        // Where it is gone there is nothing to look at.
        let Ok(mut registers) = ptrace::getregs(id) else {
            return;
        };
        if let Verdict::Fail(errno) = verdict {
            registers.rax = (-i64::from(errno)) as u64;
            let _ = ptrace::setregs(id, registers);
        }
        self.watcher.after(&call, registers.rax as i64);
    }

    /// A thread is about to make a call.
    fn entry(&mut self, id: Pid) {
        let Ok(mut registers) = ptrace::getregs(id) else {
            return;
        };
        let place = self.threads.iter().position(|thread| thread.id == id);
        let place = place.unwrap_or_else(|| {
            self.threads.push(Thread {
                id,
                own: self.is_own(id),
                within: None,
            });
            self.threads.len() - 1
        });
        let arguments = [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ];
        let own = self.threads[place].own;
        let Some(call) = self.call(id, own, registers.orig_rax as i64, arguments) else {
            return;
        };
        // Children of its children may end what they do: they are ended when the stage begins again.
        let prepares = matches!(call.name, "prctl" | "setpgid");
        let leads = getpgid(Some(id)) == Ok(id);
        if self.ended.is_some() && call.changes && !prepares && leads {
            self.later.push(format!("{} {:?}", call.name, call.paths));
        }
        let verdict = self.watcher.before(&call);
        match verdict {
            Verdict::Go => {}
            Verdict::Kill => {
                let _ = kill(self.main, Signal::SIGKILL);
            }
            Verdict::Fail(_) => {
                // No call has this number: nothing is done.
                registers.orig_rax = u64::MAX;
                let _ = ptrace::setregs(id, registers);
            }
        }
        self.threads[place].within = Some((call, verdict));
    }

    /// The call, where it is about something below the folder, or about processes.
    fn call(&self, thread: Pid, own: bool, number: i64, arguments: [u64; 6]) -> Option<Call> {
        let (name, shape, changes) = known(number, &arguments)?;
        let at = |directory: u64, path: u64| resolve(thread, directory as i32, path);
        let paths = match shape {
            Shape::Process => Vec::new(),
            Shape::File => vec![descriptor(thread, arguments[0] as i32)?],
            Shape::SecondFile => vec![descriptor(thread, arguments[2] as i32)?],
            Shape::Path => vec![at(CURRENT, arguments[0])?],
            Shape::PathAt => vec![at(arguments[0], arguments[1])?],
            Shape::Paths => vec![at(CURRENT, arguments[0])?, at(CURRENT, arguments[1])?],
            Shape::PathsAt => vec![
                at(arguments[0], arguments[1])?,
                at(arguments[2], arguments[3])?,
            ],
            Shape::Symlink => vec![at(CURRENT, arguments[1])?],
            Shape::SymlinkAt => vec![at(arguments[1], arguments[2])?],
        };
        let is_below = shape == Shape::Process || paths.iter().any(|p| p.starts_with(&self.folder));
        is_below.then_some(Call {
            thread,
            name,
            arguments,
            paths,
            changes,
            own,
        })
    }

    /// Whether a thread is the program's own.
    fn is_own(&self, thread: Pid) -> bool {
        thread == self.main || Path::new(&format!("/proc/{}/task/{thread}", self.main)).exists()
    }
}

const CURRENT: u64 = libc::AT_FDCWD as u64;

/// Which arguments say what a call is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Process,
    File,
    SecondFile,
    Path,
    PathAt,
    Paths,
    PathsAt,
    Symlink,
    SymlinkAt,
}

/// The calls that count, and whether they change something.
fn known(number: i64, arguments: &[u64; 6]) -> Option<(&'static str, Shape, bool)> {
    let opens = |flags: u64| {
        let flags = flags as i32;
        flags & (libc::O_CREAT | libc::O_TRUNC) != 0
    };
    Some(match number {
        libc::SYS_open => ("open", Shape::Path, opens(arguments[1])),
        libc::SYS_openat => ("openat", Shape::PathAt, opens(arguments[2])),
        libc::SYS_openat2 => ("openat2", Shape::PathAt, true),
        libc::SYS_creat => ("creat", Shape::Path, true),
        libc::SYS_read => ("read", Shape::File, false),
        libc::SYS_pread64 => ("pread64", Shape::File, false),
        libc::SYS_fstat => ("fstat", Shape::File, false),
        libc::SYS_newfstatat => ("newfstatat", Shape::PathAt, false),
        libc::SYS_statx => ("statx", Shape::PathAt, false),
        libc::SYS_lstat => ("lstat", Shape::Path, false),
        libc::SYS_stat => ("stat", Shape::Path, false),
        libc::SYS_getdents64 => ("getdents64", Shape::File, false),
        libc::SYS_flock => ("flock", Shape::File, true),
        libc::SYS_write => ("write", Shape::File, true),
        libc::SYS_pwrite64 => ("pwrite64", Shape::File, true),
        libc::SYS_writev => ("writev", Shape::File, true),
        libc::SYS_pwritev => ("pwritev", Shape::File, true),
        libc::SYS_pwritev2 => ("pwritev2", Shape::File, true),
        libc::SYS_copy_file_range => ("copy_file_range", Shape::SecondFile, true),
        libc::SYS_sendfile => ("sendfile", Shape::File, true),
        libc::SYS_splice => ("splice", Shape::SecondFile, true),
        libc::SYS_ioctl => ("ioctl", Shape::File, true),
        libc::SYS_ftruncate => ("ftruncate", Shape::File, true),
        libc::SYS_truncate => ("truncate", Shape::Path, true),
        libc::SYS_fallocate => ("fallocate", Shape::File, true),
        libc::SYS_fsync => ("fsync", Shape::File, true),
        libc::SYS_fdatasync => ("fdatasync", Shape::File, true),
        libc::SYS_sync_file_range => ("sync_file_range", Shape::File, true),
        libc::SYS_syncfs => ("syncfs", Shape::File, true),
        libc::SYS_fchmod => ("fchmod", Shape::File, true),
        libc::SYS_chmod => ("chmod", Shape::Path, true),
        libc::SYS_fchmodat => ("fchmodat", Shape::PathAt, true),
        libc::SYS_utimensat => ("utimensat", Shape::PathAt, true),
        libc::SYS_mkdir => ("mkdir", Shape::Path, true),
        libc::SYS_mkdirat => ("mkdirat", Shape::PathAt, true),
        libc::SYS_rmdir => ("rmdir", Shape::Path, true),
        libc::SYS_unlink => ("unlink", Shape::Path, true),
        libc::SYS_unlinkat => ("unlinkat", Shape::PathAt, true),
        libc::SYS_rename => ("rename", Shape::Paths, true),
        libc::SYS_renameat => ("renameat", Shape::PathsAt, true),
        libc::SYS_renameat2 => ("renameat2", Shape::PathsAt, true),
        libc::SYS_link => ("link", Shape::Paths, true),
        libc::SYS_linkat => ("linkat", Shape::PathsAt, true),
        libc::SYS_symlink => ("symlink", Shape::Symlink, true),
        libc::SYS_symlinkat => ("symlinkat", Shape::SymlinkAt, true),
        libc::SYS_fork => ("fork", Shape::Process, true),
        libc::SYS_vfork => ("vfork", Shape::Process, true),
        libc::SYS_clone => ("clone", Shape::Process, true),
        libc::SYS_clone3 => ("clone3", Shape::Process, true),
        libc::SYS_execve => ("execve", Shape::Process, true),
        libc::SYS_setpgid => ("setpgid", Shape::Process, true),
        libc::SYS_prctl => ("prctl", Shape::Process, true),
        _ => return None,
    })
}

/// Where an open file is.
fn descriptor(thread: Pid, number: i32) -> Option<PathBuf> {
    if number < 0 {
        return None;
    }
    std::fs::read_link(format!("/proc/{thread}/fd/{number}")).ok()
}

/// The path that an argument is, from the root of the file system.
fn resolve(thread: Pid, directory: i32, address: u64) -> Option<PathBuf> {
    let written = text(thread, address)?;
    let base = match directory {
        _ if written.is_absolute() => PathBuf::new(),
        libc::AT_FDCWD => std::fs::read_link(format!("/proc/{thread}/cwd")).ok()?,
        _ => descriptor(thread, directory)?,
    };
    let mut path = PathBuf::new();
    for component in base.join(&written).components() {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    Some(path)
}

/// A text of the program's, up to its zero byte.
fn text(thread: Pid, address: u64) -> Option<PathBuf> {
    const PAGE: usize = 4096;
    let mut bytes = Vec::new();
    let mut base = usize::try_from(address).ok()?;
    if base == 0 {
        return None;
    }
    while bytes.len() < PAGE {
        let mut chunk = vec![0; PAGE - base % PAGE];
        let remote = RemoteIoVec {
            base,
            len: chunk.len(),
        };
        let length =
            process_vm_readv(thread, &mut [IoSliceMut::new(&mut chunk)], &[remote]).ok()?;
        if let Some(end) = chunk[..length].iter().position(|byte| *byte == 0) {
            bytes.extend_from_slice(&chunk[..end]);
            return Some(OsString::from_vec(bytes).into());
        }
        bytes.extend_from_slice(&chunk[..length]);
        base += length;
    }
    None
}
