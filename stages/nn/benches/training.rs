//! taper beside PyTorch: training and evaluation of each job, on the same initial weights and the same
//! batches, with the same number of threads, in turn, in one run.
//!
//!     cargo bench -p taper-nn --bench training -- --python ~/.cache/peers/bin/python
//!     … --jobs minilm,rnn --threads 2 --rounds 3 --seconds 4 --column same|user|both
//!
//! PyTorch's side is `peer_train.py` of the shared folder (`TAPER_SHARED`, by default beside the repository),
//! with fused AdamW and scaled-dot-product attention: its best in float32. Without `--python` only taper is
//! measured. Two columns: *same*, batches in which every row is as long as the batch is wide, so that both
//! compute the same; *user*, rows of the real data sets, where PyTorch is measured twice: padded as the job's source
//! pads them, and dynamically, to the longest row of each batch. Each side's figure is the median over its rounds
//! of the median step of a round.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a benchmark prints, and reads two files of the kernel's"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use taper_nn::kernels::peak;
use taper_nn::loss::Loss;
use taper_nn::model::{
    Architecture, BertConfig, Pooling, RecurrentConfig, RecurrentKind, TextCnnConfig,
};
use taper_nn::optimizer::{Adam, Optimizer, Rule};
use taper_nn::parallel::within;
use taper_nn::random::{Purpose, Stream};
use taper_nn::{Batch, Dropout, Learner};

/// One of the jobs.
struct Job {
    name: &'static str,
    /// What `peer_train.py` calls its model.
    model: &'static str,
    /// The real rows of the user's column.
    data: Option<Data>,
    batch: usize,
    length: usize,
    vocabulary: u32,
    learning_rate: f64,
    rule: Rule,
    loss: Loss,
    architecture: Architecture,
}

/// Real rows: a file of the shared data sets, the columns with the text, and whether the job's source pads them to
/// the length of the job.
#[derive(Clone, Copy)]
struct Data {
    file: &'static str,
    columns: &'static str,
    padded: bool,
}

const COLA: Data = Data {
    file: "nyu-mll/glue/cola/train-00000-of-00001.parquet",
    columns: "sentence",
    padded: true,
};
const MRPC: Data = Data {
    file: "nyu-mll/glue/mrpc/train-00000-of-00001.parquet",
    columns: "sentence1,sentence2",
    padded: false,
};
const IMDB: Data = Data {
    file: "stanfordnlp/imdb/plain_text/train-00000-of-00001.parquet",
    columns: "text",
    padded: true,
};
const TOKENIZER: &str = "hub/data/models/google-bert/bert-base-uncased/tokenizer.json";

fn bert(hidden: usize, layers: usize, heads: usize, pooling: Pooling, head: f64) -> BertConfig {
    BertConfig {
        hidden_size: hidden,
        layers,
        heads,
        intermediate_size: 4 * hidden,
        head_dropout: head,
        pooling,
        ..BertConfig::base()
    }
}

