//! The kernels against the machine's roof: `cargo bench -p taper-nn --bench kernels [-- FILTER…]`.
//!
//! Prints GFLOP/s of each product and its share of what a plain loop of fused multiply-adds reaches on the
//! same threads just before, and GB/s of what only moves memory. Each figure is the best and the median of
//! the runs that fit in a fifth of a second. `RAYON_NUM_THREADS` says how many threads, `TAPER_CPU` which
//! level. On a machine that others use, `TAPER_BENCH_CLOCK=cpu` counts the time that the process had a
//! processor, divided by its threads.
#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use taper_nn::Dropout;
use taper_nn::kernels::dispatch::level;
use taper_nn::kernels::*;
use taper_nn::random::{Purpose, Stream};

/// How long one figure is measured.
const MEASURED: Duration = Duration::from_millis(200);

/// Seconds on the clock that `TAPER_BENCH_CLOCK` names.
fn now() -> f64 {
    static BUSY: LazyLock<bool> =
        LazyLock::new(|| std::env::var("TAPER_BENCH_CLOCK").is_ok_and(|clock| clock == "cpu"));
    let (clock, threads) = if *BUSY {
        (ClockId::ProcessCPUTime, taper_nn::parallel::threads())
    } else {
        (ClockId::Monotonic, 1)
    };
    let time = clock_gettime(clock);
    (time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9) / threads as f64
}

/// Seconds of one call: the best and the median.
fn seconds(mut call: impl FnMut()) -> (f64, f64) {
    call();
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < MEASURED || times.len() < 5 {
        let start = now();
        call();
        times.push(now() - start);
    }
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, Purpose::Test);
    let few: Vec<f32> = (0..4099)
        .map(|index| stream.uniform_f32(index) - 0.5)
        .collect();
    few.into_iter().cycle().take(len).collect()
}

fn peak() -> f64 {
    let mut operations = 0;
    let (best, _) = seconds(|| operations = black_box(peak::burn(black_box(400_000))).0);
    operations as f64 / best / 1e9
}

struct Report {
    filters: Vec<String>,
}

impl Report {
    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty()
            || self
                .filters
                .iter()
                .any(|filter| name.contains(filter.as_str()))
    }

    fn product(&self, name: &str, operations: f64, call: impl FnMut()) {
        if self.wants(name) {
            let peak = peak();
            let (best, median) = seconds(call);
            let (best_rate, median_rate) = (operations / best / 1e9, operations / median / 1e9);
            println!(
                "{name:44} {:9.1} us  {best_rate:6.1} GFLOP/s ({:.2} of {peak:.0}), median {median_rate:6.1} ({:.2})",
                best * 1e6,
                best_rate / peak,
                median_rate / peak
            );
        }
    }

    fn memory(&self, name: &str, bytes: usize, call: impl FnMut()) {
        if self.wants(name) {
            let (best, median) = seconds(call);
            println!(
                "{name:44} {:9.1} us  {:6.1} GB/s, median {:6.1}",
                best * 1e6,
                bytes as f64 / best / 1e9,
                bytes as f64 / median / 1e9
            );
        }
    }
}

fn linear(report: &Report, model: &str, tokens: usize, input: usize, output: usize) {
    let shape = format!("{tokens}x{output}x{input}");
    if !["forward", "dX", "dW"]
        .iter()
        .any(|way| report.wants(&format!("{model} {way} {shape}")))
    {
        return;
    }
    let x = numbers(tokens * input, 1);
    let weight = numbers(output * input, 2);
    let bias = numbers(output, 3);
    let mut y = numbers(tokens * output, 4);
    let mut dx = numbers(tokens * input, 5);
    let mut dw = numbers(output * input, 6);
    let operations = 2.0 * (tokens * input * output) as f64;
    report.product(&format!("{model} forward {shape}"), operations, || {
        gemm(
            Matrix::new(&x, tokens, input),
            Matrix::new(&weight, output, input).transposed(),
            MatrixMut::new(&mut y, tokens, output),
            Epilogue::Bias(&bias),
        );
    });
    report.product(&format!("{model} dX {shape}"), operations, || {
        gemm(
            Matrix::new(&y, tokens, output),
            Matrix::new(&weight, output, input),
            MatrixMut::new(&mut dx, tokens, input),
            Epilogue::Overwrite,
        );
    });
    report.product(&format!("{model} dW {shape}"), operations, || {
        gemm(
            Matrix::new(&y, tokens, output).transposed(),
            Matrix::new(&x, tokens, input),
            MatrixMut::new(&mut dw, output, input),
            Epilogue::Add,
        );
    });
}

