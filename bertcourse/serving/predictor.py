"""The core of the service: a folder that `bertcourse export` wrote, from a row of texts to an answer. No HTTP, no queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertcourse.runtime import ABOUT, MODEL, About, ModelError, open_session, read_about
from bertcourse.serving.answers import cut, result
from bertcourse.serving.tokenizer import Tokenizer
from bertcourse.tasks import TASK_TYPES, Task

PAIRS = ("pairs", "nli", "similarity")
FIELDS = ("text", "text_pair", "question", "context")  # what a request may hold


def fields_of(about: About) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields a request for this model must have, and those it may have."""
    if about.task == "qa":
        return ("question", "context"), ()
    if about.task == "ner" or "sentence" in about.inputs:
        return ("text",), ()
    if about.task in PAIRS or "sentence1" in about.inputs:
        return ("text", "text_pair"), ()
    return ("text",), ("text_pair",)  # nobody knows whether it was trained on pairs


def load_task(folder: str | Path) -> tuple[About, Task]:
    """What a folder says of itself, and the task that encodes and decodes for its model. Raises `ModelError`."""
    folder = Path(folder)
    about = read_about(folder)
    if about.task not in TASK_TYPES:
        raise ModelError(f"{folder / ABOUT} says {about.task}, which is no task of ours: export the model again",
                         f"{folder / ABOUT} 里的任务是 {about.task}，我们没有这种任务：请重新导出模型")
    task = TASK_TYPES[about.task](Tokenizer(folder), about.labels, max_length=about.max_length, lang=about.lang)
    if about.task == "qa" and about.threshold is not None:
        task.threshold = about.threshold
    return about, task


class Predictor:
    """A model that is loaded, tried and ready. Raises `ModelError` for a folder that cannot be used."""

    def __init__(
        self,
        folder: str | Path,  # that `bertcourse export` wrote
        runtime: str = "ort",
        threads: int = 1,  # within an operator
    ) -> None:
        self.folder = Path(folder)
        self.about, self.task = load_task(self.folder)
        self.tokenizer: Tokenizer = self.task.tokenizer
        self.session = open_session(self.folder / MODEL, runtime, threads=threads, pad_id=self.tokenizer.pad_token_id)
        self.required, self.optional = fields_of(self.about)
        self._check()

    def row(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """The row of `bertcourse.tasks` for one text of a request."""
        if self.about.task == "qa":
            return {"question": texts["question"], "context": texts["context"]}
        if self.about.task == "ner":
            return cut(texts["text"])
        if "text_pair" in texts:
            return {"sentence1": texts["text"], "sentence2": texts["text_pair"]}
        return {"sentence": texts["text"]}

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Inputs of the model, for long texts of NER and QA more than one for each row."""
        return self.task.encode(rows, labelled=False)

    def run(self, inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, np.ndarray]]:
        """One forward pass of all inputs together. Raises `ModelError` if numbers come out that are none."""
        found = self.session.outputs_of(inputs, len(inputs))
        if not all(np.isfinite(values).all() for one in found for values in one.values()):
            raise ModelError(f"the model in {self.folder} gives nan instead of numbers, its weights are damaged: export it again",
                             f"{self.folder} 里的模型给出的不是数而是 nan，权重已损坏：请重新导出")
        return found

    def decode(
        self,
        rows: Sequence[Mapping[str, Any]],
        inputs: Sequence[Mapping[str, Any]],  # of `encode(rows)`
        found: Sequence[Mapping[str, np.ndarray]],  # of `run`, in their order
    ) -> list[dict[str, Any]]:
        """The answers, one for each row: label, probability, scores; score; spans; or answer, start, end, probability."""
        said = self.task.decode(found, rows, inputs)
        made = [result(self.kind, one, row, self.about.lang, scores=True) for one, row in zip(said, rows, strict=True)]
        for one in made:
            one.pop("tags", None)  # of words that the caller does not know
        return made

    def too_long(self, row: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> bool:
        """Was something cut off because the model reads no more pieces? Only asked where it may be so."""
        count, longest = self.tokenizer.count, self.about.max_length
        if self.about.task == "ner":
            return False  # windows
        if self.about.task == "qa":
            question = row["question"].strip()
            return 2 * len(question) >= longest and count(question, add_special_tokens=False) > longest // 2
        if len(inputs[0]["input_ids"]) < longest:
            return False
        return count(*row.values()) > longest

    def predict(self, texts: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """Answers without a queue, as one batch: for tests, and to know what the service must say."""
        rows = [self.row(one) for one in texts]
        inputs = self.encode(rows)
        return self.decode(rows, inputs, self.run(inputs))

    @property
    def kind(self) -> str:
        """The kind of answer, by the names of `bertcourse predict`."""
        if self.about.task in ("ner", "qa"):
            return self.about.task
        return "regression" if not self.about.labels else "classification"

    def _check(self) -> None:
        """Run every kind of batch once: memory is taken, kernels are chosen, and what does not fit together shows."""
        texts = {name: "ok" for name in self.required}
        try:
            for size in (1, 2, 8):
                self.predict([texts] * size)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"the model in {self.folder} cannot answer ({type(error).__name__}: {str(error)[:120]}): its files do not belong together, "
                "export it again",
                f"{self.folder} 里的模型无法作答（{type(error).__name__}：{str(error)[:120]}）：这些文件不属于同一个模型，请重新导出") from None
