//! Checks of whole pipelines, with the toy kinds.

use std::collections::BTreeSet;

use taper_cache::Digest;

use crate::check::{Checked, Options, check};
use crate::diagnostic::Look;
use crate::kind::Device;
use crate::plan::{Needed, Plan};
use crate::toy::TOYS;

fn with(text: &str, set: &[&str], variant: &[&str]) -> Checked {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let options = Options {
        set: owned(set),
        variant: owned(variant),
    };
    check(TOYS, "p.yaml", text.as_bytes(), None, &options)
}

fn plan(text: &str) -> Plan {
    let checked = with(text, &[], &[]);
    let report = checked.report.render(Look::Plain, 100);
    checked.plan.unwrap_or_else(|| panic!("{report}"))
}

/// `line:column code: message (help)` of every problem.
fn problems(text: &str) -> Vec<String> {
    told(&with(text, &[], &[]))
}

fn told(checked: &Checked) -> Vec<String> {
    let json = checked.report.to_json();
    let all = json["diagnostics"].as_array().expect("a list");
    all.iter()
        .map(|problem| {
            let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
            format!(
                "{}:{} {}: {} ({})",
                problem["line"],
                problem["column"],
                text("code"),
                text("message"),
                text("help")
            )
        })
        .collect()
}

/// What identifies each stage of a plan, artifacts taken to be named by the key of what made them.
fn keys(plan: &Plan) -> Vec<String> {
    let mut made: Vec<Digest> = Vec::new();
    for stage in &plan.stages {
        let ingredients = stage.ingredients(Device::Cpu, None, &mut |needed| {
            Ok(match needed {
                Needed::Input(reference) => {
                    let input = stage.inputs.iter().find(|i| i.reference == reference);
                    made[input.expect("planned").stage]
                }
                Needed::Local { .. } => Digest::of(b"contents"),
            })
        });
        made.push(ingredients.expect("canonical").key().0);
    }
    made.iter().map(Digest::short).collect()
}

const CHAIN: &str = "
taper: 1
seed: 7
params: { lr: 1e-3 }
stages:
  corpus:
    words: { text: hello }
  mixed:
    mix: { data: corpus }
  model:
    fit: { data: mixed, optimizer: { adamw: { lr: $lr } }, checkpoint_every: 5 }
    retries: 2
    timeout: 90s
    device: cuda:1
    export: out/model
";

#[test]
fn a_pipeline_becomes_a_plan() {
    let plan = plan(CHAIN);
    let names: Vec<_> = plan
        .stages
        .iter()
        .map(|stage| stage.name.as_str())
        .collect();
    assert_eq!(names, ["corpus", "mixed", "model"]);
    assert_eq!(plan.name, "p");
    assert_eq!(plan.params["lr"], "1e-3");
    let model = &plan.stages[2];
    assert_eq!(model.seed, 7);
    assert_eq!(model.settings.retries, 2);
    assert_eq!(model.settings.export.as_deref(), Some("out/model"));
    assert_eq!(model.inputs[0].stage, 1);
    assert_eq!(model.inputs[0].param, "data");
    let settings = model.params.settings().expect("canonical");
    assert_eq!(settings.to_string(), "{checkpoint_every: 5}");
    assert_eq!(plan.dependents(), [vec![1], vec![2], vec![]]);
    let names = ["mixed".to_owned()];
    assert_eq!(plan.with_all_before(&names), Ok(BTreeSet::from([0, 1])));
    assert!(plan.named("modle").unwrap_err().contains("`model`"));
}

#[test]
fn what_changes_no_byte_changes_no_key() {
    let base = keys(&plan(CHAIN));
    for other in [
        CHAIN.replace("lr", "rate").replace("rate: $", "lr: $"),
        CHAIN.replace("corpus", "data0"),
        CHAIN.replace("retries: 2", "retries: 5\n    frozen: true"),
        CHAIN.replace("timeout: 90s", "timeout: 5m\n    description: words"),
        CHAIN.replace("cuda:1", "cuda:0"),
        CHAIN.replace("out/model", "elsewhere"),
        CHAIN.replace("checkpoint_every: 5", "checkpoint_every: 6"),
        CHAIN.replace(", checkpoint_every: 5", ""),
        CHAIN.replace("{ text: hello }", "{ rows: 1, text: \"hello\" } # the same"),
        CHAIN.replace("1e-3", "0.001"),
        CHAIN.replace("taper: 1", "taper: 1\nname: other\ndescription: other"),
        CHAIN.replace(
            "optimizer: { adamw: { lr: $lr } }",
            "optimizer: adamw, limit: ~",
        ),
    ] {
        assert_eq!(keys(&plan(&other)), base, "{other}");
    }
}

