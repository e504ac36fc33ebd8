//! Optimizers: what a step does to the weights, with PyTorch's arithmetic and defaults.
//!
//! The moments lie in buffers of the layout of the weights. A tensor that is not trained is left alone
//! altogether: no decay, no moments, no part in the norm of the gradient. Rows of a gathered tensor make
//! the steps in which no batch names them later, to the same bits ([`Backlog`]); [`crate::Learner`] sees to it
//! that nobody reads them before.

use std::ops::Range;

use crate::Real;
use crate::kernels::{self, AdamStep, Backlog, SgdStep, sum_of_squares};
use crate::pages::zeros_behind;
use crate::parameters::{Parameters, Tensor};

/// Adam's constants, for both of its forms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// How much of the first and of the second moment is kept from step to step.
    pub betas: [f64; 2],
    /// Added to the root of the second moment, after its correction.
    pub eps: f64,
    /// How fast weights decay: decoupled from the gradient in AdamW, part of it in Adam.
    pub weight_decay: f64,
}

impl Adam {
    /// The defaults of `torch.optim.Adam`.
    pub const ADAM: Self = Self {
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: 0.0,
    };
    /// The defaults of `torch.optim.AdamW`.
    pub const ADAMW: Self = Self {
        weight_decay: 0.01,
        ..Self::ADAM
    };
}

/// The constants of stochastic gradient descent; the default is that of `torch.optim.SGD`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sgd {
    /// How much of the last step's direction is kept.
    pub momentum: f64,
    /// Added to the gradient, times the weight.
    pub weight_decay: f64,
}

/// Which optimizer, with what constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Adam: weight decay is part of the gradient.
    Adam(Adam),
    /// AdamW: weights decay by themselves, `p (1 - lr decay)` before each update.
    AdamW(Adam),
    /// Stochastic gradient descent.
    Sgd(Sgd),
}

/// What a step does to a tensor.
pub(crate) enum Arithmetic {
    Adam(AdamStep),
    Sgd(SgdStep),
}

impl Rule {
    /// That of step number `step` for a tensor of this weight decay.
    pub(crate) fn arithmetic(
        self,
        decay: f64,
        step: u64,
        learning_rate: f64,
        gradient_scale: f64,
    ) -> Arithmetic {
        let (adam, weight_decay, l2) = match self {
            Self::Adam(adam) => (adam, 0.0, decay),
            Self::AdamW(adam) => (adam, decay, 0.0),
            Self::Sgd(descent) => {
                return Arithmetic::Sgd(SgdStep {
                    learning_rate,
                    momentum: descent.momentum,
                    l2: decay,
                    gradient_scale,
                });
            }
        };
        Arithmetic::Adam(AdamStep {
            learning_rate,
            betas: adam.betas,
            epsilon: adam.eps,
            weight_decay,
            l2,
            step,
            gradient_scale,
        })
    }

    pub(crate) fn weight_decay(&self) -> f64 {
        match self {
            Self::Adam(adam) | Self::AdamW(adam) => adam.weight_decay,
            Self::Sgd(sgd) => sgd.weight_decay,
        }
    }
}

/// Steps that rows may miss before all make them.
const LONGEST_BACKLOG: usize = 4096;

/// All that an optimizer remembers from step to step: with the weights, what a checkpoint must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct State<R> {
    /// How many steps were made.
    pub step: u64,
    /// Adam's first moment, or the momentum; empty where the rule has none.
    pub first: Vec<R>,
    /// Adam's second moment; empty where the rule has none.
    pub second: Vec<R>,
}

/// An optimizer and its state.
#[derive(Clone, Debug)]
pub struct Optimizer<R> {
    rule: Rule,
    no_decay: Vec<String>,
    state: State<R>,
    /// For each tensor the steps that its rows have missed, where they may.
    backlogs: Vec<Option<Backlog<R>>>,
}

impl<R: Real> Optimizer<R> {
    /// An optimizer for a network's weights, before its first step. Tensors whose name contains one of
    /// `no_decay` do not decay.
    pub fn new(rule: Rule, no_decay: &[String], parameters: &Parameters) -> Self {
        let len = parameters.buffer_len();
        let (first, second) = match rule {
            Rule::Adam(_) | Rule::AdamW(_) => (len, len),
            Rule::Sgd(sgd) if sgd.momentum != 0.0 => (len, 0),
            Rule::Sgd(_) => (0, 0),
        };
        let mut optimizer = Self {
            rule,
            backlogs: Vec::new(),
            no_decay: no_decay.to_vec(),
            state: State {
                step: 0,
                first: Vec::new(),
                second: Vec::new(),
            },
        };
        let tensors = parameters.tensors().iter();
        optimizer.backlogs = tensors.map(|tensor| optimizer.backlog(tensor)).collect();
        let few = match optimizer.backlogs.iter().any(Option::is_some) {
            true => parameters.gathered_end(),
            false => 0,
        };
        optimizer.state.first = zeros_behind(few, first);
        optimizer.state.second = zeros_behind(few, second);
        optimizer
    }

