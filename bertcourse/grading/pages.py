"""A student's feedback as a page that nothing of the submission can act in: text only, and a policy that forbids the rest."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from bertcourse.base.atomic import digest
from bertcourse.base.bilingual import Text
from bertcourse.base.display import printable
from bertcourse.exercises import checking, feedback
from bertcourse.exercises.definition import Exercise
from bertcourse.exercises.feedback import BLUE, GREEN, GREY, VERMILION, Message
from bertcourse.exercises.loading import Entry
from bertcourse.grading import scoring
from bertcourse.grading.scoring import Mark, Run
from bertcourse.grading.submissions import Submission

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
LARGEST = 250_000  # bytes of a page
ANSWER = 4_000  # characters of a written answer
STYLE = """:root{color-scheme:light dark}body{font:1rem/1.6 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.4rem}section{margin:1.4rem 0}.points{float:right;font-variant-numeric:tabular-nums}pre{overflow-x:auto}
.text{white-space:pre-wrap;overflow-wrap:anywhere}
@media (prefers-color-scheme:dark){body{color:#e8e8e8;background:#181818}}"""
STATUS_TEXT = {
    scoring.MISSING: Text("没有这个函数", "no such function"), scoring.ENDED: Text("运行中止", "it ended"),
    scoring.TO_MARK: Text("由老师评分", "marked by your teacher"), scoring.PREDICTED: Text("已写下预测", "a prediction was made"),
    scoring.NOT_PREDICTED: Text("没有写下预测", "no prediction was made"), scoring.UNREADABLE: Text("无法批改", "it cannot be graded"),
    scoring.NOT_HANDED_IN: Text("没有提交", "not handed in"), checking.NOT_YET: Text("还不对", "not yet"),
}
COLOURS = {scoring.PREDICTED: GREEN, scoring.TO_MARK: BLUE, scoring.NOT_HANDED_IN: GREY, scoring.NOT_PREDICTED: GREY}


def mark_message(entry: Entry, mark: Mark) -> Message:
    """What is said of one exercise."""
    task = entry.task()
    if mark.outcome is not None and isinstance(task, Exercise):
        return feedback.outcome_message(task, entry.title, mark.outcome)
    status = STATUS_TEXT[mark.status]
    heading = Text(*(f"{entry.id} {entry.title[lang]}：{status[lang]}" if lang == "zh" else f"{entry.id} {entry.title[lang]}: {status[lang]}"
                     for lang in ("zh", "en")))
    end = {"zh": "。", "en": "."}
    note = [Text(*(mark.note[lang][:1].upper() + mark.note[lang][1:] + end[lang] for lang in ("zh", "en")))] if mark.note else []
    colour = COLOURS.get(mark.status, VERMILION)
    return Message("✓" if colour == GREEN else "○" if colour in (BLUE, GREY) else "✗", colour, heading, note)


def points_text(points: float | None, most: float) -> str:
    """`2 / 3`; `– / 3` where they are not known yet."""
    return f"{'–' if points is None else f'{points:g}'} / {most:g}"


def errors_text(run: Run, lang: str) -> str:
    """Which cells could not be run."""
    shown = [f"{number} ({kind})" for number, kind in sorted(run.errors.items())[:10]]
    if not shown:
        return ""
    return f"没有运行成功的代码单元（从 1 数起）：{'、'.join(shown)}。" if lang == "zh" else f"Code cells that did not run, counted from 1: {', '.join(shown)}."


def feedback_page(submission: Submission, title: str, marks: Sequence[tuple[Entry, Mark, float | None, float]], run: Run, lang: str, late: str) -> str:
    """The page; marks: each exercise with its mark, points, and points at most."""
    earned, most = sum(points or 0 for *_, points, _ in marks), sum(most for *_, most in marks)
    answers = dict(submission.answers)
    parts = []
    for entry, mark, points, of in marks:
        body = mark_message(entry, mark).html(lang)
        if mark.status == scoring.TO_MARK and answers.get(entry.id, "").strip():
            body += f"<pre class='text'>{html.escape(answers[entry.id][:ANSWER])}</pre>"
        parts.append(f'<section><span class="points">{points_text(points, of)}</span>{body}</section>')
    notes = "".join(f"<p>{html.escape(text)}</p>" for text in (late, errors_text(run, lang)) if text)
    head = html.escape(f"{title}：{printable(submission.student)}" if lang == "zh" else f"{title}: {printable(submission.student)}")
    size, kept = 0, []
    for part in parts:
        size += len(part.encode("utf-8", "replace"))
        kept.append(part if size < LARGEST else "<section>…</section>")
    return (f'<!doctype html>\n<html lang="{lang}"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            f'<meta name="viewport" content="width=device-width"><meta name="referrer" content="no-referrer"><title>{head}</title>'
            f'<style>{STYLE}</style></head><body><h1>{head} <span class="points">{points_text(earned, most)}</span></h1>{notes}{"".join(kept)}</body></html>\n')


def file_name(student: str) -> str:
    """A student's name as the name of a folder: nothing that leads elsewhere, at most 110 bytes.

    A name that had to be changed ends in a part of its hash: whoever else is in the class, it stays the same, and no other becomes it.
    """
    safe = "".join(c if c.isalnum() or c in " -_.()" else "_" for c in printable(student)).strip(". ") or "_"
    while len(safe.encode()) > 100:
        safe = safe[:-1]
    safe = safe.rstrip()
    return safe if safe == student else f"{safe}_{digest(student.encode('utf-8', 'surrogatepass'))[:8]}"


def folder_names(students: Iterable[str]) -> dict[str, str]:
    """The folder of each student."""
    return {student: file_name(student) for student in students}


def page_name(submission: Submission) -> str:
    """The file of a student's page."""
    return f"{submission.page or f'unreadable-{submission.digest[:8]}'}.html"