fn attentions(report: &Report, name: &str, rows: usize, len: usize, heads: usize, hidden: usize) {
    let ways = ["", " dropout", " back", " dropout back"];
    if !ways
        .iter()
        .any(|way| report.wants(&format!("{name} attention{way}")))
    {
        return;
    }
    let tokens = rows * len;
    let offsets: Vec<u32> = (0..=rows).map(|row| (row * len) as u32).collect();
    let numbers_of_rows: Vec<u64> = (0..rows as u64).collect();
    let packed = Packed {
        offsets: &offsets,
        rows: &numbers_of_rows,
    };
    let mask = Mask::new(&Dropout { seed: 1, epoch: 0 }, 1, 0.1);
    let qkv = numbers(tokens * 3 * hidden, 1);
    let mut out = numbers(tokens * hidden, 2);
    let mut statistics = vec![0f32; tokens * heads * 2];
    let upstream = numbers(tokens * hidden, 3);
    let mut gradient = vec![0f32; tokens * 3 * hidden];
    let operations = 4.0 * (rows * len * len * hidden) as f64;
    for (kind, mask) in [("", None), (" dropout", Some(&mask))] {
        let shape = Attention {
            packed,
            heads,
            hidden,
            mask,
        };
        report.product(&format!("{name} attention{kind}"), operations, || {
            attention(&shape, Qkv::AllQueries(&qkv), &mut out, &mut statistics);
        });
        report.product(
            &format!("{name} attention{kind} back"),
            operations * 2.5,
            || {
                attention_backward(
                    &shape,
                    Qkv::AllQueries(&qkv),
                    &out,
                    &statistics,
                    &upstream,
                    Qkv::AllQueries(&mut gradient),
                );
            },
        );
    }
}

fn rows(report: &Report, name: &str, tokens: usize, width: usize) {
    let kernels = [
        "layer norm",
        "layer norm back",
        "dropout",
        "add layer norm dropout",
        "gelu",
        "copy, gelu back",
        "tanh",
        "column sums",
    ];
    if !kernels
        .iter()
        .any(|kernel| report.wants(&format!("{name} {kernel}")))
    {
        return;
    }
    let bytes = tokens * width * 4;
    let (gamma, beta) = (numbers(width, 1), numbers(width, 2));
    let norm = Normalization {
        gamma: &gamma,
        beta: &beta,
        epsilon: 1e-12,
    };
    let offsets = [0, tokens as u32];
    let packed = Packed {
        offsets: &offsets,
        rows: &[0],
    };
    let mask = Mask::new(&Dropout { seed: 1, epoch: 0 }, 1, 0.1);
    let mut x = numbers(tokens * width, 3);
    let mut y = numbers(tokens * width, 4);
    let residual = numbers(tokens * width, 5);
    let mut statistics = vec![0f32; 2 * tokens];
    let (mut dgamma, mut dbeta) = (vec![0f32; width], vec![0f32; width]);
    report.memory(&format!("{name} layer norm"), 2 * bytes, || {
        layer_norm(&norm, &x, &mut y, &mut statistics);
    });
    report.memory(&format!("{name} layer norm back"), 5 * bytes, || {
        layer_norm_backward(&norm, &x, &statistics, &mut y, &mut dgamma, &mut dbeta);
    });
    report.memory(&format!("{name} dropout"), 2 * bytes, || {
        dropout(&mask, packed, width, &mut y);
    });
    report.memory(&format!("{name} add layer norm dropout"), 4 * bytes, || {
        let dropped = Some((&mask, packed));
        add_layer_norm(&norm, dropped, &mut x, &residual, &mut y, &mut statistics);
    });
    report.memory(&format!("{name} gelu"), 2 * bytes, || gelu(&mut y, &x));
    // Numbers that are multiplied again and again would shrink to nothing.
    let mut z = x.clone();
    report.memory(&format!("{name} 2 copies, gelu back"), 8 * bytes, || {
        y.copy_from_slice(&x);
        z.copy_from_slice(&x);
        gelu_backward(&mut y, &mut z);
    });
    report.memory(&format!("{name} tanh"), 2 * bytes, || tanh(&mut y));
    report.memory(&format!("{name} column sums"), bytes, || {
        column_sums(Matrix::new(&x, tokens, width), &mut dgamma);
    });
}

