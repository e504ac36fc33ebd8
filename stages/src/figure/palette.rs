//! The colours: a light, calm page, and eight hues that stay apart for every kind of colour vision
//! (M. Okabe and K. Ito, "Color Universal Design", 2008).

use std::fmt;

/// Red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(pub u8, pub u8, pub u8);

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

/// The page.
pub const BACKGROUND: Colour = Colour(255, 255, 255);
/// Lines behind the data.
pub const GRID: Colour = Colour(233, 236, 239);
/// The axes.
pub const AXIS: Colour = Colour(173, 181, 189);
/// Titles and values.
pub const INK: Colour = Colour(33, 37, 41);
/// Labels of axes and legends.
pub const MUTED: Colour = Colour(92, 101, 110);

const SERIES: [Colour; 8] = [
    Colour(0, 114, 178),
    Colour(213, 94, 0),
    Colour(0, 158, 115),
    Colour(204, 121, 167),
    Colour(86, 180, 233),
    Colour(230, 159, 0),
    Colour(110, 84, 148),
    Colour(73, 80, 87),
];

/// The colour of the series with this number; they begin anew after eight.
pub const fn series(number: usize) -> Colour {
    SERIES[number % SERIES.len()]
}

/// A colour from nearly white (0) to deep blue (1).
pub fn shade(share: f64) -> Colour {
    const STOPS: [(f64, Colour); 4] = [
        (0.0, Colour(244, 247, 250)),
        (0.35, Colour(166, 200, 225)),
        (0.7, Colour(51, 132, 188)),
        (1.0, Colour(8, 69, 124)),
    ];
    let share = share.clamp(0.0, 1.0);
    let upper = STOPS
        .iter()
        .position(|(stop, _)| share <= *stop)
        .unwrap_or(STOPS.len() - 1)
        .max(1);
    let ((from, low), (to, high)) = (STOPS[upper - 1], STOPS[upper]);
    let part = (share - from) / (to - from);
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
    Colour(mix(low.0, high.0), mix(low.1, high.1), mix(low.2, high.2))
}

/// The colour of text on `fill`: the one of two that is easier to read.
pub fn text_on(fill: Colour) -> Colour {
    let light = 0.299 * f64::from(fill.0) + 0.587 * f64::from(fill.1) + 0.114 * f64::from(fill.2);
    if light > 140.0 { INK } else { BACKGROUND }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_go_from_light_to_dark() {
        assert_eq!(shade(0.0), Colour(244, 247, 250));
        assert_eq!(shade(1.0), Colour(8, 69, 124));
        let greens: Vec<u8> = (0..=20).map(|i| shade(f64::from(i) / 20.0).1).collect();
        assert!(greens.is_sorted_by(|a, b| a > b), "{greens:?}");
        assert_eq!(text_on(shade(0.0)), INK);
        assert_eq!(text_on(shade(1.0)), BACKGROUND);
        assert_eq!(shade(f64::NAN.max(0.5)).to_string(), shade(0.5).to_string());
    }
}
