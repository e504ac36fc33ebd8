#!/usr/bin/env python3
"""taper beside other engines: the first run and the run with nothing to do, on the same chains and fans of trivial stages.

    tests/benchmarks/engines.py --taper target/release/taper --peers ../shared/peers/engines.py --bin DIR_OF_DVC_AND_NINJA

Each stage copies its input (in.txt, or the stage before it in a chain) and appends a line. The tools run in turn, each in a
fresh folder; the figure is the median. Prints a Markdown table, with the processor named, and each figure as JSON on stderr.
`floor` is what nobody can be faster than: `xargs` starts the same shells, as many side by side as there are cores, and keeps nothing.
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--taper", required=True)
parser.add_argument("--peers", required=True, help="the script that runs the others")
parser.add_argument("--bin", action="append", default=[], help="a folder with dvc, xvc, snakemake or ninja; again for more")
parser.add_argument("--runs", type=int, default=5)
parser.add_argument("--limit", type=int, default=600, help="seconds after which a tool is left out of a row")
parser.add_argument("--shapes", default="fan:1,fan:100,chain:100,fan:1000,fan:10000")
parser.add_argument("--tools", default="ninja,xvc,snakemake,dvc")
arguments = parser.parse_args()

path = os.pathsep.join([str(pathlib.Path(folder).absolute()) for folder in arguments.bin] + [os.environ["PATH"]])
environment = {**os.environ, "PATH": path}


def pipeline(shape: str, stages: int) -> str:
    lines = ["taper: 1", "name: engines", "stages:"]
    for index in range(stages):
        if shape == "chain" and index:
            before = f"inputs: {{ before: s{index - 1} }}"
            source = "in/before/f"
        else:
            before, source = "files: [in.txt]", "in.txt"
        line = f"cp {source} out/o/f; echo {index} >> out/o/f"
        lines.append(f"  s{index}: {{ command: {{ {before}, shell: '{line}', outputs: {{ o: files }} }} }}")
    return "\n".join(lines) + "\n"


def timed(command: list[str], folder: str) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def taper(shape: str, stages: int) -> dict[str, float]:
    command = [str(pathlib.Path(arguments.taper).absolute()), "run", "p.yaml", "-q"]
    first, again = [], []
    with contextlib.ExitStack() as folders:
        for _ in range(arguments.runs if stages < 1000 else max(1, arguments.runs // 2)):
            # All are removed at the end: what a file system does for what is gone is not to be paid for by the next run.
            folder = folders.enter_context(tempfile.TemporaryDirectory())
            pathlib.Path(folder, "taper.toml").touch()
            pathlib.Path(folder, "in.txt").write_text("hello\n")
            pathlib.Path(folder, "p.yaml").write_text(pipeline(shape, stages))
            # What was written for it is none of its own.
            os.sync()
            first.append(timed(command, folder))
            again = [timed(command, folder) for _ in range(arguments.runs)]
    return {"first": statistics.median(first), "no-op": statistics.median(again)}


def floor(shape: str, stages: int) -> dict[str, float]:
    wide = os.cpu_count() if shape == "fan" else 1
    command = ["xargs", f"-P{wide}", "-I{}", "sh", "-euc", "cp in.txt o/{}; echo {} >> o/{}"]
    times = []
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "in.txt").write_text("hello\n")
            pathlib.Path(folder, "o").mkdir()
            numbers = "\n".join(map(str, range(stages)))
            begun = time.perf_counter()
            subprocess.run(command, cwd=folder, input=numbers, text=True, check=True)
            times.append(time.perf_counter() - begun)
    return {"first": statistics.median(times)}


def peer(tool: str, shape: str, stages: int) -> dict[str, float]:
    command = [sys.executable, arguments.peers, "--tool", tool, "--shape", shape, "--stages", str(stages), "--runs", str(arguments.runs)]
    try:
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=arguments.limit)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return {}
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    return {figure["what"]: figure["median_s"] for figure in figures}


def processor() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} cores of {name}"


def shown(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


tools = [tool for tool in arguments.tools.split(",") if tool]
print(f"On {processor()}, median of {arguments.runs}.\n")
print("| stages | | taper | floor | " + " | ".join(tools) + " |")
print("|---|---|---|---|" + "---|" * len(tools))
for text in arguments.shapes.split(","):
    shape, count = text.split(":")
    results = {"taper": taper(shape, int(count)), "floor": floor(shape, int(count))}
    for tool in tools:
        results[tool] = peer(tool, shape, int(count))
    print(json.dumps({"shape": shape, "stages": int(count), **results}), file=sys.stderr, flush=True)
    for what in ("first", "no-op"):
        row = [shown(results[tool].get(what)) for tool in ["taper", "floor", *tools]]
        print(f"| {shape} of {count} | {what} | " + " | ".join(row) + " |", flush=True)