fn jobs() -> Vec<Job> {
    let cross_entropy = || Loss::CrossEntropy {
        class_weights: None,
        label_smoothing: 0.0,
    };
    let plain = Rule::AdamW(Adam {
        weight_decay: 0.0,
        ..Adam::ADAMW
    });
    let adamw = Rule::AdamW(Adam::ADAMW);
    let job = |name, batch, length, vocabulary, learning_rate, rule, architecture| Job {
        name,
        model: name,
        data: None,
        batch,
        length,
        vocabulary,
        learning_rate,
        rule,
        loss: cross_entropy(),
        architecture,
    };
    let base = |pooling, head| bert(768, 12, 12, pooling, head);
    vec![
        job(
            "textcnn",
            8,
            128,
            28996,
            1e-3,
            plain,
            Architecture::TextCnn(TextCnnConfig {
                vocab_size: 28996,
                embedding_dim: 64,
                filters: 10,
                width: 3,
                padding: 1,
                dropout: 0.0,
                outputs: 2,
            }),
        ),
        job(
            "rnn",
            8,
            128,
            28996,
            1e-3,
            plain,
            Architecture::Recurrent(RecurrentConfig {
                kind: RecurrentKind::RnnTanh,
                vocab_size: 28996,
                embedding_dim: 64,
                hidden_size: 96,
                layers: 1,
                bidirectional: false,
                dropout: 0.0,
                head_dropout: 0.0,
                outputs: 2,
            }),
        ),
        job(
            "bert-tiny-cls",
            32,
            256,
            30522,
            1e-2,
            Rule::Adam(Adam::ADAM),
            Architecture::Bert(bert(128, 2, 2, Pooling::Cls, 0.0)),
        ),
        job(
            "bert-tiny-pooler",
            4,
            512,
            30522,
            1e-3,
            Rule::Adam(Adam::ADAM),
            Architecture::Bert(bert(128, 2, 2, Pooling::Pooler, 0.4)),
        ),
        job(
            "minilm",
            16,
            64,
            30522,
            5e-5,
            adamw,
            Architecture::Bert(bert(384, 6, 12, Pooling::Pooler, 0.1)),
        ),
        job(
            "bert-base-seqcls",
            8,
            67,
            30522,
            5e-5,
            adamw,
            Architecture::Bert(base(Pooling::Pooler, 0.1)),
        ),
        Job {
            loss: Loss::BceWithLogits,
            ..job(
                "bert-base-bce",
                8,
                200,
                30522,
                1e-5,
                adamw,
                Architecture::Bert(BertConfig {
                    outputs: 1,
                    ..base(Pooling::Pooler, 0.3)
                }),
            )
        },
    ]
}

/// The jobs of the user's column.
fn user_jobs() -> Vec<Job> {
    let of = |model: &str, name, batch, length, data| {
        let job = jobs().into_iter().find(|job| job.name == model);
        Job {
            name,
            batch,
            length,
            data: Some(data),
            ..job.expect("a job of this name")
        }
    };
    vec![
        of("bert-tiny-cls", "cola-tiny-cls", 32, 256, COLA),
        of("bert-tiny-pooler", "cola-tiny-pooler", 4, 512, COLA),
        of("minilm", "mrpc-minilm", 8, 128, MRPC),
        of("bert-base-seqcls", "mrpc-bert-base", 8, 128, MRPC),
        of("minilm", "imdb-minilm", 8, 200, IMDB),
    ]
}

