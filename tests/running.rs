//! Runs of small commands: early cut-off, exit codes, exports, what programs are told.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Project, stable, start};

/// A stage that writes a text, and one that reads it.
fn copying(text: &str) -> String {
    format!(
        "taper: 1
stages:
  first:
    command:
      shell: 'echo {text} | tr A-Z a-z > out/words/a.txt'
      outputs: {{ words: files }}
  second:
    command:
      inputs: {{ words: first }}
      shell: 'cp in/words/a.txt out/copy/a.txt'
      outputs: {{ copy: files }}
"
    )
}

#[test]
fn a_change_that_makes_the_same_bytes_stops_there() {
    let project = Project::with(&copying("HELLO"));
    let first = project.run(&[]);
    assert_eq!(Project::executed(&first), ["first", "second"]);
    project.write("p.yaml", &copying("hello"));
    let second = project.run(&[]);
    assert_eq!(Project::executed(&second), ["first"]);
    project.write("p.yaml", &copying("other"));
    assert_eq!(Project::executed(&project.run(&[])), ["first", "second"]);
}

#[test]
fn what_programs_are_told_has_its_shape() {
    let project = Project::with(&copying("hello"));
    let plan = project.json(&["plan", "p.yaml", "--json"]);
    assert_eq!(plan["stages"][0]["state"], "run");
    assert_eq!(plan["stages"][1]["state"], "unknown");
    let report = project.run(&[]);
    for field in ["run", "pipeline", "stages", "metrics", "seconds"] {
        assert!(!report[field].is_null(), "{field}: {report:#}");
    }
    for stage in report["stages"].as_array().expect("stages") {
        for field in ["name", "kind", "state", "key", "artifact", "seconds"] {
            assert!(!stage[field].is_null(), "{field}: {stage:#}");
        }
    }
    let plan = project.json(&["plan", "p.yaml", "--json"]);
    assert_eq!(plan["stages"][1]["state"], "cached");
    project.write("p.yaml", &copying("other"));
    let plan = project.json(&["plan", "p.yaml", "--json"]);
    let because = &plan["stages"][0]["because"][0];
    for field in ["ingredient", "old", "new"] {
        assert!(because[field].is_string(), "{plan:#}");
    }
    let events = project.taper(&["run", "p.yaml", "--json=events"]);
    let lines: Vec<Value> = events
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON on each line"))
        .collect();
    let names: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["event"].as_str())
        .collect();
    assert_eq!(names.len(), lines.len());
    assert_eq!(names.last(), Some(&"run_finished"));
    assert_eq!(
        names
            .iter()
            .filter(|name| **name == "stage_finished")
            .count(),
        2
    );
    let log = project.json(&["log", "--json"]);
    assert_eq!(log.as_array().map(Vec::len), Some(2), "{log:#}");
    let (old, new) = (&log[1]["run"], &log[0]["run"]);
    let id = |run: &Value| run.as_str().expect("an id")[..10].to_owned();
    let shown = project.json(&["show", &id(new), "--json"]);
    assert_eq!(&shown["run"], new);
    assert_eq!(shown["stages"][0]["type"], "files");
    let difference = project.json(&["diff", &id(old), &id(new), "--json"]);
    assert_eq!(difference["stages"][0]["state"], "differs");
    let verified = project.json(&["verify", "--json"]);
    assert_eq!(verified["findings"], serde_json::json!([]));
    let collected = project.json(&["gc", "--dry-run", "--json"]);
    assert_eq!(collected["blobs"], 0, "runs name everything: {collected}");
    let doctor = project.json(&["doctor", "--json"]);
    assert_eq!(doctor["fine"], true, "{doctor:#}");
}

