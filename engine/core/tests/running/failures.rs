//! What goes wrong, how it is told, and what is kept all the same.

use std::sync::atomic::Ordering;
use std::time::Duration;

use taper_engine::{Event, OnFailure, RunEnd, RunOptions, RunReport};

use crate::kinds::counted;
use crate::project::{Project, options, states};

fn message(report: &RunReport, stage: &str) -> String {
    let stage = report
        .stages
        .iter()
        .find(|s| s.name == stage)
        .expect("a stage");
    stage.error.as_ref().expect("failed").message.clone()
}

const DIAMOND: &str = "  bad: { fail: { how: failed } }\n  after: { concat: { of: [bad] } }\n  \
                       last: { concat: { of: [after, good] } }\n  good: { sleep: { ms: 30 } }\n  \
                       more: { concat: { of: [good] } }\n";

#[test]
fn a_failure_stops_what_follows_and_keeps_what_is_done() {
    let project = Project::new();
    let report = project.run(DIAMOND);
    assert_eq!(
        states(&report),
        "bad failed, after skipped, good ran, last skipped, more skipped"
    );
    assert_eq!((report.end(), report.run), (RunEnd::Failed, None));
    assert_eq!(message(&report, "bad"), "the disk is full");
    let going = RunOptions {
        on_failure: OnFailure::KeepGoing,
        ..options()
    };
    let report = project.try_run(DIAMOND, &going).expect("ran");
    assert_eq!(
        states(&report),
        "bad failed, after skipped, good cached, last skipped, more ran"
    );
    let events = project.events.lock().expect("no panic");
    let skipped = events.iter().filter_map(|event| match event {
        Event::StageSkipped { stage, because } => Some(format!("{stage} because {because}")),
        _ => None,
    });
    assert!(
        skipped
            .collect::<Vec<_>>()
            .contains(&"last because bad".to_owned())
    );
    assert!(project.store().runs().expect("listed").is_empty());
}

#[test]
fn failures_are_tried_again_as_often_as_asked() {
    let project = Project::new();
    let stages = |tag: &str, retries: u32| {
        format!("  a: {{ fail: {{ how: transient, times: 2, tag: {tag} }}, retries: {retries} }}\n")
    };
    let report = project.run(&stages("enough", 2));
    assert_eq!(states(&report), "a ran");
    assert_eq!(project.text(&report, "a"), "at last");
    let report = project.run(&stages("too-few", 1));
    assert_eq!(message(&report, "a"), "the server is busy");
    assert_eq!(counted("too-few"), 2);
}

#[test]
fn bugs_and_empty_hands_are_errors_that_say_so() {
    let project = Project::new();
    for (how, words) in [
        ("panic", "panicked: a bug"),
        ("nothing", "left no file"),
        ("link", "a link or a special file"),
    ] {
        let report = project.run(&format!("  a: {{ fail: {{ how: {how} }} }}\n"));
        assert!(
            message(&report, "a").contains(words),
            "{}",
            message(&report, "a")
        );
        assert_eq!(report.end(), RunEnd::Failed);
    }
    let left = std::fs::read_dir(project.root().join(".taper/staging")).expect("listed");
    assert_eq!(left.count(), 0, "no staging folder stays");
}

#[test]
fn a_timeout_ends_a_stage() {
    let project = Project::new();
    let report = project.run("  a: { sleep: { ms: 60000 }, timeout: 1s }\n");
    assert!(
        message(&report, "a").contains("longer than its timeout"),
        "{}",
        message(&report, "a")
    );
    assert!(report.seconds < 10.0);
}

#[test]
fn stopping_keeps_what_is_done() {
    let project = Project::new();
    let stages =
        "  a: { say: { text: x } }\n  b: { sleep: { ms: 60000 } }\n  c: { concat: { of: [b] } }\n";
    let surroundings = project.surroundings();
    let stop = surroundings.stop.clone();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
    });
    let report = project
        .run_in(&surroundings, stages, &options())
        .expect("ran");
    stopper.join().expect("no panic");
    assert_eq!(states(&report), "a ran, b failed, c skipped");
    assert_eq!(report.end(), RunEnd::Interrupted);
    assert!(report.seconds < 10.0);
    let wanted = RunOptions {
        stages: vec!["a".to_owned()],
        ..options()
    };
    assert_eq!(
        states(&project.try_run(stages, &wanted).expect("ran")),
        "a cached"
    );
}

#[test]
fn an_export_that_leaves_the_project_fails_its_stage() {
    let project = Project::new();
    std::os::unix::fs::symlink("/tmp", project.root().join("out")).expect("linked");
    let report = project.run("  a: { say: { text: x }, export: out/a/ }\n");
    assert!(
        message(&report, "a").contains("is a link"),
        "{}",
        message(&report, "a")
    );
    assert_eq!(report.end(), RunEnd::Failed);
}
