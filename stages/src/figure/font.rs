//! The bundled font, and how wide a text is in it: layout needs widths, and PNG needs outlines.

use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider};

/// DejaVu Sans, reduced to Latin, Greek and a few symbols. Its licence stands beside it.
pub const BYTES: &[u8] = include_bytes!("font/DejaVuSans-subset.ttf");

/// Its family, as an SVG asks for it.
pub const FAMILY: &str = "DejaVu Sans";

/// The width of `text` in pixels, in type of `size` pixels. A character that the font lacks counts as
/// its box for missing ones.
pub fn width(text: &str, size: f64) -> f64 {
    let font = FontRef::new(BYTES).expect("the bundled font is one");
    let characters = font.charmap();
    let metrics = font.glyph_metrics(Size::unscaled(), LocationRef::default());
    let units: f64 = text
        .chars()
        .map(|character| {
            let glyph = characters.map(character).unwrap_or_default();
            f64::from(metrics.advance_width(glyph).unwrap_or(0.0))
        })
        .sum();
    units / 2048.0 * size
}

/// `text`, cut with an ellipsis where it is wider than `room` pixels.
pub fn fit(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let room = room - width("…", size);
    let mut kept = String::new();
    for character in text.chars() {
        kept.push(character);
        if width(&kept, size) > room {
            kept.pop();
            break;
        }
    }
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_font() {
        // DejaVu Sans: a digit is 1303 units of 2048 wide, a space 651.
        assert_eq!(width("0", 2048.0), 1303.0);
        assert_eq!(width("1 1", 2048.0), 2.0 * 1303.0 + 651.0);
        assert_eq!(width("", 12.0), 0.0);
    }

    #[test]
    fn long_texts_end_in_an_ellipsis_and_fit() {
        assert_eq!(fit("short", 12.0, 100.0), "short");
        let cut = fit("a label that is much too long", 12.0, 80.0);
        assert!(cut.ends_with('…') && width(&cut, 12.0) <= 80.0, "{cut}");
    }
}
