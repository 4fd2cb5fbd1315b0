"""The quiz: schedule, progress file, terminal and pipe, mock interview, statistics."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertcourse.app import cli
from bertcourse.base.errors import UserError
from bertcourse.drill import load_bank, quiz, schedule, select_cards
from bertcourse.drill.schedule import RATINGS, Progress, add_review, choose_cards, count_cards, read_progress, record_review

BANK = load_bank()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHOICES = [card for card in BANK.cards if card.kind == "choice"]
RECALLS = [card for card in BANK.cards if card.kind == "recall"]


# --- schedule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worse, better", zip(RATINGS, RATINGS[1:]))
def test_a_better_answer_is_never_asked_sooner(worse, better):
    first = [add_review(None, rating, NOW) for rating in (worse, better)]
    assert first[0]["due"] <= first[1]["due"] and first[0]["stability"] < first[1]["stability"]


def test_intervals_grow_and_a_lapse_shortens_them():
    entry, now, days = None, NOW, []
    for _ in range(5):
        entry = add_review(entry, "good", now)
        days.append(schedule.interval(entry).days)
        now = schedule.parse_time(entry["due"])
    assert days == sorted(days) and days[0] >= 1 and days[-1] > 60
    assert schedule.interval(add_review(entry, "again", now)).days < days[-1] / 5
    assert len(entry["reviews"]) == 5


def test_same_answers_same_plan():
    plans = []
    for _ in range(2):
        entry = None
        for day, rating in enumerate(["good", "again", "hard", "easy"]):
            entry = add_review(entry, rating, NOW + timedelta(days=day))
        plans.append(entry)
    assert plans[0] == plans[1]


def test_a_clock_that_was_put_back():
    entry = add_review(add_review(None, "good", NOW), "good", NOW - timedelta(days=30))
    assert schedule.parse_time(entry["due"]) > NOW and entry["reviews"][1]["at"] == NOW.isoformat()


def test_due_before_new_and_longest_overdue_first():
    cards = BANK.cards[:5]
    progress = Progress({cards[3].id: add_review(None, "good", NOW - timedelta(days=30)),
                         cards[1].id: add_review(None, "good", NOW - timedelta(days=40)),
                         cards[0].id: add_review(None, "easy", NOW)})
    assert choose_cards(cards, progress, NOW, 9) == [cards[1], cards[3], cards[2], cards[4]]
    assert choose_cards(cards, progress, NOW, 9, only_due=True) == [cards[1], cards[3]]
    assert choose_cards(cards, progress, NOW, 1) == [cards[1]]


def test_counts():
    cards = [card for card in BANK.cards if card.page in ("01_bert", "02_transformer")]
    mature = add_review(None, "good", NOW - timedelta(days=400))
    for days in (390, 360, 200):
        mature = add_review(mature, "again" if days == 390 else "easy", NOW - timedelta(days=days))
    progress = Progress({cards[0].id: mature, cards[1].id: add_review(None, "again", NOW - timedelta(days=9)), "unknown": mature})
    first, second, all_ = count_cards(cards, progress, NOW)
    assert (first.chapter, first.seen, first.due, first.mature) == ("1", 2, 2, 1)
    assert first.cards == sum(card.page == "01_bert" for card in cards)
    assert first.retention == pytest.approx(2 / 3) and first.next_due == schedule.parse_time(mature["due"])
    assert (second.seen, second.retention, second.next_due) == (0, None, None)
    same_day = Progress({cards[0].id: add_review(add_review(None, "again", NOW), "good", NOW + timedelta(minutes=9))})
    assert count_cards(cards, same_day, NOW)[0].retention is None  # once more in the same session tests no memory
    assert (all_.chapter, all_.cards, all_.seen) == ("all", len(cards), 2)


# --- the file -----------------------------------------------------------------------------------------------------


def test_every_answer_is_in_the_file(tmp_path):
    path = tmp_path / "new" / "quiz.json"
    due = record_review(path, "01-a", "good", NOW)
    record_review(path, "01-a", "again", due)
    record_review(path, "Q1", "easy", NOW)
    progress = read_progress(path)
    assert [review["rating"] for review in progress.cards["01-a"]["reviews"]] == ["good", "again"] and "Q1" in progress.cards
    assert {p.name for p in path.parent.iterdir()} <= {"quiz.json", ".quiz.json.lock"}


def test_what_a_later_version_adds_stays(tmp_path):
    path = tmp_path / "quiz.json"
    record_review(path, "01-a", "good", NOW)
    content = json.loads(path.read_text())
    content["goal"] = {"cards": 5}
    content["cards"]["01-a"]["flag"] = "红"
    content["cards"]["99-of-a-later-bank"] = content["cards"]["01-a"]
    path.write_text(json.dumps(content))
    record_review(path, "01-a", "hard", NOW + timedelta(days=3))
    after = json.loads(path.read_text(encoding="utf-8"))
    assert after["goal"] == {"cards": 5} and after["cards"]["01-a"]["flag"] == "红"
    assert after["cards"]["99-of-a-later-bank"] == content["cards"]["99-of-a-later-bank"]
    assert len(after["cards"]["01-a"]["reviews"]) == 2


GOOD = {"format": "bertcourse quiz", "version": 1, "cards": {"a": add_review(None, "good", NOW)}}


def spoilt(**changes):
    """A good file, its one card changed."""
    return json.dumps({**GOOD, "cards": {"a": {**GOOD["cards"]["a"], **changes}}})


DAMAGED = ["", "{", "[]", "null", "3", "{}", '{"format": "bertcourse quiz"}', json.dumps({**GOOD, "version": "1"}), json.dumps({**GOOD, "version": True}),
           json.dumps({**GOOD, "cards": []}), json.dumps({**GOOD, "cards": {"a": 3}}), json.dumps({**GOOD, "format": "other"}),
           spoilt(due="tomorrow"), spoilt(due=None), spoilt(due="2026-01-01T00:00:00"), spoilt(stability="x"), spoilt(stability=float("nan")),
           spoilt(stability=-1), spoilt(stability=10**400), spoilt(difficulty=None), spoilt(reviews=3), spoilt(reviews=[{"at": 1, "rating": "good"}]),
           spoilt(reviews=[{"at": NOW.isoformat(), "rating": "fine"}]), "[" * 100_000, "\ufeff\x00"]


@pytest.mark.parametrize("number", range(len(DAMAGED)))
def test_a_damaged_file_is_one_sentence_and_stays(tmp_path, number):
    path = tmp_path / "quiz.json"
    path.write_text(DAMAGED[number], encoding="utf-8")
    for use in (lambda: read_progress(path), lambda: record_review(path, "a", "good", NOW)):
        with pytest.raises(UserError) as error:
            use()
        assert "is damaged or no progress of the quiz" in error.value.en and "已损坏" in error.value.zh and str(path) in error.value.en
    assert path.read_text(encoding="utf-8") == DAMAGED[number]


def test_not_utf8_is_damaged(tmp_path):
    path = tmp_path / "quiz.json"
    path.write_bytes(b"\xff\xfe{\x00")
    with pytest.raises(UserError, match="is damaged"):
        record_review(path, "a", "good")
    assert path.read_bytes() == b"\xff\xfe{\x00"


def test_a_newer_file_is_refused_and_stays(tmp_path):
    path = tmp_path / "quiz.json"
    text = json.dumps({"format": "bertcourse quiz", "version": 2, "cards": "elsewhere"})
    path.write_text(text)
    with pytest.raises(UserError, match="newer bertcourse"):
        record_review(path, "a", "good", NOW)
    assert path.read_text() == text


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
                        ["format", "version", "cards", "a", "due", "last_review", "stability", "difficulty", "reviews", "at", "rating"]), inner, max_size=5),
                    max_leaves=12))
def test_any_content_is_read_or_refused(content):
    raw = json.dumps({**GOOD, "cards": content} if not isinstance(content, dict) or "format" not in content else content).encode()
    try:
        progress = schedule.parse_progress(raw, "quiz.json")
    except UserError:
        return
    for id in progress.cards:
        assert add_review(progress.cards[id], "good", NOW)["reviews"]


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "quiz.json"
    record_review(real, "a", "good", NOW)
    link.symlink_to(real)
    record_review(link, "b", "good", NOW)
    assert link.is_symlink() and set(read_progress(real).cards) == {"a", "b"}


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "quiz.json"
    record_review(path, "a", "good", NOW)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        record_review(path, "b", "good", NOW)
    assert path.read_bytes() == before


def test_a_file_that_stays_locked(tmp_path, monkeypatch):
    from filelock import FileLock
    monkeypatch.setattr(schedule.records, "LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / ".quiz.json.lock"):
        with pytest.raises(UserError, match="locked by another process"):
            record_review(tmp_path / "quiz.json", "a", "good", NOW)
    assert not (tmp_path / "quiz.json").exists()


WRITER = """
import sys
from pathlib import Path
from bertcourse.drill.schedule import record_review
for number in range(25):
    record_review(Path(sys.argv[1]), f"{sys.argv[2]}-{number}", "good")
    record_review(Path(sys.argv[1]), "shared", "good")