    /// That of a gathered tensor whose rows have no gradient where no batch names them: Adam's decay would be one.
    fn backlog(&self, tensor: &Tensor) -> Option<Backlog<R>> {
        let may_wait = match self.rule {
            Rule::AdamW(_) => true,
            Rule::Adam(_) => self.weight_decay(tensor) == 0.0,
            Rule::Sgd(_) => false,
        };
        let [rows, width] = tensor.shape[..].try_into().ok()?;
        (may_wait && tensor.gathered && tensor.trained).then(|| Backlog::new(rows, width))
    }

    /// What it does.
    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }

    /// What a checkpoint must hold, after [`crate::Learner::settle`].
    pub fn state(&self) -> &State<R> {
        &self.state
    }

    /// Goes on from a checkpoint's state; answers `false`, and changes nothing, where its buffers are
    /// not as long as this optimizer's.
    pub fn restore(&mut self, state: State<R>) -> bool {
        let fits = state.first.len() == self.state.first.len()
            && state.second.len() == self.state.second.len();
        if fits {
            self.state = state;
            for backlog in self.backlogs.iter_mut().flatten() {
                backlog.have_moments();
            }
        }
        fits
    }

    /// Lets the rows `named` of gathered tensors, ascending, make the steps that they have missed.
    pub(crate) fn catch_up(&mut self, parameters: &Parameters, weights: &mut [R], named: &[u32]) {
        self.backlogs(parameters, weights, |backlog, weights, first, second| {
            backlog.catch_up(named, weights, first, second);
        });
    }

    /// Lets all rows make the steps that they have missed.
    pub(crate) fn settle(&mut self, parameters: &Parameters, weights: &mut [R]) {
        self.backlogs(parameters, weights, |backlog, weights, first, second| {
            if !backlog.is_empty() {
                backlog.settle(weights, first, second);
            }
        });
    }

    fn backlogs(
        &mut self,
        parameters: &Parameters,
        weights: &mut [R],
        work: impl Fn(&mut Backlog<R>, &mut [R], &mut [R], &mut [R]),
    ) {
        for (tensor, backlog) in parameters.tensors().iter().zip(&mut self.backlogs) {
            if let Some(backlog) = backlog {
                let State { first, second, .. } = &mut self.state;
                let range = tensor.range();
                let (first, second) = (&mut first[range.clone()], &mut second[range.clone()]);
                work(backlog, &mut weights[range], first, second);
            }
        }
    }

    /// Begins a step: [`Optimizer::move_part`] makes it.
    pub(crate) fn begin_step(&mut self) {
        self.state.step += 1;
    }

    /// Makes the step for the tensors that lie in `part` of the parameters, against their `gradients`, which
    /// begin where it does.
    pub(crate) fn move_part(
        &mut self,
        parameters: &Parameters,
        weights: &mut [R],
        (part, gradients): (Range<usize>, &[R]),
        step: &Step<'_>,
    ) {
        let &Step {
            named,
            learning_rate,
            scale,
        } = step;
        for (index, tensor) in parameters.tensors().iter().enumerate() {
            if !tensor.trained || !part.contains(&tensor.offset) {
                continue;
            }
            let decay = self.weight_decay(tensor);
            let range = tensor.range();
            let weights = &mut weights[range.clone()];
            let gradients = &gradients[range.start - part.start..range.end - part.start];
            let State {
                step,
                first,
                second,
            } = &mut self.state;
            match self.rule.arithmetic(decay, *step, learning_rate, scale) {
                Arithmetic::Adam(step) => {
                    let (first, second) = (&mut first[range.clone()], &mut second[range]);
                    match &mut self.backlogs[index] {
                        None => kernels::adam(&step, weights, gradients, first, second),
                        Some(backlog) => {
                            backlog.step(&step, named, weights, gradients, first, second);
                            if backlog.len() >= LONGEST_BACKLOG {
                                backlog.settle(weights, first, second);
                            }
                        }
                    }
                }
                Arithmetic::Sgd(step) => {
                    let velocity = (!first.is_empty()).then(|| &mut first[range]);
                    kernels::sgd(&step, weights, gradients, velocity);
                }
            }
        }
    }

    pub(crate) fn weight_decay(&self, tensor: &Tensor) -> f64 {
        let spared = self
            .no_decay
            .iter()
            .any(|pattern| tensor.name.contains(pattern.as_str()));
        if spared {
            0.0
        } else {
            self.rule.weight_decay()
        }
    }
}

/// The squares of the gradients that lie in `part` of the parameters and begin where it does: in double, one sum
/// for each trained tensor, in its place of `squares`.
pub(crate) fn square<R: Real>(
    parameters: &Parameters,
    (part, gradients): (Range<usize>, &[R]),
    squares: &mut [f64],
) {
    for (tensor, sum) in parameters.tensors().iter().zip(squares) {
        if tensor.trained && part.contains(&tensor.offset) {
            let range = tensor.range();
            *sum = sum_of_squares(&gradients[range.start - part.start..range.end - part.start]);
        }
    }
}

