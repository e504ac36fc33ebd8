//! Average precision: the area under the curve of precision over recall, as a sum of steps.

use super::outcome::{Outcome, Ranked};

/// Points of the curve: recall (x) and precision (y) of the rows above each distinct score, by falling
/// score. `scores` and `positive` have one entry a row.
pub fn curve(scores: &[f64], positive: &[bool]) -> Vec<(f64, f64)> {
    let ranked = Ranked::new(scores, positive);
    let points = ranked.steps().map(|step| {
        let above = step.hits_above + step.others_above;
        (
            step.hits_above as f64 / ranked.hits as f64,
            step.hits_above as f64 / above as f64,
        )
    });
    points.collect()
}

/// The sum of `(recall - recall before) * precision` over falling scores. Not a number where no row is positive.
pub fn average_precision(scores: &[f64], positive: &[bool]) -> f64 {
    if !positive.contains(&true) {
        return f64::NAN;
    }
    let mut area = 0.0;
    let mut before = 0.0;
    for (recall, precision) in curve(scores, positive) {
        area += (recall - before) * precision;
        before = recall;
    }
    area
}

/// Of two classes that of class 1; of more the mean over the classes, each against the rest.
pub fn of_outcome(outcome: &Outcome) -> f64 {
    outcome.one_against_rest(average_precision)
}
