//! From a pipeline file to a plan: everything that can be wrong with it is found here, all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use crate::canonical::FoundAt;
use crate::diagnostic::{Diagnostic, Report, Source, suggest};
use crate::kind::{Makes, StageError};
use crate::matrix::{self, Combination, Dimension};
use crate::node::{Entry, Node, Scalar, Span};
use crate::params::{self, Bindings, Names};
use crate::pipeline::{self, Pipeline, StageText};
use crate::plan::{Plan, StageSettings};
use crate::registry::{AnyParams, Catalogue, Kinds, ParamValues};
use crate::schema::NamedInput;
use crate::{wiring, yaml};

/// What the command line says about a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `NAME=VALUE`: params that are set. One that the matrix varies then has this value only.
    pub set: Vec<String>,
    /// `NAME=VALUE`: values of the matrix to keep; all of them where there are none for a name.
    pub variant: Vec<String>,
}

/// A plan, where the pipeline can run, and everything that there is to say about it.
#[derive(Clone)]
pub struct Checked {
    /// The plan; nothing where there are errors.
    pub plan: Option<Plan>,
    /// Errors and warnings.
    pub report: Report,
}

/// Reads and checks a pipeline file; files of the project are looked for below `root`.
pub fn check_file(kinds: Kinds, path: &Path, root: &Path, options: &Options) -> Checked {
    let name = path.display().to_string();
    match read_file(path) {
        Ok(bytes) => check(kinds, &name, &bytes, Some(root), options),
        Err(problem) => failed(name, String::new(), vec![*problem]),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Box<Diagnostic>> {
    let unreadable = |error: std::io::Error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => Some("look at the path, or write one with `taper new`"),
            std::io::ErrorKind::IsADirectory => Some("give the pipeline file in it"),
            _ => None,
        };
        let reason = error.to_string();
        let message = match reason.split_once(": ") {
            // fs_err names the path, which the report does too.
            Some((_, reason)) => format!("it cannot be read: {reason}"),
            None => format!("it cannot be read: {reason}"),
        };
        Box::new(
            Diagnostic::about_file("unreadable-file", message).maybe_help(help.map(str::to_owned)),
        )
    };
    let file = fs_err::File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    if size > yaml::LARGEST_FILE {
        return Err(yaml::too_large(size).into());
    }
    let mut bytes = Vec::new();
    // What is no regular file has no size to ask for.
    let mut limited = file.take(yaml::LARGEST_FILE + 1);
    limited.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > yaml::LARGEST_FILE {
        return Err(yaml::too_large(bytes.len() as u64).into());
    }
    Ok(bytes)
}

fn failed(name: String, text: String, problems: Vec<Diagnostic>) -> Checked {
    Checked {
        plan: None,
        report: Report::new(vec![Source { name, text }], problems),
    }
}

