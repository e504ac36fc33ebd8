//! A network in training: its weights, their gradients and the optimizer, kept in step with each other.
//!
//! Of a gathered tensor (word embeddings) a step touches the rows that its batches name and no others:
//! they are brought up to date before the network reads them, their gradients are cleared when the step is
//! made, and everything else is left where it lies in memory. [`Learner::settle`] brings up the rest.

use std::ops::Range;

use crate::loss::{Loss, LossSum};
use crate::optimizer::{Optimizer, State, Step, square};
use crate::pages::zeros_behind;
use crate::parameters::Parameters;
use crate::{Batch, Dropout, Gradients, Network, Real};

/// See the module.
#[derive(Debug)]
pub struct Learner<R> {
    parameters: Parameters,
    weights: Vec<R>,
    gradients: Vec<R>,
    optimizer: Optimizer<R>,
    /// Whether there is no gradient of the next step yet.
    new: bool,
    /// The rows of gathered tensors that batches have named since the last step, ascending.
    named: Vec<u32>,
    logits_gradient: Vec<R>,
}

impl<R: Real> Learner<R> {
    /// Begins with these weights, in the layout of `parameters`.
    pub fn new(parameters: Parameters, weights: Vec<R>, optimizer: Optimizer<R>) -> Self {
        assert_eq!(weights.len(), parameters.buffer_len(), "weights in layout");
        Self {
            gradients: zeros_behind(parameters.gathered_end(), weights.len()),
            parameters,
            weights,
            optimizer,
            new: true,
            named: Vec::new(),
            logits_gradient: Vec::new(),
        }
    }

    /// Goes on from a checkpoint; answers `false`, and changes nothing, where it is of another layout.
    pub fn restore(&mut self, weights: Vec<R>, state: State<R>) -> bool {
        let fits = weights.len() == self.weights.len() && self.optimizer.restore(state);
        if fits {
            self.weights = weights;
        }
        fits
    }

    /// Adds the gradient of `share` times the batch's loss to the step's; answers the loss and the logits.
    pub fn add_batch(
        &mut self,
        network: &mut dyn Network<R>,
        batch: &Batch,
        dropout: &Dropout,
        loss: &Loss,
        share: f64,
    ) -> (LossSum, Vec<R>) {
        let answer = self.forward(network, batch, dropout, loss, share);
        let gradients = Gradients::part(&mut self.gradients, 0, self.new);
        network.backward(&self.weights, batch, &self.logits_gradient, gradients);
        self.new = false;
        answer
    }

    /// The norm of the step's gradient.
    pub fn gradient_norm(&self) -> f64 {
        let mut squares = vec![0.0; self.parameters.tensors().len()];
        let all = (0..self.gradients.len(), &self.gradients[..]);
        square(&self.parameters, all, &mut squares);
        norm(&squares)
    }

    /// Makes a step against the gradient, multiplied by `scale`.
    pub fn step(&mut self, learning_rate: f64, scale: f64) {
        let step = Step {
            named: &self.named,
            learning_rate,
            scale,
        };
        let all = (0..self.gradients.len(), &self.gradients[..]);
        self.optimizer.begin_step();
        self.optimizer
            .move_part(&self.parameters, &mut self.weights, all, &step);
        self.clear();
    }

    /// A step against the gradient of one batch, to the same bits as [`Learner::add_batch`] and [`Learner::step`],
    /// but each part of the network makes it as soon as its gradient is there: the gradients of all parts take
    /// turns in one place, and memory is passed over less often. Answers the loss, the logits, and the norm of the
    /// gradient where it `measures`. Where the loss is not finite, no step is made.
    pub fn step_at_once(
        &mut self,
        network: &mut dyn Network<R>,
        batch: &Batch,
        (dropout, loss): (&Dropout, &Loss),
        learning_rate: f64,
        measures: bool,
    ) -> (LossSum, Vec<R>, Option<f64>) {
        let (sum, logits) = self.forward(network, batch, dropout, loss, 1.0);
        if !sum.mean().is_finite() {
            return (sum, logits, None);
        }
        let step = Step {
            named: &self.named,
            learning_rate,
            scale: 1.0,
        };
        let mut squares = vec![0.0; self.parameters.tensors().len()];
        self.optimizer.begin_step();
        for (index, (part, place)) in self.places(network.parts()).into_iter().enumerate() {
            let gradients = &mut self.gradients[place..place + part.len()];
            let target = Gradients::part(gradients, part.start, true);
            let weights = &self.weights;
            network.backward_part(index, weights, batch, &self.logits_gradient, target);
            let part = (part, &*gradients);
            if measures {
                square(&self.parameters, part.clone(), &mut squares);
            }
            self.optimizer
                .move_part(&self.parameters, &mut self.weights, part, &step);
        }
        self.clear();
        (sum, logits, measures.then(|| norm(&squares)))
    }

