//! Fine-tuning steps of BERT on a GPU: forward, loss, backward, AdamW, dropout 0.1; random tokens and weights, as
//! PyTorch's side of the comparison has them. Prints samples a second, and with `--profile` where the time goes.
//!
//!     cargo bench -p taper-nn --features cuda --bench gpu -- --precisions f32,tf32,bf16 --batches 32,64 --lengths 128,256
//!
//! `--simulated` runs a step of a tiny network on the simulated device: it shows that this program works, not how fast.
#![expect(clippy::print_stdout, reason = "a benchmark tells what it measured")]

use std::time::Instant;

use taper_nn::device::{Card, DeviceLearner, Fault, Precision, cuda_devices};
use taper_nn::loss::Loss;
use taper_nn::model::{Architecture, BertConfig};
use taper_nn::optimizer::{Adam, Optimizer, Rule};
use taper_nn::random::{Purpose, Stream};
use taper_nn::{Batch, Dropout, Learning};

/// What to measure.
struct Options {
    precisions: Vec<Precision>,
    batches: Vec<usize>,
    lengths: Vec<usize>,
    steps: u32,
    warm_up: u32,
    padded: bool,
    profile: bool,
    simulated: bool,
    json: Option<String>,
}

impl Options {
    fn read() -> Result<Self, String> {
        let mut options = Self {
            precisions: vec![Precision::F32, Precision::Tf32, Precision::Bf16],
            batches: vec![32, 64],
            lengths: vec![128, 256],
            steps: 30,
            warm_up: 8,
            padded: false,
            profile: false,
            simulated: false,
            json: None,
        };
        let mut arguments = std::env::args().skip(1).filter(|one| one != "--bench");
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} wants a value"));
            match name.as_str() {
                "--precisions" => options.precisions = list(&value()?, precision)?,
                "--batches" => options.batches = list(&value()?, number)?,
                "--lengths" => options.lengths = list(&value()?, number)?,
                "--steps" => options.steps = number(&value()?)? as u32,
                "--json" => options.json = Some(value()?),
                "--padded" => options.padded = true,
                "--profile" => options.profile = true,
                "--simulated" => options.simulated = true,
                other => return Err(format!("there is no option {other}")),
            }
        }
        Ok(options)
    }

    fn card(&self, precision: Precision) -> Result<Card, Fault> {
        #[cfg(feature = "simulation")]
        if self.simulated {
            return Ok(Card::simulated(Default::default(), precision));
        }
        Card::cuda(0, precision)
    }

    fn architecture(&self) -> Architecture {
        let base = BertConfig::base();
        Architecture::Bert(match self.simulated {
            false => base,
            true => BertConfig {
                hidden_size: 32,
                layers: 2,
                heads: 2,
                intermediate_size: 128,
                ..base
            },
        })
    }
}

fn list<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(read).collect()
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn precision(text: &str) -> Result<Precision, String> {
    match text {
        "f32" => Ok(Precision::F32),
        "tf32" => Ok(Precision::Tf32),
        "bf16" => Ok(Precision::Bf16),
        other => Err(format!("there is no precision {other}")),
    }
}

/// Rows of random tokens; `padded`, of half the length at least.
fn batch(rows: usize, length: usize, padded: bool, step: u64) -> Batch {
    let stream = Stream::new(1, Purpose::Test).child(step);
    let mut batch = Batch {
        offsets: vec![0],
        width: length,
        ..Batch::default()
    };
    for row in 0..rows as u64 {
        let stream = stream.child(row);
        let half = length as u64 / 2;
        let tokens = if padded {
            half + stream.below(0, half + 1)
        } else {
            length as u64
        };
        batch
            .ids
            .extend((0..tokens).map(|at| 1 + stream.below(1 + at, 30_521) as u32));
        batch.offsets.push(batch.ids.len() as u32);
        batch.rows.push(step * rows as u64 + row);
        batch.labels.push(row as u32 % 2);
    }
    batch
}

fn measure(
    options: &Options,
    precision: Precision,
    (rows, length): (usize, usize),
) -> Result<serde_json::Value, Fault> {
    let architecture = options.architecture();
    let parameters = architecture.parameters();
    let rule = Rule::AdamW(Adam::ADAMW);
    let optimizer = Optimizer::new(rule, &[], &parameters);
    let weights = parameters.initialize(1);
    let card = options.card(precision)?;
    let mut learner = DeviceLearner::new(card, &architecture, &parameters, weights, optimizer)?;
    let dropout = Dropout { seed: 1, epoch: 0 };
    let batches: Vec<Batch> = (0..8)
        .map(|step| batch(rows, length, options.padded, step))
        .collect();
    let step = |learner: &mut DeviceLearner, index: u32| {
        let batch = &batches[index as usize % batches.len()];
        let (sum, _) = learner.add_batch(batch, &dropout, &Loss::CROSS_ENTROPY, 1.0)?;
        learner.step(2e-5, 1.0)?;
        Ok::<f64, Fault>(sum.mean())
    };
    let mut loss = 0.0;
    for index in 0..options.warm_up {
        step(&mut learner, index)?;
    }
    learner.gradient_norm()?; // waits
    let begun = Instant::now();
    for index in 0..options.steps {
        loss = step(&mut learner, index)?;
    }
    learner.gradient_norm()?;
    let seconds = begun.elapsed().as_secs_f64() / f64::from(options.steps);
    let (lasting, passing) = learner.bytes();
    let per_second = rows as f64 / seconds;
    println!(
        "{precision:?} batch {rows} length {length}: {:.2} ms a step, {per_second:.1} samples/s, {:.1} GiB, loss {loss:.4}",
        seconds * 1e3,
        (lasting + passing) as f64 / f64::from(1 << 30)
    );
    if options.profile {
        let card = learner.card().clone();
        let spent = card.traced(|| step(&mut learner, 0).map(drop))?;
        let total: f64 = spent.iter().map(|spent| spent.milliseconds).sum();
        for one in &spent {
            println!(
                "    {:6.3} ms {:5.1} % {:4} x {}",
                one.milliseconds,
                100.0 * one.milliseconds / total.max(f64::MIN_POSITIVE),
                one.count,
                one.name
            );
        }
    }
    Ok(serde_json::json!({
        "precision": format!("{precision:?}").to_lowercase(),
        "batch": rows,
        "length": length,
        "padded": options.padded,
        "ms": seconds * 1e3,
        "samples_per_s": per_second,
        "bytes": lasting + passing,
        "loss": loss,
    }))
}

fn run() -> Result<(), String> {
    let options = Options::read()?;
    if !options.simulated {
        for device in cuda_devices().map_err(|fault| fault.to_string())? {
            println!("{device:?}");
        }
    }
    let mut rows = Vec::new();
    for &precision in &options.precisions {
        for &batch in &options.batches {
            for &length in &options.lengths {
                match measure(&options, precision, (batch, length)) {
                    Ok(row) => rows.push(row),
                    Err(fault) => println!("{precision:?} batch {batch} length {length}: {fault}"),
                }
            }
        }
    }
    if let Some(path) = &options.json {
        let file = std::fs::File::create(path).map_err(|error| format!("{path}: {error}"))?;
        serde_json::to_writer_pretty(file, &rows).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(message) => {
            println!("{message}");
            std::process::ExitCode::FAILURE
        }
    }
}
