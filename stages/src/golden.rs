//! Reference values of other programs, for tests.

use std::path::PathBuf;

/// The folder shared with this workspace: `TAPER_SHARED`, else `shared` beside the workspace.
pub(crate) fn shared() -> PathBuf {
    std::env::var_os("TAPER_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
        PathBuf::from,
    )
}

/// A file of the reference values: in `TAPER_GOLDENS`, else in `goldens` of [`shared`].
pub(crate) fn path(name: &str) -> PathBuf {
    let folder =
        std::env::var_os("TAPER_GOLDENS").map_or_else(|| shared().join("goldens"), PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.exists(),
        "no reference values at {}: set TAPER_SHARED to the shared folder, or TAPER_GOLDENS",
        path.display()
    );
    path
}

/// A JSON file of the reference values.
pub(crate) fn json(name: &str) -> serde_json::Value {
    let bytes = fs_err::read(path(name)).expect("the file is readable");
    serde_json::from_slice(&bytes).expect("the file is JSON")
}
