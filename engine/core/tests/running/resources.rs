//! What stages take of the machine while they run.

use taper_engine::{Device, DeviceChoice, Devices, Event, RunOptions, Surroundings};

use crate::kinds::{asleep, counted};
use crate::project::{Project, options, states};

/// How many of four stages of this kind, with these settings, slept at once, and for what they waited.
fn sleep(
    kind: &str,
    tag: &str,
    settings: &str,
    set_up: impl Fn(&mut Surroundings),
) -> (usize, Vec<String>) {
    let project = Project::new();
    let stages: String = ["a", "b", "c", "d"]
        .map(|name| {
            let sleep = format!("{kind}: {{ ms: 80, text: {name}, tag: {tag} }}");
            format!("  {name}: {{ {sleep}{settings} }}\n")
        })
        .concat();
    let options = RunOptions {
        jobs: 3,
        ..options()
    };
    let mut surroundings = project.surroundings();
    set_up(&mut surroundings);
    let report = project
        .run_in(&surroundings, &stages, &options)
        .expect("it ran");
    assert_eq!(states(&report), "a ran, b ran, c ran, d ran");
    let events = project.events.lock().expect("no panic");
    let reasons = events.iter().filter_map(|event| match event {
        Event::StageWaits { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    (asleep(tag), reasons.collect())
}

fn with_gpus(count: usize) -> impl Fn(&mut Surroundings) {
    move |surroundings| {
        surroundings.devices = Devices {
            cuda: Ok(count),
            ..Devices::default()
        };
    }
}

#[test]
fn as_many_stages_run_side_by_side_as_there_are_jobs() {
    let (most, reasons) = sleep("sleep", "jobs", "", |_| {});
    assert!((2..=3).contains(&most), "{most}");
    assert!(reasons.is_empty(), "{reasons:?}");
}

#[test]
fn a_stage_with_more_cores_counts_as_more_jobs() {
    for (tag, settings) in [("two", ", cores: 2"), ("many", ", cores: 64")] {
        assert_eq!(sleep("sleep", tag, settings, |_| {}), (1, vec![]));
    }
}

#[test]
fn stages_that_need_all_the_memory_run_one_by_one() {
    let (most, reasons) = sleep("sleep", "memory", ", memory: 900TiB", |_| {});
    assert_eq!((most, reasons), (1, vec![]));
}

#[test]
fn a_gpu_is_for_one_stage_at_a_time() {
    let (most, reasons) = sleep("sleep", "said", ", device: 'cuda:0'", |_| {});
    assert_eq!(most, 1);
    assert!(reasons[0].contains("cuda:0"), "{}", reasons[0]);
    // The best device is meant.
    let (most, reasons) = sleep("dream", "auto", "", with_gpus(1));
    assert_eq!(most, 1);
    assert!(reasons[0].contains("cuda:0"), "{}", reasons[0]);
    // The user's wish comes first, and a CPU is everybody's.
    let (_, reasons) = sleep("dream", "cpu", ", device: cuda", |surroundings| {
        with_gpus(1)(surroundings);
        surroundings.device = Some(DeviceChoice::This(Device::Cpu));
    });
    assert!(reasons.is_empty(), "{reasons:?}");
}

#[test]
fn what_has_computed_is_not_tried_again() {
    let project = Project::new();
    let store = project.store();
    let cache = store.layout().root();
    fs_err::create_dir_all(cache).expect("made");
    fs_err::write(cache.join("manifests"), "in the way").expect("written");
    let stage = "  a: { sleep: { ms: 1, tag: kept }, retries: 3 }\n";
    let report = project.run(stage);
    assert_eq!(states(&report), "a failed");
    assert_eq!(counted("kept"), 1);
}
