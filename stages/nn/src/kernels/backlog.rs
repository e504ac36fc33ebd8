//! Adam for tensors of which a step's batch reads a few rows only: word embeddings.
//!
//! A step without a gradient reads and writes nothing but a row's own numbers. So a row may make it later,
//! when it is next read, to the same bits, and its numbers go through the registers once for all the
//! steps that it has missed. What a missed step costs is two divisions and a root a number, until the update
//! is too small to move the parameter (see `rests`; with torch's betas some 150 steps after a gradient, where
//! 0.9^150 is 2^-23), and from then on one multiplication a moment.
//!
//! There is no closed form: each step rounds.

use crate::Real;
use crate::kernels::optimizer::{AdamStep, AdamTile, Rate, moved};
use crate::parallel::{Shared, tiles};

/// Numbers that are in registers together.
const LANES: usize = 32;
/// Steps between two looks at whether numbers have come to rest.
const LOOK: usize = 16;
/// Rows in a tile.
const ROWS: usize = 16;

/// The steps that rows have missed.
#[derive(Clone, Debug)]
pub struct Backlog<R> {
    missed: Missed<R>,
    /// For each row how many of them it has made.
    made: Vec<u32>,
    /// Whether each row's moments may be other than 0. Those of rows that nothing has ever named are not
    /// touched: their memory is not there yet.
    moments: Vec<bool>,
    width: usize,
}

/// What a row needs to make steps without a gradient.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Missed<R> {
    steps: Vec<Rate<R>>,
    kept: [R; 2],
    epsilon: R,
    /// The size of the longest step, and what is left of a parameter that decays in all.
    longest: R,
    decayed: R,
}

/// The same part of the three buffers.
#[doc(hidden)]
pub struct Row<'a, R> {
    parameters: &'a mut [R],
    first: &'a mut [R],
    second: &'a mut [R],
}

impl<R: Real> Backlog<R> {
    /// None missed, for rows of `width` numbers whose moments are 0.
    pub fn new(rows: usize, width: usize) -> Self {
        Self {
            missed: Missed {
                steps: Vec::new(),
                kept: [R::ZERO; 2],
                epsilon: R::ZERO,
                longest: R::ZERO,
                decayed: R::ONE,
            },
            made: vec![0; rows],
            moments: vec![false; rows],
            width,
        }
    }

    /// All rows have moments: a checkpoint's.
    pub fn have_moments(&mut self) {
        self.moments.fill(true);
    }

    /// How many steps there are that some rows may have missed.
    pub fn len(&self) -> usize {
        self.missed.steps.len()
    }

    /// Whether all rows have made all steps.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets `rows`, each named once and caught up, make a step; the others miss it. The buffers are
    /// `[rows, width]`.
    ///
    /// # Panics
    /// Where the step adds to gradients (`l2`): then every row moves.
    pub fn step(
        &mut self,
        step: &AdamStep,
        rows: &[u32],
        parameters: &mut [R],
        gradients: &[R],
        first: &mut [R],
        second: &mut [R],
    ) {
        let width = self.width;
        let buffers = [parameters, first, second].map(Shared::new);
        let with = step.scalars();
        tiles(rows.len().div_ceil(ROWS), rows.len() * width * 4, |tile| {
            for &row in &rows[tile * ROWS..rows.len().min((tile + 1) * ROWS)] {
                let start = row as usize * width;
                let [parameters, first, second] = buffers.map(|buffer| part(buffer, start, width));
                let tensors = AdamTile {
                    parameters,
                    gradients: &gradients[start..start + width],
                    first,
                    second,
                };
                R::adam_tile(&with, tensors);
            }
        });
        self.push(step, rows);
    }

    fn push(&mut self, step: &AdamStep, rows: &[u32]) {
        assert!(step.l2 == 0.0, "a row without a gradient has none");
        let missed = &mut self.missed;
        let rate = step.scalars::<R>().rate;
        missed.kept = step.betas.map(R::from_f64);
        missed.epsilon = R::from_f64(step.epsilon);
        missed.longest = rate.step_size.abs().greater(missed.longest);
        missed.decayed *= rate.keep;
        missed.steps.push(rate);
        for &row in rows {
            self.made[row as usize] = missed.steps.len() as u32;
            self.moments[row as usize] = true;
        }
    }

