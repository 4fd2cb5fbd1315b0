"""What a learner reads: the outcome of a check, hints, solutions and progress, in HTML and as plain text."""

from __future__ import annotations

import html
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bertcourse.base.bilingual import Text
from bertcourse.drill.markup import to_html, to_plain
from bertcourse.drill.show import Shown
from bertcourse.exercises import checking
from bertcourse.exercises.checking import Outcome, argument_names
from bertcourse.exercises.compare import show
from bertcourse.exercises.definition import Exercise, Experiment, Question, Task
from bertcourse.exercises.loading import Entry
from bertcourse.exercises.running import SECONDS

GREEN, VERMILION, GREY, BLUE, ORANGE = "#009E73", "#D55E00", "#7F7F7F", "#0072B2", "#E69F00"  # right, not yet, open, to read, in part: nbs/styles.css
_BODY = "margin:.4em 0 0 0"
_CODE = "margin:.3em 0;white-space:pre-wrap;overflow-x:auto;background:rgba(127,127,127,.12);padding:.4em .6em;border-radius:4px"


@dataclass(frozen=True)
class Message:
    """A heading with a mark, paragraphs, and labelled values."""

    mark: str  # "✓"
    colour: str
    heading: Text
    paragraphs: Sequence[Text] = ()
    values: Sequence[tuple[Text, str]] = ()  # label, code
    closing: Sequence[Text] = ()  # paragraphs after the values

    def html(self, lang: str) -> str:
        """The message in one language."""
        head = f'<div style="border-left:4px solid {self.colour};padding-left:.7em"><b style="color:{self.colour}">{self.mark}</b> <b>{to_html(self.heading[lang])}</b>'
        body = "".join(f'<div style="{_BODY}">{to_html(text[lang])}</div>' for text in self.paragraphs)
        colon = "：" if lang == "zh" else ":"
        rows = "".join(f'<div style="{_BODY}">{label[lang]}{colon}<pre style="{_CODE}">{html.escape(value)}</pre></div>' for label, value in self.values)
        end = "".join(f'<div style="{_BODY}">{to_html(text[lang])}</div>' for text in self.closing)
        return f"{head}{body}{rows}{end}</div>"

    def plain(self, lang: str) -> str:
        """The same as plain text."""
        colon = "：" if lang == "zh" else ":"
        lines = [f"{self.mark} {to_plain(self.heading[lang])}", *(to_plain(text[lang]) for text in self.paragraphs)]
        for label, value in self.values:
            inner = "\n".join(f"    {line}" for line in value.splitlines())
            lines.append(f"{label[lang]}{colon}\n{inner}")
        lines += [to_plain(text[lang]) for text in self.closing]
        return "\n".join(lines)

    def shown(self) -> Shown:
        """For a notebook to show."""
        return Shown(self.html, self.plain)


# --- a check ------------------------------------------------------------------------------------------------------

def _name(exercise: Task, title: Text) -> Text:
    return Text(f"{exercise.id} {title.zh}", f"{exercise.id} {title.en}")


def _labelled(heading: Text, status: Text) -> Text:
    return Text(f"{heading.zh.rstrip('？?')}：{status.zh}", f"{heading.en.rstrip('?')}: {status.en}")


def show_arguments(exercise: Exercise, arguments: tuple[Any, ...]) -> str:
    """One line for each argument of a case."""
    shown = [(name, show(value)) for name, value in zip(argument_names(exercise), arguments)]
    return "\n".join(f"{name} =\n{text}" if "\n" in text else f"{name} = {text}" for name, text in shown)


def _correct(exercise: Exercise, title: Text, outcome: Outcome) -> Message:
    return Message("✓", GREEN, _labelled(_name(exercise, title), Text("正确", "correct")), [
        Text(f"{outcome.cases} 组输入，结果全部符合{f'（误差不超过 {exercise.tolerance:g}）' if outcome.has_floats else ''}。",
             f"All {outcome.cases} inputs give the expected results{f' (within {exercise.tolerance:g})' if outcome.has_floats else ''}.")])


def _not_attempted(exercise: Exercise, title: Text, outcome: Outcome) -> Message:
    if outcome.is_unchanged:
        what = Text(f"函数 `{exercise.name}` 还是原来的样子。写好函数体、运行那个单元，再检查。",
                    f"The function `{exercise.name}` is still as it was given. Write its body, run that cell, then check again.")
    else:
        what = Text(f"函数 `{exercise.name}` 返回了 `None`。是不是忘了写 `return`？",
                    f"The function `{exercise.name}` returned `None`. Did you forget a `return`?")
    printed = [(Text("你的函数打印了", "Your function printed"), outcome.printed)] if outcome.printed else []
    return Message("○", GREY, _labelled(_name(exercise, title), Text("尚未作答", "not attempted")), [what], printed)


