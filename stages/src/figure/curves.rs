//! A chart of curves: panels above each other that share the horizontal axis, each with its legend.

use super::drawing::{Anchor, Drawing, Point, Stroke};
use super::palette::{self, Colour};
use super::{font, scale};

const EDGE: f64 = 28.0;
const TITLE: f64 = 18.0;
const TEXT: f64 = 13.0;
const SMALL: f64 = 12.0;
const ROW: f64 = 20.0;
const SWATCH: f64 = 22.0;

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A thin line: many noisy points.
    Thin,
    /// A line with a dot at each point: few measurements.
    Dotted,
    /// A line.
    Plain,
}

/// A curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Its colour.
    pub colour: Colour,
    /// How it is drawn.
    pub look: Look,
    /// Its points, by ascending x.
    pub points: Vec<(f64, f64)>,
}

/// An entry of a legend.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it says.
    pub name: String,
    /// The colour that it explains.
    pub colour: Colour,
    /// The look that it explains.
    pub look: Look,
}

/// How a range of numbers is shown along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// What the data needs, widened to round numbers.
    Data,
    /// What the data needs, from its first to its last whole number.
    Whole,
    /// From 0 to 1.
    Unit,
}

/// One pair of axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What the vertical axis counts.
    pub name: String,
    /// The curves, from the back to the front.
    pub curves: Vec<Curve>,
    /// The legend.
    pub legend: Vec<Entry>,
    /// A dashed line for comparison, from one point to another.
    pub reference: Option<((f64, f64), (f64, f64))>,
    /// The range of the vertical axis.
    pub range: Range,
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// In pixels.
    pub width: f64,
    /// In pixels.
    pub height: f64,
    /// Above everything; nothing where it is empty.
    pub title: String,
    /// What it shows, for those who cannot see it.
    pub description: String,
    /// What the horizontal axis counts.
    pub x_name: String,
    /// The range of the horizontal axis.
    pub x_range: Range,
    /// From the top to the bottom.
    pub panels: Vec<Panel>,
}

/// The least and the greatest of some numbers; 0 and 1 where there are none.
fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high { (0.0, 1.0) } else { (low, high) }
}

/// Lays a chart out.
pub fn draw(chart: &Chart) -> Drawing {
    let name = if chart.title.is_empty() {
        chart.description.clone()
    } else {
        chart.title.clone()
    };
    let mut drawing = Drawing::new(chart.width, chart.height, name, chart.description.clone());
    let mut top = EDGE;
    if !chart.title.is_empty() {
        let title = font::fit(&chart.title, TITLE, chart.width - 2.0 * EDGE);
        let at = Point::new(EDGE, top + TITLE * 0.8);
        drawing.text(at, title, TITLE, palette::INK, Anchor::Start);
        top += TITLE + 18.0;
    }
    let axes: Vec<Axis> = chart.panels.iter().map(Axis::of).collect();
    let labels = axes.iter().flat_map(|axis| &axis.ticks.labels);
    let widest = labels
        .map(|label| font::width(label, SMALL))
        .fold(0.0, f64::max);
    let x = Horizontal::of(chart, EDGE + widest + 10.0);
    let bottom = chart.height - EDGE - ROW - 14.0;
    let between = 26.0;
    let legends: Vec<Vec<Vec<&Entry>>> = chart
        .panels
        .iter()
        .map(|panel| legend_rows(panel, chart.width - 2.0 * EDGE))
        .collect();
    let headers: f64 = legends.iter().map(|rows| header(rows)).sum();
    let gaps = between * (chart.panels.len().saturating_sub(1)) as f64;
    let height = ((bottom - top - headers - gaps) / chart.panels.len().max(1) as f64).max(40.0);
    for ((panel, axis), rows) in chart.panels.iter().zip(&axes).zip(&legends) {
        draw_header(&mut drawing, panel, rows, top);
        top += header(rows);
        draw_panel(&mut drawing, panel, axis, &x, top, height);
        top += height + between;
    }
    let base = top - between;
    for (value, label) in x.ticks.values.iter().zip(&x.ticks.labels) {
        let at = Point::new(x.scale.at(*value), base + 18.0);
        drawing.text(at, label, SMALL, palette::MUTED, Anchor::Middle);
    }
    let at = Point::new(0.5 * (x.left + x.right), base + 18.0 + ROW);
    drawing.text(at, &chart.x_name, TEXT, palette::MUTED, Anchor::Middle);
    drawing
}

