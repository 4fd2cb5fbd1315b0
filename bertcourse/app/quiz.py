"""`bertcourse quiz`: cards and interview questions in the terminal or on a pipe, each when FSRS says that it is due."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bertcourse.base.display import json_of, printable
from bertcourse.base.messages import UserError, grid, plural, reader_language
from bertcourse.languages import LANGUAGES, current_language

WIDEST = 92  # columns of text on a terminal
CARDS = 20  # of a session


def number(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` on."""
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < least:
            raise argparse.ArgumentTypeError(f"a whole number from {least} on, not {text!r}")
        return int(text)
    return parse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("--lang", choices=LANGUAGES, help="default: that of your workspace, else of your locale")
    add("--chapter", metavar="NAME", help="a chapter (4), a heading (4.3, 8.1), a page (04_2_practice) or a question (Q7)")
    add("--count", type=number(1), default=CARDS, metavar="N", help="cards of this session (default: %(default)s)")
    add("--due", action="store_true", help="only what is due, nothing new")
    add("--mock", type=number(1), metavar="N", help="a mock interview: N of the 20 questions, with time and a follow-up")
    add("--seed", type=number(0), metavar="S", help="the same choice and the same order of options again")
    add("--state", type=Path, metavar="FILE", help="your progress (default: quiz.json in your workspace or ./bertcourse-work)")
    add("--stats", action="store_true", help="ask nothing: by chapter what was seen, is due, is mature (21 days or more)")
    add("--json", action="store_true", help="print answers or statistics as JSON; a session then speaks on stderr")


