"""Checkpoints of every family, laid out as their publishers do: configuration, tokenizer files, tiny random weights."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import decoders, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "my dog is hairy and he lives in the house", "Anna Bell lives in Paris with Peter, who likes the red house.",
    "Where does Anna live? She lives in New York.", "the film is very good", "the film is not good at all",
    "a man plays the guitar and somebody makes music", "我的狗在家里，他今天去公园看书，吃面条。",
] * 3  # fmt: skip
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
POSITIONS = 64
BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
HEADS = {"classification": "SequenceClassification", "regression": "SequenceClassification", "ner": "TokenClassification",
         "qa": "QuestionAnswering"}  # fmt: skip
NAMES = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}


# --- tokenizers ---------------------------------------------------------------------------------------------------

@functools.cache
def word_pieces() -> list[str]:
    "A vocabulary of WordPiece, in its order."
    made = tokenizers.BertWordPieceTokenizer(lowercase=False)
    made.train_from_iterator(TEXTS, vocab_size=400, min_frequency=1, show_progress=False, special_tokens=list(BERT_TOKENS))
    return sorted(made.get_vocab(), key=made.get_vocab().get)


@functools.cache
def byte_pairs(special: tuple[str, ...]) -> dict:
    "A tokenizer.json of byte-level BPE: a blank belongs to the word behind it (Ġ)."
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=600, show_progress=False, special_tokens=list(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json.loads(made.to_str())


@functools.cache
def unigram(special: tuple[str, ...], unknown: str) -> list[tuple[str, float]]:
    "A vocabulary of SentencePiece, with scores: a blank is ▁."
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(TEXTS, trainers.UnigramTrainer(
        vocab_size=300, show_progress=False, special_tokens=list(special), unk_token=unknown))
    return [tuple(piece) for piece in json.loads(made.to_str())["model"]["vocab"]]


def write_wordpiece(folder: Path, config: str = '{"do_lower_case": false}') -> int:
    "As google-bert/bert-base-cased: vocab.txt and a line of configuration."
    (folder / "vocab.txt").write_text("\n".join(word_pieces()) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(config)
    return len(word_pieces())


def write_byte_pairs(folder: Path, special: tuple[str, ...]) -> int:
    "As FacebookAI/roberta-base, microsoft/deberta-base: vocab.json and merges.txt."
    model = byte_pairs(special)["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(model["vocab"])


def write_modernbert(folder: Path) -> int:
    "As answerdotai/ModernBERT-base: a tokenizer.json of byte-level BPE, of no class of its own."
    made = tokenizers.Tokenizer.from_str(json.dumps(byte_pairs(BERT_TOKENS)))
    made.normalizer = normalizers.NFC()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[(t, made.token_to_id(t)) for t in ("[CLS]", "[SEP]")])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(NAMES | {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"], "model_max_length": 8192}))
    return made.get_vocab_size()


def write_sentencepiece(folder: Path, family: str) -> int:
    "As FacebookAI/xlm-roberta-base, albert/albert-base-v2 and exports of microsoft/deberta-v3-base: a tokenizer.json of Unigram."
    cls, special, unknown = {
        "xlm-roberta": (transformers.XLMRobertaTokenizer, ROBERTA_TOKENS[:4], "<unk>"),
        "albert": (transformers.AlbertTokenizer, ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"), "<unk>"),
        "deberta-v2": (transformers.DebertaV2Tokenizer, ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), "[UNK]"),
    }[family]  # fmt: skip
    made = cls(vocab=unigram(special, unknown), **({"unk_id": 3} if family == "deberta-v2" else {}))
    made.save_pretrained(folder)
    return len(made)


# --- models -------------------------------------------------------------------------------------------------------

def write_tokenizer(folder: Path, family: str) -> int:
    "A family's tokenizer; the number of its pieces."
    if family in ("roberta", "deberta"):
        return write_byte_pairs(folder, ROBERTA_TOKENS if family == "roberta" else BERT_TOKENS)
    if family == "modernbert":
        return write_modernbert(folder)
    if family in ("xlm-roberta", "albert", "deberta-v2"):
        return write_sentencepiece(folder, family)
    return write_wordpiece(folder)


def configuration(family: str, vocab_size: int) -> transformers.PretrainedConfig:
    "That of a tiny model."
    more = {
        "roberta": {"max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
        "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False, "type_vocab_size": 0},
        "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0,
                       "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True, "pooler_hidden_size": 16},
        "electra": {"embedding_size": 8}, "albert": {"embedding_size": 8},
        "mobilebert": {"embedding_size": 8, "intra_bottleneck_size": 8, "true_hidden_size": 8},
        "modernbert": {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3,
                       "global_attn_every_n_layers": 2, "local_attention": 16},
    }  # fmt: skip
    more["xlm-roberta"] = more["roberta"]
    if family == "distilbert":
        return transformers.DistilBertConfig(vocab_size=vocab_size, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=POSITIONS)
    return transformers.AutoConfig.for_model(family, **{"vocab_size": vocab_size, "max_position_embeddings": POSITIONS} | SHAPE | more.get(family, {}))


FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "electra", "albert", "deberta", "deberta-v2", "modernbert", "mobilebert")


def checkpoint(folder: Path, family: str, kind: str = "", labels: Sequence[str] = (), **config: object) -> Path:
    """A folder as on the hub; with `kind`, one of `HEADS`, with a head whose numbers differ visibly.

    Without labels a classifier has transformers' LABEL_0 and LABEL_1.
    """
    folder.mkdir(parents=True)
    settings = configuration(family, write_tokenizer(folder, family))
    if labels:
        names = dict(enumerate(labels))
        settings.update({"id2label": names, "label2id": {name: i for i, name in names.items()}})
    if kind == "regression":
        settings.update({"num_labels": 1, "problem_type": "regression"})
    settings.update(config)
    torch.manual_seed(0)
    auto_class = getattr(transformers, f"AutoModelFor{HEADS[kind]}") if kind else transformers.AutoModel
    model = auto_class.from_config(settings)
    for name, weight in model.named_parameters():
        if kind and not name.startswith(model.base_model_prefix + "."):
            torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder)
    return folder
