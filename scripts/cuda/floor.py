#!/usr/bin/env python3
"""floor.py [BATCH LENGTH]…: what a training step of BERT-base in bf16 costs at least on an H200, kernel by kernel, from
what each has to multiply, to move and to compute. To be held against `gpu --profile`.

A kernel's floor is the longest of three: operations of tensor cores, bytes of device memory, instructions of the other
units. Instructions are those of the machine code for compute capability 9.0, a lane, per element; bytes are counted as
if nothing stayed in the cache, which is too many for small batches.
"""
import sys

TENSOR = 989e12  # operations a second, dense bf16, as published
MEMORY = 4.8e12  # bytes a second, as published
LANES = 132 * 128 * 1.755e9  # instructions of lanes a second: multiprocessors, lanes, clock
LAYERS, HIDDEN, INNER, HEADS = 12, 768, 3072, 12
ENCODER = LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER)
WEIGHTS = 109_483_778


def kernels(batch, length):
    tokens = batch * length
    wide, inner = LAYERS * tokens * HIDDEN, LAYERS * tokens * INNER
    scores = LAYERS * tokens * HEADS * length
    # Name, launches, operations, bytes, instructions.
    yield "products, forward", 48, 2 * tokens * ENCODER, 2 * ENCODER + 2 * (8 * wide + 2 * inner), 0
    yield "products, back", 96, 4 * tokens * ENCODER, 6 * ENCODER + 2 * (22 * wide + 4 * inner), 0
    yield "attention", 12, 4 * scores * 64, 2 * 4 * wide, 53 * scores
    yield "attention_common", 12, 0, 2 * 2 * wide, 4 * wide
    yield "attention_keys", 12, 8 * scores * 64, 2 * 6 * wide + 2 * scores, 68 * scores
    yield "attention_queries", 12, 2 * scores * 64, 2 * 2 * wide + 2 * scores, 26 * scores
    yield "add_norm", 25, 0, 16 * 2 * wide, 45 * 2 * wide
    yield "norm_columns", 25, 0, 8 * 2 * wide, 8 * 2 * wide
    yield "add_norm_backward", 25, 0, 14 * 2 * wide, 40 * 2 * wide
    yield "bias_gelu", 12, 0, 4 * inner, 44 * inner
    yield "bias_gelu_backward", 12, 0, 6 * inner, 71 * inner
    yield "column_sums", 36, 0, 2 * 5 * wide, 4 * 5 * wide
    yield "adam", 1, 0, 30 * WEIGHTS, 60 * WEIGHTS
    # Sums, gathers, embeddings, and the head.
    yield "the rest", 30, 0, 10 * 4 * tokens * HIDDEN, 0


def table(batch, length):
    print(f"{batch} rows of {length} tokens\n")
    print("| kernel | launches | Tflop | GB | floor, ms | set by |\n|---|---|---|---|---|---|")
    total, launches = 0.0, 0
    for name, count, operations, moved, instructions in kernels(batch, length):
        floors = {
            "tensor cores": operations / TENSOR,
            "memory": moved / MEMORY,
            "instructions": instructions / LANES,
        }
        by = max(floors, key=floors.get)
        total, launches = total + floors[by], launches + count
        print(f"| {name} | {count} | {operations / 1e12:.2f} | {moved / 1e9:.2f} | {floors[by] * 1e3:.2f} | {by} |")
    print(f"| all | {launches} | | | {total * 1e3:.2f} | {batch / total:.0f} samples/s |\n")


sizes = [int(size) for size in sys.argv[1:]] or [32, 128, 64, 256]
for batch, length in zip(sizes[::2], sizes[1::2]):
    table(batch, length)