#[test]
fn people_are_told_what_happened() {
    let project = Project::with(&copying("hello"));
    let planned = project.taper(&["plan", "p.yaml"]);
    insta::assert_snapshot!(stable(&planned.stdout, &project), @r"
    stage   kind              because
    first   command  run      never run
    second  command  depends  on first

    1 to run, 1 depend on them, 0 cached
    ");
    let first = project.taper(&["run", "p.yaml"]);
    let second = project.taper(&["run", "p.yaml"]);
    insta::with_settings!({ filters => vec![
        (r"\d+(\.\d+)? m?s\b", "TIME"),
        (r"(?m) +$", ""),
        (r"  +(TIME|time)", "  $1"),
    ] }, {
        insta::assert_snapshot!(stable(&first.stdout, &project), @r"
        stage   kind  time
        first   command  ran  TIME
        second  command  ran  TIME

        run ############  2 ran, TIME
        ");
        insta::assert_snapshot!(stable(&first.stderr, &project), @r"
        start first command
        done  first command TIME
        start second command
        done  second command TIME
        ");
        insta::assert_snapshot!(stable(&second.stdout, &project), @r"
        up to date: 2 stages, TIME
        run ############
        ");
        assert_eq!(second.stderr, "");
    });
    let graph = project.taper(&["graph", "p.yaml"]);
    insta::assert_snapshot!(graph.stdout, @r"
    stage   kind             reads
    first   command  cached
    second  command  cached  first
    ");
    let graph = project.taper(&["graph", "p.yaml", "--format", "mermaid"]);
    insta::assert_snapshot!(graph.stdout, @r##"
    flowchart LR
      s0["first<br><small>command</small>"]:::cached
      s1["second<br><small>command</small>"]:::cached
      s0 --> s1
      classDef cached fill:#e9f5ee,stroke:#009e73
      classDef run fill:#fdf0e6,stroke:#d55e00
      classDef depends fill:#f4f7fa,stroke:#adb5bd
    "##);
    project.write("p.yaml", &copying("other"));
    let explained = project.taper(&["explain", "p.yaml", "second"]);
    insta::assert_snapshot!(stable(&explained.stdout, &project), @r"
    second depends on stages that run first

    first runs
    ingredient    old                                        new
    params.shell  echo hello | tr A-Z a-z > out/words/a.txt  echo other | tr A-Z a-z > out/words/a.txt
    ");
}

#[test]
fn exit_codes_say_how_it_ended() {
    let project = Project::with(
        "taper: 1
stages:
  bad:
    command: { shell: 'echo no such luck >&2; exit 3', outputs: { a: files } }
  after:
    command: { inputs: { a: bad }, shell: 'true', outputs: { b: files } }
  beside:
    command: { shell: 'echo fine > out/c/d', outputs: { c: files } }
",
    );
    let ran = project.taper(&["run", "p.yaml", "--keep-going", "--json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let state = |name: &str| {
        let stages = report["stages"].as_array().expect("stages");
        let stage = stages.iter().find(|stage| stage["name"] == name);
        stage.expect("listed")["state"].clone()
    };
    assert_eq!(state("bad"), "failed");
    assert_eq!(state("after"), "skipped");
    assert_eq!(state("beside"), "ran");
    assert!(report["run"].is_null());
    assert!(ran.stderr.contains("no such luck"), "{}", ran.stderr);

    project.write("q.yaml", "taper: 1\nstages: {}\nstagess: 1\n");
    for (arguments, code) in [
        (vec!["run", "q.yaml"], 2),
        (vec!["run", "missing.yaml"], 2),
        (vec!["run"], 2),
        (vec!["frobnicate"], 2),
        (vec!["show", "0123456789"], 2),
        (vec!["run", "p.yaml", "nowhere"], 2),
        (vec!["stages", "tokenise"], 2),
        (vec!["--help"], 0),
        (vec!["--version"], 0),
        (vec!["verify"], 0),
        (vec!["log"], 0),
    ] {
        let ran = project.taper(&arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn exports_stay_in_the_project() {
    let exporting = |target: &str| {
        copying("hello").replace("  second:", &format!("    export: {target}\n  second:"))
    };
    for bad in ["../outside", "/tmp/outside", "a/../../outside"] {
        let project = Project::with(&exporting(bad));
        let ran = project.taper(&["run", "p.yaml"]);
        assert_eq!(ran.code, Some(2), "{bad}: {}", ran.stderr);
    }
    let project = Project::with(&exporting("results/words"));
    project.run(&[]);
    assert_eq!(project.read("results/words/a.txt"), "hello\n");
    let linked = Project::with(&exporting("link/words"));
    let outside = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(outside.path(), linked.path().join("link")).expect("linked");
    let ran = linked.taper(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert_eq!(fs_err::read_dir(outside.path()).expect("there").count(), 0);
}

#[test]
fn artifacts_are_looked_into_and_exported_by_name() {
    let project = Project::with(&copying("hello"));
    let run = project.run(&[]);
    let run = run["run"].as_str().expect("an id");
    assert_eq!(project.taper(&["cat", "p.yaml:second"]).stdout, "hello\n");
    let listed = project.taper(&["cat", &format!("{}:second", &run[..6]), "--list"]);
    assert!(listed.stdout.contains("a.txt"), "{}", listed.stdout);
    let wrong = project.taper(&["cat", "p.yaml:secnd"]);
    assert!(
        wrong.stderr.contains("did you mean `second`?"),
        "{}",
        wrong.stderr
    );
    project.json(&["export", "p.yaml:second", "there", "--json"]);
    assert_eq!(project.read("there/a.txt"), "hello\n");
    project.json(&["export", &run[..12], "all", "--json"]);
    assert_eq!(project.read("all/first/a.txt"), "hello\n");
}

#[test]
fn a_flipped_byte_is_found_and_made_again() {
    let project = Project::with(&copying("hello"));
    let report = project.run(&[]);
    let run = report["run"].as_str().expect("an id").to_owned();
    flip_a_byte(&project, b"hello\n");
    let verified = project.taper(&["verify"]);
    assert_eq!(verified.code, Some(4), "{}", verified.stdout);
    let again = project.taper(&["reproduce", &run[..12]]);
    assert_eq!(again.code, Some(0), "{}{}", again.stdout, again.stderr);
    assert!(again.stdout.contains("identical"), "{}", again.stdout);
    assert_eq!(project.taper(&["verify"]).code, Some(0));

    flip_a_byte(&project, b"hello\n");
    let again = project.taper(&["reproduce", &run[..12], "--rerun"]);
    assert_eq!(again.code, Some(0), "{}{}", again.stdout, again.stderr);
    assert!(
        again.stderr.contains("warning"),
        "it says what is damaged: {}",
        again.stderr
    );
    assert_eq!(project.taper(&["verify"]).code, Some(0));
}

/// Changes a byte of the blob with this content.
fn flip_a_byte(project: &Project, content: &[u8]) {
    let digest = taper_cache::Digest::of(content).to_string();
    let blob = project.path().join(format!(".taper/blobs/{digest}"));
    let mut bytes = fs_err::read(&blob).expect("the blob is there");
    bytes[0] ^= 1;
    // Read-only for everybody, but its folder is not.
    fs_err::remove_file(&blob).expect("removed");
    fs_err::write(&blob, bytes).expect("written");
}

#[test]
fn a_command_that_does_not_repeat_differs() {
    let project = Project::with(
        "taper: 1
stages:
  clock:
    command: { shell: 'cat /proc/sys/kernel/random/uuid > out/a/b', outputs: { a: files } }
",
    );
    let report = project.run(&[]);
    let run = report["run"].as_str().expect("an id");
    let again = project.taper(&["reproduce", &run[..12], "--rerun"]);
    assert_eq!(again.code, Some(3), "{}", again.stdout);
    assert!(again.stdout.contains("differs"), "{}", again.stdout);
}

#[test]
fn a_run_of_another_cache_is_found_by_its_lock() {
    let project = Project::with(&copying("hello"));
    let report = project.run(&[]);
    let run = report["run"].as_str().expect("an id").to_owned();
    fs_err::remove_dir_all(project.path().join(".taper")).expect("removed");
    let again = project.json(&["reproduce", &run[..12], "--rerun", "--json"]);
    assert_eq!(again["identical"], true);
    assert_eq!(again["run"], run.as_str());
}

#[test]
fn independent_stages_run_side_by_side() {
    let mut pipeline = String::from("taper: 1\nstages:\n");
    for number in 0..10 {
        pipeline.push_str(&format!(
            "  s{number}:\n    command: {{ shell: 'sleep 1; echo {number} > out/a/b', outputs: {{ a: files }} }}\n"
        ));
    }
    let project = Project::with(&pipeline);
    let started = Instant::now();
    project.run(&["--jobs", "10"]);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn ctrl_c_stops_and_keeps_what_is_done() {
    let project = Project::with(
        "taper: 1
stages:
  quick:
    command: { shell: 'echo done > out/a/b', outputs: { a: files } }
  slow:
    command: { inputs: { a: quick }, shell: 'sleep 60; echo late > out/b/c', outputs: { b: files } }
",
    );
    let mut child = start(project.path(), &["run", "p.yaml", "--json=events"]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let slow_started = lines.any(|line| {
        let line = line.expect("text");
        line.contains("stage_started") && line.contains("slow")
    });
    assert!(slow_started);
    let asked = Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("asked");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    let plan = project.json(&["plan", "p.yaml", "--json"]);
    assert_eq!(plan["stages"][0]["state"], "cached");
    assert_eq!(plan["stages"][1]["state"], "run");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let project = Project::new();
    let mut child = start(project.path(), &["schema"]);
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
