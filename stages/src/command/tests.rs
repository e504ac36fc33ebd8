use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::*;
use crate::testing::{Workshop, told};

fn shell(line: &str, rest: &str) -> String {
    let line = serde_json::Value::from(line);
    format!(r#"{{"shell": {line}, {rest}}}"#)
}

const FILES: &str = r#""outputs": {"result": "files"}"#;

#[test]
fn inputs_become_outputs() {
    let shop = Workshop::new();
    let input = shop.files(&[("a/b.txt", b"hello")]);
    let script = shop.files(&[(
        "tools/copy.sh",
        b"#!/bin/sh\ntr a-z A-Z < \"$1\" > \"$2\"\necho done\n",
    )]);
    let params = format!(
        r#"{{"inputs": {{"words": "{input}"}}, "files": ["{script}"], {FILES},
            "run": ["./tools/copy.sh", "in/words/a/b.txt", "out/result/c.txt"]}}"#
    );
    let made = shop.artifact(&shop.run(Command, &params));
    assert_eq!(made.names().collect::<Vec<_>>(), ["c.txt"]);
    let text = fs_err::read_to_string(made.path("c.txt").expect("there")).expect("read");
    assert_eq!(text, "HELLO");
    assert_eq!(shop.notes(), ["done"]);
}

#[test]
fn what_it_does_to_its_inputs_stays_its_own() {
    let shop = Workshop::new();
    let input = shop.files(&[("a.txt", b"hello")]);
    let line = "echo changed > in/words/a.txt; rm in/words/a.txt; echo x > out/result/x";
    shop.run(
        Command,
        &shell(
            line,
            &format!(r#""inputs": {{"words": "{input}"}}, {FILES}"#),
        ),
    );
    let kept = shop.artifact(&input).path("a.txt").expect("there");
    assert_eq!(fs_err::read_to_string(kept).expect("read"), "hello");
}

#[test]
fn several_outputs_lie_in_folders_of_their_names() {
    let shop = Workshop::new();
    let line = r#"echo '{"accuracy": 1}' > out/scores/metrics.json; echo x > out/rest/x"#;
    let params = shell(line, r#""outputs": {"scores": "metrics", "rest": "files"}"#);
    let made = shop.artifact(&shop.run(Command, &params));
    assert_eq!(
        made.names().collect::<Vec<_>>(),
        ["rest/x", "scores/metrics.json"]
    );
    let Makes::Parts(parts) = Command.makes(&shop.params::<Command>(&params)) else {
        panic!("two outputs are two parts")
    };
    assert_eq!(parts["scores"], ArtifactType::Metrics);
}

#[test]
fn data_in_text_becomes_tables() {
    let shop = Workshop::new();
    let line = r#"printf 'text,label\na,1\n' > out/data/train.csv"#;
    let data = shop.open(&shop.run(Command, &shell(line, r#""outputs": {"data": "dataset"}"#)));
    let train = data.split("train").expect("train");
    assert_eq!(train.labels("label").expect("labels").values, [1]);
}

#[test]
fn the_environment_is_clean() {
    let shop = Workshop::new();
    let line = "env | cut -d= -f1 | grep -v -e '^_$' -e PWD -e SHLVL -e OLDPWD | sort > out/result/names; echo $TZ $MINE > out/result/values";
    let params = shell(line, &format!(r#""env": {{"MINE": "yes"}}, {FILES}"#));
    let made = shop.artifact(&shop.run(Command, &params));
    let read = |name| fs_err::read_to_string(made.path(name).expect("there")).expect("read");
    let names = read("names").replace('\n', " ");
    assert_eq!(
        names,
        "HOME LANG LC_ALL MINE PATH PYTHONDONTWRITEBYTECODE PYTHONHASHSEED SOURCE_DATE_EPOCH TMPDIR TZ "
    );
    assert_eq!(read("values"), "UTC yes\n");
}

#[test]
fn failures_are_told() {
    let shop = Workshop::new();
    let fail = |params: &str| {
        let told = shop.fail(Command, params);
        let record = told.find("is in ").map_or(told.len(), |at| at + 6);
        told[..record].to_owned()
    };
    insta::assert_snapshot!(fail(&shell("echo out; echo err >&2; sleep 0.1; exit 3", FILES)).lines().next().unwrap_or_default(), @"`sh` ended with exit code 3; the last it said was:");
    insta::assert_snapshot!(fail(&shell("echo the reason >&2; exit 3", FILES)), @r#"
    `sh` ended with exit code 3; the last it said was:
        the reason
      at run
      help: all that it said is in
    "#);
    insta::assert_snapshot!(fail(&shell("kill -9 $$", FILES)), @r#"
    `sh` was ended by signal 9 (killed: out of memory?), and said nothing
      at run
      help: all that it said is in
    "#);
    insta::assert_snapshot!(fail(&shell("true", FILES)), @r#"
    the program wrote nothing into out/result
      at outputs.result
      help: write the result into the folder out/result of the folder in which it runs
    "#);
    insta::assert_snapshot!(fail(&shell("ln -s /etc/passwd out/result/x", FILES)), @r#"
    out/result/x is neither a file nor a folder
      at outputs.result
      help: an artifact holds files: write a copy in the place of a link
    "#);
    insta::assert_snapshot!(fail(&shell("echo x > out/result/train.arrow", r#""outputs": {"result": "dataset"}"#)), @r#"
    `train.arrow` is not a whole Arrow IPC file: Parser error: it is shorter than its own footer
      at outputs.result
      help: write it again, or download it again; it has to be in the file format (not the stream format), not cut
    "#);
    insta::assert_snapshot!(fail(&shell("echo x > out/result/x", r#""outputs": {"result": "metrics"}"#)), @r#"
    out/result is no artifact of type metrics: that has metrics.json
      at outputs.result
      help: write these names, or declare the output as `files`
    "#);
    insta::assert_snapshot!(fail(&shell("echo x > out/result/metrics.json", r#""outputs": {"result": "metrics"}"#)), @r#"
    out/result/metrics.json is no JSON object: expected value at line 1 column 1
      at outputs.result
      help: write names and numbers: {"accuracy": 0.9}
    "#);
    insta::assert_snapshot!(fail(&format!(r#"{{"run": ["no-such-program"], {FILES}}}"#)), @r#"
    cannot run `no-such-program`: No such file or directory (os error 2)
      at run
      help: is it installed, and in a folder of PATH?
    "#);
    insta::assert_snapshot!(fail(&format!(r#"{{"run": ["./none.sh"], {FILES}}}"#)), @r#"
    cannot run `./none.sh`: No such file or directory (os error 2)
      at run
      help: is it among `files`, and does it begin with `#!`?
    "#);
}

#[test]
fn parameters_that_do_not_go_together_are_told() {
    let shop = Workshop::new();
    let check = |params: &str| {
        let errors = Command.check(&shop.params::<Command>(params));
        errors.iter().map(told).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(check("{}"), @r#"
    it is not said what to run
      help: give `run: [PROGRAM, ARGUMENT, …]`, or `shell: "…"`
    it has no output
      at outputs
      help: name at least one: `outputs: { result: files }`, which is the folder out/result
    "#);
    insta::assert_snapshot!(check(r#"{"run": ["a"], "shell": "b", "outputs": {"../x": "files"}, "env": {"A=": "b"}}"#), @r#"
    both `run` and `shell` are given
      at shell
      help: remove one of them
    `../x` cannot name a folder
      at outputs.../x
      help: use letters, digits, `_` and `-`
    `A=` cannot name a variable
      at env
      help: use letters, digits and `_`
    "#);
}

#[test]
fn a_stop_ends_it_with_its_children() {
    let shop = Workshop::new();
    let stop = shop.stop.clone();
    let context = shop.context(0);
    let stage = Stage {
        params: shop.params::<Command>(&shell("sh -c 'sleep 60; echo late' & sleep 60", FILES)),
        settings: NoSettings {},
        resolved: None,
    };
    let start = Instant::now();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
    });
    let error = Command.run(&stage, &context).expect_err("it was stopped");
    stopper.join().expect("it sleeps and stores");
    assert_eq!(error.kind, taper_engine::StageErrorKind::Interrupted);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn children_that_it_leaves_behind_hold_nobody_up() {
    let shop = Workshop::new();
    let start = Instant::now();
    shop.run(Command, &shell("sleep 60 & echo x > out/result/x", FILES));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

/// What `docs/what-a-command-sees.md` says is always the same, as a program sees it.
#[test]
fn it_sees_what_the_table_says() {
    let page = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/what-a-command-sees.md"
    );
    let page = fs_err::read_to_string(page).expect("the page");
    let row = |what: &str| {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| {what} |")));
        row.unwrap_or_else(|| panic!("no row `{what}`"))
    };
    let shop = Workshop::new();
    let input = shop.files(&[("a.txt", b"hello"), ("run.sh", b"#!/bin/sh\n")]);
    let line = "umask > out/result/umask; date +%Z > out/result/zone; wc -c > out/result/stdin; \
                stat -c %a in/words/a.txt in/words/run.sh | tr '\\n' ' ' > out/result/modes; \
                ls | tr '\\n' ' ' > out/result/folder; \
                ps -o pgid= -p $$ | tr -d ' ' > out/result/group; echo $$ > out/result/self; env > out/result/variables";
    let params = shell(
        line,
        &format!(r#""inputs": {{"words": "{input}"}}, {FILES}"#),
    );
    let made = shop.artifact(&shop.run(Command, &params));
    let read = |name: &str| fs_err::read_to_string(made.path(name).expect("there")).expect("read");
    assert_eq!(read("umask"), "0022\n");
    assert!(row("umask").contains("`0022`"));
    assert_eq!(read("zone"), "UTC\n");
    assert!(row("time zone").contains("UTC"));
    assert_eq!(read("stdin").trim(), "0");
    assert!(row("standard input").contains("empty"));
    assert_eq!(read("modes"), "644 755 ");
    assert!(row("permissions of inputs and files").contains("`0644`, and `0755`"));
    assert_eq!(read("folder"), "in out ");
    assert!(row("working folder").contains("`in`, `out`"));
    assert_eq!(read("group"), read("self"));
    assert!(row("process group").contains("its own"));
    // Every variable is in the table, with its value.
    for variable in read("variables").lines() {
        let Some((name, value)) = variable.split_once('=') else {
            continue;
        };
        // The shell's own.
        if ["PWD", "OLDPWD", "SHLVL", "_"].contains(&name) {
            continue;
        }
        let row = row("other variables");
        assert!(row.contains(&format!("`{name}`")), "{name}");
        if !["PATH", "HOME", "TMPDIR"].contains(&name) {
            assert!(row.contains(&format!("`{value}`")), "{variable}");
        }
    }
    assert!(row("locale").contains("`C.UTF-8`"));
}

#[test]
fn what_a_killed_attempt_left_running_is_ended_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().canonicalize().expect("there");
    let start = |home: &Path, works_in: &Path| {
        let mut command = std::process::Command::new("sleep");
        command.arg("300").env("HOME", home).current_dir(works_in);
        command.spawn().expect("started")
    };
    let elsewhere = Path::new("/");
    let mut left = [start(&folder, elsewhere), start(elsewhere, &folder)];
    let mut other = start(elsewhere, elsewhere);
    let waiting = std::thread::spawn(move || left.each_mut().map(|child| child.wait()));
    process::end_leftovers(&folder).expect("ended");
    for status in waiting.join().expect("no panic") {
        assert!(!status.expect("ended").success());
    }
    assert!(other.try_wait().expect("asked").is_none());
    other.kill().expect("killed");
    other.wait().expect("ended");
}
