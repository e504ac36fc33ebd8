//! The committed digests of small trainings, computed again at every level of CPU and with several numbers
//! of threads. `TAPER_BLESS=1` writes them anew.

use std::collections::BTreeMap;
use std::io::Write;

use taper_nn::kernels::dispatch::{Level, with_level};
use taper_nn::proof::trainings;

fn digests(level: Level, threads: usize) -> BTreeMap<&'static str, String> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    let digest_all = || {
        let trainings = trainings();
        let pairs = trainings
            .iter()
            .map(|training| (training.name(), training.digest()));
        pairs.collect()
    };
    with_level(level, || pool.install(digest_all))
}

#[test]
fn trainings_have_their_digests_on_this_machine() {
    if std::env::var_os("TAPER_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/trainings.json");
        let mut text = serde_json::to_string_pretty(&digests(Level::detected(), 1)).unwrap();
        text.push('\n');
        let mut file = std::fs::File::create(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        return;
    }
    let expected: BTreeMap<&str, String> = trainings()
        .iter()
        .map(|training| {
            let expected = training.expected();
            (training.name(), expected.expect("a committed digest"))
        })
        .collect();
    for level in Level::ALL {
        if level > Level::detected() {
            eprintln!(
                "this CPU has no {}: its kernels go unproved here",
                level.name()
            );
            continue;
        }
        // Without fused multiply-adds in the CPU everything takes 40 times as long.
        let numbers_of_threads: &[usize] = match level {
            Level::Scalar => &[2],
            _ => &[1, 2, 4],
        };
        for &threads in numbers_of_threads {
            assert_eq!(
                digests(level, threads),
                expected,
                "{} with {threads} threads",
                level.name()
            );
        }
    }
}
