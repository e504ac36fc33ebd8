//! Learning curves: what training logged, by step or epoch. A measure and its evaluation share a panel;
//! each run has its colour.

use super::curves::{Chart, Curve, Entry, Look, Panel, Range};
use super::palette;

/// What evaluation puts before the name of a measure.
const EVALUATION: &str = "eval_";

/// The numbers that one run logged under one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The number of the run.
    pub run: usize,
    /// The name: `loss`, `eval_loss`.
    pub name: String,
    /// Where on the horizontal axis, and the number; ascending.
    pub points: Vec<(f64, f64)>,
}

/// The panels of `series`: one for each measure, in the order in which they come. `runs` are the names
/// of the runs; one run needs none.
pub fn panels(series: &[Series], runs: &[String]) -> Vec<Panel> {
    let mut measures: Vec<&str> = Vec::new();
    for one in series {
        let measure = measure(&one.name);
        if !measures.contains(&measure) {
            measures.push(measure);
        }
    }
    measures
        .into_iter()
        .map(|name| {
            let mut members: Vec<&Series> =
                series.iter().filter(|s| measure(&s.name) == name).collect();
            // What is measured rarely lies over what is logged often.
            members.sort_by_key(|s| is_evaluation(&s.name));
            panel(name, &members, runs)
        })
        .collect()
}

fn measure(name: &str) -> &str {
    name.strip_prefix(EVALUATION).unwrap_or(name)
}

fn is_evaluation(name: &str) -> bool {
    name.starts_with(EVALUATION)
}

fn look(name: &str) -> Look {
    if is_evaluation(name) {
        Look::Dotted
    } else {
        Look::Thin
    }
}

fn panel(measure: &str, members: &[&Series], runs: &[String]) -> Panel {
    let several = runs.len() > 1;
    let colour = |series: &Series| match (several, is_evaluation(&series.name)) {
        (true, _) => palette::series(series.run),
        (false, false) => palette::series(0),
        (false, true) => palette::series(1),
    };
    let curves = members
        .iter()
        .map(|series| Curve {
            colour: colour(series),
            look: look(&series.name),
            points: series.points.clone(),
        })
        .collect();
    let word = |name: &str| {
        if is_evaluation(name) {
            "evaluation"
        } else {
            "training"
        }
    };
    let mut legend = Vec::new();
    if several {
        for (run, name) in runs.iter().enumerate() {
            legend.push(Entry {
                name: name.clone(),
                colour: palette::series(run),
                look: Look::Plain,
            });
        }
    }
    let mut kinds: Vec<&str> = Vec::new();
    for series in members {
        if !kinds.contains(&series.name.as_str()) {
            kinds.push(&series.name);
            legend.push(Entry {
                name: word(&series.name).to_owned(),
                colour: if several {
                    palette::MUTED
                } else {
                    colour(series)
                },
                look: look(&series.name),
            });
        }
    }
    Panel {
        name: measure.replace('_', " "),
        curves,
        legend,
        reference: None,
        range: Range::Data,
    }
}

/// The chart of `panels`.
pub fn chart(
    panels: Vec<Panel>,
    x_name: &str,
    title: String,
    description: String,
    size: (Option<u32>, Option<u32>),
) -> Chart {
    let height = 150.0 + 270.0 * panels.len() as f64;
    Chart {
        width: size.0.map_or(800.0, f64::from),
        height: size.1.map_or(height, f64::from),
        title,
        description,
        x_name: x_name.to_owned(),
        x_range: Range::Whole,
        panels,
    }
}
