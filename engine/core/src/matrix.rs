//! The matrix: values of params that are all tried, and the variants of stages that this makes.
//!
//! A stage is there once for each combination of the values that it, or a stage before it, depends on; so
//! that stages which do not depend on them are shared.

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, either, suggest};
use crate::node::{Node, Scalar, Shape, Span};

/// The most variants of one stage.
const MOST_VARIANTS: usize = 100_000;

/// A param that the matrix varies.
#[derive(Clone, Debug)]
pub struct Dimension {
    /// Its name.
    pub name: String,
    /// Where its name stands.
    pub span: Span,
    /// Its values, with their texts as written.
    pub values: Vec<(String, Node)>,
}

/// A choice of one value for some dimensions: by index, ascending by dimension.
pub type Combination = Vec<(usize, usize)>;

/// What a value is called: a scalar's text as written, anything else in one line.
pub fn text_of(value: &Node) -> String {
    match &value.shape {
        Shape::Scalar(scalar) => scalar.text.clone(),
        _ => value.inline(),
    }
}

/// Reads the dimensions. Reports those without values and values that stand twice.
pub fn dimensions(matrix: Option<&Node>, problems: &mut Vec<Diagnostic>) -> Vec<Dimension> {
    let Some(matrix) = matrix else {
        return Vec::new();
    };
    let Some(entries) = matrix.entries() else {
        if !matrix.is_null() {
            let message = format!("`matrix` wants a map, found {}", matrix.describe());
            problems.push(
                Diagnostic::error("wrong-type", matrix.span, message)
                    .help("`matrix: { lr: [1e-3, 1e-2] }`"),
            );
        }
        return Vec::new();
    };
    let mut dimensions = Vec::new();
    for entry in entries {
        let Shape::List(values) = &entry.value.shape else {
            let message = format!(
                "`{}` in the matrix wants a list of values, found {}",
                entry.key,
                entry.value.describe()
            );
            let help = format!("`{}: [{}]`", entry.key, entry.value.inline());
            problems.push(Diagnostic::error("wrong-type", entry.value.span, message).help(help));
            continue;
        };
        if values.is_empty() {
            let message = format!("`{}` in the matrix has no values", entry.key);
            problems.push(
                Diagnostic::error("empty-matrix", entry.value.span, message)
                    .help("give it values, or leave it out"),
            );
            continue;
        }
        let mut known: Vec<(String, Node)> = Vec::new();
        for value in values {
            let text = text_of(value);
            match known.iter().find(|(other, _)| *other == text) {
                Some((_, first)) => problems.push(
                    Diagnostic::error(
                        "duplicate-value",
                        value.span,
                        format!("`{}` has the value {text} twice", entry.key),
                    )
                    .help("keep one of the two")
                    .related(first.span, "first here"),
                ),
                None => known.push((text, value.clone())),
            }
        }
        dimensions.push(Dimension {
            name: entry.key.clone(),
            span: entry.key_span,
            values: known,
        });
    }
    dimensions
}

/// Keeps only what `--variant` asks for; each of `wanted` is `NAME=VALUE` with its place, or several of them with
/// commas between.
pub fn select(
    dimensions: &mut [Dimension],
    wanted: &[(Span, String)],
    problems: &mut Vec<Diagnostic>,
) {
    let mut kept: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); dimensions.len()];
    for (span, text) in wanted {
        for part in parts(text) {
            let Some((name, value)) = part.split_once('=') else {
                problems.push(
                    Diagnostic::error("bad-variant", *span, format!("`{part}` is no variant"))
                        .help("a variant is written `NAME=VALUE`: `--variant lr=1e-3`"),
                );
                continue;
            };
            let found = dimensions
                .iter()
                .position(|dimension| dimension.name == name);
            let Some(index) = found else {
                let known = dimensions.iter().map(|dimension| dimension.name.as_str());
                let help = suggest(name, "the matrix has", known)
                    .unwrap_or_else(|| "the pipeline has no matrix".to_owned());
                let message = format!("the matrix does not vary `{name}`");
                problems.push(Diagnostic::error("unknown-variant", *span, message).help(help));
                continue;
            };
            let values = &dimensions[index].values;
            let meant = Scalar::plain(value);
            let found = values
                .iter()
                .position(|(text, _)| text == value)
                .or_else(|| {
                    let same = |node: &Node| node.meaning().is_some_and(|is| is == meant.meaning());
                    values.iter().position(|(_, node)| same(node))
                });
            match found {
                Some(value) => {
                    kept[index].insert(value);
                }
                None => {
                    let texts: Vec<_> = values.iter().map(|(text, _)| text.as_str()).collect();
                    let message = format!("`{name}` is never {value}");
                    problems.push(
                        Diagnostic::error("unknown-variant", *span, message)
                            .help(format!("it is {}", either(&texts))),
                    );
                }
            }
        }
    }
    for (dimension, kept) in dimensions.iter_mut().zip(kept) {
        if !kept.is_empty() {
            let mut index = 0..;
            dimension
                .values
                .retain(|_| index.next().is_some_and(|index| kept.contains(&index)));
        }
    }
}

