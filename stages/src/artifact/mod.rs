//! Typed views of artifacts: what a stage sees of the files of another.