/// Checks the text of a pipeline. `file` is its name in messages; with `root`, files of the project have to be
/// there.
pub fn check(
    kinds: Kinds,
    file: &str,
    bytes: &[u8],
    root: Option<&Path>,
    options: &Options,
) -> Checked {
    let text = match yaml::decode(bytes) {
        Ok(text) => text,
        Err(problem) => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            return failed(file.to_owned(), text, vec![*problem]);
        }
    };
    let parsed = match yaml::parse(text, 0) {
        Ok(parsed) => parsed,
        Err(problem) => return failed(file.to_owned(), text.to_owned(), vec![*problem]),
    };
    let mut problems = parsed.problems;
    let mut sources = vec![Source {
        name: file.to_owned(),
        text: text.to_owned(),
    }];
    let written = pipeline::read(&parsed.node, kinds, &mut problems);
    let set = read_sets(&options.set, &mut sources, &mut problems);
    let variants: Vec<(Span, String)> = options
        .variant
        .iter()
        .map(|variant| {
            let span = add_source(&mut sources, format!("--variant {variant}"), variant);
            (span, variant.clone())
        })
        .collect();
    let mut dimensions = matrix::dimensions(written.matrix, &mut problems);
    matrix::select(&mut dimensions, &variants, &mut problems);
    let values = Values::new(&written, &set, dimensions, &mut problems);
    let drafts = draft(&written, &values, &mut problems);
    wiring::check(&drafts, &written.unread, root, &mut problems);
    let stages = wiring::instances(&drafts, &values.dimensions, &mut problems);
    let plan = stages.map(|stages| {
        let stem = Path::new(file).file_stem();
        let stem = stem.map(|stem| stem.to_string_lossy().into_owned());
        Plan {
            name: written.name.map(str::to_owned).or(stem).unwrap_or_default(),
            description: written.description.map(str::to_owned),
            params: values.shown(),
            matrix: values
                .dimensions
                .iter()
                .map(|dimension| {
                    let texts = dimension.values.iter().map(|(text, _)| text.clone());
                    (dimension.name.clone(), texts.collect())
                })
                .collect(),
            stages,
        }
    });
    let report = Report::new(sources, problems);
    Checked {
        plan: plan.filter(|_| !report.has_errors()),
        report,
    }
}

fn add_source(sources: &mut Vec<Source>, name: String, text: &str) -> Span {
    sources.push(Source {
        name,
        text: text.to_owned(),
    });
    Span {
        source: sources.len() as u32 - 1,
        start: 0,
        end: text.len() as u32,
    }
}

