"""Labelled rows of a job: files that are read, split, and looked at to choose what was left open."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertcourse.base.atomic import file_digest
from bertcourse.base.errors import UserError
from bertcourse.base.messages import plural
from bertcourse.base.text import is_chinese, shown_name
from bertcourse.jobs.reporter import Reporter
from bertcourse.models.checkpoint import model_name
from bertcourse.models.kinds import TARGETS, base_task, input_columns

SPLITS = {"train": "train", "dev": "validation", "test": "test"}  # option: split
DEV_SHARE = 0.1  # of --train, where there is no --dev
MOST_LENGTHS = 10_000  # texts that are looked at to choose a length
SHORTEST_LIMIT = 30  # pieces of an answer, as in google-research/bert
SHORTEST = 8  # pieces: room for a window of question and passage


# --- files --------------------------------------------------------------------------------------------------------

def check_files(files: Iterable[Path]) -> None:
    """Raises `UserError` unless they are regular files, each another."""
    seen: dict[Path, Path] = {}
    for file in files:
        if str(file) == "-" or (file.exists() and not file.is_file() and not file.is_dir()):
            raise UserError(f"{file} can be read only once: save it in a file first", f"{file} 只能读一遍：请先存成文件")
        if file.is_dir() or not file.exists():
            en, zh = ("is a folder: name the file in it", "是文件夹：请写出其中的文件") if file.is_dir() else \
                ("is not there: check its name", "不存在：请检查文件名")
            raise UserError(f"{file} {en}", f"{file} {zh}")
        if file.resolve() in seen:
            raise UserError(f"{file} is given twice: scores on texts of the training tell nothing",
                            f"{file} 出现了两次：在训练过的文本上打分没有意义")
        seen[file.resolve()] = file


def describe_file(option: str, file: Path) -> dict[str, Any]:
    """A file, by its content."""
    return {"option": option, "name": shown_name(file), "bytes": file.stat().st_size, "sha256": file_digest(file)}


# --- rows ---------------------------------------------------------------------------------------------------------

@dataclass
class Data:
    """Labelled rows, as the library reads them, and how many of each file were left out or corrected."""

    splits: dict[str, Any]  # option: a datasets.Dataset
    skipped: dict[str, int]
    moved: dict[str, int]  # answers that were not where the file says
    held_out: bool  # is `dev` a part of the training file?

    def counts(self) -> dict[str, int]:
        """Option: rows."""
        return {option: len(rows) for option, rows in self.splits.items()}

    def as_metrics(self, **more_rows: int) -> dict[str, Any]:
        """For `metrics.json`: rows of each file and of `more_rows`, how many were left out or corrected, and whether dev was held out."""
        return {"rows": self.counts() | more_rows, "skipped": self.skipped, "moved": self.moved, "held_out": self.held_out}


def build_splits(spec: Any, rows: Mapping[str, Any], reporter: Reporter, classes: Sequence[str] | None = None) -> Data:
    """Rows that were read, by split, as datasets, with some held out if there is no `--dev`; `classes` are those of a trained model.

    spec: has `task`, `paths` and `settings`. Raises `UserError`.
    """
    from bertcourse import files
    found = files.as_dataset(spec.task, rows, classes)
    splits = {option: found[split] for option, split in SPLITS.items() if split in found}
    for option in splits:
        reporter.rows(rows[SPLITS[option]])
    check_learnable(base_task(spec.task), splits["train"], Path(spec.paths["train"]).name)
    if held_out := "dev" not in splits:
        splits |= hold_out(splits["train"], spec.settings["seed"], Path(spec.paths["train"]).name)
        reporter.info(f"no --dev: {plural(len(splits['dev']), 'row')} of the training file held out for it (seed {spec.settings['seed']}), "
                   f"{len(splits['train']):,} are left",
                   f"没有 --dev：从训练文件里留出 {len(splits['dev']):,} 条（种子 {spec.settings['seed']}），剩下 {len(splits['train']):,} 条训练")
    parts = {option: rows[split] for option, split in SPLITS.items() if split in rows}
    return Data(splits, {option: part.skipped.total() for option, part in parts.items()},
                {option: part.moved for option, part in parts.items()}, held_out)


def hold_out(train: Any, seed: int, name: str) -> dict[str, Any]:
    """A seeded tenth of the rows as `dev`, the others as `train`.

    Every class gives its share, and keeps one row at least. Rows with the same input stay together, as do questions about a passage.
    Raises `UserError` for a file `name` that is too small.
    """
    groups: dict[Any, list[int]] = {}
    for i, key in enumerate(inputs_as_keys(train)):
        groups.setdefault(key, []).append(i)
    if len(groups) < 2:
        raise UserError(f"{name} has too few rows that differ (for qa: passages) to hold some out: give a file with --dev",
                        f"{name} 里不同的数据（qa 是不同的原文）太少，留不出验证数据：请用 --dev 给出文件")
    wanted, held = max(1, round(DEV_SHARE * len(train))), []
    for group in in_proportion([*groups.values()], strata_of(train), seed)[:-1]:  # one group at least is left to learn from
        if len(held) < wanted:
            held += group
    kept = sorted(set(range(len(train))) - set(held))
    return {"train": train.select(kept), "dev": train.select(sorted(held))}


def inputs_as_keys(rows: Any) -> list[Any]:
    """What a model reads of each row, as a key; of a question the passage."""
    names = ["context"] if "context" in rows.column_names else input_columns(rows.column_names)
    columns = [[tuple(value) if isinstance(value, list) else value for value in rows[name]] for name in names]
    return [*zip(*columns, strict=True)]


def strata_of(rows: Any) -> list[Any]:
    """Of each row the class; where labels are numbers, the tenth of them in which it is; else nothing."""
    import numpy as np
    if "label" not in rows.column_names:
        return [None] * len(rows)
    labels = np.array(rows["label"])
    if labels.dtype.kind != "f":
        return labels.tolist()
    return np.searchsorted(np.quantile(labels, np.arange(0.1, 1, 0.1)), labels).tolist()


def in_proportion(groups: list[list[int]], strata: Sequence[Any], seed: int) -> list[list[int]]:
    """Groups of rows in a seeded order of which every beginning has each stratum in its share; a stratum's only group comes last."""
    import numpy as np
    random = np.random.default_rng([seed, len(strata)])
    members: dict[Any, list[list[int]]] = {}
    for group in groups:
        members.setdefault(strata[group[0]], []).append(group)
    placed: list[tuple[float, list[int]]] = []
    for found in members.values():
        offset = random.random() if len(found) > 1 else math.inf
        for rank, i in enumerate(random.permutation(len(found)).tolist()):
            placed.append(((rank + offset) / len(found), found[i]))
    return [group for _, group in sorted(placed)]