fn optimizers(report: &Report, len: usize) {
    if !["adam", "sum of squares"]
        .iter()
        .any(|what| report.wants(&format!("{what} of {len}")))
    {
        return;
    }
    let mut tensors = [1, 2, 3, 4].map(|seed| numbers(len, seed));
    tensors[3].iter_mut().for_each(|x| *x *= *x);
    let [parameters, gradients, first, second] = &mut tensors;
    let step = AdamStep {
        learning_rate: 1e-5,
        betas: [0.9, 0.999],
        epsilon: 1e-8,
        weight_decay: 0.01,
        l2: 0.0,
        step: 10,
        gradient_scale: 1.0,
    };
    report.memory(&format!("adam of {len}"), 28 * len, || {
        adam(&step, parameters, gradients, first, second);
    });
    report.memory(&format!("sum of squares of {len}"), 4 * len, || {
        black_box(sum_of_squares(gradients));
    });
}

fn main() {
    let filters = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let report = Report { filters };
    let about = std::fs::File::open("/proc/cpuinfo")
        .map(std::io::BufReader::new)
        .map(|file| {
            use std::io::BufRead as _;
            file.lines().map_while(Result::ok).find_map(|line| {
                line.strip_prefix("model name")?
                    .split_once(':')
                    .map(|(_, name)| name.trim().to_owned())
            })
        });
    let name = about
        .ok()
        .flatten()
        .unwrap_or_else(|| "unknown CPU".to_owned());
    let threads = taper_nn::parallel::threads();
    println!(
        "{name}, {threads} threads, level {}, peak {:.0} GFLOP/s",
        level().name(),
        peak()
    );
    for (tokens, input, output) in [
        (536, 768, 768),
        (536, 768, 3072),
        (536, 3072, 768),
        (1600, 768, 768),
        (1600, 768, 3072),
        (1600, 3072, 768),
    ] {
        linear(&report, "bert-base", tokens, input, output);
    }
    for (tokens, input, output) in [(1024, 384, 384), (1024, 384, 1536), (1024, 1536, 384)] {
        linear(&report, "minilm", tokens, input, output);
    }
    for (tokens, input, output) in [
        (8192, 128, 128),
        (8192, 128, 512),
        (8192, 512, 128),
        (320, 128, 128),
        (320, 128, 512),
        (320, 512, 128),
    ] {
        linear(&report, "bert-tiny", tokens, input, output);
    }
    for (tokens, input, output) in [
        (1024, 192, 10),
        (8, 96, 96),
        (1024, 64, 96),
        (8, 768, 768),
        (101, 613, 77),
    ] {
        linear(&report, "small", tokens, input, output);
    }
    attentions(&report, "bert-base 8x200", 8, 200, 12, 768);
    attentions(&report, "bert-base 8x67", 8, 67, 12, 768);
    attentions(&report, "minilm 16x64", 16, 64, 12, 384);
    attentions(&report, "bert-tiny 32x256", 32, 256, 2, 128);
    attentions(&report, "bert-tiny 4x512", 4, 512, 2, 128);
    attentions(&report, "bert-tiny 32x10", 32, 10, 2, 128);
    rows(&report, "bert-base 1600x768", 1600, 768);
    rows(&report, "bert-base 1600x3072", 1600, 3072);
    rows(&report, "bert-tiny 8192x128", 8192, 128);
    rows(&report, "bert-tiny 320x128", 320, 128);
    optimizers(&report, 2_000_000);
    optimizers(&report, 30_000_000);
}
