//! A confusion matrix: a row for each true class, a column for each predicted one; cells are shaded by
//! their share of the row and say count and share where there is room.

use super::drawing::{Anchor, Drawing, Point};
use super::{font, palette, scale};

const EDGE: f64 = 28.0;
const TITLE: f64 = 18.0;
const TEXT: f64 = 13.0;
const GAP: f64 = 2.0;

/// A confusion matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// In pixels.
    pub width: f64,
    /// In pixels.
    pub height: f64,
    /// Above everything; nothing where it is empty.
    pub title: String,
    /// What it shows, for those who cannot see it.
    pub description: String,
    /// One for each name, beside each other.
    pub panels: Vec<Panel>,
}

/// The counts of one classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Above it, where there are several.
    pub name: String,
    /// The classes.
    pub labels: Vec<String>,
    /// How often the class of the row was taken for that of the column.
    pub counts: Vec<Vec<u64>>,
}

impl Matrix {
    /// Matrices in a drawing of this size, or of one in which they are read easily.
    pub fn new(
        panels: Vec<Panel>,
        title: String,
        description: String,
        size: (Option<u32>, Option<u32>),
    ) -> Self {
        let classes = panels.iter().map(|panel| panel.labels.len()).max();
        let side = 300.0 + 40.0 * classes.unwrap_or(0).min(20) as f64;
        let width = size
            .0
            .map_or(200.0 + side * panels.len().max(1) as f64, f64::from);
        Self {
            width: width.min(4000.0),
            height: size.1.map_or(side + 100.0, f64::from),
            title,
            description,
            panels,
        }
    }
}

impl Panel {
    /// The share that each cell has of its row; 0 in an empty row.
    pub fn shares(&self) -> Vec<Vec<f64>> {
        let share = |row: &Vec<u64>| {
            let total: u64 = row.iter().sum();
            row.iter()
                .map(|count| *count as f64 / total.max(1) as f64)
                .collect()
        };
        self.counts.iter().map(share).collect()
    }
}

/// Lays the matrices out.
pub fn draw(matrix: &Matrix) -> Drawing {
    let name = if matrix.title.is_empty() {
        matrix.description.clone()
    } else {
        matrix.title.clone()
    };
    let mut drawing = Drawing::new(
        matrix.width,
        matrix.height,
        name,
        matrix.description.clone(),
    );
    let mut top = EDGE;
    if !matrix.title.is_empty() {
        let title = font::fit(&matrix.title, TITLE, matrix.width - 2.0 * EDGE);
        let at = Point::new(EDGE, top + TITLE * 0.8);
        drawing.text(at, title, TITLE, palette::INK, Anchor::Start);
        top += TITLE + 18.0;
    }
    let count = matrix.panels.len().max(1) as f64;
    let between = 32.0;
    let legend = 46.0;
    let width = (matrix.width - 2.0 * EDGE - between * (count - 1.0)) / count;
    let height = matrix.height - top - EDGE - legend;
    let named = matrix.panels.len() > 1;
    for (index, panel) in matrix.panels.iter().enumerate() {
        let left = EDGE + index as f64 * (width + between);
        let mut frame = Frame {
            corner: Point::new(left, top),
            width,
            height,
        };
        if named {
            let name = font::fit(&panel.name, TEXT, width);
            let at = Point::new(left, top + 11.0);
            drawing.text(at, name, TEXT, palette::INK, Anchor::Start);
            frame.corner.y += 24.0;
            frame.height -= 24.0;
        }
        draw_panel(&mut drawing, panel, frame);
    }
    draw_scale(&mut drawing);
    drawing
}

struct Frame {
    corner: Point,
    width: f64,
    height: f64,
}

