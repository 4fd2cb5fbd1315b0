"""Figures of chapter 6: every arm and layer is drawn, and the guide's table shows both numbers where they differ."""

import re

from transformers import AutoModel, BertConfig

from bertcourse import tinybert_plots
from bertcourse.distillation import new_model
from bertcourse.experiments import Comparison

CAPTION = ("一张图。", "A figure.")


def test_layers_that_nobody_learns_from_are_drawn_too():
    sizes = {"num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 20}
    teacher, student = (new_model(BertConfig(hidden_size=width, num_hidden_layers=layers, **sizes))(AutoModel)
                        for width, layers in [(16, 4), (8, 2)])  # fmt: skip
    html = tinybert_plots.plot_teacher_and_student(teacher, student, (2, 4), CAPTION).html()
    assert len(re.findall(r"layer \d: n × 16", html)) == 4 and len(re.findall(r"layer \d: n × 8", html)) == 2
    assert html.count("attention and hidden states") == 2 and "A figure." in html


def test_maps_sizes_and_comparisons_name_what_they_show():
    maps = {"uniform": [(0, 0), (1, 2), (2, 4)], "guide's": [(1, 1)]}
    html = tinybert_plots.plot_layer_maps(maps, 2, 4, CAPTION, guide=["guide's"]).html()
    assert "uniform" in html and tinybert_plots.GUIDE.lower() in html.lower()
    html = tinybert_plots.plot_size_and_score({"small": (0.1, 0.6, 1.0), "large": (1.0, 0.8, 2.0)}, CAPTION, left=["large"]).html()
    assert "small" in html and "large" in html
    found = [Comparison(score, "a", "b", 0.1, 0.0, 0.2, p) for score, p in [("x", 0.01), ("y", 0.5)]]
    html = tinybert_plots.plot_comparisons(found, CAPTION).html()
    assert html.count("+0.100") == 2


def test_the_guides_table_shows_both_numbers():
    cells = tinybert_plots.compare_guide_scores()
    html = tinybert_plots.guide_scores(CAPTION).html()
    assert len(cells) == 20
    assert html.count("<s ") == sum(guide != paper for _, _, guide, paper in cells) == 17
