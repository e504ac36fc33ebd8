#!/usr/bin/env python3
"""What a data set of many small files costs: through `download` with `path`, and through `command`.

    tests/benchmarks/files.py --taper target/release/taper --files 100000

Prints a Markdown table: seconds, the most memory, and with --calls how many system calls a file takes, the program of
`command` not counted (it reads none of the files).
"""
import argparse
import os
import pathlib
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--taper", required=True)
parser.add_argument("--files", type=int, default=100000)
parser.add_argument("--kinds", default="download,command")
parser.add_argument("--calls", action="store_true", help="count system calls with strace, which takes long")
arguments = parser.parse_args()
program = str(pathlib.Path(arguments.taper).absolute())

PIPELINES = {
    "download": "taper: 1\nstages:\n  s: { download: { path: data, type: files } }\n",
    "command": "taper: 1\nstages:\n  s: { command: { files: [data], run: [cp, data/0/0.txt, out/o/f], outputs: { o: files } } }\n",
}


def write(folder: pathlib.Path) -> None:
    folder.joinpath("taper.toml").touch()
    for name, text in PIPELINES.items():
        folder.joinpath(f"{name}.yaml").write_text(text)
    for number in range(arguments.files):
        below = folder / "data" / str(number // 1000)
        below.mkdir(parents=True, exist_ok=True)
        below.joinpath(f"{number}.txt").write_text(f"the text of the file {number}\n")


def measured(folder: str, name: str) -> str:
    words = [program, "run", f"{name}.yaml", "-q"]
    counts = os.path.join(folder, "counts")
    begun = time.perf_counter()
    child = subprocess.Popen(["strace", "-f", "-c", "-o", counts, *words] if arguments.calls else words, cwd=folder)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{words} ended with {child.returncode}")
    if arguments.calls:
        total = int(pathlib.Path(counts).read_text().splitlines()[-1].split()[3])
        return f"{total / arguments.files:.1f} calls"
    return f"{time.perf_counter() - begun:.2f} s, {usage.ru_maxrss / 1024:.0f} MB"


print(f"{arguments.files} files.\n\n| | first run | again | one file edited |\n|---|---|---|---|")
for name in arguments.kinds.split(","):
    with tempfile.TemporaryDirectory() as text:
        folder = pathlib.Path(text)
        write(folder)
        time.sleep(0.1)
        cells = [measured(text, name), measured(text, name)]
        (folder / "data" / "0" / "1.txt").write_text("edited\n")
        time.sleep(0.1)
        cells.append(measured(text, name))
        print(f"| `{name}` | " + " | ".join(cells) + " |", flush=True)
