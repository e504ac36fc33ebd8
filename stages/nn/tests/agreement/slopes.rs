//! Kernels and networks of any shape beside finite differences in `f64`.

use proptest::collection::vec;
use proptest::prelude::*;
use taper_nn::kernels;
use taper_nn::loss::Loss;
use taper_nn::model::{
    Architecture, BertConfig, Pooling, RecurrentConfig, RecurrentKind, TextCnnConfig,
};
use taper_nn::{Batch, Dropout};

use crate::gradients::{VOCAB_SIZE, batch, check};

/// The same cases at every run: now and then one is so near a kink of relu or max that it has no slope.
fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::with_cases(count)
    }
}

/// The slope of `value` at `x`, from four points around it.
fn slope(value: impl Fn(f64) -> f64, x: f64) -> f64 {
    let step = 1e-4;
    let near = value(x + step) - value(x - step);
    let far = value(x + 2.0 * step) - value(x - 2.0 * step);
    (8.0 * near - far) / (12.0 * step)
}

fn close(got: f64, expected: f64) -> Result<(), TestCaseError> {
    let off = (got - expected).abs() / (1.0 + expected.abs());
    prop_assert!(off < 1e-9, "{got} is not {expected}");
    Ok(())
}

/// A function of each number and its derivative, both in place: the derivative is given the results.
type InPlace = (fn(&mut [f64]), fn(&mut [f64], &[f64]));

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn functions_in_place(x in vec(-8.0..8.0_f64, 1..70), upstream in -3.0..3.0_f64) {
        let functions: [InPlace; 3] = [
            (kernels::tanh, kernels::tanh_backward),
            (kernels::sigmoid, kernels::sigmoid_backward),
            (kernels::relu, kernels::relu_backward),
        ];
        for (forward, backward) in functions {
            let mut y = x.clone();
            forward(&mut y);
            let mut gradient = vec![upstream; x.len()];
            backward(&mut gradient, &y);
            for (&x, got) in x.iter().zip(gradient).filter(|(x, _)| x.abs() > 1e-3) {
                let at = |x: f64| {
                    let mut y = [x];
                    forward(&mut y);
                    y[0]
                };
                close(got, upstream * slope(at, x))?;
            }
        }
    }

    #[test]
    fn gelu(x in vec(-8.0..8.0_f64, 1..70), upstream in -3.0..3.0_f64) {
        let mut gradient = vec![upstream; x.len()];
        let mut y = x.clone();
        kernels::gelu_backward(&mut gradient, &mut y);
        let mut expected = vec![0.0; x.len()];
        kernels::gelu(&mut expected, &x);
        prop_assert_eq!(y, expected);
        for (&x, got) in x.iter().zip(gradient) {
            let at = |x: f64| {
                let mut y = [0.0];
                kernels::gelu(&mut y, &[x]);
                y[0]
            };
            close(got, upstream * slope(at, x))?;
        }
    }

    /// Gathering is linear, so what goes back is its transpose: `<u, gather(t)> = <scatter(u), t>`.
    #[test]
    fn embeddings(
        ids in vec(0..9_u32, 1..80),
        width in 1..140_usize,
        seed in any::<u64>(),
    ) {
        let stream = taper_nn::random::Stream::new(seed, taper_nn::random::Purpose::Test);
        let numbers = |count: usize, child: u64| -> Vec<f64> {
            (0..count).map(|index| stream.child(child).normal(index as u64)).collect()
        };
        let table = numbers(9 * width, 1);
        let upstream = numbers(ids.len() * width, 2);
        let mut out = vec![0.0; upstream.len()];
        kernels::embedding(&[(&ids, &table)], width, &mut out);
        let mut gradient = vec![0.0; table.len()];
        kernels::embedding_backward(&ids, &upstream, width, &mut gradient);
        let product = |x: &[f64], y: &[f64]| -> f64 { x.iter().zip(y).map(|(x, y)| x * y).sum() };
        close(product(&out, &upstream), product(&gradient, &table))?;
    }

    /// Dropout multiplies by what depends on nothing but its address, so it is its own derivative.
    #[test]
    fn dropped(lengths in vec(1..9_usize, 1..5), width in 1..70_usize, probability in 0.05..0.95_f64) {
        let batch = batch(&lengths, 0);
        let mask = kernels::Mask::new(&Dropout { seed: 3, epoch: 1 }, 2, probability);
        let packed = kernels::Packed::of(&batch);
        let mut ones = vec![1.0; batch.tokens() * width];
        kernels::dropout(&mask, packed, width, &mut ones);
        let kept: f64 = mask.scale();
        prop_assert!(ones.iter().all(|&one| one == 0.0 || one == kept));
        let mut threes = vec![3.0; ones.len()];
        kernels::dropout(&mask, packed, width, &mut threes);
        for (one, three) in ones.iter().zip(threes) {
            close(three, 3.0 * one)?;
        }
    }
}

