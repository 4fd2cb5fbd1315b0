"""`benchmarks/memory.py` and `fairness.py`: the rule for memory, and what is stored."""

import json
from pathlib import Path

import pytest
import scripts

ROOT = Path(__file__).parents[1]


def test_the_limit_holds_a_worker_more():
    with scripts.loaded("memory") as memory:
        rows = {"1": {"load": 900.0, "master": 0.0, "worker": 900.0}, "2": {"load": 2_000.0, "master": 50.0, "worker": 950.0},
                "4": {"load": 3_700.0, "master": 60.0, "worker": 910.0}}
        rule = memory.fit(rows)
        assert rule["master"] == 55.0 and rule["worker"] == 975.0  # two need more than the median of a single one
        assert memory.limit(rule, 1) == 1280 and memory.limit(rule, 2) == 3328  # 1.1 × (55 + 3 × 975) = 3278
        assert memory.limit({"master": 0.0, "worker": 1.0}, 1) == memory.STEP


def test_what_was_recorded_is_of_whole_runs():
    memory = json.loads((ROOT / "benchmarks/memory.json").read_text(encoding="utf-8"))
    for rows in memory["models"].values():
        assert {"1", "2"} <= set(rows)
        for workers, row in rows.items():
            assert row["load"] >= row["idle"] * 0.9 and ("replacing" in row) == (workers != "1")
    assert memory["rules"]["INT8"]["worker"] < memory["rules"]["FP32"]["worker"] / 1.5
    fairness = json.loads((ROOT / "benchmarks/fairness.json").read_text(encoding="utf-8"))
    with scripts.loaded("fairness") as script:
        beside = [f"{count} passages of {characters:,} characters" for count, characters in script.LARGE]
    for parts in fairness["runs"].values():
        assert list(parts) == ["alone", *beside]
    (before, after), = [(fairness["runs"][name], fairness["runs"][name.replace("before", "after")]) for name in fairness["runs"] if "before" in name and "BERT" in name]
    for name in beside:
        assert after[name]["small"].get("200", 0) == sum(after[name]["small"].values()), "all small requests are answered"
        assert before[name]["p50_ms"] > 2 * after[name]["p50_ms"] or sum(before[name]["small"].values()) > 2 * before[name]["small"].get("200", 0)


@pytest.mark.parametrize("name", ["memory", "fairness"])
def test_help(name):
    assert "--json" in scripts.run(name, "--help").stdout