    /// The loss and the logits of a batch; the gradient of the logits is kept.
    fn forward(
        &mut self,
        network: &mut dyn Network<R>,
        batch: &Batch,
        dropout: &Dropout,
        loss: &Loss,
        share: f64,
    ) -> (LossSum, Vec<R>) {
        let named = batch.named();
        self.optimizer
            .catch_up(&self.parameters, &mut self.weights, &named);
        let logits = network.forward(&self.weights, batch, Some(dropout));
        self.logits_gradient.clear();
        self.logits_gradient.resize(logits.len(), R::ZERO);
        let sum = loss.gradient(&logits, &batch.labels, share, &mut self.logits_gradient);
        if self.named.is_empty() {
            self.named = named;
        } else {
            self.named.extend(named);
            self.named.sort_unstable();
            self.named.dedup();
        }
        (sum, logits)
    }

    /// Where the gradients of each part are while they are needed: those without gathered tensors take turns in the
    /// place of the longest.
    fn places(&self, parts: Vec<Range<usize>>) -> Vec<(Range<usize>, usize)> {
        let stays = |part: &Range<usize>| {
            let mut gathered = self.parameters.tensors().iter().filter(|t| t.gathered);
            gathered.any(|tensor| part.contains(&tensor.offset))
        };
        let others = parts.iter().filter(|part| !stays(part));
        let longest = others.max_by_key(|part| part.len()).cloned();
        parts
            .into_iter()
            .map(|part| match &longest {
                Some(longest) if !stays(&part) => (part, longest.start),
                _ => (part.clone(), part.start),
            })
            .collect()
    }

    /// Makes ready for the gradients of the next step: those of gathered tensors are added to zeros, the others
    /// written.
    fn clear(&mut self) {
        for tensor in self.parameters.tensors() {
            if let [_, width] = tensor.shape[..]
                && tensor.gathered
            {
                let gradients = &mut self.gradients[tensor.range()];
                for &row in &self.named {
                    gradients[row as usize * width..][..width].fill(R::ZERO);
                }
            }
        }
        self.named.clear();
        self.new = true;
    }

    /// Brings all weights and moments up to date, to be read.
    pub fn settle(&mut self) -> (&[R], &State<R>) {
        self.optimizer.settle(&self.parameters, &mut self.weights);
        (&self.weights, self.optimizer.state())
    }

    /// The weights at the end.
    pub fn into_weights(mut self) -> Vec<R> {
        self.settle();
        self.weights
    }
}

/// The length of the gradient whose tensors have these squares.
fn norm(squares: &[f64]) -> f64 {
    libm::sqrt(squares.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Architecture, BertConfig, Pooling};
    use crate::optimizer::{Adam, Rule};

    fn batch(step: u32) -> Batch {
        Batch {
            ids: (0..7).map(|token| (token * 5 + step) % 11).collect(),
            offsets: vec![0, 3, 4, 7],
            rows: vec![0, 1, 2],
            labels: vec![0, 1, step % 2],
            ..Batch::default()
        }
    }

    /// With steps that take several batches in between, so that one way finds what the other has left.
    #[test]
    fn at_once_is_one_after_the_other() {
        for (pooling, frozen) in [(Pooling::Pooler, 0), (Pooling::Cls, 0), (Pooling::Mean, 9)] {
            let architecture = Architecture::Bert(BertConfig {
                vocab_size: 11,
                hidden_size: 16,
                layers: 3,
                heads: 2,
                intermediate_size: 24,
                max_positions: 9,
                type_vocab_size: 2,
                padding_id: Some(0),
                layer_norm_eps: 1e-12,
                initializer_range: 0.3,
                hidden_dropout: 0.2,
                attention_dropout: 0.1,
                head_dropout: 0.1,
                pooling,
                outputs: 2,
            });
            let dropout = Dropout { seed: 3, epoch: 0 };
            let train = |at_once: bool| {
                let mut network = architecture.build::<f32>();
                for tensor in &mut network.parameters_mut().tensors_mut()[..frozen] {
                    tensor.trained = false;
                }
                let parameters = network.parameters().clone();
                let weights = parameters.initialize(1);
                let optimizer = Optimizer::new(Rule::AdamW(Adam::ADAMW), &[], &parameters);
                let mut learner = Learner::new(parameters, weights, optimizer);
                let mut seen = Vec::new();
                for step in 0..9 {
                    let batch = batch(step);
                    let with = (&dropout, &Loss::CROSS_ENTROPY);
                    if at_once && step % 4 != 2 {
                        seen.push(learner.step_at_once(&mut *network, &batch, with, 1e-2, true));
                        continue;
                    }
                    let shares: &[f64] = if step % 4 == 2 { &[0.5, 0.5] } else { &[1.0] };
                    let mut answer = (LossSum::default(), Vec::new());
                    for &share in shares {
                        answer = learner.add_batch(&mut *network, &batch, with.0, with.1, share);
                    }
                    let (sum, logits) = answer;
                    seen.push((sum, logits, Some(learner.gradient_norm())));
                    learner.step(1e-2, 1.0);
                }
                (seen, learner.into_weights())
            };
            assert_eq!(train(true), train(false), "{pooling:?}");
        }
    }
}
