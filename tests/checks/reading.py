"""Notebooks as the checks see them: cells with their language, and prose without what is not prose."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bertcourse.languages import split_marker

ROOT = Path(__file__).resolve().parents[2]
NBS = ROOT / "nbs"
CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Chinese characters, without punctuation
HAS_CJK = re.compile(f"[{CJK}]")


@dataclass(frozen=True)
class Cell:
    """One cell, its marker taken off."""

    where: str  # "01_bert.ipynb#input-grid"
    kind: str  # "markdown", "code" or "raw"
    lang: str | None
    text: str
    outputs: list = field(default_factory=list, compare=False)


def notebooks(folder: Path = NBS) -> list[Path]:
    """Every notebook of the course, in reading order."""
    return sorted(
        p
        for p in folder.rglob("*.ipynb")
        if not any(part.startswith((".", "_")) for part in p.relative_to(folder).parts)
    )


def chapters(folder: Path = NBS) -> list[Path]:
    """The numbered notebooks."""
    return [p for p in notebooks(folder) if re.match(r"\d", p.name)]


def load(path: Path) -> dict:
    """The notebook as stored."""
    return json.loads(path.read_text(encoding="utf-8"))


def cells(notebook: dict, name: str = "a.ipynb") -> list[Cell]:
    """The cells of a stored notebook."""
    found = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        lang, text = split_marker(text) if cell["cell_type"] == "markdown" else (None, text)
        found.append(Cell(f"{name}#{cell.get('id')}", cell["cell_type"], lang, text, cell.get("outputs", [])))
    return found


def read(path: Path) -> list[Cell]:
    """The cells of the notebook at `path`."""
    name = path.relative_to(NBS).as_posix() if path.is_relative_to(NBS) else path.name
    return cells(load(path), name)


FENCE = re.compile(r"^ {0,3}(```+|~~~+)[^\n]*\n(.*?)^ {0,3}\1[ \t]*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$])\$(?!\s)([^$\n]+?)(?<![\s\\])\$(?!\d)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
LINK = re.compile(
    r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(\s*<?([^()\s<>]*(?:\([^()\s]*\)[^()\s]*)*)>?(?:\s+\"[^\"]*\")?\s*\)"
)
URL = re.compile(r"<?(https?://[^\s<>()\]\"'`\u3000-\u303f\uff00-\uffef\u4e00-\u9fff]+)>?")
HTML_TARGET = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src)\s*=\s*[\"']([^\"']+)[\"']", re.IGNORECASE)
ATTRIBUTES = re.compile(r"\{[#.:][^{}]*\}")  # {#id .class} of Quarto
PLACEHOLDER = "\ufffc"  # stands where code, mathematics or an address stood


def code_spans(text: str) -> list[str]:
    """Contents of inline code and fenced blocks."""
    fenced = [m[2].strip() for m in FENCE.finditer(text)]
    return fenced + [m[2].strip() for m in CODE.finditer(FENCE.sub("", text))]


def without_code(text: str) -> str:
    """The text with its code replaced by a placeholder."""
    return CODE.sub(PLACEHOLDER, FENCE.sub(PLACEHOLDER, COMMENT.sub("", text)))


def math_spans(text: str) -> list[str]:
    """Contents of inline and displayed mathematics, blanks squeezed."""
    return [re.sub(r"\s+", " ", (m[1] or m[2]).strip()) for m in MATH.finditer(without_code(text))]


def targets(text: str) -> list[str]:
    """Where the links and pictures of a text lead."""
    text = without_code(text)
    found = [m[3] for m in LINK.finditer(text)]
    rest = LINK.sub(lambda m: f" {m[2]} ", text)
    found += HTML_TARGET.findall(rest)
    return found + [
        m.rstrip(".,;:!?") for m in URL.findall(TAG.sub(lambda m: m[0] if m[0].startswith("<http") else "", rest))
    ]


def prose(text: str) -> str:
    """What is left for a reader to read: no code, mathematics, addresses, tags; texts of links stay."""
    text = MATH.sub(PLACEHOLDER, without_code(text))
    for _ in range(2):  # a picture inside a link
        text = LINK.sub(lambda m: m[2], text)
    text = URL.sub(PLACEHOLDER, text)
    return ATTRIBUTES.sub("", TAG.sub("", text))


HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
NUMBER = re.compile(r"((?:\d+(?:\.\d+)*|[A-Z](?=\. )|Q\d+(?![\d.]))(?:–(?:\d+(?:\.\d+)*|Q\d+))?)(?=[.:：、\s]|$)")


def headings(text: str) -> list[tuple[int, str, str]]:
    """Level, number ("" if none) and title of each heading."""
    found = []
    for marks, title in HEADING.findall(FENCE.sub("", text)):
        number = NUMBER.match(title)
        rest = title[number.end() :].lstrip(".:：、 \t") if number else title
        found.append((len(marks), number[1] if number else "", ATTRIBUTES.sub("", rest).strip()))
    return found


DIRECTIVE = re.compile(r"^[ \t]*#\|.*$", re.MULTILINE)
HIDDEN = re.compile(r"^[ \t]*#\|[ \t]*(?:hide\b|include:[ \t]*false)", re.MULTILINE)


def python(source: str) -> str:
    """A code cell as plain Python: directives, magics and shell lines made blank, so that line numbers stay."""
    if re.match(r"\s*%%(?!time|capture)", source):
        return ""
    return re.sub(r"^[ \t]*(?:[%!].*|#\|.*)$", "", source, flags=re.MULTILINE)


def tree(source: str) -> ast.Module:
    """The syntax tree of a code cell."""
    return ast.parse(python(source))


def comments(source: str) -> Iterator[str]:
    """The comments of a code cell, directives left out."""
    for token in tokenize.generate_tokens(io.StringIO(python(source)).readline):
        if token.type == tokenize.COMMENT:
            yield token.string.lstrip("#").strip()


def docstrings(source: str) -> Iterator[str]:
    """The docstrings of a code cell's functions and classes."""
    for node in ast.walk(tree(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and (
            text := ast.get_docstring(node)
        ):
            yield text


def captions(source: str) -> Iterator[dict[str, str]]:
    """The literal `zh=` and `en=` texts of each call; values computed in an f-string become placeholders."""
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Call):
            both = {k.arg: _literal(k.value) for k in node.keywords if k.arg in ("zh", "en")}
            if isinstance(node.func, ast.Name) and node.func.id == "bilingual" and len(node.args) >= 2:
                both = {"zh": _literal(node.args[0]), "en": _literal(node.args[1])}
            if both and all(isinstance(text, str) for text in both.values()):
                yield both


def _literal(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else PLACEHOLDER for v in node.values)
    return None
