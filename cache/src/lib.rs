//! The cache: bytes, and nothing else. No YAML, no machine learning, no printing.
//!
//! A *blob* is a file named by its content; an *artifact* is a typed tree of named blobs, named by
//! the digest of its manifest; an *action* says which artifact a key made; a *run* says what was
//! executed and what came out.

pub mod digest;
pub mod manifest;

pub use digest::{Digest, Key, RunId};
pub use manifest::{ArtifactType, Blob, BlobName, Manifest};
