"""The reference of the library on the site. Its links are checked with the rest of the site (tests/test_site.py)."""

import importlib
import inspect
import re

import pytest
import scripts
from checks.reading import ROOT

from bertcourse.base.errors import UserError


@pytest.fixture(scope="module")
def api():
    return scripts.tool("api")


@pytest.fixture(scope="module")
def pages(api):
    return {lang: api.site_pages(lang) for lang in ("zh", "en")}


def text_of(page):
    return "\n\n".join("".join(cell["source"]) for cell in page["cells"])


def test_every_public_name_has_its_place(api, pages):
    named = 0
    for module in api.modules():
        public = [name for name in importlib.import_module(module).__all__
                  if inspect.isclass(value := getattr(importlib.import_module(module), name)) or inspect.isroutine(value)]  # fmt: skip
        for lang in ("zh", "en"):
            text = text_of(pages[lang][api.file_of(module)]) if public else ""
            assert [name for name in public if f"{{#{name}}}" not in text] == []
        named += len(public)
    assert named > 450 and {"bertcourse.jobs", "bertcourse.plots", "bertcourse.training"} <= set(api.modules())
    assert pages["zh"].keys() == pages["en"].keys()


def test_the_index_names_all(api, pages):
    index = text_of(pages["en"]["index.ipynb"])
    assert all(f"]({api.file_of(symbol.module)}#{symbol.name})" in index for module in api.modules() for symbol in api.symbols(module))


def example(rows: list[str], limit: int | None = None, *, mode: str = "a|b") -> dict[str, int]:
    """Count `rows` of <b> and $x_1$.

    More about it. Raises `KeyError` for a row that is not there.
    """


def test_a_function_is_described_whole(api):
    found = api.describe(api.Symbol("m", "example", example), "en", "##")
    assert found.startswith("## example {#example}\n\n```python\nexample(rows, limit=None, *, mode='a|b')\n```")
    assert "Count `rows` of \\<b\\> and \\$x\\_1\\$." in found and "**Raises**: `KeyError` for a row that is not there." in found
    assert "| `limit` | `int | None` | `None` |" in found and "| `mode` | `str` | `'a|b'` |" in found  # as Pandoc reads it
    assert "| **Returns** | `dict[str, int]` |" in found and re.search(r"\[source\]\(https://github\.com/\S+/tests/test_api_pages\.py#L\d+\)", found)


class Example:
    """An example (Author et al. 2020). More."""

    @property
    def size(self) -> int:
        """How large."""
        return 1

    @classmethod
    def read(cls, path: str) -> "Example":
        """Read it.

        Raises `OSError` where the file
        is not there."""


def test_properties_class_methods_and_wrapped_lines(api):
    symbol = api.Symbol("m", "Example", Example)
    assert symbol.summary == "An example (Author et al. 2020)."
    size, read = api.methods(symbol)
    assert "```python\nExample.size\n```" in api.describe(size, "en", "###")
    found = api.describe(read, "en", "###")
    assert "```python\nExample.read(path)\n```" in found and "`cls`" not in found and "**Raises**: `OSError` where the file is not there." in found


def test_no_path_of_this_machine(pages):
    assert not [name for name, page in pages["en"].items() if str(ROOT) in text_of(page)]


def test_lines_of_the_source_are_right(api):
    symbol = next(symbol for symbol in api.symbols("bertcourse.training") if symbol.name == "fit")
    path, line = api.where(symbol).removeprefix(f"{api.SOURCE}/").split("#L")
    assert (ROOT / path).read_text(encoding="utf-8").splitlines()[int(line) - 1].startswith("def fit(")


def test_long_signatures_are_a_parameter_a_line(api):
    found = api.signature(next(symbol for symbol in api.symbols("bertcourse.jobs") if symbol.name == "finetune"))
    assert "\n    *,\n" in found and max(map(len, found.splitlines())) <= 100
    assert api.signature(api.Symbol("m", "UserError", UserError)) == "UserError(en, zh)"


@pytest.mark.parametrize("before, after", [
    ("call `plot_heatmaps` twice: `plot_heatmaps`", "call [`plot_heatmaps`](../api/plots.ipynb#plot_heatmaps) twice: `plot_heatmaps`"),
    ("`training.fit` and `fit`", "[`training.fit`](../api/training.ipynb#fit) and `fit`"),  # a common word alone is no name
    ("[`plot_heatmaps`](x)", "[`plot_heatmaps`](x)"),
    ("## `plot_heatmaps`\n", "## `plot_heatmaps`\n"),
    ("```\n`plot_heatmaps`\n```\n`plot_lines()`", "```\n`plot_heatmaps`\n```\n[`plot_lines()`](../api/plots.ipynb#plot_lines)"),
    ("`not_a_name` ``plot_heatmaps``", "`not_a_name` ``plot_heatmaps``"),
])  # fmt: skip
def test_prose_links_to_what_it_names(api, before, after):
    assert api.link_prose(before, "../", set()) == after
