//! A process of the user's: started in a clean environment, listened to, and ended with all its children.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, pidfd_send_signal,
    waitpid,
};
use taper_engine::{Context, Reporter, StageError};

use super::child::Program;

/// Lines of its output that an error shows.
const SHOWN: usize = 20;
/// What is longer is cut where it is shown; the log has it whole.
const LONGEST_LINE: usize = 4096;
/// Between the request to end and the end by force.
const GRACE: Duration = Duration::from_secs(5);
/// A line without an end is passed on when it has so many bytes.
const LONGEST_KEPT: usize = 1 << 20;
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Runs a program in `folder` until it ends.
///
/// # Errors
/// Where it cannot be started, where it ends with another status than 0, and where the user stops it.
pub fn run(
    arguments: &[String],
    variables: &BTreeMap<String, String>,
    folder: &Path,
    context: &Context,
) -> Result<(), StageError> {
    let Some(program) = arguments.first() else {
        return Err(StageError::invalid("it is not said what to run").at("run"));
    };
    let mut environment: BTreeMap<&str, OsString> = environment(folder);
    environment.extend(
        variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.into())),
    );
    let pairs = environment.iter();
    let pairs = pairs.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    let nothing = fs_err::File::open("/dev/null")?;
    let (mut streams, [stdout, stderr]) = Streams::open()?;
    let started = Program {
        arguments,
        environment: pairs.collect(),
        search: &environment["PATH"],
        folder,
        streams: [nothing.file().as_fd(), stdout.as_fd(), stderr.as_fd()],
    }
    .start();
    let leader = started.map_err(|error| {
        let error = StageError::failed(format!("cannot run `{program}`: {error}"));
        match program.contains('/') {
            true => error.help("is it among `files`, and does it begin with `#!`?"),
            false => error.help("is it installed, and in a folder of PATH?"),
        }
        .at("run")
    })?;
    // Only the program has them open from here on: what it says ends with it.
    drop((stdout, stderr));
    let mut group = Group::of(leader);
    let mut output = Output::new(context);
    let status = group.wait(&mut streams, &mut output, &context.reporter)?;
    match status.success() {
        true => Ok(()),
        false => Err(output.failure(program, status)),
    }
}

/// What every program gets: nothing of the machine but where programs are.
fn environment(folder: &Path) -> BTreeMap<&'static str, OsString> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    [
        ("PATH", path),
        ("HOME", folder.into()),
        ("TMPDIR", folder.into()),
        ("LANG", "C.UTF-8".into()),
        ("LC_ALL", "C.UTF-8".into()),
        ("TZ", "UTC".into()),
        // What archives and documents show as their time: the first day that every format has.
        ("SOURCE_DATE_EPOCH", "315532800".into()),
        // Python's sets have one order then, and leave no compiled files behind.
        ("PYTHONHASHSEED", "0".into()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
    ]
    .into()
}

