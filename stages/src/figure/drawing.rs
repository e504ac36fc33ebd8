//! A drawing: marks in pixels, from the back to the front. The origin is at the top left.

use super::palette::Colour;

/// A place in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
}

impl Point {
    /// The place `x` from the left and `y` from the top.
    pub const fn new(x: f64, y: f64) -> Self {
        Self { x, y }
    }
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stroke {
    /// Its colour.
    pub colour: Colour,
    /// Its width in pixels.
    pub width: f64,
    /// From 0 (not to be seen) to 1.
    pub opacity: f64,
    /// Lengths of a dash and of the gap after it.
    pub dash: Option<(f64, f64)>,
}

impl Stroke {
    /// A solid line.
    pub const fn solid(colour: Colour, width: f64) -> Self {
        Self {
            colour,
            width,
            opacity: 1.0,
            dash: None,
        }
    }

    /// The same line, dashed.
    #[must_use]
    pub const fn dashed(mut self, dash: f64, gap: f64) -> Self {
        self.dash = Some((dash, gap));
        self
    }

    /// The same line, letting what is behind it through.
    #[must_use]
    pub const fn opacity(mut self, opacity: f64) -> Self {
        self.opacity = opacity;
        self
    }
}

/// Which part of a text stands at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its beginning.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

/// Something that is drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// A filled rectangle.
    Area {
        /// Its top left corner.
        corner: Point,
        /// Its width.
        width: f64,
        /// Its height.
        height: f64,
        /// What it is filled with.
        fill: Colour,
        /// The radius of its corners.
        radius: f64,
    },
    /// A line through points.
    Line {
        /// The points.
        points: Vec<Point>,
        /// How it is drawn.
        stroke: Stroke,
    },
    /// A dot with a rim of the background's colour, so that dots stay apart.
    Dot {
        /// Its centre.
        centre: Point,
        /// Its radius.
        radius: f64,
        /// What it is filled with.
        fill: Colour,
    },
    /// A line of text.
    Text {
        /// A point on the base line.
        at: Point,
        /// The text.
        text: String,
        /// The size of the type in pixels.
        size: f64,
        /// Its colour.
        colour: Colour,
        /// Which part of it stands at the point.
        anchor: Anchor,
        /// By how many degrees it is turned around the point, clockwise.
        turn: f64,
    },
}

/// A figure, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// In pixels.
    pub width: f64,
    /// In pixels.
    pub height: f64,
    /// What it is called, for those who cannot see it.
    pub title: String,
    /// What it shows, for those who cannot see it.
    pub description: String,
    /// What is drawn, from the back to the front.
    pub marks: Vec<Mark>,
}

impl Drawing {
    /// An empty drawing on the background's colour.
    pub fn new(width: f64, height: f64, title: String, description: String) -> Self {
        let mut drawing = Self {
            width,
            height,
            title,
            description,
            marks: Vec::new(),
        };
        drawing.area(
            Point::new(0.0, 0.0),
            width,
            height,
            super::palette::BACKGROUND,
        );
        drawing
    }

    /// Adds a rectangle.
    pub fn area(&mut self, corner: Point, width: f64, height: f64, fill: Colour) {
        self.marks.push(Mark::Area {
            corner,
            width,
            height,
            fill,
            radius: 0.0,
        });
    }

    /// Adds a line; one of fewer than two points is none.
    pub fn line(&mut self, points: Vec<Point>, stroke: Stroke) {
        if points.len() > 1 {
            self.marks.push(Mark::Line { points, stroke });
        }
    }

    /// Adds a dot.
    pub fn dot(&mut self, centre: Point, radius: f64, fill: Colour) {
        self.marks.push(Mark::Dot {
            centre,
            radius,
            fill,
        });
    }

    /// Adds a level line of text.
    pub fn text(
        &mut self,
        at: Point,
        text: impl Into<String>,
        size: f64,
        colour: Colour,
        anchor: Anchor,
    ) {
        self.turned_text(at, text, size, colour, anchor, 0.0);
    }

    /// Adds a line of text that is turned by `turn` degrees, clockwise.
    pub fn turned_text(
        &mut self,
        at: Point,
        text: impl Into<String>,
        size: f64,
        colour: Colour,
        anchor: Anchor,
        turn: f64,
    ) {
        self.marks.push(Mark::Text {
            at,
            text: text.into(),
            size,
            colour,
            anchor,
            turn,
        });
    }
}
