//! The program, as its users meet it: one file a subject.

mod common;
mod devices;
mod foreign;
mod invalid;
mod killing;
mod lockless;
mod new_kind;
mod quickstart;
mod reference;
mod running;
mod smoke;
mod watching;

/// A file that is not named above is not compiled, and nobody would notice.
#[test]
fn no_file_is_forgotten() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let main = fs_err::read_to_string(folder.join("main.rs")).expect("this file");
    for file in fs_err::read_dir(folder).expect("this folder") {
        let path = file.expect("readable").path();
        let name = path.file_stem().and_then(|name| name.to_str());
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = name.expect("a name");
            assert!(
                name == "main" || main.contains(&format!("mod {name};")),
                "{name}"
            );
        }
    }
}
