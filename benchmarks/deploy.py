"""What ONNX brings: BERT-base's shape in every form, students beside it, length and batch, session settings, accuracy of INT8.

    python benchmarks/deploy.py [speed] [tried] [students] [lengths] [settings] [accuracy] [--rounds 9] [--json FILE] [--quick]

Weights are random in all parts but `accuracy`: how fast a shape is does not depend on what it knows. Whatever is compared runs
in turn, in one process, so that a busy moment of the machine falls on all of it; medians are compared, of wall clock and of CPU
time. `deploy.json` beside this file is what the course's page shows. `--quick` shows that everything works; its figures mean
nothing. Exit code 1: a goal is missed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from measuring import Rounds, Sample, command, interleave, measure, rates, ratio

EAGER = "PyTorch eager"
SHAPES = ((1, 32), (1, 128), (8, 32), (8, 128))  # batch × length
PEER = 1.0  # the goal at every shape: our best INT8 / the best of OpenVINO in the same run; ratios to PyTorch depend on the processor
VERSUS = "best INT8 / OpenVINO's best"
INT8_MB = 111.0
CALM = {"session.force_spinning_stop": "1"}  # a session that has answered must not take time from the next one
STUDENTS = ("TinyBERT-4", "TinyBERT-6", "DistilBERT", "MobileBERT", "ALBERT-base")


@dataclass(frozen=True)
class Settings(Rounds):
    """How much is measured."""

    shapes: tuple[tuple[int, int], ...] = SHAPES
    counts: tuple[int, ...] = (1, 2)  # threads
    lengths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    least: float = 0.2  # seconds of a sample
    layers: int = 12  # of BERT-base's shape
    examples: int = 3000
    steps: int = 400


QUICK = {"rounds": 1, "shapes": ((1, 8),), "counts": (1,), "lengths": (4, 8), "batches": (1, 2), "least": 0.0, "layers": 1,
         "examples": 64, "steps": 2}  # fmt: skip


# --- models -------------------------------------------------------------------------------------------------------


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch's, for a while."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def configuration(name: str, layers: int | None = None) -> Any:
    """A model's shape, as its authors published it."""
    from transformers import AlbertConfig, DistilBertConfig, MobileBertConfig

    from bertcourse.bert import SHAPES as KNOWN

    if name == "DistilBERT":
        return DistilBertConfig(num_labels=2)
    if name == "MobileBERT":
        return MobileBertConfig(num_labels=2)
    if name == "ALBERT-base":
        return AlbertConfig(hidden_size=768, num_attention_heads=12, intermediate_size=3072, num_labels=2)
    config = KNOWN[name].config()
    config.num_hidden_layers = layers or config.num_hidden_layers
    return config


@cache
def network(name: str, layers: int | None = None, attention: str = "eager") -> Any:
    """A classifier of that shape with random weights."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(configuration(name, layers), attn_implementation=attention).eval()


def inputs(batch: int, length: int, vocab: int = 30_000) -> dict[str, Any]:
    """Random ids, nothing padded."""
    import numpy as np

    ids = np.random.default_rng(0).integers(1000, vocab, (batch, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def files(folder: Path, layers: int) -> dict[str, Path]:
    """BERT-base's shape in ONNX, by variant."""
    from onnxruntime.quantization import QuantFormat, quantize_static

    from bertcourse.deployment import Calibration, _quiet, export, quantize

    plain = export(network("BERT-base", layers), folder / "fp32.onnx")
    texts = Calibration([inputs(1, 64) for _ in range(8)])
    with_quirks = folder / "static as the guide writes it.onnx"
    texts.rewind()
    with _quiet():  # it asks for a preparation that fails on this graph
        quantize_static(plain, with_quirks, texts, quant_format=QuantFormat.QDQ)
    return {
        "ONNX Runtime FP32": plain,
        "dynamic QUInt8 (guide)": quantize(plain, folder / "quint8.onnx", weights="uint8", per_channel=False),
        "dynamic QInt8": quantize(plain, folder / "qint8.onnx", per_channel=False),
        "dynamic QInt8, per channel": quantize(plain, folder / "qint8c.onnx"),
        "static (guide)": with_quirks,
        "static QInt8, per channel": quantize(plain, folder / "static.onnx", calibration=texts),
    }


def openvino() -> bool:
    """Is it installed?"""
    from importlib.util import find_spec

    return find_spec("openvino") is not None