/// The values of `--set`, each read as YAML.
fn read_sets(
    sets: &[String],
    sources: &mut Vec<Source>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<(String, Span, Node)> {
    let mut read = Vec::new();
    for set in sets {
        let span = add_source(sources, format!("--set {set}"), set);
        let Some((name, value)) = set.split_once('=') else {
            problems.push(
                Diagnostic::error("bad-set", span, format!("`{set}` sets nothing"))
                    .help("write `--set NAME=VALUE`"),
            );
            continue;
        };
        let name_span = Span {
            end: name.len() as u32,
            ..span
        };
        // Spaces in the place of the name keep the places right.
        let padded = format!("{}{value}", " ".repeat(name.len() + 1));
        let value = if value.trim().is_empty() {
            let empty = Scalar {
                text: value.trim().to_owned(),
                quoted: true,
            };
            Node::scalar(span, empty)
        } else {
            match yaml::parse(&padded, span.source) {
                Ok(parsed) => {
                    problems.extend(parsed.problems);
                    parsed.node
                }
                Err(problem) => {
                    problems.push(*problem);
                    continue;
                }
            }
        };
        read.push((name.to_owned(), name_span, value));
    }
    read
}

/// What every name stands for, for each combination of the matrix.
struct Values<'n> {
    dimensions: Vec<Dimension>,
    /// Every name, its dependencies first, with its value where the matrix does not vary it.
    order: Vec<(String, Option<&'n Node>)>,
    /// The dimensions that each name depends on, by index.
    depends: BTreeMap<String, BTreeSet<usize>>,
    names: BTreeMap<String, Vec<Node>>,
}

impl<'n> Values<'n> {
    /// Brings params, matrix and command line together. Reports unknown names, circles and params that nothing
    /// uses; names whose values cannot be told have none.
    fn new(
        written: &'n Pipeline<'n>,
        set: &'n [(String, Span, Node)],
        mut dimensions: Vec<Dimension>,
        problems: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut given: BTreeMap<&str, &Node> = BTreeMap::new();
        for entry in written.params {
            given.insert(&entry.key, &entry.value);
        }
        for (name, span, value) in set {
            dimensions.retain(|dimension| {
                // It is set, so that it does not vary.
                dimension.name != *name
            });
            let in_matrix = written
                .matrix
                .is_some_and(|matrix| matrix.get(name).is_some());
            if !given.contains_key(name.as_str()) && !in_matrix {
                let known = given.keys().copied();
                let varied = dimensions.iter().map(|dimension| dimension.name.as_str());
                let help = suggest(name, "params", known.chain(varied))
                    .unwrap_or_else(|| "the pipeline has no params".to_owned());
                problems.push(
                    Diagnostic::error(
                        "unknown-param",
                        *span,
                        format!("there is no param `{name}`"),
                    )
                    .help(help),
                );
                continue;
            }
            given.insert(name, value);
        }
        let mut names: BTreeMap<String, Vec<Node>> = given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), vec![(*value).clone()]))
            .collect();
        for dimension in &dimensions {
            let values = dimension.values.iter().map(|(_, value)| value.clone());
            names.insert(dimension.name.clone(), values.collect());
        }
        // What the matrix should vary but cannot is a name all the same.
        let matrix = written.matrix.and_then(Node::entries).unwrap_or_default();
        for entry in matrix {
            names.entry(entry.key.clone()).or_default();
        }
        let (order, depends) = {
            let view = view(&names);
            let (mut used, mut broken) = (BTreeMap::new(), BTreeSet::new());
            let unread = view.values.iter().filter(|(_, values)| values.is_empty());
            broken.extend(unread.map(|(name, _)| *name));
            for (name, values) in &view.values {
                let mut all = BTreeSet::new();
                for value in values {
                    match params::uses(value, &view, problems) {
                        Ok(names) => all.extend(names),
                        Err(params::Reported) => {
                            broken.insert(*name);
                        }
                    }
                }
                used.insert(*name, all);
            }
            let order = params::order(&view, &used, &broken, problems);
            warn_unused(written, &dimensions, &view, &used, problems);
            let mut depends: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
            for name in &order {
                let own = dimensions
                    .iter()
                    .position(|dimension| dimension.name == *name);
                let below = used[name]
                    .iter()
                    .flat_map(|used| depends[*used].iter().copied());
                let all = below.chain(own).collect();
                depends.insert((*name).to_owned(), all);
            }
            let order = order.into_iter().map(|name| {
                let varies = dimensions.iter().any(|dimension| dimension.name == name);
                let value = given.get(name).copied().filter(|_| !varies);
                (name.to_owned(), value)
            });
            (order.collect(), depends)
        };
        Self {
            dimensions,
            order,
            depends,
            names,
        }
    }

    fn names(&self) -> Names<'_> {
        view(&self.names)
    }

    /// The dimensions that a node depends on. Reports names that are not there; nothing where the node cannot
    /// be used.
    fn depends_on(&self, node: &Node, problems: &mut Vec<Diagnostic>) -> Option<BTreeSet<usize>> {
        let used = params::uses(node, &self.names(), problems).ok()?;
        let mut dimensions = BTreeSet::new();
        for name in used {
            dimensions.extend(self.depends.get(name)?);
        }
        Some(dimensions)
    }

    /// The values of all names that depend on no other dimensions than those of `combination`.
    fn bindings(&self, combination: &Combination, problems: &mut Vec<Diagnostic>) -> Bindings {
        let chosen: BTreeMap<usize, usize> = combination.iter().copied().collect();
        let mut bindings = Bindings::default();
        for (name, value) in &self.order {
            let own = self.dimensions.iter().position(|d| d.name == *name);
            let value = match own {
                Some(dimension) => chosen
                    .get(&dimension)
                    .map(|value| &self.dimensions[dimension].values[*value].1),
                None => *value,
            };
            let known = self.depends[name].iter().all(|d| chosen.contains_key(d));
            if let (Some(value), true) = (value, known)
                && let Ok(value) = params::substitute(value, &bindings, problems)
            {
                bindings.bind(name, value);
            }
        }
        bindings
    }

    /// The params that nothing varies, for people.
    fn shown(&self) -> BTreeMap<String, String> {
        let bindings = self.bindings(&Combination::new(), &mut Vec::new());
        let fixed = self.order.iter().filter(|(_, value)| value.is_some());
        fixed
            .filter_map(|(name, _)| Some((name.clone(), matrix::text_of(bindings.get(name)?))))
            .collect()
    }
}

