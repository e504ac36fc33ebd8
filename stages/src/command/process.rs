//! A process of the user's: started in a clean environment, listened to, and ended with all its children.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use taper_engine::{Context, Reporter, StageError};

/// Lines of its output that an error shows.
const SHOWN: usize = 20;
/// What is longer is cut where it is shown; the log has it whole.
const LONGEST_LINE: usize = 4096;
/// Between the request to end and the end by force.
const GRACE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

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
    let Some((program, rest)) = arguments.split_first() else {
        return Err(StageError::invalid("it is not said what to run").at("run"));
    };
    let mut command = std::process::Command::new(program);
    command
        .args(rest)
        .current_dir(folder)
        .env_clear()
        .envs(environment(folder))
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn().map_err(|error| {
        let error = StageError::failed(format!("cannot run `{program}`: {error}"));
        match program.contains('/') {
            true => error.help("is it among `files`, and does it begin with `#!`?"),
            false => error.help("is it installed, and in a folder of PATH?"),
        }
        .at("run")
    })?;
    let mut group = Group { child, ended: None };
    let (sender, receiver) = channel();
    listen(group.child.stdout.take(), "stdout", sender.clone());
    listen(group.child.stderr.take(), "stderr", sender);
    let mut output = Output::new(context);
    let status = group.wait(&receiver, &mut output, &context.reporter)?;
    match status.success() {
        true => Ok(()),
        false => Err(output.failure(program, status)),
    }
}

/// What every program gets: nothing of the machine but where programs are.
fn environment(folder: &Path) -> BTreeMap<&'static str, std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    [
        ("PATH", path),
        ("HOME", folder.into()),
        ("TMPDIR", folder.join("tmp").into()),
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

/// A line of the program's, or the end of one of its streams.
enum Said {
    Line(&'static str, Vec<u8>),
    Ended,
}

fn listen(stream: Option<impl Read + Send + 'static>, name: &'static str, sender: Sender<Said>) {
    let Some(stream) = stream else {
        return;
    };
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            let read = (&mut stream).take(1 << 20).read_until(b'\n', &mut line);
            if !matches!(read, Ok(length) if length > 0)
                || sender.send(Said::Line(name, line)).is_err()
            {
                break;
            }
        }
        drop(sender.send(Said::Ended));
    });
}

/// A process with all its children; ended with them when this is dropped.
struct Group {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Group {
    /// Passes on what the program says, until it has ended.
    fn wait(
        &mut self,
        receiver: &Receiver<Said>,
        output: &mut Output<'_>,
        reporter: &Reporter,
    ) -> Result<ExitStatus, StageError> {
        let mut streams = 2;
        while streams > 0 {
            match receiver.recv_timeout(LOOK_EVERY) {
                Ok(Said::Line(stream, line)) => output.take(stream, &line)?,
                Ok(Said::Ended) => streams -= 1,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    // Children that it left behind may hold the streams open.
                    if self.poll()?.is_some() {
                        self.signal(Signal::Kill);
                    }
                }
            }
            if reporter.stopped() {
                self.end();
                return Err(StageError::interrupted());
            }
        }
        // Mostly it has ended with its streams; some close them early.
        let mut pause = Duration::from_micros(100);
        loop {
            if let Some(status) = self.poll()? {
                return Ok(status);
            }
            if reporter.stopped() {
                self.end();
                return Err(StageError::interrupted());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOOK_EVERY);
        }
    }

    fn poll(&mut self) -> Result<Option<ExitStatus>, StageError> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Asks it to end, and ends it if it does not.
    fn end(&mut self) {
        self.signal(Signal::Terminate);
        let start = Instant::now();
        while start.elapsed() < GRACE && matches!(self.poll(), Ok(None)) {
            std::thread::sleep(LOOK_EVERY);
        }
        self.signal(Signal::Kill);
        drop(self.child.wait());
    }

    #[cfg(unix)]
    fn signal(&self, signal: Signal) {
        use rustix::process::{Pid, kill_process_group};
        let signal = match signal {
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        // It may have ended in the meantime, which is as well.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, signal);
        }
    }

    #[cfg(not(unix))]
    fn signal(&mut self, _: Signal) {
        drop(self.child.kill());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::Kill);
        if self.ended.is_none() {
            drop(self.child.wait());
        }
    }
}

#[derive(Clone, Copy)]
enum Signal {
    Terminate,
    Kill,
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

#[cfg(unix)]
fn signal_name(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(9) => "signal 9 (killed: out of memory?)".to_owned(),
        Some(11) => "signal 11 (it crashed)".to_owned(),
        Some(signal) => format!("signal {signal}"),
        None => "the system".to_owned(),
    }
}

#[cfg(not(unix))]
fn signal_name(_: ExitStatus) -> String {
    "the system".to_owned()
}
