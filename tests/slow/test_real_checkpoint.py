"""The chapters run on another checkpoint than the shipped one: a real one where there is one, a small random one always.

`BERTCOURSE_CHECKPOINT` names the folder of an uncased English BERT, such as all-MiniLM-L6-v2.
"""

import json
import os
from pathlib import Path

import pytest
import scripts
import torch
import transformers
from tokenizers import BertWordPieceTokenizer

from bertcourse.corpus import texts
from bertcourse.languages import learner_notebook
from bertcourse.profiles import load

ROOT = Path(__file__).parents[2]
CHAPTERS = ("01_bert", "02_transformer", "03_1_objectives", "03_2_pretraining")
CHECKPOINT = os.environ.get("BERTCOURSE_CHECKPOINT")


@pytest.fixture
def run(monkeypatch):
    """Runs a notebook on a profile, storing nothing; the notebook with its outputs. Raises the tool's `Fault`."""
    tool = scripts.tool("notebooks")

    def run(path, profile):
        more = {"BERTCOURSE_PROFILE": str(profile), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        monkeypatch.setattr(tool, "ENVIRONMENT", tool.ENVIRONMENT | more)
        return tool.run_cells(path)

    run.fault = tool.Fault
    return run


def shown(nb, cell_id):
    """What a cell printed, and the plain text of what it displayed."""
    [cell] = [cell for cell in nb.cells if cell.id == cell_id]
    assert not any(out.get("name") == "stderr" for out in cell.outputs), cell.outputs
    return "\n".join(out.get("text") or out["data"]["text/plain"] for out in cell.outputs)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Makes a checkpoint with random weights, of another vocabulary, width and length, that knows English only."""

    def make(model_class):
        folder = tmp_path_factory.mktemp("checkpoint")
        tokenizer = BertWordPieceTokenizer()
        sentences = (sentence for document in texts(2000, lang="en") for sentence in document)
        tokenizer.train_from_iterator(sentences, vocab_size=1500, show_progress=False)
        tokenizer.save_model(str(folder))
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=tokenizer.get_vocab_size(), hidden_size=60, num_hidden_layers=3, num_attention_heads=5,
            intermediate_size=100, max_position_embeddings=64,
        )  # fmt: skip
        model_class(config).save_pretrained(folder)
        return folder

    return make


@pytest.mark.skipif(not CHECKPOINT, reason="BERTCOURSE_CHECKPOINT names no folder with a real uncased BERT checkpoint")
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_on_a_real_checkpoint(chapter, run):
    nb = run(ROOT / f"nbs/{chapter}.ipynb", Path(CHECKPOINT).expanduser().resolve())
    assert nb.cells


@pytest.mark.parametrize("model_class", [transformers.BertModel, transformers.BertForMaskedLM])
def test_chapter_2_on_a_random_checkpoint(model_class, small, run, tmp_path):
    """What an English reader has of it, and the helper page with the losses."""
    folder = small(model_class)
    profile = load(folder)
    assert profile.languages == ("en",) and profile.max_length == 64
    page = json.loads((ROOT / "nbs/02_transformer.ipynb").read_text(encoding="utf-8"))
    (tmp_path / "02_transformer.ipynb").write_text(json.dumps(learner_notebook(page, "en")), encoding="utf-8")
    nb = run(tmp_path / "02_transformer.ipynb", folder)
    assert shown(nb, "survey-en").startswith("targets | layer.head | share | uniform | difference, 95% interval | other rows | documents\nprevious token | ")
    assert shown(nb, "draw-en").startswith("Figure: Weights of two heads")
    nb = run(ROOT / "nbs/helpers/heads.ipynb", folder)
    if model_class is transformers.BertModel:
        assert "not measured: this checkpoint has no MLM head, so there is no loss to compare\n" in shown(nb, "table-of-losses")
    else:
        assert "loss of the whole model: " in shown(nb, "table-of-losses") and "\nlayer 3 | " in shown(nb, "table-of-losses")


def test_chapter_1_on_a_random_checkpoint(small, run, tmp_path):
    """What an English reader has of it: Chinese examples are for models that know Chinese."""
    page = json.loads((ROOT / "nbs/01_bert.ipynb").read_text(encoding="utf-8"))
    (tmp_path / "01_bert.ipynb").write_text(json.dumps(learner_notebook(page, "en")), encoding="utf-8")
    nb = run(tmp_path / "01_bert.ipynb", small(transformers.BertModel))
    assert shown(nb, "own-pair-en").startswith("Figure: A column for each token")
    assert "layer 4: largest difference" in shown(nb, "agree") and "after layer 3" not in shown(nb, "sentences-en")


def test_a_chapter_that_fails_is_noticed(small, run, tmp_path):
    from checks.planting import code, notebook  # the tool has put tests/ on the path

    path = tmp_path / "a.ipynb"
    planted = notebook(code("from bertcourse.profiles import load", id="a"), code("load().only('zh')", id="b"))
    path.write_text(json.dumps(planted), encoding="utf-8")
    with pytest.raises(run.fault, match=r"a\.ipynb#b: the cell raises ProfileError: profile .* has no 'zh', only en"):
        run(path, small(transformers.BertModel))
