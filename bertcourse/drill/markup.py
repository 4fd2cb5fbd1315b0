r"""Markdown of the bank for a terminal, for a notebook and for Anki.

A small part of Markdown: paragraphs, lists with `- `, **bold**, `code`, fenced code, [links](https://…), and formulas in `$…$`. A
formula is a small part of LaTeX, so that it reads well where nothing typesets it: `$\sqrt{d_k}$` becomes √dₖ in a terminal, and
letters with real subscripts in HTML. `check_markup` names what is not part of it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence

from bertcourse.base.text import wide

SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "varepsilon": "ε", "eta": "η", "theta": "θ", "lambda": "λ",
    "mu": "μ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "Phi": "Φ", "Sigma": "Σ", "Delta": "Δ", "partial": "∂",
    "nabla": "∇", "sum": "∑", "prod": "∏", "infty": "∞", "times": "×", "cdot": "·", "odot": "⊙", "pm": "±", "le": "≤", "leq": "≤",
    "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "propto": "∝", "to": "→", "rightarrow": "→", "in": "∈", "mid": "|",
    "ldots": "…", "dots": "…", "cdots": "…", "top": "ᵀ", "ell": "ℓ", "parallel": "∥", "lceil": "⌈", "rceil": "⌉", "lfloor": "⌊",
    "rfloor": "⌋", ",": " ", ";": " ", " ": " ", "!": "", "quad": "  ", "{": "{", "}": "}", "|": "∥", "%": "%", "_": "_", "#": "#",
    **{name: name for name in ("log", "exp", "max", "min", "tanh")},
}
BINARY = ("times", "cdot", "pm", "le", "leq", "ge", "geq", "ne", "neq", "approx", "propto", "to", "rightarrow", "in", "mid", "parallel")
WORDS = ("text", "mathrm", "operatorname", "mathbf")  # what follows is upright
_SUP = dict(zip("0123456789+-−=()niTm", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱᵀᵐ"))
_SUB = dict(zip("0123456789+-=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ"))
_TOKEN = re.compile(r"\\[A-Za-z]+\s*|\\.|[{}^_]|\s+|[^\\]", re.DOTALL)


# --- formulas -----------------------------------------------------------------------------------------------------

class FormulaError(ValueError):
    """A formula that is not of the small part of LaTeX."""


class _Formula:
    """A formula as a tree, written by a writer: `_Plain` or `_Html`."""

    def __init__(self, source: str, writer: type[_Plain]) -> None:
        self.tokens, self.place, self.writer, self.source = _TOKEN.findall(source.strip()), 0, writer, source

    def all(self) -> str:
        """The whole formula. Raises `FormulaError`."""
        text = self.until(None)
        if self.place < len(self.tokens):
            raise FormulaError(f"a brace too many in {self.source!r}")
        return re.sub(" {2,}", " ", text)

    def until(self, end: str | None) -> str:
        parts: list[str] = []
        while self.place < len(self.tokens) and self.tokens[self.place] != end:
            token = self.tokens[self.place]
            if token == "}":
                break
            if token in ("^", "_"):
                self.place += 1
                parts.append((self.writer.sup if token == "^" else self.writer.sub)(self.argument()))
            else:
                parts.append(self.atom())
        return "".join(parts)

    def argument(self) -> str:
        """What a command or an exponent applies to: a group in braces, or one symbol."""
        if self.place >= len(self.tokens):
            raise FormulaError(f"something is missing at the end of {self.source!r}")
        return self.atom()

    def atom(self) -> str:
        token = self.tokens[self.place]
        self.place += 1
        if token == "{":
            inner = self.until("}")
            if self.place >= len(self.tokens):
                raise FormulaError(f"a brace is not closed in {self.source!r}")
            self.place += 1
            return inner
        if token.startswith("\\"):
            return self.command(token[1:] if len(token) == 2 else token[1:].strip())
        return self.writer.symbol(" " if token.isspace() else token)

    def command(self, name: str) -> str:
        if name == "frac":
            top, bottom = self.argument(), self.argument()
            return f"{self.writer.grouped(top)}/{self.writer.grouped(bottom)}"
        if name == "sqrt":
            return "√" + self.writer.grouped(self.argument())
        if name == "hat":
            return self.argument() + "\u0302"
        if name in WORDS:
            return self.upright()
        if name in ("left", "right"):
            return ""
        if name not in SYMBOLS:
            raise FormulaError(f"\\{name} in {self.source!r} is not known: see SYMBOLS in bertcourse/drill/markup.py")
        symbol = self.writer.upright(SYMBOLS[name])
        return f" {symbol} " if name in BINARY else symbol

    def upright(self) -> str:
        """The group in braces as it stands."""
        rest = "".join(self.tokens[self.place:])
        found = re.match(r"\{([^{}]*)\}", rest)
        if not found:
            raise FormulaError(f"no group after a word in {self.source!r}")
        end, seen = found.end(), 0
        while seen < end:
            seen += len(self.tokens[self.place])
            self.place += 1
        return self.writer.upright(found[1].replace("\\_", "_"))


class _Plain:
    """Writes a formula as Unicode."""

    @staticmethod
    def symbol(text: str) -> str:
        return text.replace("-", "−")

    @staticmethod
    def upright(text: str) -> str:
        return text

    @staticmethod
    def sup(text: str) -> str:
        if text in ("ᵀ", "∗", "*", "′"):
            return text
        return "".join(map(_SUP.get, text)) if all(char in _SUP for char in text) else f"^({text})" if len(text) > 1 else f"^{text}"

    @staticmethod
    def sub(text: str) -> str:
        return "".join(map(_SUB.get, text)) if all(char in _SUB for char in text) else f"_({text})" if len(text) > 1 else f"_{text}"

    @staticmethod
    def grouped(text: str) -> str:
        """In brackets, if it is more than a name with its index or a call."""
        return f"({text})" if re.search(r"[\s+−±·×/=]", text) else text


class _Html(_Plain):
    """Writes a formula as HTML."""

    @staticmethod
    def symbol(text: str) -> str:
        return f"<i>{text}</i>" if text.isalpha() and text.isascii() else html.escape(text.replace("-", "−"))

    @staticmethod
    def upright(text: str) -> str:
        return html.escape(text)

    @staticmethod
    def sup(text: str) -> str:
        return text if text == "ᵀ" else f"<sup>{text}</sup>"

    @staticmethod
    def sub(text: str) -> str:
        return f"<sub>{text}</sub>"

    @staticmethod
    def grouped(text: str) -> str:
        bare = re.sub(r"<su[bp]>.*?</su[bp]>|</?i>", "", text)
        return f"({text})" if re.search(r"[\s+−±·×/=]", bare) else text


def plain_formula(source: str) -> str:
    """A formula as Unicode, for a terminal. Raises `FormulaError`."""
    return _Formula(source, _Plain).all()


def html_formula(source: str) -> str:
    """A formula as HTML that needs no typesetting. Raises `FormulaError`."""
    return f'<span style="white-space:nowrap">{_Formula(source, _Html).all()}</span>'


def anki_formula(source: str) -> str:
    """A formula as Anki's MathJax."""
    return rf"\({html.escape(source, quote=False)}\)"


