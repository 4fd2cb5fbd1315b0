"""Notebooks for machines on the web that run them, Colab and Binder: a cell that installs the course, and the branch that they are opened from.

    python tools/hosted.py _docs FOLDER     write what the branch `notebooks` holds

Both open notebooks from a repository. The site's workflow pushes the notebooks of the site, which are in one language each, to a branch
of their own.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).parent))

from install import CPU_INDEX

REPOSITORY, BRANCH = "bertcourse/bertcourse", "notebooks"
PACKAGE = f"bertcourse[lab] @ git+https://github.com/{REPOSITORY}.git"
COMMENT = {"zh": "在 Colab、Binder 等没有安装课程的地方，这个单元会安装它；已经安装时什么都不做。",
           "en": "Where the course is not installed, in Colab for one, this cell installs it; elsewhere it does nothing."}
INSTALL = """# {comment}
from importlib.util import find_spec

if find_spec("bertcourse") is None:
    %pip install -q "{package}"
"""


def with_install_cell(notebook: dict[str, Any], lang: str) -> dict[str, Any]:
    """The notebook with the cell behind its title."""
    source = INSTALL.format(comment=COMMENT[lang], package=PACKAGE)
    cell = {"cell_type": "code", "id": "install", "metadata": {}, "execution_count": None, "outputs": [], "source": source.splitlines(keepends=True)}
    first, *rest = notebook["cells"]
    return notebook | {"cells": [first, cell, *rest]}


def addresses(name: str, lang: str) -> dict[str, str]:
    """Where a notebook opens in Colab and in Binder."""
    place = f"{lang}/{name}"
    return {"colab": f"https://colab.research.google.com/github/{REPOSITORY}/blob/{BRANCH}/{quote(place)}",
            "binder": f"https://mybinder.org/v2/gh/{REPOSITORY}/{BRANCH}?labpath={quote(place, safe='')}"}


def write_branch(site: Path, folder: Path) -> list[Path]:
    """Write the branch's files into a new folder: the notebooks by language, and what Binder installs. Raises `OSError`."""
    folder.mkdir(parents=True)
    for lang in ("zh", "en"):
        shutil.copytree(site / lang / "notebooks", folder / lang)
    (folder / "requirements.txt").write_text(f"--extra-index-url {CPU_INDEX}\n{PACKAGE}\n", encoding="utf-8")
    (folder / "runtime.txt").write_text("python-3.11\n", encoding="utf-8")
    (folder / "README.md").write_text(
        "The course's notebooks as the site has them, one language each, for Colab and Binder. Made from `nbs/` of the branch `main`: change them there.\n\n"
        "网站上的课程笔记本，每份一种语言，供 Colab 和 Binder 打开。它们由 `main` 分支的 `nbs/` 生成，请在那里修改。\n", encoding="utf-8")
    return sorted(folder.rglob("*.ipynb"))


def main() -> int:
    """Write the branch's files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, help="the rendered site")
    parser.add_argument("folder", type=Path, help="a new folder")
    args = parser.parse_args()
    if not (args.site / "zh/notebooks").is_dir():
        parser.error(f"{args.site} holds no zh/notebooks: render the site first, with `make site`")
    if args.folder.exists():
        parser.error(f"{args.folder} exists: name a new folder")
    print(f"{args.folder}: {len(write_branch(args.site, args.folder))} notebooks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
