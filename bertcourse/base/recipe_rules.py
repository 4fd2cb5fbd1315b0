"""What the settings of a pre-training may be: for `bertcourse.recipes`, and for `bertcourse pretrain`, which checks before torch is imported.

Faults are given in English and Chinese, without the name of the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bertcourse.base.rules import Choice, Condition, Real, Rule, Whole

SHORTEST = 5  # tokens of an input
Fault = tuple[str, str]  # a sentence in English, and in Chinese


# --- what each setting may be -------------------------------------------------------------------------------------

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


def find_fault(values: Mapping[str, Any], rules: Mapping[str, Rule] = RULES, table: str = "") -> Fault | None:
    """The first setting that there is not, or that no run could have; None where there is none. table: that holds the values, for messages."""
    for name, value in values.items():
        if name not in rules:
            return f"there is no setting {table}{name}: remove it", f"没有 {table}{name} 这个设置：请删去"
        try:
            allowed = rules[name].allows(value)
        except (TypeError, ValueError, OverflowError):  # such as a list, looked for in a set
            allowed = False
        if not allowed:
            text, rule = json.dumps(value, ensure_ascii=False, default=str), rules[name]
            return f"{table}{name} must be {rule.en}, not {text}", f"{table}{name} 应为{rule.zh}，不能是 {text}"
        if name == "masking" and not table and (fault := find_fault(value, MASKING_RULES, "masking.")):
            return fault
    return None


# --- what they may be together ------------------------------------------------------------------------------------

def epochs_of_lengths(lengths: Sequence[tuple[int, float]], parts: int) -> list[int]:
    """How many of `parts` epochs each of the lengths has; the shares are rounded so that together all parts are used."""
    done, ends = 0.0, [0]
    for _, share in lengths:
        done += share * parts
        ends.append(round(done))
    return [end - begin for begin, end in zip(ends, ends[1:])]


def find_conflict(values: Mapping[str, Any]) -> Fault | None:
    """What is wrong with settings, each right for itself, that do not go together; None where they do. values: of all settings."""
    width, heads, warmup, steps, parts = (values[name] for name in ("hidden_size", "num_heads", "warmup", "steps", "parts"))
    inputs = steps * values["batch_size"]
    if width % heads:
        return (f"{heads} heads do not divide a width of {width} evenly: change one of the two",
                f"宽度 {width} 不能被 {heads} 个头整除：请改其中之一")
    if 1 <= warmup >= steps:
        return (f"a warm-up of {warmup} steps leaves nothing of {steps} steps: shorten it",
                f"共 {steps} 步，预热就要 {warmup} 步：请缩短预热")
    if inputs < parts:
        return f"{inputs} inputs cannot be cut into {parts} parts: take fewer", f"{inputs} 个输入不能切成 {parts} 份：请减少份数"
    for (length, share), epochs in zip(values["lengths"], epochs_of_lengths(values["lengths"], parts)):
        if not epochs:
            more, more_zh = ("parts", "份数") if parts < steps else ("steps and parts", "步数和份数")
            return (f"length {length} has {share:g} of {parts} parts, less than one epoch: take more {more}",
                    f"长度 {length} 只占 {parts} 份的 {share:g}，不到一轮：请增加{more_zh}")
    return find_masking_conflict(values["masking"])


def find_masking_conflict(values: Mapping[str, Any]) -> Fault | None:
    """The same for the table `masking`."""
    if values["mask"] + values["random"] > 1 + 1e-9:
        return ("masking.mask and masking.random are shares of the same tokens, together at most 1",
                "masking.mask 与 masking.random 是同一些 token 中的占比，合计不能超过 1")
    if values["max_predictions"] and values["whole_words"]:
        return ("masking.max_predictions counts tokens, masking.whole_words chooses words: set one of them to 0",
                "masking.max_predictions 按 token 计数，masking.whole_words 按词选：请把其中一个设为 0")
    if values["rarity"] and values["rate"] > 0.5:
        return (f"masking.rate is {values['rate']:g}, but with masking.rarity no word is chosen with a probability above 0.5: lower the rate",
                f"masking.rate 是 {values['rate']:g}，而用 masking.rarity 时任何词被选中的概率最多为 0.5：请降低它")
    return None
