"""The toy world's text in quantity: what is rare shows only there; the fast tests look at fewer documents."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
import test_corpus as fast  # noqa: E402
import test_corpus_tasks as tasks  # noqa: E402

LANGUAGES = pytest.mark.parametrize("lang", fast.LANGUAGES)


@LANGUAGES
def test_splits_share_no_sentence(lang):
    fast.test_splits_share_no_sentence(lang, more=5)  # 20,000 documents in the two languages


@LANGUAGES
def test_determined_words_are_determined(lang):
    fast.test_determined_words_are_determined(lang, n=6000)


@LANGUAGES
def test_free_words_follow_their_distribution(lang):
    fast.test_free_words_follow_their_distribution(lang, n=6000)


def test_free_words_of_test_text_are_among_their_fillers():
    fast.test_free_words_of_test_text_are_among_their_fillers(n=2000)


@LANGUAGES
@pytest.mark.parametrize("task", tasks.TASKS)
def test_no_row_of_a_task_in_two_splits(task, lang):
    tasks.test_no_row_in_two_splits(task, lang, train=800, other=300)
