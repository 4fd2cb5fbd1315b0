"""Build what a browser needs to run the shipped model: the folder `live/` of the site.

    python tools/live.py OUT

The model as ONNX files in FP32 and INT8, the tokenizer, ONNX Runtime Web and tokenizers.js (installed by npm as
`tools/live/package-lock.json` pins them), the script that runs them, and `manifest.json` with sizes and examples.
Needs npm. Exit code 0; 1 where something failed; 2 for bad input.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

import torch
from npm_packages import PACKAGES, Fault, install
from transformers import BertForPreTraining
from transformers import logging as transformers_logging

from bertcourse.assets import asset
from bertcourse.deployment import export, quantize

RUNTIME, TOKENIZERS = "onnxruntime-web", "@huggingface/tokenizers"
SCRIPTS = (f"{RUNTIME}/dist/ort.wasm.bundle.min.mjs", f"{TOKENIZERS}/dist/tokenizers.min.mjs")
WASM = f"{RUNTIME}/dist/ort-wasm-simd-threaded.wasm"


class InsideBert(BertForPreTraining):
    """The shipped model with everything that the view draws among its outputs."""

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, **_):
        """Logits, and with a first dimension for layers or heads: hidden states, attention; the three embeddings."""
        output = super().forward(input_ids, attention_mask, token_type_ids, output_attentions=True, output_hidden_states=True)
        found = self.bert.embeddings
        return {
            "prediction_logits": output.prediction_logits,
            "seq_relationship_logits": output.seq_relationship_logits,
            "hidden_states": torch.stack(output.hidden_states),
            "attentions": torch.stack(output.attentions),
            "word": found.word_embeddings(input_ids),
            "position": found.position_embeddings(found.position_ids[:, : input_ids.shape[1]]),
            "segment": found.token_type_embeddings(token_type_ids),
        }


def export_models(folder: Path) -> dict[str, Path]:
    """The shipped model in FP32 and INT8; "input_ids" and "token_type_ids" of one sentence or pair go in."""
    transformers_logging.disable_progress_bar()
    model = InsideBert.from_pretrained(asset("tiny-bert"), attn_implementation="eager").eval()
    exact = export(model, folder / "fp32.onnx", max_length=128, names=("input_ids", "token_type_ids"))
    return {"fp32": exact, "int8": quantize(exact, folder / "int8.onnx")}


def write_packed(source: Path, target: Path) -> dict[str, object]:
    """Compress a file; what the manifest says of it."""
    data = source.read_bytes()
    packed = gzip.compress(data, 9, mtime=0)
    target.write_bytes(packed)
    return {"name": target.name, "bytes": len(data), "packed": len(packed), "version": hashlib.sha256(packed).hexdigest()[:12]}


def build(out: Path) -> dict[str, object]:
    """Write the folder `out`, which must not exist; returns the manifest."""
    with tempfile.TemporaryDirectory(prefix="bertcourse-live-") as name:
        work = Path(name)
        packages = install(work)
        partial = work / "live"
        partial.mkdir()
        shutil.copy(asset("inside/live.js"), partial)
        for script in SCRIPTS:
            shutil.copy(packages / script, partial)
        model = asset("tiny-bert")
        sources = {"wasm": packages / WASM, **export_models(work), "tokenizer": model / "tokenizer.json",
                   "tokenizer_config": model / "tokenizer_config.json"}  # fmt: skip
        manifest = {
            "files": {key: write_packed(source, partial / f"{key}.bin") for key, source in sources.items()},
            "examples": tomllib.loads(asset("inside/examples.toml").read_text(encoding="utf-8")),
            "packages": {name: json.loads((packages / name / "package.json").read_text(encoding="utf-8"))["version"] for name in (RUNTIME, TOKENIZERS)},
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        shutil.copy(PACKAGES / "LICENSES.txt", partial)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(partial, out)
    return manifest


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder to write, which must not exist")
    args = parser.parse_args(argv)
    if args.out.exists():
        parser.error(f"{args.out} exists: name a folder that does not")
    try:
        manifest = build(args.out)
    except Fault as fault:
        print(fault, file=sys.stderr)
        return 1
    total = sum(file["packed"] for file in manifest["files"].values())
    print(f"{args.out}: {total / 1e6:.1f} MB to download for the model")
    return 0


if __name__ == "__main__":
    sys.exit(main())