fn rows() -> impl Strategy<Value = Batch> {
    (vec(1..8_usize, 1..5), 0..4_usize).prop_map(|(lengths, behind)| batch(&lengths, behind))
}

fn losses(outputs: usize) -> impl Strategy<Value = Loss> {
    let classes = outputs.max(2);
    let weighted = (vec(0.2..3.0_f64, classes), 0.0..0.5_f64).prop_map(|(weights, smoothing)| {
        Loss::CrossEntropy {
            class_weights: Some(weights),
            label_smoothing: smoothing,
        }
    });
    prop_oneof![
        Just(Loss::BceWithLogits),
        Just(Loss::CROSS_ENTROPY),
        weighted
    ]
    .prop_filter("one output answers for two classes", move |loss| {
        outputs > 1 || *loss == Loss::BceWithLogits
    })
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn any_textcnn(
        (embedding_dim, filters, width) in (1..20_usize, 1..20_usize, 1..6_usize),
        (padding, dropout) in (0..4_usize, 0.0..0.6_f64),
        (batch, loss) in (rows(), losses(3)),
    ) {
        prop_assume!(batch.width + 2 * padding >= width && padding <= width);
        let config = TextCnnConfig {
            vocab_size: VOCAB_SIZE, embedding_dim, filters, width, padding, dropout, outputs: 3,
        };
        check(&Architecture::TextCnn(config), &loss, &[batch]);
    }

    #[test]
    fn any_recurrent(
        kind in prop_oneof![
            Just(RecurrentKind::RnnTanh), Just(RecurrentKind::Lstm), Just(RecurrentKind::Gru)
        ],
        (embedding_dim, hidden_size, layers) in (1..20_usize, 1..20_usize, 1..3_usize),
        (bidirectional, dropout) in (any::<bool>(), 0.0..0.6_f64),
        (batch, loss) in (rows(), losses(2)),
    ) {
        let config = RecurrentConfig {
            kind, vocab_size: VOCAB_SIZE, embedding_dim, hidden_size, layers, bidirectional,
            dropout: if layers > 1 { dropout } else { 0.0 },
            head_dropout: dropout, outputs: 2,
        };
        check(&Architecture::Recurrent(config), &loss, &[batch]);
    }

    #[test]
    fn any_bert(
        (heads, head_size, layers) in (1..4_usize, 1..20_usize, 1..3_usize),
        (intermediate_size, dropout) in (1..30_usize, 0.0..0.5_f64),
        pooling in prop_oneof![Just(Pooling::Cls), Just(Pooling::Pooler), Just(Pooling::Mean)],
        (batch, loss) in (rows(), losses(1)),
    ) {
        // Two numbers are normalised to plus or minus one: their slope is a step.
        prop_assume!(heads * head_size > 2);
        let config = BertConfig {
            vocab_size: VOCAB_SIZE, hidden_size: heads * head_size, layers, heads, intermediate_size,
            max_positions: 9, type_vocab_size: 2, padding_id: None, layer_norm_eps: 1e-12,
            initializer_range: 0.3, hidden_dropout: dropout, attention_dropout: dropout,
            head_dropout: dropout, pooling, outputs: 1,
        };
        check(&Architecture::Bert(config), &loss, &[batch]);
    }
}
