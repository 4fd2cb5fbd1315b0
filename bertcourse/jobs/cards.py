"""Model cards: `README.md` beside the weights, from the templates in `assets/cards`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bertcourse.jobs.reporter import METRIC_NAMES, format_score
from bertcourse.models.kinds import base_task

PIPELINES = {"classification": "text-classification", "pairs": "text-classification", "regression": "text-classification",
             "ner": "token-classification", "qa": "question-answering"}


def render(template: str, **values: Any) -> str:
    """A template of `assets/cards`, filled in."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from bertcourse.assets import asset
    environment = Environment(loader=FileSystemLoader(asset("cards"), encoding="utf-8"), undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)
    environment.filters |= {"percent": "{:.1%}".format, "count": "{:,}".format, "json": lambda value: json.dumps(value, ensure_ascii=False)}
    return environment.get_template(template).render(**values)


def score_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Name in Chinese and English, dev, and test where there is one."""
    test = metrics["test"]
    return [[f"{METRIC_NAMES[name]} / {name}", format_score(name, value), *([format_score(name, test[name])] if test else [])]
            for name, value in metrics["dev"].items() if name in METRIC_NAMES]


def other_settings(metrics: Mapping[str, Any], apart: Sequence[str]) -> str:
    """The settings that the card does not show elsewhere (`apart`)."""
    return ", ".join(f"{name} {value}" for name, value in metrics["settings"].items() if value not in (None, {}, 0) and name not in apart)


def task_card(template: str, name: str, metrics: Mapping[str, Any], auto_class: str, example: str, apart: Sequence[str], **more: Any) -> str:
    """The card of a model with a head for a task. example: a shell line that predicts."""
    return render(template, name=name, m=metrics, pipeline=PIPELINES[base_task(metrics["task"])], auto_class=auto_class, example=example,
                  scores=score_rows(metrics), others=other_settings(metrics, apart), skipped=sum(metrics["data"]["skipped"].values()),
                  moved=sum(metrics["data"]["moved"].values()), **more)
