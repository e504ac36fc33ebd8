//! Params: names for values, to be changed in one place.
//!
//! `$name` as a whole scalar stands for the param with its type kept; `${name}` inside a longer text is
//! spliced; `$$` is a dollar. Other dollars are left alone, but for those before a name: `cost $lr` could be
//! meant either way.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Diagnostic, suggest};
use crate::node::{Entry, Node, Scalar, Shape, Span};

/// What is known of each name: params and what the matrix varies.
pub struct Names<'p> {
    /// Every name, with every value that it may have.
    pub values: BTreeMap<&'p str, Vec<&'p Node>>,
}

/// The value of each name, params within params replaced.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    values: BTreeMap<String, Node>,
    weights: BTreeMap<String, usize>,
}

/// How much a value may grow by the params in it: in values and bytes of text.
const HEAVIEST: usize = 1 << 18;

impl Bindings {
    /// Gives a name its value.
    pub fn bind(&mut self, name: &str, value: Node) {
        self.weights.insert(name.to_owned(), self.weight(&value));
        self.values.insert(name.to_owned(), value);
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.values.get(name)
    }

    /// How heavy a node is with its params put in: params within params can make a small file grow without
    /// bound, as aliases can.
    pub fn weight(&self, node: &Node) -> usize {
        match &node.shape {
            Shape::Scalar(scalar) if scalar.text.contains('$') => {
                let pieces = pieces(&scalar.text).into_iter();
                let weights = pieces.map(|piece| match piece {
                    Piece::Text(text) | Piece::Unclear(text) => text.len(),
                    Piece::Param(name) => self.weights.get(name).copied().unwrap_or(0),
                });
                weights.fold(1, usize::saturating_add)
            }
            Shape::Scalar(scalar) => 1 + scalar.text.len(),
            Shape::List(items) => {
                let weights = items.iter().map(|item| self.weight(item));
                weights.fold(1, usize::saturating_add)
            }
            Shape::Map(entries) => {
                let weights = entries.iter().map(|entry| self.weight(&entry.value));
                weights.fold(1 + entries.len(), usize::saturating_add)
            }
        }
    }
}

/// Something is wrong, and it has been reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported;

