//! Plans that run: what is run again and what is not, what is kept, what is told.

mod caching;
mod failures;
mod kinds;
mod locking;
mod project;
mod reproducing;
mod resources;
mod scale;
