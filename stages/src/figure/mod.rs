//! Figures: scales and marks, drawn as SVG, painted as PNG.
