//! A network in training on a device, as [`crate::Learner`] on the CPU: weights, gradients and moments lie there, the loss
//! is computed here. And a network that only answers.
//!
//! A word that no batch names has a gradient of 0 and makes its step with all others: the same bits as later.

use std::sync::Arc;

use super::arena::Arena;
use super::batch::Inbox;
use super::bert::Bert;
use super::head::{Net, Pass, Weights};
use super::kernels::Chunk;
use super::memory::{Memory, download_floats, upload_floats};
use super::recurrent::Recurrent;
use super::sums::Sums;
use super::textcnn::TextCnn;
use super::{Address, Card, Device, Fault, Precision};
use crate::loss::{Loss, LossSum};
use crate::model::Architecture;
use crate::optimizer::{Arithmetic, Optimizer, State};
use crate::{Batch, Dropout, Learning, Parameters};

/// A network on a device with its weights.
#[derive(Debug)]
struct Engine {
    card: Card,
    net: Box<dyn Net>,
    outputs: usize,
    count: usize,
    weights: Memory,
    /// The same as products read them.
    narrow: Option<Memory>,
    arena: Arena,
    sums: Sums,
    inbox: Inbox,
}

impl Engine {
    fn new(
        card: Card,
        architecture: &Architecture,
        parameters: &Parameters,
        weights: &[f32],
    ) -> Result<Self, Fault> {
        let count = parameters.buffer_len();
        assert_eq!(weights.len(), count, "weights in layout");
        let net: Box<dyn Net> = match architecture {
            Architecture::Bert(config) => Box::new(Bert::new(config.clone(), parameters)?),
            Architecture::TextCnn(config) => Box::new(TextCnn::new(config.clone(), parameters)),
            Architecture::Recurrent(config) => {
                Box::new(Recurrent::new(config.clone(), parameters)?)
            }
        };
        let device = &card.device;
        let narrow = match card.precision {
            Precision::Bf16 => Some(Memory::new(device, count * 2)?),
            Precision::F32 | Precision::Tf32 => None,
        };
        let engine = Self {
            weights: Memory::new(device, count * 4)?,
            narrow,
            arena: Arena::new(device),
            sums: Sums::new(device),
            inbox: Inbox::new(device),
            outputs: architecture.outputs(),
            count,
            net,
            card,
        };
        engine.set_weights(weights)?;
        Ok(engine)
    }

    fn set_weights(&self, weights: &[f32]) -> Result<(), Fault> {
        let to = self.weights.address();
        upload_floats(&*self.card.device, weights, to)?;
        match &self.narrow {
            None => Ok(()),
            Some(narrow) => self.card.narrow_all(to, narrow.address(), self.count),
        }
    }

    /// Runs `work` on a batch.
    fn pass<T>(
        &mut self,
        batch: &Batch,
        dropout: Option<&Dropout>,
        work: impl FnOnce(&mut dyn Net, &mut Pass<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let layout = self.net.layout(batch);
        self.arena.clear();
        let mut pass = Pass {
            card: &self.card,
            weights: Weights {
                wide: self.weights.address(),
                narrow: self.narrow.as_ref().map(Memory::address),
            },
            rows: self.inbox.put(batch, &layout)?,
            width: batch.width,
            dropout: dropout.copied(),
            arena: &mut self.arena,
            sums: &mut self.sums,
        };
        work(&mut *self.net, &mut pass)
    }

    fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>, Fault> {
        let count = batch.len() * self.outputs;
        self.pass(batch, None, |net, pass| {
            let logits = net.forward(pass)?;
            download_floats(&*pass.card.device, logits, count)
        })
    }
}

/// A network on a device that answers: no gradients, no optimizer.
#[derive(Debug)]
pub struct DeviceModel {
    engine: Engine,
}

impl DeviceModel {
    /// That with these weights, in the layout of `parameters`.
    ///
    /// # Errors
    /// Where the device has no room for it or cannot compute it.
    pub fn new(
        card: Card,
        architecture: &Architecture,
        parameters: &Parameters,
        weights: &[f32],
    ) -> Result<Self, Fault> {
        let engine = Engine::new(card, architecture, parameters, weights)?;
        Ok(Self { engine })
    }

