//! Curves of a classifier over all thresholds of its score: ROC (T. Fawcett, "An introduction to ROC
//! analysis", 2006) and precision over recall (J. Davis and M. Goadrich, 2006).

use super::curves::{Chart, Curve, Entry, Look, Panel, Range};
use super::palette;

/// The most points that a curve keeps: more than a screen has pixels.
const MOST_POINTS: usize = 1000;

/// Which curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// True positive rate over false positive rate.
    Roc,
    /// Precision over recall.
    PrecisionRecall,
}

/// A curve and the one number that sums it up.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// The points, by ascending x.
    pub points: Vec<(f64, f64)>,
    /// Of ROC the area below it (trapezoids), of precision and recall the average precision.
    pub area: f64,
}

/// Rows at or above a threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Above {
    positive: u64,
    negative: u64,
}

/// The curve of `rows`, each a score and whether the row is positive; `None` where all are or none is.
pub fn curve(sort: Sort, rows: &[(f32, bool)]) -> Option<Threshold> {
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut steps = vec![Above {
        positive: 0,
        negative: 0,
    }];
    let mut above = steps[0];
    for (index, (score, positive)) in rows.iter().enumerate() {
        if *positive {
            above.positive += 1;
        } else {
            above.negative += 1;
        }
        // Equal scores fall on one side of every threshold together.
        if rows.get(index + 1).is_none_or(|next| next.0 != *score) {
            steps.push(above);
        }
    }
    if above.positive == 0 || above.negative == 0 {
        return None;
    }
    Some(match sort {
        Sort::Roc => roc(&steps, above),
        Sort::PrecisionRecall => precision_recall(&steps, above),
    })
}

fn roc(steps: &[Above], all: Above) -> Threshold {
    let whole: Vec<(f64, f64)> = steps
        .iter()
        .map(|step| {
            (
                step.negative as f64 / all.negative as f64,
                step.positive as f64 / all.positive as f64,
            )
        })
        .collect();
    let area = whole
        .windows(2)
        .map(|pair| (pair[1].0 - pair[0].0) * 0.5 * (pair[0].1 + pair[1].1))
        .sum();
    Threshold {
        points: thin(whole),
        area,
    }
}

fn precision_recall(steps: &[Above], all: Above) -> Threshold {
    let mut area = 0.0;
    let mut before = 0;
    let mut points = Vec::with_capacity(steps.len());
    for step in &steps[1..] {
        let precision = step.positive as f64 / (step.positive + step.negative) as f64;
        area += (step.positive - before) as f64 / all.positive as f64 * precision;
        before = step.positive;
        points.push((step.positive as f64 / all.positive as f64, precision));
    }
    points.insert(0, (0.0, points[0].1));
    Threshold {
        points: thin(points),
        area,
    }
}

/// Every so-manieth point, the first and the last among them.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points;
    }
    let last = points.len() - 1;
    (0..MOST_POINTS)
        .map(|index| points[index * last / (MOST_POINTS - 1)])
        .collect()
}

/// The chart of curves with their names.
pub fn chart(
    sort: Sort,
    curves: &[(String, Threshold)],
    title: String,
    description: String,
    size: (Option<u32>, Option<u32>),
) -> Chart {
    let (x_name, y_name, reference) = match sort {
        Sort::Roc => (
            "false positive rate",
            "true positive rate",
            Some(((0.0, 0.0), (1.0, 1.0))),
        ),
        Sort::PrecisionRecall => ("recall", "precision", None),
    };
    let legend = curves
        .iter()
        .enumerate()
        .map(|(index, (name, curve))| Entry {
            name: legend_text(sort, name, curve.area),
            colour: palette::series(index),
            look: Look::Plain,
        })
        .collect();
    let panel = Panel {
        name: y_name.to_owned(),
        curves: curves
            .iter()
            .enumerate()
            .map(|(index, (_, curve))| Curve {
                colour: palette::series(index),
                look: Look::Plain,
                points: curve.points.clone(),
            })
            .collect(),
        legend,
        reference,
        range: Range::Unit,
    };
    Chart {
        width: size.0.map_or(640.0, f64::from),
        height: size.1.map_or(600.0, f64::from),
        title,
        description,
        x_name: x_name.to_owned(),
        x_range: Range::Unit,
        panels: vec![panel],
    }
}

fn legend_text(sort: Sort, name: &str, area: f64) -> String {
    let measure = match sort {
        Sort::Roc => "AUC",
        Sort::PrecisionRecall => "average precision",
    };
    let gap = if name.is_empty() { "" } else { ": " };
    format!("{name}{gap}{measure} {area:.3}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_perfect_and_a_useless_score() {
        let perfect = [(0.9, true), (0.8, true), (0.2, false)];
        assert_eq!(curve(Sort::Roc, &perfect).map(|c| c.area), Some(1.0));
        assert_eq!(
            curve(Sort::PrecisionRecall, &perfect).map(|c| c.area),
            Some(1.0)
        );
        let flat = [(0.5, true), (0.5, false), (0.5, false), (0.5, true)];
        let flat = curve(Sort::Roc, &flat).expect("both classes");
        assert_eq!(flat.points, vec![(0.0, 0.0), (1.0, 1.0)]);
        assert_eq!(flat.area, 0.5);
        assert_eq!(curve(Sort::Roc, &[(0.1, true)]), None);
    }

    #[test]
    fn an_example_counted_by_hand() {
        let rows = [(0.8, true), (0.4, false), (0.35, true), (0.1, false)];
        let roc = curve(Sort::Roc, &rows).expect("both classes");
        assert_eq!(
            roc.points,
            vec![(0.0, 0.0), (0.0, 0.5), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)]
        );
        assert_eq!(roc.area, 0.75);
        let precision = curve(Sort::PrecisionRecall, &rows).expect("both classes");
        assert!((precision.area - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn the_area_is_the_share_of_pairs_in_order(
            rows in prop::collection::vec((0..20_u8, any::<bool>()), 2..60),
        ) {
            let rows: Vec<(f32, bool)> = rows.iter().map(|(s, p)| (f32::from(*s), *p)).collect();
            let positive: Vec<f32> = rows.iter().filter(|r| r.1).map(|r| r.0).collect();
            let negative: Vec<f32> = rows.iter().filter(|r| !r.1).map(|r| r.0).collect();
            prop_assume!(!positive.is_empty() && !negative.is_empty());
            let mut wins = 0.0;
            for p in &positive {
                for n in &negative {
                    wins += if p > n { 1.0 } else if p == n { 0.5 } else { 0.0 };
                }
            }
            let share = wins / (positive.len() * negative.len()) as f64;
            let area = curve(Sort::Roc, &rows).expect("both classes").area;
            prop_assert!((area - share).abs() < 1e-12);
        }
    }
}
