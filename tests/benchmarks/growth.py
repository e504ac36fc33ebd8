#!/usr/bin/env python3
"""How cost grows with the number of stages: the first run, and the commands that find nothing to do.

    tests/benchmarks/growth.py --taper target/release/taper --counts 10,100,1000,10000 --shapes fan,chain,matrix

Each stage copies its input with `cp`. What starting the same `cp` as often costs, with as many side by side, is taken off
the first run: the rest, a stage, is taper's own. Prints a Markdown table; the memory is the most that taper held in RAM.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--taper", required=True)
parser.add_argument("--counts", default="10,100,1000,10000")
parser.add_argument("--shapes", default="fan,chain,matrix")
parser.add_argument("--runs", type=int, default=3, help="how often each command that finds nothing to do is timed")
arguments = parser.parse_args()
program = str(pathlib.Path(arguments.taper).absolute())


def pipeline(shape: str, count: int) -> str:
    lines = ["taper: 1", "name: growth"]
    if shape == "matrix":
        # As many variants of one stage, by two params.
        wide = max(1, int(count**0.5))
        lines += [f"matrix: {{ a: {list(range(wide))}, b: {list(range(count // wide))} }}"]
        lines += ["stages:", "  s: { command: { files: [in.txt], run: [cp, in.txt, 'out/o/f-${a}-${b}'], outputs: { o: files } } }"]
        return "\n".join(lines) + "\n"
    lines += ["stages:"]
    for index in range(count):
        if shape == "chain" and index:
            reads = f"inputs: {{ before: s{index - 1} }}, run: [cp, in/before/f{index - 1}, out/o/f{index}]"
        else:
            reads = f"files: [in.txt], run: [cp, in.txt, out/o/f{index}]"
        lines.append(f"  s{index}: {{ command: {{ {reads}, outputs: {{ o: files }} }} }}")
    return "\n".join(lines) + "\n"


def timed(folder: str, *words: str) -> tuple[float, int]:
    """Seconds, and the most kilobytes in RAM."""
    begun = time.perf_counter()
    child = subprocess.Popen([program, *words], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begun
    if child.returncode != 0:
        raise SystemExit(f"taper {' '.join(words)} ended with {child.returncode}")
    return seconds, usage.ru_maxrss


def starting(count: int) -> float:
    """What it costs to start `cp` once, as many side by side as there are cores."""
    few = min(count, 500)
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "in.txt").write_text("hello\n")
        numbers = "\n".join(map(str, range(few)))
        begun = time.perf_counter()
        side_by_side = ["xargs", f"-P{os.cpu_count()}", "-I{}", "cp", "in.txt", "{}"]
        subprocess.run(side_by_side, cwd=folder, input=numbers, text=True, check=True)
        return (time.perf_counter() - begun) / few


def row(shape: str, count: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "taper.toml").touch()
        pathlib.Path(folder, "in.txt").write_text("hello\n")
        text = pipeline(shape, count)
        pathlib.Path(folder, "p.yaml").write_text(text)
        first, held = timed(folder, "run", "p.yaml", "-q")
        own = max(0.0, first / count - starting(count))
        stage = "s0" if shape != "matrix" else "s"
        again = {
            "no-op": ["run", "p.yaml", "-q"],
            "plan": ["plan", "p.yaml"],
            "explain": ["explain", "p.yaml", stage],
        }
        cells = [f"{first:.2f} s", f"{own * 1000:.2f} ms", f"{held / 1024:.0f} MB"]
        most = 0
        for words in again.values():
            times = [timed(folder, *words) for _ in range(arguments.runs)]
            cells.append(f"{statistics.median(seconds for seconds, _ in times) * 1000:.0f} ms")
            most = max(most, *(kilobytes for _, kilobytes in times))
        # One stage more, at the end: what has changed is found, and runs.
        if shape != "matrix":
            pathlib.Path(folder, "p.yaml").write_text(text.rstrip().replace(f"f{count - 1}]", f"g{count - 1}]") + "\n")
            cells.append(f"{timed(folder, 'run', 'p.yaml', '-q')[0] * 1000:.0f} ms")
        else:
            cells.append("")
        cells.append(f"{most / 1024:.0f} MB")
        return f"| {shape} | {count} | " + " | ".join(cells) + " |"


print("| shape | stages | first run | of it taper's, a stage | memory | no-op | plan | explain | one edited | memory |")
print("|---|---|---|---|---|---|---|---|---|---|")
for shape in arguments.shapes.split(","):
    for count in arguments.counts.split(","):
        print(row(shape, int(count)), flush=True)