def _of_case(exercise: Exercise, outcome: Outcome) -> list[tuple[Text, str]]:
    values = [(Text(f"第 {outcome.case + 1} 组输入（共 {outcome.cases} 组）", f"Input {outcome.case + 1} of {outcome.cases}"),
               show_arguments(exercise, outcome.arguments))]
    if outcome.printed:
        values.append((Text("你的函数打印了", "Your function printed"), outcome.printed))
    return values


def _raised(exercise: Exercise, title: Text, outcome: Outcome) -> Message:
    failure = outcome.failure
    where = f"{failure.code}\n" if failure.code else ""
    place = Text(f"第 {failure.line} 行出错", f"The error is in line {failure.line}") if failure.line else Text("错误", "The error")
    return Message("✗", VERMILION, _labelled(_name(exercise, title), Text("运行出错", "an error was raised")), _mistake(outcome),
                   [(place, f"{where}{failure}"), *_of_case(exercise, outcome)])


def _mistake(outcome: Outcome) -> list[Text]:
    """The sentence for a known mistake; not for a function as it was given, where it would give the answer away."""
    return [outcome.mistake.text] if outcome.mistake and not outcome.is_unchanged else []


def _late(exercise: Exercise, title: Text, outcome: Outcome) -> Message:
    what = Text(f"函数 `{exercise.name}` 运行超过 {SECONDS:g} 秒，已被中止。检查循环的结束条件。",
                f"The function `{exercise.name}` ran for more than {SECONDS:g} s and was stopped. Check how its loops end.")
    return Message("✗", VERMILION, _labelled(_name(exercise, title), Text("超时", "too slow")), [what], _of_case(exercise, outcome))


def _not_yet(exercise: Exercise, title: Text, outcome: Outcome) -> Message:
    sentence = Text(f"{outcome.difference.zh}。", f"{outcome.difference.en[0].upper()}{outcome.difference.en[1:]}.")
    paragraphs = [*_mistake(outcome), sentence]
    if outcome.is_unchanged:
        paragraphs.append(Text("函数还是原来的样子：找出其中的错误，改正后再检查。", "The function is still as it was given: find its bug and fix it."))
    values = _of_case(exercise, outcome)
    if not outcome.changed:
        values += [(Text("得到", "It gave"), show(outcome.got)), (Text("应为", "It should give"), show(outcome.expected))]
    return Message("✗", VERMILION, _labelled(_name(exercise, title), Text("还不对", "not yet")), paragraphs, values)


def outcome_message(exercise: Exercise, title: Text, outcome: Outcome) -> Message:
    """What a check says."""
    write = {checking.CORRECT: _correct, checking.NOT_ATTEMPTED: _not_attempted, checking.RAISED: _raised, checking.LATE: _late,
             checking.NOT_YET: _not_yet}[outcome.status]
    return write(exercise, title, outcome)


def stopped_message(task: Task, title: Text) -> Message:
    """The learner stopped the check."""
    return Message("○", GREY, _labelled(_name(task, title), Text("已由你中止", "stopped by you")))


def stale_note(name: str) -> Text:
    """The cell as it stands was not run, or its last run failed."""
    return Text(f"注意：最近一次运行定义 `{name}` 的单元没有成功，检查的是之前的版本。",
                f"Note: the last run of the cell that defines `{name}` failed; what was checked is the version before.")


def missing_message(task: Task, title: Text, name: str, is_there: bool) -> Message:
    """There is nothing to check under the name that the exercise asks for."""
    if is_there:
        what = Text(f"`{name}` 不是函数：请把它写成函数，再运行那个单元。", f"`{name}` is not a function: define it as one, and run that cell.")
    else:
        what = Text(f"这里还没有 `{name}`：请先运行定义它的单元。", f"There is no `{name}` here yet: run the cell that defines it first.")
    return Message("○", GREY, _labelled(_name(task, title), Text("尚未作答", "not attempted")), [what])


# --- questions and experiments ------------------------------------------------------------------------------------

def _bullets(points: Sequence[Text]) -> Text:
    return Text(*("\n".join(f"- {point[lang]}" for point in points) for lang in ("zh", "en")))


def question_message(question: Question, title: Text) -> Message:
    """How a question is checked: against the model answer, by the learner."""
    n = len(question.points)
    what = Text(f"先写下你的回答，再运行 `solution(\"{question.id}\")` 对照；每说到一点记 1 分（共 {n} 点），然后运行 "
                f"`check(\"{question.id}\", points=…)`。",
                f"Write your answer first, then compare it with `solution(\"{question.id}\")`; count one for each of the {n} points that it makes, "
                f"and run `check(\"{question.id}\", points=…)`.")
    return Message("○", GREY, _labelled(_name(question, title), Text("由你自己评分", "you mark it yourself")), [what])