/// Ends what an attempt that was killed left running in `folder`: the program itself ends with the attempt,
/// but not its children. They are known by their home or the folder in which they work, which are nobody
/// else's.
///
/// # Errors
/// Where they do not end.
pub fn end_leftovers(folder: &Path) -> Result<(), StageError> {
    let home = [b"HOME=", folder.as_os_str().as_bytes()].concat();
    let is_here = |process: &Path| {
        let environment = fs_err::read(process.join("environ")).unwrap_or_default();
        let works_here = std::fs::read_link(process.join("cwd"))
            .is_ok_and(|works_in| works_in.starts_with(folder));
        works_here || environment.split(|byte| *byte == 0).any(|one| one == home)
    };
    let start = Instant::now();
    loop {
        let mut left = 0;
        for entry in fs_err::read_dir("/proc")?.flatten() {
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let Some(id) = number.and_then(Pid::from_raw) else {
                continue;
            };
            // Held before it is looked at: the number may go to another process meanwhile.
            let Ok(process) = pidfd_open(id, PidfdFlags::empty()) else {
                continue;
            };
            if is_here(&entry.path()) {
                left += 1;
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
        }
        if left == 0 {
            return Ok(());
        }
        if start.elapsed() > GRACE {
            return Err(StageError::failed(format!(
                "{left} processes of an earlier attempt still run in {}",
                folder.display()
            ))
            .help("end them, and run again"));
        }
        std::thread::sleep(LONGEST_PAUSE);
    }
}

/// What the program says on its two streams.
///
/// They are read by the thread that waits for the program: ten thousand small commands start no thread of
/// their own.
struct Streams {
    open: Vec<Stream>,
}

struct Stream {
    name: &'static str,
    pipe: PipeReader,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
}

impl Streams {
    /// Two pipes, and the ends that are the program's.
    fn open() -> Result<(Self, [PipeWriter; 2]), StageError> {
        let (stdout, to_stdout) = std::io::pipe()?;
        let (stderr, to_stderr) = std::io::pipe()?;
        let mut open = Vec::new();
        for (name, pipe) in [("stdout", stdout), ("stderr", stderr)] {
            fcntl_setfl(&pipe, OFlags::NONBLOCK).map_err(std::io::Error::from)?;
            let line = Vec::new();
            open.push(Stream { name, pipe, line });
        }
        Ok((Self { open }, [to_stdout, to_stderr]))
    }

    /// Passes on what was said since the last time; answers whether something was.
    fn listen(&mut self, output: &mut Output<'_>) -> Result<bool, StageError> {
        let mut heard = false;
        let mut ended = Vec::new();
        for (place, stream) in self.open.iter_mut().enumerate() {
            match stream.read(output)? {
                Heard::Something => heard = true,
                Heard::Nothing => {}
                Heard::End => ended.push(place),
            }
        }
        for place in ended.into_iter().rev() {
            self.open.remove(place).finish(output)?;
        }
        Ok(heard)
    }
}

/// What a look at a stream brought.
enum Heard {
    Something,
    Nothing,
    /// Nobody has its other end open any more.
    End,
}

impl Stream {
    /// Reads what there is.
    fn read(&mut self, output: &mut Output<'_>) -> Result<Heard, StageError> {
        let mut buffer = [0; 1 << 14];
        let length = match rustix::io::read(&self.pipe, &mut buffer) {
            Ok(0) => return Ok(Heard::End),
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Heard::Nothing),
            Err(error) => return Err(std::io::Error::from(error).into()),
        };
        self.line.extend_from_slice(&buffer[..length]);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            output.take(self.name, &self.line[..=end])?;
            self.line.drain(..=end);
        }
        if self.line.len() > LONGEST_KEPT {
            self.finish(output)?;
        }
        Ok(Heard::Something)
    }

    /// Passes on a line without an end.
    fn finish(&mut self, output: &mut Output<'_>) -> Result<(), StageError> {
        match std::mem::take(&mut self.line) {
            line if line.is_empty() => Ok(()),
            line => output.take(self.name, &line),
        }
    }
}

/// A process with all its children; ended with them when this is dropped.
struct Group {
    leader: Pid,
    /// Tells when the leader ends, where the system can.
    end: Option<OwnedFd>,
    ended: Option<ExitStatus>,
}

impl Group {
    fn of(leader: Pid) -> Self {
        Self {
            leader,
            end: pidfd_open(leader, PidfdFlags::empty()).ok(),
            ended: None,
        }
    }

    /// Passes on what the program says, until it has ended.
    fn wait(
        &mut self,
        streams: &mut Streams,
        output: &mut Output<'_>,
        reporter: &Reporter,
    ) -> Result<ExitStatus, StageError> {
        let start = Instant::now();
        loop {
            let ended = self.poll()?;
            while streams.listen(output)? {
                self.stop_if_asked(reporter)?;
            }
            if let Some(status) = ended {
                for stream in &mut streams.open {
                    stream.finish(output)?;
                }
                return Ok(status);
            }
            self.stop_if_asked(reporter)?;
            self.pause(streams, start.elapsed());
        }
    }

