//! `plot`: a figure of a training's history, of metrics or of predictions, as SVG and PNG, with the data
//! that it shows as JSON.

mod history;
mod scored;
mod sources;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use taper_cache::ArtifactType;
use taper_engine::{Context, Kind, Makes, NoSettings, Stage, StageError};

use crate::artifact::{Metrics, Predictions};
use crate::figure::learning::Series;
use crate::figure::threshold::{Sort, Threshold};
use crate::figure::{Drawing, curves, learning, matrix, png, svg, threshold};
use crate::metrics::ConfusionTable;

pub use history::History;
use scored::{Scored, confusion};
pub use sources::{Names, Sources};

/// The kind; see [`PlotParams`].
pub struct Plot;

/// Draws a figure: learning curves of one or several trainings, a confusion matrix, ROC or
/// precision-recall curves.
///
/// Give exactly one of `history`, `metrics` and `predictions`: a stage, a list of stages, or a map from the
/// names that the figure shows to stages. The artifact holds `plot.svg`, `plot.png` (the same at twice the
/// resolution) and `plot.json` (the data).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlotParams {
    /// Trained models whose learning curves are drawn.
    #[serde(default)]
    pub history: Option<Sources<History>>,
    /// Metrics whose confusion matrix is drawn.
    #[serde(default)]
    pub metrics: Option<Sources<Metrics>>,
    /// Predictions whose ROC or precision-recall curve or confusion matrix is drawn.
    #[serde(default)]
    pub predictions: Option<Sources<Predictions>>,
    /// What is drawn. Default: of a history `learning_curves`, of metrics `confusion_matrix`, of
    /// predictions `roc`.
    #[serde(default)]
    pub figure: Option<Figure>,
    /// The split of the predictions. Default: the only one.
    #[serde(default)]
    pub split: Option<String>,
    /// The class that counts as positive in ROC and precision-recall curves. Default: of two classes the
    /// second; of more, a curve for each.
    #[serde(default)]
    pub class: Option<String>,
    /// What the horizontal axis of learning curves counts.
    #[serde(default)]
    pub x: Axis,
    /// What learning curves show: names in the model's `history.jsonl`. A measure and its evaluation
    /// (`loss`, `eval_loss`) share a panel.
    #[serde(default = "default_y")]
    pub y: Names,
    /// Above the figure.
    #[serde(default)]
    pub title: Option<String>,
    /// What the figure shows, for those who cannot see it. Default: made from the other parameters.
    #[serde(default)]
    pub description: Option<String>,
    /// Of the SVG, in pixels.
    #[serde(default)]
    pub width: Option<u32>,
    /// Of the SVG, in pixels.
    #[serde(default)]
    pub height: Option<u32>,
}

fn default_y() -> Names {
    Names(vec!["loss".to_owned(), "eval_loss".to_owned()])
}

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// What training logged, by step or epoch.
    LearningCurves,
    /// Which classes are taken for which: counts, and shares of the true class.
    ConfusionMatrix,
    /// True over false positive rate, and the area below.
    Roc,
    /// Precision over recall, and the average precision.
    PrecisionRecall,
}

/// What the horizontal axis of learning curves counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Optimizer steps.
    #[default]
    Step,
    /// Epochs, with fractions.
    Epoch,
}

impl Axis {
    fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Epoch => "epoch",
        }
    }
}

impl Figure {
    fn name(self) -> &'static str {
        match self {
            Self::LearningCurves => "learning_curves",
            Self::ConfusionMatrix => "confusion_matrix",
            Self::Roc => "roc",
            Self::PrecisionRecall => "precision_recall",
        }
    }
}