def marked_message(question: Question, title: Text, points: int) -> Message:
    """What is said of a learner's own mark."""
    n = len(question.points)
    if points == n:
        return Message("✓", GREEN, _labelled(_name(question, title), Text(f"{n} 点全部说到", f"all {n} points made")))
    return Message("◐", ORANGE, _labelled(_name(question, title), Text(f"说到 {points} / {n} 点", f"{points} of {n} points made")),
                   [Text("补上缺少的几点，过几天再答一次。", "Add the missing ones to your answer, and answer it again in a few days.")])


def experiment_message(task: Experiment, title: Text, prediction: str, measured: float) -> Message:
    """The prediction, the learner's own run, and the recorded ones."""
    comparison = task.recorded()
    verdict = task.verdict(comparison)
    is_right = prediction == verdict
    first = Text(f"你的预测：{task.choices[prediction].zh}。记录的多次运行支持的是：{task.choices[verdict].zh}。",
                 f"Your prediction: {task.choices[prediction].en}. What the recorded runs support: {task.choices[verdict].en}.")
    p = "p < 0.001" if comparison.p < 0.001 else f"p = {comparison.p:.3f}"
    inside = comparison.low <= measured <= comparison.high
    second = Text(f"你这一次：{measured:+.3f}。记录的平均差：{comparison.difference:+.3f}，95% 区间 [{comparison.low:+.3f}, {comparison.high:+.3f}]，{p}。",
                  f"Your one run: {measured:+.3f}. Mean difference of the recorded runs: {comparison.difference:+.3f}, 95% interval "
                  f"[{comparison.low:+.3f}, {comparison.high:+.3f}], {p}.")
    third = Text("你的结果落在区间内。", "Your result lies inside the interval.") if inside else Text(
        "你的结果落在区间外：区间说的是平均值，一次运行可以离它更远。", "Your result lies outside: the interval is one of the mean, and a single run may be further away.")
    status = Text("预测与记录一致", "your prediction agrees with the records") if is_right else Text(
        "预测与记录不一致", "your prediction does not agree with the records")
    return Message("✓" if is_right else "◐", GREEN if is_right else ORANGE, _labelled(_name(task, title), status), [first, second, third, task.explanation])


# --- hints and solutions ------------------------------------------------------------------------------------------

def hint_message(task: Task, title: Text, number: int) -> Message:
    """The hint of a number, from 1."""
    count = len(task.hints)
    more = Text(f"还有 {count - number} 条提示。", f"There {'is 1 more hint' if count - number == 1 else f'are {count - number} more hints'}.") if number < count else Text(
        f"没有更多提示了；`solution(\"{task.id}\")` 给出解答。", f"There are no more hints; `solution(\"{task.id}\")` shows the solution.")
    return Message("→", BLUE, _labelled(_name(task, title), Text(f"提示 {number} / {count}", f"hint {number} of {count}")), [task.hints[number - 1], more])


def no_hint_message(task: Task, title: Text) -> Message:
    """There are no hints for this one."""
    return Message("→", BLUE, _labelled(_name(task, title), Text("没有提示", "no hints")),
                   [Text(f"`solution(\"{task.id}\")` 给出解答。", f"`solution(\"{task.id}\")` shows the solution.")])


def ask_first_message(task: Task, title: Text) -> Message:
    """Before a solution is shown to someone who has not tried."""
    what = Text(f"你还没有试过。先写一个答案、运行 `check(\"{task.id}\")`，或看提示 `hint(\"{task.id}\")`。一定要现在看解答：`solution(\"{task.id}\", now=True)`。",
                f"You have not tried yet. Write an answer and run `check(\"{task.id}\")`, or take a hint with `hint(\"{task.id}\")`. To see the solution "
                f"all the same: `solution(\"{task.id}\", now=True)`.")
    return Message("→", BLUE, _labelled(_name(task, title), Text("解答", "solution")), [what])


def solution_source(exercise: Exercise) -> str:
    """The code of the right answer."""
    return "\n\n\n".join(inspect.getsource(function).rstrip() for function in (*exercise.helpers, exercise.reference))


def solution_message(task: Task, entry: Entry) -> Message:
    """The right answer, and for code the mistakes that people make."""
    heading = _labelled(_name(task, entry.title), Text("解答", "solution"))
    if isinstance(task, Exercise):
        found = [task.origin] if task.origin else []
        common = Text("常见错误：\n" + "\n".join(f"- {one.zh}" for one in task.mistakes),
                      "Common mistakes:\n" + "\n".join(f"- {one.en}" for one in task.mistakes))
        return Message("→", BLUE, heading, found, [(Text("代码", "Code"), solution_source(task))], [common])
    if isinstance(task, Question):
        head = Text("好的回答会说到：", "A good answer says:")
        return Message("→", BLUE, heading, [task.answer, head, _bullets(task.points)])
    return Message("→", BLUE, heading, [task.explanation])
