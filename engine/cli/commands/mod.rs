//! The commands, one file each: arguments, function, and the text of its help.

pub mod cat;
pub mod check;
pub mod compare;
pub mod completions;
pub mod diff;
pub mod doctor;
pub mod exec;
pub mod explain;
pub mod export;
pub mod gc;
pub mod graph;
pub mod log;
pub mod new;
pub mod plan;
pub mod predict;
pub mod reproduce;
pub mod run;
pub mod schema;
pub mod show;
pub mod stages;
pub mod verify;

mod dispatch;

pub use dispatch::run;
