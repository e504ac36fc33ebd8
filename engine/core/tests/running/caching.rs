//! What is run again, and what is not.

use std::time::{Duration, Instant};

use taper_cache::{GcOptions, Lookup};
use taper_engine::{Event, PlannedState, RunEnd, RunOptions};

use crate::kinds::counted;
use crate::project::{Project, artifact, damage, options, snapshot, states};

#[test]
fn a_second_run_runs_nothing_and_writes_nothing() {
    let project = Project::new();
    let stages = "  a: { say: { text: x } }\n  b: { concat: { of: [a, a] }, export: out/b. }\n  \
                  m: { measure: { of: b } }\n";
    let stages = &stages.replace("out/b.", "out/b");
    let first = project.run(stages);
    assert_eq!(states(&first), "a ran, b ran, m ran");
    assert_eq!(project.text(&first, "b"), "xx");
    assert_eq!(first.metrics["m"]["length"], 2);
    assert_eq!(project.read("out/b/text"), "xx");
    let before = snapshot(project.root());
    let second = project.run(stages);
    assert_eq!(states(&second), "a cached, b cached, m cached");
    assert_eq!(second.run, first.run);
    assert_eq!(second.metrics, first.metrics);
    let differing = snapshot(project.root());
    let untouched = |files: &[(std::path::PathBuf, std::time::SystemTime, Vec<u8>)]| {
        let files = files.iter().filter(|(path, ..)| !path.ends_with("p.yaml"));
        files.cloned().collect::<Vec<_>>()
    };
    assert_eq!(untouched(&differing), untouched(&before));
}

#[test]
fn the_same_bytes_stop_a_change() {
    let project = Project::new();
    let stages = |text: &str| {
        format!(
            "  a: {{ say: {{ text: {text} }} }}\n  b: {{ parity: {{ of: a }} }}\n  c: {{ concat: {{ of: [b] }} }}\n"
        )
    };
    let first = project.run(&stages("xx"));
    assert_eq!(
        states(&project.run(&stages("xxxx"))),
        "a ran, b ran, c cached"
    );
    let third = project.run(&stages("xxx"));
    assert_eq!(states(&third), "a ran, b ran, c ran");
    assert_ne!(third.run, first.run);
    let again = project.run(&stages("xx"));
    assert_eq!(states(&again), "a cached, b cached, c cached");
    assert_eq!(again.run, first.run);
}

#[test]
fn names_order_and_settings_run_nothing_again() {
    let project = Project::new();
    project.run("  a: { say: { text: x } }\n  b: { concat: { of: [a] } }\n");
    let other = "  # a comment\n  two: { concat: { of: [one], tag: '' }, retries: 3, description: d }\n  \
                 one: { say: { text: 'x' } }\n";
    assert_eq!(states(&project.run(other)), "one cached, two cached");
}

#[test]
fn independent_stages_run_side_by_side() {
    let project = Project::new();
    let stages: String = (0..6)
        .map(|n| format!("  s{n}: {{ sleep: {{ ms: 300, text: '{n}' }} }}\n"))
        .collect();
    let started = Instant::now();
    let report = project
        .try_run(
            &stages,
            &RunOptions {
                jobs: 6,
                ..options()
            },
        )
        .expect("ran");
    assert_eq!(report.end(), RunEnd::Done);
    let took = started.elapsed();
    assert!(
        took < Duration::from_millis(1200),
        "six times 0.3 s took {took:?}"
    );
}

#[test]
fn two_runs_at_once_make_a_key_once() {
    let project = Project::new();
    let stages =
        "  a: { sleep: { ms: 200, tag: once } }\n  b: { concat: { of: [a], tag: once-b } }\n";
    let (plan, origin) = (project.plan(stages), project.origin(stages));
    let surroundings = [project.surroundings(), project.surroundings()];
    let reports: Vec<_> = std::thread::scope(|scope| {
        let runs = surroundings.each_ref().map(|surroundings| {
            let (plan, origin) = (&plan, &origin);
            scope.spawn(move || {
                let executor = taper_engine::LocalExecutor {
                    kinds: crate::kinds::KINDS,
                };
                taper_engine::run(plan, origin, surroundings, &executor, &options()).expect("ran")
            })
        });
        runs.into_iter()
            .map(|run| run.join().expect("no panic"))
            .collect()
    });
    assert_eq!(counted("once"), 1);
    assert_eq!(counted("once-b"), 1);
    assert_eq!(reports[0].run, reports[1].run);
    let events = project.events.lock().expect("no panic");
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::StageWaits { .. }))
    );
}

