"""The colours of the site: what each means, and that text in them can be read in both schemes."""

import re
from pathlib import Path

import pytest
from checks.reading import NBS, ROOT

STYLES = (NBS / "styles.css").read_text(encoding="utf-8")
GROUNDS = {"light": "#ffffff", "dark": "#222222"}  # of the themes cosmo and darkly
AA = 4.5  # WCAG 2.2, 1.4.3: contrast of text
BOX = float(re.search(r"--soft: rgba\(127, 127, 127, ([.\d]+)\)", STYLES)[1])  # how much grey the ground of a box has
# Where the colours are written that say something; `reference.py`, `corpus.py` and the figures of pages have a legend of their own.
SPEAKING = ("bertcourse/claims.py", "bertcourse/exercises/feedback.py", "bertcourse/exercises/chart.py", "bertcourse/drill/show.py")
HEX = re.compile(r"#[0-9a-fA-F]{6}\b")


def luminance(colour: str) -> float:
    """The relative luminance of `#rrggbb`, as WCAG has it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def box_ground(ground: str) -> str:
    """The ground of a box on a page."""
    parts = [round(int(ground[i : i + 2], 16) * (1 - BOX) + 127 * BOX) for i in (1, 3, 5)]
    return "#" + "".join(f"{part:02x}" for part in parts)


def inks(styles: str, scheme: str) -> dict[str, str]:
    """The colours for text that the style sheet declares for a scheme, by name."""
    selector = "body.quarto-dark" if scheme == "dark" else "body"
    block = re.search(rf"^{re.escape(selector)} \{{ (--holds.*?) \}}", styles, re.MULTILINE)[1]
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))


def faint(styles: str) -> list[str]:
    """What cannot be read well: ink and scheme."""
    return [f"{name} ({scheme})" for scheme, ground in GROUNDS.items() for name, ink in inks(styles, scheme).items()
            if min(contrast(ink, ground), contrast(ink, box_ground(ground))) < AA]  # fmt: skip


def unexplained(styles: str, sources: dict[str, str]) -> list[str]:
    """Colours in the sources that the table at the top of the style sheet does not explain."""
    table = {colour.lower() for colour in HEX.findall(styles.partition("*/")[0])}
    return [f"{name}: {colour}" for name, text in sources.items() for colour in HEX.findall(text) if colour.lower() not in table]


def sources() -> dict[str, str]:
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in SPEAKING}


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_text_in_colours_can_be_read():
    assert faint(STYLES) == []
    assert set(inks(STYLES, "light")) == set(inks(STYLES, "dark")) == {"holds", "fails", "read", "part", "open"}


def test_a_faint_colour_is_noticed():
    assert faint(STYLES.replace("--part: #8a6100", "--part: #e69f00")) == ["part (light)"]
    assert faint(STYLES.replace("--read: #5fb2ec", "--read: #0072b2")) == ["read (dark)"]


@pytest.mark.parametrize("scheme", GROUNDS)
def test_links_can_be_read_and_are_what_blue_means(scheme):
    link = re.search(r"^\$link-color: (#\w{6});", (NBS / f"theme-{scheme}.scss").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert link == inks(STYLES, scheme)["read"] and contrast(link, GROUNDS[scheme]) >= AA


def test_the_definition_of_a_term_can_be_read():
    bubble = re.search(r"\.term:is\(:hover, :focus\)::after \{.*?color: (#\w+); background: (#\w+);", STYLES, re.DOTALL)
    ink, ground = (f"#{''.join(2 * c for c in colour[1:])}" for colour in bubble.groups())
    assert contrast(ink, ground) >= AA


def test_every_colour_that_says_something_is_explained():
    assert unexplained(STYLES, sources()) == []


def test_a_colour_without_a_meaning_is_noticed():
    assert unexplained(STYLES, {"a.py": 'GREEN = "#009e73"; TEAL = "#00ADAD"'}) == ["a.py: #00ADAD"]


def test_what_python_prints_has_an_ink_for_each_of_its_colours():
    """A mark in a colour of the palette is drawn in the ink of that hue."""
    printed = {colour.upper() for text in sources().values() for colour in HEX.findall(text)}
    mapped = {colour.upper() for colour in re.findall(r'^main \[style\*="color:(#\w{6})"', STYLES, re.MULTILINE)}
    assert printed <= mapped


def test_the_themes_name_the_style_sheets():
    config = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    assert "light: [cosmo, theme.scss, theme-light.scss]" in config and "dark: [darkly, theme.scss, theme-dark.scss]" in config
    assert all(Path(NBS / name).is_file() for name in ("theme.scss", "theme-light.scss", "theme-dark.scss"))
