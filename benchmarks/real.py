"""Real weights on real files: the commands, run, and `benchmarks/real.md` with what they printed.

    python benchmarks/real.py --checkpoint FOLDER --data FOLDER --work FOLDER [--only NAME …] [--threads N]

`--checkpoint` is a folder with all-MiniLM-L6-v2, `--data` one with SST-2, WNUT-17, XQuAD and OCNLI as `real.md` names them.
What `--work` holds from an earlier run is not run again: delete a `NAME.txt` there to repeat it. The report is written when
all of them are there. Exit code 1: a goal is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPORT, FIGURES = Path(__file__).with_name("real.md"), Path(__file__).with_name("real.json")
TRAIN_ARTICLES = 38  # of the 48 of XQuAD
SPLIT = ("xquad.train.json", "xquad.dev.json")


@dataclass(frozen=True)
class Run:
    """A command on real files."""

    title: str
    says: str  # what to know about it
    files: tuple[str, ...]  # below --data
    options: str  # of the command, but for --out, and for --model of a fine-tuning
    score: str  # as the command prints it
    goal: float | None = None  # of the score, in percent; of a student: of its teacher's; of an export: answers that stay the same
    needs: str | None = None  # the run whose model it starts from
    command: str = "finetune"  # or distill, export
    most: float | None = None  # points that an export may lose


RUNS = {
    "sst2": Run(
        "SST-2: is a sentence of a film review good?",
        "67,349 phrases to train on, the 872 sentences of GLUE's development set to be scored on. Goal: at least 87% after "
        "1,000 steps.",
        ("sst2/train.tsv", "sst2/dev.tsv"), "--task classification --train sst2/train.tsv --dev sst2/dev.tsv --steps 1000",
        "accuracy", 87.0),
    "sst2-student": Run(
        "SST-2 again: half the layers",
        "A student as wide as its teacher, the model above, with half its layers: it starts from three of them and learns from the "
        "teacher's outputs and the labels in equal parts. Goal: at least 97% of the teacher's accuracy.",
        ("sst2/train.tsv", "sst2/dev.tsv"),
        "--teacher sst2 --student '{\"num_hidden_layers\": 3}' --init-layers 2,4,6 --method kd --train sst2/train.tsv --dev sst2/dev.tsv "
        "--steps 2000", "accuracy", 97.0, "sst2", "distill"),
    "sst2-int8": Run(
        "SST-2 in ONNX: 8 bits",
        "The first model exported, its weights quantised dynamically, and scored on the same 872 sentences. Goal: at most 0.5 points lost, "
        "and at least 98% of the answers as before.",
        ("sst2/dev.tsv",), "sst2 --int8 dynamic --dev sst2/dev.tsv", "accuracy", 98.0, "sst2", "export", 0.5),
    "sst2-onnx": Run(
        "SST-2 in ONNX: FP32",
        "The first model exported as it is. Goal: nothing lost, and all answers as before.",
        ("sst2/dev.tsv",), "sst2 --dev sst2/dev.tsv", "accuracy", 100.0, "sst2", "export", 0.0),
    "sst2-student-int8": Run(
        "SST-2: half the layers, in 8 bits",
        "The student exported, its weights quantised dynamically. Goal: at most 0.5 points lost, and at least 98% of the answers as before.",
        ("sst2/dev.tsv",), "sst2-student --int8 dynamic --dev sst2/dev.tsv", "accuracy", 98.0, "sst2-student", "export", 0.5),
    "sst2-bench": Run(
        "SST-2: accuracy, size and latency of all five",
        "One thread, random inputs of 32 pieces; the first model is what the others are compared with. The figures, in `real.json`, are "
        "drawn in chapter 7.1.",
        ("sst2/dev.tsv",),
        "sst2 sst2-onnx sst2-int8 sst2-student sst2-student-int8 --lengths 32 --batches 1,8 --rounds 15 --dev sst2/dev.tsv",
        "accuracy", needs="sst2-student-int8", command="bench"),
    "wnut17": Run(
        "WNUT-17: rare names in noisy text",
        "Few of the test set's entities are in the training set, which is the point of this set. Span F1, exact boundaries and type.",
        ("wnut17/train.conll", "wnut17/dev.conll", "wnut17/test.conll"),
        "--task ner --train wnut17/train.conll --dev wnut17/dev.conll --test wnut17/test.conll --epochs 4", "f1"),
    "xquad": Run(
        "XQuAD, English: where in the paragraph is the answer?",
        f"XQuAD is a test set; here the first {TRAIN_ARTICLES} of its 48 articles train and the other 10 are scored on. 970 "
        "questions are few: models that are good at this have seen the 87,599 of SQuAD.",
        ("xquad/xquad.en.json",), f"--task qa --train {SPLIT[0]} --dev {SPLIT[1]} --epochs 4 --batch-size 16", "f1"),
    "ocnli": Run(
        "OCNLI: does one Chinese sentence follow from another?",
        "Expected to be poor: these weights were pre-trained on English. Guessing gives about a third.",
        ("ocnli/train.10k.json", "ocnli/dev.json"), "--task pairs --train ocnli/train.10k.json --dev ocnli/dev.json --epochs 1",
        "accuracy"),
}  # fmt: skip


def split_xquad(data: Path, work: Path) -> None:
    """Articles to train on and to be scored on."""
    whole = json.loads((data / "xquad/xquad.en.json").read_text(encoding="utf-8"))
    for name, articles in zip(SPLIT, (whole["data"][:TRAIN_ARTICLES], whole["data"][TRAIN_ARTICLES:]), strict=True):
        (work / name).write_text(json.dumps(whole | {"data": articles}, ensure_ascii=False), encoding="utf-8")


def command(name: str, checkpoint: Path, data: Path) -> list[str]:
    """What is run, in the working folder."""
    options = [str(data / part) if part in RUNS[name].files else part for part in shlex.split(RUNS[name].options)]
    model = ["--model", str(checkpoint)] if RUNS[name].command == "finetune" else []
    return [RUNS[name].command, *options, *model, "--out", out_of(name)]


def out_of(name: str) -> str:
    """The folder of a model, or the file of a benchmark."""
    return FIGURES.name if RUNS[name].command == "bench" else name


def shown(name: str) -> str:
    """The command as a reader types it."""
    options = [f'"$DATA/{part}"' if part in RUNS[name].files else shlex.quote(part) for part in shlex.split(RUNS[name].options)]
    model = ['--model "$MINILM"'] if RUNS[name].command == "finetune" else []
    return " ".join([f"bertcourse {RUNS[name].command}", *options, *model, "--out", out_of(name)])


def run(name: str, checkpoint: Path, data: Path, work: Path) -> None:
    """Run one of them, unless its output is there, and keep what it printed."""
    done, partial = work / f"{name}.txt", work / f"{name}.txt.partial"
    if done.exists():
        return
    shutil.rmtree(work / name, ignore_errors=True)
    if (needed := RUNS[name].needs) and not (work / needed).is_dir():
        sys.exit(f"{name}: the model {needed} is not in {work}: delete {needed}.txt there, to train it again")
    if name == "xquad":
        split_xquad(data, work)
    script = Path(sys.executable).with_name("bertcourse")
    print(f"{name}: {shown(name)}", flush=True)
    with partial.open("w", encoding="utf-8") as file:
        code = subprocess.call([script, *command(name, checkpoint, data)], cwd=work, stdout=file, stderr=subprocess.STDOUT)
    print(partial.read_text(encoding="utf-8"), flush=True)
    if code:
        sys.exit(f"{name}: exit code {code}; what it printed is in {partial}")
    if RUNS[name].command == "bench":
        shutil.copyfile(work / FIGURES.name, FIGURES)
    os.replace(partial, done)


def score(name: str, said: str) -> float:
    """The last score that was printed, in percent; of a student the share of its teacher's, of an export that of the same answers."""
    if RUNS[name].command == "export":
        return float(re.search(r"([\d.]+)% of the answers the same", said)[1])
    if RUNS[name].command == "distill":
        return float(re.search(rf"^dev, {RUNS[name].score}(?: +[\d.]+%){{2}} +([\d.]+)%$", said, re.MULTILINE)[1])
    return float(re.findall(rf"(?<!\w){RUNS[name].score} ([\d.]+)%", said)[-1])


