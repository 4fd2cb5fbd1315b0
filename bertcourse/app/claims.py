"""`bertcourse claims`: the ledger of the guide's statements, with verdict, source and the value last measured."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bertcourse.app.quiz import chosen_language
from bertcourse.base.display import json_of, printable
from bertcourse.base.messages import UserError, grid
from bertcourse.claims import APPENDIX, CHAPTERS, KINDS, VERDICTS, Box, Claim, Ledger, measured_values
from bertcourse.languages import LANGUAGES

NAMES = {"confirmed": "属实", "corrected": "更正", "depends": "要看条件", "cited": "有据可查"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("--lang", choices=LANGUAGES, help="default: that of your workspace, else of your locale")
    add("--chapter", default="", metavar="NAME", help=f"a chapter (4), a heading (4.3, 8.1, Q7) or `{APPENDIX}`")
    add("--verdict", default="", choices=VERDICTS, help="how the statement came out")
    add("--kind", default="", choices=KINDS, help="what the verdict rests on")
    add("--counts", action="store_true", help="only how many there are by chapter and verdict")
    add("--json", action="store_true", help="print the claims as JSON, one object in a list for each")


def select_claims(args: argparse.Namespace) -> Ledger:
    """The claims that were asked for. Raises `UserError` where there are none."""
    try:
        return Ledger(args.chapter, verdict=args.verdict, kind=args.kind)
    except ValueError:
        filters = printable(" ".join(filter(None, [args.chapter, args.verdict, args.kind])))
        chapters = ", ".join(CHAPTERS)
        raise UserError(f"no claims of {filters!r}: chapters are {chapters}; `bertcourse claims --counts` shows what there is",
                        f"没有符合 {filters!r} 的说法：章有 {chapters}；`bertcourse claims --counts` 列出有哪些") from None


def as_data(claim: Claim) -> dict[str, Any]:
    """A claim as JSON holds it: its fields, and what was measured last."""
    fields = {name: value for name, value in asdict(claim).items() if value not in ("", None) and name != "line"}
    measured = measured_values().get(claim.id)
    return {**fields, "chapter": claim.chapter, "section": claim.section, "measured": asdict(measured) if measured else None}


def claim_text(claim: Claim, lang: str) -> str:
    """A claim as a paragraph: verdict, statement, what is right, source."""
    measured = measured_values().get(claim.id)
    sentences = Box(claim, measured.value if measured else None, ("", ""), show=False).sentences(lang)
    verdict = f"[{NAMES[claim.verdict]}] " if lang == "zh" else f"[{claim.verdict}] "
    if measured:
        sentences += f"（{measured.page}，{measured.date}）" if lang == "zh" else f" ({measured.page}, {measured.date})"
    return f"{claim.id}  {verdict}{sentences}"


def counts_text(ledger: Ledger, lang: str) -> str:
    """Chapters against verdicts, as a table."""
    zh = lang == "zh"
    rows = [["章" if zh else "chapter", *(NAMES[v] if zh else v for v in VERDICTS), "合计" if zh else "together"]]
    for chapter in (c for c in CHAPTERS if any(claim.chapter == c for claim in ledger.claims)):
        counts = ledger.counts(chapter)
        name = "附录" if zh and chapter == APPENDIX else chapter
        rows.append([name, *map(str, counts.values()), str(sum(counts.values()))])
    total = ledger.counts()
    rows.append(["合计" if zh else "together", *map(str, total.values()), str(sum(total.values()))])
    return "\n".join(grid(rows))


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Print the claims. Raises `UserError`."""
    lang = chosen_language(args.lang)
    ledger = select_claims(args)
    if args.json:
        data = {c: ledger.counts(c) for c in CHAPTERS} if args.counts else [as_data(claim) for claim in ledger.claims]
        print(json_of(data, indent=1))
    elif args.counts:
        print(counts_text(ledger, lang))
    else:
        print("\n".join(claim_text(claim, lang) for claim in ledger.claims))
        print("\n" + counts_text(ledger, lang))
    return 0
