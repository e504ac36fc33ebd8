//! Paints SVG as PNG with the bundled font alone, so that no font of the system can show.

use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use taper_engine::StageError;

use super::font;

/// Pixels of the PNG per pixel of the SVG: sharp on screens with fine pixels.
const SCALE: f32 = 2.0;

/// The PNG file of an SVG text.
///
/// # Errors
/// Where the text is not SVG, or too large to be painted.
pub fn paint(svg: &str) -> Result<Vec<u8>, StageError> {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(font::BYTES.to_vec());
    fonts.set_sans_serif_family(font::FAMILY);
    let options = Options {
        font_family: font::FAMILY.to_owned(),
        fontdb: Arc::new(fonts),
        ..Options::default()
    };
    let failed = |what: String| StageError::failed(format!("the figure cannot be painted: {what}"));
    let tree = Tree::from_str(svg, &options).map_err(|error| failed(error.to_string()))?;
    let size = tree.size().to_int_size().scale_by(SCALE);
    let mut pixels = size
        .and_then(|size| Pixmap::new(size.width(), size.height()))
        .ok_or_else(|| failed("it is too large".to_owned()))?;
    resvg::render(
        &tree,
        Transform::from_scale(SCALE, SCALE),
        &mut pixels.as_mut(),
    );
    pixels
        .encode_png()
        .map_err(|error| failed(error.to_string()))
}
