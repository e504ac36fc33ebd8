//! Classifiers that others trained: read from their folders, asked, and keyed by the processor that their bits
//! follow. That their numbers are Transformers' is for `tests/interop` to say.

use serde_json::{Value, json};
use taper_cache::{Key, Store};
use taper_engine::Ingredients;
use taper_stages::artifact::weights::{NamedTensor, write};

use crate::common::Project;

const WIDTH: usize = 8;
const WORDS: [&str; 9] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "old", "book",
];

/// The names and shapes of a DistilBERT of one layer.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let linear = |name: &str, [inputs, outputs]: [usize; 2]| {
        [
            (format!("{name}.weight"), vec![outputs, inputs]),
            (format!("{name}.bias"), vec![outputs]),
        ]
    };
    let norm = |name: &str| {
        let name = format!("distilbert.{name}");
        ["weight", "bias"].map(|part| (format!("{name}.{part}"), vec![WIDTH]))
    };
    let layer =
        |name: &str, sizes| linear(&format!("distilbert.transformer.layer.0.{name}"), sizes);
    let table = |name: &str, rows| {
        [(
            format!("distilbert.embeddings.{name}.weight"),
            vec![rows, WIDTH],
        )]
    };
    let mut all = Vec::new();
    all.extend(table("word_embeddings", WORDS.len()));
    all.extend(table("position_embeddings", 12));
    all.extend(norm("embeddings.LayerNorm"));
    for name in ["q_lin", "k_lin", "v_lin", "out_lin"] {
        all.extend(layer(&format!("attention.{name}"), [WIDTH, WIDTH]));
    }
    all.extend(norm("transformer.layer.0.sa_layer_norm"));
    all.extend(layer("ffn.lin1", [WIDTH, 16]));
    all.extend(layer("ffn.lin2", [16, WIDTH]));
    all.extend(norm("transformer.layer.0.output_layer_norm"));
    all.extend(linear("pre_classifier", [WIDTH, WIDTH]));
    all.extend(linear("classifier", [WIDTH, 2]));
    all
}

fn config() -> Value {
    json!({
        "model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"],
        "dim": WIDTH, "n_heads": 2, "n_layers": 1, "hidden_dim": 16, "max_position_embeddings": 12,
        "vocab_size": WORDS.len(), "id2label": {"0": "unacceptable", "1": "acceptable"},
    })
}

/// Puts a model into the folder `model`, the tensors of `names` left out.
fn put(project: &Project, config: &Value, left_out: &str) {
    project.write("model/config.json", &config.to_string());
    project.write("model/vocab.txt", &(WORDS.join("\n") + "\n"));
    let tensors: Vec<_> = tensors()
        .into_iter()
        .filter(|(name, _)| !name.contains(left_out) || left_out.is_empty())
        .enumerate()
        .map(|(number, (name, shape))| {
            let count = shape.iter().product::<usize>();
            let values = (0..count).map(|i| ((i * 7 + number * 13) % 11) as f32 / 5.0 - 1.0);
            (name, shape, values.collect::<Vec<f32>>())
        })
        .collect();
    let named: Vec<_> = tensors
        .iter()
        .map(|(name, shape, values)| NamedTensor {
            name,
            shape,
            values,
        })
        .collect();
    let path = project.path().join("model/model.safetensors");
    let file = fs_err::File::create(path).expect("created");
    write(file, ("format", "pt"), &named).expect("written");
}

const PIPELINE: &str = "taper: 1
stages:
  model:
    download: { path: model, type: model }
  corpus:
    download: { sample: acceptability, rows: { train: 60, test: 40 } }
  guesses:
    predict: { model: model, data: corpus, split: test }
    export: out
  scores:
    evaluate: { model: model, data: corpus, split: test }
  few_at_once:
    evaluate: { model: model, data: corpus, split: test, batch_size: 3 }
  tokens:
    tokenize: { data: corpus, tokenizer: model, text: text, max_length: 12 }
  ours:
    train: { data: tokens, train: train, validation: test, model: textcnn, max_steps: 2, batch_size: 4 }
  our_scores:
    evaluate: { model: ours, data: tokens, split: test }
";

#[test]
fn other_peoples_models_are_asked_and_keyed_by_their_arithmetic() {
    let project = Project::with(PIPELINE);
    put(&project, &config(), "");
    let report = project.run(&[]);
    let stage = |name: &str| {
        let stages = report["stages"].as_array().expect("stages");
        let stage = stages.iter().find(|stage| stage["name"] == name);
        stage.expect("it was run").clone()
    };
    // How many rows are read at once is in the key, but shows in no bit.
    assert_eq!(
        stage("scores")["artifact"],
        stage("few_at_once")["artifact"]
    );
    assert_eq!(Project::executed(&project.run(&[])), [""; 0]);

    let store = Store::open(project.path().join(".taper")).expect("a cache");
    let arithmetic = |name: &str| {
        let key: Key = stage(name)["key"]
            .as_str()
            .expect("text")
            .parse()
            .expect("a key");
        let action = store
            .action(&key)
            .expect("readable")
            .found()
            .expect("there");
        let ingredients = Ingredients::from_bytes(&action.ingredients).expect("ingredients");
        ingredients.arithmetic
    };
    assert!(arithmetic("guesses").is_some_and(|said| said.starts_with(std::env::consts::ARCH)));
    assert_eq!(arithmetic("guesses"), arithmetic("scores"));
    for ours in ["model", "tokens", "ours", "our_scores"] {
        assert_eq!(arithmetic(ours), None, "{ours}");
    }

    let text = "The old book.";
    let asked = project.json(&["predict", "model", text, "--json"]);
    let again = project.json(&["predict", "p.yaml:model", text, "--json"]);
    assert_eq!(asked, again);
    let label = asked[0]["label"].as_str().expect("a label");
    assert!(["unacceptable", "acceptable"].contains(&label));
}

#[test]
fn what_cannot_be_asked_is_told() {
    let project = Project::new();
    let told = |config: &Value, left_out: &str| {
        put(&project, config, left_out);
        let ran = project.taper(&["predict", "model", "the old book"]);
        assert!(matches!(ran.code, Some(1 | 2)), "{}", ran.stderr);
        ran.stderr
    };
    let with = |key: &str, value: Value| {
        let mut config = config();
        config[key] = value;
        config
    };
    let all = [
        told(&config(), "classifier."),
        told(&with("dim", json!(4)), ""),
        told(&with("n_heads", json!(3)), ""),
        told(&with("activation", json!("mish")), ""),
        told(&with("id2label", json!({"0": "LABEL_0"})), ""),
        told(&with("model_type", json!("electra")), ""),
        told(&with("vocab_size", json!(5)), ""),
    ];
    insta::assert_snapshot!(all.concat());
}