/// Part of a text.
enum Piece<'t> {
    Text(&'t str),
    Param(&'t str),
    /// A dollar before a name, without braces, inside a longer text.
    Unclear(&'t str),
}

/// Whether a name can be one of a param or a stage.
pub fn is_name(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Whether a node still is a param, because that has no value.
pub fn is_unknown(node: &Node) -> bool {
    match &node.shape {
        Shape::Scalar(scalar) => !scalar.quoted && whole(&scalar.text).is_some(),
        _ => false,
    }
}

/// The name, where a text is a whole `$name` or `${name}`.
fn whole(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let name = match name.strip_prefix('{') {
        Some(name) => name.strip_suffix('}')?,
        None => name,
    };
    is_name(name).then_some(name)
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    if let Some(name) = whole(text) {
        return vec![Piece::Param(name)];
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, after) = (&rest[..dollar], &rest[dollar + 1..]);
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        let braced = after
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'))
            .filter(|(name, _)| is_name(name));
        if let Some(after) = after.strip_prefix('$') {
            pieces.push(Piece::Text("$"));
            rest = after;
        } else if let Some((name, after)) = braced {
            pieces.push(Piece::Param(name));
            rest = after;
        } else {
            let end = after
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(after.len());
            if is_name(&after[..end]) {
                pieces.push(Piece::Unclear(&after[..end]));
                rest = &after[end..];
            } else {
                pieces.push(Piece::Text("$"));
                rest = after;
            }
        }
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// Calls `each` for every scalar of a node that has a dollar in it.
fn with_dollars<'n>(node: &'n Node, each: &mut dyn FnMut(&'n Node, &'n Scalar)) {
    match &node.shape {
        Shape::Scalar(scalar) if scalar.text.contains('$') => each(node, scalar),
        Shape::Scalar(_) => {}
        Shape::List(items) => items.iter().for_each(|item| with_dollars(item, each)),
        Shape::Map(entries) => entries
            .iter()
            .for_each(|entry| with_dollars(&entry.value, each)),
    }
}

/// The names that a node mentions, known or not.
pub fn mentions(node: &Node) -> impl Iterator<Item = &str> {
    let mut mentioned = BTreeSet::new();
    with_dollars(node, &mut |_, scalar| {
        mentioned.extend(
            pieces(&scalar.text)
                .into_iter()
                .filter_map(|piece| match piece {
                    Piece::Param(name) => Some(name),
                    _ => None,
                }),
        );
    });
    mentioned.into_iter()
}

/// The params that a node uses. Reports those that are not there.
///
/// # Errors
/// Where the node cannot be used, because of what was reported.
pub fn uses<'n>(
    node: &'n Node,
    names: &Names<'_>,
    problems: &mut Vec<Diagnostic>,
) -> Result<BTreeSet<&'n str>, Reported> {
    let mut used = BTreeSet::new();
    let before = problems.len();
    with_dollars(node, &mut |node, scalar| {
        for piece in pieces(&scalar.text) {
            match piece {
                Piece::Text(_) => {}
                Piece::Param(name) if names.values.contains_key(name) => {
                    used.insert(name);
                }
                Piece::Param(name) => problems.push(unknown(name, node.span, names)),
                Piece::Unclear(name) => problems.push(
                    Diagnostic::error(
                        "unclear-dollar",
                        node.span,
                        format!("`${name}` inside a longer text could be a param or just a text"),
                    )
                    .help(format!(
                        "write `${{{name}}}` for the param, `$${name}` for the text"
                    )),
                ),
            }
        }
    });
    if problems.len() > before {
        return Err(Reported);
    }
    Ok(used)
}

fn unknown(name: &str, span: Span, names: &Names<'_>) -> Diagnostic {
    let known = names.values.keys().copied();
    let help = suggest(name, "params", known).unwrap_or_else(|| {
        format!("add it: `params: {{ {name}: … }}`; a dollar that is one is written `$$`")
    });
    Diagnostic::error("unknown-param", span, format!("there is no param `{name}`")).help(help)
}

/// A node with the values of its params. Reports params that cannot be spliced.
///
/// # Errors
/// Where the node cannot be used, because of what was reported.
pub fn substitute(
    node: &Node,
    bindings: &Bindings,
    problems: &mut Vec<Diagnostic>,
) -> Result<Node, Reported> {
    if bindings.weight(node) > HEAVIEST {
        problems.push(
            Diagnostic::error(
                "too-many-params",
                node.span,
                "params make this far too large",
            )
            .help("params that hold params that hold params multiply: write less of them"),
        );
        return Err(Reported);
    }
    put_in(node, bindings, problems)
}

/// Names without a value stay as they are.
fn put_in(
    node: &Node,
    bindings: &Bindings,
    problems: &mut Vec<Diagnostic>,
) -> Result<Node, Reported> {
    let shape = match &node.shape {
        Shape::Scalar(scalar) if scalar.text.contains('$') => {
            match whole(&scalar.text).map(|name| bindings.get(name)) {
                Some(Some(bound)) => {
                    return Ok(Node {
                        span: node.span,
                        origin: Some(bound.origin.unwrap_or(bound.span)),
                        shape: bound.shape.clone(),
                    });
                }
                Some(None) => node.shape.clone(),
                None => Shape::Scalar(splice(node, scalar, bindings, problems)?),
            }
        }
        Shape::Scalar(scalar) => Shape::Scalar(scalar.clone()),
        Shape::List(items) => {
            let items: Vec<_> = items
                .iter()
                .map(|item| put_in(item, bindings, problems))
                .collect();
            Shape::List(items.into_iter().collect::<Result<_, Reported>>()?)
        }
        Shape::Map(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|entry| {
                    Ok(Entry {
                        key: entry.key.clone(),
                        key_span: entry.key_span,
                        value: put_in(&entry.value, bindings, problems)?,
                    })
                })
                .collect();
            Shape::Map(entries.into_iter().collect::<Result<_, Reported>>()?)
        }
    };
    Ok(Node {
        span: node.span,
        origin: node.origin,
        shape,
    })
}

fn splice(
    node: &Node,
    scalar: &Scalar,
    bindings: &Bindings,
    problems: &mut Vec<Diagnostic>,
) -> Result<Scalar, Reported> {
    let mut text = String::new();
    for piece in pieces(&scalar.text) {
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Unclear(name) => {
                text.push('$');
                text.push_str(name);
            }
            Piece::Param(name) => match bindings.get(name) {
                Some(bound) if !bound.is_null() => match &bound.shape {
                    Shape::Scalar(scalar) => text.push_str(&scalar.text),
                    _ => return Err(cannot_splice(node, name, bound, problems)),
                },
                Some(bound) => return Err(cannot_splice(node, name, bound, problems)),
                None => return Ok(scalar.clone()),
            },
        }
    }
    Ok(Scalar { text, quoted: true })
}

fn cannot_splice(
    node: &Node,
    name: &str,
    bound: &Node,
    problems: &mut Vec<Diagnostic>,
) -> Reported {
    let message = format!(
        "`${{{name}}}` cannot be spliced: it is {}",
        bound.describe()
    );
    problems.push(
        Diagnostic::error("cannot-splice", node.span, message)
            .help("only texts, numbers, true and false can stand inside a longer text")
            .related(bound.span, "the value is given here"),
    );
    Reported
}