/// What a step is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a> {
    /// The rows of gathered tensors that have a gradient, ascending and caught up.
    pub named: &'a [u32],
    pub learning_rate: f64,
    /// What gradients are multiplied by first, as [`clip_scale`] says, or 1.
    pub scale: f64,
}

/// What gradients of norm `norm` are multiplied by so that their norm is at most `limit`: as
/// `torch.nn.utils.clip_grad_norm_`, `limit / (norm + 1e-6)` where that is below 1.
pub fn clip_scale(norm: f64, limit: f64) -> f64 {
    (limit / (norm + 1e-6)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Initial;

    fn parameters() -> Parameters {
        let mut parameters = Parameters::default();
        parameters.add("layer.weight", &[2], Initial::Ones);
        parameters.add("layer.bias", &[1], Initial::Ones);
        parameters.add("frozen", &[1], Initial::Ones);
        parameters.tensors_mut()[2].trained = false;
        parameters
    }

    fn step<R: Real>(
        optimizer: &mut Optimizer<R>,
        parameters: &Parameters,
        weights: &mut [R],
        gradients: &[R],
        scale: f64,
    ) {
        let step = Step {
            named: &[],
            learning_rate: 0.1,
            scale,
        };
        optimizer.begin_step();
        optimizer.move_part(parameters, weights, (0..gradients.len(), gradients), &step);
    }

    fn after(rule: Rule, steps: usize) -> Vec<f64> {
        let parameters = parameters();
        let mut weights = vec![1.0; parameters.buffer_len()];
        let gradients = vec![0.5; parameters.buffer_len()];
        let mut optimizer = Optimizer::new(rule, &["bias".to_owned()], &parameters);
        for _ in 0..steps {
            step(&mut optimizer, &parameters, &mut weights, &gradients, 1.0);
        }
        let at = |i: usize| weights[parameters.tensors()[i].offset];
        vec![at(0), at(1), at(2)]
    }

    fn assert_near(got: &[f64], expected: &[f64]) {
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-8, "{got} is not {expected}");
        }
    }

    #[test]
    fn a_constant_gradient_moves_adam_by_the_learning_rate() {
        let decayed = Adam {
            weight_decay: 0.5,
            ..Adam::ADAM
        };
        assert_near(&after(Rule::Adam(Adam::ADAM), 3), &[0.7, 0.7, 1.0]);
        assert_near(&after(Rule::AdamW(decayed), 1), &[0.85, 0.9, 1.0]);
        assert_near(&after(Rule::Adam(decayed), 1), &[0.9, 0.9, 1.0]);
    }

    #[test]
    fn descent_follows_its_definition() {
        let plain = Sgd::default();
        assert_near(&after(Rule::Sgd(plain), 2), &[0.9, 0.9, 1.0]);
        let momentum = Sgd {
            momentum: 0.9,
            ..plain
        };
        assert_near(&after(Rule::Sgd(momentum), 2), &[0.855, 0.855, 1.0]);
        let decayed = Sgd {
            weight_decay: 1.0,
            ..plain
        };
        assert_near(&after(Rule::Sgd(decayed), 1), &[0.85, 0.95, 1.0]);
    }

    #[test]
    fn a_step_after_a_restore_is_the_step_without() {
        let parameters = parameters();
        let gradients: Vec<f32> = (0..parameters.buffer_len()).map(|i| i as f32).collect();
        let mut weights = vec![1.0; parameters.buffer_len()];
        let mut optimizer = Optimizer::new(Rule::AdamW(Adam::ADAMW), &[], &parameters);
        step(&mut optimizer, &parameters, &mut weights, &gradients, 1.0);
        let mut other = Optimizer::new(Rule::AdamW(Adam::ADAMW), &[], &parameters);
        assert!(other.restore(optimizer.state().clone()));
        let mut others = weights.clone();
        step(&mut optimizer, &parameters, &mut weights, &gradients, 0.5);
        step(&mut other, &parameters, &mut others, &gradients, 0.5);
        assert_eq!(weights, others);
        assert!(!other.restore(State {
            step: 1,
            first: vec![0.0; 3],
            second: vec![0.0; 3],
        }));
    }

    #[test]
    fn the_norm_leaves_out_what_is_not_trained() {
        let parameters = parameters();
        let mut gradients = vec![0.0_f32; parameters.buffer_len()];
        for (tensor, value) in parameters.tensors().iter().zip([3.0, 4.0, 100.0]) {
            gradients[tensor.offset] = value;
        }
        let mut squares = [0.0; 3];
        square(&parameters, (0..gradients.len(), &gradients), &mut squares);
        assert_eq!(squares, [9.0, 16.0, 0.0]);
        let norm = 5.0;
        assert!((clip_scale(norm, 1.0) - 0.2).abs() < 1e-7);
        assert_eq!(clip_scale(norm, 10.0), 1.0);
    }
}
