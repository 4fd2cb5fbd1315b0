"""What every other part of bertcourse may use and what uses none of them: facts about the machine. Light: no torch, no numpy."""