#[test]
fn a_damaged_input_is_made_again_before_it_is_read() {
    let project = Project::new();
    let a = "  a: { say: { text: hello, tag: damaged } }\n";
    let first = project.run(a);
    damage(&project.blob(&first, "a"));
    let second = project.run(&format!("{a}  b: {{ concat: {{ of: [a] }} }}\n"));
    assert_eq!(states(&second), "a ran, b ran");
    assert_eq!(project.text(&second, "b"), "hello");
    assert_eq!(counted("damaged"), 2);
    assert!(
        project.warnings().contains("is damaged"),
        "{}",
        project.warnings()
    );
    assert!(project.store().verify(|_| ()).expect("read").is_clean());
}

/// While it asks the world, what it reads turns out to be damaged and is made again.
#[test]
fn a_stage_that_asks_waits_for_what_it_reads() {
    let project = Project::new();
    let a = "  a: { sleep: { ms: 500, text: hello } }\n";
    let first = project.run(a);
    damage(&project.blob(&first, "a"));
    let stages = format!(
        "{a}  asks: {{ ask: {{ tag: while-damaged, of: a, ms: 100 }} }}\n  b: {{ concat: {{ of: [a] }} }}\n"
    );
    let jobs = RunOptions {
        jobs: 2,
        ..options()
    };
    let second = project.try_run(&stages, &jobs).expect("it ran");
    assert_eq!(states(&second), "a ran, asks ran, b ran");
}

/// What it reads is lost, and what that reads is on its way again already.
#[test]
fn what_is_made_again_waits_for_what_it_reads() {
    let project = Project::new();
    let before = "  a: { sleep: { ms: 500, text: hello } }\n  b: { say: { text: world } }\n  \
        both: { concat: { of: [a, b] } }\n";
    let first = project.run(before);
    damage(&project.blob(&first, "a"));
    damage(&project.blob(&first, "both"));
    let stages = format!(
        "{before}  first: {{ concat: {{ of: [a] }} }}\n  \
        later: {{ ask: {{ tag: twice-damaged, of: both, ms: 100 }} }}\n"
    );
    let jobs = RunOptions {
        jobs: 2,
        ..options()
    };
    let second = project.try_run(&stages, &jobs).expect("it ran");
    assert_eq!(
        states(&second),
        "a ran, b cached, both ran, first ran, later ran"
    );
}

#[test]
fn a_missing_blob_or_action_is_made_again() {
    let project = Project::new();
    let stages = "  a: { say: { text: hello } }\n  b: { concat: { of: [a] } }\n";
    let first = project.run(stages);
    fs_err::remove_file(project.blob(&first, "a")).expect("removed");
    assert_eq!(states(&project.run(stages)), "a ran, b cached");
    let key = first.stages[0].key.expect("known");
    let path = project.store().layout().action(&key);
    fs_err::write(&path, "cut").expect("written");
    let third = project.run(stages);
    assert_eq!(states(&third), "a ran, b cached");
    assert_eq!(third.run, first.run);
    assert!(matches!(
        project.store().action(&key).expect("read"),
        Lookup::Found(_)
    ));
}

#[test]
fn a_damaged_export_is_repaired_in_the_same_run() {
    let project = Project::new();
    let stages = "  a: { say: { text: hello }, export: out/ }\n";
    let first = project.run(stages);
    damage(&project.blob(&first, "a"));
    fs_err::remove_file(project.root().join("out/text")).expect("removed");
    let second = project.run(stages);
    assert_eq!(states(&second), "a ran");
    assert_eq!(project.read("out/text"), "hello");
}

#[test]
fn outputs_are_artifacts_of_their_own() {
    let project = Project::new();
    let stages = |text: &str| {
        format!(
            "  a: {{ say: {{ text: {text} }} }}\n  h: {{ halves: {{ of: a }} }}\n  \
             l: {{ concat: {{ of: [h.left] }} }}\n  r: {{ concat: {{ of: [h.right] }} }}\n"
        )
    };
    let first = project.run(&stages("abcd"));
    assert_eq!(project.text(&first, "l"), "ab");
    assert_eq!(project.text(&first, "r"), "cd");
    assert_eq!(
        states(&project.run(&stages("abXY"))),
        "a ran, h ran, l cached, r ran"
    );
}

#[test]
fn only_what_is_wanted_runs_and_what_is_forced_runs_again() {
    let project = Project::new();
    let stages =
        "  a: { say: { text: x } }\n  b: { concat: { of: [a] } }\n  c: { say: { text: z } }\n";
    let wanted = RunOptions {
        stages: vec!["b".to_owned()],
        ..options()
    };
    let report = project.try_run(stages, &wanted).expect("ran");
    assert_eq!(states(&report), "a ran, b ran");
    let forced = RunOptions {
        force: vec!["a".to_owned()],
        ..options()
    };
    let report = project.try_run(stages, &forced).expect("ran");
    assert_eq!(states(&report), "a ran, b cached, c ran");
    let unknown = RunOptions {
        stages: vec!["d".to_owned()],
        ..options()
    };
    let error = project.try_run(stages, &unknown).expect_err("unknown");
    assert!(error.to_string().contains("no stage `d`"), "{error}");
}