fn view(names: &BTreeMap<String, Vec<Node>>) -> Names<'_> {
    Names {
        values: names
            .iter()
            .map(|(name, values)| (name.as_str(), values.iter().collect()))
            .collect(),
    }
}

fn warn_unused(
    written: &Pipeline<'_>,
    dimensions: &[Dimension],
    view: &Names<'_>,
    used: &BTreeMap<&str, BTreeSet<&str>>,
    problems: &mut Vec<Diagnostic>,
) {
    if !written.unread.is_empty() {
        // What cannot be read may use anything.
        return;
    }
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let bodies = written.stages.iter().map(|stage| stage.body);
    let settings = written.stages.iter().flat_map(|stage| &stage.settings);
    let settings = settings.map(|entry| &entry.value);
    let mut queue: Vec<&str> = Vec::new();
    for node in bodies.chain(settings).chain(written.seed) {
        // A node with a problem uses its names all the same; the problem is reported where it is put in.
        queue.extend(params::mentions(node).filter(|name| view.values.contains_key(name)));
    }
    while let Some(name) = queue.pop() {
        if let Some((name, below)) = used.get_key_value(name)
            && reached.insert(name)
        {
            queue.extend(below.iter().copied());
        }
    }
    let params = written
        .params
        .iter()
        .map(|entry| (&entry.key, entry.key_span));
    let varied = dimensions
        .iter()
        .map(|dimension| (&dimension.name, dimension.span));
    let mut warned = BTreeSet::new();
    for (name, span) in varied.chain(params) {
        if params::is_name(name) && !reached.contains(name.as_str()) && warned.insert(name) {
            problems.push(
                Diagnostic::warning(
                    "unused-param",
                    span,
                    format!("nothing uses the param `{name}`"),
                )
                .help(format!("use it as `${name}`, or leave it out")),
            );
        }
    }
}

/// A stage with everything put in, for one combination of what it depends on itself.
pub(crate) struct Draft {
    pub(crate) combination: Combination,
    /// What stands below the kind, params put in.
    pub(crate) body: Node,
    pub(crate) params: Arc<dyn AnyParams>,
    pub(crate) makes: Makes,
    pub(crate) references: Vec<FoundAt>,
    pub(crate) settings: StageSettings,
    /// Where the export stands.
    pub(crate) export_span: Option<Span>,
    pub(crate) seed: u64,
}

/// A stage of the file and its drafts; none where something is wrong with it.
pub(crate) struct Drafts<'n> {
    pub(crate) text: &'n StageText<'n>,
    /// The dimensions that the stage itself depends on.
    pub(crate) own: BTreeSet<usize>,
    pub(crate) drafts: Vec<Draft>,
    /// The names of stages in what could not be read.
    pub(crate) loose: Vec<NamedInput>,
}

fn draft<'n>(
    written: &'n Pipeline<'n>,
    values: &Values<'_>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Drafts<'n>> {
    let catalogue = Catalogue::of(written.stages.iter().map(|stage| stage.kind));
    let mut bindings: BTreeMap<Combination, Bindings> = BTreeMap::new();
    let seed_depends = written
        .seed
        .map(|seed| values.depends_on(seed, problems).unwrap_or_default())
        .unwrap_or_default();
    let stages = written.stages.iter().map(|text| {
        let mut drafts = Drafts {
            text,
            own: BTreeSet::new(),
            drafts: Vec::new(),
            loose: Vec::new(),
        };
        let own_seed = text.settings.iter().any(|entry| entry.key == "seed");
        let mut param_values = ParamValues::All;
        let nodes = text.settings.iter().map(|entry| &entry.value);
        for node in nodes.chain([text.body]) {
            match values.depends_on(node, problems) {
                Some(depends) => drafts.own.extend(depends),
                None => param_values = ParamValues::Some,
            }
        }
        if text.kind.seeded() && !own_seed {
            drafts.own.extend(&seed_depends);
        }
        let Some(mut combinations) = matrix::combinations(&values.dimensions, &drafts.own) else {
            problems.push(too_many_variants(text));
            return drafts;
        };
        if param_values == ParamValues::Some {
            combinations.truncate(1);
        }
        for combination in combinations {
            let bindings = bindings
                .entry(combination.clone())
                .or_insert_with(|| values.bindings(&combination, problems));
            let seed = written.seed.filter(|_| !own_seed);
            let means = Means {
                bindings,
                param_values,
                catalogue: &catalogue,
            };
            match one_draft(text, combination, seed, &means, problems) {
                Ok(draft) => drafts.drafts.push(draft),
                Err(loose) => drafts.loose.extend(loose),
            }
        }
        drafts
    });
    stages.collect()
}

