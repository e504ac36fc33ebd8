#!/usr/bin/env bash
# on-gpu.sh [FOLDER]: on a machine with an NVIDIA GPU, from the folder that pack.sh made: tests, digests twice, a training
# killed and resumed, and the benchmark beside PyTorch where python3 has it. Everything is written to FOLDER (report beside
# this script), a few minutes in all; a part that fails is told and does not stop the others. With DEVICE=cpu the training is
# repeated there: to try this script.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/report}; mkdir -p "$out"; out=$(cd "$out" && pwd)
# Libraries: those of PyTorch's wheels, of a toolkit, and where containers have the driver.
libraries=$(python3 - 2>/dev/null <<'PY'
import glob, os, site, sys
folders = []
for place in dict.fromkeys(sys.path + site.getsitepackages()):
    for library in sorted(glob.glob(os.path.join(place, "nvidia", "**", "libcublas*.so*"), recursive=True)):
        folders.append(os.path.dirname(library))
print(":".join(dict.fromkeys(folders)))
PY
)
export LD_LIBRARY_PATH="$libraries:/usr/local/cuda/lib64:/usr/local/nvidia/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export TAPER_TEST_DEVICE=cuda TAPER_SHARED=$here/shared CUDA_CACHE_PATH=${CUDA_CACHE_PATH:-/tmp/taper-cuda-cache}
failed=0
part() {
  local name=$1; shift
  local begun=$SECONDS
  if "$@" > "$out/$name.log" 2>&1; then echo "ok      $name ($((SECONDS - begun)) s)"
  else echo "FAILED  $name ($((SECONDS - begun)) s), see $out/$name.log"; tail -15 "$out/$name.log"; failed=1; fi
}
{
  date -u; cat "$here/commit"; uname -srm
  nvidia-smi --query-gpu=name,driver_version,memory.total,memory.free,clocks.sm,clocks.max.sm,compute_cap --format=csv
  nvidia-smi; lscpu | grep 'Model name'; python3 -c 'import torch; print("torch", torch.__version__, torch.version.cuda)'
  ls ${libraries//:/ } 2>/dev/null | grep -E 'cublas'
} > "$out/machine.txt" 2>&1
part doctor "$here/taper" doctor
part doctor-arithmetic "$here/taper" doctor --arithmetic
part agreement "$here/device" --test-threads 4 --nocapture
# The same pipeline twice in empty caches, and once killed behind a checkpoint: one run id.
cp "$here/quickstart.yaml" "$out/"
repeat() {
  export TAPER_CACHE=$out/cache
  local run=("$here/taper" run "$out/quickstart.yaml" --set epochs=60 --device "${DEVICE:-cuda}") killed checkpoints
  for time in 1 2; do
    rm -rf "$out/cache"; "${run[@]}" --json > "$out/run$time.json" || return 1
  done
  rm -rf "$out/cache"
  "${run[@]}" & killed=$!
  while checkpoints=$(find "$out/cache/scratch" -name '*.safetensors' 2>/dev/null); [ -z "$checkpoints" ]; do
    kill -0 "$killed" 2>/dev/null || { echo "it ended before its first checkpoint"; return 1; }
    sleep 0.05
  done
  kill -KILL "$killed"; wait "$killed"
  echo "killed beside $checkpoints"
  "${run[@]}" --json > "$out/run3.json" || return 1
  python3 - "$out" <<'PY'
import json, sys
runs = {json.load(open(f"{sys.argv[1]}/run{time}.json"))["run"] for time in (1, 2, 3)}
print(runs); sys.exit(len(runs) != 1)
PY
}
part repeat repeat
part benchmark "$here/gpu" --json "$out/taper.json"
part profile "$here/gpu" --precisions bf16 --steps 5 --profile
part floor python3 "$here/floor.py" 32 128 32 256 64 128 64 256
if [ -f "$here/torch_gpu_peer.py" ] && python3 -c 'import torch, transformers' 2>/dev/null; then
  part torch env HF_HUB_OFFLINE=1 python3 "$here/torch_gpu_peer.py" --compile --json "$out/torch.json"
  part ratios python3 - "$out" <<'PY'
import json, sys
ours = json.load(open(sys.argv[1] + "/taper.json"))
theirs = json.load(open(sys.argv[1] + "/torch.json"))
names = {"f32": "fp32", "tf32": "tf32", "bf16": "bf16"}
for row in ours:
    same = [t for t in theirs if t["mode"] == names[row["precision"]] and (t["batch"], t["length"]) == (row["batch"], row["length"])]
    for t in same:
        how = "compiled" if t["compiled"] else "eager"
        print(f'{row["precision"]:5} {row["batch"]:3} x {row["length"]:3}: taper {row["samples_per_s"]:8.1f}/s, PyTorch {how} {t["samples_per_s"]:8.1f}/s, {row["samples_per_s"] / t["samples_per_s"]:.2f}')
PY
  cat "$out/ratios.log"
else
  echo "left out: PyTorch's side (no torch_gpu_peer.py, or python3 has no torch and transformers)"
fi
cat "$out/benchmark.log" 2>/dev/null
rm -rf "$out/cache"
echo "everything is in $out"
exit $failed
