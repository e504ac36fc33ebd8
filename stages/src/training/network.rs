//! Which network a training trains: what the parameters ask for, from scratch or from a model that there is.

use taper_engine::StageError;
use taper_nn::model::{self, Architecture, RecurrentKind};

use super::params::{
    BertParams, BertSizes, LossParams, NetworkParams, Nonlinearity, Pooling, RecurrentParams,
};
use crate::artifact::config::{
    BertConfig, Cell, Limits, LossName, ModelConfig, NetworkConfig, RecurrentConfig, TextCnnConfig,
};
use crate::artifact::tokens::{TokenSettings, TokenSplit};

/// The network of a training on tokens made as `tokens` says, from scratch or from a model with the config `from`.
///
/// # Errors
/// Where the two do not belong together.
pub fn choose(
    params: Option<&NetworkParams>,
    from: Option<&NetworkConfig>,
    tokens: &TokenSettings,
) -> Result<NetworkConfig, StageError> {
    let vocab_size = from.map_or(tokens.vocab_size, |from| from.limits().vocab_size);
    let Some(params) = params else {
        return from.cloned().ok_or_else(|| {
            StageError::invalid("there is no network to train")
                .help("say which with `model`, or give a model to start from with `from`")
        });
    };
    let chosen = match params {
        NetworkParams::Textcnn(sizes) => NetworkConfig::TextCnn(TextCnnConfig {
            vocab_size,
            embedding_dim: sizes.embedding_dim,
            filters: sizes.filters,
            width: sizes.width,
            padding: sizes.padding,
            dropout: sizes.dropout,
        }),
        NetworkParams::Rnn(sizes) => {
            let recurrent = RecurrentParams {
                embedding_dim: sizes.embedding_dim,
                hidden_size: sizes.hidden_size,
                layers: sizes.layers,
                bidirectional: sizes.bidirectional,
                dropout: sizes.dropout,
                head_dropout: sizes.head_dropout,
            };
            recurrent_config(Cell::Rnn(sizes.nonlinearity), &recurrent, vocab_size)
        }
        NetworkParams::Lstm(sizes) => recurrent_config(Cell::Lstm, sizes, vocab_size),
        NetworkParams::Gru(sizes) => recurrent_config(Cell::Gru, sizes, vocab_size),
        NetworkParams::Bert(params) => {
            let base = match from {
                Some(NetworkConfig::Bert(config, _)) => config.clone(),
                _ => from_scratch(params.config.as_ref(), tokens),
            };
            NetworkConfig::Bert(overridden(base, params), params.pooling)
        }
    };
    match from {
        Some(from) if from.model_type() != chosen.model_type() => {
            Err(StageError::invalid(format!(
                "a `{}` cannot start from a `{}` model",
                chosen.model_type(),
                from.model_type()
            ))
            .help("leave `from` out, or ask for the same network with `model`")
            .at("from"))
        }
        _ => Ok(chosen),
    }
}

fn recurrent_config(cell: Cell, sizes: &RecurrentParams, vocab_size: usize) -> NetworkConfig {
    let config = RecurrentConfig {
        vocab_size,
        embedding_dim: sizes.embedding_dim,
        hidden_size: sizes.hidden_size,
        layers: sizes.layers,
        bidirectional: sizes.bidirectional,
        dropout: sizes.dropout,
        head_dropout: sizes.head_dropout,
    };
    NetworkConfig::Recurrent(cell, config)
}

fn from_scratch(sizes: Option<&BertSizes>, tokens: &TokenSettings) -> BertConfig {
    let sizes = sizes.cloned().unwrap_or_default();
    BertConfig {
        hidden_size: sizes.hidden_size,
        num_hidden_layers: sizes.num_hidden_layers,
        num_attention_heads: sizes.num_attention_heads,
        intermediate_size: sizes.intermediate_size,
        max_position_embeddings: sizes.max_position_embeddings,
        type_vocab_size: sizes.type_vocab_size,
        initializer_range: sizes.initializer_range,
        layer_norm_eps: sizes.layer_norm_eps,
        vocab_size: tokens.vocab_size,
        pad_token_id: tokens.pad_token_id,
        ..BertConfig::default()
    }
}

fn overridden(config: BertConfig, params: &BertParams) -> BertConfig {
    BertConfig {
        hidden_dropout_prob: params.hidden_dropout.unwrap_or(config.hidden_dropout_prob),
        attention_probs_dropout_prob: params
            .attention_dropout
            .unwrap_or(config.attention_probs_dropout_prob),
        classifier_dropout: params.dropout.or(config.classifier_dropout),
        ..config
    }
}

