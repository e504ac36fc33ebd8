//! `run --watch`: again whenever something has changed that the run reads.

use std::io::{BufRead, BufReader};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{Project, start};

const PIPELINE: &str = "taper: 1
stages:
  copy:
    command: { run: [cp, data/a.txt, out/copy/], files: [data/a.txt], outputs: { copy: files } }
    export: copied
";

fn interrupt(program: &Child) {
    let process = Pid::from_child(program);
    kill_process(process, Signal::INT).expect("it runs");
}

#[test]
fn what_a_run_reads_makes_it_run_again() {
    let project = Project::with(PIPELINE);
    project.write("data/a.txt", "1");
    project.write("data/unread.txt", "1");
    let mut program = start(project.path(), &["run", "p.yaml", "--watch", "--json"]);
    let stdout = program.stdout.take().expect("piped");
    let mut lines = BufReader::new(stdout).lines();
    // A line is a report.
    let mut state = || {
        let line = lines.next().expect("a report").expect("readable");
        let report: Value = serde_json::from_str(&line).expect("JSON");
        report["stages"][0]["state"].clone()
    };

    assert_eq!(state(), "ran");
    project.write("data/unread.txt", "2");
    project.write("data/a.txt", "22");
    assert_eq!(state(), "ran");
    assert_eq!(project.read("copied/a.txt"), "22");

    // A mistake is told, and mended.
    project.write("p.yaml", "taper: 1\nstages: 3\n");
    let mut said = BufReader::new(program.stderr.take().expect("piped")).lines();
    assert!(said.any(|line| line.expect("readable").contains("p.yaml:2")));
    project.write("p.yaml", PIPELINE);
    assert_eq!(state(), "cached");

    interrupt(&program);
    assert_eq!(program.wait().expect("it ends").code(), Some(130));
    assert_eq!(project.run(&[])["stages"][0]["state"], "cached");
}

#[test]
fn a_file_that_is_not_there_is_not_waited_for() {
    let said = Project::new().taper(&["run", "none.yaml", "--watch"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
}