fn draw_panel(drawing: &mut Drawing, panel: &Panel, frame: Frame) {
    let classes = panel.labels.len().max(1) as f64;
    let widest = panel
        .labels
        .iter()
        .map(|label| font::width(label, TEXT))
        .fold(0.0, f64::max)
        .min(frame.width * 0.28);
    // To the left: the word for the rows, turned, and their labels. Above: the same for the columns.
    let left = frame.corner.x + 24.0 + widest + 12.0;
    let cell_width = (frame.corner.x + frame.width - left) / classes;
    let turned = widest > cell_width - 8.0;
    let above = if turned { widest.min(110.0) } else { TEXT };
    let top = frame.corner.y + 24.0 + above + 10.0;
    let cell_height = ((frame.corner.y + frame.height - top) / classes).min(cell_width);
    let size = TEXT
        .min(cell_height * 0.8)
        .min(if turned { cell_width * 0.8 } else { TEXT });
    let (right, bottom) = (left + classes * cell_width, top + classes * cell_height);
    let at = Point::new(0.5 * (left + right), frame.corner.y + 11.0);
    drawing.text(at, "predicted", TEXT, palette::MUTED, Anchor::Middle);
    let at = Point::new(frame.corner.x + 11.0, 0.5 * (top + bottom));
    drawing.turned_text(at, "true", TEXT, palette::MUTED, Anchor::Middle, -90.0);
    for (index, label) in panel.labels.iter().enumerate() {
        let middle = top + (index as f64 + 0.5) * cell_height;
        let at = Point::new(left - 12.0, middle + size * 0.35);
        let text = font::fit(label, size, widest);
        drawing.text(at, text, size, palette::INK, Anchor::End);
        let centre = left + (index as f64 + 0.5) * cell_width;
        if turned {
            let at = Point::new(centre + size * 0.35, top - 10.0);
            let text = font::fit(label, size, above);
            drawing.turned_text(at, text, size, palette::INK, Anchor::Start, -90.0);
        } else {
            let at = Point::new(centre, top - 12.0);
            drawing.text(at, label, size, palette::INK, Anchor::Middle);
        }
    }
    let gap = if cell_height < 12.0 { 0.0 } else { GAP };
    for (row, shares) in panel.shares().iter().enumerate() {
        for (column, share) in shares.iter().enumerate() {
            let corner = Point::new(
                left + column as f64 * cell_width + gap / 2.0,
                top + row as f64 * cell_height + gap / 2.0,
            );
            let fill = palette::shade(*share);
            drawing.area(corner, cell_width - gap, cell_height - gap, fill);
            let count = panel.counts[row][column];
            let centre = Point::new(
                left + (column as f64 + 0.5) * cell_width,
                top + (row as f64 + 0.5) * cell_height,
            );
            draw_cell(drawing, centre, (cell_width, cell_height), count, *share);
        }
    }
}

fn draw_cell(drawing: &mut Drawing, centre: Point, room: (f64, f64), count: u64, share: f64) {
    let colour = palette::text_on(palette::shade(share));
    let text = scale::count(count);
    let large = (room.1 * 0.26).clamp(9.0, 24.0);
    let fits = |text: &str, size: f64| font::width(text, size) <= room.0 - 8.0;
    let percent = format!("{:.1}\u{a0}%", share * 100.0);
    let small = (large * 0.62).max(10.0);
    if room.1 >= 44.0 && fits(&text, large) && fits(&percent, small) {
        let at = Point::new(centre.x, centre.y + large * 0.05);
        drawing.text(at, text, large, colour, Anchor::Middle);
        let at = Point::new(centre.x, centre.y + large * 0.05 + small * 1.5);
        drawing.text(at, percent, small, colour, Anchor::Middle);
    } else if room.1 >= 14.0 && fits(&text, large.min(room.1 * 0.6)) {
        let size = large.min(room.1 * 0.6);
        let at = Point::new(centre.x, centre.y + size * 0.36);
        drawing.text(at, text, size, colour, Anchor::Middle);
    }
}

/// What the shades mean, at the bottom right.
fn draw_scale(drawing: &mut Drawing) {
    const PARTS: usize = 40;
    let width = 160.0;
    let left = drawing.width - EDGE - width - 44.0;
    let y = drawing.height - EDGE - 10.0;
    let at = Point::new(left - 40.0, y + 9.0);
    drawing.text(
        at,
        "share of the true class",
        12.0,
        palette::MUTED,
        Anchor::End,
    );
    let at = Point::new(left - 8.0, y + 9.0);
    drawing.text(at, "0\u{a0}%", 12.0, palette::MUTED, Anchor::End);
    for part in 0..PARTS {
        let share = part as f64 / (PARTS - 1) as f64;
        let step = width / PARTS as f64;
        let corner = Point::new(left + part as f64 * step, y);
        drawing.area(corner, step, 10.0, palette::shade(share));
    }
    let at = Point::new(left + width + 8.0, y + 9.0);
    drawing.text(at, "100\u{a0}%", 12.0, palette::MUTED, Anchor::Start);
}