    /// Lets `rows`, each named once, make what they have missed. The buffers are `[rows, width]`.
    pub fn catch_up(
        &mut self,
        rows: &[u32],
        parameters: &mut [R],
        first: &mut [R],
        second: &mut [R],
    ) {
        let steps = self.len() as u32;
        let behind: Vec<u32> = rows
            .iter()
            .copied()
            .filter(|&row| self.made[row as usize] < steps)
            .collect();
        self.make(&behind, parameters, first, second);
        for row in behind {
            self.made[row as usize] = steps;
        }
    }

    /// Lets all rows make what they have missed.
    pub fn settle(&mut self, parameters: &mut [R], first: &mut [R], second: &mut [R]) {
        let rows: Vec<u32> = (0..self.made.len() as u32).collect();
        self.catch_up(&rows, parameters, first, second);
        self.made.fill(0);
        self.missed.steps.clear();
        self.missed.longest = R::ZERO;
        self.missed.decayed = R::ONE;
    }

    fn make(&self, rows: &[u32], parameters: &mut [R], first: &mut [R], second: &mut [R]) {
        let len = self.made.len() * self.width;
        assert!(
            parameters.len() == len && first.len() == len && second.len() == len,
            "buffers are [rows, width]"
        );
        let width = self.width;
        let missed: usize = rows
            .iter()
            .map(|&row| self.len() - self.made[row as usize] as usize)
            .sum();
        let buffers = [parameters, first, second].map(Shared::new);
        tiles(rows.len().div_ceil(ROWS), missed * width * 4, |tile| {
            for &row in &rows[tile * ROWS..rows.len().min((tile + 1) * ROWS)] {
                let [parameters, first, second] =
                    buffers.map(|buffer| part(buffer, row as usize * width, width));
                let made = self.made[row as usize] as usize;
                if self.moments[row as usize] {
                    let row = Row {
                        parameters,
                        first,
                        second,
                    };
                    R::adam_missed_tile(&self.missed, made, row);
                } else {
                    R::decay_missed_tile(&self.missed, made, parameters);
                }
            }
        });
    }
}

#[expect(unsafe_code, reason = "each row is named once")]
fn part<'a, R>(buffer: Shared<'a, R>, start: usize, len: usize) -> &'a mut [R] {
    // SAFETY: rows do not overlap, each is named once, and a tile holds one part of a buffer at a time.
    unsafe { buffer.part(start, len) }
}

#[inline(always)]
pub(crate) fn decay_missed_tile<R: Real>(missed: &Missed<R>, made: usize, parameters: &mut [R]) {
    let steps = &missed.steps[made..];
    if steps.iter().all(|rate| rate.keep == R::ONE) {
        return;
    }
    let (chunks, rest) = parameters.as_chunks_mut::<LANES>();
    for parameters in chunks {
        decay(steps, parameters);
    }
    decay(steps, rest);
}

/// What is left of parameters that nothing else moves.
#[inline(always)]
fn decay<R: Real>(steps: &[Rate<R>], parameters: &mut [R]) {
    for rate in steps {
        for parameter in &mut *parameters {
            *parameter *= rate.keep;
        }
    }
}

#[inline(always)]
pub(crate) fn adam_missed_tile<R: Real>(missed: &Missed<R>, made: usize, row: Row<'_, R>) {
    let steps = &missed.steps[made..];
    let (parameters, parameters_rest) = row.parameters.as_chunks_mut::<LANES>();
    let (first, first_rest) = row.first.as_chunks_mut::<LANES>();
    let (second, second_rest) = row.second.as_chunks_mut::<LANES>();
    for ((parameters, first), second) in parameters.iter_mut().zip(first).zip(second) {
        make(missed, steps, parameters, first, second);
    }
    let rest = parameters_rest.len();
    if rest > 0 {
        let mut numbers = [[R::ZERO; LANES]; 3];
        let sources = [&*parameters_rest, first_rest, second_rest];
        for (numbers, source) in numbers.iter_mut().zip(sources) {
            numbers[..rest].copy_from_slice(source);
        }
        let [parameters, first, second] = &mut numbers;
        make(missed, steps, parameters, first, second);
        parameters_rest.copy_from_slice(&parameters[..rest]);
        first_rest.copy_from_slice(&first[..rest]);
        second_rest.copy_from_slice(&second[..rest]);
    }
}