    /// Waits until the program says something or ends, but not for long: the user may want it to stop.
    fn pause(&self, streams: &Streams, elapsed: Duration) {
        let pause = match &self.end {
            Some(_) => LONGEST_PAUSE,
            // An eighth of the time that it has run already: a short program is seen to end at once.
            None => (elapsed / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE),
        };
        let pipes = streams.open.iter().map(|stream| stream.pipe.as_fd());
        let watched = pipes.chain(self.end.as_ref().map(AsFd::as_fd));
        let mut watched: Vec<PollFd<'_>> = watched
            .map(|one| PollFd::from_borrowed_fd(one, PollFlags::IN))
            .collect();
        let pause = Timespec::try_from(pause).ok();
        // Whatever ended the pause, all is looked at next.
        let _ = poll(&mut watched, pause.as_ref());
    }

    fn stop_if_asked(&mut self, reporter: &Reporter) -> Result<(), StageError> {
        if reporter.stopped() {
            self.end();
        }
        reporter.check()
    }

    fn poll(&mut self) -> Result<Option<ExitStatus>, StageError> {
        if self.ended.is_none() {
            let found = waitpid(Some(self.leader), WaitOptions::NOHANG);
            let found = found.map_err(std::io::Error::from)?;
            self.ended = found.map(|(_, status)| ExitStatus::from_raw(status.as_raw()));
        }
        Ok(self.ended)
    }

    /// Asks it to end, and ends it if it does not.
    fn end(&mut self) {
        self.signal(Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < GRACE && matches!(self.poll(), Ok(None)) {
            std::thread::sleep(LONGEST_PAUSE);
        }
        self.signal(Signal::KILL);
        self.wait_for_end();
    }

    fn wait_for_end(&mut self) {
        if self.ended.is_none() {
            let found = retry_on_intr(|| waitpid(Some(self.leader), WaitOptions::empty()));
            let status = found
                .ok()
                .flatten()
                .map_or(0, |(_, status)| status.as_raw());
            self.ended = Some(ExitStatus::from_raw(status));
        }
    }

    fn signal(&self, signal: Signal) {
        // It may have ended in the meantime, which is as well.
        let _ = kill_process_group(self.leader, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.wait_for_end();
    }
}

/// What the program said: told as it comes, kept in the run's record, its end kept for errors.
struct Output<'c> {
    context: &'c Context,
    logs: BTreeMap<&'static str, fs_err::File>,
    last: VecDeque<String>,
}

impl<'c> Output<'c> {
    fn new(context: &'c Context) -> Self {
        Self {
            context,
            logs: BTreeMap::new(),
            last: VecDeque::new(),
        }
    }

    fn take(&mut self, stream: &'static str, line: &[u8]) -> Result<(), StageError> {
        if !self.logs.contains_key(stream) {
            fs_err::create_dir_all(&self.context.record)?;
            let path = self.context.record.join(format!("{stream}.log"));
            self.logs.insert(stream, fs_err::File::create(path)?);
        }
        if let Some(log) = self.logs.get_mut(stream) {
            log.write_all(line)?;
        }
        let text = String::from_utf8_lossy(line);
        let text: String = text.trim_end().chars().take(LONGEST_LINE).collect();
        if !text.is_empty() {
            self.context.reporter.note(text.as_str());
            if self.last.len() == SHOWN {
                self.last.pop_front();
            }
            self.last.push_back(text);
        }
        Ok(())
    }

    fn failure(self, program: &str, status: ExitStatus) -> StageError {
        let how = match status.code() {
            Some(code) => format!("`{program}` ended with exit code {code}"),
            None => format!("`{program}` was ended by {}", signal_name(status)),
        };
        let said: Vec<String> = self
            .last
            .iter()
            .map(|line| format!("\n    {line}"))
            .collect();
        let message = match said.is_empty() {
            true => format!("{how}, and said nothing"),
            false => format!("{how}; the last it said was:{}", said.concat()),
        };
        let help = match status.code() {
            Some(126) => "126: the program may not be executed".to_owned(),
            Some(127) => {
                "127: a program was not found: only those in PATH and in `files` are there"
                    .to_owned()
            }
            _ => format!("all that it said is in {}", self.context.record.display()),
        };
        StageError::failed(message).at("run").help(help)
    }
}

fn signal_name(status: ExitStatus) -> String {
    match status.signal() {
        Some(9) => "signal 9 (killed: out of memory?)".to_owned(),
        Some(11) => "signal 11 (it crashed)".to_owned(),
        Some(signal) => format!("signal {signal}"),
        None => "the system".to_owned(),
    }
}
