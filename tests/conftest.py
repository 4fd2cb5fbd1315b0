"""What tests of several files share; `shared.py` says how."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import shared


@pytest.fixture(scope="session")
def session_folder(request, tmp_path_factory) -> Path:
    "A folder of this test session; the workers of pytest-xdist have the same."
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if hasattr(request.config, "workerinput") else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def cached_exports(session_folder) -> Iterator[None]:
    "In this file, a model that was exported already in this test session is not exported again."
    with shared.cached_exports(session_folder / "graphs"):
        yield


@pytest.fixture(scope="session")
def todays_tokenizer(session_folder) -> Path:
    "A folder with the tokenizer that is trained on today's toy text."
    from bertcourse.corpus import save_tokenizer

    return shared.build_once(session_folder / "todays-tokenizer", save_tokenizer)


@pytest.fixture
def three_threads(monkeypatch):
    "PyTorch has three threads, and the user has chosen none for the libraries, as `make test` does."
    import torch
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)
