"""Makes reference values as the shared ones are made, but of other sizes and with another seed.

    python goldens.py MAKE_GOLDENS OUT        MAKE_GOLDENS: the program that made the shared ones
"""
import re
import sys
from pathlib import Path

source, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
out.mkdir(parents=True, exist_ok=True)
sys.path.insert(0, str(source.parent))
program = source.read_text().split("if __name__")[0]

# A batch of one row, odd widths, one head, more layers where there was one, and one where there were more.
OTHERS = [
    (r"V, B, L, N, LR = .*", "V, B, L, N, LR = 211, 1, 9, 10, 5e-4"),
    (
        r"BERT = dict\(.*",
        "BERT = dict(hidden=10, layers=1, heads=1, inter=3, vocab=V, max_pos=9, dropout=0.0, initializer_range=0.3)",
    ),
    (
        r'"textcnn": +dict\(.*?\),',
        '"textcnn": dict(vocab_size=V, embedding_dim=33, num_filters=1, filter_size=2, padding=0, num_labels=2),',
    ),
    (
        r'"rnn": +dict\(.*?\),',
        '"rnn": dict(vocab_size=V, embedding_dim=1, hidden_size=40, num_layers=3, nonlinearity="relu", num_labels=2),',
    ),
    (r"torch\.manual_seed\(\{", "torch.manual_seed(200 + {"),
    (r"\.manual_seed\(77\)", ".manual_seed(277)"),
    (r"OUT = .*", f"OUT = {str(out)!r}"),
]
for pattern, other in OTHERS:
    program, count = re.subn(pattern, lambda _: other, program, count=1)
    assert count == 1, pattern
exec(compile(program, str(source), "exec"))
models()  # noqa: F821
trainer_golden()  # noqa: F821
# What has no sizes is the same.
for name in ("metrics.json", "schedulers.json", "minilm_encoder.safetensors", "minilm_tokenizer.json"):
    (out / name).symlink_to(source.parent.parent / "goldens" / name)
