//! One pass over a split without dropout: what a network says of every row, and how far off it is.

use taper_engine::{Progress, Reporter, StageError};
use taper_nn::Learning;
use taper_nn::loss::{Loss, LossSum};

use super::batches::{Width, in_order};
use crate::artifact::tokens::TokenSplit;
use crate::device::Work;
use crate::metrics::Outcome;

/// How an evaluation reads a split.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// What is computed of each row.
    pub loss: &'a Loss,
    /// The names of the classes.
    pub classes: &'a [String],
    /// Rows a batch.
    pub batch_size: usize,
    /// How they are padded.
    pub width: Width,
}

/// What a network said of a split whose classes are known.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Row by row.
    pub outcome: Outcome,
    /// The loss as it is trained: weighted by class where training is. Summed row after row in the order of
    /// the data, so that no batch size shows.
    pub loss: f64,
}

/// Evaluates a network on `split`, all of whose rows have a class.
///
/// # Errors
/// Where the user wants to stop, and those of the network's device.
pub fn evaluate(
    learning: &mut dyn Learning,
    work: Work<'_>,
    split: &TokenSplit,
    reading: Reading<'_>,
    progress: &Progress,
    reporter: &Reporter,
) -> Result<Evaluation, StageError> {
    let outputs = learning.outputs();
    let mut outcome = Outcome {
        classes: reading.classes.to_vec(),
        ..Outcome::default()
    };
    let mut total = LossSum::default();
    for batch in in_order(split, reading.batch_size, reading.width) {
        reporter.check()?;
        let logits = learning
            .logits(&batch)
            .map_err(|fault| work.with(&batch).failed(fault))?;
        for (row, label) in logits.chunks_exact(outputs).zip(&batch.labels) {
            let loss = reading.loss.value(row, std::slice::from_ref(label));
            outcome.losses.push(loss.mean());
            total += loss;
        }
        outcome.predictions.extend(predictions(&logits, outputs));
        let probabilities = reading.loss.probabilities(&logits, outputs);
        outcome.probabilities.extend(probabilities);
        outcome.labels.extend(&batch.labels);
        progress.add(batch.len() as u64);
    }
    Ok(Evaluation {
        outcome,
        loss: total.mean(),
    })
}

/// The class of each row of logits: the greatest one's, the first of equals; of a single logit, whether it is
/// positive.
pub fn predictions(logits: &[f32], outputs: usize) -> impl Iterator<Item = u32> + '_ {
    logits.chunks_exact(outputs).map(|row| match row {
        [logit] => u32::from(*logit > 0.0),
        _ => {
            let mut best = 0;
            for (class, logit) in row.iter().enumerate() {
                if *logit > row[best] {
                    best = class;
                }
            }
            best as u32
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_logit_is_the_class() {
        let logits = [0.0, 1.0, 1.0, -1.0, -3.0, -2.0];
        assert_eq!(predictions(&logits, 3).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(
            predictions(&[0.0, 0.1, -4.0], 1).collect::<Vec<_>>(),
            [0, 1, 0]
        );
    }
}
