"""The labels of a fine-tuned model beside those of a file: names for LABEL_0, and tags in the model's own scheme."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bertcourse.base.messages import UserError, plural


def rename(predictor: Any, labels: Sequence[str], name: str) -> None:
    """Give the labels of a model (a `Predictor`) these names. Raises `UserError` unless they are as many."""
    task, count = predictor.task, len(predictor.task.labels)
    if not count:
        raise UserError(f"--labels: {name} ({predictor.kind}) has no labels: leave it out", f"--labels：{name}（{predictor.kind}）没有标签：请去掉它")
    if len(labels) != count:
        raise UserError(f"--labels has {plural(len(labels), 'name')}, {name} has {plural(count, 'label')} ({listed(task.labels)}): name each of them",
                        f"--labels 给了 {len(labels)} 个名字，而 {name} 有 {count} 个标签（{listed(task.labels, '、')}）：请给每个标签一个名字")
    task.labels = tuple(labels)
    config = getattr(predictor.model, "config", None)
    if config is not None:  # an exported model has none
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}


def are_unnamed(labels: Sequence[str]) -> bool:
    """Are they LABEL_0, LABEL_1 …, which transformers writes where nobody has given names?"""
    return len(labels) > 0 and all(label == f"LABEL_{i}" for i, label in enumerate(labels))


def are_bio(labels: Sequence[str]) -> bool:
    """Are they B-PER, I-PER … and O, as files have them, or no entities at all?"""
    from bertcourse.tasks import bio_tags
    meaning = bio_tags(labels) or {}
    return all(tag in (label, "O") for label, tag in meaning.items())


def listed(labels: Sequence[str], separator: str = ", ") -> str:
    """The first ten."""
    return separator.join([*labels[:10], *(["…"] if len(labels) > 10 else [])])


def match_labels(predictor: Any, rows: Mapping[str, Any], name: str, reporter: Any) -> Mapping[str, Any]:
    """Labelled rows (split → `files.Rows`) with the labels of the model.

    A model without names takes those of the rows, in their order, and that is said. Tags are written in the model's scheme.
    Raises `UserError` where the numbers of labels differ.
    """
    task, file_labels = predictor.task, {label for part in rows.values() for *_, label in part.classes()}
    known, file = file_labels <= set(task.labels), next(iter(rows.values())).path.name
    if task.labels and predictor.kind == "ner" and not are_unnamed(task.labels) and not (known and are_bio(task.labels)):
        return {split: with_tags_of(part, task.labels) for split, part in rows.items()}
    if not task.labels or known:
        return rows
    if are_unnamed(task.labels):
        take_names(predictor, file_labels, name, file, reporter)
    elif not file_labels & set(task.labels) and len(file_labels) == len(task.labels):
        raise UserError(f"{name} has the labels {listed(task.labels)}, {file} {listed(in_order(file_labels))}: if they mean the same, "
                        "give the file's with --labels, in the model's order",
                        f"{name} 的标签是 {listed(task.labels, '、')}，{file} 里是 {listed(in_order(file_labels), '、')}：如果含义相同，"
                        "请用 --labels 按模型的顺序写出文件里的标签")
    return rows


def with_tags_of(part: Any, labels: Sequence[str]) -> Any:  # Rows
    """Rows of BIO tags in the scheme of a model's labels."""
    from bertcourse.files import Rows
    from bertcourse.tasks import in_scheme

    class Converted(Rows):
        understood = part.understood  # of the file

    settings = {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.init}
    return Converted(**settings | {"rows": [row | {"ner_tags": in_scheme(row["ner_tags"], labels)} for row in part.rows]})


def in_order(labels: set[str]) -> list[str]:
    """The order in which `bertcourse finetune` numbers labels: O, then whole numbers, then names."""
    def key(label: str) -> tuple[bool, bool, int, str]:
        number = re.fullmatch(r"-?\d{1,18}", label)
        return label != "O", not number, int(number[0]) if number else 0, label

    return sorted(labels, key=key)


def take_names(predictor: Any, file_labels: set[str], name: str, file: str, reporter: Any) -> None:
    """Labels LABEL_0 … take the names in the rows. Raises `UserError` where nobody can know which is which."""
    labels, count = in_order(file_labels), len(predictor.task.labels)
    if file_labels <= {str(i) for i in range(count)}:  # the rows have the model's own numbers
        labels = [str(i) for i in range(count)]
    if len(labels) != count:
        raise UserError(f"{name} has {plural(count, 'label')} without names, {file} {len(labels)} ({listed(labels)}): "
                        "give the names of all, in their order, with --labels",
                        f"{name} 有 {count} 个没有名字的标签，{file} 里有 {len(labels)} 个（{listed(labels, '、')}）："
                        "请用 --labels 按顺序写出全部名字")
    rename(predictor, labels, name)
    reporter.info(f"{name} has labels without names (LABEL_0 …): taken in order as {listed(labels)}; if the order is another, use --labels",
               f"{name} 的标签没有名字（LABEL_0 …）：按顺序当作 {listed(labels, '、')}；如果顺序不同，请用 --labels")


def as_numbers(rows: Any, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Rows (`files.Rows`) whose classes are numbers, as `Task.score` wants them. Raises `UserError` for a class that the model has not.

    labels: the model's, in the order of their numbers.
    """
    from bertcourse.files import check_classes
    check_classes(rows, labels)
    number = {name: i for i, name in enumerate(labels)}
    found = []
    for row in rows.rows:
        row = dict(row)
        if isinstance(row.get("label"), str):
            row["label"] = number[row["label"]]
        if "ner_tags" in row:
            row["ner_tags"] = [number[tag] for tag in row["ner_tags"]]
        found.append(row)
    return found
