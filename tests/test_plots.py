"""Figures of bertcourse.plots: readable on any page, with Chinese labels, in both languages, the same each time."""

import re
import warnings
import xml.etree.ElementTree as ET

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertcourse import plots
from bertcourse.languages import keep_language

SVG = "{http://www.w3.org/2000/svg}"
CAPTION = {"zh": "一张图。", "en": "A figure."}
FIGURES = {
    "lines": lambda: plots.plot_lines(
        [1, 2, 4],
        {"词": [1, 2, 3], "b": [3, 2, 1]},
        spread={"b": [0.1, 0.1, 0.1]},
        xlabel="n",
        ylabel="y",
        xlog=True,
        mark=(2, "BERT"),
        ylim=(None, 5),
        **CAPTION,
    ),
    "bars": lambda: plots.plot_bars({"词": 1.5, "b": 2}, spread={"b": 0.2}, xlabel="n", **CAPTION),
    "stacked": lambda: plots.plot_stacked({"词": {"x": 1, "y": 3}, "b": {"x": 2}}, **CAPTION),
    "share": lambda: plots.plot_stacked({"词": {"x": 1, "y": 3}, "b": {"x": 2, "y": 2}}, share=True, **CAPTION),
    "heatmaps": lambda: plots.plot_heatmaps(
        {"A": np.eye(3), "B": np.ones((3, 3))}, ["我", "爱", "词"], xlabel="k", ylabel="q", **CAPTION
    ),
}


def svg(figure):
    """The picture as a tree; fails where it is not well-formed."""
    return ET.fromstring(re.search(r"<svg.*?</svg>", figure.html(), re.DOTALL)[0])


