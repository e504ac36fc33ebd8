//! `taper graph`.

use std::collections::BTreeMap;

use serde_json::json;
use taper_engine::{Events, PlannedState, RunOptions};
use taper_stages::figure::{Anchor, Drawing, Mark, Point, Stroke, font, palette, svg};

use crate::args::PipelineArgs;
use crate::exit_code::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::prepared::Prepared;
use crate::table::{self, Rows, Tone};

/// Show the graph of a pipeline, with each stage's state.
///
///     taper graph pipeline.yaml
///     taper graph pipeline.yaml --format mermaid
///     taper graph pipeline.yaml --format svg > graph.svg
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// How it is written.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Tell a program: {"stages": [{"name", "kind", "state", "inputs": […]}]}.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// How a graph is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For the terminal.
    Text,
    /// For Markdown: GitHub draws it.
    Mermaid,
    /// For Graphviz.
    Dot,
    /// A drawing.
    Svg,
}

/// A stage of the graph.
struct Node<'p> {
    name: &'p str,
    kind: &'static str,
    state: PlannedState,
    /// The stages before it, by place.
    inputs: Vec<usize>,
}

/// Shows.
pub fn run(args: Args, output: Output) -> Result<Exit, Failure> {
    let mut prepared = Prepared::open(&args.pipeline, Events::nowhere())?;
    // A picture is not worth a download: what is not locked is not known.
    prepared.surroundings.offline = true;
    let forecast = prepared.forecast(&RunOptions::default())?;
    let states: BTreeMap<&str, PlannedState> = forecast
        .stages
        .iter()
        .map(|stage| (stage.name.as_str(), stage.state))
        .collect();
    let nodes: Vec<Node<'_>> = prepared
        .plan
        .stages
        .iter()
        .map(|stage| {
            let mut inputs: Vec<usize> = stage.inputs.iter().map(|input| input.stage).collect();
            inputs.sort_unstable();
            inputs.dedup();
            Node {
                name: &stage.name,
                kind: stage.kind.name(),
                state: states
                    .get(stage.name.as_str())
                    .copied()
                    .unwrap_or(PlannedState::Unknown),
                inputs,
            }
        })
        .collect();
    if args.json {
        let stages: Vec<_> = nodes
            .iter()
            .map(|node| json!({
                "name": node.name,
                "kind": node.kind,
                "state": node.state,
                "inputs": node.inputs.iter().map(|input| nodes[*input].name).collect::<Vec<_>>(),
            }))
            .collect();
        output.json(&json!({ "stages": stages }))?;
        return Ok(Exit::Done);
    }
    output.data(match args.format {
        Format::Text => text(&nodes, output),
        Format::Mermaid => mermaid(&nodes),
        Format::Dot => dot(&nodes),
        Format::Svg => svg::write(&draw(&prepared.plan.name, &nodes)),
    })?;
    Ok(Exit::Done)
}

const fn word(state: PlannedState) -> &'static str {
    match state {
        PlannedState::Cached => "cached",
        PlannedState::Run => "run",
        PlannedState::Unknown => "depends",
    }
}