/// What one side measured in one round: milliseconds of a training step and of an evaluated batch, MiB; and of our
/// side the cores that were busy in training, and page faults a step.
#[derive(Clone, Copy)]
struct Round {
    step: f64,
    evaluation: f64,
    memory: f64,
    cores: f64,
    faults: f64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn middle(rounds: &[Round]) -> Round {
    let of = |field: fn(&Round) -> f64| median(rounds.iter().map(field).collect());
    Round {
        step: of(|round| round.step),
        evaluation: of(|round| round.evaluation),
        memory: of(|round| round.memory),
        cores: of(|round| round.cores),
        faults: of(|round| round.faults),
    }
}

/// Batches in which every row has the job's whole length, in the form that both sides read.
fn batches_without_padding(job: &Job, path: &Path) -> Result<(), String> {
    let stream = Stream::new(1234, Purpose::Test);
    let mut drawn = 0;
    let mut below = |bound: u32| {
        drawn += 1;
        stream.below(drawn, u64::from(bound)) as i64
    };
    let (rows, length) = (job.batch, job.length);
    let mut data = Vec::new();
    for index in 0..8 {
        let mut ids: Vec<i64> = (0..rows * length)
            .map(|_| 1000 + below(job.vocabulary - 1000))
            .collect();
        for row in ids.chunks_mut(length) {
            row[0] = 101;
            row[length - 1] = 102;
        }
        let labels: Vec<i64> = (0..rows).map(|_| below(2)).collect();
        let wide = vec![rows, length];
        for (name, shape, values) in [
            ("input_ids", wide.clone(), ids),
            ("attention_mask", wide.clone(), vec![1; rows * length]),
            ("token_type_ids", wide, vec![0; rows * length]),
            ("labels", vec![rows], labels),
        ] {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            data.push((format!("{index}.{name}"), shape, bytes));
        }
    }
    let views: Vec<_> = data
        .iter()
        .map(|(name, shape, bytes)| {
            let view =
                safetensors::tensor::TensorView::new(safetensors::Dtype::I64, shape.clone(), bytes);
            (name.as_str(), view.expect("shapes and bytes agree"))
        })
        .collect();
    safetensors::serialize_to_file(views, None, path).map_err(|error| error.to_string())
}

/// Reads batches as `peer_train.py` writes them, and packs them.
fn read_batches(path: &Path) -> Result<Vec<Batch>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
    let numbers = |name: String| -> Result<(Vec<usize>, Vec<i64>), String> {
        let tensor = file.tensor(&name).map_err(|error| error.to_string())?;
        let values = tensor.data().chunks_exact(8);
        let values = values.map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")));
        Ok((tensor.shape().to_vec(), values.collect()))
    };
    let mut batches = Vec::new();
    while file.tensor(&format!("{}.labels", batches.len())).is_ok() {
        let part = |name: &str| numbers(format!("{}.{name}", batches.len()));
        let (shape, ids) = part("input_ids")?;
        let (_, mask) = part("attention_mask")?;
        let (_, types) = part("token_type_ids")?;
        let (_, labels) = part("labels")?;
        let mut batch = Batch {
            offsets: vec![0],
            labels: labels.iter().map(|&label| label as u32).collect(),
            rows: (0..shape[0] as u64).collect(),
            width: shape[1],
            ..Batch::default()
        };
        for (index, &kept) in mask.iter().enumerate() {
            if kept == 1 {
                batch.ids.push(ids[index] as u32);
                batch.type_ids.push(types[index] as u32);
            }
            if (index + 1) % shape[1] == 0 {
                batch.offsets.push(batch.ids.len() as u32);
            }
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// PyTorch's initial weights by our names.
fn read_weights(
    path: &Path,
    parameters: &taper_nn::Parameters,
    weights: &mut [f32],
) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
    for tensor in parameters.tensors() {
        let backbone = tensor.name.strip_prefix("bert.");
        let head = tensor.name.strip_prefix("classifier.");
        let names = [
            Some(tensor.name.clone()),
            backbone.map(|rest| format!("llm.{rest}")),
            backbone.map(|rest| format!("bert_backbone.{rest}")),
            head.map(|rest| format!("fc1.{rest}")),
            head.map(|rest| format!("W.{rest}")),
        ];
        let view = names
            .iter()
            .flatten()
            .find_map(|name| file.tensor(name).ok())
            .ok_or_else(|| format!("{}: no tensor {}", path.display(), tensor.name))?;
        for (weight, bytes) in weights[tensor.range()]
            .iter_mut()
            .zip(view.data().chunks_exact(4))
        {
            *weight = f32::from_le_bytes(bytes.try_into().expect("4 bytes"));
        }
    }
    Ok(())
}

/// The most memory that this process has held, in MiB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}

/// Seconds that this process has had a processor, and its page faults.
fn usage() -> (f64, f64) {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The 10th field; the 2nd, the program's name, ends with a parenthesis.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let faults = fields.split_whitespace().nth(7);
    (
        time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9,
        faults
            .and_then(|faults| faults.parse().ok())
            .unwrap_or(f64::NAN),
    )
}

/// taper's side of one round, in a process of its own.
fn measure(
    job: &Job,
    batches: &[Batch],
    init: Option<&Path>,
    time: Duration,
) -> Result<Round, String> {
    let mut network = job.architecture.build::<f32>();
    let parameters = network.parameters().clone();
    let mut weights = parameters.initialize(0);
    if let Some(path) = init {
        read_weights(path, &parameters, &mut weights)?;
    }
    let optimizer = Optimizer::new(job.rule, &[], &parameters);
    let mut learner = Learner::new(parameters, weights, optimizer);
    let mut steps = Vec::new();
    let started = Instant::now();
    let mut index = 0;
    let mut begin = (Instant::now(), usage());
    while steps.len() < 5 || started.elapsed() < time {
        let batch = &batches[index % batches.len()];
        let dropout = Dropout {
            seed: 0,
            epoch: index as u64,
        };
        let began = Instant::now();
        let with = (&dropout, &job.loss);
        let (loss, ..) = learner.step_at_once(&mut *network, batch, with, job.learning_rate, false);
        let took = began.elapsed();
        if !loss.mean().is_finite() {
            return Err(format!("the loss of step {index} is not finite"));
        }
        // Until every batch was seen, buffers grow.
        if index + 1 == batches.len() {
            begin = (Instant::now(), usage());
        }
        if index >= 2 {
            steps.push(1e3 * took.as_secs_f64());
        }
        index += 1;
    }
    let (wall, (cpu, faults)) = (begin.0.elapsed().as_secs_f64(), usage());
    let cores = (cpu - begin.1.0) / wall;
    let settled = index.saturating_sub(batches.len());
    let faults = match settled {
        0 => f64::NAN,
        _ => (faults - begin.1.1) / settled as f64,
    };
    let (weights, _) = learner.settle();
    let mut evaluations = Vec::new();
    let started = Instant::now();
    while evaluations.len() < 5 || started.elapsed() < time / 3 {
        let batch = &batches[evaluations.len() % batches.len()];
        let began = Instant::now();
        let logits = network.forward(weights, batch, None);
        job.loss.value(&logits, &batch.labels);
        evaluations.push(1e3 * began.elapsed().as_secs_f64());
    }
    Ok(Round {
        step: median(steps),
        evaluation: median(evaluations),
        memory: peak_memory(),
        cores,
        faults,
    })
}

/// Floating-point operations of the products of one training step.
fn operations(job: &Job, batches: &[Batch]) -> f64 {
    let per_batch = |batch: &Batch| match &job.architecture {
        Architecture::Bert(config) => {
            let (hidden, wide) = (config.hidden_size as f64, config.intermediate_size as f64);
            let tokens = batch.tokens() as f64;
            let squares: f64 = batch
                .offsets
                .windows(2)
                .map(|pair| f64::from(pair[1] - pair[0]).powi(2))
                .sum();
            // Of the last layer, only what the head reads: all keys and values, and for tokens that ask the rest.
            let (asking, scores) = match config.pooling {
                Pooling::Mean => (tokens, squares),
                Pooling::Cls | Pooling::Pooler => (batch.len() as f64, tokens),
            };
            let layer = |asking: f64, scores: f64| {
                let keys_and_values = tokens * hidden * 2.0 * hidden;
                let rest = asking * hidden * (2.0 * hidden + 2.0 * wide);
                2.0 * (keys_and_values + rest) + 4.0 * scores * hidden
            };
            let below = (config.layers - 1) as f64;
            3.0 * (below * layer(tokens, squares) + layer(asking, scores))
        }
        Architecture::Recurrent(config) => {
            let steps = (batch.width * batch.len()) as f64;
            6.0 * steps * (config.hidden_size * (config.hidden_size + config.embedding_dim)) as f64
        }
        Architecture::TextCnn(config) => {
            let places = (batch.width * batch.len()) as f64;
            6.0 * places * (config.filters * config.width * config.embedding_dim) as f64
        }
    };
    batches.iter().map(per_batch).sum::<f64>() / batches.len() as f64
}

/// What fused multiply-adds alone reach, in GFLOP/s.
fn peak_gflops() -> f64 {
    let rate = || {
        let began = Instant::now();
        let (operations, _) = std::hint::black_box(peak::burn(100_000));
        operations as f64 / began.elapsed().as_secs_f64() / 1e9
    };
    (0..20).map(|_| rate()).fold(0.0, f64::max)
}

fn cpu_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    name.map_or_else(
        || "an unknown CPU".to_owned(),
        |name| name.trim_start_matches([' ', '\t', ':']).to_owned(),
    )
}

struct Options {
    python: Option<PathBuf>,
    shared: PathBuf,
    jobs: Option<String>,
    columns: Vec<Column>,
    threads: usize,
    rounds: usize,
    seconds: f64,
    one: Option<(String, PathBuf, Option<PathBuf>)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Column {
    Same,
    User,
}

fn options() -> Result<Options, String> {
    let shared = std::env::var_os("TAPER_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let mut options = Options {
        python: None,
        shared,
        jobs: None,
        columns: vec![Column::Same, Column::User],
        threads: 2,
        rounds: 3,
        seconds: 4.0,
        one: None,
    };
    let mut arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{word} needs a value"));
        let number = |text: String| {
            text.parse::<f64>()
                .map_err(|_| format!("{text}: a number?"))
        };
        match word.as_str() {
            "--python" => options.python = Some(value()?.into()),
            "--jobs" => options.jobs = Some(value()?),
            "--threads" => options.threads = number(value()?)? as usize,
            "--rounds" => options.rounds = number(value()?)? as usize,
            "--seconds" => options.seconds = number(value()?)?,
            "--column" => {
                options.columns = match value()?.as_str() {
                    "same" => vec![Column::Same],
                    "user" => vec![Column::User],
                    _ => vec![Column::Same, Column::User],
                }
            }
            "--one" => {
                let (name, batches, init) = (value()?, value()?, value()?);
                let init = (init != "-").then(|| init.into());
                options.one = Some((name, batches.into(), init));
            }
            _ => {
                return Err(format!(
                    "{word}: see the first lines of benches/training.rs"
                ));
            }
        }
    }
    Ok(options)
}

/// Runs a command that prints one line of JSON last.
fn json_of(command: &mut Command) -> Result<Value, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().rev().find(|line| line.starts_with('{'));
    last.and_then(|line| serde_json::from_str(line).ok())
        .ok_or_else(|| format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn field(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or(f64::NAN)
}

fn ours(
    options: &Options,
    job: &Job,
    batches: &Path,
    init: Option<&Path>,
) -> Result<Round, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let value = json_of(
        Command::new(program)
            .args(["--one", job.name])
            .arg(batches)
            .arg(init.unwrap_or(Path::new("-")))
            .args(["--threads", &options.threads.to_string()])
            .args(["--seconds", &options.seconds.to_string()]),
    )?;
    Ok(Round {
        step: field(&value, "step"),
        evaluation: field(&value, "evaluation"),
        memory: field(&value, "memory"),
        cores: field(&value, "cores"),
        faults: field(&value, "faults"),
    })
}

fn theirs(options: &Options, job: &Job, steps: usize, extra: &[&str]) -> Result<Round, String> {
    let python = options.python.as_ref().ok_or("no --python")?;
    let value = json_of(
        Command::new(python)
            .arg(options.shared.join("peers/peer_train.py"))
            .args(["--model", job.model, "--variants", "fused"])
            .args(["--batch", &job.batch.to_string()])
            .args(["--len", &job.length.to_string()])
            .args(["--threads", &options.threads.to_string()])
            .args(["--steps", &steps.to_string()])
            .args(extra),
    )?;
    Ok(Round {
        step: field(&value, "step_ms_median"),
        evaluation: field(&value, "eval_ms_median"),
        memory: field(&value, "peak_rss_mib"),
        cores: f64::NAN,
        faults: f64::NAN,
    })
}

fn compare(options: &Options, job: &Job, folder: &Path) -> Result<(), String> {
    let text = |path: &Path| path.display().to_string();
    let file = |kind: &str| folder.join(format!("{}.{kind}.safetensors", job.name));
    let mut init = None;
    if options.python.is_some() {
        let path = file("init");
        theirs(options, job, 1, &["--save-init", &text(&path)])?;
        init = Some(path);
    } else if job.data.is_some() {
        return Ok(());
    }
    // PyTorch's batches, and what the line is called; ours are the first: padding makes no difference to us.
    let kinds: Vec<(&str, PathBuf)> = match &job.data {
        None => {
            batches_without_padding(job, &file("same"))?;
            vec![("same", file("same"))]
        }
        Some(data) => {
            real_batches(options, job, data, folder)?;
            let padded = data.padded.then(|| ("padded", file("padded")));
            let dynamic = ("dynamic", file("dynamic"));
            padded.into_iter().chain([dynamic]).collect()
        }
    };
    let (_, own) = &kinds[0];
    let mut mine = Vec::new();
    let mut peers = vec![Vec::new(); kinds.len()];
    for _ in 0..options.rounds {
        let round = ours(options, job, own, init.as_deref())?;
        if let Some(init) = &init {
            let steps = (options.seconds * 1e3 / (2.0 * round.step)).clamp(8.0, 40.0) as usize;
            for ((_, batches), peers) in kinds.iter().zip(&mut peers) {
                let arguments = ["--init", &text(init), "--batches", &text(batches)];
                peers.push(theirs(options, job, steps, &arguments)?);
            }
        }
        mine.push(round);
    }
    let mine = middle(&mine);
    let gflops = operations(job, &read_batches(own)?) / mine.step / 1e6;
    for ((kind, _), peers) in kinds.iter().zip(&peers) {
        let mut line = format!(
            "{:<17} {:<8} {:>9.2} {:>9.0} {:>8.2} {:>7.0} {:>7.0} {:>5.2} {:>6.1}",
            job.name,
            kind,
            mine.step,
            1e3 * job.batch as f64 / mine.step,
            mine.evaluation,
            mine.memory,
            gflops,
            mine.cores,
            mine.faults,
        );
        if !peers.is_empty() {
            let peer = middle(peers);
            line += &format!(
                " | {:>9.2} {:>9.0} {:>8.2} {:>7.0} | {:>6.2}x {:>6.2}x {:>6.2}",
                peer.step,
                1e3 * job.batch as f64 / peer.step,
                peer.evaluation,
                peer.memory,
                peer.step / mine.step,
                peer.evaluation / mine.evaluation,
                mine.memory / peer.memory,
            );
        }
        println!("{line}");
    }
    Ok(())
}

/// Writes batches of real rows, padded and dynamic, to `folder`.
fn real_batches(options: &Options, job: &Job, data: &Data, folder: &Path) -> Result<(), String> {
    let python = options.python.as_ref().ok_or("no --python")?;
    let status = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/batches.py"))
        .arg(options.shared.join("hub/data/datasets").join(data.file))
        .arg(options.shared.join(TOKENIZER))
        .arg(data.columns)
        .args([job.length, job.batch, 64].map(|number| number.to_string()))
        .arg(folder.join(job.name))
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("no batches of {}", data.file))
    }
}

