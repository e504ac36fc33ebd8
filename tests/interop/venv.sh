#!/usr/bin/env bash
# Prints the Python in which other programs open what taper makes. Its virtual environment is kept in
# ~/.cache/taper-interop, or where TAPER_INTEROP_VENV says (a few GB: Transformers needs PyTorch).
set -euo pipefail
venv=${TAPER_INTEROP_VENV:-$HOME/.cache/taper-interop}
packages=(torch transformers accelerate safetensors pyarrow numpy tensorboard)
find="import importlib.util, sys; sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))"
if [ ! -e "$venv/.complete" ] || ! "$venv/bin/python" -c "$find" "${packages[@]}"; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet "${packages[@]}"
  touch "$venv/.complete"
fi
printf '%s\n' "$venv/bin/python"
