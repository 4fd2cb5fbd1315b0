"""Notebooks that open in Colab and Binder: they install the course where it is missing, and the branch holds all of them."""

import json
import sys
from types import SimpleNamespace

import pytest
import scripts
from checks.planting import code, md


@pytest.fixture(scope="module")
def hosted():
    return scripts.tool("hosted")


def run_install_cell(hosted, monkeypatch, is_there):
    """What the cell hands to %pip, in IPython."""
    core = pytest.importorskip("IPython.core.inputtransformer2")
    asked = []
    shell = SimpleNamespace(run_line_magic=lambda name, line: asked.append((name, line)))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if is_there else None)
    notebook = hosted.with_install_cell({"cells": [md("# T"), code("1")]}, "en")
    source = "".join(notebook["cells"][1]["source"])
    exec(compile(core.TransformerManager().transform_cell(source), "<cell>", "exec"), {"get_ipython": lambda: shell})
    return asked


def test_the_first_cell_installs_what_is_missing(hosted, monkeypatch):
    assert run_install_cell(hosted, monkeypatch, False) == [("pip", f'install -q "{hosted.PACKAGE}"')]
    assert run_install_cell(hosted, monkeypatch, True) == []


def test_the_branch_holds_the_notebooks_of_both_languages(hosted, tmp_path, monkeypatch, capsys):
    for lang in ("zh", "en"):
        (tmp_path / "site" / lang / "notebooks/exercises").mkdir(parents=True)
        for name in ("01_bert.ipynb", "exercises/01_bert.ipynb"):
            (tmp_path / "site" / lang / "notebooks" / name).write_text(json.dumps({"cells": []}))
    monkeypatch.setattr(sys, "argv", ["hosted.py", str(tmp_path / "site"), str(tmp_path / "branch")])
    assert hosted.main() == 0
    found = {path.relative_to(tmp_path / "branch").as_posix() for path in (tmp_path / "branch").rglob("*") if path.is_file()}
    assert found == {"README.md", "requirements.txt", "runtime.txt", *(f"{lang}/{name}" for lang in ("zh", "en") for name in ("01_bert.ipynb", "exercises/01_bert.ipynb"))}
    for lang in ("zh", "en"):
        for address in hosted.addresses("exercises/01_bert.ipynb", lang).values():
            assert "/notebooks" in address and (f"{lang}/exercises/01_bert.ipynb" in address or f"{lang}%2Fexercises%2F01_bert.ipynb" in address)


@pytest.mark.parametrize("argv, said", [(["nowhere", "new"], "holds no zh/notebooks"), (["site", "site"], "exists")])
def test_bad_input(hosted, tmp_path, monkeypatch, capsys, argv, said):
    (tmp_path / "site/zh/notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hosted.py", *argv])
    with pytest.raises(SystemExit) as left:
        hosted.main()
    assert left.value.code == 2 and said in capsys.readouterr().err