@pytest.fixture(params=FIGURES)
def figure(request):
    """Each kind of figure, drawn without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return FIGURES[request.param]()


def test_labels_are_text_with_chinese_fallbacks(figure):
    labels = [e for e in svg(figure).iter(f"{SVG}text")]
    assert any(re.search("[\u4e00-\u9fff]", "".join(e.itertext())) for e in labels), "Chinese labels became paths"
    for label in labels:
        style = label.get("style", "")
        assert "Noto Sans CJK SC" in style and "PingFang SC" in style and "sans-serif" in style, style


def test_ink_is_the_pages(figure):
    html = figure.html()
    assert plots._INK not in html
    labels = [e.get("style", "") + e.get("fill", "") for e in svg(figure).iter(f"{SVG}text")]
    # labels inherit the page's colour unless they stand on a coloured bar
    assert not any(re.search(r"fill: (?:#000000|black)", label) for label in labels)
    shapes = re.sub(r"<text.*?</text>", "", html, flags=re.DOTALL)
    assert "currentColor" in shapes and not re.search(r"(?:fill|stroke): (?:#000000|#ffffff|black|white)\b", shapes)
    background = next(g for g in svg(figure).iter(f"{SVG}g") if g.get("id") == "patch_1")
    assert all("fill: none" in path.get("style") or "opacity: 0" in path.get("style") for path in background)


def test_caption_names_the_picture_in_both_languages(figure):
    html = figure.html()
    label = re.search(r'<svg role="img" aria-labelledby="([^"]+)"', html)[1]
    assert f'<figcaption id="{label}"' in html
    assert ("一张图。" in keep_language(html, "zh"), "A figure." in keep_language(html, "zh")) == (True, False)
    assert ("一张图。" in keep_language(html, "en"), "A figure." in keep_language(html, "en")) == (False, True)
    bundle = figure._repr_mimebundle_()
    assert bundle == {"text/html": html, "text/plain": "Figure: A figure."}


def test_one_language_where_the_reader_has_one(monkeypatch):
    monkeypatch.setenv("BERTCOURSE_LANG", "en")
    assert "一张图。" not in FIGURES["bars"]().html()


@pytest.mark.parametrize("kind", FIGURES)
def test_same_figure_each_time(kind):
    assert FIGURES[kind]().html() == FIGURES[kind]().html()


def test_nothing_of_the_machine_or_the_day(figure):
    assert not re.search(r"\d{4}-\d\d-\d\dT|matplotlib\.org|/home/|/tmp/", figure.html())


def test_size_is_the_pages_too(figure):
    tag = re.search(r"<svg[^>]*>", figure.html())[0]
    assert "max-width:100%" in tag and "viewBox=" in tag and not re.search(r'\bwidth="[\d.]+pt"', tag)


def test_figures_are_closed_and_style_is_local():
    before = plt.rcParams["font.size"], plt.rcParams["axes.spines.top"]
    for draw in FIGURES.values():
        draw()
    assert plt.get_fignums() == [] and (plt.rcParams["font.size"], plt.rcParams["axes.spines.top"]) == before


def test_values_are_written():
    assert {"1.5", "2"} <= {"".join(e.itertext()) for e in svg(FIGURES["bars"]()).iter(f"{SVG}text")}
    assert {"25%", "75%", "50%"} <= {"".join(e.itertext()) for e in svg(FIGURES["share"]()).iter(f"{SVG}text")}
    assert {"词", "b", "BERT"} <= {"".join(e.itertext()) for e in svg(FIGURES["lines"]()).iter(f"{SVG}text")}


def test_a_logarithmic_axis_has_numbers_not_powers():
    drawn = svg(plots.plot_bars({"a": 4, "b": 2000}, xlog=True, **CAPTION))
    assert {"16", "1,024"} <= {"".join(e.itertext()) for e in drawn.iter(f"{SVG}text")}


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda: plots.plot_lines([1, 2], {"a": [1]}), "line 'a' has 1 values for 2 places"),
        (lambda: plots.plot_heatmaps({"m": np.eye(2)}, ["a", "b", "c"]), "map 'm' is 2×2, its labels 3×3"),
        (lambda: plots.token_grid({"a": [1], "b": [1, 2]}), "rows of a grid differ in length"),
        (lambda: plots.token_grid({"a": [1, 2]}, groups={"a": [1]}), "rows of a grid differ in length"),
        (lambda: plots.plot_lines([1], {f"{i}": [1] for i in range(3)}, colours=["red"]), "3 lines, 1 colours: give one for each"),
        (lambda: plots.plot_lines([1], {f"{i}": [1] for i in range(25)}), "25 lines, and at most 24 can be told apart"),
        (lambda: plots.plot_stacked({"a": {"x": 1, "y": 1}}, colours=["red"]), "2 parts, 1 colours"),
        (lambda: plots.plot_dots({"p": {"a": [1], "b": [1]}}, colours=["red"]), "2 rows, 1 colours"),
        (lambda: plots.plot_trade_offs([("a", 1, 1, 1, f"{i}") for i in range(9)]), "9 groups, 8 colours: give colours= one for 8"),
    ],
)
def test_wrong_shapes_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def names_in(figure):
    """All that is written in a picture."""
    return {"".join(e.itertext()) for e in svg(figure).iter(f"{SVG}text")}


def test_each_of_twelve_layers_has_its_line():
    """BERT-base has more layers than the palette has colours."""
    layers = {f"layer {i}": [i, i + 1] for i in range(1, 13)}
    eight = dict(list(layers.items())[:8])
    assert set(layers) <= names_in(plots.plot_lines([1, 2], layers, **CAPTION))
    dashes = [plots.plot_lines([1, 2], some, **CAPTION).html().count("stroke-dasharray: 6") for some in (eight, layers)]
    assert dashes == [0, 4]


def test_each_part_of_a_bar_is_drawn():
    parts = {f"part {i}": 1 for i in range(12)}
    assert set(parts) <= names_in(plots.plot_stacked({"a": parts}, **CAPTION))
    drawn = plots.plot_stacked({"a": parts}, share=True, **CAPTION)
    assert [text for text in names_in(drawn) if text == "8%"] and drawn.html().count('fill: url(#') >= 4


def test_no_two_series_look_alike():
    found = plots.assign_colours(24)
    assert len(set(found)) == 24 and found[:8] == [(colour, 0) for colour in plots.PALETTE] and found[8] == (plots.PALETTE[0], 1)
    assert plots.assign_colours(2, colours=["red", "blue", "green"]) == [("red", 0), ("blue", 0)]


def test_tensors_are_drawn_like_lists():
    torch = pytest.importorskip("torch")
    numbers = torch.tensor([[0.25, 1.0], [0.5, 0.125]], dtype=torch.bfloat16, requires_grad=True)
    lists = numbers.tolist()
    for draw in (lambda rows: plots.plot_lines([1, 2], {"a": rows[0]}, spread={"a": rows[1]}, **CAPTION),
                 lambda rows: plots.plot_heatmaps({"a": rows}, ["x", "y"], **CAPTION)):  # fmt: skip
        assert draw(numbers).html() == draw(lists).html()


@given(st.lists(st.floats(-500, 500), min_size=1, max_size=6), st.floats(0.5, 30))
def test_labels_are_moved_apart(heights, gap):
    placed = np.array(plots._spaced(heights, gap))
    order = np.argsort(heights)
    assert (np.diff(placed[order]) >= gap - 1e-6).all() and (placed >= np.array(heights) - 1e-9).all()


def test_grid_escapes_and_colours():
    html = plots.token_grid(
        {"token": ["<b>", "我", "&"], "segment": [0, 0, 1], "id": [5, 5, 6]}, plain=["id"], **CAPTION
    ).html()
    table = ET.fromstring(re.search(r"<table.*</table>", html, re.DOTALL)[0])
    rows = {row[0].text: row[1:] for row in table.iter("tr")}
    assert [cell.text for cell in rows["token"]] == ["<b>", "我", "&"]
    background = {
        name: [re.search(r"background:([^;]+)", cell.get("style"))[1] for cell in row] for name, row in rows.items()
    }
    assert background["segment"][0] == background["segment"][1] != background["segment"][2]
    assert len(set(background["token"])) == 3 and set(background["id"]) == {"none"}
    html = plots.token_grid({"token": ["a", "b", "c"]}, groups={"token": [None, "hidden", None]}, **CAPTION).html()
    first, second, third = re.findall(r"<td style=\"[^\"]*background:([^;\"]+)", html)
    assert first == third == "none" != second


def luminance(colour):
    """Relative luminance of "#rrggbb" (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [plots.GUIDE, plots.SOURCE, plots.MEASURED])
