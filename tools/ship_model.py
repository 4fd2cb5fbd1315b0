"""Pre-train the shipped model anew and put it into the package.

    python tools/ship_model.py train [--seeds 0 1 2] [--processes 2] [--out build/pretrain]
    python tools/ship_model.py ship [--seeds 0 1 2] [--out build/pretrain] [--to bertcourse/assets/tiny-bert]

`train` runs `bertcourse pretrain` with `assets/tiny-bert/pretrain.toml` once per seed, on one thread each, and goes on
where an earlier run was interrupted. `ship` scores every seed on held-out text and writes the first one's weights with
`metrics.json`, `history.jsonl` and the model card, each file whole. Exit code 0; 1 where a run fails; 2 for bad input.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "bertcourse/assets/tiny-bert"
LIMIT = 6_000_000  # bytes that the model may take in the wheel
TEST_DOCUMENTS = 1_000  # of each language
SAMPLE = 500  # documents of each language whose pieces the fast test compares
KINDS = {  # score: how the card calls it
    "determined": ("被确定的词，全部", "determined words, all"),
    "world": ("· 由世界事实", "· by a fact of the world"),
    "carried": ("· 由文中别处", "· by a mention elsewhere"),
    "agreement": ("· 由一致关系", "· by agreement"),
    "free": ("自由词：交叉熵 ÷ 真实熵", "free words: cross-entropy ÷ true entropy"),
    "nsp": ("下一句预测 ÷ 上限", "next sentence ÷ ceiling"),
}
WEIGHTS = ("config.json", "model.safetensors")


def train_one(seed: int, out: Path) -> int:
    """One run in a process of its own; its exit code."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bertcourse.app.cli", "pretrain", "--config", str(MODEL / "pretrain.toml")]
    command += ["--seed", str(seed), "--threads", "1", "--out", str(out / f"seed-{seed}"), "--resume"]
    return subprocess.run(command, env=environment).returncode


def train(seeds: list[int], out: Path, processes: int) -> int:
    """All seeds, so many at a time."""
    with ThreadPoolExecutor(processes) as pool:
        codes = list(pool.map(lambda seed: train_one(seed, out), seeds))
    return max(codes)


def score_one(folder: Path) -> dict:
    """Scores of a finished run on the test split, by language."""
    import torch
    from transformers import BertForPreTraining

    from bertcourse.cloze import score
    from bertcourse.corpus import load_tokenizer

    torch.set_num_threads(1)
    model = BertForPreTraining.from_pretrained(folder).eval()
    tokenizer = load_tokenizer(folder)
    return {lang: score(model, tokenizer, lang, TEST_DOCUMENTS) for lang in ("en", "zh")}


def fingerprint(tokenizer) -> str:
    """Of the first training documents, cut into pieces by this tokenizer: 16 hexadecimal digits."""
    from bertcourse.pieces import toy_pieces

    return toy_pieces(tokenizer, SAMPLE).fingerprint()


def metrics(seeds: list[int], out: Path, processes: int) -> dict:
    """What `metrics.json` holds."""
    import torch

    from bertcourse.base.machine import describe_machine
    from bertcourse.corpus import load_tokenizer
    from bertcourse.pretraining import Recipe
    from bertcourse.training import History

    folders = [out / f"seed-{seed}" for seed in seeds]
    with ProcessPoolExecutor(processes) as pool:
        scores = list(pool.map(score_one, folders))
    histories = [History.read(folder) for folder in folders]
    seconds = [round(history.seconds) for history in histories]
    rows = [{"seed": seed, "seconds": s} | score for seed, s, score in zip(seeds, seconds, scores)]
    recipe = Recipe.read(MODEL / "pretrain.toml", seed=seeds[0])
    return {
        "task": "pretraining",
        "seed": seeds[0],
        "steps": histories[0].steps,
        "tokens": histories[0].column("tokens")[1][-1],
        "seconds": seconds[0],
        "command": "make pretrain",
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(threads=1, torch=torch.__version__.split("+")[0]),
        "recipe": asdict(recipe),
        "data": fingerprint(load_tokenizer()),
        "test_documents": TEST_DOCUMENTS,
        "test": scores[0],
        "seeds": rows,
    }


