"""What each chapter needs in order to run: data for `bertcourse doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """The needs of one chapter notebook."""

    modules: tuple[str, ...] = ("ipykernel", "torch", "transformers", "numpy", "matplotlib")  # importable
    assets: tuple[str, ...] = ("claims.toml", "glossary.toml")  # names for `bertcourse.assets.asset`
    disk_mb: int = 100  # free, in the current folder; MB of 10^6 bytes
    memory_mb: int = 1500  # available

    def plus(self, *modules: str, assets: tuple[str, ...] = (), memory_mb: int = 1500) -> Need:
        """The same and more."""
        return Need(self.modules + modules, self.assets + assets, self.disk_mb, memory_mb)


ANY = Need()
CHAPTERS = {  # a test asks for a row for every notebook of a chapter
    "01_bert": ANY.plus("tokenizers", "safetensors", assets=("tiny-bert", "experiments/1.3-both-sides.json")),
    "02_transformer": ANY.plus("tokenizers", "safetensors", assets=("tiny-bert",)),
    "03_1_objectives": ANY.plus("accelerate", "tokenizers", "safetensors", "scipy",
                                assets=("tiny-bert", "paper_tables.toml", "experiments/3.1-masking-mixes.json")),
    "03_2_pretraining": ANY.plus("accelerate", "tokenizers", "safetensors", assets=("tiny-bert",)),
    "04_1_tasks": ANY.plus("accelerate", "datasets", "tokenizers", "safetensors", "scikit-learn", "scipy", memory_mb=2000,
                           assets=("tiny-bert", "experiments/4.1-worth-pretraining.json", "experiments/4.1-training-size.json",
                                   "experiments/4.1-full-runs.json")),
    "04_2_practice": ANY.plus("accelerate", "datasets", "tokenizers", "safetensors", "scikit-learn", "scipy",
                              assets=("tiny-bert", *(f"experiments/4.3-{name}.json" for name in
                                                     ("grid", "warmup", "remedies", "active-learning", "weak-supervision")),
                                     "experiments/8.2-layer-rates.json")),
    "05_distillation": ANY.plus("accelerate", "datasets", "tokenizers", "safetensors", "scikit-learn", "scipy",
                                assets=("tiny-bert", "paper_tables.toml", *(f"experiments/{name}.json" for name in
                                                     ("5.2-alpha-temperature", "5.3-terms", "8.3-dark-knowledge")))),
    "06_tinybert": ANY.plus("accelerate", "datasets", "tokenizers", "safetensors", "scikit-learn", "scipy",
                            assets=("tiny-bert", "paper_tables.toml", "experiments/6.3-augmentation.json", "experiments/6.5-ablations.json")),
    "07_1_onnx": ANY.plus("accelerate", "datasets", "tokenizers", "safetensors", "scikit-learn", "scipy", "onnx", "onnxruntime", "onnxscript",
                          assets=("tiny-bert", "benchmarks/deploy.json", "experiments/7.6-smaller.json")),
    "07_2_serving": ANY.plus("accelerate", "datasets", "tokenizers", "safetensors", "scikit-learn", "scipy", "onnx", "onnxruntime", "onnxscript",
                             "starlette", "uvicorn", "httptools", "prometheus-client", "flask", "pyyaml", "psutil",
                             assets=("tiny-bert", *(f"benchmarks/{name}.json" for name in ("serve", "deploy", "fairness", "memory")),
                                     "deploy/Dockerfile", "deploy/requirements.txt")),
    "08_1_principles": ANY.plus("tokenizers", "safetensors", "scipy",
                                assets=("tiny-bert", "bank", *(f"experiments/{name}.json" for name in
                                        ("1.3-both-sides", "3.1-masking-mixes", "8.1-generation", "8.1-positions")),
                                        "experiments/8.1-generation.py")),
    "08_2_finetuning": ANY.plus("accelerate", "datasets", "tokenizers", "safetensors", "scikit-learn", "scipy",
                                assets=("tiny-bert", "bank", "experiments/8.2-learning-rate.py",
                                        *(f"experiments/{name}.json" for name in
                                          ("4.1-training-size", "4.3-grid", "4.3-remedies", "8.2-learning-rate", "8.2-layer-rates")))),
    "08_3_distillation": ANY.plus("accelerate", "datasets", "tokenizers", "safetensors", "scikit-learn", "scipy",
                                  assets=("tiny-bert", "bank", *(f"experiments/{name}.json" for name in
                                                                 ("8.3-dark-knowledge", "5.2-alpha-temperature", "6.5-ablations")))),
    "08_4_engineering": ANY.plus("accelerate", "datasets", "tokenizers", "safetensors", "scikit-learn", "scipy", "onnx", "onnxruntime", "onnxscript",
                                 "packaging", assets=("tiny-bert", "bank", "benchmarks/deploy.json", "benchmarks/serve.json",
                                                      "experiments/8.4-levers.json", "experiments/6.5-ablations.json")),
    "08_5_depth": ANY.plus("datasets", "tokenizers", "safetensors", "scikit-learn", "scipy",
                           assets=("tiny-bert", "bank", *(f"experiments/8.5-{name}.json" for name in
                                                          ("small-pretraining", "transfer-by-layer", "pooling")))),
    "09_appendix": ANY.plus("tokenizers", "safetensors", "onnx", "onnxruntime",
                            assets=("tiny-bert", "paper_tables.toml", "resources.toml", "symbols.toml", "path.toml", "outline.toml",
                                    "measured.json", "timings.json")),
}
