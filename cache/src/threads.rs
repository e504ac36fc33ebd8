//! The pool of threads that hashing and computing are spread over: started once, here, before its first use.
//!
//! Whoever uses rayon while it has no pool starts one by the way, and panics where the system gives no thread; an
//! attempt that has failed cannot be made again. So the threads are asked for first, and the pool is made of those that
//! there are.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{Builder, available_parallelism};

use rayon::{ThreadBuilder, ThreadPoolBuilder};

/// How many threads are wanted; 0 is one a core.
static WANTED: AtomicUsize = AtomicUsize::new(0);

/// Says how many threads the pool is to have. Changes nothing once it is there.
pub fn want(threads: usize) {
    WANTED.store(threads, Ordering::Relaxed);
}

/// How many threads the machine offers. The system is asked once: it reads several files for the answer.
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| available_parallelism().map_or(1, usize::from))
}

/// Whether work can be spread over a pool of threads, which is started by the first who asks. Where the system gives fewer
/// threads than are wanted they are fewer; where it gives none there is no pool, and rayon must not be used.
pub fn are_there() -> bool {
    static STARTED: OnceLock<bool> = OnceLock::new();
    *STARTED.get_or_init(|| {
        start(match WANTED.load(Ordering::Relaxed) {
            0 => cores(),
            wanted => wanted,
        })
    })
}

fn start(wanted: usize) -> bool {
    let mut seats = Vec::new();
    for number in 0..wanted {
        let (seat, given) = mpsc::sync_channel::<ThreadBuilder>(1);
        let thread = Builder::new().name(format!("pool {number}"));
        match thread.spawn(move || given.recv().map(ThreadBuilder::run)) {
            Ok(_) => seats.push(seat),
            Err(error) => {
                tracing::debug!(%error, "{number} threads instead of {wanted}");
                break;
            }
        }
    }
    if seats.is_empty() {
        return false;
    }
    let pool = ThreadPoolBuilder::new().num_threads(seats.len());
    let pool = pool.spawn_handler(|thread| {
        let seat = &seats[thread.index()];
        seat.send(thread).map_err(|_| io::ErrorKind::Other.into())
    });
    if let Err(error) = pool.build_global() {
        // Whoever has this crate in a program of theirs has started one: then that is used.
        tracing::debug!(%error, "no pool of our own");
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_started_once() {
        assert!(are_there());
        let threads = rayon::current_num_threads();
        want(threads + 1);
        assert!(are_there());
        assert_eq!(rayon::current_num_threads(), threads);
        assert_eq!(rayon::join(|| 1, || 2), (1, 2));
    }
}