"""


def test_processes_at_once_lose_nothing(tmp_path):
    path = tmp_path / "quiz.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "ab"]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    progress = read_progress(path)
    assert len(progress.cards) == 51 and len(progress.cards["shared"]["reviews"]) == 50


ENDLESS = """
import itertools, sys
from pathlib import Path
from bertcourse.drill.schedule import record_review
for number in itertools.count():
    record_review(Path(sys.argv[1]), f"card-{number % 40}", "good")
    print(number, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_kill_leaves_a_whole_file(tmp_path):
    """Killed at any moment, the file has every answer that was reported, and the next process may write at once."""
    path, reported = tmp_path / "quiz.json", 0
    for pause in (0.05, 0.11, 0.17):
        process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        time.sleep(pause)
        process.kill()
        reported += 1 + len(process.communicate()[0].split())
        assert sum(len(entry["reviews"]) for entry in read_progress(path).cards.values()) >= reported
        reported = sum(len(entry["reviews"]) for entry in read_progress(path).cards.values())
    record_review(path, "last", "good")


def test_where_the_file_lies(tmp_path, monkeypatch):
    deep = tmp_path / "work" / "helpers"
    deep.mkdir(parents=True)
    assert schedule.find_state_file(deep) == deep / "bertcourse-work" / "quiz.json"
    (tmp_path / "work" / ".bertcourse.json").write_text('{"lang": "zh"}')
    assert schedule.find_state_file(deep) == tmp_path / "work" / "quiz.json"
    monkeypatch.chdir(tmp_path)
    assert schedule.find_state_file() == tmp_path / "bertcourse-work" / "quiz.json"


# --- a session in this process ------------------------------------------------------------------------------------


class Person:
    """Reads what is written and types lines."""

    def __init__(self, *lines, lang="en", width=None):
        self.lines, self.out = list(lines), io.StringIO()
        self.console = quiz.Console(lang, self.out.write, self.read, width)
        self.recorded = []

    def read(self):
        if not self.lines:
            return ""
        line = self.lines.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line + "\n"

    def record(self, id, rating):
        self.recorded.append((id, rating))

    @property
    def text(self):
        return self.out.getvalue()


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_recall_shows_the_answer_only_after_enter(lang):
    card = RECALLS[0]
    answer = card.answer[lang][:12]
    person = Person("q", lang=lang)
    assert quiz.run_quiz([card], person.console, person.record).ended
    assert answer not in person.text and not person.recorded
    person = Person("", "3", lang=lang)
    session = quiz.run_quiz([card], person.console, person.record)
    assert answer in person.text and person.recorded == [(card.id, "good")] and not session.ended


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("card", CHOICES, ids=lambda card: card.id)
def test_choice_explains_every_wrong_option_afterwards(card, lang):
    from bertcourse.drill.markup import to_plain
    explanations = [to_plain(option.why[lang]) for option in card.options if not option.is_right]
    person = Person("q", lang=lang)
    quiz.run_quiz([card], person.console, person.record, seed=1)
    assert not any(why in person.text for why in explanations)
    options = random.Random(1).sample(card.options, len(card.options))
    letter = quiz.LETTERS[options.index(card.right)]
    person = Person(letter.lower(), lang=lang)
    session = quiz.run_quiz([card], person.console, person.record, seed=1)
    assert all(why in person.text for why in explanations) and session.answers[0].is_right
    assert person.recorded == [(card.id, "good")]


def test_again_comes_once_more_and_not_for_ever():
    person = Person("", "1", "", "2", "", "1", "", "1")
    session = quiz.run_quiz(RECALLS[:2], person.console, person.record)
    first, second = (card.id for card in RECALLS[:2])
    assert person.recorded == [(first, "again"), (second, "hard"), (first, "again")] and not session.ended
    assert "Once more what was marked again: 1." in person.text


@pytest.mark.parametrize("typed, rating", [("1", "again"), ("h", "hard"), (" GOOD ", "good"), ("４", "easy"), ("良好", "good"), ("", None), ("5", None),
                                           ("12", None), ("x", None)])
def test_marks(typed, rating):
    assert quiz.rating_of(typed) == rating


@pytest.mark.parametrize("typed, place", [("a", 0), ("B.", 1), ("Ｃ", 2), ("2", 1), ("d", None), ("4", None), ("0", None), ("ab", None), ("", None),
                                          ("²", None), ("中", None)])
def test_letters(typed, place):
    assert quiz.letter_of(typed, 3) == place


def test_interruption_keeps_what_was_answered():
    person = Person("", "3", KeyboardInterrupt())
    session = quiz.Session()
    with pytest.raises(KeyboardInterrupt):
        quiz.run_quiz(RECALLS[:3], person.console, person.record, session=session)
    assert len(session.answers) == len(person.recorded) == 1


def test_mock_asks_like_an_interviewer():
    questions = quiz.choose_questions(BANK.questions, 3, seed=5)
    assert [q.id for q in questions] == [q.id for q in quiz.choose_questions(BANK.questions, 3, seed=5)]
    assert len(quiz.choose_questions(BANK.questions, 99)) == 20
    person = Person("", "", "2", "", "", "4", "", "", "3")
    session = quiz.run_mock(questions, person.console, person.record, seed=5)
    assert [rating for _, rating in person.recorded] == ["hard", "easy", "good"] and not session.ended
    asked = [person.text.index(q.prompt.en) for q in questions]
    assert asked == sorted(asked)
    for question in questions:
        after = person.text[person.text.index(question.prompt.en):]
        assert after.index("about a minute is the aim") < after.index("Model answer:") < after.index("Follow-up")
        assert sum(more.prompt.en.split("$")[0] in person.text for more in question.followups) >= 1
    lines = quiz.summary_lines(session, "en", is_mock=True)
    assert lines[0] == "3 answers: hard 1, good 1, easy 1." and len(lines) == 5


def test_lines_fit_the_terminal():
    from bertcourse.base.text import wide
    for lang in ("zh", "en"):
        person = Person(*["", "3"] * 50, lang=lang, width=60)
        quiz.run_quiz([card for card in BANK.drill_cards() if card.kind == "recall"][:20], person.console, person.record)
        assert max(wide(line) for line in person.text.split("\n")) <= 62  # a closing full stop may hang over


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=6).filter(lambda line: "\n" not in line), max_size=40), st.integers(0, 99))
def test_any_typing_is_an_answer_or_asked_again(lines, seed):
    person = Person(*lines)
    session = quiz.run_quiz(select_cards(BANK, "1"), person.console, person.record, seed=seed)
    assert len(session.answers) == len(person.recorded) <= len(lines)
    assert session.ended or person.lines is not None
    quiz.summary_lines(session, "zh")


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def english(monkeypatch):
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")
    monkeypatch.delenv("BERTCOURSE_LANG", raising=False)