@pytest.mark.parametrize("page", ["#ffffff", "#222222"])
def test_the_three_colours_stand_out_on_light_and_dark(colour, page):
    light, dark = sorted([luminance(colour), luminance(page)], reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 2.9


def test_a_heat_map_writes_its_values_when_asked():
    def written(form):
        return {node.text for node in svg(plots.plot_heatmaps({"m": [[0.25, 1]]}, ["a"], ["x", "y"], format=form)).iter()}

    assert {"0.25", "1.00"} <= written("{:.2f}") and not {"0.25", "1.00"} & written("")


def test_each_map_has_its_own_colour_scale_where_the_limits_are_its_own():
    maps = {"m": [[0.0, 1.0]], "n": [[0.0, 9.0]]}

    def scales(limits):
        picture = svg(plots.plot_heatmaps(maps, ["a"], ["x", "y"], limits=limits, scale="weight"))
        return sum("weight" in "".join(node.itertext()) for node in picture.iter(f"{SVG}text"))

    assert (scales(None), scales((0, 1))) == (2, 1)


def test_a_heat_map_frames_the_squares_that_it_is_told():
    def framed(frames):
        picture = plots.plot_heatmaps({"m": [[0.25, 1]]}, ["a"], ["x", "y"], frames=frames).html()
        return picture.count(f"stroke: {plots.GUIDE.lower()}")

    assert (framed([]), framed([(0, 0), (0, 1)])) == (0, 2)


def test_only_a_clear_difference_has_a_filled_dot():
    def filled(p):
        return plots.plot_intervals({"a": (0.1, -0.1, 0.3, p)}).html().count(f"fill: {plots.MEASURED.lower()}")

    assert filled(0.01) > filled(0.5)


def test_a_skip_is_one_more_arrow_and_moves_the_shapes():
    steps = [("x", "(1, 4)"), ("layer", "(1, 4)"), ("+ x", "(1, 4)")]
    plain, skipping = (svg(plots.plot_flow(steps, skips=skips, **CAPTION)) for skips in ((), [(0, 2)]))
    count = [len(tree.findall(f".//{SVG}path")) for tree in (plain, skipping)]
    assert count[1] > count[0]


def test_the_ends_of_the_y_axis_are_as_told():
    _, ax = plots.axes()
    plots.dress(ax, ylim=(None, 7))
    assert ax.get_ylim() == (0, 7)
