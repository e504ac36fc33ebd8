//! A tree of plain data, each piece with its place: what the rest of the engine sees of a YAML text.

use std::fmt::Write as _;

/// A place: bytes `start..end` of one of a report's sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Which source: 0 is the pipeline file, others are words of the command line.
    pub source: u32,
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

/// A piece of data.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// Where the value was given, if it stands here as a `$param`.
    pub origin: Option<Span>,
    /// What it is.
    pub shape: Shape,
}

/// What a piece of data is.
#[derive(Clone, Debug)]
pub enum Shape {
    /// A scalar, as written.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order in which it was written; no key twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

/// A scalar, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// Its text, without quotes and escapes.
    pub text: String,
    /// Whether it was quoted or a block, so that it is text whatever it looks like.
    pub quoted: bool,
}

/// What a scalar means, by the core schema of YAML 1.2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Meaning<'s> {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number of 64 bits and a sign.
    Integer(i128),
    /// A number with a point or an exponent.
    Float(f64),
    /// A text: `no`, `1_000` and `010` too.
    Text(&'s str),
}

impl Scalar {
    /// A plain scalar.
    pub fn plain(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            quoted: false,
        }
    }

    /// What it means.
    pub fn meaning(&self) -> Meaning<'_> {
        if self.quoted {
            return Meaning::Text(&self.text);
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Meaning::Null,
            "true" | "True" | "TRUE" => Meaning::Bool(true),
            "false" | "False" | "FALSE" => Meaning::Bool(false),
            text => number(text).unwrap_or(Meaning::Text(text)),
        }
    }

    /// Why it is no number although it looks like one, and what to write instead.
    pub fn number_hint(&self) -> Option<String> {
        let text = self.text.as_str();
        if self.quoted {
            let unquoted = Self::plain(text);
            let is_number = matches!(unquoted.meaning(), Meaning::Integer(_) | Meaning::Float(_));
            return is_number.then(|| format!("quotes make it a text: write {text}"));
        }
        if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
            return None;
        }
        let without = text.replace(['_', ',', '\''], "");
        if without != text && number(&without).is_some() {
            return Some(format!(
                "numbers have no separators between digits: write {without}"
            ));
        }
        let (sign, digits) = split_sign(text);
        let trimmed = digits.trim_start_matches('0');
        if digits.starts_with('0') && trimmed.starts_with(|c: char| c.is_ascii_digit()) {
            return Some(format!(
                "a zero before digits means octal to some programs: write {sign}{trimmed}"
            ));
        }
        if digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() {
            return Some("whole numbers have 64 bits at most".to_owned());
        }
        if text.parse::<f64>().is_ok_and(f64::is_infinite) {
            return Some("numbers go up to 1.8e308".to_owned());
        }
        None
    }
}

fn split_sign(text: &str) -> (&str, &str) {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    text.split_at(text.len() - digits.len())
}

/// A number of the core schema. A zero before other digits makes none: programs disagree on what it means.
fn number(text: &str) -> Option<Meaning<'static>> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || b"+-.".contains(&first)) {
        return None;
    }
    let (sign, digits) = split_sign(text);
    match digits {
        ".inf" | ".Inf" | ".INF" if sign == "-" => return Some(Meaning::Float(f64::NEG_INFINITY)),
        ".inf" | ".Inf" | ".INF" => return Some(Meaning::Float(f64::INFINITY)),
        ".nan" | ".NaN" | ".NAN" if sign.is_empty() => return Some(Meaning::Float(f64::NAN)),
        _ => {}
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let value = u64::from_str_radix(digits, radix).ok()?;
            return (!digits.starts_with('+')).then_some(Meaning::Integer(value.into()));
        }
    }
    let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
    if whole > 1 && digits.starts_with('0') {
        return None;
    }
    if whole == digits.len() {
        let value: i128 = text.parse().ok()?;
        let fits = u64::try_from(value).is_ok() || i64::try_from(value).is_ok();
        return fits.then_some(Meaning::Integer(value));
    }
    let rest = &digits[whole..];
    let fraction = match rest.strip_prefix('.') {
        Some(rest) => rest.bytes().take_while(u8::is_ascii_digit).count() + 1,
        None => 0,
    };
    if whole + fraction.saturating_sub(1) == 0 {
        return None;
    }
    let exponent = &rest[fraction..];
    if !exponent.is_empty() {
        let (_, digits) = split_sign(exponent.strip_prefix(['e', 'E'])?);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
    }
    let value: f64 = text.parse().ok()?;
    value.is_finite().then_some(Meaning::Float(value))
}

impl Node {
    /// A scalar.
    pub fn scalar(span: Span, scalar: Scalar) -> Self {
        Self {
            span,
            origin: None,
            shape: Shape::Scalar(scalar),
        }
    }

    /// A map.
    pub fn map(span: Span, entries: Vec<Entry>) -> Self {
        Self {
            span,
            origin: None,
            shape: Shape::Map(entries),
        }
    }

