"""The question bank and the drill on it: quiz with spaced repetition, Anki deck, cards in the notebook.

Written by hand. The data lies in `assets/bank/`, one file for each page of the course. Nothing here imports torch; fsrs and genanki
are imported where they are used.
"""

from bertcourse.drill.bank import Bank, Card, Question, load_bank, select_cards
from bertcourse.drill.show import show_answer, show_cards, show_question

__all__ = ["Bank", "Card", "Question", "load_bank", "select_cards", "show_answer", "show_cards", "show_question"]