    /// The logits `[rows, outputs]` of a batch.
    ///
    /// # Errors
    /// Those of the device.
    pub fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>, Fault> {
        self.engine.logits(batch)
    }
}

/// See the module.
#[derive(Debug)]
pub struct DeviceLearner {
    engine: Engine,
    optimizer: Optimizer<f32>,
    gradients: Memory,
    first: Option<Memory>,
    second: Option<Memory>,
    /// The trained tensors in chunks, and room for what is summed up of each.
    chunks: Memory,
    chunk_count: usize,
    squares: Memory,
    /// Batches since the last step.
    batches: usize,
    /// Weights and state as the host knows them; none where the device is ahead.
    known: Option<(Vec<f32>, State<f32>)>,
    step: u64,
}

impl DeviceLearner {
    /// Begins with these weights, in the layout of `parameters`.
    ///
    /// # Errors
    /// Where the device has no room for it or cannot compute it.
    pub fn new(
        card: Card,
        architecture: &Architecture,
        parameters: &Parameters,
        weights: Vec<f32>,
        optimizer: Optimizer<f32>,
    ) -> Result<Self, Fault> {
        let engine = Engine::new(card, architecture, parameters, &weights)?;
        let device = &engine.card.device;
        let bytes = weights.len() * 4;
        let moment = |values: &[f32]| match values.is_empty() {
            true => Ok(None),
            false => Memory::zeros(device, bytes).map(Some),
        };
        let (first, second) = (
            moment(&optimizer.state().first)?,
            moment(&optimizer.state().second)?,
        );
        let chunks = chunks(parameters, &optimizer);
        let chunk_count = chunks.len();
        let table: Vec<u8> = chunks.into_iter().flat_map(Chunk::to_bytes).collect();
        let chunks = Memory::new(device, table.len())?;
        device.upload(&table, chunks.address())?;
        let mut learner = Self {
            gradients: Memory::zeros(device, bytes)?,
            squares: Memory::new(device, 8 + chunk_count * 4)?,
            first,
            second,
            chunks,
            chunk_count,
            batches: 0,
            known: None,
            step: 0,
            engine,
            optimizer,
        };
        let state = learner.optimizer.state().clone();
        learner.set(weights, state)?;
        Ok(learner)
    }

    fn device(&self) -> &Arc<dyn Device> {
        &self.engine.card.device
    }

    /// The device, and how precisely it computes.
    pub fn card(&self) -> &Card {
        &self.engine.card
    }

    /// Bytes of its memory: what lasts, and what a batch has needed so far.
    pub fn bytes(&self) -> (u64, u64) {
        let engine = &self.engine;
        let memories = [
            Some(&engine.weights),
            engine.narrow.as_ref(),
            Some(&self.gradients),
        ];
        let moments = [self.first.as_ref(), self.second.as_ref()];
        let lasting = memories.into_iter().chain(moments).flatten();
        let lasting: usize = lasting.map(Memory::bytes).sum();
        (lasting as u64, engine.arena.bytes() as u64)
    }

    fn set(&mut self, weights: Vec<f32>, state: State<f32>) -> Result<(), Fault> {
        self.engine.set_weights(&weights)?;
        let device = &*self.engine.card.device;
        for (memory, values) in [(&self.first, &state.first), (&self.second, &state.second)] {
            if let Some(memory) = memory {
                upload_floats(device, values, memory.address())?;
            }
        }
        self.step = state.step;
        self.known = Some((weights, state));
        Ok(())
    }
}

impl Learning for DeviceLearner {
    fn restore(&mut self, weights: Vec<f32>, state: State<f32>) -> Result<bool, Fault> {
        let fits = |memory: &Option<Memory>, values: &[f32]| {
            memory.as_ref().map_or(0, |memory| memory.bytes() / 4) == values.len()
        };
        let fits = weights.len() == self.engine.count
            && fits(&self.first, &state.first)
            && fits(&self.second, &state.second);
        if fits {
            self.set(weights, state)?;
        }
        Ok(fits)
    }

