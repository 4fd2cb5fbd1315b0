"""Ctrl-C and termination of a training: stop after the step, with a checkpoint, so that `resume` goes on."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertcourse.base.reader import reader_language


class Stopped(KeyboardInterrupt):
    """A training was interrupted. `step`: the newest checkpoint's; `saved`: can the run be resumed?"""

    def __init__(self, command: str, out: Path, step: int = 0, saved: bool = False) -> None:
        self.command, self.out, self.step, self.saved = command, out, step, saved
        super().__init__(self.text("en"))

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence, in the reader's language, and what to call."""
        lang = reader_language()
        more = "" if not self.saved else "；在 Python 里：resume=True" if lang == "zh" else "; in Python: resume=True"
        return [f"Stopped: {self.text(lang)}{more}"]

    def text(self, lang: str) -> str:
        """What the run has left and how to go on."""
        if not self.saved:
            return "训练开始前就停下了：什么也没有写" if lang == "zh" else "stopped before training began: nothing was written"
        again = shlex.join(["bertcourse", self.command, "--out", str(self.out), "--resume"])
        if lang == "zh":
            return f"停在第 {self.step:,} 步；继续：{again}"
        return f"stopped at step {self.step:,}; to go on: {again}"


class StopRequest:
    """SIGINT, SIGTERM and SIGHUP: a request to stop after the step, while `gentle`; at once at the second time, and else.

    An evaluation may take many minutes, so it is left at once; what was done since the last checkpoint is done again by `resume`.
    """

    __qualname__ = "Interruption"  # checkpoints name their callbacks: those of earlier versions can be resumed

    def __init__(self, zh: bool) -> None:
        self.zh = zh
        self.gentle = self.requested = self.over = self.evaluates = False
        self.holding = self.pending = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants to go on
                with contextlib.suppress(ValueError):  # not the main thread: somebody else handles signals
                    self.before[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, *error: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def handle(self, *_: Any) -> None:
        """Called by a signal."""
        if self.over:
            return
        if self.holding:
            self.pending = True
            return
        if self.gentle and not self.requested and not self.evaluates:
            self.requested = True
            text = "\n本步结束后停下；再按一次 Ctrl-C 立即停下\n" if self.zh else "\nstopping after this step; once more: at once\n"
            if sys.stderr is not None and sys.stderr.isatty():
                os.write(2, text.encode())  # not print, which this may have interrupted
            return
        raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Ctrl-C waits for the end of the block: an import that stops half-way would spoil the rest of a Python session."""
        self.holding = True
        try:
            yield
        finally:
            self.holding = False
        if self.pending:
            raise KeyboardInterrupt

    def __call__(self) -> bool:
        """For `fit(pause=…)`: is the training to stop after this step?"""
        return self.requested

    def on_eval_begin(self, state: Any) -> None:
        """A callback of `training.fit`."""
        self.evaluates = True

    def on_eval(self, state: Any) -> None:
        """A callback of `training.fit`."""
        self.evaluates = False
