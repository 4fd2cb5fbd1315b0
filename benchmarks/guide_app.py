"""A service that behaves as the guide's does (§7.5.1), for `serve.py` to measure, with its faults one by one to be fixed.

Started by gunicorn as `guide_app:app`. Environment: MODEL, an exported folder; PAD, pieces that every text is padded to, 0
for none; THREADS of ONNX Runtime, 0 for its default; WITHOUT, an optimiser of ONNX Runtime to leave out. One text at a time,
Flask, a model for each worker.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort
from flask import Flask, jsonify, request
from transformers import AutoTokenizer

PAD, THREADS = int(os.environ["PAD"]), int(os.environ["THREADS"])
options = ort.SessionOptions()
options.intra_op_num_threads = THREADS
session = ort.InferenceSession(str(Path(os.environ["MODEL"]) / "model.onnx"), options, providers=["CPUExecutionProvider"],
                               disabled_optimizers=os.environ["WITHOUT"].split())  # fmt: skip
tokenizer = AutoTokenizer.from_pretrained(os.environ["MODEL"])
app = Flask(__name__)


@app.post("/predict")
def predict():
    """The likelier class of a text, and its probability."""
    fixed = {"padding": "max_length", "max_length": PAD} if PAD else {"max_length": 128}
    inputs = tokenizer(request.json["text"], truncation=True, return_tensors="np", **fixed)
    (logits,) = session.run(None, {put.name: inputs[put.name].astype(np.int64) for put in session.get_inputs()})
    p = np.exp(logits[0] - logits[0].max())
    return jsonify(label=int(p.argmax()), probability=float(p.max() / p.sum()))


@app.get("/ready")
def ready():
    """For the benchmark, which has to know when to begin."""
    return jsonify(status="ready")
