#!/usr/bin/env bash
# run.sh TAPER: makes one artifact of every type and opens each with pyarrow, safetensors, transformers and TensorBoard; then the
# other way round, has taper open what transformers makes.
# The virtual environment is kept in ~/.cache/taper-interop (a few GB: Transformers needs PyTorch).
set -euo pipefail
taper=$(realpath "${1:?usage: run.sh TAPER}")
here=$(cd "$(dirname "$0")" && pwd)
venv=${TAPER_INTEROP_VENV:-$HOME/.cache/taper-interop}
if [ ! -e "$venv/.complete" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet torch transformers safetensors pyarrow numpy tensorboard
  touch "$venv/.complete"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/pipeline.yaml" "$work/"
cd "$work"
: > taper.toml
export TAPER_CACHE=$work/cache HF_HUB_OFFLINE=1
"$taper" run pipeline.yaml
"$taper" show "$("$taper" log --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["run"])')" --json > out/run.json
"$venv/bin/python" "$here/check.py" "$work/out"
"$venv/bin/python" "$here/classifiers.py" "$taper" "$work"
