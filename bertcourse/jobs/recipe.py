"""The recipe of a pre-training: read from TOML, checked in this one place, and written again."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertcourse.assets import asset
from bertcourse.base.errors import UserError
from bertcourse.jobs.options import Choice, Real, Rule, Whole

if TYPE_CHECKING:
    from bertcourse.recipes import Recipe

RECIPE = "pretrain.toml"
SHORTEST = 5  # pieces of an input
SETTINGS = {  # option: the recipe's setting; `--max-length` is `lengths` with one entry
    "steps": "steps", "batch_size": "batch_size", "lr": "lr", "seed": "seed", "layers": "num_layers",
    "hidden_size": "hidden_size", "heads": "num_heads", "max_length": "lengths", "precision": "precision",
}
EARLIER = {"redraw_short": True}  # what a run did whose recipe does not say


# --- what each setting may be -------------------------------------------------------------------------------------

class Condition(Rule):
    """What a function says yes to."""

    def __init__(self, test: Callable[[Any], bool], en: str, zh: str) -> None:
        super().__init__(en, zh)
        self.test = test

    def allows(self, value: Any) -> bool:
        """Does the function say yes?"""
        return self.test(value)


class Precision(Choice):
    """Of the numbers that a model computes in."""

    def __init__(self) -> None:
        super().__init__("no", "bf16")
        self.en, self.zh = '"no" or "bf16"', '"no" 或 "bf16"'


def is_list(value: Any, allows: Callable[[Any], bool]) -> bool:
    """Is it a list of values that are all allowed?"""
    return isinstance(value, (list, tuple)) and all(map(allows, value))


def are_languages(value: Any) -> bool:
    """Is it a list of languages, each once?"""
    return is_list(value, lambda lang: lang in ("en", "zh")) and 0 < len(value) == len(set(value))


def are_lengths(value: Any) -> bool:
    """Is it a list of lengths, each with its share of the steps?"""
    pairs = is_list(value, lambda pair: is_list(pair, FROM_ZERO.allows) and len(pair) == 2 and LENGTH.allows(pair[0]))
    return pairs and abs(sum(share for _, share in value) - 1) < 1e-6


COUNT, LENGTH = Whole(1), Whole(SHORTEST)
ABOVE, BELOW_ONE = Real(0, above=True), Real(0, 1, below=True)
FROM_ZERO = Condition(Real(0).allows, "a number from 0 on", "不小于 0 的数")
SHARE = Condition(Real(0, 1).allows, "a number from 0 to 1", "0 到 1 的数")
SWITCH = Condition(lambda value: isinstance(value, bool), "true or false", "true 或 false")
PRECISION = Precision()
RULES: dict[str, Rule] = {
    "languages": Condition(are_languages, 'a list of "en", "zh" or both', '由 "en"、"zh" 组成的列表'),
    "documents": Whole(2), "num_layers": COUNT, "hidden_size": COUNT, "num_heads": COUNT, "initializer_range": ABOVE,
    "dropout": BELOW_ONE, "masking": Condition(lambda value: isinstance(value, Mapping), "a table", "一个表"),
    "copies": Condition(lambda value: value is None or COUNT.allows(value), COUNT.en, COUNT.zh),
    "task": Condition(lambda value: value in ("nsp", "sop"), '"nsp" or "sop"', '"nsp" 或 "sop"'), "short": SHARE,
    "put_back": SWITCH, "redraw_short": SWITCH,
    "lengths": Condition(are_lengths, "a list of [length from 5 on, share of the steps], with shares that add up to 1",
                         "[长度（不小于 5）, 步数占比] 的列表，占比之和为 1"),
    "steps": COUNT, "parts": COUNT, "batch_size": COUNT, "lr": ABOVE, "warmup": FROM_ZERO, "weight_decay": FROM_ZERO, "clip": ABOVE,
    "betas": Condition(lambda value: is_list(value, BELOW_ONE.allows) and len(value) == 2, "two numbers from 0 to below 1",
                  "两个不小于 0、小于 1 的数"),
    "precision": PRECISION, "seed": Condition(Whole(0, 2**32 - 1).allows, "a whole number from 0 to below 2^32", "不小于 0、小于 2^32 的整数"),
}
MASKING_RULES: dict[str, Rule] = {  # of the table `masking`
    "rate": Condition(lambda value: ABOVE.allows(value) and value < 1, "a number above 0 and below 1", "大于 0、小于 1 的数"),
    "mask": SHARE, "random": SHARE, "whole_words": SHARE, "rarity": SHARE, "max_predictions": Whole(0),
}


def check_values(values: Mapping[str, Any], where: str, rules: Mapping[str, Rule] = RULES, table: str = "") -> None:
    """Raises `UserError` for a setting that there is not, or that no run could have. where: for messages; table: that holds the values."""
    for name, value in values.items():
        if name not in rules:
            raise UserError(f"{where}: there is no setting {table}{name}: remove it", f"{where}：没有 {table}{name} 这个设置：请删去")
        try:
            allowed = rules[name].allows(value)
        except (TypeError, ValueError, OverflowError):  # such as a list, looked for in a set
            allowed = False
        if not allowed:
            text, rule = json.dumps(value, ensure_ascii=False, default=str), rules[name]
            raise UserError(f"{where}: {table}{name} must be {rule.en}, not {text}", f"{where}：{table}{name} 应为{rule.zh}，不能是 {text}")
        if name == "masking" and not table:
            check_values(value, where, MASKING_RULES, "masking.")


def check_together(values: Mapping[str, Any], where: str) -> None:
    """Raises `UserError` for settings, each right for itself, that do not go together. values: of all settings."""
    width, heads, warmup, steps, masking = (values[name] for name in ("hidden_size", "num_heads", "warmup", "steps", "masking"))
    if width % heads:
        raise UserError(f"{where}: {heads} heads do not divide a width of {width} evenly: change --heads or --hidden-size",
                        f"{where}：宽度 {width} 不能被 {heads} 个头整除：请改 --heads 或 --hidden-size")
    if 1 <= warmup >= steps:
        raise UserError(f"{where}: a warm-up of {warmup} steps leaves nothing of {steps} steps: shorten it",
                        f"{where}：共 {steps} 步，预热就要 {warmup} 步：请缩短预热")
    if masking["mask"] + masking["random"] > 1 + 1e-9:
        raise UserError(f"{where}: masking.mask and masking.random are shares of the same tokens, together at most 1",
                        f"{where}：masking.mask 与 masking.random 是同一些 token 中的占比，合计不能超过 1")
    if masking["max_predictions"] and masking["whole_words"]:
        raise UserError(f"{where}: masking.max_predictions counts tokens, masking.whole_words chooses words: set one of them to 0",
                        f"{where}：masking.max_predictions 按 token 计数，masking.whole_words 按词选：请把其中一个设为 0")


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
    check_values(values, where)
    if "steps" in values:
        values["parts"] = min(values["steps"], values.get("parts", 10))  # else an epoch had less than a step
    from bertcourse.recipes import Recipe  # which imports torch
    defaults = asdict(Recipe())
    check_together(defaults | values | {"masking": defaults["masking"] | values.get("masking", {})}, where)
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
