//! The published MiniLM weights through our encoder, beside transformers' results. Packed rows have no
//! padding, so the pooled states of real positions are what is compared.

use taper_nn::model::{Bert, BertConfig, Pooling};
use taper_nn::{Batch, Network, Real};

use crate::common::{distance, goldens, json, shared, tensors};

fn config(pooling: Pooling) -> BertConfig {
    let file = json(&folder().join("config.json"));
    let size = |name: &str| file[name].as_u64().unwrap() as usize;
    BertConfig {
        vocab_size: size("vocab_size"),
        hidden_size: size("hidden_size"),
        layers: size("num_hidden_layers"),
        heads: size("num_attention_heads"),
        intermediate_size: size("intermediate_size"),
        max_positions: size("max_position_embeddings"),
        type_vocab_size: size("type_vocab_size"),
        padding_id: Some(size("pad_token_id")),
        layer_norm_eps: file["layer_norm_eps"].as_f64().unwrap(),
        initializer_range: 0.02,
        hidden_dropout: 0.1,
        attention_dropout: 0.1,
        head_dropout: 0.1,
        pooling,
        outputs: 2,
    }
}

fn folder() -> std::path::PathBuf {
    shared().join("hub/data/models/sentence-transformers/all-MiniLM-L6-v2")
}

fn check<R: Real>(tolerance: f64) {
    let reference = tensors(&goldens().join("minilm_encoder.safetensors"));
    let file = tensors(&folder().join("model.safetensors"));
    let width = reference["input_ids"].len() / 4;
    let mut batch = Batch {
        offsets: vec![0],
        rows: (0..4).collect(),
        ..Batch::default()
    };
    for row in 0..4 {
        let part = |name: &str| &reference[name][row * width..(row + 1) * width];
        let len = part("attention_mask").iter().sum::<f64>() as usize;
        let real = |name: &str| part(name)[..len].iter().map(|&id| id as u32);
        batch.ids.extend(real("input_ids"));
        batch.type_ids.extend(real("token_type_ids"));
        batch.offsets.push(batch.ids.len() as u32);
    }
    for (pooling, name) in [
        (Pooling::Cls, "cls"),
        (Pooling::Pooler, "pooler"),
        (Pooling::Mean, "meanpool_normed"),
    ] {
        let mut network = Bert::<R>::new(config(pooling));
        let mut weights = vec![R::ZERO; network.parameters().buffer_len()];
        for tensor in network.parameters().tensors() {
            if let Some(name) = tensor.name.strip_prefix("bert.") {
                for (weight, &value) in weights[tensor.range()].iter_mut().zip(&file[name]) {
                    *weight = R::from_f64(value);
                }
            }
        }
        network.forward(&weights, &batch, None);
        let mut features: Vec<f64> = network.features().iter().map(|x| x.to_f64()).collect();
        if pooling == Pooling::Mean {
            for row in features.chunks_exact_mut(network.features().len() / 4) {
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                row.iter_mut().for_each(|x| *x /= norm);
            }
        }
        let off = distance(&features, &reference[&format!("f64.{name}")]);
        assert!(off <= tolerance, "{name}: off by {off:e}");
    }
}

#[test]
fn minilm_encodes_as_in_transformers() {
    check::<f32>(1e-5);
    check::<f64>(1e-11);
}