    /// What it means, where it is a scalar.
    pub fn meaning(&self) -> Option<Meaning<'_>> {
        match &self.shape {
            Shape::Scalar(scalar) => Some(scalar.meaning()),
            _ => None,
        }
    }

    /// Its text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self.meaning() {
            Some(Meaning::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether it is nothing.
    pub fn is_null(&self) -> bool {
        self.meaning() == Some(Meaning::Null)
    }

    /// The entries, where it is a map.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.shape {
            Shape::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of `key`, where it is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let entry = self.entries()?.iter().find(|entry| entry.key == key)?;
        Some(&entry.value)
    }

    /// What stands at the dotted `path` (`optimizer.adamw.lr`, `splits.0`), or at as much of it as there is.
    pub fn at(&self, path: &str) -> &Self {
        let (part, rest) = path.split_once('.').unwrap_or((path, ""));
        let below = match &self.shape {
            Shape::Map(entries) => {
                // A key may have dots in it: the longest that fits.
                let named = entries
                    .iter()
                    .filter(|entry| {
                        let rest = path.strip_prefix(entry.key.as_str());
                        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                    })
                    .max_by_key(|entry| entry.key.len());
                named.map(|entry| {
                    let rest = &path[entry.key.len()..];
                    (&entry.value, rest.strip_prefix('.').unwrap_or(rest))
                })
            }
            Shape::List(items) => part
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get(index))
                .map(|item| (item, rest)),
            Shape::Scalar(_) => None,
        };
        match below {
            Some((node, "")) => node,
            Some((node, rest)) => node.at(rest),
            None => self,
        }
    }

    /// In one line, as YAML would take it.
    pub fn inline(&self) -> String {
        let mut text = String::new();
        self.write_inline(&mut text);
        text
    }

    fn write_inline(&self, out: &mut String) {
        match &self.shape {
            Shape::Scalar(scalar) => {
                let quote = scalar.quoted && Scalar::plain(&scalar.text).as_other_than_text()
                    || scalar
                        .text
                        .contains(['\n', ',', '[', ']', '{', '}', '"', '#'])
                    || scalar.text.contains(": ");
                if quote {
                    write!(out, "{:?}", scalar.text).expect("strings grow");
                } else {
                    out.push_str(&scalar.text);
                }
            }
            Shape::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    item.write_inline(out);
                }
                out.push(']');
            }
            Shape::Map(entries) => {
                out.push('{');
                for (index, entry) in entries.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    out.push_str(&entry.key);
                    out.push_str(": ");
                    entry.value.write_inline(out);
                }
                out.push('}');
            }
        }
    }

    /// In words, for messages: ``the text `abc` ``, `a list`.
    pub fn describe(&self) -> String {
        let Shape::Scalar(scalar) = &self.shape else {
            return match &self.shape {
                Shape::Map(entries) if entries.is_empty() => "an empty map".to_owned(),
                Shape::Map(_) => "a map".to_owned(),
                _ => "a list".to_owned(),
            };
        };
        let mut shown: String = scalar.text.chars().take(60).collect();
        if shown.len() < scalar.text.len() {
            shown.push('…');
        }
        let shown = shown.replace('\n', "\\n");
        match scalar.meaning() {
            Meaning::Null => "nothing".to_owned(),
            Meaning::Bool(_) => format!("`{shown}`"),
            Meaning::Integer(_) | Meaning::Float(_) => format!("the number {shown}"),
            Meaning::Text("") => "an empty text".to_owned(),
            Meaning::Text(_) => format!("the text `{shown}`"),
        }
    }
}

impl Scalar {
    fn as_other_than_text(&self) -> bool {
        !matches!(self.meaning(), Meaning::Text(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_mean_what_yaml_1_2_says() {
        use Meaning::{Bool, Float, Integer, Null, Text};
        for (text, meaning) in [
            ("", Null),
            ("~", Null),
            ("null", Null),
            ("true", Bool(true)),
            ("False", Bool(false)),
            ("no", Text("no")),
            ("yes", Text("yes")),
            ("on", Text("on")),
            ("0", Integer(0)),
            ("-0", Integer(0)),
            ("+12", Integer(12)),
            ("18446744073709551615", Integer(u64::MAX.into())),
            ("-9223372036854775808", Integer(i64::MIN.into())),
            ("18446744073709551616", Text("18446744073709551616")),
            ("0x1F", Integer(31)),
            ("0o17", Integer(15)),
            ("0x+1", Text("0x+1")),
            ("1e-3", Float(1e-3)),
            ("1E3", Float(1e3)),
            ("1.", Float(1.0)),
            (".5", Float(0.5)),
            ("-.5e1", Float(-5.0)),
            ("0.1", Float(0.1)),
            (".inf", Float(f64::INFINITY)),
            ("-.inf", Float(f64::NEG_INFINITY)),
            ("1e400", Text("1e400")),
            ("1_000", Text("1_000")),
            ("010", Text("010")),
            ("-007", Text("-007")),
            ("1e", Text("1e")),
            (".", Text(".")),
            ("-", Text("-")),
            ("+-1", Text("+-1")),
            (".e1", Text(".e1")),
            ("1.2.3", Text("1.2.3")),
            ("infinity", Text("infinity")),
            ("nan", Text("nan")),
            ("12:30", Text("12:30")),
            ("2024-01-01", Text("2024-01-01")),
        ] {
            assert_eq!(Scalar::plain(text).meaning(), meaning, "{text}");
        }
        let quoted = Scalar {
            text: "1".to_owned(),
            quoted: true,
        };
        assert_eq!(quoted.meaning(), Text("1"));
    }

    #[test]
    fn what_looks_like_a_number_is_explained() {
        for (text, part) in [
            ("1_000", "write 1000"),
            ("1,000", "write 1000"),
            ("010", "write 10"),
            ("-007.5", "write -7.5"),
            ("18446744073709551616", "64 bits"),
            ("1e400", "1.8e308"),
        ] {
            let hint = Scalar::plain(text).number_hint().unwrap_or_default();
            assert!(hint.contains(part), "{text}: {hint}");
        }
        assert_eq!(Scalar::plain("abc").number_hint(), None);
        assert_eq!(Scalar::plain("1.2.3").number_hint(), None);
    }
}
