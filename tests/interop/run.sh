#!/usr/bin/env bash
# run.sh TAPER: makes one artifact of every type and opens each with pyarrow, safetensors, transformers and TensorBoard; then the
# other way round, has taper open what transformers makes.
set -euo pipefail
taper=$(realpath "${1:?usage: run.sh TAPER}")
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/venv.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/pipeline.yaml" "$work/"
cd "$work"
: > taper.toml
export TAPER_CACHE=$work/cache HF_HUB_OFFLINE=1
"$taper" run pipeline.yaml
"$taper" show "$("$taper" log --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)[0]["run"])')" --json > out/run.json
"$python" "$here/check.py" "$work/out"
"$python" "$here/classifiers.py" "$taper" "$work"
