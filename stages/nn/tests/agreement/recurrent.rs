//! Recurrent networks beside a plain computation of the equations in PyTorch's documentation
//! (`torch.nn.RNN`, `LSTM`, `GRU`), number by number, row by row.

use taper_nn::model::{Architecture, RecurrentConfig, RecurrentKind};
use taper_nn::{Batch, Parameters};

struct Plain<'a> {
    kind: RecurrentKind,
    hidden: usize,
    parameters: &'a Parameters,
    weights: &'a [f64],
}

impl Plain<'_> {
    fn tensor(&self, name: &str) -> &[f64] {
        let tensor = self.parameters.get(name).unwrap();
        &self.weights[tensor.range()]
    }

    /// `W x + b`.
    fn linear(&self, weight: &str, bias: &str, x: &[f64]) -> Vec<f64> {
        let rows = self.tensor(weight).chunks_exact(x.len());
        rows.zip(self.tensor(bias))
            .map(|(row, bias)| bias + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>())
            .collect()
    }

    /// The hidden state after each of `xs`, in their order.
    fn run(&self, suffix: &str, xs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (mut h, mut c) = (vec![0.0; self.hidden], vec![0.0; self.hidden]);
        let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
        let mut states = Vec::new();
        for x in xs {
            let side = |side: &str, x: &[f64]| {
                let weight = format!("rnn.weight_{side}_{suffix}");
                self.linear(&weight, &format!("rnn.bias_{side}_{suffix}"), x)
            };
            let (input, recurrent) = (side("ih", x), side("hh", &h));
            for j in 0..self.hidden {
                let part = |gate: usize| input[gate * self.hidden + j];
                let both = |gate: usize| part(gate) + recurrent[gate * self.hidden + j];
                h[j] = match self.kind {
                    RecurrentKind::RnnTanh => libm::tanh(both(0)),
                    RecurrentKind::RnnRelu => both(0).max(0.0),
                    RecurrentKind::Lstm => {
                        let (i, f, o) = (sigmoid(both(0)), sigmoid(both(1)), sigmoid(both(3)));
                        c[j] = f * c[j] + i * libm::tanh(both(2));
                        o * libm::tanh(c[j])
                    }
                    RecurrentKind::Gru => {
                        let (r, z) = (sigmoid(both(0)), sigmoid(both(1)));
                        let n = libm::tanh(part(2) + r * recurrent[2 * self.hidden + j]);
                        (1.0 - z) * n + z * h[j]
                    }
                };
            }
            states.push(h.clone());
        }
        states
    }
}

fn check(config: &RecurrentConfig) {
    let mut network = Architecture::Recurrent(config.clone()).build::<f64>();
    let weights: Vec<f64> = network.parameters().initialize(6);
    let batch = Batch {
        ids: vec![4, 1, 2, 6],
        offsets: vec![0, 1, 4],
        rows: vec![0, 1],
        width: 5,
        padding_id: 3,
        ..Batch::default()
    };
    let logits = network.forward(&weights, &batch, None);
    let plain = Plain {
        kind: config.kind,
        hidden: config.hidden_size,
        parameters: network.parameters(),
        weights: &weights,
    };
    let rows = [[4, 3, 3, 3, 3], [1, 2, 6, 3, 3]];
    for (row, ids) in rows.iter().enumerate() {
        let table = plain.tensor("embeddings.weight");
        let mut xs: Vec<Vec<f64>> = ids
            .iter()
            .map(|id| table[id * config.embedding_dim..][..config.embedding_dim].to_vec())
            .collect();
        for layer in 0..config.layers {
            let mut outputs = plain.run(&format!("l{layer}"), &xs);
            if config.bidirectional {
                xs.reverse();
                let mut back = plain.run(&format!("l{layer}_reverse"), &xs);
                back.reverse();
                for (output, back) in outputs.iter_mut().zip(back) {
                    output.extend(back);
                }
            }
            xs = outputs;
        }
        let last = xs.last().unwrap();
        let expected = plain.linear("output_layer.weight", "output_layer.bias", last);
        for (output, expected) in expected.iter().enumerate() {
            let got = logits[row * config.outputs + output];
            assert!(
                (got - expected).abs() < 1e-13,
                "{config:?}: {got} is not {expected}"
            );
        }
    }
}

#[test]
fn cells_follow_their_equations() {
    for kind in [
        RecurrentKind::RnnTanh,
        RecurrentKind::RnnRelu,
        RecurrentKind::Lstm,
        RecurrentKind::Gru,
    ] {
        for (layers, bidirectional) in [(1, false), (2, false), (1, true), (3, true)] {
            check(&RecurrentConfig {
                kind,
                vocab_size: 7,
                embedding_dim: 4,
                hidden_size: 5,
                layers,
                bidirectional,
                dropout: 0.5,
                head_dropout: 0.5,
                outputs: 3,
            });
        }
    }
}
