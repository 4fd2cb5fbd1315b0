"""`serve --provider`: what runs the graph is what was asked for, or it is refused; /model says what it is. There is no GPU here."""

from types import SimpleNamespace

import commands
import httpx
import onnxruntime
import pytest
import services

from bertcourse import runtime
from bertcourse.app.serve import configure
from bertcourse.jobs import serving
from bertcourse.models import kinds
from bertcourse.models.exported import ExportedModel
from bertcourse.runtime import ModelError, Session, providers_of

SERVE = commands.Training("serve")
CUDA, CPU = runtime.PROVIDERS["cuda"], runtime.PROVIDERS["cpu"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with commands.surroundings():
        yield services.export(tmp_path_factory.mktemp("provider"), "pairs")["pairs"]


def with_cuda(monkeypatch, used: list[str], products: dict[str, int], **more) -> list:
    "An ONNX Runtime that says it has CUDA, uses these providers, and has given so many products to each; the sessions that were made."
    genuine, made = onnxruntime.InferenceSession, []
    nodes = {name: [SimpleNamespace(op_type="MatMulInteger")] * count + [SimpleNamespace(op_type="Shape")] * 9 for name, count in products.items()}

    def open_session(path, settings, providers, **options):
        made.append((settings, providers))
        inner = genuine(path, settings, providers=[CPU], **options)
        parts = [SimpleNamespace(ep_name=name, get_nodes=lambda name=name: nodes[name]) for name in nodes]
        return SimpleNamespace(run=inner.run, get_inputs=inner.get_inputs, get_outputs=inner.get_outputs, get_providers=lambda: used,
                               get_provider_graph_assignment_info=lambda: parts)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    return made


def test_names_are_those_of_the_library():
    assert kinds.PROVIDERS == tuple(runtime.PROVIDERS) and kinds.RUNTIMES == tuple(runtime.RUNTIMES)
    assert set(runtime.PROVIDERS.values()) <= set(onnxruntime.get_all_providers())
    assert providers_of("cpu") == (CPU,) and providers_of("cuda") == (CUDA, CPU)
    assert providers_of("tensorrt") == ("TensorrtExecutionProvider", CUDA, CPU)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_provider_that_is_not_there_is_one_sentence(model, monkeypatch, workers):
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    monkeypatch.setattr(serving, "greet", lambda *given: pytest.fail("it said that it is served"))
    SERVE.in_both_languages(monkeypatch, "has no cuda, only cpu: install", model, "--port", "0", "--provider", "cuda", "--workers", workers)
    SERVE.in_both_languages(monkeypatch, "OpenVINO runs on the CPU here", model, "--port", "0", "--provider", "cuda", "--runtime", "openvino", "--workers", workers)
    assert SERVE.call(model, "--provider", "gpu")[0] == 2


def test_a_provider_that_does_not_start_is_refused(model, monkeypatch):
    with_cuda(monkeypatch, [CPU], {})
    with pytest.raises(ModelError, match="CUDAExecutionProvider could not be started, CPUExecutionProvider would be used"):
        ExportedModel(model, provider="cuda")


def test_a_provider_that_leaves_the_work_to_the_cpu_is_refused(model, monkeypatch):
    with_cuda(monkeypatch, [CUDA, CPU], {CUDA: 3, CPU: 9})
    with pytest.raises(ModelError, match="cannot run 9 of the 12 matrix products in model.onnx, the CPU would: export the model without --int8"):
        ExportedModel(model, provider="cuda")


def test_a_provider_that_does_the_work_is_named(model, monkeypatch):
    made = with_cuda(monkeypatch, [CUDA, CPU], {CUDA: 12, CPU: 2})
    predictor = ExportedModel(model, provider="cuda")
    assert predictor.session.providers[0] == CUDA and predictor.answer([services.ASKED["pairs"]])
    ((settings, providers),) = made
    assert providers == [CUDA, CPU] and settings.get_session_config_entry(runtime.ASSIGNED) == "1"


def test_one_process_for_a_gpu(model):
    from bertcourse.app.cli import Parser
    parser = Parser()
    configure(parser)

    def workers(*words: str) -> int:
        args = parser.parse_args([str(model), *words])
        return serving.ServeOptions.of(vars(args)).settings().workers
    assert workers("--provider", "cuda") == 1
    assert workers("--provider", "cuda", "--workers", "3") == 3


@pytest.mark.parametrize("name, said", [("ort", CPU), ("openvino", "CPU")])
def test_the_service_says_what_is_in_use(model, tmp_path, name, said):
    if name == "openvino":
        pytest.importorskip("openvino")
    with services.serve(model, "--workers", 1, "--runtime", name, "--provider", "cpu", log=tmp_path / "log") as service:
        found = httpx.get(service.url + "model").json()
        assert (found["runtime"], found["provider"]) == (name, said)
        assert service.stop() == 0


def test_the_real_runtime_says_who_runs_what(model, monkeypatch):
    "The interface that `Session` asks, with the provider that is here."
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry(runtime.ASSIGNED, "1")
    session = onnxruntime.InferenceSession(str(model / "model.onnx"), settings, providers=[CPU])
    parts = session.get_provider_graph_assignment_info()
    operators = [(part.ep_name, node.op_type) for part in parts for node in part.get_nodes()]
    assert {provider for provider, _ in operators} == {CPU} and sum("MatMul" in operator for _, operator in operators) >= 6
    assert Session(model / "model.onnx").providers == [CPU]
