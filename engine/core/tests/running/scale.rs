//! How the time of a run in which nothing has changed grows with the number of stages. Not a test by itself:
//! `TMPDIR=/dev/shm cargo test --release -p taper-engine --test running -- --ignored --nocapture scale`

use std::time::{Duration, Instant};

use taper_engine::{LocalExecutor, RunOptions, run};

use crate::kinds::KINDS;
use crate::project::Project;

fn chain(count: usize) -> String {
    let rest =
        (1..count).map(|n| format!("  s{n}: {{ concat: {{ of: [s{}], tag: '{n}' }} }}\n", n - 1));
    std::iter::once("  s0: { say: { text: x } }\n".to_owned())
        .chain(rest)
        .collect()
}

fn fan(count: usize) -> String {
    let stages = (0..count).map(|n| format!("  s{n}: {{ say: {{ text: '{n}' }} }}\n"));
    stages.collect()
}

/// What this thread has had of the processor: the machine may be busy with other work.
fn processor_time() -> Duration {
    let text = fs_err::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split(' ').next().expect("a number");
    Duration::from_nanos(nanoseconds.parse().expect("a number"))
}

#[test]
#[ignore = "it measures"]
fn no_op_by_number_of_stages() {
    for count in [10, 100, 1000, 10_000] {
        for (shape, stages) in [("chain", chain(count)), ("fan", fan(count))] {
            let project = Project::new();
            let executor = LocalExecutor { kinds: KINDS };
            let options = RunOptions {
                jobs: 2,
                ..RunOptions::default()
            };
            let origin = project.origin(&stages);
            let plan = project.plan(&stages);
            let started = Instant::now();
            run(&plan, &origin, &project.surroundings(), &executor, &options).expect("ran");
            let first = started.elapsed();
            let started = processor_time();
            let plan = project.plan(&stages);
            let planned = processor_time() - started;
            let started = processor_time();
            let surroundings = project.surroundings();
            let opened = processor_time() - started;
            let report = run(&plan, &origin, &surroundings, &executor, &options).expect("ran");
            let all = processor_time() - started;
            assert!(report.is_cached());
            println!(
                "{count:6} {shape}: first {first:?} ({:?} a stage); plan {planned:?}, lock {opened:?}, run {:?}",
                first / u32::try_from(count).expect("small"),
                all - opened,
            );
        }
    }
}