fn text(nodes: &[Node<'_>], output: Output) -> String {
    let mut rows = Rows::new(output.out, &["stage", "kind", "", "reads"]);
    for node in nodes {
        let tone = match node.state {
            PlannedState::Cached => Tone::Faint,
            PlannedState::Run => Tone::Changed,
            PlannedState::Unknown => Tone::Plain,
        };
        let inputs: Vec<&str> = node.inputs.iter().map(|input| nodes[*input].name).collect();
        rows.row([
            (node.name, Tone::Plain),
            (node.kind, Tone::Faint),
            (word(node.state), tone),
            (inputs.join(", ").as_str(), Tone::Plain),
        ]);
    }
    rows.finish()
}

fn mermaid(nodes: &[Node<'_>]) -> String {
    let quoted = |text: &str| text.replace('"', "#quot;");
    let mut text = String::from("flowchart LR\n");
    for (index, node) in nodes.iter().enumerate() {
        let name = quoted(node.name);
        text.push_str(&format!(
            "  s{index}[\"{name}<br><small>{}</small>\"]:::{}\n",
            node.kind,
            word(node.state)
        ));
    }
    for (index, node) in nodes.iter().enumerate() {
        for input in &node.inputs {
            text.push_str(&format!("  s{input} --> s{index}\n"));
        }
    }
    text.push_str("  classDef cached fill:#e9f5ee,stroke:#009e73\n");
    text.push_str("  classDef run fill:#fdf0e6,stroke:#d55e00\n");
    text.push_str("  classDef depends fill:#f4f7fa,stroke:#adb5bd\n");
    text
}

fn dot(nodes: &[Node<'_>]) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = String::from(
        "digraph pipeline {\n  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\"];\n",
    );
    for (index, node) in nodes.iter().enumerate() {
        let (fill, _) = colours(node.state);
        text.push_str(&format!(
            "  s{index} [label=\"{}\\n{}\", fillcolor=\"{fill}\"];\n",
            quoted(node.name),
            node.kind
        ));
    }
    for (index, node) in nodes.iter().enumerate() {
        for input in &node.inputs {
            text.push_str(&format!("  s{input} -> s{index};\n"));
        }
    }
    text.push_str("}\n");
    text
}

/// The fill and the rim of a stage.
const fn colours(state: PlannedState) -> (palette::Colour, palette::Colour) {
    use palette::Colour;
    match state {
        PlannedState::Cached => (Colour(233, 245, 238), Colour(0, 158, 115)),
        PlannedState::Run => (Colour(253, 240, 230), Colour(213, 94, 0)),
        PlannedState::Unknown => (Colour(244, 247, 250), palette::AXIS),
    }
}

/// Columns by the longest way from a stage that reads nothing; within a column, the order of the plan.
fn columns(nodes: &[Node<'_>]) -> Vec<Vec<usize>> {
    let mut depths: Vec<usize> = Vec::with_capacity(nodes.len());
    for node in nodes {
        // Stages stand after those that they read.
        let deepest = node.inputs.iter().map(|input| depths[*input] + 1).max();
        depths.push(deepest.unwrap_or(0));
    }
    let mut columns = vec![Vec::new(); depths.iter().max().map_or(0, |deepest| deepest + 1)];
    for (index, depth) in depths.iter().enumerate() {
        columns[*depth].push(index);
    }
    columns
}

fn draw(name: &str, nodes: &[Node<'_>]) -> Drawing {
    const EDGE: f64 = 28.0;
    const HEIGHT: f64 = 44.0;
    const DOWN: f64 = 62.0;
    const ACROSS: f64 = 48.0;
    let columns = columns(nodes);
    let width_of =
        |node: &Node<'_>| font::width(node.name, 13.0).max(font::width(node.kind, 11.0)) + 28.0;
    let widths: Vec<f64> = columns
        .iter()
        .map(|column| {
            column
                .iter()
                .map(|i| width_of(&nodes[*i]))
                .fold(64.0, f64::max)
        })
        .collect();
    let tallest = columns.iter().map(Vec::len).max().unwrap_or(0) as f64;
    let gaps = ACROSS * columns.len().saturating_sub(1) as f64;
    let width = 2.0 * EDGE + widths.iter().sum::<f64>() + gaps;
    let height = 2.0 * EDGE + DOWN * tallest - (DOWN - HEIGHT) + 34.0;
    let description = format!("{} and what they read", table::count(nodes.len(), "stage"));
    let mut drawing = Drawing::new(width.max(320.0), height, name.to_owned(), description);
    let at = Point::new(EDGE, EDGE + 8.0);
    drawing.text(at, name, 16.0, palette::INK, Anchor::Start);
    let mut boxes = vec![(Point::new(0.0, 0.0), 0.0); nodes.len()];
    let mut left = EDGE;
    for (column, width) in columns.iter().zip(&widths) {
        let spare = DOWN * (tallest - column.len() as f64) / 2.0;
        for (row, index) in column.iter().enumerate() {
            let top = EDGE + 34.0 + spare + DOWN * row as f64;
            boxes[*index] = (Point::new(left, top), *width);
        }
        left += width + ACROSS;
    }
    for (index, node) in nodes.iter().enumerate() {
        for input in &node.inputs {
            let (from, width) = boxes[*input];
            let (to, _) = boxes[index];
            let start = Point::new(from.x + width, from.y + HEIGHT / 2.0);
            let end = Point::new(to.x, to.y + HEIGHT / 2.0);
            drawing.line(bend(start, end), Stroke::solid(palette::AXIS, 1.5));
            drawing.dot(end, 3.5, palette::AXIS);
        }
    }
    for (node, (corner, width)) in nodes.iter().zip(&boxes) {
        let (fill, rim) = colours(node.state);
        let area = |inset: f64, colour| Mark::Area {
            corner: Point::new(corner.x + inset, corner.y + inset),
            width: width - 2.0 * inset,
            height: HEIGHT - 2.0 * inset,
            fill: colour,
            radius: 7.0 - inset,
        };
        drawing.marks.extend([area(0.0, rim), area(1.3, fill)]);
        let middle = corner.x + width / 2.0;
        let at = Point::new(middle, corner.y + 19.0);
        drawing.text(at, node.name, 13.0, palette::INK, Anchor::Middle);
        let at = Point::new(middle, corner.y + 34.0);
        drawing.text(at, node.kind, 11.0, palette::MUTED, Anchor::Middle);
    }
    drawing
}

/// A line that leaves and arrives level.
fn bend(start: Point, end: Point) -> Vec<Point> {
    const PARTS: usize = 16;
    let across = end.x - start.x;
    (0..=PARTS)
        .map(|part| {
            let t = part as f64 / PARTS as f64;
            // The smooth step: level at both ends.
            let share = t * t * (3.0 - 2.0 * t);
            Point::new(start.x + across * t, start.y + (end.y - start.y) * share)
        })
        .collect()
}