/// The one source that the parameters name, with the figure that is drawn of it.
enum Source<'a> {
    History(&'a Sources<History>),
    Metrics(&'a Sources<Metrics>),
    Predictions(&'a Sources<Predictions>, Figure),
}

impl PlotParams {
    fn source(&self) -> Result<Source<'_>, StageError> {
        let wrong = |source: &str, figure: Figure, good: &str| {
            StageError::invalid(format!("{source} cannot be drawn as `{}`", figure.name()))
                .help(format!("of {source}, taper draws {good}"))
                .at("figure")
        };
        match (&self.history, &self.metrics, &self.predictions) {
            (Some(history), None, None) => match self.figure {
                None | Some(Figure::LearningCurves) => Ok(Source::History(history)),
                Some(figure) => Err(wrong("a history", figure, "`learning_curves`")),
            },
            (None, Some(metrics), None) => match self.figure {
                None | Some(Figure::ConfusionMatrix) => Ok(Source::Metrics(metrics)),
                Some(figure) => Err(wrong("metrics", figure, "`confusion_matrix`")),
            },
            (None, None, Some(predictions)) => match self.figure {
                Some(Figure::LearningCurves) => Err(wrong(
                    "predictions",
                    Figure::LearningCurves,
                    "`roc`, `precision_recall` and `confusion_matrix`",
                )),
                figure => Ok(Source::Predictions(
                    predictions,
                    figure.unwrap_or(Figure::Roc),
                )),
            },
            (None, None, None) => Err(StageError::invalid(
                "nothing to draw: one of `history`, `metrics` and `predictions` is needed",
            )
            .help("for learning curves, `history: MODEL`")),
            _ => Err(StageError::invalid(
                "only one of `history`, `metrics` and `predictions` can be drawn in a figure",
            )
            .help("make a `plot` stage of each")),
        }
    }
}

impl Kind for Plot {
    type Params = PlotParams;
    type Settings = NoSettings;
    type Resolved = ();

    const NAME: &'static str = "plot";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "plot: { history: model, x: step, y: [loss, eval_loss] }";

    fn makes(&self, _: &PlotParams) -> Makes {
        Makes::One(ArtifactType::Plot)
    }

    fn check(&self, params: &PlotParams) -> Vec<StageError> {
        let mut errors = Vec::new();
        match params.source() {
            Err(error) => errors.push(error),
            Ok(source) => {
                let (empty, name) = match source {
                    Source::History(sources) => (sources.is_empty(), "history"),
                    Source::Metrics(sources) => (sources.is_empty(), "metrics"),
                    Source::Predictions(sources, _) => (sources.is_empty(), "predictions"),
                };
                if empty {
                    errors.push(StageError::invalid("no stage is named").at(name));
                }
            }
        }
        if params.y.0.is_empty() {
            errors.push(
                StageError::invalid("nothing is to be shown")
                    .help("`y: [loss, eval_loss]` is what most want")
                    .at("y"),
            );
        }
        for (name, size) in [("width", params.width), ("height", params.height)] {
            if size.is_some_and(|size| !(240..=4000).contains(&size)) {
                errors.push(
                    StageError::invalid(format!("the {name} has to be 240 to 4000 pixels"))
                        .help("without it, the figure has a size that suits what it shows")
                        .at(name),
                );
            }
        }
        errors
    }

    fn run(&self, stage: &Stage<Self>, context: &Context) -> Result<(), StageError> {
        let params = &stage.params;
        let (drawing, data) = match params.source()? {
            Source::History(sources) => learning_curves(params, sources, context)?,
            Source::Metrics(sources) => {
                let mut panels = Vec::new();
                for (name, input) in sources.named() {
                    panels.push(panel(name, confusion(&context.open(input)?)?));
                }
                confusion_matrix(params, panels)
            }
            Source::Predictions(sources, figure) => {
                let mut opened = Vec::new();
                for (name, input) in sources.named() {
                    opened.push((name, context.open(input)?));
                }
                let mut scored = Vec::new();
                for (name, predictions) in &opened {
                    let rows = Scored::of(predictions, params.split.as_deref())?;
                    scored.push((name.clone(), rows));
                }
                match figure {
                    Figure::ConfusionMatrix => {
                        let panels = scored.into_iter();
                        let panels = panels.map(|(name, rows)| panel(name, rows.confusion()));
                        confusion_matrix(params, panels.collect())
                    }
                    Figure::PrecisionRecall => thresholds(params, Sort::PrecisionRecall, &scored)?,
                    Figure::Roc | Figure::LearningCurves => thresholds(params, Sort::Roc, &scored)?,
                }
            }
        };
        write(&drawing, &data, context)
    }
}

fn write(drawing: &Drawing, data: &Value, context: &Context) -> Result<(), StageError> {
    let text = svg::write(drawing);
    fs_err::write(context.create("plot.png")?, png::paint(&text)?)?;
    fs_err::write(context.create("plot.svg")?, text)?;
    let mut data = serde_json::to_string_pretty(data).expect("plain JSON");
    data.push('\n');
    fs_err::write(context.create("plot.json")?, data)?;
    Ok(())
}

impl PlotParams {
    fn texts(&self, description: String) -> (String, String) {
        (
            self.title.clone().unwrap_or_default(),
            self.description.clone().unwrap_or(description),
        )
    }
}

fn learning_curves(
    params: &PlotParams,
    sources: &Sources<History>,
    context: &Context,
) -> Result<(Drawing, Value), StageError> {
    let x = params.x.name();
    let mut series = Vec::new();
    let mut runs = Vec::new();
    for (run, (name, input)) in sources.named().into_iter().enumerate() {
        let history = context.open(input)?;
        runs.push(name);
        for y in &params.y.0 {
            series.push(Series {
                run,
                name: y.clone(),
                points: history.points(x, y).map_err(|error| error.at("y"))?,
            });
        }
    }
    let data = json!({
        "figure": Figure::LearningCurves.name(),
        "x": x,
        "series": series.iter().map(|one| json!({
            "run": runs[one.run],
            "name": one.name,
            "points": one.points,
        })).collect::<Vec<_>>(),
    });
    let (title, description) = params.texts(format!("{} by {x}", params.y.0.join(", ")));
    let panels = learning::panels(&series, &runs);
    let size = (params.width, params.height);
    let chart = learning::chart(panels, x, title, description, size);
    Ok((curves::draw(&chart), data))
}

fn panel(name: String, confusion: ConfusionTable) -> matrix::Panel {
    matrix::Panel {
        name,
        labels: confusion.labels,
        counts: confusion.counts,
    }
}

fn confusion_matrix(params: &PlotParams, panels: Vec<matrix::Panel>) -> (Drawing, Value) {
    let data = json!({
        "figure": Figure::ConfusionMatrix.name(),
        "matrices": panels.iter().map(|panel| json!({
            "run": panel.name,
            "labels": panel.labels,
            "counts": panel.counts,
            "shares": panel.shares(),
        })).collect::<Vec<_>>(),
    });
    let classes = panels.first().map_or(0, |panel| panel.labels.len());
    let (title, description) = params.texts(format!(
        "Confusion matrix of {classes} classes, true by predicted"
    ));
    let drawing = matrix::draw(&matrix::Matrix::new(
        panels,
        title,
        description,
        (params.width, params.height),
    ));
    (drawing, data)
}

fn thresholds(
    params: &PlotParams,
    sort: Sort,
    opened: &[(String, Scored<'_>)],
) -> Result<(Drawing, Value), StageError> {
    let mut named: Vec<(String, Threshold)> = Vec::new();
    let mut data = Vec::new();
    for (run, scored) in opened {
        for class in positive_classes(params, scored)? {
            let name = &scored.classes()[class];
            let curve = threshold::curve(sort, &scored.against_rest(class)).ok_or_else(|| {
                StageError::invalid(format!(
                    "no curve for `{name}`: its rows are all or none of the split"
                ))
                .help("the curve compares rows of the class with rows of the others")
                .at("predictions")
            })?;
            data.push(json!({
                "run": run,
                "class": name,
                "area": curve.area,
                "points": curve.points,
            }));
            let several_classes = params.class.is_none() && scored.classes().len() > 2;
            let parts = [run.as_str(), if several_classes { name } else { "" }];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            named.push((parts.join(", "), curve));
        }
    }
    let (figure, what) = match sort {
        Sort::Roc => (Figure::Roc, "True over false positive rate"),
        Sort::PrecisionRecall => (Figure::PrecisionRecall, "Precision over recall"),
    };
    let data = json!({ "figure": figure.name(), "curves": data });
    let (title, description) = params.texts(what.to_owned());
    let size = (params.width, params.height);
    let chart = threshold::chart(sort, &named, title, description, size);
    Ok((curves::draw(&chart), data))
}

/// The classes that count as positive, each in a curve of its own.
fn positive_classes(params: &PlotParams, scored: &Scored<'_>) -> Result<Vec<usize>, StageError> {
    if let Some(name) = &params.class {
        let class = scored.classes().iter().position(|class| class == name);
        return class.map(|class| vec![class]).ok_or_else(|| {
            StageError::invalid(format!("there is no class `{name}`"))
                .help(format!("the classes are {}", scored.classes().join(", ")))
                .at("class")
        });
    }
    Ok(match scored.classes().len() {
        2 => vec![1],
        count => (0..count).collect(),
    })
}

#[cfg(test)]
mod tests;
