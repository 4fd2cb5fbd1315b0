"""What a job says while it works: lines on stderr, progress bars where somebody sees them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bertcourse.base.display import printable
from bertcourse.base.messages import plural, reader_language


def in_notebook() -> bool:
    """Does this run in a Jupyter kernel?"""
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def is_main_process() -> bool:
    """Of several processes of one training, the one that reports and writes."""
    import os
    return os.environ.get("RANK", "0") in ("", "0")


class Reporter:
    """Says on stderr, in the reader's language, what is being done. In a notebook lines go to stdout, which is not shown in red."""

    def __init__(self, quiet: bool = False, lang: str | None = None) -> None:
        self.zh, self.notebook = (lang or reader_language()) == "zh", in_notebook()
        self.quiet = quiet or not is_main_process()
        self.stream = sys.stdout if self.notebook else sys.stderr
        self.progress = not self.quiet and (self.notebook or (sys.stderr is not None and sys.stderr.isatty()))

    def _print(self, en: str, zh: str, keep: str = "") -> None:
        print(printable(zh if self.zh else en, keep=keep), file=self.stream, flush=True)

    def step(self, en: str, zh: str) -> None:
        """A line about the work, on a terminal only: a log wants the results."""
        if self.progress and not self.notebook:
            self._print(en, zh)

    def info(self, en: str, zh: str) -> None:
        """A line, in logs too, unless nothing is to be said."""
        if not self.quiet:
            self._print(en, zh, keep="\n")

    def above_bar(self, en: str, zh: str) -> None:
        """The same above a progress bar, if there is one."""
        if not self.quiet:
            from tqdm import tqdm
            tqdm.write(zh if self.zh else en, file=self.stream)

    def watch(self, items: Iterable[Any], total: int, size: Callable[[Any], int], unit: str) -> Iterator[Any]:
        """The items, with a bar that grows by `size` of each."""
        from tqdm.auto import tqdm
        with tqdm(total=total, unit=unit, unit_scale=True, disable=not self.progress, leave=False) as bar:
            for item in items:
                yield item
                bar.update(size(item))

    def rows(self, rows: Any) -> None:
        """What was understood of a file, and one row of it. rows: a `bertcourse.files.Rows`."""
        for line in (rows.understood, rows.example):
            self.info(line.en, line.zh)


METRIC_NAMES = {"accuracy": "准确率", "macro_f1": "宏平均 F1", "mcc": "MCC", "pearson": "Pearson", "spearman": "Spearman", "mse": "均方误差",
                "f1": "F1", "precision": "精确率", "recall": "召回率", "exact": "完全匹配", "f1_answerable": "有答案的 F1",
                "f1_unanswerable": "无答案的 F1"}  # in Chinese; those that are shares are shown in percent
NUMBERS = ("mcc", "pearson", "spearman", "mse")


def format_score(name: str, value: float | None) -> str:
    """A score as people write it; "–" where it is not defined."""
    import math
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if name in NUMBERS else f"{value:.1%}"


def format_scores(scores: dict[str, float | None], zh: bool) -> str:
    """Scores in a line."""
    return ("，" if zh else ", ").join(f"{METRIC_NAMES[name] if zh else name} {format_score(name, value)}"
                                      for name, value in scores.items() if name in METRIC_NAMES)


class EpochReport:
    """A callback of `bertcourse.training.fit`: a line at each evaluation."""

    __qualname__ = "Report"  # in checkpoints of earlier versions

    def __init__(self, steps: int, reporter: Reporter) -> None:
        self.steps, self.reporter = steps, reporter

    def on_eval(self, state: Any) -> None:
        """Say loss and scores."""
        epoch = state.epoch + state.position / state.size
        en = f"epoch {epoch:.3g}, step {state.step:,} of {self.steps:,}: loss {state.loss:.3f}; dev: {format_scores(state.dev, False)}"
        zh = f"第 {epoch:.3g} 轮，第 {state.step:,} 步（共 {self.steps:,} 步）：损失 {state.loss:.3f}；验证：{format_scores(state.dev, True)}"
        self.reporter.above_bar(en, zh)


def headline(out: Any, metrics: dict[str, Any], zh: bool) -> str:
    """The first line of a summary: folder, steps, minutes."""
    steps, minutes = metrics["steps"], metrics["seconds"] / 60
    return f"{out}：{steps:,} 步，{minutes:.1f} 分钟" if zh else f"{out}: {plural(steps, 'step')}, {minutes:.1f} minutes"


def card_line(out: Any, zh: bool) -> str:
    """The last line of a summary."""
    return f"模型卡：{out / 'README.md'}" if zh else f"model card: {out / 'README.md'}"
