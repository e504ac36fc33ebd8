"""Small classifiers of every family, made by Transformers with random weights: taper says of texts what Transformers says.

    python classifiers.py TAPER DIR        DIR: where the models are put

taper computes rows one by one in float32, Transformers all of them padded to the longest in float64.
"""
import json
import subprocess
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

taper, work = sys.argv[1], Path(sys.argv[2])
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TEXTS = [
    "Our friends won't buy this analysis, let alone the next one we propose.",
    "a",
    "",
    "One more pseudo generalization and I'm giving up.",
    "ÜBER naïve façades — 東京 and emoji 🙂🙃!",
    "  spaces   everywhere  ",
    "[MASK] <mask> <s> [SEP] are words too",
    " ".join(f"word{i % 7} of a long text, number {i};" for i in range(60)),
    "<pad> [PAD] in the middle <pad> of a text",
]
CORPUS = TEXTS + [f"the {a} {b} {c} quickly" for a in ("old", "new", "dull") for b in ("film", "book") for c in ("ends", "begins")]


def word_pieces():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(show_progress=False, vocab_size=300, special_tokens=special))
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )


def unigrams(pad, start, end):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = [start, pad, end, "<unk>"]
    trainer = trainers.UnigramTrainer(show_progress=False, vocab_size=250, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in (start, end)]
    tokenizer.post_processor = processors.TemplateProcessing(f"{start} $A {end}", f"{start} $A {end} $B:1 {end}:1", ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token=pad, cls_token=start, sep_token=end)


def byte_pairs():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(show_progress=False, vocab_size=400, special_tokens=special, initial_alphabet=alphabet))
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> $B:1 </s>:1", ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", cls_token="<s>", sep_token="</s>")


SIZES = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80, initializer_range=0.3)
RELATIVE = dict(relative_attention=True, position_biased_input=False)
XLMR, DEBERTA = ("<pad>", "<s>", "</s>"), ("[PAD]", "[CLS]", "[SEP]")

# Name, class of the config, its fields, tokenizer; then what is peculiar about the files.
MODELS = [
    ("bert", "BertConfig", dict(SIZES, max_position_embeddings=40), word_pieces, {}),
    (
        "distilbert",
        "DistilBertConfig",
        dict(dim=48, n_layers=3, n_heads=4, hidden_dim=80, initializer_range=0.3, max_position_embeddings=40, sinusoidal_pos_embds=True),
        word_pieces,
        {},
    ),
    ("xlm-roberta", "XLMRobertaConfig", dict(SIZES, max_position_embeddings=42, type_vocab_size=1), lambda: unigrams(*XLMR), {}),
    ("roberta", "RobertaConfig", dict(SIZES, max_position_embeddings=66, hidden_act="gelu_new"), byte_pairs, dict(dtype=torch.float16)),
    ("modernbert", "ModernBertConfig", dict(SIZES, num_hidden_layers=5, max_position_embeddings=600, local_attention=10), byte_pairs, {}),
    (
        "modernbert-mean",
        "ModernBertConfig",
        dict(
            SIZES,
            max_position_embeddings=600,
            local_attention=7,
            classifier_pooling="mean",
            attention_bias=True,
            mlp_bias=True,
            norm_bias=True,
            classifier_bias=True,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": 5e4},
                "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
            },
        ),
        byte_pairs,
        dict(max_shard_size="40KB"),
    ),
    (
        "deberta-v3",
        "DebertaV2Config",
        dict(
            SIZES,
            **RELATIVE,
            max_position_embeddings=512,
            pos_att_type="p2c|c2p",
            position_buckets=16,
            share_att_key=True,
            norm_rel_ebd="layer_norm",
        ),
        lambda: unigrams(*DEBERTA),
        {},
    ),
    (
        "deberta-v2",
        "DebertaV2Config",
        dict(
            SIZES,
            **RELATIVE,
            max_position_embeddings=300,
            pos_att_type=["c2p", "p2c"],
            position_buckets=32,
            norm_rel_ebd="layer_norm",
            conv_kernel_size=3,
            conv_act="gelu",
            type_vocab_size=2,
            embedding_size=24,
        ),
        lambda: unigrams(*DEBERTA),
        dict(max_shard_size="60KB"),
    ),
    (
        "deberta-v2-plain",
        "DebertaV2Config",
        dict(SIZES, max_position_embeddings=64, relative_attention=True, pos_att_type=["p2c"], type_vocab_size=2, pooler_hidden_act="tanh"),
        lambda: unigrams(*DEBERTA),
        dict(problem_type="multi_label_classification"),
    ),
]


def make(name, config_class, fields, tokenizer, peculiar):
    folder = work / name
    tokenizer = tokenizer()
    labels = ["bad", "so so", "good"]
    config = getattr(transformers, config_class)(
        vocab_size=len(tokenizer) + 3,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        problem_type=peculiar.get("problem_type"),
        **fields,
    )
    torch.manual_seed(len(name))
    model = AutoModelForSequenceClassification.from_config(config)
    # Biases and norms begin as zeros and ones: a mistake in them would not show.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    # As the tokenizers of these families on the hub say.
    reads_segments = getattr(config, "type_vocab_size", 0) > 1 and not config_class.endswith("RobertaConfig")
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * reads_segments
    tokenizer.model_input_names = names
    model.to(peculiar.get("dtype", torch.float32)).save_pretrained(folder, max_shard_size=peculiar.get("max_shard_size", "1GB"))
    tokenizer.save_pretrained(folder)
    return folder


def limit(config):
    taken = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    return config.max_position_embeddings - taken


def by_transformers(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=limit(model.config), return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    lengths = batch["attention_mask"].sum(1).tolist()
    return model.config, logits, lengths


def by_taper(folder):
    lines = "".join(text + "\n" for text in TEXTS)
    done = subprocess.run([taper, "predict", folder, "--json"], input=lines, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


for arguments in MODELS:
    folder = make(*arguments)
    config, logits, lengths = by_transformers(folder)
    answers = by_taper(folder)
    assert [answer["text"] for answer in answers] == TEXTS
    scores = torch.tensor([[answer["scores"][label] for label in config.id2label.values()] for answer in answers], dtype=torch.float64)
    if config.problem_type == "multi_label_classification":
        expected, ours, theirs = torch.sigmoid(logits), torch.logit(scores), logits
    else:
        expected = torch.softmax(logits, -1)
        ours, theirs = scores.log() - scores.log().mean(-1, keepdim=True), logits - logits.mean(-1, keepdim=True)
    worst = (scores - expected).abs().max().item()
    worst_logit = ((ours - theirs).abs() / theirs.abs().clamp(min=1)).max().item()
    shards = len(list(folder.glob("*.safetensors")))
    print(
        f"{arguments[0]:17} rows of {min(lengths)} to {max(lengths)} tokens, {shards} file(s): scores differ by at most {worst:.1e},"
        f" logits (up to {theirs.abs().max():.1f}) by {worst_logit:.1e}"
    )
    assert worst < 1e-5, (arguments[0], scores, expected)
    assert worst_logit < 1e-5, (arguments[0], ours, theirs)
    assert [answer["label"] for answer in answers] == [config.id2label[index] for index in logits.argmax(-1).tolist()]