pub(crate) fn too_many_variants(text: &StageText<'_>) -> Diagnostic {
    Diagnostic::error(
        "too-many-variants",
        text.span,
        format!("the matrix makes too many variants of `{}`", text.name),
    )
    .help("`--variant NAME=VALUE` keeps some; or write several pipelines")
}

/// What a draft is made with.
struct Means<'m> {
    bindings: &'m Bindings,
    param_values: ParamValues,
    catalogue: &'m Catalogue,
}

fn one_draft(
    text: &StageText<'_>,
    combination: Combination,
    seed: Option<&Node>,
    means: &Means<'_>,
    problems: &mut Vec<Diagnostic>,
) -> Result<Draft, Vec<NamedInput>> {
    let bindings = means.bindings;
    let settings: Vec<(&Entry, Node)> = text
        .settings
        .iter()
        .filter_map(|entry| {
            let value = params::substitute(&entry.value, bindings, problems).ok()?;
            (!params::is_unknown(&value)).then_some((*entry, value))
        })
        .collect();
    let (settings, own_seed) = pipeline::settings(&settings, problems);
    let export = text.settings.iter().find(|entry| entry.key == "export");
    let seed = seed.and_then(|seed| {
        let seed = params::substitute(seed, bindings, problems).ok()?;
        if params::is_unknown(&seed) {
            return None;
        }
        let value = pipeline::read_seed(&seed);
        value
            .map_err(|wrong| problems.push(wrong.at(seed.span)))
            .ok()
    });
    let body = params::substitute(text.body, bindings, problems).map_err(|_| Vec::new())?;
    let body = if body.is_null() {
        Node::map(text.kind_span, Vec::new())
    } else {
        body
    };
    let params = means
        .catalogue
        .read(text, &body, means.param_values, problems)?;
    let references = match params.references() {
        Ok(references) => references,
        Err(error) => {
            problems.push(Diagnostic::error("bad-value", body.span, error.to_string()));
            return Err(Vec::new());
        }
    };
    for error in params.check() {
        problems.push(stage_problem(
            "invalid-params",
            text.kind_span,
            &body,
            error,
        ));
    }
    Ok(Draft {
        combination,
        makes: params.makes(),
        params,
        references,
        settings,
        export_span: export.map(|entry| entry.value.span),
        seed: own_seed.or(seed).unwrap_or(0),
        body,
    })
}

/// What a kind says about its parameters, at the parameter; at `otherwise` where it names none of them.
pub(crate) fn stage_problem(
    code: &'static str,
    otherwise: Span,
    body: &Node,
    error: StageError,
) -> Diagnostic {
    let node = match &error.param {
        Some(path) => body.at(path),
        None => body,
    };
    let span = if std::ptr::eq(node, body) {
        otherwise
    } else {
        node.span
    };
    let problem = Diagnostic::error(code, span, error.message).maybe_help(error.help);
    match node.origin {
        Some(origin) => problem.related(origin, "the value is given here"),
        None => problem,
    }
}
