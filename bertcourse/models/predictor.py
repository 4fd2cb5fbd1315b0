"""A fine-tuned model, from texts to answers; the same for checkpoints and for exported models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from bertcourse.base.errors import UserError
from bertcourse.models.answers import cut, result
from bertcourse.models.kinds import base_task, check_inputs

HTTP_NAMES = {"text": "sentence", "text_pair": "sentence2"}  # what requests of the service call them
Example = str | tuple[str, str] | list[str] | Mapping[str, Any]  # a text, a pair, tokens, or a row by columns


def batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` rows, the last perhaps shorter."""
    rows = iter(rows)
    while batch := list(islice(rows, size)):
        yield batch


@dataclass(repr=False)
class Predictor:
    """A fine-tuned model and what its folder says of it."""

    kind: str  # one of `bertcourse.models.kinds.TASKS`
    task: Any  # a bertcourse.tasks.Task
    model: Any  # a PyTorch module, or a `bertcourse.runtime` session
    columns: dict[str, str] = field(default_factory=dict)  # our name → that of the training files
    inputs: list[str] = field(default_factory=list)  # columns it was trained on; empty where nobody knows
    name: str = ""  # for messages

    def __repr__(self) -> str:
        labels = f", labels {', '.join(self.task.labels[:10])}" if self.task.labels else ""
        return f"<{type(self).__name__} {self.name}: {self.kind}{labels}>"

    def row(self, example: Example) -> dict[str, Any]:
        """The row of `bertcourse.tasks` for a text, a pair of texts, a list of tokens, or a mapping. Raises `UserError`."""
        task = base_task(self.kind)
        if isinstance(example, Mapping):
            return self._row_of_columns(dict(example))
        if isinstance(example, str) and task == "ner":
            return cut(example)
        if isinstance(example, str) and task != "qa" and self.inputs != ["sentence1", "sentence2"]:
            return {"sentence": example}
        parts = list(example) if isinstance(example, (tuple, list)) else []
        texts = parts and all(isinstance(part, str) for part in parts)
        if task == "ner" and texts:
            return {"tokens": parts}
        if task == "qa" and texts and len(parts) == 2:
            return {"question": parts[0], "context": parts[1]}
        if task != "qa" and texts and len(parts) == 2 and "sentence" not in self.inputs:
            return {"sentence1": parts[0], "sentence2": parts[1]}
        raise self._unusable(example)

    def _row_of_columns(self, row: dict[str, Any]) -> dict[str, Any]:
        """A mapping by our names, by those of the training files, or by those of the service. Raises `UserError`."""
        for ours, theirs in self.columns.items():
            if theirs in row and ours not in row:
                row[ours] = row.pop(theirs)
        if "text_pair" in row:
            row["sentence1"], row["sentence2"] = row.pop("text", None), row.pop("text_pair")
        elif "text" in row and "offsets" not in row:
            text = row.pop("text")
            row |= cut(text) if base_task(self.kind) == "ner" and "tokens" not in row and isinstance(text, str) else {"sentence": text}
        check_inputs(self.inputs, self.kind, row, self.name)
        for name, value in row.items():
            wanted = list if name in ("tokens", "offsets") else str
            wrong = not isinstance(value, wanted) or name == "tokens" and not all(isinstance(word, str) for word in value)
            if name in ("sentence", "sentence1", "sentence2", "question", "context", "tokens") and wrong:
                raise UserError(f"{name} is {value!r}: give {'a list of words' if wanted is list else 'a text'}",
                                f"{name} 是 {value!r}：请给出{'词的列表' if wanted is list else '文本'}")
        return row

    def _unusable(self, example: Any) -> UserError:
        """The sentence for an example that this model cannot read."""
        wanted = {"qa": ("(question, context)", "（问题，原文）"), "ner": ("a text or a list of words", "一段文本或词的列表")}
        en, zh = wanted.get(base_task(self.kind), ("a text", "一段文本"))
        if self.inputs == ["sentence1", "sentence2"]:
            en, zh = "(sentence1, sentence2)", "（句子一，句子二）"
        shown = repr(example)
        shown = shown if len(shown) <= 60 else shown[:59] + "…"
        return UserError(f"{self.name} ({self.kind}) cannot read {shown}: give {en}, or a mapping with these names",
                         f"{self.name}（{self.kind}）读不了 {shown}：请给出{zh}，或用这些名字作键的映射")

    def predict(
        self,
        examples: Example | Iterable[Example],  # one, or any number of them, also a generator
        *,
        batch_size: int = 32,  # examples at a time
        scores: bool = False,  # the probabilities of all labels, too
    ) -> dict[str, Any] | Iterator[dict[str, Any]] | list[dict[str, Any]]:
        """What the model answers: for one example a dict, for a list, a frame or a dataset a list, for a generator an iterator.

        classification and pairs: `label`, `probability`; regression: `score`; ner: `words`, `tags` (one for each word) and `spans`,
        each with `label`, `text`, `start`, `end`, `probability`: the entities, or for labels such as parts of speech each word;
        qa: `answer`, `start`, `end`, `probability`, with "" for no answer. The service gives the same. Raises `UserError` for an
        example that the model cannot read.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(f"batch_size must be a whole number from 1 on, not {batch_size!r}", f"batch_size 应为不小于 1 的整数，不能是 {batch_size!r}")
        if self._is_one(examples):
            return next(iter(self._predict_all([examples], 1, scores)))
        if hasattr(examples, "to_dict") and hasattr(examples, "columns"):  # pandas: iterating gives names of columns
            examples = examples.to_dict("records")
        if not isinstance(examples, Iterable) or isinstance(examples, bytes):
            raise self._unusable(examples)
        found = self._predict_all(examples, batch_size, scores)
        return list(found) if hasattr(examples, "__len__") else found

    def _is_one(self, examples: Any) -> bool:
        """Is it one example? A list of texts is several, but for a tuple, which is a pair."""
        return isinstance(examples, (str, tuple, Mapping))

    def _predict_all(self, examples: Iterable[Example], batch_size: int, scores: bool) -> Iterator[dict[str, Any]]:
        for batch in batches(examples, batch_size):
            rows = [self.row(example) for example in batch]
            for row, prediction in zip(rows, self.task.predict(self.model, rows, batch_size), strict=True):
                yield result(self.kind, prediction, row, self.task.lang, scores)

    def predict_rows(self, rows: Iterable[Mapping[str, Any] | None], batch_size: int) -> Iterator[list[tuple[Any, Any]]]:
        """Rows of `bertcourse.files`, each with its prediction, a batch at a time; for None, a blank line, None. Raises `UserError`."""
        for batch in batches(rows, batch_size):
            present = [row for row in batch if row is not None]
            for row in present:
                check_inputs(self.inputs, self.kind, row, self.name)
            found = iter(self.task.predict(self.model, present, batch_size) if present else ())
            yield [(row, None if row is None else next(found)) for row in batch]
