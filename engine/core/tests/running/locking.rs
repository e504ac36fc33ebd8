//! The lock file: the world outside is asked once, and what was made is written down.

use taper_engine::{EngineError, LockUse, RunEnd, RunOptions};

use crate::kinds::counted;
use crate::project::{Project, options, snapshot, states};

fn locked() -> RunOptions {
    RunOptions {
        lock_use: LockUse::Locked,
        ..options()
    }
}

#[test]
fn the_world_outside_is_asked_once() {
    let project = Project::new();
    let stages = "  a: { ask: { tag: asked-once } }\n  b: { concat: { of: [a] } }\n";
    let first = project.run(stages);
    assert_eq!(project.text(&first, "a"), "Some(0)");
    assert_eq!(counted("asked-once handed on"), 1);
    assert_eq!(counted("asked-once"), 1);
    let text = project.read("p.lock");
    assert!(text.contains("    resolved:\n      number: 0\n"), "{text}");
    fs_err::remove_dir_all(project.root().join(".taper")).expect("removed");
    let mut surroundings = project.surroundings();
    surroundings.offline = true;
    let second = project
        .run_in(&surroundings, stages, &locked())
        .expect("ran");
    assert_eq!(counted("asked-once"), 1);
    assert_eq!(states(&second), "a ran, b ran");
    assert_eq!(second.run, first.run);
}

#[test]
fn that_there_is_no_answer_is_locked_too() {
    let project = Project::new();
    let stages = "  a: { ask: { tag: nothing-to-say } }\n";
    project.run(stages);
    assert!(project.read("p.lock").contains("    request: "));
    let cache = snapshot(&project.root().join(".taper"));
    assert_eq!(states(&project.run(stages)), "a cached");
    assert_eq!(snapshot(&project.root().join(".taper")), cache);
}

#[test]
fn another_request_is_asked_anew_and_fails_offline() {
    let project = Project::new();
    project.run("  a: { ask: { tag: asked-first } }\n");
    let other = "  a: { ask: { tag: asked-anew } }\n";
    let mut surroundings = project.surroundings();
    surroundings.offline = true;
    let report = project
        .run_in(&surroundings, other, &options())
        .expect("ran");
    assert_eq!(report.end(), RunEnd::Failed);
    let error = report.stages[0].error.as_ref().expect("failed");
    assert!(error.message.contains("offline"), "{}", error.message);
    assert_eq!(states(&project.run(other)), "a ran");
    assert_eq!(counted("asked-anew"), 1);
}

#[test]
fn a_locked_pipeline_must_not_change() {
    let project = Project::new();
    let stages = "  a: { say: { text: x } }\n  b: { concat: { of: [a] } }\n";
    project.run(stages);
    let text = project.read("p.lock");
    assert_eq!(
        states(&project.try_run(stages, &locked()).expect("ran")),
        "a cached, b cached"
    );
    let report = project
        .try_run(&stages.replace("text: x", "text: y"), &locked())
        .expect("ran");
    assert_eq!(states(&report), "a failed, b skipped");
    let fewer = "  a: { say: { text: x } }\n";
    let error = project.try_run(fewer, &locked()).expect_err("would change");
    assert!(matches!(error, EngineError::WouldChange { .. }), "{error}");
    assert!(error.to_string().contains("stage `b` is gone"), "{error}");
    assert_eq!(project.read("p.lock"), text);
    let read_only = RunOptions {
        lock_use: LockUse::ReadOnly,
        ..options()
    };
    project.try_run(fewer, &read_only).expect("ran");
    assert_eq!(project.read("p.lock"), text);
    project.run(fewer);
    assert!(!project.read("p.lock").contains("b:"));
}

#[test]
fn a_frozen_stage_is_what_the_lock_says() {
    let project = Project::new();
    let stages = |text: &str, frozen: &str| {
        format!("  a: {{ say: {{ text: {text} }}{frozen} }}\n  b: {{ concat: {{ of: [a] }} }}\n")
    };
    let error = project.run(&stages("x", ", frozen: true"));
    assert_eq!(states(&error), "a failed, b skipped");
    let first = project.run(&stages("x", ""));
    let frozen = project.run(&stages("y", ", frozen: true"));
    assert_eq!(states(&frozen), "a cached, b cached");
    assert_eq!(frozen.run, first.run);
}

#[test]
fn a_stage_that_does_not_repeat_is_told() {
    let project = Project::new();
    let stages = "  a: { vary: { tag: varies } }\n";
    project.run(stages);
    let force = RunOptions {
        force: vec!["a".to_owned()],
        ..options()
    };
    project.try_run(stages, &force).expect("ran");
    assert!(
        project.warnings().contains("it does not repeat"),
        "{}",
        project.warnings()
    );
}

#[test]
fn a_broken_lock_is_refused_before_anything_runs() {
    let project = Project::new();
    project.write("p.lock", "version: 1\nstages:\n<<<<<<< HEAD\n");
    project.write("p.yaml", "");
    let opened =
        taper_engine::Surroundings::open(&project.file(), None, taper_engine::Events::nowhere());
    let error = opened.err().expect("refused");
    assert!(error.to_string().contains("merge"), "{error}");
    assert!(error.help().is_some());
}
