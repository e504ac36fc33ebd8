//! The cache: bytes, and nothing else. No YAML, no machine learning, no printing.
//!
//! A *blob* is a file named by its content; an *artifact* is a typed tree of named blobs, named by
//! the digest of its manifest; an *action* says which artifact a key made; a *run* says what was
//! executed and what came out. A [`Store`] is a folder of them.
//!
//! A stage is kept like this: [`Store::try_lock`] its key, [`Store::stage`] a folder, let it write,
//! [`Staging::seal`] what it left, [`Sealed::keep`]. Every file is written beside, synced and renamed,
//! an action after all that it names: a kill at any instant leaves a cache that is whole. A power cut may
//! take names back until [`Store::sync`], which is done before a run is recorded: then something is missing,
//! never torn. What is found damaged is set aside, told ([`Lookup::Damaged`]) and counts as missing, so that
//! it is made again.

pub mod actions;
pub mod blobs;
pub mod commit;
pub mod digest;
pub mod error;
pub mod export;
mod files;
pub mod gc;
pub mod index;
pub mod layout;
pub mod locks;
pub mod manifest;
pub mod memories;
mod planted;
pub mod runs;
pub mod staging;
pub mod store;
pub mod threads;
pub mod verify;
pub mod walk;

pub use actions::Action;
pub use commit::Batch;
pub use digest::{Digest, Key, RunId};
pub use error::{CacheError, Damage, Lookup};
pub use export::Exported;
pub use files::Identity;
pub use gc::{GcOptions, GcReport, Removal, Roots, Unfinished};
pub use index::{Summaries, Summary, Wanted};
pub use layout::Layout;
pub use locks::{Keeping, KeyLock};
pub use manifest::{ArtifactType, Blob, BlobName, Manifest};
pub use memories::{Survey, Tick};
pub use planted::planted;
pub use runs::{Execution, RunRecord, StageExecution, StageRecord};
pub use staging::{Scratch, Sealed, Staging, blob_name};
pub use store::Store;
pub use verify::{Finding, Verification};
pub use walk::Usage;