def call(capsys, monkeypatch, *argv, typed=""):
    """Exit code, stdout and stderr of `bertcourse quiz ARGV`."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    try:
        code = cli.main(["quiz", *map(str, argv)])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    return code, out, err


def test_a_session_on_a_pipe(capsys, monkeypatch, tmp_path):
    state = tmp_path / "quiz.json"
    code, out, err = call(capsys, monkeypatch, "--chapter", "Q7", "--state", state, typed="\n3\n\n4\n\n2\n")
    assert code == 0 and not err and out.startswith("3 cards: 0 due, 3 new.") and "3 answers: hard 1, good 1, easy 1." in out and f"Saved: {state}" in out
    assert set(read_progress(state).cards) == {"Q7", "Q7a", "Q7b"}
    code, out, _ = call(capsys, monkeypatch, "--chapter", "Q7", "--state", state)
    assert code == 0 and out.startswith("Nothing is due. The next card is due at 20") and "--due" not in out
    code, out, _ = call(capsys, monkeypatch, "--chapter", "8", "--due", "--state", state, "--lang", "zh")
    assert code == 0 and out.startswith("现在没有到期的卡片。最早的一张在 20") and "去掉 --due" in out


def test_the_end_of_the_pipe_ends_the_session(capsys, monkeypatch, tmp_path):
    state = tmp_path / "quiz.json"
    code, out, err = call(capsys, monkeypatch, "--chapter", "8.1", "--state", state, typed="\n3\n\n")
    assert code == 0 and not err and "1 answer: good 1." in out and len(read_progress(state).cards) == 1
    code, out, _ = call(capsys, monkeypatch, "--state", tmp_path / "none.json")
    assert code == 0 and "No card was answered." in out and not (tmp_path / "none.json").exists()


def test_json(capsys, monkeypatch, tmp_path):
    state = tmp_path / "quiz.json"
    code, out, err = call(capsys, monkeypatch, "--chapter", "Q1", "--state", state, "--json", "--count", 1, typed="\n2\n")
    data = json.loads(out)
    assert code == 0 and data["answered"] == 1 and data["complete"] and data["answers"][0]["rating"] == "hard" and "bidirectional" in err
    code, out, err = call(capsys, monkeypatch, "--stats", "--json", "--state", state)
    rows = {row["chapter"]: row for row in json.loads(out)["chapters"]}
    assert code == 0 and not err and rows["8"]["seen"] == rows["all"]["seen"] == 1 and rows["8"]["next_due"] > "20" and rows["1"]["retention"] is None


def test_stats(capsys, monkeypatch, tmp_path):
    state = tmp_path / "quiz.json"
    record_review(state, "01-input-sum", "good", NOW)
    for lang, head in (("en", "chapter  cards  seen  due  mature  retention    next due"), ("zh", "章    卡片  已学  到期  成熟  记住    下次到期")):
        code, out, _ = call(capsys, monkeypatch, "--stats", "--state", state, "--lang", lang)
        lines = out.splitlines()
        assert code == 0 and lines[0] == head and len(lines) == 12 and str(state) in out
        assert lines[1].split()[:5] == ["1", str(sum(card.page == "01_bert" for card in BANK.cards)), "1", "1", "0"]
    assert len(call(capsys, monkeypatch, "--stats", "--chapter", "8.2", "--state", state)[1].splitlines()) == 5


def test_a_mock_interview_on_a_pipe(capsys, monkeypatch, tmp_path):
    state = tmp_path / "quiz.json"
    code, out, err = call(capsys, monkeypatch, "--mock", 2, "--seed", 1, "--state", state, "--lang", "zh", typed="\n\n3\n\n\n1\n")
    assert code == 0 and not err and "用时 0:00" in out and "共 2 次回答：重来 1、良好 1。" in out and "追问" in out
    assert len(read_progress(state).cards) == 2
    one = call(capsys, monkeypatch, "--mock", 9, "--chapter", "Q7", "--state", state, typed="")[1]
    assert "[1/1] Q7" in one


def test_language_is_that_of_the_workspace(capsys, monkeypatch, tmp_path):
    (tmp_path / ".bertcourse.json").write_text('{"lang": "zh"}')
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, monkeypatch, "--chapter", "1", typed="\n3\n")
    assert code == 0 and "BERT 的基本原理" in out and (tmp_path / "quiz.json").is_file()
    monkeypatch.setenv("BERTCOURSE_LANG", "fr")
    code, _, err = call(capsys, monkeypatch)
    assert code == 2 and "BERTCOURSE_LANG" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("argv, says", [
    (["--chapter", "99"], "the course has no '99'"),
    (["--chapter", "\x1b[31m"], "the course has no"),
    (["--count", "0"], "a whole number from 1 on, not '0'"),
    (["--count", "1e3"], "not '1e3'"),
    (["--mock", "-1"], "--mock"),
    (["--seed", "x"], "a whole number from 0 on"),
    (["--lang", "fr"], "'fr'"),
    (["--mock", "2", "--due"], "--mock and --due exclude each other"),
    (["--stats", "--mock", "2"], "--stats and --mock exclude each other"),
    (["--mock", "2", "--chapter", "3"], "3 has none"),
    (["--state", "/"], "cannot be used"),
    (["--state", "/dev/null/x"], "cannot be used"),
    (["--state", "a\0b"], "cannot be used"),
    (["stray"], "unrecognized arguments: stray"),
])  # fmt: skip
def test_bad_input_is_one_sentence(capsys, monkeypatch, tmp_path, argv, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, monkeypatch, *argv, typed="\n3\n")
    assert code == 2 and not out and says in err and len(err.splitlines()) == 1 and "\x1b" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(capsys, monkeypatch, tmp_path):
    tmp_path.chmod(0o500)
    code, out, err = call(capsys, monkeypatch, "--state", tmp_path / "quiz.json")
    tmp_path.chmod(0o700)
    assert code == 2 and "cannot be used" in err and not out


def test_bad_file_in_the_readers_language(capsys, monkeypatch, tmp_path):
    (tmp_path / "quiz.json").write_text("{")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    for more in ([], ["--stats"], ["--mock", "1"]):
        code, out, err = call(capsys, monkeypatch, "--state", tmp_path / "quiz.json", *more)
        assert code == 2 and not out and "已损坏" in err and len(err.splitlines()) == 1


# --- a process of its own -----------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "bertcourse.app.cli", "quiz"]


def test_ctrl_c_saves_and_says_so(tmp_path):
    state = tmp_path / "quiz.json"
    process = subprocess.Popen([*COMMAND, "--chapter", "8.1", "--lang", "en", "--state", str(state)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdin.write("\n3\n")
    process.stdin.flush()
    end = time.monotonic() + 60
    while not state.exists() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "1 answer: good 1." in out and "Saved" in out and "Traceback" not in err
    assert len(read_progress(state).cards) == 1


def test_closed_input_and_bytes_that_are_no_text(tmp_path):
    state = tmp_path / "quiz.json"
    done = subprocess.run([*COMMAND, "--chapter", "8.1", "--state", str(state)], input=b"\xff\xfe\n\xff\n3\n", capture_output=True, timeout=60)
    assert done.returncode == 0 and b"Traceback" not in done.stderr and len(read_progress(state).cards) == 1
    done = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *COMMAND, "--state", str(tmp_path / "b.json")], capture_output=True, timeout=60)
    assert done.returncode == 0 and b"Traceback" not in done.stderr


def test_a_reader_who_leaves(tmp_path):
    script = r"""printf '\n3\n\n3\n' | "$@" | head -n 1"""
    done = subprocess.run(["sh", "-c", script, "sh", *COMMAND, "--chapter", "8", "--state", str(tmp_path / "quiz.json")], capture_output=True, timeout=60)
    assert done.returncode == 0 and b"Traceback" not in done.stderr and b"cards" in done.stdout


def test_nothing_heavy_is_imported():
    code = ("import sys, bertcourse.drill, bertcourse.drill.deck, bertcourse.drill.quiz, bertcourse.drill.schedule as s; s.add_review(None, 'good', "
            "s.datetime.now(s.UTC)); bertcourse.drill.load_bank(); print([m for m in ('torch', 'numpy', 'pandas', 'transformers', 'IPython', 'genanki') "
            "if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_two_sessions_at_once(tmp_path):
    state = tmp_path / "quiz.json"
    sessions = [subprocess.Popen([*COMMAND, "--chapter", chapter, "--state", str(state)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
                for chapter in ("Q7", "Q10")]
    for session in sessions:
        session.communicate(b"\n3\n" * 4, timeout=60)
    assert set(read_progress(state).cards) == {"Q7", "Q7a", "Q7b", "Q10", "Q10a", "Q10b", "Q10c"}


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_in_a_terminal(tmp_path, lang):
    pty = pytest.importorskip("pty")
    import select
    pid, handle = pty.fork()
    if pid == 0:
        os.environ.update(COLUMNS="70", TERM="xterm")
        os.execv(sys.executable, [*COMMAND, "--chapter", "Q7", "--lang", lang, "--state", str(tmp_path / "quiz.json")])
    shown, waiting = b"", [b"\n", b"3\n", b"q\n"]
    end = time.monotonic() + 60
    prompts = 0
    while time.monotonic() < end:
        if select.select([handle], [], [], 0.2)[0]:
            try:
                part = os.read(handle, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not part:
                break
            shown += part
        count = sum(shown.count(prompt.encode()) for prompt in (quiz.WORDS["enter"][lang], quiz.WORDS["rate"][lang]))
        if count > prompts and waiting:
            prompts = count
            os.write(handle, waiting.pop(0))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    text = shown.decode()
    assert not waiting and ("良好 1" if lang == "zh" else "good 1") in text and "Traceback" not in text
    assert set(read_progress(tmp_path / "quiz.json").cards) == {"Q7"}
    assert Path(tmp_path / "quiz.json").read_text().endswith("}\n")
