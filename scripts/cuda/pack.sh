#!/usr/bin/env bash
# pack.sh FOLDER: builds everything that a machine with a GPU needs to test and measure taper, and puts it in FOLDER, about
# 50 MB: the program, the tests of devices (with the simulated GPU beside the real one), the benchmark, the reference results and
# `on-gpu.sh`. Then, on that machine: bash FOLDER/on-gpu.sh
set -euo pipefail
to=$(mkdir -p "${1:?usage: pack.sh FOLDER}" && cd "$1" && pwd)
cd "$(dirname "$0")/../.."
shared=${TAPER_SHARED:-$(cd .. && pwd)/shared}
scripts/cuda/build.sh
export NVCC=${NVCC:-${TAPER_CUDA_TOOLKIT:-${XDG_CACHE_HOME:-$HOME/.cache}/taper-cuda-13.0}/bin/nvcc}
# The executable of a test or a benchmark, as cargo names it.
executable() {
  cargo "$@" --no-run --locked --message-format=json |
    python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == sys.argv[1]:
        print(message["executable"])' "$name" | tail -1
}
install -s -m 755 target/release/taper "$to/taper"
name=device; install -s -m 755 "$(executable test --release -p taper-nn --features cuda,simulation --test device)" "$to/device"
name=gpu; install -s -m 755 "$(executable bench -p taper-nn --features cuda --bench gpu)" "$to/gpu"
mkdir -p "$to/shared"
cp -r "$shared/goldens" "$to/shared/"
cp pipelines/quickstart.yaml "$to/"
cp scripts/cuda/{on-gpu.sh,floor.py} "$to/"
# PyTorch's side of the benchmark, where it is at hand.
if [ -f "$shared/gpu/torch_gpu_peer.py" ]; then cp "$shared/gpu/torch_gpu_peer.py" "$to/"; fi
git rev-parse HEAD > "$to/commit"
du -sh "$to" | cut -f1
