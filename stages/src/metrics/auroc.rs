//! The area under the receiver operating characteristic: the chance that a row of the class scores above a
//! row of another.

use super::outcome::{Outcome, Ranked};

/// Points of the curve: the share of other rows (x) and of rows of the class (y) above each distinct score,
/// from (0, 0) to (1, 1). `scores` and `positive` have one entry a row. Not a number where one of the two
/// sorts of rows is missing.
pub fn curve(scores: &[f64], positive: &[bool]) -> Vec<(f64, f64)> {
    let ranked = Ranked::new(scores, positive);
    let mut points = vec![(0.0, 0.0)];
    points.extend(ranked.steps().map(|step| {
        let share = |part: u64, whole: u64| part as f64 / whole as f64;
        (
            share(step.others_above, ranked.others),
            share(step.hits_above, ranked.hits),
        )
    }));
    points
}

/// The area under [`curve`], ties counted half. Not a number where one of the two sorts of rows is missing.
pub fn auroc(scores: &[f64], positive: &[bool]) -> f64 {
    let ranked = Ranked::new(scores, positive);
    let pairs = 2 * u128::from(ranked.hits) * u128::from(ranked.others);
    if pairs == 0 {
        return f64::NAN;
    }
    // Twice the area, in pairs of rows: whole numbers, so that no order of summation shows.
    let mut area = 0;
    let (mut hits, mut others) = (0, 0);
    for step in ranked.steps() {
        area += u128::from(step.others_above - others) * u128::from(step.hits_above + hits);
        (hits, others) = (step.hits_above, step.others_above);
    }
    area as f64 / pairs as f64
}

/// Of two classes that of class 1; of more the mean over the classes, each against the rest.
pub fn of_outcome(outcome: &Outcome) -> f64 {
    outcome.one_against_rest(auroc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_half() {
        assert_eq!(
            auroc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]),
            0.75
        );
        assert_eq!(auroc(&[0.5, 0.5, 0.5], &[false, true, true]), 0.5);
        assert_eq!(auroc(&[0.2, 0.9], &[true, false]), 0.0);
        assert!(auroc(&[0.2, 0.9], &[true, true]).is_nan());
        assert!(auroc(&[], &[]).is_nan());
    }

    #[test]
    fn the_curve_goes_from_corner_to_corner() {
        let points = curve(&[0.9, 0.9, 0.1], &[true, false, false]);
        assert_eq!(points, [(0.0, 0.0), (0.5, 1.0), (1.0, 1.0)]);
    }
}