#[test]
fn what_can_change_a_byte_changes_the_key() {
    let base = keys(&plan(CHAIN));
    for (from, to, first) in [
        ("seed: 7", "seed: 8", 1),
        ("hello", "hallo", 0),
        ("1e-3", "1e-4", 2),
        ("adamw", "sgd", 2),
        ("{ data: mixed,", "{ data: mixed, limit: 0,", 2),
        ("{ data: mixed,", "{ data: mixed, weights: [1],", 2),
        ("{ data: mixed,", "{ data: mixed, fast: true,", 2),
        ("{ data: mixed,", "{ data: corpus,", 2),
        ("retries: 2", "seed: 9", 2),
    ] {
        let other = keys(&plan(&CHAIN.replace(from, to)));
        let changed = base.iter().zip(&other).position(|(a, b)| a != b);
        assert_eq!(changed, Some(first), "{from} -> {to}");
    }
}

#[test]
fn stages_come_in_an_order_in_which_they_can_run() {
    let plan = plan(
        "
taper: 1
stages:
  d: { mix: { data: c } }
  z: { words: { text: z } }
  c: { mix: { data: a } }
  b: { mix: { data: a } }
  a: { words: { text: a } }
",
    );
    let names: Vec<_> = plan
        .stages
        .iter()
        .map(|stage| stage.name.as_str())
        .collect();
    assert_eq!(names, ["z", "a", "c", "d", "b"]);
}

