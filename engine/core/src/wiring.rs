//! Which stage reads which: references become edges, and the graph an order and a list of stages.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::path::Path;

use petgraph::Direction;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef as _;
use taper_cache::ArtifactType;

use crate::canonical::Found;
use crate::check::{Draft, Drafts, too_many_variants};
use crate::diagnostic::{Diagnostic, either, list, suggest, with_article};
use crate::kind::{InputKind, LocalKind, Makes, Reference};
use crate::matrix::{self, Combination, Dimension};
use crate::node::{Node, Span};
use crate::pipeline::inside;
use crate::plan::{PlannedInput, PlannedLocal, PlannedStage};

/// The most stages of a plan, variants counted.
const MOST_STAGES: usize = 200_000;

/// `STAGE` or `STAGE.OUTPUT`.
fn split(reference: &str) -> (&str, Option<&str>) {
    match reference.split_once('.') {
        Some((stage, output)) => (stage, Some(output)),
        None => (reference, None),
    }
}

fn by_name<'d>(stages: &'d [Drafts<'_>]) -> BTreeMap<&'d str, usize> {
    let names = stages.iter().enumerate();
    names
        .map(|(index, stage)| (stage.text.name, index))
        .collect()
}

/// Checks what every reference names: the stage is there and makes what is wanted, the path stays in the
/// project and, with a `root`, is there.
pub(crate) fn check(
    stages: &[Drafts<'_>],
    unread: &[&str],
    root: Option<&Path>,
    problems: &mut Vec<Diagnostic>,
) {
    let names = by_name(stages);
    for stage in stages {
        let mut inputs: Vec<Wanted<'_>> = Vec::new();
        for loose in &stage.loose {
            inputs.extend(loose.node.as_text().map(|reference| Wanted {
                reference,
                node: &loose.node,
                param: &loose.name,
                types: &loose.types,
            }));
        }
        for draft in &stage.drafts {
            inputs.extend(wanted_inputs(draft));
            let locals = locals(draft);
            problems.extend(locals.filter_map(|(path, node)| local_problem(path, node, root)));
        }
        let read = inputs
            .iter()
            .filter(|wanted| !unread.contains(&split(wanted.reference).0));
        problems.extend(read.filter_map(|wanted| input_problem(stages, &names, stage, wanted)));
    }
    let exports = exports_of_variants(stages, problems);
    for (path, node) in stages
        .iter()
        .flat_map(|stage| &stage.drafts)
        .flat_map(locals)
    {
        let over = inside(path)
            .ok()
            .and_then(|path| exports.get(&path.to_lowercase()));
        if let Some((_, span)) = over {
            let message = format!("`{path}` is read here, and an export is written over it");
            let problem = at(node, "export-collision", message).related(*span, "the export");
            problems.push(
                problem.help("export to another path: a pipeline changes nothing that it reads"),
            );
        }
    }
}

/// The paths of the project's files that a stage reads, and where they stand.
fn locals(draft: &Draft) -> impl Iterator<Item = (&String, &Node)> {
    draft.references.iter().filter_map(|at| match &at.found {
        Found::Local(LocalKind {
            reference: Reference::Name(path),
            ..
        }) => Some((path, draft.body.at(&at.path))),
        _ => None,
    })
}

/// An artifact that a stage wants.
struct Wanted<'d> {
    /// As written: `STAGE` or `STAGE.OUTPUT`.
    reference: &'d str,
    /// Where it stands.
    node: &'d Node,
    /// The parameter.
    param: &'d str,
    /// The types that are taken.
    types: &'d [ArtifactType],
}

fn wanted_inputs(draft: &Draft) -> impl Iterator<Item = Wanted<'_>> {
    draft.references.iter().filter_map(|at| match &at.found {
        Found::Input(InputKind {
            reference: Reference::Name(reference),
            types,
        }) => Some(Wanted {
            reference,
            node: draft.body.at(&at.path),
            param: &at.path,
            types,
        }),
        _ => None,
    })
}

