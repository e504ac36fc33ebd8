//! Numbers of bytes as people write them.

/// A number of bytes: `500MB`, `20GiB`, `1024`.
///
/// # Errors
/// Why it is none.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text
        .trim_end_matches(|c: char| c.is_ascii_alphabetic())
        .trim_end();
    let unit = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1_u64,
        "k" | "kb" => 1_000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        "t" | "tb" => 1_000_000_000_000,
        "tib" => 1 << 40,
        other => return Err(format!("`{other}` is no unit: MB, MiB, GB, GiB are")),
    };
    let value: f64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is no size: 20GiB is one"))?;
    if !(value.is_finite() && value >= 0.0) {
        return Err(format!("`{text}` is no size: 20GiB is one"));
    }
    Ok((value * unit as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("12", 12),
            ("1.5 GiB", 3 << 29),
            ("2MB", 2_000_000),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "-1", "3 apples", "NaN"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
