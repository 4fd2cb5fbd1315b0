"""The same model behind other people's servers, for `peers.py`:  python benchmarks/peer_servers.py NAME PORT FOLDER WORKERS

- litserve: LitServe with its own batching, around our predictor;
- fastapi: a `transformers` pipeline of a checkpoint, in PyTorch and FP32, behind FastAPI;
- fastapi-onnx: an exported folder in ONNX Runtime, tokenized by `transformers`, a text at a time, behind FastAPI.

Needs `pip install litserve fastapi uvicorn`, which nothing else here does.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bertcourse.models.exported import ExportedModel

try:
    import litserve as ls
except ImportError:
    ls = None


class Api(ls.LitAPI if ls else object):
    """Our predictor, for LitServe; its workers are processes that find this class by name."""

    def setup(self, device):
        """In a worker."""
        self.predictor = ExportedModel(sys.argv[3])

    def decode_request(self, request):
        """A request."""
        return {"text": request["text"]}

    def predict(self, batch):
        """A batch of them."""
        return self.predictor.answer(batch)

    def encode_response(self, output):
        """An answer."""
        return {"predictions": [output]}


def litserve(port: int, folder: str, workers: int) -> None:
    """A LitAPI with the batches and the waiting time of ours."""
    api = Api(max_batch_size=16, batch_timeout=0.004)
    ls.LitServer(api, accelerator="cpu", workers_per_device=workers).run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")


def fastapi(port: int, folder: str, workers: int, make: str = "make_pipeline") -> None:
    """A model in each of the worker processes."""
    import uvicorn

    os.environ["PEER_MODEL"] = folder
    uvicorn.run(f"peer_servers:{make}", factory=True, host="127.0.0.1", port=port, workers=workers, log_level="error",
                app_dir=os.path.dirname(os.path.abspath(__file__)))  # fmt: skip


def application(classify: Callable[[str], list[dict[str, Any]]]) -> Any:
    """The application of a worker."""
    from fastapi import Body, FastAPI

    app = FastAPI()

    @app.post("/predict")
    def predict(text: str = Body(embed=True)):
        return {"predictions": classify(text)}

    return app


def make_pipeline() -> Any:
    """A worker with a pipeline."""
    import torch
    from transformers import pipeline

    torch.set_num_threads(1)
    return application(pipeline("text-classification", model=os.environ["PEER_MODEL"], device="cpu"))


def make_onnx() -> Any:
    """A worker with an exported model: one thread, no padding, as one would write it by hand."""
    import numpy as np
    import onnxruntime
    from transformers import AutoTokenizer

    folder, options = Path(os.environ["PEER_MODEL"]), onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    names, tokenizer = {each.name for each in session.get_inputs()}, AutoTokenizer.from_pretrained(folder)
    labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]

    def classify(text: str) -> list[dict[str, Any]]:
        inputs = tokenizer([text], truncation=True, max_length=128, return_tensors="np")
        [logits] = session.run(None, {name: value.astype(np.int64) for name, value in inputs.items() if name in names})[0]
        shares = np.exp(logits - logits.max())
        return [{"label": labels[str(logits.argmax())], "score": float((shares / shares.sum()).max())}]

    return application(classify)


if __name__ == "__main__":
    name, port, folder, workers = sys.argv[1:]
    serve = {"litserve": litserve, "fastapi": fastapi, "fastapi-onnx": partial(fastapi, make="make_onnx")}[name]
    serve(int(port), folder, int(workers))
