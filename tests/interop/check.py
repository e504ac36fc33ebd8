"""Opens one exported artifact of every type with the programs that people will open them with.

    python check.py OUT        OUT: the folder into which pipeline.yaml exported
"""
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.util import tensor_util
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

out = Path(sys.argv[1])


def table(path):
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def features(t):
    return json.loads(t.schema.metadata[b"huggingface"])["info"]["features"]


# A dataset: Arrow IPC with Hugging Face's feature names.
corpus = {split: table(out / "corpus" / f"{split}.arrow") for split in ("train", "test")}
assert {split: t.num_rows for split, t in corpus.items()} == {"train": 600, "test": 200}
assert features(corpus["train"])["label"]["names"] == ["unacceptable", "acceptable"]
assert corpus["train"].column("text").null_count == 0

# Tokens: the ids that the tokenizer beside them gives.
tokens = table(out / "tokens" / "test.arrow")
tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(out / "tokens" / "tokenizer.json"))
for text, ids, mask in zip(
    corpus["test"].column("text").to_pylist(),
    tokens.column("input_ids").to_pylist(),
    tokens.column("attention_mask").to_pylist(),
):
    expected = tokenizer(text, truncation=True, max_length=24)
    assert ids[: sum(mask)] == expected["input_ids"], text
assert tokens.column("label").to_pylist() == corpus["test"].column("label").to_pylist()

# Models: safetensors; and for BERT, Transformers itself, with the same logits.
weights = load_file(out / "textcnn" / "model.safetensors")
assert weights["convolution.weight"].shape == (8, 16, 3), {n: w.shape for n, w in weights.items()}
assert all(np.isfinite(w).all() for w in weights.values())
for name in ("textcnn", "bert"):
    history = [json.loads(line) for line in (out / name / "history.jsonl").read_text().splitlines()]
    assert any("eval_loss" in entry for entry in history), history

model, report = AutoModelForSequenceClassification.from_pretrained(out / "bert", output_loading_info=True)
assert not report["missing_keys"] and not report["unexpected_keys"], report
model.eval()
assert model.config.id2label == {0: "unacceptable", 1: "acceptable"}
auto = AutoTokenizer.from_pretrained(out / "bert")
texts = corpus["test"].column("text").to_pylist()
batch = auto(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
with torch.no_grad():
    scores = torch.softmax(model(**{k: batch[k] for k in ("input_ids", "attention_mask")}).logits, -1).numpy()

# Predictions: the same scores, row by row.
guesses = table(out / "guesses" / "test.arrow")
ours = np.array(guesses.column("scores").to_pylist(), dtype=np.float64)
worst = np.abs(ours - scores).max()
assert worst < 1e-5, worst
assert (ours.argmax(1) == np.array(guesses.column("prediction").to_pylist())).all()

# Event files: TensorBoard shows what the history says, as single-precision numbers.
run = json.loads((out / "run.json").read_text())
record = next(stage["record"] for stage in run["stages"] if stage["name"] == "bert")
multiplexer = EventMultiplexer().AddRunsFromDirectory(record).Reload()
shown = {}
for name in multiplexer.Runs():
    for tag in multiplexer.Runs()[name]["tensors"]:
        assert multiplexer.SummaryMetadata(name, tag).plugin_data.plugin_name == "scalars", tag
        for event in multiplexer.Tensors(name, tag):
            shown[tag, event.step] = tensor_util.make_ndarray(event.tensor_proto).item()
history = {}
for line in (out / "bert" / "history.jsonl").read_text().splitlines():
    entry = json.loads(line)
    for name, value in entry.items():
        tag = f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
        if name not in ("step", "epoch"):
            history[tag, entry["step"]] = float(np.float32(value))
assert shown == history, (shown, history)
assert len(history) > 5, history

# Metrics: JSON that agrees with the predictions.
metrics = json.loads((out / "scores" / "metrics.json").read_text())
labels = np.array(guesses.column("label").to_pylist())
assert abs(metrics["accuracy"] - (ours.argmax(1) == labels).mean()) < 1e-12, metrics

# Plots.
assert (out / "curves" / "plot.svg").read_text().startswith("<")
assert (out / "curves" / "plot.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
json.loads((out / "curves" / "plot.json").read_text())

print(f"pyarrow {pa.__version__}, safetensors, transformers, TensorBoard: every artifact opens; scores differ by at most {worst:.1e}")