def lost(name: str, said: str) -> float:
    """Points that an export lost."""
    before, after = re.search(rf"{RUNS[name].score} ([\d.]+)% → ([\d.]+)%", said).groups()
    return round(float(before) - float(after), 1)


def verdict(name: str, said: str) -> str:
    """Against the goals, where there are some."""
    run = RUNS[name]
    if run.goal is None:
        return ""
    what, value = {"distill": " of the teacher's", "export": " of the answers the same"}.get(run.command, ""), score(name, said)
    found = [f"Goal {run.goal:g}%{what}: {'met' if value >= run.goal else 'missed'} with {value}%."]
    if run.most is not None:
        points = lost(name, said)
        found.append(f"Goal at most {run.most:g} points lost: {'met' if points <= run.most else 'missed'} with {points}.")
    return " ".join(found)


def unknown(checkpoint: Path, file: Path) -> float:
    """The share of a file's pieces that a vocabulary does not know."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    ids = [i for text in tokenizer([row["sentence1"] + row["sentence2"] for row in rows])["input_ids"] for i in text[1:-1]]
    return ids.count(tokenizer.unk_token_id) / len(ids)


def report(checkpoint: Path, data: Path, said: dict[str, str]) -> Iterator[str]:
    """The lines of `real.md`."""
    digest = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    yield "# Real weights on real files\n"
    yield "Written by `python benchmarks/real.py`; the outputs are those of the commands above them, nothing is typed in. The minutes"
    yield "are those of a machine with other work.\n"
    yield f"`$MINILM` is a folder with all-MiniLM-L6-v2 (6 layers, 384 wide; `model.safetensors` has SHA-256\n`{digest}`),"
    yield "`$DATA` one with\n"
    yield "| file | bytes | SHA-256 |\n|---|---|---|"
    for name in sorted({name for run in RUNS.values() for name in run.files}):
        content = (data / name).read_bytes()
        yield f"| `{name}` | {len(content):,} | `{hashlib.sha256(content).hexdigest()[:16]}` |"
    for name, text in said.items():
        yield f"\n## {RUNS[name].title}\n\n{RUNS[name].says}\n\n```sh\n{shown(name)}\n```\n\n```text\n{text.strip()}\n```"
        if RUNS[name].goal:
            yield "\n" + verdict(name, text)
        if name == "ocnli":
            share = unknown(checkpoint, data / RUNS[name].files[1])
            yield f"\n{share:.0%} of the pieces of its development set are `[UNK]` to this vocabulary."
    yield ""


def read_arguments() -> argparse.Namespace:
    """What is asked for, checked."""
    from bertcourse.app.cli import Parser

    parser = Parser(description=__doc__.splitlines()[0])
    for name in ("checkpoint", "data", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="NAME", help=", ".join(RUNS))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: %(default)s")
    args = parser.parse_args()
    needed = [args.checkpoint / "model.safetensors", *(args.data / file for name in args.only for file in RUNS[name].files)]
    if missing := [path for path in needed if not path.is_file()]:
        parser.error(f"there is no file {missing[0]}")
    if args.threads < 1:
        parser.error(f"--threads is {args.threads}: it must be 1 or more")
    return args


def main() -> int:
    """Run what has not been run, then write the report."""
    args = read_arguments()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    checkpoint, data, work = (path.resolve() for path in (args.checkpoint, args.data, args.work))
    for name in args.only:
        run(name, checkpoint, data, work)
    if left := [name for name in RUNS if not (work / f"{name}.txt").exists()]:
        print(f"no report yet: {', '.join(left)} not run")
        return 0
    said = {name: (work / f"{name}.txt").read_text(encoding="utf-8") for name in RUNS}
    partial = REPORT.with_suffix(".md.partial")
    partial.write_text("\n".join(report(checkpoint, data, said)), encoding="utf-8")
    os.replace(partial, REPORT)
    return int(any("missed" in verdict(name, text) for name, text in said.items()))


if __name__ == "__main__":
    sys.exit(main())
