#!/usr/bin/env bash
# goldens.sh OUT: PyTorch's answers at other sizes and with another seed than the shared ones, for `TAPER_GOLDENS`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/venv.sh")
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$python" "$here/goldens.py" "$TAPER_SHARED/peers/make_goldens.py" "${1:?usage: goldens.sh OUT}"
