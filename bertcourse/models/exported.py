"""Folders that `bertcourse export` writes, opened without torch: from texts to answers, with what a service needs to plan its batches."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertcourse.models.answers import cut, result
from bertcourse.models.kinds import RUNTIMES as RUNTIMES
from bertcourse.models.kinds import base_task
from bertcourse.models.labels import rename
from bertcourse.models.predictor import Predictor
from bertcourse.models.tokenizer import Tokenizer
from bertcourse.runtime import (
    ABOUT,
    CONFIG,
    LONGEST,
    MODEL,
    PROVIDERS,
    TOKENIZER,
    About,
    ModelError,
    open_session,
    providers_of,
    read_about,
    read_file,
)
from bertcourse.tasks import TASK_TYPES, Task

PAIRS = ("pairs", "nli", "similarity")
CONFIG_OF_TOKENIZER = TOKENIZER[1]
LONG = 512  # pieces of the longest input that is timed
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
    tokenizer = Tokenizer(folder)
    check_fit(folder, about, tokenizer)
    task = TASK_TYPES[about.task](tokenizer, about.labels, max_length=about.max_length, lang=about.lang)
    for name in ("threshold", "max_answer_length"):
        if about.task == "qa" and getattr(about, name) is not None:
            setattr(task, name, getattr(about, name))
    return about, task


def check_fit(folder: Path, about: About, tokenizer: Tokenizer) -> None:
    """Raises `ModelError` for labels that the task cannot have, and for a length that the tokenizer or the model does not allow."""
    kind = TASK_TYPES[about.task].name
    if bool(about.labels) == (kind in ("regression", "qa")):
        has, needs = ("labels", "none") if about.labels else ("no labels", "some")
        has_zh, needs_zh = ("标签", "不要标签") if about.labels else ("没有标签", "需要标签")
        raise ModelError(f"{folder / ABOUT} has {has}, and {about.task} needs {needs}: export the model again",
                         f"{folder / ABOUT} 里{'有' * bool(about.labels)}{has_zh}，而 {about.task} {needs_zh}：请重新导出模型")
    for name, most in ((CONFIG_OF_TOKENIZER, tokenizer.model_max_length), (CONFIG, positions_of(folder))):
        if about.max_length > most:
            raise ModelError(f"{folder / ABOUT} says {about.max_length} for max_length, {name} at most {most}: export the model again",
                             f"{folder / ABOUT} 里的 max_length 是 {about.max_length}，而按 {name} 最多 {most}：请重新导出模型")


def positions_of(folder: Path) -> int:
    """How many pieces the model has places for, by its config.json; `LONGEST` where that says nothing. Raises `ModelError` if it is broken."""
    try:
        found = json.loads(read_file(folder / CONFIG).decode("utf-8"))["max_position_embeddings"]
    except (FileNotFoundError, KeyError):
        return LONGEST
    except (OSError, ValueError, RecursionError, TypeError):
        raise ModelError(f"{folder / CONFIG} is broken: export the model again", f"{folder / CONFIG} 已损坏：请重新导出模型") from None
    return found if type(found) is int and found > 0 else LONGEST


def check_provider(name: str) -> None:
    """Raises `ModelError` for one that this ONNX Runtime does not have."""
    import onnxruntime
    if PROVIDERS[name] in (found := onnxruntime.get_available_providers()):
        return
    known = ", ".join(short for short, long in PROVIDERS.items() if long in found)
    raise ModelError(f"this ONNX Runtime has no {name}, only {known}: install its package for that device (for cuda: onnxruntime-gpu), or choose "
                     "another with --provider",
                     f"这个 ONNX Runtime 不支持 {name}，只有 {known}：请安装适用于该设备的版本（cuda 用 onnxruntime-gpu），或用 --provider 换一个")


class ExportedModel(Predictor):
    """An exported model that is loaded, tried and ready. Raises `ModelError` for a folder that cannot be used."""

    def __init__(
        self,
        folder: str | Path,  # that `bertcourse export` wrote
        runtime: str = "ort",
        threads: int | None = 1,  # within an operator; None: one for each physical core
        provider: str = "cpu",  # of `bertcourse.runtime.PROVIDERS`
    ) -> None:
        self.folder = Path(folder)
        if runtime == "ort" and provider != "cpu":
            check_provider(provider)
        self.about, task = load_task(self.folder)
        self.tokenizer: Tokenizer = task.tokenizer
        self.session = open_session(self.folder / MODEL, runtime, threads=threads, providers=providers_of(provider),
                                    pad_id=self.tokenizer.pad_token_id)
        super().__init__(base_task(self.about.task), task, self.session, dict(self.about.columns), list(self.about.inputs), self.folder.resolve().name)
        self.required, self.optional = fields_of(self.about)
        self._check()

    def request_row(self, texts: Mapping[str, str]) -> dict[str, Any]:
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

    def encode_one(self, row: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
        """The inputs of one row among others, row `number` of its request."""
        made = self.encode([row])
        for one in made:
            if "example" in one:  # which row a window belongs to
                one["example"] = number
        return made

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
        """The answers, one for each row: label, probability, scores; score; words, tags, spans; or answer, start, end, probability."""
        predictions = self.task.decode(found, rows, inputs)
        return [result(self.kind, one, row, self.about.lang, scores=True) for one, row in zip(predictions, rows, strict=True)]

    def too_long(self, row: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> bool:
        """Was something cut off because the model reads no more pieces? Only asked where it may be so."""
        count, longest = self.tokenizer.count, self.about.max_length
        if self.about.task == "ner":
            return False  # windows
        if self.about.task == "qa":
            question, room = row["question"].strip(), self.task.question_room
            return len(question.encode()) >= room and count(question, add_special_tokens=False) > room
        if len(inputs[0]["input_ids"]) < longest:
            return False
        return count(*row.values()) > longest

    def answer(self, texts: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """What the service answers to requests, as one batch and without a queue."""
        rows = [self.request_row(one) for one in texts]
        inputs = self.encode(rows)
        return self.decode(rows, inputs, self.run(inputs))

    @property
    def long_text(self) -> str:
        """A text as long as the model reads at once, or nearly so."""
        return " ".join(["ok"] * min(self.about.max_length, LONG))

    def texts_of(self, text: str) -> dict[str, str]:
        """A request with this text in every field."""
        return dict.fromkeys(self.required, text)

    def measure(self) -> tuple[float, float]:
        """Seconds of a forward pass: a constant, and for each piece; of a short and a long input, each the best of a few passes."""
        took = {}
        for text, passes in (("ok", 5), (self.long_text, 2)):
            inputs = self.encode([self.request_row(self.texts_of(text))])[:1]
            times = []
            for _ in range(passes):
                begin = time.perf_counter()
                self.run(inputs)
                times.append(time.perf_counter() - begin)
            took[len(inputs[0]["input_ids"])] = min(times)
        (short, fast), (long, slow) = [*took.items()][0], [*took.items()][-1]
        piece = max(slow - fast, 0.05 * slow) / max(long - short, 1)
        return max(fast - short * piece, 0.0), piece

    def _check_outputs(self) -> None:
        """Raises `ModelError` if the model gives another number of scores than there are labels."""
        found = self.run(self.encode([self.request_row(self.texts_of("ok"))]))[0]
        if "logits" not in found:
            return
        scores, labels = found["logits"].shape[-1], len(self.about.labels) or 1
        if scores != labels:
            raise ModelError(f"{self.folder / ABOUT} has {len(self.about.labels)} labels, {MODEL} gives {scores} scores: export the model again",
                             f"{self.folder / ABOUT} 里有 {len(self.about.labels)} 个标签，{MODEL} 却给出 {scores} 个分数：请重新导出模型")

    def _check(self) -> None:
        """Run every kind of batch once: memory is taken, kernels are chosen, and what does not fit together shows."""
        try:
            self._check_outputs()
            for size in (1, 2, 8):
                self.answer([self.texts_of("ok")] * size)
            self.answer([self.texts_of(self.long_text)])
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"the model in {self.folder} cannot answer ({type(error).__name__}: {str(error)[:120]}): its files do not belong together, "
                "export it again",
                f"{self.folder} 里的模型无法作答（{type(error).__name__}：{str(error)[:120]}）：这些文件不属于同一个模型，请重新导出") from None


def is_exported(name: str | Path) -> bool:
    """Does a folder hold an exported model?"""
    from bertcourse import runtime
    return runtime.is_exported(Path(name).expanduser())


def open_exported(
    name: str | Path, runtime: str = "ort", threads: int | None = None, labels: Sequence[str] | None = None
) -> ExportedModel:
    """The model of a folder, ready to run, without torch; `labels` are names for its own.

    Raises `UserError` for one that is damaged or was not written by `export`.
    """
    found = ExportedModel(Path(name).expanduser(), runtime, threads)
    found.name = Path(name).expanduser().name
    if labels:
        rename(found, labels, found.name)
    return found
