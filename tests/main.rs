//! The program, as its users meet it: one file a subject.

mod common;
mod invalid;
mod new_kind;