def cell(rows: list[dict], lang: str, kind: str) -> str:
    """Mean and spread of a score over seeds."""
    values = [row[lang][kind] for row in rows]
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def card(facts: dict, parameters: int, size: int) -> str:
    """The model card."""
    rows, recipe = facts["seeds"], facts["recipe"]
    table = "\n".join(
        f"| {zh} / {en} | {cell(rows, 'en', kind)} | {cell(rows, 'zh', kind)} |" for kind, (zh, en) in KINDS.items()
    )
    shape = f"{recipe['num_layers']} × {recipe['hidden_size']}, {recipe['num_heads']} heads"
    minutes, tokens = facts["seconds"] / 60, facts["tokens"]
    return f"""---
license: apache-2.0
language: [en, zh]
library_name: transformers
tags: [bert, fill-mask]
---

# tiny-bert

本课程自己预训练的 BERT，全部文本来自 `bertcourse.corpus` 的玩具世界：它只认得那里的人和事，只用于教学。

A BERT pre-trained by this course on the toy world of `bertcourse.corpus`: it knows the people and things of that world
and nothing else. It is for teaching.

| | |
|---|---|
| 结构 / shape | {shape}; {parameters:,} parameters, {size / 1e6:.1f} MB |
| 数据 / data | {recipe["documents"]:,} documents each of English and Chinese, split `train` (`CORPUS.md`) |
| 训练 / training | {facts["steps"]:,} steps of {recipe["batch_size"]} pairs, {tokens / 1e6:.1f} M tokens without padding, seed {facts["seed"]}, {minutes:.0f} minutes on one thread ({facts["machine"]["cpu"]}) |
| 配置 / recipe | `pretrain.toml`; rebuild / 重建: `make pretrain` |
| 日期 / date | {facts["date"]}, torch {facts["machine"]["torch"]} |

测试集各 {facts["test_documents"]:,} 篇，{len(rows)} 个种子的均值 ± 标准差；每次遮住一个词的全部 token。
/ {facts["test_documents"]:,} test documents of each language, mean ± sd of {len(rows)} seeds; one word hidden at a time, with all its pieces.

| | en | zh |
|---|---|---|
{table}

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer
from bertcourse.assets import asset

model = AutoModelForMaskedLM.from_pretrained(asset("tiny-bert"))
tokenizer = AutoTokenizer.from_pretrained(asset("tiny-bert"))
```

它不会什么 / What it cannot do: anything outside the toy world; names that are there belong to nobody.
许可 / Licence: weights and code Apache-2.0, text CC BY 4.0.
"""


def ship(seeds: list[int], out: Path, to: Path, processes: int) -> int:
    """Score, then write the first seed's model with all that is known of it."""
    from safetensors.torch import load_file

    missing = [seed for seed in seeds if not (out / f"seed-{seed}" / "model.safetensors").is_file()]
    if missing:
        print(f"no finished run of seed {missing[0]} in {out}: run `make pretrain` first", file=sys.stderr)
        return 2
    first = out / f"seed-{seeds[0]}"
    size = (first / "model.safetensors").stat().st_size
    if size > LIMIT:
        print(f"the model has {size:,} bytes, the wheel allows {LIMIT:,}: train a smaller one", file=sys.stderr)
        return 1
    facts = metrics(seeds, out, processes)
    weights = load_file(first / "model.safetensors")
    parameters = sum(tensor.numel() for tensor in weights.values())
    with tempfile.TemporaryDirectory(dir=to) as folder:
        for name in (*WEIGHTS, "history.jsonl"):
            shutil.copyfile(first / name, Path(folder, name))
        Path(folder, "metrics.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        Path(folder, "README.md").write_text(card(facts, parameters, size), encoding="utf-8")
        for file in sorted(Path(folder).iterdir()):
            os.replace(file, to / file.name)
    print(card(facts, parameters, size))
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["train", "ship"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "build/pretrain")
    parser.add_argument("--to", type=Path, default=MODEL)
    args = parser.parse_args()
    if args.command == "train":
        return train(args.seeds, args.out, args.processes)
    return ship(args.seeds, args.out, args.to, args.processes)


if __name__ == "__main__":
    sys.exit(main())
