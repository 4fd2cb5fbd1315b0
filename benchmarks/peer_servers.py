"""The same model behind other people's servers, for `serve.py`:  python benchmarks/peers.py NAME PORT FOLDER WORKERS

litserve: LitServe with its own batching, around our predictor. fastapi: a `transformers` pipeline, in FP32, behind FastAPI.
Needs `pip install litserve fastapi`, which nothing else here does.
"""

from __future__ import annotations

import os
import sys

from bertcourse.serving.predictor import Predictor

try:
    import litserve as ls
except ImportError:
    ls = None


class Api(ls.LitAPI if ls else object):
    """Our predictor, for LitServe; its workers are processes that find this class by name."""

    def setup(self, device):
        """In a worker."""
        self.predictor = Predictor(sys.argv[3])

    def decode_request(self, request):
        """A request."""
        return {"text": request["text"]}

    def predict(self, batch):
        """A batch of them."""
        return self.predictor.predict(batch)

    def encode_response(self, output):
        """An answer."""
        return {"predictions": [output]}


def litserve(port: int, folder: str, workers: int) -> None:
    """A LitAPI with the batches and the waiting time of ours."""
    api = Api(max_batch_size=16, batch_timeout=0.004)
    ls.LitServer(api, accelerator="cpu", workers_per_device=workers).run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")


def fastapi(port: int, folder: str, workers: int) -> None:
    """A pipeline in each of the worker processes."""
    import uvicorn

    os.environ["PEER_MODEL"] = folder
    uvicorn.run("peers:make_fastapi", factory=True, host="127.0.0.1", port=port, workers=workers, log_level="error",
                app_dir=os.path.dirname(os.path.abspath(__file__)))  # fmt: skip


def make_fastapi():
    """The application of a worker."""
    import torch
    from fastapi import Body, FastAPI
    from transformers import pipeline

    torch.set_num_threads(1)
    classify = pipeline("text-classification", model=os.environ["PEER_MODEL"], device="cpu")
    app = FastAPI()

    @app.post("/predict")
    def predict(text: str = Body(embed=True)):
        return {"predictions": classify(text)}

    return app


if __name__ == "__main__":
    name, port, folder, workers = sys.argv[1:]
    {"litserve": litserve, "fastapi": fastapi}[name](int(port), folder, int(workers))
