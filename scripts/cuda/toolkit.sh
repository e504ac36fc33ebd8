#!/usr/bin/env bash
# toolkit.sh DIR: puts together in DIR what compiles kernels for NVIDIA GPUs, from NVIDIA's own Python wheels: nvcc, its
# back end and its headers, 13.0, which drivers from 580 on can run. Nothing is installed beside; no GPU, driver or root
# is needed. Where DIR has it already, nothing is done. Set NVCC=DIR/bin/nvcc for the build afterwards.
set -euo pipefail
dir=${1:?usage: toolkit.sh DIR}
wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96)
made=$dir/.made-of
[ "$(cat "$made" 2>/dev/null)" != "${wheels[*]}" ] || exit 0
case $(uname -m) in
  x86_64) platforms=(manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64) ;;
  aarch64) platforms=(manylinux_2_27_aarch64 manylinux_2_17_aarch64 manylinux2014_aarch64) ;;
  *) echo "there is no nvcc for $(uname -m)" >&2; exit 1 ;;
esac
new=$(mktemp -d "${dir%/}.XXXXXX"); trap 'rm -rf "$new"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  "${platforms[@]/#/--platform=}" --dest "$new/wheels" "${wheels[@]}"
python3 - "$new" <<'PY'
import pathlib, sys, zipfile

root = pathlib.Path(sys.argv[1])
for wheel in sorted(root.glob("wheels/*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            top, _, inside = member.filename.partition("nvidia/cu13/")
            if top or not inside or member.is_dir():
                continue
            to = root / "toolkit" / inside
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(archive.read(member))
            if inside.startswith(("bin/", "nvvm/bin/")):
                to.chmod(0o755)
PY
echo "${wheels[*]}" > "$new/toolkit/.made-of"
"$new/toolkit/bin/nvcc" --version | tail -1
rm -rf "$dir"; mkdir -p "$(dirname "$dir")"; mv "$new/toolkit" "$dir"
