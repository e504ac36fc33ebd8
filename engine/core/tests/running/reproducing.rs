//! A run again, from its record alone.

use std::sync::Arc;

use taper_cache::RunRecord;
use taper_engine::{
    Device, Events, Ingredients, Job, LocalExecutor, Reporter, ReproduceOptions, Reproduction,
    Rerun, compare_with_lock, execute_job, fresh_store, rerun, restore,
};

use crate::kinds::{KINDS, counted};
use crate::project::{Project, damage};

fn again(project: &Project, record: &RunRecord, which: Rerun) -> Reproduction {
    let options = ReproduceOptions {
        rerun: which,
        offline: false,
        stop: Arc::default(),
        events: Events::nowhere(),
    };
    let executor = LocalExecutor { kinds: KINDS };
    rerun(&project.store(), record, &executor, &options).expect("ran")
}

/// `a true, b false`.
fn told(reproduction: &Reproduction) -> String {
    let stages = reproduction.stages.iter();
    let lines = stages.map(|stage| format!("{} {}", stage.name, stage.identical));
    lines.collect::<Vec<_>>().join(", ")
}

fn record(project: &Project, stages: &str) -> RunRecord {
    let id = project.run(stages).run.expect("complete");
    let found = project.store().find_run(&id.short()).expect("found");
    project
        .store()
        .run(&found)
        .expect("read")
        .found()
        .expect("whole")
}

#[test]
fn a_run_is_restored_or_run_again_without_its_project() {
    let project = Project::new();
    project.write("a.txt", "local ");
    let stages = "  a: { say: { text: hello, tag: again } }\n  h: { halves: { of: a } }\n  \
                  c: { concat: { of: [h.right, a], file: a.txt } }\n";
    let record = record(&project, stages);
    fs_err::remove_file(project.root().join("a.txt")).expect("removed");
    let restored = restore(&project.store(), &record).expect("read");
    assert!(restored.identical, "{restored:?}");
    let rerun = again(&project, &record, Rerun::All);
    assert_eq!(told(&rerun), "a true, h true, c true");
    assert!(rerun.identical);
    assert_eq!(counted("again"), 2);
    let left = std::fs::read_dir(project.root().join(".taper/staging")).expect("listed");
    assert_eq!(left.count(), 0, "the fresh cache is gone");
}

#[test]
fn what_is_damaged_is_said_and_replaced() {
    let project = Project::new();
    let stages =
        "  a: { say: { text: hello, tag: heal } }\n  b: { concat: { of: [a], tag: heal-b } }\n";
    let record = record(&project, stages);
    let report = project.run(stages);
    damage(&project.blob(&report, "a"));
    // `b` has the same bytes, so that both are damaged.
    let restored = restore(&project.store(), &record).expect("read");
    assert_eq!(told(&restored), "a false, b false");
    assert!(
        restored.stages[0]
            .error
            .as_ref()
            .expect("said")
            .contains("damaged")
    );
    let rerun = again(&project, &record, Rerun::Missing);
    assert!(rerun.identical, "{rerun:?}");
    assert!(restore(&project.store(), &record).expect("read").identical);
    damage(&project.blob(&report, "a"));
    assert!(again(&project, &record, Rerun::All).identical);
    assert!(restore(&project.store(), &record).expect("read").identical);
    assert!(again(&project, &record, Rerun::Missing).identical);
    assert_eq!(counted("heal"), 3, "what is whole is not run again");
}

#[test]
fn what_comes_out_otherwise_is_told_stage_by_stage() {
    let project = Project::new();
    let stages = "  a: { say: { text: x } }\n  v: { vary: { tag: differs } }\n  \
                  c: { concat: { of: [a, v] } }\n  p: { parity: { of: c } }\n";
    let record = record(&project, stages);
    let rerun = again(&project, &record, Rerun::All);
    assert_eq!(told(&rerun), "a true, v false, c false, p true");
    assert!(!rerun.identical);
    let differing = &rerun.stages[1];
    assert!(differing.got.is_some() && differing.got != Some(differing.expected));
    assert!(
        restore(&project.store(), &record).expect("read").identical,
        "the cache stays as it is"
    );
}

#[test]
fn a_lock_is_reproduced_in_a_fresh_cache() {
    let project = Project::new();
    let stages = "  a: { say: { text: x } }\n  v: { vary: { tag: locked-varies } }\n";
    project.run(stages);
    let (_folder, fresh) = fresh_store(&project.store()).expect("made");
    let mut surroundings = project.surroundings();
    surroundings.store = fresh;
    let options = taper_engine::RunOptions {
        lock_use: taper_engine::LockUse::ReadOnly,
        ..crate::project::options()
    };
    let report = project
        .run_in(&surroundings, stages, &options)
        .expect("ran");
    let compared = compare_with_lock(&report, &surroundings.lock);
    assert_eq!(told(&compared), "a true, v false");
}

#[test]
fn a_job_needs_its_bytes_and_the_cache_alone() {
    let project = Project::new();
    let stages = "  a: { say: { text: hello } }\n  b: { concat: { of: [a] } }\n";
    let report = project.run(stages);
    let record = record(&project, stages);
    let stage = record.stage("b").expect("recorded");
    let job = Job {
        ingredients: Ingredients::from_bytes(&stage.ingredients).expect("canonical"),
        settings: taper_engine::Value::Map(taper_engine::Map::default()),
        device: Device::Cuda(1),
        offline: true,
    };
    let read = Job::from_bytes(&job.to_bytes()).expect("a job");
    assert_eq!(read, job);
    assert!(Job::from_bytes(b"no job").is_err());
    assert!(Job::from_bytes(&job.to_bytes()[1..]).is_err());
    let other = project.store();
    other.remove_action(&stage.key).expect("removed");
    let reporter = Reporter::new("b", Events::nowhere(), Arc::default());
    let made = execute_job(&other, KINDS, &read, None, &reporter).expect("executed");
    let action = made.action;
    assert_eq!((action.key, action.artifact), (stage.key, stage.artifact));
    assert_eq!(
        crate::project::states(&project.run(stages)),
        "a cached, b cached"
    );
    assert_eq!(crate::project::artifact(&report, "b"), action.artifact);
}
