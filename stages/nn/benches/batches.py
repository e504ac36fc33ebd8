"""Batches of a real data set, tokenized, in the form that both sides of the training benchmark read.

batches.py DATA.parquet TOKENIZER.json COLUMNS MAX_LENGTH BATCH COUNT OUT

Writes OUT.padded.safetensors, every row padded to MAX_LENGTH, and OUT.dynamic.safetensors, every batch to its longest row:
`<i>.input_ids`, `attention_mask`, `token_type_ids` `[BATCH, width]` and `labels` `[BATCH]`, int64. The same rows in the
same order in both, drawn without replacement.
"""
import sys

import numpy as np
import pyarrow.parquet
from safetensors.numpy import save_file
from tokenizers import Tokenizer

data, tokenizer, columns, max_length, batch, count, out = sys.argv[1:]
max_length, batch, count = int(max_length), int(batch), int(count)
table = pyarrow.parquet.read_table(data)
order = np.random.default_rng(1234).permutation(len(table))[: batch * count]
rows = table.take(order)
tokenizer = Tokenizer.from_file(tokenizer)
tokenizer.enable_truncation(max_length)
tokenizer.no_padding()
texts = list(zip(*(rows[column].to_pylist() for column in columns.split(","))))
encoded = tokenizer.encode_batch([text if len(text) > 1 else text[0] for text in texts])
labels = np.array(rows["label"].to_pylist(), dtype=np.int64)

for kind in ("padded", "dynamic"):
    tensors = {}
    for index in range(len(encoded) // batch):
        part = encoded[index * batch : (index + 1) * batch]
        width = max_length if kind == "padded" else max(len(row.ids) for row in part)
        for name, values in (("input_ids", "ids"), ("attention_mask", "attention_mask"), ("token_type_ids", "type_ids")):
            tensor = np.zeros((batch, width), dtype=np.int64)
            for row, encoding in enumerate(part):
                numbers = getattr(encoding, values)
                tensor[row, : len(numbers)] = numbers
            tensors[f"{index}.{name}"] = tensor
        tensors[f"{index}.labels"] = labels[index * batch : (index + 1) * batch]
    save_file(tensors, f"{out}.{kind}.safetensors")