fn at(node: &Node, code: &'static str, message: String) -> Diagnostic {
    let problem = Diagnostic::error(code, node.span, message);
    match node.origin {
        Some(origin) => problem.related(origin, "the value is given here"),
        None => problem,
    }
}

fn input_problem(
    stages: &[Drafts<'_>],
    names: &BTreeMap<&str, usize>,
    stage: &Drafts<'_>,
    wanted: &Wanted<'_>,
) -> Option<Diagnostic> {
    let Wanted {
        reference, node, ..
    } = *wanted;
    let (name, output) = split(reference);
    if name == stage.text.name {
        let message = format!("the stage `{name}` reads its own artifact");
        let help = "name a stage that comes before it";
        return Some(at(node, "self-reference", message).help(help));
    }
    let Some(&target) = names.get(name) else {
        let known = names
            .keys()
            .copied()
            .filter(|known| *known != stage.text.name);
        let help = suggest(name, "stages", known)
            .unwrap_or_else(|| "there is no other stage in the file".to_owned());
        let message = format!("there is no stage `{name}`");
        return Some(at(node, "unknown-stage", message).help(help));
    };
    let target = &stages[target];
    target.drafts.iter().find_map(|draft| {
        let made = match part(&draft.makes, output) {
            Ok((_, made)) => made,
            Err(NoPart::Unnamed(parts)) => {
                let message = format!("`{name}` makes several artifacts; which one is meant?");
                let parts: Vec<_> = parts.map(|part| format!("`{name}.{part}`")).collect();
                let help = format!("write {}", either(&parts));
                return Some(at(node, "unknown-output", message).help(help));
            }
            Err(NoPart::Unknown(parts)) => {
                let output = output.unwrap_or_default();
                let message = format!("`{name}` has no output `{output}`");
                let help = suggest(output, "outputs", parts)
                    .unwrap_or_else(|| format!("it makes one artifact: write `{name}`"));
                return Some(at(node, "unknown-output", message).help(help));
            }
        };
        if wanted.types.is_empty() || wanted.types.contains(&made) {
            return None;
        }
        let wants: Vec<_> = wanted.types.iter().map(|wants| in_words(*wants)).collect();
        let message = format!(
            "`{reference}` makes {}, but `{}` wants {}",
            in_words(made),
            wanted.param,
            either(&wants)
        );
        let others = stages
            .iter()
            .filter(|other| other.text.name != stage.text.name);
        let fitting: Vec<String> = others
            .flat_map(|other| makers(other, wanted.types))
            .take(8)
            .collect();
        let help = if fitting.is_empty() {
            "no other stage of the file makes one".to_owned()
        } else {
            format!(
                "stages that make one: {}",
                list(fitting.iter().map(String::as_str))
            )
        };
        Some(
            at(node, "wrong-artifact", message)
                .help(help)
                .related(target.text.kind_span, format!("makes {}", in_words(made))),
        )
    })
}

/// The references to what a stage makes of these types.
fn makers(stage: &Drafts<'_>, types: &[ArtifactType]) -> Vec<String> {
    let name = stage.text.name;
    match stage.drafts.first().map(|draft| &draft.makes) {
        Some(Makes::One(made)) if types.contains(made) => vec![name.to_owned()],
        Some(Makes::Parts(parts)) => parts
            .iter()
            .filter(|(_, made)| types.contains(made))
            .map(|(part, _)| format!("{name}.{part}"))
            .collect(),
        _ => Vec::new(),
    }
}

/// What a stage makes, in words: `a plot`, `tokens`.
fn in_words(artifact_type: ArtifactType) -> String {
    match artifact_type {
        ArtifactType::Tokens
        | ArtifactType::Metrics
        | ArtifactType::Predictions
        | ArtifactType::Files => artifact_type.name().to_owned(),
        _ => with_article(artifact_type.name()),
    }
}

enum NoPart<P> {
    /// There are several.
    Unnamed(P),
    /// There is none of this name.
    Unknown(P),
}

/// The artifact that a reference means.
fn part<'m>(
    makes: &'m Makes,
    output: Option<&str>,
) -> Result<(Option<&'m str>, ArtifactType), NoPart<impl Iterator<Item = &'m str>>> {
    static NONE: BTreeMap<String, ArtifactType> = BTreeMap::new();
    let parts = match (makes, output) {
        (Makes::One(made), None) => return Ok((None, *made)),
        (Makes::One(_), Some(_)) => &NONE,
        (Makes::Parts(parts), _) => parts,
    };
    let names = parts.keys().map(String::as_str);
    match output {
        Some(output) => match parts.get_key_value(output) {
            Some((name, made)) => Ok((Some(name), *made)),
            None => Err(NoPart::Unknown(names)),
        },
        None => match parts.first_key_value() {
            Some((name, made)) if parts.len() == 1 => Ok((Some(name), *made)),
            _ => Err(NoPart::Unnamed(names)),
        },
    }
}

fn local_problem(path: &str, node: &Node, root: Option<&Path>) -> Option<Diagnostic> {
    let inside = match inside(path) {
        Ok(inside) => inside,
        Err(why) => {
            let message = format!("the path `{path}` {why}");
            let help = "files are named relative to the project's root, inside it";
            return Some(at(node, "unsafe-path", message).help(help));
        }
    };
    let is_glob = path.contains(['*', '?', '[']);
    let root = root.filter(|_| !is_glob)?;
    if root.join(&inside).exists() {
        return None;
    }
    let message = format!("there is no `{inside}` in the project");
    Some(at(node, "missing-file", message).help("paths are relative to the project's root"))
}

/// Two exports to one place, or to two that are one where case does not count: of two stages, or of two variants of one.
/// Returns the places, each with its stage, and where it is said.
fn exports_of_variants(
    stages: &[Drafts<'_>],
    problems: &mut Vec<Diagnostic>,
) -> BTreeMap<String, (usize, Span)> {
    let mut taken: BTreeMap<String, (usize, Span)> = BTreeMap::new();
    for (index, stage) in stages.iter().enumerate() {
        for draft in &stage.drafts {
            let (Some(export), Some(span)) = (&draft.settings.export, draft.export_span) else {
                continue;
            };
            let place = export.to_lowercase();
            match taken.get(&place) {
                Some((other, first)) if *other != index => problems.push(
                    Diagnostic::error(
                        "export-collision",
                        span,
                        format!("two stages are exported to `{export}`"),
                    )
                    .help("give each its own path")
                    .related(*first, "the first one"),
                ),
                Some(_) => problems.push(several_variants(export, span)),
                None => {
                    taken.insert(place, (index, span));
                }
            }
        }
    }
    taken
}

fn several_variants(export: &str, span: Span) -> Diagnostic {
    Diagnostic::error(
        "export-collision",
        span,
        format!("several variants are exported to `{export}`"),
    )
    .help("put what varies into the path, as `${NAME}`")
}

/// The stages of the plan, in an order in which they can run. Reports circles; nothing where there is no order.
pub(crate) fn instances(
    stages: &[Drafts<'_>],
    dimensions: &[Dimension],
    problems: &mut Vec<Diagnostic>,
) -> Option<Vec<PlannedStage>> {
    let graph = graph(stages);
    let order = order(&graph);
    if order.len() < stages.len() {
        report_circles(stages, &graph, problems);
        return None;
    }
    // Drafts are missing where something is wrong, which is reported already.
    if stages.iter().any(|stage| stage.drafts.is_empty()) {
        return None;
    }
    let names = by_name(stages);
    let mut depends: Vec<BTreeSet<usize>> = stages.iter().map(|stage| stage.own.clone()).collect();
    let mut planned: Vec<PlannedStage> = Vec::new();
    let mut places: Vec<BTreeMap<Combination, usize>> = vec![BTreeMap::new(); stages.len()];
    for index in order {
        let before = graph.neighbors_directed(NodeIndex::new(index), Direction::Incoming);
        let inherited: Vec<usize> = before
            .flat_map(|before| depends[before.index()].iter().copied())
            .collect();
        depends[index].extend(inherited);
        let stage = &stages[index];
        let Some(combinations) = matrix::combinations(dimensions, &depends[index])
            .filter(|more| planned.len() + more.len() <= MOST_STAGES)
        else {
            problems.push(too_many_variants(stage.text));
            return None;
        };
        let exported = stage
            .drafts
            .iter()
            .find(|draft| draft.settings.export.is_some());
        if combinations.len() > stage.drafts.len()
            && let Some(draft) = exported
            && let (Some(export), Some(span)) = (&draft.settings.export, draft.export_span)
        {
            problems.push(several_variants(export, span));
        }
        let drafts: BTreeMap<&Combination, &Draft> = stage
            .drafts
            .iter()
            .map(|draft| (&draft.combination, draft))
            .collect();
        for combination in combinations {
            let draft = drafts.get(&matrix::restricted(&combination, &stage.own))?;
            let instance = plan_one(stage, draft, &combination, dimensions, |reference| {
                let (name, output) = split(reference);
                let target = *names.get(name)?;
                let key = matrix::restricted(&combination, &depends[target]);
                let place = *places[target].get(&key)?;
                let (output, made) = part(&planned[place].makes, output).ok()?;
                Some((place, output.map(str::to_owned), made))
            })?;
            places[index].insert(combination, planned.len());
            planned.push(instance);
        }
    }
    Some(planned)
}

fn plan_one(
    stage: &Drafts<'_>,
    draft: &Draft,
    combination: &Combination,
    dimensions: &[Dimension],
    find: impl Fn(&str) -> Option<(usize, Option<String>, ArtifactType)>,
) -> Option<PlannedStage> {
    let variant: Vec<(String, String)> = combination
        .iter()
        .map(|(dimension, value)| {
            let dimension = &dimensions[*dimension];
            (dimension.name.clone(), dimension.values[*value].0.clone())
        })
        .collect();
    let (mut inputs, mut locals) = (Vec::new(), Vec::new());
    for at in &draft.references {
        match &at.found {
            Found::Input(InputKind {
                reference: Reference::Name(reference),
                ..
            }) => {
                let (stage, output, artifact_type) = find(reference)?;
                inputs.push(PlannedInput {
                    reference: reference.clone(),
                    param: at.path.clone(),
                    stage,
                    output,
                    artifact_type,
                });
            }
            Found::Local(local) => {
                if let Reference::Name(path) = &local.reference {
                    locals.push(PlannedLocal {
                        path: path.clone(),
                        param: at.path.clone(),
                        named: local.named,
                    });
                }
            }
            Found::Input(_) => {}
        }
    }
    let shown: Vec<_> = variant
        .iter()
        .map(|(name, text)| format!("{name}={text}"))
        .collect();
    Some(PlannedStage {
        name: if shown.is_empty() {
            stage.text.name.to_owned()
        } else {
            format!("{}[{}]", stage.text.name, shown.join(","))
        },
        stage: stage.text.name.to_owned(),
        variant,
        kind: stage.text.kind,
        params: draft.params.clone(),
        makes: draft.makes.clone(),
        inputs,
        locals,
        seed: draft.seed,
        settings: draft.settings.clone(),
        span: stage.text.span,
        body: draft.body.clone(),
    })
}

/// An edge from each stage to those that read its artifact, with the place of the reference.
fn graph(stages: &[Drafts<'_>]) -> DiGraph<(), Span> {
    let names = by_name(stages);
    let mut graph = DiGraph::with_capacity(stages.len(), stages.len());
    for _ in stages {
        graph.add_node(());
    }
    for (reader, stage) in stages.iter().enumerate() {
        let mut known = BTreeSet::new();
        for draft in &stage.drafts {
            for wanted in wanted_inputs(draft) {
                if let Some(&made_by) = names.get(split(wanted.reference).0)
                    && made_by != reader
                    && known.insert(made_by)
                {
                    graph.add_edge(
                        NodeIndex::new(made_by),
                        NodeIndex::new(reader),
                        wanted.node.span,
                    );
                }
            }
        }
    }
    graph
}

/// Each stage after those that it reads; of those that are free to go, the first in the file first. Stages in
/// circles are left out.
fn order(graph: &DiGraph<(), Span>) -> Vec<usize> {
    let incoming = |node| graph.neighbors_directed(node, Direction::Incoming).count();
    let mut waiting: Vec<usize> = graph.node_indices().map(incoming).collect();
    let mut free: BinaryHeap<Reverse<usize>> = waiting
        .iter()
        .enumerate()
        .filter(|(_, before)| **before == 0)
        .map(|(index, _)| Reverse(index))
        .collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(Reverse(index)) = free.pop() {
        order.push(index);
        for next in graph.neighbors(NodeIndex::new(index)) {
            waiting[next.index()] -= 1;
            if waiting[next.index()] == 0 {
                free.push(Reverse(next.index()));
            }
        }
    }
    order
}

/// One problem for each group of stages that read each other, with the shortest circle in it.
fn report_circles(
    stages: &[Drafts<'_>],
    graph: &DiGraph<(), Span>,
    problems: &mut Vec<Diagnostic>,
) {
    let groups = tarjan_scc(graph)
        .into_iter()
        .filter(|group| group.len() > 1);
    for group in groups {
        let group: BTreeSet<NodeIndex> = group.into_iter().collect();
        let Some(circle) = shortest_circle(graph, &group) else {
            continue;
        };
        let names: Vec<_> = circle
            .iter()
            .map(|node| stages[node.index()].text.name)
            .collect();
        let message = format!(
            "the stages read each other in a circle: {}",
            names.join(" -> ")
        );
        // The circle reads upstream: each stage reads the next.
        let reference = |reader: NodeIndex, made_by: NodeIndex| {
            let edge = graph.edges_connecting(made_by, reader).next();
            edge.map(|edge| *edge.weight())
        };
        let mut spans = circle
            .windows(2)
            .filter_map(|pair| reference(pair[0], pair[1]));
        let Some(first) = spans.next() else {
            continue;
        };
        let mut problem = Diagnostic::error("cycle", first, message)
            .help("a stage reads what comes before it: break the circle at one place");
        for span in spans.take(8) {
            problem = problem.related(span, "and here");
        }
        problems.push(problem);
    }
}

/// From the first stage of the group upstream until it comes back.
fn shortest_circle(
    graph: &DiGraph<(), Span>,
    group: &BTreeSet<NodeIndex>,
) -> Option<Vec<NodeIndex>> {
    let start = *group.first()?;
    let mut came_from: BTreeMap<NodeIndex, NodeIndex> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(reader) = queue.pop_front() {
        let mut before: Vec<NodeIndex> = graph
            .edges_directed(reader, Direction::Incoming)
            .map(|edge| edge.source())
            .filter(|node| group.contains(node))
            .collect();
        before.sort_unstable();
        for node in before {
            if node == start {
                let mut circle = vec![start];
                let mut step = reader;
                while step != start {
                    circle.push(step);
                    step = came_from[&step];
                }
                circle.push(start);
                circle.reverse();
                return Some(circle);
            }
            if let Entry::Vacant(unseen) = came_from.entry(node) {
                unseen.insert(reader);
                queue.push_back(node);
            }
        }
    }
    None
}