#[test]
fn variants_share_what_does_not_vary() {
    let text = "
taper: 1
seed: $seed
params: { lr: 1, twice: \"${lr}${lr}\" }
matrix: { lr: [1e-3, 1e-2], seed: [1, 2] }
stages:
  corpus: { words: { text: x } }
  fixed: { mix: { data: corpus }, seed: 3 }
  model: { fit: { data: fixed, optimizer: { adamw: { lr: $lr } } }, seed: 0 }
  again: { tool: { inputs: { a: model }, outputs: { o: dataset } } }
  mixed: { mix: { data: again.o } }
  named: { words: { text: $twice }, export: \"out/${lr}\" }
";
    let names = |checked: Checked| -> Vec<String> {
        let report = checked.report.render(Look::Plain, 100);
        let plan = checked.plan.unwrap_or_else(|| panic!("{report}"));
        plan.stages.into_iter().map(|stage| stage.name).collect()
    };
    assert_eq!(
        names(with(text, &[], &[])),
        [
            "corpus",
            "fixed",
            "model[lr=1e-3]",
            "model[lr=1e-2]",
            "again[lr=1e-3]",
            "again[lr=1e-2]",
            "mixed[lr=1e-3,seed=1]",
            "mixed[lr=1e-3,seed=2]",
            "mixed[lr=1e-2,seed=1]",
            "mixed[lr=1e-2,seed=2]",
            "named[lr=1e-3]",
            "named[lr=1e-2]",
        ]
    );
    assert_eq!(
        names(with(text, &["seed=5"], &["lr=0.01"])),
        [
            "corpus",
            "fixed",
            "model[lr=1e-2]",
            "again[lr=1e-2]",
            "mixed[lr=1e-2]",
            "named[lr=1e-2]"
        ]
    );
    let plan = with(text, &[], &["seed=2"]).plan.expect("good");
    let mixed = &plan.stages[6];
    assert_eq!(
        (mixed.name.as_str(), mixed.seed),
        ("mixed[lr=1e-3,seed=2]", 2)
    );
    assert_eq!(plan.stages[mixed.inputs[0].stage].name, "again[lr=1e-3]");
    assert_eq!(mixed.inputs[0].output.as_deref(), Some("o"));
    assert_eq!(plan.named("model").expect("two").len(), 2);
    assert_eq!(plan.named("model[lr=1e-3]").expect("one").len(), 1);
}

#[test]
fn every_problem_is_found_at_once() {
    insta::assert_snapshot!(problems("
taper: 1
seed: -1
params: { lr: abc, unused: 1, a: $b, b: $a }
stages:
  corpus:
    words: { txt: hello, rows: 0 }
  wrong:
    words: { text: 5, rows: many }
    retires: 3
  typo:
    wrods: {}
  mixed:
    mix: { data: crops }
  late:
    mix: { data: model }
  mixed2:
    mix: {}
    words: {}
  model:
    fit:
      data: mixed
      optimizer: { adam: { lr: $lr } }
      shape: wid
      weights: [1, x]
      rows: { train: -1 }
      fast: no
      limit: 300
    device: gpu
    timeout: soon
    export: ../x
  other:
    fit: { data: late, optimizer: sgd, checkpoint_evry: 3 }
").join("\n"), @r#"
    3:7 out-of-range: `seed` has to be at least 0, found -1 ()
    4:34 param-cycle: params refer to each other: a -> b -> a (give one of them a value of its own)
    7:14 unknown-key: `words` has no parameter `txt` (did you mean `text`?)
    9:20 wrong-type: `text` wants a text, found the number 5 (quotes make a text of it: "5")
    9:29 wrong-type: `rows` wants a whole number, found the text `many` ()
    10:5 unknown-kind: `retires` is neither a kind nor a setting of a stage (did you mean `retries`?)
    12:5 unknown-kind: `wrods` is neither a kind nor a setting of a stage (did you mean `words`?)
    14:18 unknown-stage: there is no stage `crops` (did you mean `corpus`?)
    19:5 two-kinds: the stage `mixed2` has two kinds, `mix` and `words` (make two stages of it)
    23:20 unknown-choice: `optimizer` cannot be `adam` (did you mean `adamw`?)
    24:14 unknown-choice: `shape` cannot be `wid` (did you mean `wide`?)
    25:20 wrong-type: `weights` wants a number, found the text `x` ()
    26:22 out-of-range: `train` has to be at least 0, found -1 ()
    27:13 wrong-type: `fast` wants true or false, found the text `no` (write false)
    28:14 out-of-range: `limit` has to be at most 255, found 300 ()
    29:13 unknown-choice: there is no device `gpu` (write `cuda` or `metal`)
    30:14 wrong-type: `timeout` wants a time, found `soon` (write `90s`, `5m`, `1h30m`, or a number of seconds)
    31:13 unsafe-path: `export: ../x` leaves the project (give a path inside the project, such as `results/scores.json`)
    33:35 missing-key: `lr` is missing in `sgd` (`lr` wants a number)
    33:40 unknown-key: `fit` has no parameter `checkpoint_evry` (did you mean `checkpoint_every`?)
    "#);
}

#[test]
fn a_circle_is_shown_as_a_path() {
    let text = "
taper: 1
stages:
  a: { mix: { data: c } }
  b: { mix: { data: a } }
  c: { mix: { data: b } }
  self: { mix: { data: self } }
  free: { mix: { data: a } }
";
    insta::assert_snapshot!(problems(text).join("\n"), @r"
    4:21 cycle: the stages read each other in a circle: a -> c -> b -> a (a stage reads what comes before it: break the circle at one place)
    7:24 self-reference: the stage `self` reads its own artifact (name a stage that comes before it)
    ");
}

#[test]
fn outputs_are_named_where_there_are_several() {
    insta::assert_snapshot!(problems("
taper: 1
stages:
  corpus: { words: { text: x } }
  two: { tool: { outputs: { a: dataset, b: plot } } }
  good: { mix: { data: two.a } }
  which: { mix: { data: two } }
  plot: { mix: { data: two.b } }
  none: { mix: { data: two.c } }
  single: { mix: { data: corpus.a } }
").join("\n"), @r"
    7:25 unknown-output: `two` makes several artifacts; which one is meant? (write `two.a` or `two.b`)
    8:24 wrong-artifact: `two.b` makes a plot, but `data` wants a dataset (stages that make one: `corpus`, `two.a`, `good`, `which`, `none`, `single`)
    9:24 unknown-output: `two` has no output `c` (outputs: `a`, `b`)
    10:26 unknown-output: `corpus` has no output `a` (it makes one artifact: write `corpus`)
    ");
}

#[test]
fn the_command_line_is_checked_too() {
    let text = "
taper: 1
params: { lr: 1 }
matrix: { width: [1, 2] }
stages:
  a: { words: { text: '${lr}', rows: $width } }
";
    let checked = with(
        text,
        &["lrr=3", "lr", "width=many", "lr=[1"],
        &["with=1", "width=9"],
    );
    insta::assert_snapshot!(told(&checked).join("\n"), @r#"
    6:23 wrong-type: `text` wants a text, found the number 1 (quotes make a text of it: "1")
    6:38 wrong-type: `rows` wants a whole number, found the text `many` ()
    1:1 unknown-param: there is no param `lrr` (did you mean `lr`?)
    1:1 bad-set: `lr` sets nothing (write `--set NAME=VALUE`)
    1:6 yaml-syntax: this is not YAML: while parsing a flow sequence, expected ',' or ']' (look for a `[` or `{` that is not closed, or a missing comma)
    1:1 unknown-variant: the matrix does not vary `with` (did you mean `width`?)
    1:1 unknown-variant: `width` is never 9 (it is 1 or 2)
    "#);
    let report = with(text, &["width=many"], &[]).report;
    insta::assert_snapshot!(report.render(Look::Plain, 100), @r#"
    wrong-type

      x `text` wants a text, found the number 1
       ,-[p.yaml:6:23]
     2 | taper: 1
     3 | params: { lr: 1 }
       :               |
       :               `-- the value is given here
     4 | matrix: { width: [1, 2] }
     5 | stages:
     6 |   a: { words: { text: '${lr}', rows: $width } }
       :                       ^^^^^^^
       `----
      help: quotes make a text of it: "1"

    wrong-type

      x `rows` wants a whole number, found the text `many`
       ,-[p.yaml:6:38]
     5 | stages:
     6 |   a: { words: { text: '${lr}', rows: $width } }
       :                                      ^^^^^^
       `----

    2 errors
    "#);
}

proptest::proptest! {
    /// Whatever is done to a file, it is judged, and every place is one of the file's.
    #[test]
    fn no_file_breaks_the_check(
        start in proptest::prelude::any::<proptest::sample::Index>(),
        length in 0..40_usize,
        new in "[ \\n:\\-\\[\\]{},&*$a-z0-9é<]{0,12}",
    ) {
        let start = start.index(CHAIN.len());
        let end = (start + length).min(CHAIN.len());
        let text = format!("{}{new}{}", &CHAIN[..start], &CHAIN[end..]);
        let checked = with(&text, &[], &[]);
        proptest::prop_assert_eq!(checked.plan.is_some(), !checked.report.has_errors());
        for problem in &checked.report.diagnostics {
            if let Some(span) = problem.span {
                let place = span.start as usize..span.end as usize;
                proptest::prop_assert!(text.get(place).is_some(), "{:?}", problem);
            }
        }
        proptest::prop_assert!(!checked.report.has_errors() || checked.report.render(Look::Plain, 80).contains("error"));
    }
}

#[test]
fn thousands_of_stages_are_checked_in_moments() {
    let mut text = "taper: 1\nstages:\n".to_owned();
    for stage in 0..10_000_usize {
        let before = match stage.checked_sub(1) {
            None => String::new(),
            Some(before) => format!("a: s{before}"),
        };
        text.push_str(&format!(
            "  s{stage}:\n    tool: {{ inputs: {{ {before} }}, outputs: {{ o: dataset }} }}\n    retries: 1\n"
        ));
    }
    let started = std::time::Instant::now();
    let node = crate::yaml::parse(&text, 0).expect("good");
    let parsed = started.elapsed();
    drop(node);
    let started = std::time::Instant::now();
    let plan = plan(&text);
    let checked = started.elapsed();
    assert_eq!(plan.stages.len(), 10_000);
    println!(
        "{} bytes: parsed in {parsed:?}, checked in {checked:?}",
        text.len()
    );
    assert!(checked.as_secs() < 20, "{checked:?}");
}
