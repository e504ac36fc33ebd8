//! TextCNN on a device: `model/textcnn.rs` says what is computed. Products read what the precision says; all else
//! is `f32`.
//!
//! Each row has a padding token of its own behind the tokens of all rows, so that no two rows write the same gradient.

use super::batch::Layout;
use super::head::{Head, Net, Pass, place};
use super::kernels::Convolution;
use super::{Address, Element, Fault};
use crate::model::TextCnnConfig;
use crate::{Batch, Parameters};

/// The network; see the module.
#[derive(Debug)]
pub(super) struct TextCnn {
    config: TextCnnConfig,
    embeddings: usize,
    filters: usize,
    bias: usize,
    head: Head,
    /// Whether anything below the head is trained.
    reaches: bool,
    columns: Address,
    embedded: Address,
    features: Address,
    places: Address,
}

impl TextCnn {
    /// That with these parameters.
    pub fn new(config: TextCnnConfig, parameters: &Parameters) -> Self {
        let sizes = [config.filters, config.outputs];
        let head = Head::new(parameters, "output_layer", sizes, config.dropout);
        Self {
            embeddings: place(parameters, "embeddings.weight"),
            filters: place(parameters, "convolution.weight"),
            bias: place(parameters, "convolution.bias"),
            reaches: parameters
                .tensors()
                .iter()
                .any(|tensor| tensor.trained && tensor.offset < head.linear.weight),
            head,
            columns: Address::NONE,
            embedded: Address::NONE,
            features: Address::NONE,
            places: Address::NONE,
            config,
        }
    }

    fn sizes(&self) -> [usize; 3] {
        let config = &self.config;
        [config.filters, config.embedding_dim, config.width]
    }

    fn convolution(&self, pass: &Pass<'_>) -> Convolution {
        let config = &self.config;
        let least = config.width.saturating_sub(2 * config.padding);
        Convolution {
            offsets: pass.rows.offsets,
            rows: pass.rows.len as u32,
            tokens: pass.rows.tokens as u32,
            filters: config.filters as u32,
            width: config.width as u32,
            padding: config.padding as u32,
            row_width: pass.width.max(least).max(1) as u32,
        }
    }
}

impl Net for TextCnn {
    fn layout(&self, batch: &Batch) -> Layout {
        let mut layout = Layout::packed(batch, None);
        layout
            .ids
            .extend((0..batch.len()).map(|_| batch.padding_id));
        layout
    }

    fn forward(&mut self, pass: &mut Pass<'_>) -> Result<Address, Fault> {
        let [filters, dimensions, width] = self.sizes();
        let (rows, columns) = (pass.rows, width * filters);
        let tokens = rows.tokens + rows.len;
        let of_columns = pass.arena.floats(columns * dimensions)?;
        let embedded = pass.arena.floats(tokens * dimensions)?;
        self.features = pass.arena.floats(rows.len * filters)?;
        self.places = pass.arena.floats(rows.len * filters)?;
        let products = pass.arena.floats(tokens * columns)?;
        let card = pass.card;
        let weights = pass.weights.at(self.filters);
        card.filters_to_columns(weights, self.sizes(), of_columns)?;
        let nothing = (Address::NONE, Address::NONE);
        let words = (rows.ids, pass.weights.at(self.embeddings));
        card.embed(tokens, [words, nothing, nothing], dimensions, embedded)?;
        self.columns = pass.rounded(of_columns, columns * dimensions)?;
        self.embedded = pass.rounded(embedded, tokens * dimensions)?;
        let both = (self.embedded, self.columns);
        let sizes = [tokens, dimensions, columns];
        let to = (products, columns, Element::F32);
        card.multiply(card.element(), both, sizes, to)?;
        let found = (self.features, self.places);
        let bias = pass.weights.at(self.bias);
        card.convolve(&self.convolution(pass), (products, bias), found)?;
        self.head.forward(pass, self.features)
    }

    fn backward(
        &mut self,
        pass: &mut Pass<'_>,
        logits_gradient: Address,
        gradients: Address,
    ) -> Result<(), Fault> {
        let gradient = self.head.backward(pass, logits_gradient, gradients)?;
        if !self.reaches {
            return Ok(());
        }
        let [filters, dimensions, width] = self.sizes();
        let (rows, columns, card) = (pass.rows, width * filters, pass.card);
        let tokens = rows.tokens + rows.len;
        let products = pass.arena.floats(tokens * columns)?;
        card.device.clear(products, tokens * columns * 4)?;
        let found = (self.features, self.places);
        card.convolve_backward(&self.convolution(pass), gradient, found, products)?;
        let targets = [(0, filters, gradients.floats(self.bias))];
        pass.bias_gradient(gradient, Element::F32, (rows.len, filters), &targets)?;
        let of_columns = pass.arena.floats(columns * dimensions)?;
        let sizes = [tokens, dimensions, columns];
        let of_products = (pass.rounded(products, tokens * columns)?, columns);
        let read = (of_products, self.embedded);
        card.multiply_weights(card.element(), read, sizes, of_columns, false)?;
        let target = gradients.floats(self.filters);
        card.columns_to_filters(of_columns, self.sizes(), pass.sums.adds, target)?;
        let embedded = pass.arena.floats(tokens * dimensions)?;
        let to = (embedded, Element::F32);
        let read = (of_products, self.columns);
        card.multiply_back(card.element(), read, sizes, to, false)?;
        let table = gradients.floats(self.embeddings);
        card.embed_backward(embedded, &rows, dimensions, table)
    }
}