fn run() -> Result<(), String> {
    let options = options()?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build_global()
        .map_err(|error| error.to_string())?;
    let of = |column| match column {
        Column::Same => jobs(),
        Column::User => user_jobs(),
    };
    let jobs: Vec<Job> = options
        .columns
        .iter()
        .flat_map(|&column| of(column))
        .collect();
    if let Some((name, batches, init)) = &options.one {
        let job = jobs
            .iter()
            .find(|job| job.name == name)
            .ok_or("no such job")?;
        let time = Duration::from_secs_f64(options.seconds);
        let batches = read_batches(batches)?;
        let round = within(|| measure(job, &batches, init.as_deref(), time))?;
        println!(
            "{}",
            json!({
                "step": round.step,
                "evaluation": round.evaluation,
                "memory": round.memory,
                "cores": round.cores,
                "faults": round.faults,
            })
        );
        return Ok(());
    }
    println!(
        "{}, {} threads, {} rounds; peak of fused multiply-adds: {:.0} GFLOP/s",
        cpu_name(),
        options.threads,
        options.rounds,
        peak_gflops()
    );
    println!(
        "{:<17} {:<8} {:>9} {:>9} {:>8} {:>7} {:>7} {:>5} {:>6} | {:>9} {:>9} {:>8} {:>7} | {:>7} {:>7} {:>6}",
        "job",
        "",
        "ms/step",
        "rows/s",
        "ms eval",
        "MiB",
        "GFLOP/s",
        "cores",
        "faults",
        "PyTorch",
        "rows/s",
        "ms eval",
        "MiB",
        "train",
        "eval",
        "memory"
    );
    let folder = std::env::temp_dir().join(format!("taper-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let wanted = |job: &&Job| {
        options
            .jobs
            .as_ref()
            .is_none_or(|names| names.split(',').any(|name| name == job.name))
    };
    let mut outcome = Ok(());
    for job in jobs.iter().filter(wanted) {
        outcome = compare(&options, job, &folder);
        if outcome.is_err() {
            break;
        }
    }
    std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
    outcome
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}