def check_learnable(kind: str, train: Any, name: str) -> None:
    """Raises `UserError` for answers that are all the same; `files.as_dataset` has done so for classes."""
    if kind == "qa" and not any(answers["text"] for answers in train["answers"]):
        raise UserError(f"no question in {name} has an answer: there is nothing to learn from it",
                        f"{name} 里没有一个问题有答案：从中学不到什么")
    if kind == "regression" and len(numbers := set(train["label"])) < 2:
        raise UserError(f"every label in {name} is {min(numbers):g}: give numbers that differ",
                        f"{name} 里的标签全是 {min(numbers):g}：请给出不同的数")


# --- what the rows decide ------------------------------------------------------------------------------------------

def language_of_text(text: str) -> str:
    """The language of most of a text: "zh" if it is written in Chinese characters."""
    chinese = sum(map(is_chinese, text))
    return "zh" if 2 * chinese > sum(char.isascii() and char.isalpha() for char in text) else "en"


def language_of_rows(train: Any) -> str:
    """The language of most of the first rows."""
    text = json.dumps(train.select(range(min(len(train), 1_000))).remove_columns(
        [name for name in train.column_names if name in ("id", *TARGETS)])[:], ensure_ascii=False)
    return language_of_text(text)


def token_counts(tokenizer: Any, rows: Any) -> list[int]:
    """Pieces of each input if nothing were cut; of at most `MOST_LENGTHS` rows, evenly taken."""
    rows = rows.select(range(0, len(rows), -(-len(rows) // MOST_LENGTHS)))
    names = input_columns(rows.column_names)
    coded = tokenizer(*(list(rows[name]) for name in names), is_split_into_words="tokens" in names, truncation=False,
                      return_attention_mask=False, verbose=False)
    return [len(ids) for ids in coded["input_ids"]]


def choose_max_length(spec: Any, tokenizer: Any, train: Any, reporter: Reporter) -> int:
    """`--max-length`, or what holds 99% of the training texts. Says how many are longer. Raises `UserError`."""
    from bertcourse.finetuning import choose_length
    asked_for, positions = spec.settings["max_length"], tokenizer.model_max_length
    if asked_for != "auto" and asked_for > positions:
        raise UserError(f"--max-length {asked_for} is more than the {positions} positions of {model_name(spec.model)}: choose at most "
                        "that, or another model",
                        f"--max-length {asked_for} 超过了 {model_name(spec.model)} 的 {positions} 个位置：请不要超过它，或换一个模型")
    found = token_counts(tokenizer, train)
    chosen = max(SHORTEST, choose_length(found, most=positions)) if asked_for == "auto" else asked_for
    share = sum(n > chosen for n in found) / len(found)
    windowed = base_task(spec.task) in ("ner", "qa")
    en, zh = ("seen in windows", "分窗口处理") if windowed else ("cut", "被截断")
    reporter.info(f"length {chosen} tokens{' (auto)' if asked_for == 'auto' else ''}: {share:.1%} of the texts are longer and {en}",
               f"长度 {chosen} 个 token{'（自动）' if asked_for == 'auto' else ''}：{share:.1%} 的文本更长，{zh}")
    return chosen


def model_inputs(encoded: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the model takes of encoded rows; windows carry more, for decoding. Answers that could not be placed are left out."""
    from bertcourse.tasks import UNPLACED
    names = ("input_ids", "token_type_ids", "labels", "start_positions", "end_positions")
    return [{name: row[name] for name in names if name in row} for row in encoded if row.get("start_positions") != UNPLACED]


def count_unplaced(encoded: Sequence[Mapping[str, Any]]) -> int:
    """Questions whose answer gives no piece: nothing that a model could point at."""
    from bertcourse.tasks import UNPLACED
    return len({row["example"] for row in encoded if row.get("start_positions") == UNPLACED})


def longest_answer(encoded: Sequence[Mapping[str, Any]]) -> int:
    """Pieces that an answer may have: as many as the longest one of the training rows, `SHORTEST_LIMIT` at least."""
    from bertcourse.tasks import UNPLACED
    lengths = [row["end_positions"] - row["start_positions"] + 1 for row in encoded if row["start_positions"] != UNPLACED]
    return max([SHORTEST_LIMIT, *lengths])
