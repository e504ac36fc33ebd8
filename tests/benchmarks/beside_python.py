#!/usr/bin/env python3
"""taper beside Python on what stands around the training: tokenization, and a small job from start to end.

    python3 tests/benchmarks/beside_python.py target/release/taper [--rounds 3]

Run with the Python of an environment that has torch, transformers, datasets and scikit-learn. The reference data is looked
for in ../shared, or where TAPER_SHARED says. Both sides start without any cache; rounds alternate; medians are printed.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

here = pathlib.Path(__file__).resolve()
root = here.parents[2]
shared = pathlib.Path(os.environ.get("TAPER_SHARED", root.parent / "shared")).resolve()
reviews = shared / "hub/data/datasets/stanfordnlp/imdb/plain_text/train-00000-of-00001.parquet"
tokenizer = shared / "hub/data/models/google-bert/bert-base-cased/tokenizer.json"

TOKENIZE = """\
taper: 1
name: tokenize
stages:
  reviews:
    download: { path: reviews.parquet }
  vocabulary:
    download: { path: vocabulary, type: model }
  tokens:
    tokenize: { data: reviews, tokenizer: vocabulary, text: text, max_length: 128 }
"""

MAP = """\
import sys, time, datasets
from transformers import PreTrainedTokenizerFast
tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[2], pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")
datasets.disable_progress_bars()
data = datasets.load_dataset("parquet", data_files=sys.argv[1], split="train")
begun = time.perf_counter()
data.map(lambda rows: tokenizer(rows["text"], truncation=True, max_length=128), batched=True, num_proc=2, remove_columns=["text"])
print(time.perf_counter() - begun)
"""


def run(command, **options):
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{command}\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - begun, done.stdout


def stage_time(output, stage):
    """Seconds that a stage took, from `taper run --json`."""
    (stage,) = [each for each in json.loads(output)["stages"] if each["name"] == stage]
    return stage["seconds"]


def tokenization(taper, work):
    """The stage that makes tokens of 25 000 reviews; `datasets.map` with two processes, imports and reading left out."""
    project = work / "tokenize"
    project.mkdir(exist_ok=True)
    (project / "taper.toml").touch()
    (project / "pipeline.yaml").write_text(TOKENIZE)
    if not (project / "vocabulary").exists():
        shutil.copy(reviews, project / "reviews.parquet")
        shutil.copytree(tokenizer.parent, project / "vocabulary")
    cache = work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    _, output = run([taper, "run", "pipeline.yaml", "--json", "-q"], cwd=project, env={**os.environ, "TAPER_CACHE": str(cache)})
    ours = stage_time(output, "tokens")
    caches = {**os.environ, "HF_DATASETS_CACHE": str(work / "datasets"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    shutil.rmtree(work / "datasets", ignore_errors=True)
    _, output = run([sys.executable, "-c", MAP, str(reviews), str(tokenizer)], env=caches)
    return ours, float(output.split()[-1])


def quickstart(taper, work):
    """The whole of the quickstart, from the start of the process: data made, vocabulary trained, training, scores, figures.
    Beside it the training and scoring alone, of the same rows, with PyTorch and `datasets`, a vocabulary of 30 522 and ten filters."""
    cache = work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    project = work / "quickstart"
    project.mkdir(exist_ok=True)
    (project / "taper.toml").touch()
    shutil.copy(root / "pipelines/quickstart.yaml", project)
    ours, output = run([taper, "run", "quickstart.yaml", "--json", "-q"], cwd=project, env={**os.environ, "TAPER_CACHE": str(cache)})
    data = work / "corpus"
    if not data.exists():
        data.mkdir()
        import pyarrow.parquet

        run([taper, "export", "quickstart.yaml:parts", str(data / "arrow")], cwd=project, env={**os.environ, "TAPER_CACHE": str(cache)})
        for split in ("train", "test"):
            with pyarrow.OSFile(str(next((data / "arrow").rglob(f"{split}*.arrow")))) as file:
                pyarrow.parquet.write_table(pyarrow.ipc.open_file(file).read_all(), data / f"{split}.parquet")
    shutil.rmtree(work / "datasets", ignore_errors=True)
    theirs, _ = run(
        [sys.executable, str(shared / "peers/peer_finetune.py"), "--kind", "textcnn", "--pipeline", "hf"]
        + ["--train", str(data / "train.parquet"), "--eval", str(data / "test.parquet"), "--max-len", "32"]
        + ["--batch", "32", "--epochs", "8", "--lr", "3e-3"],
        env={**os.environ, "HF_DATASETS_CACHE": str(work / "datasets")},
    )
    return ours, theirs


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("taper", type=pathlib.Path)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments = arguments.parse_args()
    taper = str(arguments.taper.resolve())
    name = next(line for line in open("/proc/cpuinfo") if line.startswith("model name")).split(":")[1].strip()
    print(f"{name}, {os.cpu_count()} cores, {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as work:
        for label, job in (("tokenize 25 000 reviews, max_length 128", tokenization), ("quickstart, whole process", quickstart)):
            rounds = [job(taper, pathlib.Path(work)) for _ in range(arguments.rounds)]
            ours, theirs = (statistics.median(side) for side in zip(*rounds))
            print(f"{label:42} taper {ours:7.2f} s   Python {theirs:7.2f} s   {theirs / ours:6.1f}x")


main()