#[inline(always)]
fn make<R: Real>(
    missed: &Missed<R>,
    steps: &[Rate<R>],
    parameters: &mut [R; LANES],
    first: &mut [R; LANES],
    second: &mut [R; LANES],
) {
    let [kept_first, kept_second] = missed.kept;
    let (mut p, mut m, mut v) = (*parameters, *first, *second);
    let mut left = steps;
    while !left.is_empty() && !rests(missed, &p, &m, &v) {
        let (now, later) = left.split_at(LOOK.min(left.len()));
        for rate in now {
            for lane in 0..LANES {
                m[lane] = m[lane] * kept_first + R::ZERO;
                v[lane] = v[lane] * kept_second + R::ZERO;
                p[lane] = moved(p[lane], m[lane], v[lane], missed.epsilon, rate);
            }
        }
        left = later;
    }
    if left.iter().any(|rate| rate.keep != R::ONE) {
        decay(left, &mut p);
    }
    shrink(&mut m, kept_first, left.len());
    shrink(&mut v, kept_second, left.len());
    (*parameters, *first, *second) = (p, m, v);
}

/// Multiplies `x` by `kept` so many times; it stops where that changes nothing any more.
#[inline(always)]
fn shrink<R: Real>(x: &mut [R; LANES], kept: R, times: usize) {
    let mut left = times;
    while left > 0 {
        let before = *x;
        let now = LOOK.min(left);
        for _ in 0..now {
            for x in x.iter_mut() {
                *x *= kept;
            }
        }
        left -= now;
        if before == *x {
            break;
        }
    }
    for x in x {
        *x += R::ZERO;
    }
}