    fn add_batch(
        &mut self,
        batch: &Batch,
        dropout: &Dropout,
        loss: &Loss,
        share: f64,
    ) -> Result<(LossSum, Vec<f32>), Fault> {
        let count = batch.len() * self.engine.outputs;
        let gradients = self.gradients.address();
        let adds = self.batches > 0;
        let answer = self.engine.pass(batch, Some(dropout), |net, pass| {
            let device = &*pass.card.device;
            let logits = net.forward(pass)?;
            let logits = download_floats(device, logits, count)?;
            let mut gradient = vec![0.0; count];
            let sum = loss.gradient(&logits, &batch.labels, share, &mut gradient);
            let to = pass.arena.floats(count)?;
            upload_floats(device, &gradient, to)?;
            pass.sums.begin(adds);
            net.backward(pass, to, gradients)?;
            pass.sums.finish(pass.card)?;
            Ok((sum, logits))
        })?;
        self.batches += 1;
        Ok(answer)
    }

    fn gradient_norm(&mut self) -> Result<f64, Fault> {
        let total = self.squares.address();
        let sums = total.floats(2);
        let chunks = (self.chunks.address(), self.chunk_count);
        let gradients = self.gradients.address();
        self.engine
            .card
            .sum_of_squares(chunks, gradients, sums, total)?;
        let mut bytes = [0; 8];
        self.device().download(total, &mut bytes)?;
        Ok(libm::sqrt(f64::from_le_bytes(bytes)))
    }

    fn step(&mut self, learning_rate: f64, scale: f64) -> Result<(), Fault> {
        self.step += 1;
        self.known = None;
        self.batches = 0;
        let card = &self.engine.card;
        let chunks = (self.chunks.address(), self.chunk_count);
        let address =
            |memory: &Option<Memory>| memory.as_ref().map_or(Address::NONE, Memory::address);
        let (weights, gradients) = (self.engine.weights.address(), self.gradients.address());
        let copy = address(&self.engine.narrow);
        let rule = self.optimizer.rule();
        match rule.arithmetic(rule.weight_decay(), self.step, learning_rate, scale) {
            Arithmetic::Adam(step) => {
                let (first, second) = (address(&self.first), address(&self.second));
                let buffers = [weights, gradients, first, second, copy];
                card.adam(chunks, &step.device_scalars(), buffers)
            }
            Arithmetic::Sgd(step) => {
                let buffers = [weights, gradients, address(&self.first), copy];
                card.sgd(chunks, &step.device_scalars(), buffers)
            }
        }
    }

    fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>, Fault> {
        self.engine.logits(batch)
    }

    fn settle(&mut self) -> Result<(&[f32], &State<f32>), Fault> {
        let known = match self.known.take() {
            Some(known) => known,
            None => {
                let device = &**self.device();
                let count = self.engine.count;
                let read = |memory: &Option<Memory>| match memory {
                    None => Ok(Vec::new()),
                    Some(memory) => download_floats(device, memory.address(), count),
                };
                let state = State {
                    step: self.step,
                    first: read(&self.first)?,
                    second: read(&self.second)?,
                };
                let weights = self.engine.weights.address();
                (download_floats(device, weights, count)?, state)
            }
        };
        let (weights, state) = self.known.insert(known);
        Ok((weights, state))
    }

    fn outputs(&self) -> usize {
        self.engine.outputs
    }
}

/// The tensors that are trained, in parts.
fn chunks(parameters: &Parameters, optimizer: &Optimizer<f32>) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for tensor in parameters.tensors().iter().filter(|tensor| tensor.trained) {
        for start in (0..tensor.len()).step_by(Chunk::LENGTH) {
            chunks.push(Chunk {
                offset: (tensor.offset + start) as u64,
                length: Chunk::LENGTH.min(tensor.len() - start) as u32,
                decays: optimizer.weight_decay(tensor) != 0.0,
                clears: tensor.gathered,
            });
        }
    }
    chunks
}