struct Horizontal {
    left: f64,
    right: f64,
    scale: scale::Scale,
    ticks: scale::Ticks,
}

impl Horizontal {
    fn of(chart: &Chart, left: f64) -> Self {
        let curves = chart.panels.iter().flat_map(|panel| &panel.curves);
        let (low, high) = match chart.x_range {
            Range::Unit => (0.0, 1.0),
            Range::Data | Range::Whole => {
                let (low, high) = extent(curves.flat_map(|c| &c.points).map(|p| p.0));
                // Counting begins at zero where the first value is near it.
                let near = low > 0.0 && low < 0.25 * high;
                (if near { 0.0 } else { low }, high)
            }
        };
        let right = chart.width - EDGE;
        let room = ((right - left) / 90.0).clamp(2.0, 10.0) as usize;
        let ticks = match chart.x_range {
            Range::Whole => scale::whole_ticks(low, high, room),
            Range::Data | Range::Unit => scale::ticks(low, high, room),
        };
        Self {
            left,
            right,
            scale: scale::Scale::new((low, high), (left + 6.0, right - 6.0)),
            ticks,
        }
    }
}

struct Axis {
    low: f64,
    high: f64,
    ticks: scale::Ticks,
}

impl Axis {
    fn of(panel: &Panel) -> Self {
        let (low, high) = match panel.range {
            Range::Unit => (0.0, 1.0),
            Range::Data | Range::Whole => {
                let (low, high) = extent(panel.curves.iter().flat_map(|c| &c.points).map(|p| p.1));
                let near = low > 0.0 && low < 0.4 * (high - low);
                scale::nice_range(if near { 0.0 } else { low }, high, 5)
            }
        };
        Self {
            low,
            high,
            ticks: scale::ticks(low, high, 5),
        }
    }
}

fn entry_width(entry: &Entry) -> f64 {
    SWATCH + 7.0 + font::width(&entry.name, SMALL)
}

/// The entries of a panel's legend in rows that fit; the panel's name stands before the first.
fn legend_rows(panel: &Panel, room: f64) -> Vec<Vec<&Entry>> {
    let mut rows = vec![Vec::new()];
    let mut used = font::width(&panel.name, TEXT) + 24.0;
    for entry in &panel.legend {
        let width = entry_width(entry) + 18.0;
        if used + width > room {
            rows.push(Vec::new());
            used = 0.0;
        }
        rows.last_mut().expect("there is a row").push(entry);
        used += width;
    }
    rows
}

fn header(rows: &[Vec<&Entry>]) -> f64 {
    rows.len() as f64 * ROW + 8.0
}

fn draw_header(drawing: &mut Drawing, panel: &Panel, rows: &[Vec<&Entry>], top: f64) {
    let at = Point::new(EDGE, top + 12.0);
    drawing.text(at, &panel.name, TEXT, palette::INK, Anchor::Start);
    for (index, row) in rows.iter().enumerate() {
        let y = top + 12.0 + index as f64 * ROW;
        let gaps = 18.0 * row.len().saturating_sub(1) as f64;
        let width: f64 = row.iter().map(|entry| entry_width(entry)).sum::<f64>() + gaps;
        let mut x = drawing.width - EDGE - width;
        for entry in row {
            draw_swatch(drawing, entry, Point::new(x, y - 4.5));
            let at = Point::new(x + SWATCH + 7.0, y);
            drawing.text(at, &entry.name, SMALL, palette::MUTED, Anchor::Start);
            x += entry_width(entry) + 18.0;
        }
    }
}

fn draw_swatch(drawing: &mut Drawing, entry: &Entry, at: Point) {
    let end = Point::new(at.x + SWATCH, at.y);
    drawing.line(vec![at, end], stroke(entry.colour, entry.look));
    if entry.look == Look::Dotted {
        drawing.dot(Point::new(at.x + SWATCH / 2.0, at.y), 4.0, entry.colour);
    }
}

fn stroke(colour: Colour, look: Look) -> Stroke {
    match look {
        Look::Thin => Stroke::solid(colour, 1.3).opacity(0.65),
        Look::Dotted | Look::Plain => Stroke::solid(colour, 2.0),
    }
}