/// Whether no step that is left can move any of these parameters but by its decay.
///
/// An update is `s m / (sqrt(v) / r + e)` with `r <= 1`, so at most `S m / (sqrt(v) + e)` for the longest step
/// S. From step to step m shrinks by `beta1` and the denominator by no more than `sqrt(beta2)`, so that this
/// bound only falls where `beta1 < sqrt(beta2)`; [`Real::NEGLIGIBLE`] of a parameter is a quarter of the
/// distance to its neighbours, half of what rounding swallows, and leaves room for the rounding of all of this. Among
/// the smallest numbers that there are, a moment does not shrink: an update is then below 2^-90 (at `e` of 2^-40
/// and more), which moves no parameter above 2^-60.
#[inline(always)]
fn rests<R: Real>(missed: &Missed<R>, p: &[R; LANES], m: &[R; LANES], v: &[R; LANES]) -> bool {
    let [kept_first, kept_second] = missed.kept;
    let falls = kept_first * R::from_f64(1.001) < kept_second.sqrt()
        && missed.epsilon >= R::from_f64(f64::powi(2.0, -40))
        && missed.longest <= R::ONE;
    let share = missed.decayed * R::NEGLIGIBLE;
    let least = R::from_f64(f64::powi(2.0, -60));
    let mut moving = 0_u32;
    for lane in 0..LANES {
        let update = missed.longest * m[lane].abs();
        let swallowed = p[lane].abs() * share * (v[lane].sqrt() + missed.epsilon);
        let still = update <= swallowed && p[lane].abs() * missed.decayed >= least;
        moving += u32::from(!(m[lane] == R::ZERO || (falls && still)));
    }
    moving == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::adam;
    use crate::kernels::dispatch::{Level, with_level};
    use crate::kernels::gemm::tests::numbers;
    use crate::parallel::with_threads;

    const ROWS: usize = 23;

    /// Which rows step `step` names.
    fn named(seed: u64, step: u64) -> Vec<u32> {
        (0..ROWS as u32)
            .filter(|&row| {
                let draw = u64::from(row) * 31 + step * 17 + seed * 7;
                row != 3 && draw.is_multiple_of(2 + u64::from(row) * 9)
            })
            .collect()
    }

    fn step(weight_decay: f64, number: u64) -> AdamStep {
        AdamStep {
            learning_rate: 1e-2 / (1.0 + number as f64 * 1e-3),
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            weight_decay,
            l2: 0.0,
            step: number,
            gradient_scale: 0.7,
        }
    }

    /// Parameters and moments after `steps`, by dense steps or by rows.
    fn train<R: Real>(
        width: usize,
        steps: u64,
        decay: f64,
        seed: u64,
        by_rows: bool,
    ) -> [Vec<R>; 3] {
        let len = ROWS * width;
        let mut p = numbers::<R>(len, seed);
        p[5] = R::ZERO;
        let (mut m, mut v) = (vec![R::ZERO; len], vec![R::ZERO; len]);
        let mut backlog = Backlog::new(ROWS, width);
        for number in 1..=steps {
            let step = step(decay, number);
            let rows = named(seed, number);
            let mut gradient = vec![R::ZERO; len];
            for &row in &rows {
                let place = row as usize * width..(row as usize + 1) * width;
                gradient[place.clone()].copy_from_slice(&numbers::<R>(width, number + seed));
                // A few are 0 although their row is named.
                gradient[place.start] = R::ZERO;
            }
            if !by_rows {
                adam(&step, &mut p, &gradient, &mut m, &mut v);
                continue;
            }
            backlog.catch_up(&rows, &mut p, &mut m, &mut v);
            backlog.step(&step, &rows, &mut p, &gradient, &mut m, &mut v);
            if number % 701 == 0 {
                backlog.settle(&mut p, &mut m, &mut v);
            }
        }
        backlog.settle(&mut p, &mut m, &mut v);
        [p, m, v]
    }

    fn bits(tensors: [Vec<f32>; 3]) -> Vec<u32> {
        tensors.iter().flatten().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn rows_left_behind_end_where_dense_steps_do() {
        for (width, decay) in [(64, 0.0), (40, 0.01), (7, 0.0)] {
            let dense = bits(train(width, 1500, decay, 1, false));
            for level in Level::ALL {
                for threads in [1, 2] {
                    let by_rows = with_level(level, || {
                        with_threads(threads, || bits(train(width, 1500, decay, 1, true)))
                    });
                    assert!(dense == by_rows, "{width} {decay} {level:?} {threads}");
                }
            }
        }
        let [dense, by_rows] = [false, true].map(|by_rows| train::<f64>(9, 600, 0.01, 2, by_rows));
        assert_eq!(dense, by_rows);
    }

    #[test]
    fn moments_of_a_checkpoint_move_their_rows() {
        let width = 40;
        let of = |seed| numbers::<f32>(ROWS * width, seed);
        let squares = of(3).iter().map(|x| x * x).collect();
        let mut dense: [Vec<f32>; 3] = [of(1), of(2), squares];
        let mut by_rows = dense.clone();
        let mut backlog = Backlog::new(ROWS, width);
        backlog.have_moments();
        for number in 1..40 {
            let step = step(0.01, number);
            let [p, m, v] = &mut dense;
            adam(&step, p, &vec![0.0; ROWS * width], m, v);
            backlog.push(&step, &[]);
        }
        let [p, m, v] = &mut by_rows;
        backlog.settle(p, m, v);
        assert_eq!(bits(dense), bits(by_rows));
    }

    #[test]
    fn what_has_come_to_rest_is_seen() {
        let mut backlog = Backlog::<f32>::new(1, LANES);
        backlog.push(&step(0.0, 500), &[]);
        let (p, v) = ([0.5; LANES], [1e-6; LANES]);
        assert!(!rests(&backlog.missed, &p, &[1e-6; LANES], &v));
        assert!(rests(&backlog.missed, &p, &[1e-10; LANES], &v));
        assert!(rests(&backlog.missed, &[0.0; LANES], &[0.0; LANES], &v));
        assert!(!rests(&backlog.missed, &[0.0; LANES], &[1e-10; LANES], &v));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_tensor_does(width in 1_usize..70, steps in 1_u64..400, seed in 0_u64..1000, decays in any::<bool>()) {
            let decay = if decays { 0.1 } else { 0.0 };
            prop_assert_eq!(
                bits(train(width, steps, decay, seed, false)),
                bits(train(width, steps, decay, seed, true))
            );
        }
    }
}