/// The network with so many outputs, as it is built.
pub fn architecture(network: &NetworkConfig, outputs: usize) -> Architecture {
    match network {
        NetworkConfig::TextCnn(config) => Architecture::TextCnn(model::TextCnnConfig {
            vocab_size: config.vocab_size,
            embedding_dim: config.embedding_dim,
            filters: config.filters,
            width: config.width,
            padding: config.padding,
            dropout: config.dropout,
            outputs,
        }),
        NetworkConfig::Recurrent(cell, config) => Architecture::Recurrent(model::RecurrentConfig {
            kind: match cell {
                Cell::Rnn(Nonlinearity::Tanh) => RecurrentKind::RnnTanh,
                Cell::Rnn(Nonlinearity::Relu) => RecurrentKind::RnnRelu,
                Cell::Lstm => RecurrentKind::Lstm,
                Cell::Gru => RecurrentKind::Gru,
            },
            vocab_size: config.vocab_size,
            embedding_dim: config.embedding_dim,
            hidden_size: config.hidden_size,
            layers: config.layers,
            bidirectional: config.bidirectional,
            dropout: config.dropout,
            head_dropout: config.head_dropout,
            outputs,
        }),
        NetworkConfig::Bert(config, pooling) => Architecture::Bert(bert(config, *pooling, outputs)),
    }
}

fn bert(config: &BertConfig, pooling: Pooling, outputs: usize) -> model::BertConfig {
    model::BertConfig {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        layers: config.num_hidden_layers,
        heads: config.num_attention_heads,
        intermediate_size: config.intermediate_size,
        max_positions: config.max_position_embeddings,
        type_vocab_size: config.type_vocab_size,
        padding_id: Some(config.pad_token_id as usize),
        layer_norm_eps: config.layer_norm_eps,
        initializer_range: config.initializer_range,
        hidden_dropout: config.hidden_dropout_prob,
        attention_dropout: config.attention_probs_dropout_prob,
        head_dropout: config
            .classifier_dropout
            .unwrap_or(config.hidden_dropout_prob),
        pooling: match pooling {
            Pooling::Pooler => model::Pooling::Pooler,
            Pooling::Cls => model::Pooling::Cls,
            Pooling::Mean => model::Pooling::Mean,
        },
        outputs,
    }
}

/// What the model's outputs are, once it is trained.
pub fn model_config(
    network: NetworkConfig,
    loss: &LossParams,
    classes: Vec<String>,
) -> ModelConfig {
    ModelConfig {
        network,
        loss: match loss {
            LossParams::CrossEntropy(_) => LossName::CrossEntropy,
            LossParams::BceWithLogits(_) => LossName::BceWithLogits,
        },
        classes,
    }
}

/// Whether the rows of `split` can be read by a network with these limits at all.
///
/// # Errors
/// Where a token, a segment or a length is beyond its tables.
pub fn check_fit(
    limits: &Limits,
    tokens: &TokenSettings,
    name: &str,
    split: &TokenSplit,
) -> Result<(), StageError> {
    let known = limits.vocab_size;
    if tokens.vocab_size > known || tokens.pad_token_id as usize >= known {
        return Err(StageError::invalid(format!(
            "the tokens come from a vocabulary of {}, the model knows {known}",
            tokens.vocab_size
        ))
        .help("tokenize with the model's own tokenizer: name its stage as `tokenizer` there")
        .at("data"));
    }
    let longest = split.longest();
    if let Some(limit) = limits.longest_row.filter(|&limit| longest > limit) {
        return Err(StageError::invalid(format!(
            "a row of `{name}` has {longest} tokens, the model reads {limit} at most"
        ))
        .help(format!("set `max_length: {limit}` in the `tokenize` stage"))
        .at("data"));
    }
    if let Some(segments) = limits.segments {
        let beyond = |segment: &i8| usize::try_from(*segment).is_ok_and(|s| s >= segments);
        let row = split.rows().position(|row| row.type_ids.iter().any(beyond));
        if let Some(row) = row {
            return Err(StageError::invalid(format!(
                "row {row} (counted from 0) of `{name}` has more than the {segments} segments that the model knows"
            ))
            .at("data"));
        }
    }
    Ok(())
}
