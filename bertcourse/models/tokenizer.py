"""The tokenizer of an exported model's folder, run by `tokenizers` alone.

`transformers` would bring half a second of imports and tenfold the time for a short text; here the same Rust code is
called directly, with as much of the interface of transformers' tokenizers as `bertcourse.tasks` uses.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from bertcourse.runtime import LONGEST, TOKENIZER, ModelError, read_file

FILE, CONFIG = TOKENIZER
STRATEGIES = {True: "longest_first", "only_second": "only_second"}
COLUMNS = {"input_ids": "ids", "token_type_ids": "type_ids", "offset_mapping": "offsets"}  # transformers' names, tokenizers'


def read_text(folder: Path, name: str) -> str:
    """A file of a folder. Raises `ModelError` for one that is not there or cannot be read."""
    try:
        return read_file(folder / name).decode("utf-8")
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no {name}: export the model again", f"{folder} 里没有 {name}：请重新导出模型") from None
    except OSError as error:
        why = error.strerror or str(error)
        raise ModelError(f"{folder / name} cannot be read ({why}): export the model again",
                         f"{folder / name} 无法读取（{why}）：请重新导出模型") from None


class Encoded:
    """Inputs, one or more for each text; the part of transformers' `BatchEncoding` that is read."""

    def __init__(self, inputs: Sequence[Any], example: Sequence[int]) -> None:
        self.inputs = inputs
        self._columns: dict[str, Any] = {"overflow_to_sample_mapping": example}

    def __contains__(self, name: str) -> bool:
        return name in COLUMNS or name in self._columns

    def __getitem__(self, name: str) -> Any:
        """A column by transformers' name, made when it is first asked for."""
        if name not in self._columns:
            self._columns[name] = [getattr(one, COLUMNS[name]) for one in self.inputs]
        return self._columns[name]

    def word_ids(self, i: int) -> list[int | None]:
        """Which word each piece of input `i` belongs to; None for special tokens."""
        return self.inputs[i].word_ids

    def sequence_ids(self, i: int) -> list[int | None]:
        """Which text, 0 or 1, each piece of input `i` belongs to; None for special tokens."""
        return self.inputs[i].sequence_ids


class Tokenizer:
    """Texts or words → pieces, as transformers' fast tokenizers do. `ModelError` for a folder without a usable one.

    Safe to use from several threads: a copy for each way of cutting is made once and never changed.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        try:
            self._text = read_text(folder, FILE)
            config = json.loads(read_text(folder, CONFIG))
            plain = tokenizers.Tokenizer.from_str(self._text)
            pad = config.get("pad_token") or "[PAD]"
            self.pad_token_id = plain.token_to_id(pad["content"] if isinstance(pad, dict) else pad) or 0
            self.model_max_length = min(int(config.get("model_max_length") or 512), LONGEST)
        except (ModelError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # tokenizers raises bare Exception, and its Rust code panics
            why = str(error).replace("\n", " ")[:120]
            raise ModelError(f"the tokenizer in {folder} is damaged ({why}): export the model again",
                             f"{folder} 里的分词器已损坏（{why}）：请重新导出模型") from None
        plain.no_padding()
        plain.no_truncation()
        self._plain = plain
        self._cutting: dict[tuple[str, int, int], tokenizers.Tokenizer] = {}

    def __len__(self) -> int:
        """Pieces that it knows, added ones included."""
        return self._plain.get_vocab_size()

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Pieces that a text or a pair gets beside its own, such as [CLS] and [SEP]."""
        return self._plain.num_special_tokens_to_add(pair)

    def _for(self, strategy: str, length: int, stride: int) -> tokenizers.Tokenizer:
        """The tokenizer that cuts in this way."""
        key = strategy, length, stride
        if key not in self._cutting:
            made = tokenizers.Tokenizer.from_str(self._text)
            made.no_padding()
            made.enable_truncation(length, stride=stride, strategy=strategy)
            self._cutting[key] = made
        return self._cutting[key]

    def count(self, *texts: str, add_special_tokens: bool = True) -> int:
        """Pieces of a text or a pair that nobody cuts."""
        return len(self._plain.encode(*texts, add_special_tokens=add_special_tokens))

    def __call__(
        self,
        texts: Sequence[Any],
        pairs: Sequence[str] | None = None,
        *,
        truncation: bool | str = True,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        add_special_tokens: bool = True,
        return_overflowing_tokens: bool = False,
        return_offsets_mapping: bool = False,
        return_attention_mask: bool = False,
    ) -> Encoded:
        """As a fast tokenizer of transformers, for the arguments that are here; columns are made when they are asked for."""
        tokenizer = self._for(STRATEGIES[truncation], max_length or self.model_max_length, stride)
        entries = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        # A single text needs no pool of threads, and a worker of the service has one core.
        made = [tokenizer.encode(*(one if pairs is not None else (one,)), is_pretokenized=is_split_into_words,
                                 add_special_tokens=add_special_tokens) for one in entries]
        inputs: list[Any] = []
        example: list[int] = []
        for k, first in enumerate(made):
            windows = [first, *first.overflowing] if return_overflowing_tokens else [first]
            inputs += windows
            example += [k] * len(windows)
        return Encoded(inputs, example)
