#!/usr/bin/env python3
"""What lists of runs cost in a cache that has many: log, show, compare, diff, explain, and one run more.

    tests/benchmarks/runs.py --taper target/release/taper --runs 10000

Each run is a real one: a pipeline of two stages, with another value of a param. They are made where nothing waits for a
disk, if there is such a place, and copied to one. Prints a Markdown table: milliseconds, the median, and system calls.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--taper", required=True)
parser.add_argument("--runs", type=int, default=10000)
parser.add_argument("--times", type=int, default=5, help="how often each command is timed")
parser.add_argument("--folder", help="an empty folder where the project stays, or one that has it already")
arguments = parser.parse_args()
program = str(pathlib.Path(arguments.taper).absolute())

PIPELINE = """taper: 1
name: many
params: { x: 0 }
stages:
  made: { command: { shell: 'echo $x > out/o/f', outputs: { o: files } } }
  scores: { command: { inputs: { made: made }, shell: 'echo "{\\"accuracy\\": 0.$(cat in/made/f)}" > out/o/metrics.json', outputs: { o: metrics } } }
""".replace("echo $x", "echo ${x}")


def make(folder: pathlib.Path) -> None:
    folder.joinpath("taper.toml").touch()
    folder.joinpath("p.yaml").write_text(PIPELINE)
    folder.joinpath("other.yaml").write_text(PIPELINE.replace("many", "other"))

    def run(number: int) -> None:
        file = "other.yaml" if number == 0 else "p.yaml"
        subprocess.run([program, "run", file, "-q", "-j1", "--set", f"x={number}"], cwd=folder, check=True)

    run(0)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, range(1, arguments.runs)))


def timed(folder: pathlib.Path, words: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run([program, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begun) * 1000


def calls(folder: pathlib.Path, words: list[str]) -> str:
    """How many system calls, where strace says it."""
    if not shutil.which("strace"):
        return ""
    with tempfile.NamedTemporaryFile("r") as counts:
        command = ["strace", "-f", "-c", "-o", counts.name, program, *words]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return counts.read().splitlines()[-1].split()[3]


with tempfile.TemporaryDirectory() as own:
    folder = pathlib.Path(arguments.folder or own)
    if not folder.joinpath("taper.toml").exists():
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as quick:
            make(pathlib.Path(quick))
            shutil.copytree(quick, folder, dirs_exist_ok=True)
    listed = subprocess.run([program, "log", "--json", "-n", "0"], cwd=folder, check=True, capture_output=True)
    runs = [one["run"] for one in json.loads(listed.stdout)]
    commands = [
        ["log"],
        ["log", "-n", "0"],
        ["log", "other"],
        ["show"],
        ["show", runs[len(runs) // 2]],
        ["compare"],
        ["compare", runs[0], runs[len(runs) // 2]],
        ["diff", runs[0], runs[len(runs) // 2]],
        ["explain", "other.yaml", "made"],
        ["run", "p.yaml", "-q"],
    ]
    print(f"{len(runs)} runs.\n\n| | ms | system calls |\n|---|---|---|")
    for words in commands:
        shown = " ".join(word[:12] for word in words)
        times = [timed(folder, words) for _ in range(arguments.times if words[0] != "run" else 1)]
        print(f"| `{shown}` | {statistics.median(times):.0f} | {calls(folder, words)} |", flush=True)
