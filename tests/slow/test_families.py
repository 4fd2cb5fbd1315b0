"""Every family in every task, from one command to the next: train, answer, distil, export, and answer again as before.

A cell of the table either works or is refused by name in one sentence. A run takes each family and each task at least once, and which
cells it takes the library's code decides: the same code takes the same ones. BERTCOURSE_RERUN=all takes the whole table (weekly on GitHub).
"""

import hashlib
import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
import checkpoints  # noqa: E402
import commands  # noqa: E402
import services  # noqa: E402
from checkpoints import FAMILIES  # noqa: E402
from commands import run  # noqa: E402

import bertcourse  # noqa: E402
from bertcourse import deployment  # noqa: E402
from bertcourse.models.exported import ExportedModel  # noqa: E402

CONTEXT = "Anna Bell lives in Paris with Peter"
QUESTIONS = [{"id": str(i), "question": "Where does Anna live?", "context": CONTEXT + "!" * i, "answers": {"text": ["Paris"], "answer_start": [19]}}
             for i in range(12)]  # fmt: skip
PAIRS = ["a man plays the guitar\tsomebody makes music\t{}", "my dog is hairy\tAnna lives in Paris\t{}"]
TASKS = {  # the training file, what is asked, a request to the service
    "classification": ("train.tsv", "sentence\tlabel\n" + "the film is very good\tgood\nthe film is not good at all\tbad\n" * 6,
                       "the film is good\n", {"text": "the film is good"}),
    "pairs": ("train.tsv", "sentence1\tsentence2\tlabel\n" + "\n".join(PAIRS * 6).format(*["yes", "no"] * 6) + "\n",
              "my dog\tis hairy\n", {"text": "my dog", "text_pair": "is hairy"}),
    "regression": ("train.tsv", "sentence1\tsentence2\tlabel\n" + "\n".join(PAIRS * 6).format(*[4.5, 0.5] * 6) + "\n",
                   "my dog\tis hairy\n", {"text": "my dog", "text_pair": "is hairy"}),
    "ner": ("train.conll", "Anna B-PER\nBell I-PER\nlives O\nin O\nParis B-LOC\n\nmy O\ndog O\nlikes O\nPeter B-PER\n\n" * 6,
            "Anna Bell lives in Paris.\n", {"text": "Anna Bell lives in Paris."}),
    "qa": ("train.jsonl", "".join(json.dumps(row) + "\n" for row in QUESTIONS),
           json.dumps({"question": "Where?", "context": CONTEXT}) + "\n", {"question": "Where?", "context": CONTEXT}),
}  # fmt: skip
EXPORTED = ("classification", "ner", "qa")  # a graph for each head; pairs and numbers have the first one
TRACED = ("classification", "qa")  # by the older exporter, which is fast; `test_export_families.py` takes today's for classes


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    with commands.surroundings():
        yield


def succeed(*argv, **more) -> str:
    code, out, err = run(*argv, **more)
    assert code == 0, err
    return out


def code_of_library() -> bytes:
    """Every module: the commands are made of all of them."""
    return b"".join(path.read_bytes() for path in sorted(Path(bertcourse.__file__).parent.rglob("*.py")))


def chosen(families: list[str], tasks: list[str], code: bytes) -> list[tuple[str, str]]:
    """Two tasks of each family, by lot but so that all tasks are taken."""
    turn = int.from_bytes(hashlib.sha256(code).digest()[:4], "big") % len(tasks)
    return [(family, tasks[(turn + 2 * place + step) % len(tasks)]) for place, family in enumerate(families) for step in (0, 1)]


EVERY = [(family, task) for family in FAMILIES for task in TASKS]
CELLS = EVERY if os.environ.get("BERTCOURSE_RERUN") == "all" else chosen(list(FAMILIES), list(TASKS), code_of_library())


def test_every_cell_has_its_turn():
    taken = [chosen(list(FAMILIES), list(TASKS), str(code).encode()) for code in range(60)]
    for cells in taken:
        assert {family for family, _ in cells} == set(FAMILIES) and {task for _, task in cells} == set(TASKS)
        assert len(cells) == len(set(cells)) == 2 * len(FAMILIES)
    assert set(sum(taken, [])) == set(EVERY)


@pytest.mark.parametrize("family, task", CELLS, ids=lambda name: name)
def test_the_table(tmp_path, family, task, monkeypatch):
    if task in TRACED:
        monkeypatch.setattr(deployment, "export", partial(deployment.export, legacy=True, opset=17))
    name, text, asked, request = TASKS[task]
    train, dev = tmp_path / name, tmp_path / f"dev-{name}"
    train.write_text(text), dev.write_text(text)
    base = checkpoints.checkpoint(tmp_path / "base", family)
    common = ("--train", train, "--dev", dev, "--steps", 2, "--batch-size", 4, "--quiet")
    succeed("finetune", "--task", task, "--model", base, "--out", tmp_path / "model", *common)
    answer = succeed("predict", tmp_path / "model", stdin=asked)
    if task == "ner" and (tmp_path / "model/vocab.json").exists():
        assert json.loads((tmp_path / "model/tokenizer_config.json").read_text())["add_prefix_space"] is True
    if task in EXPORTED:
        succeed("export", tmp_path / "model", "--out", tmp_path / "onnx", "--dev", dev, "--quiet")
        assert succeed("predict", tmp_path / "onnx", stdin=asked) == answer
        served, = ExportedModel(tmp_path / "onnx").answer([request])
        told = json.loads(answer)
        assert served.items() >= told.items()
    for method in ("kd", "distilbert", "tinybert"):
        out = tmp_path / method
        code, _, err = run("distill", "--teacher", tmp_path / "model", "--student", '{"num_hidden_layers": 1}', "--method", method, "--out", out, *common)
        if method == "tinybert" and family.startswith("deberta"):
            assert code == 2 and not out.exists()
            assert err == f"bertcourse: --method tinybert compares attention scores, which {family} does not show: take --method kd\n"
            continue
        assert code == 0, err
        assert len(succeed("predict", out, stdin=asked).splitlines()) == 1
    succeed("distill", "--teacher", tmp_path / "model", "--student", '{"model_type": "bert", "num_hidden_layers": 1}', "--method", "kd", "--out",
            tmp_path / "to-bert", *common)  # fmt: skip
    assert len(succeed("predict", tmp_path / "to-bert", stdin=asked).splitlines()) == 1


@pytest.mark.parametrize("family", ["roberta", "deberta-v2", "modernbert"])
def test_a_service_finds_the_entities_that_the_command_finds(tmp_path, family):
    model = checkpoints.checkpoint(tmp_path / "model", family, "ner", ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))
    succeed("export", model, "--out", tmp_path / "onnx", "--quiet")
    text = "Anna Bell lives in New York with Peter, 我的狗 and Zoë."
    told = json.loads(succeed("predict", model, stdin=text + "\n"))
    with services.serve(tmp_path / "onnx", log=tmp_path / "log") as service, service.client() as client:
        answer = client.post("/predict", json={"text": text}).json()
    found, expected = answer["predictions"][0]["spans"], told["spans"]
    assert expected and [one.pop("probability") for one in found] == pytest.approx([one.pop("probability") for one in expected], abs=1e-5)
    assert found == expected