#[test]
fn files_of_the_project_are_read_as_they_were_hashed() {
    let project = Project::new();
    project.write("a.txt", "one");
    let stages = "  a: { concat: { file: a.txt } }\n";
    let first = project.run(stages);
    assert_eq!(project.text(&first, "a"), "one");
    assert_eq!(states(&project.run(stages)), "a cached");
    fs_err::rename(project.root().join("a.txt"), project.root().join("b.txt")).expect("moved");
    assert_eq!(
        states(&project.run(&stages.replace("a.txt", "b.txt"))),
        "a cached"
    );
    // Edited between hashing and running: hashed by a forecast in the same surroundings.
    let stages = &stages.replace("a.txt", "b.txt");
    project.write("b.txt", "two");
    let surroundings = project.surroundings();
    let (plan, origin) = (project.plan(stages), project.origin(stages));
    taper_engine::forecast(&plan, &origin, &surroundings, &options()).expect("foreseen");
    project.write("b.txt", "three");
    let report = project
        .run_in(&surroundings, stages, &options())
        .expect("ran");
    assert_eq!(project.text(&report, "a"), "three");
    assert!(
        project.warnings().contains("changed while taper ran"),
        "{}",
        project.warnings()
    );
    assert_eq!(states(&project.run(stages)), "a cached");
}

#[test]
fn a_forecast_says_what_changed() {
    let project = Project::new();
    let stages = |text: &str, tag: &str| {
        format!(
            "  a: {{ say: {{ text: {text} }} }}\n  b: {{ concat: {{ of: [a], tag: {tag} }} }}\n"
        )
    };
    let told = |stages: &str| {
        let report = project.forecast(stages);
        let lines = report.stages.into_iter().map(|stage| {
            let because = stage.because.into_iter().map(|change| {
                let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
                format!(
                    " {}: {} -> {}",
                    change.ingredient,
                    shown(change.old),
                    shown(change.new)
                )
            });
            format!(
                "{} {:?}{}",
                stage.name,
                stage.state,
                because.collect::<String>()
            )
        });
        lines.collect::<Vec<_>>()
    };
    assert_eq!(
        told(&stages("x", "t")),
        ["a Run stage: - -> new", "b Unknown"]
    );
    let first = project.run(&stages("x", "t"));
    assert_eq!(told(&stages("x", "t")), ["a Cached", "b Cached"]);
    assert_eq!(
        told(&stages("y", "t")),
        ["a Run params.text: x -> y", "b Unknown"]
    );
    assert_eq!(
        told(&stages("x", "u")),
        ["a Cached", "b Run params.tag: t -> u"]
    );
    project
        .store()
        .remove_action(&first.stages[0].key.expect("known"))
        .expect("removed");
    let gone = artifact(&first, "a").short();
    assert_eq!(
        told(&stages("x", "t")),
        [format!("a Run cache: {gone} -> -"), "b Unknown".to_owned()]
    );
    let report = project.forecast(&stages("x", "t"));
    assert_eq!(report.stages[1].state, PlannedState::Unknown);
}

#[test]
fn collection_keeps_what_the_lock_and_runs_name() {
    let project = Project::new();
    let stages = |text: &str| {
        format!("  a: {{ say: {{ text: {text} }} }}\n  b: {{ parity: {{ of: a }} }}\n")
    };
    project.run(&stages("x"));
    project.run(&stages("xxx"));
    let roots = project.lock().roots();
    let options = GcOptions {
        max_bytes: Some(0),
        ..GcOptions::default()
    };
    let report = project
        .store()
        .collect(&roots, &options)
        .expect("collected");
    assert_eq!(report.actions, 1, "`b` made the same from both");
    assert_eq!(states(&project.run(&stages("xxx"))), "a cached, b cached");
    assert_eq!(states(&project.run(&stages("x"))), "a ran, b cached");
}

#[test]
fn thousands_of_stages_are_looked_at_in_no_time() {
    let project = Project::new();
    let stages: String = (0..100)
        .map(|n| match n {
            0 => "  s0: { say: { text: x } }\n".to_owned(),
            _ => format!("  s{n}: {{ concat: {{ of: [s{}], tag: '{n}' }} }}\n", n - 1),
        })
        .collect();
    let first = project.run(&stages);
    assert_eq!(first.end(), RunEnd::Done);
    let (plan, origin, surroundings) = (
        project.plan(&stages),
        project.origin(&stages),
        project.surroundings(),
    );
    let executor = taper_engine::LocalExecutor {
        kinds: crate::kinds::KINDS,
    };
    let started = Instant::now();
    let second = taper_engine::run(&plan, &origin, &surroundings, &executor, &options());
    assert!(second.expect("ran").is_cached());
    let took = started.elapsed();
    assert!(took < Duration::from_millis(300), "{took:?}");
}
