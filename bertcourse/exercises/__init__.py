"""Exercises with their checks: `check`, `hint`, `solution` and `progress` in a notebook; definitions for graders and the site."""

from bertcourse.base.bilingual import Text as Text
from bertcourse.exercises.definition import Draw as Draw
from bertcourse.exercises.definition import Exercise as Exercise
from bertcourse.exercises.definition import Experiment as Experiment
from bertcourse.exercises.definition import Mistake as Mistake
from bertcourse.exercises.definition import Question as Question
from bertcourse.exercises.notebook import check as check
from bertcourse.exercises.notebook import hint as hint
from bertcourse.exercises.notebook import progress as progress
from bertcourse.exercises.notebook import solution as solution
