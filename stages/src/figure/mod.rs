//! Figures: scales and marks, drawn as SVG, painted as PNG.
//!
//! A chart ([`curves`], [`matrix`]) lays out data as a [`Drawing`], a list of marks in pixels; [`svg`]
//! writes a drawing as text and [`png`] paints that text. Nothing here asks the system for a font, a
//! number format or an order, so the bytes are the same everywhere.

pub mod curves;
pub mod drawing;
pub mod font;
pub mod learning;
pub mod matrix;
pub mod palette;
pub mod png;
pub mod scale;
pub mod svg;
pub mod threshold;

pub use drawing::{Anchor, Drawing, Mark, Point, Stroke};