fn draw_panel(
    drawing: &mut Drawing,
    panel: &Panel,
    axis: &Axis,
    x: &Horizontal,
    top: f64,
    height: f64,
) {
    let base = top + height;
    let y = scale::Scale::new((axis.low, axis.high), (base, top));
    for (value, label) in axis.ticks.values.iter().zip(&axis.ticks.labels) {
        let level = y.at(*value);
        let ends = vec![Point::new(x.left, level), Point::new(x.right, level)];
        drawing.line(ends, Stroke::solid(palette::GRID, 1.0));
        let at = Point::new(x.left - 10.0, level + 4.3);
        drawing.text(at, label, SMALL, palette::MUTED, Anchor::End);
    }
    let ends = vec![Point::new(x.left, base), Point::new(x.right, base)];
    drawing.line(ends, Stroke::solid(palette::AXIS, 1.0));
    for value in &x.ticks.values {
        let at = x.scale.at(*value);
        let tick = vec![Point::new(at, base), Point::new(at, base + 4.0)];
        drawing.line(tick, Stroke::solid(palette::AXIS, 1.0));
    }
    if let Some((from, to)) = panel.reference {
        let place = |(a, b): (f64, f64)| Point::new(x.scale.at(a), y.at(b));
        let stroke = Stroke::solid(palette::AXIS, 1.2).dashed(4.0, 4.0);
        drawing.line(vec![place(from), place(to)], stroke);
    }
    for curve in &panel.curves {
        let finite = curve
            .points
            .iter()
            .filter(|(a, b)| a.is_finite() && b.is_finite());
        let points: Vec<Point> = finite
            .map(|(a, b)| Point::new(x.scale.at(*a), y.at(*b)))
            .collect();
        if curve.look == Look::Thin && points.len() == 1 {
            drawing.dot(points[0], 3.0, curve.colour);
        }
        drawing.line(simplify(&points), stroke(curve.colour, curve.look));
        if curve.look == Look::Dotted {
            let radius = if points.len() > 60 { 2.5 } else { 4.0 };
            for point in points {
                drawing.dot(point, radius, curve.colour);
            }
        }
    }
}

/// The same line for the eye: without points that lie on the way between their neighbours, or nearer
/// than a third of a pixel to the one before.
fn simplify(points: &[Point]) -> Vec<Point> {
    let Some((last, rest)) = points.split_last() else {
        return Vec::new();
    };
    let mut kept: Vec<Point> = Vec::new();
    for point in rest {
        if let Some(before) = kept.last() {
            let near = (point.x - before.x).abs().max((point.y - before.y).abs()) < 1.0 / 3.0;
            if near {
                continue;
            }
        }
        if let [.., first, middle] = kept.as_slice()
            && on_the_way(*first, *middle, *point)
        {
            kept.pop();
        }
        kept.push(*point);
    }
    if let [.., first, middle] = kept.as_slice()
        && on_the_way(*first, *middle, *last)
    {
        kept.pop();
    }
    kept.push(*last);
    kept
}

fn on_the_way(a: Point, b: Point, c: Point) -> bool {
    let across = (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
    let along = (b.x - a.x) * (c.x - b.x) + (b.y - a.y) * (c.y - b.y);
    across.abs() < 1e-6 && along >= 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simplified_lines_keep_corners_and_ends() {
        let stairs: Vec<Point> = [
            (0.0, 0.0),
            (0.0, 5.0),
            (0.0, 9.0),
            (4.0, 9.0),
            (4.1, 9.0),
            (8.0, 9.0),
        ]
        .map(|(x, y)| Point::new(x, y))
        .to_vec();
        assert_eq!(simplify(&stairs), vec![stairs[0], stairs[2], stairs[5]]);
        assert_eq!(simplify(&stairs[..1]), stairs[..1]);
        assert!(simplify(&[]).is_empty());
    }

    #[test]
    fn legends_wrap_where_they_do_not_fit() {
        let entry = |name: &str| Entry {
            name: name.to_owned(),
            colour: palette::series(0),
            look: Look::Plain,
        };
        let panel = Panel {
            name: "loss".to_owned(),
            curves: Vec::new(),
            legend: (0..6)
                .map(|i| entry(&format!("a run with a long name {i}")))
                .collect(),
            reference: None,
            range: Range::Data,
        };
        let rows = legend_rows(&panel, 500.0);
        assert_eq!(rows.iter().map(Vec::len).sum::<usize>(), 6);
        for row in &rows {
            let width: f64 = row.iter().map(|entry| entry_width(entry) + 18.0).sum();
            assert!(width <= 500.0, "{width}");
        }
    }
}
