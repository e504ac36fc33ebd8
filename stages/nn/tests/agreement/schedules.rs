//! Learning rates beside those of `transformers.get_scheduler`.

use taper_nn::schedule::{Course, Schedule};

use crate::common::{floats, goldens, json};

#[test]
fn learning_rates_are_those_of_transformers() {
    let cases = json(&goldens().join("schedulers.json"));
    for case in cases.as_array().unwrap() {
        let course = match case["name"].as_str().unwrap() {
            "linear" => Course::Linear,
            "cosine" => Course::Cosine,
            "constant" | "constant_with_warmup" => Course::Constant,
            "polynomial" => Course::Polynomial {
                power: 1.0,
                end: 1e-7,
            },
            other => panic!("unknown schedule {other}"),
        };
        let warmup = case["warmup"].as_u64().unwrap();
        let schedule = Schedule {
            course,
            warmup: if case["name"] == "constant" {
                0
            } else {
                warmup
            },
            total: case["total"].as_u64().unwrap(),
        };
        let base = case["base_lr"].as_f64().unwrap();
        let steps = case["step"].as_array().unwrap();
        for (step, expected) in steps.iter().zip(floats(&case["lr"])) {
            let got = schedule.learning_rate(base, step.as_u64().unwrap());
            assert!(
                (got - expected).abs() <= 1e-15 * base,
                "{} {schedule:?} step {step}: {got:e} is not {expected:e}",
                case["name"]
            );
        }
    }
}
