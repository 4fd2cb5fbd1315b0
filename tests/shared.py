"""What several test files need and takes long to build: built once in a test session."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

NO_PART_OF_A_GRAPH = ("_name_or_path", "id2label", "label2id", "transformers_version", "dtype")


def build_once(target: Path, build: Callable[[Path], object]) -> Path:
    "`target`, made by `build(path)` unless another test has built it; other workers wait. For reading only."
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if not target.exists():
            unfinished = target.with_name(f"{target.name}.unfinished")
            build(unfinished)
            os.replace(unfinished, target)
    return target


def digest_of(model, *options: object) -> str:
    "A name for a model: its class, its weights, the configuration that shapes its graph, and options."
    config = {key: value for key, value in model.config.to_dict().items() if key not in NO_PART_OF_A_GRAPH}
    digest = hashlib.sha256(
        json.dumps([type(model).__name__, config, options], sort_keys=True, default=str).encode()
    )
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def cached_exports(folder: Path) -> Iterator[None]:
    "The real `deployment.export` runs once for each model and its options; later calls copy the file."
    from bertcourse import deployment

    real = deployment.export

    def export(model, path, *args, **kwargs) -> Path:
        graph = folder / f"{digest_of(model, args, kwargs)}.onnx"
        build_once(graph, lambda unfinished: real(model, unfinished, *args, **kwargs))
        shutil.copyfile(graph, path)
        return Path(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deployment, "export", export)
        yield


@contextlib.contextmanager
def cached_curves(*modules) -> Iterator[None]:
    "The commands of `modules` draw the curves of each kind of run once; later runs of that kind copy them."
    drawn: dict[tuple, bytes] = {}

    def cached(module) -> Callable[..., None]:
        real = module.draw_curves

        def draw_curves(panels, path, *args) -> None:
            kind = (module.__name__, *((panel.label, *panel.lines, *panel.dots) for panel in panels))
            if kind in drawn:
                path.write_bytes(drawn[kind])
            else:
                real(panels, path, *args)
                drawn[kind] = path.read_bytes()

        return draw_curves

    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "draw_curves", cached(module))
        yield
