"""What a request may say: the body of `POST /predict`, checked before anything is computed.

Every fault is a `Problem`: an HTTP status, a code that does not change, and a sentence that says what, where and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bertcourse.models.exported import FIELDS

LONGEST_HEAD = 65_536  # bytes of request line and headers


class Problem(Exception):
    """A request that is refused."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field, self.headers = status, code, message, field, headers or {}

    def content(self) -> dict[str, Any]:
        """The body of the answer."""
        error = {"code": self.code, "message": self.message}
        return {"error": error | ({"field": self.field} if self.field else {})}


CODES = {  # code: status, when; a test makes each of them happen
    "bad_request": (400, "the request itself is no HTTP that can be read, a header that may be there once is there twice, or Host names somebody "
                         "else; with status 431: the request line and the headers have more than 64 KiB"),
    "not_utf8": (400, "the body is not UTF-8"),
    "not_json": (400, "the body is not JSON"),
    "unauthorized": (401, "the bearer token is missing or wrong"),
    "not_found": (404, "there is nothing at this path"),
    "method_not_allowed": (405, "the path takes another method"),
    "too_slow": (408, "the body did not arrive in time"),
    "body_too_large": (413, "the body has more bytes than the service takes"),
    "wrong_content_type": (415, "Content-Type is not application/json"),
    "wrong_content_encoding": (415, "the body is compressed, or encoded in another way"),
    "wrong_type": (422, "a value is of another type than the schema says"),
    "missing_field": (422, "a field is missing"),
    "unknown_field": (422, "a field has no meaning for this model"),
    "empty_text": (422, "a text is empty or nothing but white space"),
    "invalid_text": (422, "a text holds half of a surrogate pair"),
    "too_many_texts": (422, "there are more texts than one request may hold"),
    "too_much_work": (422, "the texts make more windows or tokens than one request may, or would take more than half of the time limit"),
    "different_lengths": (422, "two lists have different lengths, or one of two fields is no list"),
    "queue_full": (429, "too many requests wait; Retry-After says for how many seconds"),
    "model_failed": (500, "the model could not answer"),
    "internal_error": (500, "a fault of the service"),
    "timed_out": (503, "the answer took too long, and the work was dropped"),
    "stopping": (503, "the service is being stopped"),
    "not_ready": (503, "the model is not loaded yet, or its last batch does not end"),
}


def problem(code: str, message: str, field: str | None = None, **headers: str) -> Problem:
    """A `Problem` with the status of its code."""
    return Problem(CODES[code][0], code, message, field, {name.replace("_", "-"): value for name, value in headers.items()})


def head_too_large() -> Problem:
    """A request line and headers without end, or with too late a one."""
    return Problem(431, "bad_request", f"the request line and the headers have more than {LONGEST_HEAD // 1024} KiB: send fewer")


def read_json(body: bytes) -> Any:
    """The value of a body, with or without a byte order mark (RFC 8259, 8.1). Raises `Problem`."""
    try:
        text = body.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise problem("not_utf8", f"the body is not UTF-8 (byte {error.start}): encode it so") from None
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise problem("not_json", "the body is nested too deeply: send one object with strings or lists of strings") from None
    except ValueError as error:
        at = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise problem("not_json", f'the body is not JSON{at}: send an object such as {{"text": "…"}}') from None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@dataclass(frozen=True)
class Request:
    """The texts of a request, an entry for each prediction."""

    texts: list[dict[str, str]]
    cut: list[bool]  # was a text longer than `max_chars`?


def read_request(value: Any, required: Sequence[str], optional: Sequence[str], max_texts: int, max_chars: int) -> Request:
    """The texts in the value of a body. Raises `Problem`."""
    _check_fields(value, required, optional)
    fields = {name: value[name] for name in FIELDS if name in value}
    columns = {name: _column(name, value, max_texts) for name, value in fields.items()}
    first, *others = columns
    for name in others:
        if isinstance(fields[name], list) != isinstance(fields[first], list) or len(columns[name]) != len(columns[first]):
            raise problem("different_lengths", f"{name} and {first} do not belong together: give two strings, or two lists of the same length", name)
    rows = [dict(zip(columns, texts)) for texts in zip(*columns.values())]
    return Request([{name: text[:max_chars] for name, text in row.items()} for row in rows],
                   [any(len(text) > max_chars for text in row.values()) for row in rows])


def _check_fields(value: Any, required: Sequence[str], optional: Sequence[str]) -> None:
    shape = "{" + ", ".join(f'"{name}": "…"' for name in required) + "}"
    if not isinstance(value, dict):
        raise problem("wrong_type", f"the body is {_named(value)}: send an object such as {shape}")
    for name in value:
        if name not in (*required, *optional):
            raise problem("unknown_field", f"{_short(name)} means nothing to this model: send {shape}", _short(name))
    for name in required:
        if name not in value:
            raise problem("missing_field", f"{name} is missing: send {shape}", name)


def _column(name: str, value: Any, max_texts: int) -> list[str]:
    """The texts of a field. Raises `Problem`."""
    if not isinstance(value, str | list):
        raise problem("wrong_type", f"{name} is {_named(value)}: give a string or a list of strings", name)
    if not isinstance(value, list):
        return [_checked(name, value)]
    if len(value) > max_texts:
        raise problem("too_many_texts", f"{name} holds {len(value)} texts, one request may hold {max_texts}: send several requests", name)
    if not value:
        raise problem("empty_text", f"{name} is an empty list: give at least one text", name)
    return [_checked(f"{name}[{i}]", text) for i, text in enumerate(value)]


def _checked(where: str, text: Any) -> str:
    if not isinstance(text, str):
        raise problem("wrong_type", f"{where} is {_named(text)}: give a string", where)
    if not text.strip():
        raise problem("empty_text", f"{where} is {'empty' if not text else 'nothing but white space'}: give a text", where)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise problem("invalid_text", f"{where} holds half of a surrogate pair (\\ud800 to \\udfff): give whole characters", where) from None
    return text


def _named(value: Any) -> str:
    """A JSON type, in words."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", int: "a number", float: "a number", type(None): "null"}
    return kinds[type(value)]


def _short(name: str) -> str:
    """A name of the caller's, fit for an answer."""
    return name.encode("utf-8", "backslashreplace").decode()[:40]