/// The names that have values, each after those that its values use. Params that refer to each other in a circle
/// are reported as a path; they and what uses them are left out, as is what uses one of `broken`.
pub fn order<'p>(
    names: &Names<'p>,
    used: &BTreeMap<&'p str, BTreeSet<&'p str>>,
    broken: &BTreeSet<&'p str>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<&'p str> {
    fn visit<'p>(
        name: &'p str,
        used: &BTreeMap<&'p str, BTreeSet<&'p str>>,
        path: &mut Vec<&'p str>,
        done: &mut Vec<&'p str>,
        seen: &mut BTreeSet<&'p str>,
    ) -> Result<(), Vec<&'p str>> {
        if let Some(start) = path.iter().position(|on_path| *on_path == name) {
            let mut circle = path[start..].to_vec();
            circle.push(name);
            return Err(circle);
        }
        if seen.contains(name) {
            return Ok(());
        }
        path.push(name);
        for below in used.get(name).into_iter().flatten() {
            visit(below, used, path, done, seen)?;
        }
        path.pop();
        seen.insert(name);
        done.push(name);
        Ok(())
    }
    let (mut done, mut seen) = (Vec::new(), BTreeSet::new());
    let mut circles = BTreeSet::new();
    for name in names.values.keys() {
        if let Err(circle) = visit(name, used, &mut Vec::new(), &mut done, &mut seen) {
            let span = names.values[circle[0]].first().map(|node| node.span);
            let message = format!("params refer to each other: {}", circle.join(" -> "));
            problems.push(
                Diagnostic::error("param-cycle", span.unwrap_or_default(), message)
                    .help("give one of them a value of its own"),
            );
            // Each circle once.
            seen.extend(&circle);
            circles.extend(circle);
        }
    }
    let mut good = BTreeSet::new();
    done.retain(|name| {
        let below = used.get(name).into_iter().flatten();
        let whole = !broken.contains(name)
            && !circles.contains(name)
            && below.into_iter().all(|below| good.contains(below));
        if whole {
            good.insert(*name);
        }
        whole
    });
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    fn bindings(text: &str) -> Bindings {
        let node = yaml::parse(text, 0).expect("good YAML").node;
        let mut bindings = Bindings::default();
        for entry in node.entries().expect("a map") {
            bindings.bind(&entry.key, entry.value.clone());
        }
        bindings
    }

    #[test]
    fn params_are_put_in_with_their_types() {
        let bindings = bindings("{lr: 1e-3, name: cola, sizes: [1, 2]}");
        for (text, becomes) in [
            ("$lr", Some("1e-3")),
            ("${lr}", Some("1e-3")),
            ("'$lr'", Some("1e-3")),
            ("out/${name}-${lr}.json", Some("out/cola-1e-3.json")),
            ("[$sizes, x]", Some("[[1, 2], x]")),
            ("$$lr", Some("$lr")),
            ("$${lr}", Some("${lr}")),
            ("costs 5$", Some("costs 5$")),
            ("awk '{print $1}'", Some("awk '{print $1}'")),
            ("a ${sizes}", None),
        ] {
            let node = yaml::parse(text, 0).map(|parsed| parsed.node);
            let node = node.unwrap_or_else(|_| Node::scalar(Span::default(), Scalar::plain(text)));
            let mut problems = Vec::new();
            let put_in = substitute(&node, &bindings, &mut problems).ok();
            let shown = put_in.as_ref().map(|node| match &node.shape {
                Shape::Scalar(scalar) => scalar.text.clone(),
                _ => node.inline(),
            });
            assert_eq!(shown.as_deref(), becomes, "{text}");
            assert_eq!(problems.is_empty(), becomes.is_some());
        }
        let number = Node::scalar(Span::default(), Scalar::plain("$lr"));
        let number = substitute(&number, &bindings, &mut Vec::new()).expect("it is there");
        assert_eq!(number.meaning(), Some(crate::node::Meaning::Float(1e-3)));
    }

    #[test]
    fn params_of_params_cannot_grow_without_bound() {
        let mut bindings = Bindings::default();
        bindings.bind("p0", Node::scalar(Span::default(), Scalar::plain("lol")));
        let mut refused = 0;
        for level in 1..40 {
            let text = format!("[{}]", vec![format!("$p{}", level - 1); 10].join(", "));
            let node = yaml::parse(&text, 0).expect("good YAML").node;
            match substitute(&node, &bindings, &mut Vec::new()) {
                Ok(value) => bindings.bind(&format!("p{level}"), value),
                Err(Reported) => {
                    refused += 1;
                    break;
                }
            }
        }
        assert_eq!(refused, 1);
    }
}