def chosen_language(asked: str | None) -> str:
    """The language asked for, else that of the workspace, else of the locale. Raises `UserError`."""
    try:
        return asked or current_language() or reader_language()
    except ValueError as error:  # BERTCOURSE_LANG
        raise UserError(f"BERTCOURSE_LANG: {error}", f"BERTCOURSE_LANG 不是课程的语言：请设为 {' 或 '.join(LANGUAGES)}") from None


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that exclude each other. Raises `UserError`."""
    chosen = [name for name, is_chosen in (("--stats", args.stats), ("--mock", args.mock), ("--due", args.due)) if is_chosen]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} exclude each other: leave one out", f"{' 和 '.join(chosen)} 不能同时使用：请去掉一个")


def make_console(lang: str, stream: Any) -> Any:  # a bertcourse.drill.quiz.Console
    """A console that writes to `stream` and reads standard input."""
    from bertcourse.drill.quiz import Console
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()
    width = min(WIDEST, shutil.get_terminal_size().columns) if stream.isatty() else None
    return Console(lang, write, sys.stdin.readline if sys.stdin else lambda: "", width)


# --- statistics ---------------------------------------------------------------------------------------------------

def _day(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d") if moment else "–"


def stats_text(rows: Sequence[Any], path: Path, lang: str) -> str:
    """The counts as a table; `rows` are `bertcourse.drill.schedule.Counts`."""
    zh = lang == "zh"
    head = ["章", "卡片", "已学", "到期", "成熟", "记住", "下次到期"] if zh else ["chapter", "cards", "seen", "due", "mature", "retention", "next due"]
    table = [head]
    for row in rows:
        name = row.chapter if row.chapter != "all" else "合计" if zh else "all"
        retention = "–" if row.retention is None else f"{row.retention:.0%}"
        table.append([name, str(row.cards), str(row.seen), str(row.due), str(row.mature), retention, _day(row.next_due)])
    note = "成熟：间隔不少于 21 天；记住：隔了半天以上再问，没有答“重来”的比例。" if zh else "mature: an interval of 21 days or more; retention: asked again after 12 hours or more, and not marked again."
    return "\n".join([*grid(table), note, f"进度文件：{printable(str(path))}" if zh else f"progress: {printable(str(path))}"])


def show_stats(cards: Sequence[Any], progress: Any, path: Path, lang: str, as_json: bool) -> None:
    """Print the counts of each chapter."""
    from bertcourse.drill.schedule import count_cards
    rows = count_cards(cards, progress, datetime.now(UTC))
    if not as_json:
        print(stats_text(rows, path, lang))
        return
    data = [asdict(row) | {"next_due": row.next_due and row.next_due.isoformat()} for row in rows]
    print(json_of({"state": str(path), "chapters": data}, indent=1))


# --- a session ----------------------------------------------------------------------------------------------------

def nothing_to_ask(cards: Sequence[Any], progress: Any, only_due: bool, lang: str) -> str:
    """Why a session has no cards, and when the next one is due."""
    dues = [due for card in cards if (due := progress.due(card.id))]
    zh = lang == "zh"
    text = "现在没有到期的卡片。" if zh else "Nothing is due."
    if dues:
        moment = min(dues).astimezone().strftime("%Y-%m-%d %H:%M")
        text += f"最早的一张在 {moment} 到期。" if zh else f" The next card is due at {moment}."
    if only_due and len(dues) < len(cards):
        text += f"还有 {len(cards) - len(dues)} 张新卡片：去掉 --due 就会问到。" if zh else f" Without --due there are {len(cards) - len(dues)} new ones."
    return text


def opening(chosen: Sequence[Any], progress: Any, lang: str) -> str:
    """How many cards a session has, of which kind."""
    due = sum(progress.due(card.id) is not None for card in chosen)
    new = len(chosen) - due
    if lang == "zh":
        return f"这次共 {len(chosen)} 张：到期 {due} 张，新的 {new} 张。"
    return f"{plural(len(chosen), 'card')}: {due} due, {new} new."


def choose(args: argparse.Namespace, cards: Sequence[Any], progress: Any) -> list[Any]:
    """The questions of a mock interview, or the cards of a session."""
    from bertcourse.drill import load_bank, quiz, schedule
    if not args.mock:
        return schedule.choose_cards(cards, progress, datetime.now(UTC), args.count, args.due)
    ids = {card.id for card in cards}
    return quiz.choose_questions([question for question in load_bank().questions if question.id in ids], args.mock, args.seed)


def ask_all(args: argparse.Namespace, chosen: Sequence[Any], console: Any, path: Path, session: Any) -> None:
    """Ask all of them; the summary comes also where Ctrl-C ends the session."""
    from bertcourse.drill import quiz, schedule

    def record(id: str, rating: str) -> None:
        schedule.record_review(path, id, rating)
    run_session = quiz.run_mock if args.mock else quiz.run_quiz
    try:
        run_session(chosen, console, record, args.seed, session)
    finally:
        finish(session, console, path, args)


def hold_session(args: argparse.Namespace, cards: Sequence[Any], progress: Any, path: Path, lang: str) -> int:
    """Ask, and say what it came to."""
    from bertcourse.drill import quiz
    console, session = make_console(lang, sys.stderr if args.json else sys.stdout), quiz.Session()
    chosen = choose(args, cards, progress)
    if not chosen:
        console.print_text(nothing_to_ask(cards, progress, args.due, lang))
    else:
        if not args.mock:
            console.print_text(opening(chosen, progress, lang))
        ask_all(args, chosen, console, path, session)
    if args.json:
        print(json_of({"state": str(path), **session.as_data()}, indent=1))
    return 0


def finish(session: Any, console: Any, path: Path, args: argparse.Namespace) -> None:
    """The summary, and where the progress lies."""
    from bertcourse.drill.quiz import summary_lines
    lines = summary_lines(session, console.lang, bool(args.mock))
    if session.answers:
        lines.append(f"已保存：{printable(str(path))}" if console.lang == "zh" else f"Saved: {printable(str(path))}")
    console.print_text("\n" + "\n".join(lines))


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Hold a session or show the statistics. Raises `UserError`."""
    from bertcourse.drill import load_bank, schedule, select_cards
    lang = chosen_language(args.lang)
    check_options(args)
    cards = select_cards(load_bank(), args.chapter)
    if args.mock and not any(card.id.startswith("Q") for card in cards):
        raise UserError(f"--mock asks the interview questions, {args.chapter} has none: choose 8, 8.1 to 8.5, or leave --chapter out",
                        f"--mock 问的是面试题，{args.chapter} 没有：请用 8、8.1 到 8.5，或去掉 --chapter")
    path = (args.state or schedule.find_state_file()).expanduser().absolute()
    progress = schedule.check_state_file(path) if not args.stats else schedule.read_progress(path)
    if args.stats:
        show_stats(cards, progress, path, lang, args.json)
        return 0
    return hold_session(args, cards, progress, path, lang)
