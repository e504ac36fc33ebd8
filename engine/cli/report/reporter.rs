//! One thread owns what is shown; events come to it from any thread.

use std::io::IsTerminal as _;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use taper_engine::{Event, Events};

use super::bars::Bars;
use super::lines::Lines;
use crate::output::Output;

/// How often what shows that work goes on is turned.
const TURN: Duration = Duration::from_millis(120);

/// How events are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To a person: bars on a terminal, lines elsewhere.
    Talk,
    /// Only warnings and failures.
    Quiet,
    /// To a program: one JSON object a line on stdout.
    Json,
}

/// Shows events until it is closed.
pub struct Reporter {
    sender: Sender<Message>,
    thread: JoinHandle<()>,
}

enum Message {
    Event(Event),
    End,
}

/// What shows events.
pub trait Show: Send {
    /// Shows one.
    fn show(&mut self, event: Event);
    /// Turns what shows that work goes on.
    fn turn(&mut self) {}
    /// Clears what only showed that work went on.
    fn end(&mut self);
}

impl Reporter {
    /// Begins to show.
    ///
    /// # Errors
    /// Where no thread can be had for it.
    pub fn start(mode: Mode, output: Output) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let mut show: Box<dyn Show> = match mode {
            Mode::Json => Box::new(Json(output)),
            Mode::Quiet => Box::new(Lines::quiet(output)),
            Mode::Talk if std::io::stderr().is_terminal() => Box::new(Bars::new(output)),
            Mode::Talk => Box::new(Lines::new(output)),
        };
        let thread = std::thread::Builder::new().spawn(move || {
            let mut turned = Instant::now();
            loop {
                match receiver.recv_timeout(TURN) {
                    Ok(Message::Event(event)) => show.show(event),
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
                }
                if turned.elapsed() >= TURN {
                    show.turn();
                    turned = Instant::now();
                }
            }
            show.end();
        });
        let thread = thread.map_err(|error| {
            std::io::Error::new(error.kind(), format!("no thread can be started: {error}"))
        })?;
        Ok(Self { sender, thread })
    }

    /// Where events go.
    pub fn events(&self) -> Events {
        let sender = self.sender.clone();
        Events::new(move |event| {
            // After the end there is nobody to tell.
            let _ = sender.send(Message::Event(event));
        })
    }

    /// Shows what has been sent, and no more.
    pub fn close(self) {
        let _ = self.sender.send(Message::End);
        if self.thread.join().is_err() {
            tracing::error!("the reporter ended early");
        }
    }
}

struct Json(Output);

impl Show for Json {
    fn show(&mut self, event: Event) {
        if let Err(failure) = self.0.json_line(&event) {
            tracing::warn!(%failure, "an event could not be written");
        }
    }

    fn end(&mut self) {}
}