# --- inline -------------------------------------------------------------------------------------------------------

_INLINE = re.compile(r"`(?P<code>[^`\n]+)`|(?<!\\)\$(?P<math>[^$\n]+?)\$|\*\*(?P<bold>[^*\n]+?)\*\*"
                     r"|\[(?P<label>[^\]\n]+)\]\((?P<target>https?://[^)\s]+)\)")
Formula = Callable[[str], str]


def _inline_html(text: str, formula: Formula) -> str:
    parts, end = [], 0
    for found in _INLINE.finditer(text):
        parts.append(html.escape(text[end:found.start()], quote=False).replace(r"\$", "$"))
        if found["code"] is not None:
            parts.append(f"<code>{html.escape(found['code'], quote=False)}</code>")
        elif found["math"] is not None:
            parts.append(formula(found["math"]))
        elif found["bold"] is not None:
            parts.append(f"<b>{_inline_html(found['bold'], formula)}</b>")
        else:
            parts.append(f'<a href="{html.escape(found["target"])}">{_inline_html(found["label"], formula)}</a>')
        end = found.end()
    return "".join([*parts, html.escape(text[end:], quote=False).replace(r"\$", "$")])


def _inline_plain(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        if found["code"] is not None:
            return found["code"] if found["code"].isascii() and found["code"].isidentifier() else f"`{found['code']}`"
        if found["math"] is not None:
            return plain_formula(found["math"])
        if found["bold"] is not None:
            return _inline_plain(found["bold"])
        return f"{_inline_plain(found['label'])} ({found['target']})"
    return _INLINE.sub(plain, text).replace(r"\$", "$")


# --- blocks -------------------------------------------------------------------------------------------------------

def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Paragraphs ("p"), items of lists ("li") and fenced code ("pre")."""
    lines, paragraph = iter(text.strip().splitlines()), []
    for line in lines:
        if line.startswith(("```", "- ")) or not line.strip():
            if paragraph:
                yield "p", "\n".join(paragraph)
                paragraph = []
            if line.startswith("```"):
                code = []
                for inner in lines:
                    if inner.startswith("```"):
                        break
                    code.append(inner)
                yield "pre", "\n".join(code)
            elif line.startswith("- "):
                yield "li", line[2:].strip()
        else:
            paragraph.append(line.strip())
    if paragraph:
        yield "p", "\n".join(paragraph)


def _joined(text: str) -> str:
    """The lines of a paragraph as one; between Chinese characters no blank comes in."""
    return re.sub(r"\n", " ", re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[\u3000-\u9fff\uff00-\uffef])", "", text))


def to_html(text: str, formula: Formula = html_formula) -> str:
    """HTML of a text of the bank; a single paragraph stands without <p>. Raises `FormulaError`."""
    blocks, parts, in_list = list(_blocks(text)), [], False
    if len(blocks) == 1 and blocks[0][0] == "p":
        return _inline_html(_joined(blocks[0][1]), formula)
    for kind, content in blocks:
        if (kind == "li") != in_list:
            parts.append("<ul>" if kind == "li" else "</ul>")
            in_list = kind == "li"
        inner = html.escape(content, quote=False) if kind == "pre" else _inline_html(_joined(content), formula)
        parts.append(f"<{kind}>{inner}</{kind}>")
    return "".join([*parts, "</ul>" if in_list else ""])


def to_plain(text: str) -> str:
    """A text of the bank for a terminal, a paragraph or item a line. Raises `FormulaError`."""
    lines: list[str] = []
    before = None
    for kind, content in _blocks(text):
        if before and not kind == before == "li":
            lines.append("")
        if kind == "pre":
            lines += [f"    {line}" for line in content.splitlines()]
        else:
            lines.append(("• " if kind == "li" else "") + _inline_plain(_joined(content)))
        before = kind
    return "\n".join(lines)


def check_markup(text: str) -> list[str]:
    """What a text holds that is not part of the bank's Markdown."""
    found = []
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for match in _INLINE.finditer(rest):
        if match["math"] is not None:
            try:
                plain_formula(match["math"]), html_formula(match["math"])
            except FormulaError as error:
                found.append(str(error))
    bare = _INLINE.sub(" ", rest).replace(r"\$", "")
    found += [f"{what}: {match[0]!r}" for what, pattern in _FOREIGN if (match := re.search(pattern, bare, re.MULTILINE))]
    return found


_FOREIGN = (("an unpaired $, ` or **", r"\$|`|\*\*"), ("an HTML tag", r"</?[A-Za-z][^>\n]*>"), ("a heading", r"^#+ "),
            ("a table", r"^\|"), ("a numbered list", r"^\d+\. "), ("a list with * or +", r"^[*+] "), ("a picture or a relative link", r"\]\("))


# --- lines of a terminal ------------------------------------------------------------------------------------------

_CLOSING = "，。；：？！、）》」』”’…,.;:?!)]}"
_UNIT = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef][，。；：？！、）》」』”’…]*|\s+|[^\s\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+"
                   r"[，。；：？！、）》」』”’…]*")


def wrap(text: str, width: int, indent: str = "") -> str:
    """Lines of at most `width` columns, a Chinese character taking two; each begins with `indent`."""
    return "\n".join(line for part in text.split("\n") for line in _wrapped(part, max(20, width), indent))


def _wrapped(text: str, width: int, indent: str) -> Sequence[str]:
    if text.startswith("    "):  # code
        return [indent + text]
    mark = re.match(r"• |[✓✗] [A-H]  |  [A-H]  ", text)
    hang = indent + " " * (len(mark[0]) if mark else 0)
    lines, line = [], indent
    for unit in _UNIT.findall(text):
        if wide(line) + wide(unit.rstrip()) > width and line.strip():
            lines.append(line.rstrip())
            line = hang
            unit = unit.lstrip()
        line += unit
    return [*lines, line.rstrip()]
