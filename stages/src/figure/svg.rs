//! Writes a drawing as SVG. Numbers have at most two decimals, attributes one order: equal drawings are
//! equal bytes.

use std::fmt::Write as _;

use super::drawing::{Anchor, Drawing, Mark};
use super::font::FAMILY;
use super::palette::BACKGROUND;

/// The SVG text of `drawing`.
pub fn write(drawing: &Drawing) -> String {
    let (width, height) = (number(drawing.width), number(drawing.height));
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="{FAMILY}, Verdana, sans-serif" role="img" aria-labelledby="title description">
<title id="title">{}</title>
<desc id="description">{}</desc>
"#,
        escape(&drawing.title),
        escape(&drawing.description),
    );
    for mark in &drawing.marks {
        write_mark(&mut svg, mark).expect("strings grow");
    }
    svg.push_str("</svg>\n");
    svg
}

fn write_mark(svg: &mut String, mark: &Mark) -> std::fmt::Result {
    match mark {
        Mark::Area {
            corner,
            width,
            height,
            fill,
            radius,
        } => {
            write!(
                svg,
                r#"<rect x="{}" y="{}" width="{}" height="{}""#,
                number(corner.x),
                number(corner.y),
                number(*width),
                number(*height)
            )?;
            if *radius > 0.0 {
                write!(svg, r#" rx="{}""#, number(*radius))?;
            }
            writeln!(svg, r#" fill="{fill}"/>"#)
        }
        Mark::Line { points, stroke } => {
            svg.push_str(r#"<polyline points=""#);
            for (index, point) in points.iter().enumerate() {
                let gap = if index == 0 { "" } else { " " };
                write!(svg, "{gap}{},{}", number(point.x), number(point.y))?;
            }
            write!(
                svg,
                r#"" fill="none" stroke="{}" stroke-width="{}" stroke-linejoin="round" stroke-linecap="round""#,
                stroke.colour,
                number(stroke.width)
            )?;
            if stroke.opacity < 1.0 {
                write!(svg, r#" stroke-opacity="{}""#, number(stroke.opacity))?;
            }
            if let Some((dash, gap)) = stroke.dash {
                write!(
                    svg,
                    r#" stroke-dasharray="{} {}""#,
                    number(dash),
                    number(gap)
                )?;
            }
            svg.push_str("/>\n");
            Ok(())
        }
        Mark::Dot {
            centre,
            radius,
            fill,
        } => writeln!(
            svg,
            r#"<circle cx="{}" cy="{}" r="{}" fill="{fill}" stroke="{BACKGROUND}" stroke-width="1.5"/>"#,
            number(centre.x),
            number(centre.y),
            number(*radius)
        ),
        Mark::Text {
            at,
            text,
            size,
            colour,
            anchor,
            turn,
        } => {
            write!(
                svg,
                r#"<text x="{}" y="{}" font-size="{}" fill="{colour}""#,
                number(at.x),
                number(at.y),
                number(*size)
            )?;
            match anchor {
                Anchor::Start => {}
                Anchor::Middle => svg.push_str(r#" text-anchor="middle""#),
                Anchor::End => svg.push_str(r#" text-anchor="end""#),
            }
            if *turn != 0.0 {
                write!(
                    svg,
                    r#" transform="rotate({} {} {})""#,
                    number(*turn),
                    number(at.x),
                    number(at.y)
                )?;
            }
            writeln!(svg, ">{}</text>", escape(text))
        }
    }
}

/// At most two decimals, no zeros at the end, no negative zero.
fn number(value: f64) -> String {
    let hundredths = (value * 100.0).round() as i64;
    let sign = if hundredths < 0 { "-" } else { "" };
    let (whole, rest) = (
        hundredths.unsigned_abs() / 100,
        hundredths.unsigned_abs() % 100,
    );
    if rest == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{rest:02}")
            .trim_end_matches('0')
            .to_owned()
    }
}

/// Text as XML takes it; characters that XML has no place for are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::drawing::{Point, Stroke};
    use super::super::palette::{GRID, INK};
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for (value, text) in [
            (0.0, "0"),
            (-0.001, "0"),
            (1.5, "1.5"),
            (-2.25, "-2.25"),
            (10.0, "10"),
            (0.05, "0.05"),
            (99.999, "100"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_drawing_is_small_plain_svg() {
        let mut drawing = Drawing::new(
            40.0,
            20.0,
            "a < b".to_owned(),
            "two\u{0}marks & \"text\"".to_owned(),
        );
        drawing.line(
            vec![Point::new(0.0, 1.0), Point::new(4.125, 1.0)],
            Stroke::solid(GRID, 1.0).dashed(3.0, 2.0).opacity(0.5),
        );
        drawing.dot(Point::new(4.0, 4.0), 2.0, INK);
        drawing.turned_text(Point::new(1.0, 9.0), "<x>", 9.0, INK, Anchor::End, -90.0);
        insta::assert_snapshot!(write(&drawing), @r##"
        <svg xmlns="http://www.w3.org/2000/svg" width="40" height="20" viewBox="0 0 40 20" font-family="DejaVu Sans, Verdana, sans-serif" role="img" aria-labelledby="title description">
        <title id="title">a &lt; b</title>
        <desc id="description">two marks &amp; &quot;text&quot;</desc>
        <rect x="0" y="0" width="40" height="20" fill="#ffffff"/>
        <polyline points="0,1 4.13,1" fill="none" stroke="#e9ecef" stroke-width="1" stroke-linejoin="round" stroke-linecap="round" stroke-opacity="0.5" stroke-dasharray="3 2"/>
        <circle cx="4" cy="4" r="2" fill="#212529" stroke="#ffffff" stroke-width="1.5"/>
        <text x="1" y="9" font-size="9" fill="#212529" text-anchor="end" transform="rotate(-90 1 9)">&lt;x&gt;</text>
        </svg>
        "##);
    }
}
