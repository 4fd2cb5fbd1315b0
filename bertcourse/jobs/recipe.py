"""The recipe of a pre-training: read from TOML or from options, checked by the rules of `bertcourse.base.recipe_rules`, and written again."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertcourse.assets import asset
from bertcourse.base.errors import UserError
from bertcourse.base.recipe_rules import Fault, find_conflict, find_fault

if TYPE_CHECKING:
    from bertcourse.recipes import Recipe

RECIPE = "pretrain.toml"
SETTINGS = {  # option: the recipe's setting; `--max-length` is `lengths` with one entry
    "steps": "steps", "batch_size": "batch_size", "lr": "lr", "seed": "seed", "layers": "num_layers",
    "hidden_size": "hidden_size", "heads": "num_heads", "max_length": "lengths", "precision": "precision",
}
EARLIER = {"redraw_short": True}  # what a run did whose recipe does not say


# --- checks -------------------------------------------------------------------------------------------------------

def refuse(where: str, fault: Fault | None) -> None:
    """Raises `UserError` where there is a fault."""
    if fault:
        raise UserError(f"{where}: {fault[0]}", f"{where}：{fault[1]}")


# --- reading and writing ------------------------------------------------------------------------------------------

def read_toml(file: Path) -> dict[str, Any]:
    """The values in a file. Raises `UserError`."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}", f"{file} 无法读取：{error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file} is not TOML: {error}", f"{file} 不是 TOML：{error}") from None


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values, as they come from TOML or JSON. Raises `TypeError` and `ValueError`."""
    from bertcourse.masking import Masking
    from bertcourse.recipes import Recipe

    def as_tuple(value: Any) -> Any:
        return tuple(map(as_tuple, value)) if isinstance(value, (list, tuple)) else value

    found = {name: as_tuple(value) for name, value in values.items()}
    if "masking" in found:
        found["masking"] = Masking(**found["masking"])
    return Recipe(**found)


def earlier_recipe(values: Mapping[str, Any]) -> Recipe:
    """The recipe that a run of any version has stored. Raises `TypeError` and `ValueError`."""
    return make_recipe(EARLIER | dict(values))


def read_recipe(options: Any, was: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of `--config` (by default the run's own, or the shipped model's) with the options. Raises `UserError`.

    options: a `PretrainOptions`; was: the recipe of the run that goes on.
    """
    where = options.config.name if options.config else "recipe"
    values = EARLIER | dict(was) if was and not options.config else read_toml(options.config or asset("tiny-bert") / RECIPE)
    for option, name in SETTINGS.items():
        if (value := getattr(options, option)) is not None:
            values[name] = [[value, 1.0]] if option == "max_length" else value
    refuse(where, find_fault(values))
    if "steps" in values:
        values["parts"] = min(values["steps"], values.get("parts", 10))  # else an epoch had less than a step
    from bertcourse.recipes import Recipe  # which imports torch
    defaults = asdict(Recipe())
    refuse(where, find_conflict(defaults | values | {"masking": defaults["masking"] | values.get("masking", {})}))
    return make_recipe(values)


def to_toml(recipe: Recipe, toy_world: bool) -> str:
    """A recipe as the TOML file from which it can be read again; with the settings of the toy world's text, or without."""
    def text(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(text, value)) + "]"
        return json.dumps(value)

    values = asdict(recipe)
    masking = values.pop("masking")
    left_out = () if toy_world else ("languages", "documents")
    lines = [f"{name} = {text(value)}" for name, value in values.items() if value is not None and name not in left_out]
    return "\n".join([*lines, "", "[masking]", *(f"{name} = {text(value)}" for name, value in masking.items())]) + "\n"


def different_settings(before: Recipe, now: Recipe) -> list[tuple[str, Any, Any]]:
    """Name, value before and value now of each setting that differs."""
    pairs = [(one.name, getattr(before, one.name), getattr(now, one.name)) for one in fields(before)]
    return [(name, old, new) for name, old, new in pairs if old != new]
