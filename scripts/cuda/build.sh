#!/usr/bin/env bash
# build.sh [ARGUMENT…]: `cargo build --release --features cuda ARGUMENT…`, with an nvcc that is put together first where
# NVCC does not name one. Needs cargo, a C++ compiler and python3 with pip; no GPU, no CUDA, no root. The program that
# comes out starts on machines without CUDA as well.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${NVCC:-}" ]; then
  toolkit=${TAPER_CUDA_TOOLKIT:-${XDG_CACHE_HOME:-$HOME/.cache}/taper-cuda-13.0}
  scripts/cuda/toolkit.sh "$toolkit"
  export NVCC=$toolkit/bin/nvcc
fi
cargo build --release --locked --features cuda "$@"
