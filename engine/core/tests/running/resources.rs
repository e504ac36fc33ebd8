//! What stages take of the machine while they run.

use taper_engine::{Event, RunOptions};

use crate::kinds::asleep;
use crate::project::{Project, options, states};

/// How many of four stages with these settings slept at once, and for what they waited.
fn sleep(tag: &str, settings: &str) -> (usize, Vec<String>) {
    let project = Project::new();
    let stages: String = ["a", "b", "c", "d"]
        .map(|name| {
            let sleep = format!("sleep: {{ ms: 40, text: {name}, tag: {tag} }}");
            format!("  {name}: {{ {sleep}{settings} }}\n")
        })
        .concat();
    let options = RunOptions {
        jobs: 3,
        ..options()
    };
    let report = project.try_run(&stages, &options).expect("it ran");
    assert_eq!(states(&report), "a ran, b ran, c ran, d ran");
    let events = project.events.lock().expect("no panic");
    let reasons = events.iter().filter_map(|event| match event {
        Event::StageWaits { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    (asleep(tag), reasons.collect())
}

#[test]
fn no_more_stages_run_than_jobs() {
    let (most, reasons) = sleep("jobs", "");
    assert!(most <= 3, "{most}");
    assert!(reasons.is_empty(), "{reasons:?}");
}

#[test]
fn a_stage_with_more_cores_counts_as_more_jobs() {
    assert_eq!(sleep("two-cores", ", cores: 2"), (1, vec![]));
    assert_eq!(sleep("many-cores", ", cores: 64"), (1, vec![]));
}

#[test]
fn stages_that_need_all_the_memory_run_one_by_one_and_say_so() {
    let (most, reasons) = sleep("memory", ", memory: 900TiB");
    assert_eq!(most, 1);
    assert_eq!(reasons.len(), 3, "all but the first: {reasons:?}");
    assert!(reasons[0].contains("memory"), "{}", reasons[0]);
}

#[test]
fn a_gpu_is_for_one_stage_at_a_time() {
    let (most, reasons) = sleep("gpu", ", device: 'cuda:0'");
    assert_eq!(most, 1);
    assert!(reasons[0].contains("cuda:0"), "{}", reasons[0]);
}