def callers(found: Mapping[str, Path], layers: int, count: int) -> dict[str, Callable]:
    """Every variant as a function of a batch of arrays."""
    import torch

    from bertcourse.deployment import reference
    from bertcourse.runtime import OpenVino, Session

    def halved(run: Callable, **batch: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return run(**batch)

    fused = reference(network("BERT-base", layers, "sdpa"))
    made: dict[str, Callable] = {EAGER: reference(network("BERT-base", layers)), "PyTorch SDPA": fused, "PyTorch SDPA, bf16": partial(halved, fused)}
    made |= {name: Session(path, threads=count, **CALM) for name, path in found.items()}
    for name in ("ONNX Runtime FP32", "dynamic QInt8"):
        made[f"{name}, all of its fusions"] = Session(found[name], threads=count, without=(), **CALM)
    if openvino():
        made["OpenVINO FP32"] = OpenVino(found["ONNX Runtime FP32"], threads=count, INFERENCE_PRECISION_HINT="f32")
        made["OpenVINO static INT8"] = OpenVino(found["static QInt8, per channel"], threads=count, INFERENCE_PRECISION_HINT="f32")
        made["OpenVINO, its default (bf16)"] = OpenVino(found["ONNX Runtime FP32"], threads=count)
    return made


def timed(run: Callable, batch: Mapping[str, Any], least: float) -> Callable[[], Sample]:
    """Samples of as many calls as take `least` seconds."""
    import time

    run(**batch)
    start = time.perf_counter()
    run(**batch)
    calls = max(1, round(least / max(time.perf_counter() - start, 1e-4)))

    def work() -> float:
        for _ in range(calls):
            run(**batch)
        return calls

    return lambda: measure(work)


def best_int8(arms: Mapping[str, Any], head: str) -> str:
    """The fastest INT8 of ONNX Runtime."""
    return max((name for name in arms if name.startswith((f"{head}dynamic", f"{head}static"))), key=lambda name: arms[name]["per_s"])


def against(arms: Mapping[str, Any], head: str) -> dict[str, dict[str, Any]]:
    """Our best INT8 of one shape beside PyTorch's eager FP32 and beside the best of OpenVINO, if that was measured."""
    best, peers = best_int8(arms, head), [name for name in arms if name.startswith(f"{head}OpenVINO")]
    found = {"best INT8": ratio(arms, best, head + EAGER)}
    if peers:
        found[VERSUS] = ratio(arms, best, max(peers, key=lambda name: arms[name]["per_s"]), PEER)
    return found


def operators_of(path: Path, batch: Mapping[str, Any], without: tuple[str, ...], calls: int) -> dict[str, float]:
    """Milliseconds of a pass by operator, by ONNX Runtime's own profile."""
    import json
    from collections import Counter

    from bertcourse.runtime import Session

    with tempfile.TemporaryDirectory() as folder:
        session = Session(path, threads=1, without=without, enable_profiling=True, profile_file_prefix=str(Path(folder, "profile")))
        for _ in range(calls):
            session(**batch)
        events = json.loads(Path(session._session.end_profiling()).read_text(encoding="utf-8"))
    found: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            found[event["args"]["op_name"]] += event["dur"]
    return {name: round(us / calls / 1e3, 4) for name, us in found.most_common(8)}


def operators_of_openvino(path: Path, batch: Mapping[str, Any], calls: int) -> dict[str, float]:
    """Milliseconds of a pass by kind of node, by OpenVINO's own profile, one thread; the first call is not counted."""
    from collections import Counter

    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(core.read_model(path), "CPU", options)
    request, found = model.create_infer_request(), Counter()
    feeds = {put.any_name: batch[put.any_name] for put in model.inputs}
    for call in range(calls + 1):
        request.infer(feeds)
        for node in request.profiling_info if call else ():
            found[f"{node.node_type} ({node.exec_type})"] += node.real_time.total_seconds() * 1e3 / calls
    return {name: round(ms, 4) for name, ms in found.most_common(8)}


def operators_at(shape: tuple[int, int], found: Mapping[str, Path], settings: Settings) -> dict[str, dict[str, float]]:
    """Where the time of a larger batch goes: ours and OpenVINO's, each by its own profile."""
    batch, calls = inputs(*shape), 1 if settings.quick else 10
    made = {"ONNX Runtime, dynamic QInt8": operators_of(found["dynamic QInt8"], batch, ("SkipLayerNormFusion",), calls)}
    if openvino():
        made["OpenVINO, static INT8"] = operators_of_openvino(found["static QInt8, per channel"], batch, calls)
    return made


# --- parts --------------------------------------------------------------------------------------------------------


def speed(settings: Settings) -> dict[str, Any]:
    """Forward passes per second of BERT-base's shape; ratios to PyTorch's eager FP32 with as many threads."""
    from bertcourse.deployment import peaks

    arms, found_ratios, limits = {}, {}, {}
    gflop = {f"{batch}×{length}": batch * network_flops(settings.layers, length) / 1e9 for batch, length in settings.shapes}
    with tempfile.TemporaryDirectory() as folder:
        found = files(Path(folder), settings.layers)
        for count in settings.counts:
            with threads(count):
                made = callers(found, settings.layers, count)
                for shape in settings.shapes:
                    head, batch = f"{count} thread{'s' * (count > 1)}, {shape[0]}×{shape[1]}: ", inputs(*shape)
                    arms |= (here := rates(interleave({head + name: timed(run, batch, settings.least) for name, run in made.items()},
                                                      settings.rounds)))  # fmt: skip
                    found_ratios |= {head + name: ratio(here, head + name, head + EAGER) for name in made if name != EAGER}
                    found_ratios |= {head + name: row for name, row in against(here, head).items()}
                limits[str(count)] = peaks(count, 256 if settings.quick else 1536)
                del made
        megabytes = {name: round(path.stat().st_size / 1e6, 2) for name, path in found.items()}
        batch, calls = inputs(*settings.shapes[0]), 2 if settings.quick else 30
        profile = {kind: operators_of(found["dynamic QInt8"], batch, without, calls)
                   for kind, without in (("as ONNX Runtime fuses", ()), ("without SkipLayerNormFusion", ("SkipLayerNormFusion",)))}  # fmt: skip
        largest = operators_at(settings.shapes[-1], found, settings)
    return {"unit": "forward passes", "arms": arms, "ratios": found_ratios, "ms by operator, largest batch": largest, "megabytes": megabytes, "ms by operator": profile, "peak_gflops": limits, "gflop": gflop,
            "INT8 file": {"MB": megabytes["dynamic QInt8"], "goal": f"<= {INT8_MB}", "met": megabytes["dynamic QInt8"] <= INT8_MB}}


def students(settings: Settings) -> dict[str, Any]:
    """Forward passes per second of smaller models in ONNX Runtime, FP32, one thread; ratios to BERT-base."""
    from bertcourse.deployment import export
    from bertcourse.runtime import Session

    arms, found, parameters = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for name in ("BERT-base", *STUDENTS):
            model = network(name)
            parameters[name] = model.num_parameters()
            runs[name] = Session(export(model, Path(folder, f"{name}.onnx")), threads=1, **CALM)
        for shape in settings.shapes:
            head, batch = f"{shape[0]}×{shape[1]}: ", inputs(*shape)
            arms |= (here := rates(interleave({head + name: timed(run, batch, settings.least) for name, run in runs.items()}, settings.rounds)))
            found |= {head + name: ratio(here, head + name, f"{head}BERT-base") for name in STUDENTS}
    return {"unit": "forward passes", "arms": arms, "ratios": found, "parameters": parameters}


def merged(source: Path, target: Path) -> Path:
    """Query, key and value of each layer as one product, split afterwards: what ONNX Runtime's own fusion does not do here."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    followers, groups = {}, {}
    for node in graph.node:
        for name in node.input:
            followers.setdefault(name, []).append(node)
        if node.op_type == "MatMul" and node.input[1] in weights:
            groups.setdefault(node.input[0], []).append(node)
    for k, nodes in enumerate([nodes for nodes in groups.values() if len(nodes) == 3]):
        adds = [followers[node.output[0]][0] for node in nodes]
        biases = [next(name for name in add.input if name in weights) for add in adds]
        graph.initializer.extend([
            numpy_helper.from_array(np.concatenate([numpy_helper.to_array(weights[node.input[1]]) for node in nodes], 1), f"qkv{k}.weight"),
            numpy_helper.from_array(np.concatenate([numpy_helper.to_array(weights[name]) for name in biases]), f"qkv{k}.bias")])  # fmt: skip
        new = [helper.make_node("MatMul", [nodes[0].input[0], f"qkv{k}.weight"], [f"qkv{k}.product"], name=f"qkv{k}.matmul"),
               helper.make_node("Add", [f"qkv{k}.product", f"qkv{k}.bias"], [f"qkv{k}.sum"], name=f"qkv{k}.add"),
               helper.make_node("Split", [f"qkv{k}.sum"], [add.output[0] for add in adds], axis=-1, num_outputs=3, name=f"qkv{k}.split")]
        place = min(list(graph.node).index(node) for node in nodes)
        for node in (*nodes, *adds):
            graph.node.remove(node)
        for i, node in enumerate(new):
            graph.node.insert(place + i, node)
        for node in nodes:
            graph.initializer.remove(weights[node.input[1]])
    onnx.save(model, target)
    return target


def in_blocks(source: Path, target: Path, block: int) -> Path:
    """Weights in 8 bits with a scale for each block, activations in 8 bits at run time: MatMulNBits."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    from bertcourse.deployment import _plain, _quiet

    with _quiet():
        made = MatMulNBitsQuantizer(_plain(source), bits=8, block_size=block, is_symmetric=True, accuracy_level=4)
        made.process()
        made.model.save_model_to_file(str(target))
    return target


def fused_int8(source: Path, target: Path) -> Path:
    """The whole of the offline fusion, then dynamic quantisation: attention as one QAttention."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from bertcourse.deployment import _quiet

    with _quiet():
        quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8, extra_options={"DefaultTensorType": 1})
    return target


def tried(settings: Settings) -> dict[str, Any]:
    """Forward passes per second, one thread: what was tried to bring ONNX Runtime's INT8 level with OpenVINO's; ratios to PyTorch's eager FP32."""
    from bertcourse.deployment import export, fuse, quantize, reference
    from bertcourse.runtime import OpenVino, Session

    eager = network("BERT-base", settings.layers)
    arms, found = {}, {}
    with tempfile.TemporaryDirectory() as name, threads(1):
        folder = Path(name)
        plain = export(eager, folder / "fp32.onnx")
        int8 = quantize(plain, folder / "int8.onnx", per_channel=False)
        own = export(eager, folder / "opset23.onnx", attention="sdpa", opset=23)
        old = export(eager, folder / "old.onnx", legacy=True, opset=17)
        fuse(old, folder / "fused.onnx", 12, 768)
        runs: dict[str, Callable] = {
            EAGER: reference(eager),
            "all of ONNX Runtime's fusions": Session(int8, threads=1, without=(), **CALM),
            "without SkipLayerNormFusion": Session(int8, threads=1, **CALM),
            "without BiasGeluFusion, too": Session(int8, threads=1, without=("SkipLayerNormFusion", "BiasGeluFusion", "GeluFusionL2"), **CALM),
            "query, key, value as one product": Session(quantize(merged(plain, folder / "m.onnx"), folder / "merged.onnx", per_channel=False),
                                                        threads=1, **CALM),
            "ONNX's Attention operator (opset 23)": Session(quantize(own, folder / "own.onnx", per_channel=False), threads=1, **CALM),
            "fused offline, QAttention": Session(fused_int8(folder / "fused.onnx", folder / "qattention.onnx"), threads=1, **CALM),
            "MatMulNBits, blocks of 128": Session(in_blocks(plain, folder / "blocks.onnx", 128), threads=1, **CALM),
            "denormals as zero": Session(int8, threads=1, **CALM, **{"session.set_denormal_as_zero": "1"}),
            "no arena": Session(int8, threads=1, enable_cpu_mem_arena=False, **CALM),
        }  # fmt: skip
        if openvino():
            from bertcourse.deployment import Calibration

            static = quantize(plain, folder / "static.onnx", calibration=Calibration([inputs(1, 64) for _ in range(8)]))
            runs["OpenVINO static INT8"] = OpenVino(static, threads=1, INFERENCE_PRECISION_HINT="f32")
        for shape in settings.shapes[:2]:
            head, batch = f"{shape[0]}×{shape[1]}: ", inputs(*shape)
            arms |= (here := rates(interleave({head + name: timed(run, batch, settings.least) for name, run in runs.items()}, settings.rounds)))
            found |= {head + name: ratio(here, head + name, head + EAGER) for name in runs if name != EAGER}
    return {"unit": "forward passes", "arms": arms, "ratios": found}


def lengths(settings: Settings) -> dict[str, Any]:
    """Forward passes per second of BERT-base's shape by length and by batch, one thread; the machine's peak beside it."""
    from bertcourse.deployment import export, peaks, quantize
    from bertcourse.runtime import Session

    arms = {}
    with tempfile.TemporaryDirectory() as folder, threads(1):
        plain = export(network("BERT-base", settings.layers), Path(folder, "fp32.onnx"))
        runs = {"FP32": Session(plain, threads=1, **CALM), "INT8": Session(quantize(plain, Path(folder, "int8.onnx")), threads=1, **CALM)}
        for kind, shapes in (("length", [(1, n) for n in settings.lengths]), ("batch", [(n, 32) for n in settings.batches])):
            for shape in shapes:
                arms |= rates(interleave({f"{kind} {max(shape) if kind == 'length' else shape[0]}: {name}":
                                          timed(run, inputs(*shape), settings.least) for name, run in runs.items()}, settings.rounds))  # fmt: skip
        limit = peaks(1, 256 if settings.quick else 1536)
    gflop = {n: network_flops(settings.layers, n) / 1e9 for n in settings.lengths}
    return {"unit": "forward passes", "arms": arms, "peak_gflops": limit, "gflop": gflop}


def network_flops(layers: int, length: int) -> float:
    """Operations of a forward pass of BERT-base's shape: matrix products, a multiply-add is two."""
    from dataclasses import replace

    from bertcourse.bert import SHAPES as KNOWN

    return sum(replace(KNOWN["BERT-base"], num_layers=layers).flops(length).values())


def settings_of_sessions(settings: Settings) -> dict[str, Any]:
    """Forward passes per second of BERT-base's shape in INT8 with other session settings, 1×32."""
    import onnxruntime as ort

    from bertcourse.deployment import bound, export, quantize
    from bertcourse.runtime import Session

    parallel = {"execution_mode": ort.ExecutionMode.ORT_PARALLEL}
    with tempfile.TemporaryDirectory() as folder:
        path = quantize(export(network("BERT-base", settings.layers), Path(folder, "fp32.onnx")), Path(folder, "int8.onnx"))
        made: dict[str, Callable] = {f"intra-op {n}": Session(path, threads=n, **CALM) for n in (1, 2, 4)}
        made |= {
            "intra-op 1, inter-op 2": Session(path, threads=1, inter_op_num_threads=2, **CALM),
            "intra-op 1, inter-op 2, parallel": Session(path, threads=1, inter_op_num_threads=2, **parallel, **CALM),
            "intra-op 1, no arena": Session(path, threads=1, enable_cpu_mem_arena=False, enable_mem_pattern=False, **CALM),
            "intra-op 1, IO binding": bound(Session(path, threads=1, **CALM)),
        }
        batch = inputs(*settings.shapes[0])
        arms = rates(interleave({name: timed(run, batch, settings.least) for name, run in made.items()}, settings.rounds))
    return {"unit": "forward passes", "arms": arms, "ratios": {name: ratio(arms, name, "intra-op 1") for name in arms if name != "intra-op 1"}}


def accuracy(settings: Settings) -> dict[str, Any]:
    """What INT8 costs on the toy tasks: points lost on 2,000 test examples, and the share of answers that stay the same."""
    from transformers import set_seed

    from bertcourse import profiles
    from bertcourse.corpus_tasks import dataset
    from bertcourse.deployment import export, quantize
    from bertcourse.jobs.exporting import compare_scores, points_lost
    from bertcourse.runtime import Session
    from bertcourse.tasks import task_of
    from bertcourse.training import fit

    profile, found, points = profiles.load("tiny").only("en"), {}, {}
    with tempfile.TemporaryDirectory() as folder, threads(settings.threads):
        for name in ("sentiment", "nli", "similarity", "ner", "qa"):
            data = dataset(name, "en", {"train": settings.examples, "test": 2000 if not settings.quick else 20})
            task = task_of(name, data["train"], profile.tokenizer())
            set_seed(0)
            model = task.model(profile.model, attn_implementation="eager")
            fit(model, task.encode(data["train"]), steps=settings.steps, lr=1e-3, batch_size=32, precision="bf16", collate=task.collate,
                progress=False)  # fmt: skip
            plain = export(model, Path(folder, f"{name}.onnx"), task.max_length)
            int8 = Session(quantize(plain, Path(folder, f"{name}.int8.onnx")), threads=settings.threads)
            found[name] = compare_scores(task, data["test"], model, int8)
            lost = points_lost(found[name])
            points[name] = {"points": lost, "goal": "<= 0.5", "met": lost <= 0.5}
    return {"unit": "", "arms": {}, "scores": found, "points lost": points}


# --- the command --------------------------------------------------------------------------------------------------

PARTS = {"speed": speed, "tried": tried, "students": students, "lengths": lengths, "settings": settings_of_sessions, "accuracy": accuracy}


def main() -> int:
    """Measure, print the tables, write the JSON."""
    return command(__doc__, PARTS, Settings, QUICK)


if __name__ == "__main__":
    sys.exit(main())