/// At commas, where what follows is another `NAME=VALUE`.
fn parts(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(',') {
        match parts.last_mut() {
            Some(last) if !part.contains('=') => {
                last.push(',');
                last.push_str(part);
            }
            _ => parts.push(part.trim().to_owned()),
        }
    }
    parts
}

/// Every combination of the values of some dimensions, the last varying fastest; nothing where there are too
/// many.
pub fn combinations(
    dimensions: &[Dimension],
    chosen: &BTreeSet<usize>,
) -> Option<Vec<Combination>> {
    let mut combinations = vec![Combination::new()];
    for &dimension in chosen {
        let values = dimensions[dimension].values.len();
        if combinations.len() * values > MOST_VARIANTS {
            return None;
        }
        combinations = combinations
            .into_iter()
            .flat_map(|combination| {
                (0..values).map(move |value| {
                    let mut longer = combination.clone();
                    longer.push((dimension, value));
                    longer
                })
            })
            .collect();
    }
    Some(combinations)
}

/// The part of a combination that is about some dimensions.
pub fn restricted(combination: &Combination, chosen: &BTreeSet<usize>) -> Combination {
    let all = combination.iter().copied();
    all.filter(|(dimension, _)| chosen.contains(dimension))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    fn read(text: &str) -> Vec<Dimension> {
        let node = yaml::parse(text, 0).expect("good YAML").node;
        let mut problems = Vec::new();
        let dimensions = dimensions(Some(&node), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        dimensions
    }

    #[test]
    fn combinations_are_in_the_order_of_the_file() {
        let dimensions = read("{lr: [1e-3, 1e-2], width: [3, 5], seed: [1]}");
        let all = combinations(&dimensions, &[0, 1].into()).expect("four");
        assert_eq!(
            all,
            [
                [(0, 0), (1, 0)],
                [(0, 0), (1, 1)],
                [(0, 1), (1, 0)],
                [(0, 1), (1, 1)]
            ]
        );
        assert_eq!(restricted(&all[2], &[0].into()), [(0, 1)]);
        assert_eq!(
            combinations(&dimensions, &BTreeSet::new()),
            Some(vec![Vec::new()])
        );
    }

    #[test]
    fn a_variant_is_chosen_by_its_text_or_its_value() {
        for (wanted, left) in [
            ("lr=1e-3", vec!["1e-3"]),
            ("lr=0.001", vec!["1e-3"]),
            ("lr=1e-2,size=[1, 2]", vec!["1e-2"]),
        ] {
            let mut dimensions = read("{lr: [1e-3, 1e-2], size: [[1, 2], [3]]}");
            let mut problems = Vec::new();
            let wanted = [(Span::default(), wanted.to_owned())];
            select(&mut dimensions, &wanted, &mut problems);
            assert!(problems.is_empty(), "{problems:?}");
            let texts: Vec<_> = dimensions[0].values.iter().map(|(text, _)| text).collect();
            assert_eq!(texts, left);
        }
        for wanted in ["lr", "rl=1e-3", "lr=5"] {
            let mut problems = Vec::new();
            let wanted = [(Span::default(), wanted.to_owned())];
            select(&mut read("{lr: [1e-3]}"), &wanted, &mut problems);
            assert_eq!(problems.len(), 1);
        }
    }
}
