"""Quick runs of the benchmarks as a person starts them, with full-width models; the figures mean nothing."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
import scripts  # noqa: E402


def run(name: str, folder: Path, *args: object) -> tuple[dict, str]:
    "What a quick run writes into `folder`, and what it prints."
    file = folder / "found.json"
    done = scripts.run(name, *args, "--threads", 1, "--quick", "--json", file)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == [file.name], "a temporary file is left"
    return json.loads(file.read_text()), done.stdout


@pytest.fixture(scope="module")
def deploy():
    with scripts.loaded("deploy") as module:
        yield module


def test_deployment(tmp_path):
    found, _ = run("deploy", tmp_path, "speed", "lengths", "settings")
    scripts.check_deploy_run(found)


def test_all_forms_of_a_layer_of_bert_base_say_the_same(deploy, tmp_path):
    made = deploy.callers(deploy.files(tmp_path, 1), 1, 1)
    scripts.check_forms_agree(deploy, made, deploy.inputs(2, 8))


def test_int8_on_the_toy_tasks_is_scored_in_points(deploy):
    scripts.check_points_lost(deploy.accuracy(deploy.Settings(1, 1, True, examples=40, steps=1)))


def test_fine_tuning(tmp_path):
    scripts.check_finetune_run(*run("finetune", tmp_path))


def test_distillation(tmp_path):
    found, _ = run("distill", tmp_path)
    scripts.check_distill_run(found)


def test_collators(tmp_path):
    scripts.check_collator_run(*run("pretrain", tmp_path, "collator"))
