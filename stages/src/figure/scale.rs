//! Scales: from numbers to pixels, with ticks at numbers that people like.

/// A linear scale from a range of numbers to a range of pixels, both of which may run downwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    from: (f64, f64),
    to: (f64, f64),
}

impl Scale {
    /// The scale that takes `from.0` to `to.0` and `from.1` to `to.1`. A range of one number is widened.
    pub fn new(from: (f64, f64), to: (f64, f64)) -> Self {
        let from = if from.0 == from.1 {
            let slack = (from.0.abs() * 0.05).max(0.5);
            (from.0 - slack, from.1 + slack)
        } else {
            from
        };
        Self { from, to }
    }

    /// Where `value` is.
    pub fn at(&self, value: f64) -> f64 {
        let share = (value - self.from.0) / (self.from.1 - self.from.0);
        self.to.0 + share * (self.to.1 - self.to.0)
    }
}

/// Ticks at round numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticks {
    /// Their values, ascending.
    pub values: Vec<f64>,
    /// Their texts.
    pub labels: Vec<String>,
}

/// The distance between ticks that cuts `span` in about `count` parts: 1, 2 or 5 times a power of ten.
fn step(span: f64, count: usize) -> f64 {
    let rough = span / count.max(1) as f64;
    let power = libm::pow(10.0, libm::log10(rough).floor());
    let share = rough / power;
    let nice = match share {
        share if share <= 1.0 => 1.0,
        share if share <= 2.0 => 2.0,
        share if share <= 5.0 => 5.0,
        _ => 10.0,
    };
    nice * power
}

/// A range that holds `low` and `high` and ends at round numbers.
pub fn nice_range(low: f64, high: f64, count: usize) -> (f64, f64) {
    if low == high {
        let slack = (low.abs() * 0.05).max(0.05);
        return nice_range(low - slack, high + slack, count);
    }
    let step = step(high - low, count);
    ((low / step).floor() * step, (high / step).ceil() * step)
}

/// About `count` ticks at round numbers between `low` and `high`.
pub fn ticks(low: f64, high: f64, count: usize) -> Ticks {
    if low == high {
        return Ticks {
            values: vec![low],
            labels: vec![tidy(low)],
        };
    }
    let step = step(high - low, count);
    let decimals = (-libm::log10(step * 1.000_001).floor()).max(0.0) as usize;
    let first = (low / step - 1e-9).ceil();
    let last = (high / step + 1e-9).floor();
    let count = (last - first).max(0.0) as usize + 1;
    let values: Vec<f64> = (0..count).map(|i| (first + i as f64) * step).collect();
    let labels = values.iter().map(|value| label(*value, decimals)).collect();
    Ticks { values, labels }
}

/// Ticks at whole numbers only: for steps and epochs.
pub fn whole_ticks(low: f64, high: f64, count: usize) -> Ticks {
    let ticks = ticks(low, high, count);
    let kept: Vec<usize> = (0..ticks.values.len())
        .filter(|i| (ticks.values[*i] - ticks.values[*i].round()).abs() < 1e-9)
        .collect();
    Ticks {
        labels: kept
            .iter()
            .map(|i| label(ticks.values[*i].round(), 0))
            .collect(),
        values: kept.iter().map(|i| ticks.values[*i].round()).collect(),
    }
}

/// A number with so many decimals, thousands set apart by a thin gap, a real minus sign.
fn label(value: f64, decimals: usize) -> String {
    let text = format!("{:.*}", decimals, value.abs());
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text.as_str(), None),
    };
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        // Four digits stand together, as years do.
        if index > 0 && whole.len() > 4 && (whole.len() - index).is_multiple_of(3) {
            grouped.push('\u{a0}');
        }
        grouped.push(digit);
    }
    if let Some(fraction) = fraction {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    if value < 0.0 && grouped.chars().any(|c| ('1'..='9').contains(&c)) {
        grouped.insert(0, '\u{2212}');
    }
    grouped
}

/// A whole number, thousands set apart.
pub fn count(value: u64) -> String {
    label(value as f64, 0)
}

/// A number with at most four decimals and no zeros at its end.
pub fn tidy(value: f64) -> String {
    let text = label(value, 4);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(low: f64, high: f64, count: usize) -> String {
        ticks(low, high, count).labels.join(" ")
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(0.0, 1.0, 5), "0.0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(labels(0.0, 2500.0, 5), "0 500 1000 1500 2000 2500");
        assert_eq!(
            labels(-0.31, 0.29, 6),
            "\u{2212}0.3 \u{2212}0.2 \u{2212}0.1 0.0 0.1 0.2"
        );
        assert_eq!(
            labels(0.0, 40000.0, 4),
            "0 10\u{a0}000 20\u{a0}000 30\u{a0}000 40\u{a0}000"
        );
        assert_eq!(labels(0.00012, 0.00058, 5), "0.0002 0.0003 0.0004 0.0005");
        assert_eq!(whole_ticks(0.0, 2.0, 6).labels.join(" "), "0 1 2");
        assert_eq!(labels(3.0, 3.0, 5), "3");
    }

    #[test]
    fn scales_run_both_ways() {
        let scale = Scale::new((0.0, 10.0), (100.0, 0.0));
        assert_eq!(scale.at(2.5), 75.0);
        assert_eq!(Scale::new((4.0, 4.0), (0.0, 10.0)).at(4.0), 5.0);
    }

    proptest! {
        #[test]
        fn ticks_stay_in_range_and_are_neither_none_nor_many(
            low in -1e6..1e6_f64, span in 1e-6..1e6_f64, count in 3..10_usize,
        ) {
            let high = low + span;
            prop_assume!(high - low > 1e-9);
            let ticks = ticks(low, high, count);
            let slack = 1e-6 * (high - low) + 1e-9;
            prop_assert!(ticks.values.iter().all(|v| *v >= low - slack && *v <= high + slack));
            prop_assert!((1..=2 * count + 2).contains(&ticks.values.len()), "{}", ticks.values.len());
            let (from, to) = nice_range(low, high, count);
            prop_assert!(from <= low && to >= high);
        }
    }
}
