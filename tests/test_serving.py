"""The service: its tokenizer, its answers, its refusals, its description, its start and its end."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import commands
import httpx
import jsonschema
import pytest
import services
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from services import ASKED, HEADS, numbers

from bertcourse.assets import asset
from bertcourse.models.exported import ExportedModel, fields_of
from bertcourse.models.tokenizer import Tokenizer
from bertcourse.runtime import ModelError
from bertcourse.serving.inputs import CODES
from bertcourse.serving.settings import Settings, read_token
from bertcourse.serving.web import Service
from bertcourse.tasks import TASK_TYPES

examples.register_profile("busy", deadline=None, max_examples=60)
examples.load_profile("busy")
ROOT = Path(__file__).parents[1]
LINE = re.compile(r"bertcourse: [^\n]+\n")


@pytest.fixture(autouse=True, scope="module")
def surroundings(cached_exports):
    with commands.surroundings():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return services.export(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def predictors(models) -> dict[str, ExportedModel]:
    return {kind: ExportedModel(folder) for kind, folder in models.items()}


class Client:
    "Requests to an application in this process, with its lifespan."

    def __init__(self, service: Service) -> None:
        self.service, self.loop = service, asyncio.new_event_loop()
        self.app = service.app()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self._do(service.batcher.start())

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def __call__(self, method: str, path: str, **more) -> httpx.Response:
        async def ask():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                return await client.request(method, path, **more)
        return self._do(ask())

    def post(self, body, **more) -> httpx.Response:
        if isinstance(body, bytes):
            return self("POST", "/predict", content=body, **{"headers": {"content-type": "application/json"}} | more)
        return self("POST", "/predict", json=body, **more)

    def close(self) -> None:
        self._do(self.service.batcher.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)


@pytest.fixture
def client(predictors):
    "`client(kind, **settings)`: a client of a new service."
    opened = []

    def make(kind: str = "classification", **changes) -> Client:
        predictor = predictors[kind]
        opened.append(Client(Service(replace(Settings(str(predictor.folder)), **changes), predictor)))
        return opened[-1]
    yield make
    for one in opened:
        one.close()


# --- the tokenizer ------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def tokenizers():
    from transformers import AutoTokenizer
    return Tokenizer(asset("tiny-bert")), AutoTokenizer.from_pretrained(asset("tiny-bert"))


WORDS = st.text(st.sampled_from("ab cЖé\u0301中文，.!\t\u200b#[]MASKSEP'😀"), max_size=60)


@given(st.lists(WORDS, min_size=1, max_size=4), st.integers(8, 40))
def test_sentences_and_pairs_as_transformers_cuts_them(tokenizers, texts, length):
    ours, theirs = (TASK_TYPES["classification"](one, ("a", "b"), max_length=length) for one in tokenizers)
    rows = [{"sentence": text} for text in texts]
    assert ours.encode(rows, labelled=False) == theirs.encode(rows, labelled=False)
    rows = [{"sentence1": text, "sentence2": text[::-1]} for text in texts]
    assert ours.encode(rows, labelled=False) == theirs.encode(rows, labelled=False)


@given(st.lists(st.lists(WORDS.filter(str.strip), min_size=1, max_size=30), min_size=1, max_size=3), st.integers(8, 24))
def test_words_as_transformers_cuts_them(tokenizers, tokens, length):
    ours, theirs = (TASK_TYPES["ner"](one, ("O", "B-X"), max_length=length) for one in tokenizers)
    rows = [{"tokens": one} for one in tokens]
    assert ours.encode(rows, labelled=False) == theirs.encode(rows, labelled=False)


@given(WORDS.filter(str.strip), st.lists(WORDS, min_size=1, max_size=6).map(" ".join), st.integers(12, 48))
def test_questions_and_passages_as_transformers_cuts_them(tokenizers, question, context, length):
    ours, theirs = (TASK_TYPES["qa"](one, max_length=length) for one in tokenizers)
    rows = [{"question": question, "context": context}]
    assert ours.encode(rows, labelled=False) == theirs.encode(rows, labelled=False)


def test_a_tokenizer_knows_what_the_session_needs(tokenizers):
    ours, theirs = tokenizers
    assert ours.pad_token_id == theirs.pad_token_id and ours.model_max_length == theirs.model_max_length
    assert len(ours) == len(theirs)
    assert ours.count("my dog is hairy") == len(theirs("my dog is hairy")["input_ids"])


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [None, "{", '{"model": {}}'])
def test_a_broken_tokenizer_is_one_sentence(models, tmp_path, name, content):
    folder = shutil.copytree(models["classification"], tmp_path / "model")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content, encoding="utf-8")
    if (name, content) == ("tokenizer_config.json", '{"model": {}}'):
        return  # says nothing, and nothing is needed
    with pytest.raises(ModelError, match="export the model again") as found:
        ExportedModel(folder)
    assert commands.HAN.search(found.value.zh) and "\n" not in found.value.en


# --- answers ------------------------------------------------------------------------------------------------------

LIGHT = """
import sys, json, pathlib
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "datasets", "scipy", "sklearn", "huggingface_hub", "matplotlib", "onnx", "pandas"}:
            raise ImportError(f"{name} was asked for")
sys.meta_path.insert(0, Refuse())
from bertcourse.app.cli import main
from bertcourse.serving import server, web
from bertcourse.serving.settings import Settings
for folder, asked in json.load(sys.stdin):
    service = server.make_app(Settings(folder)).service
    print(json.dumps(service.predictor.answer([asked])))
"""


def test_nothing_heavy_is_imported(models, predictors):
    given = json.dumps([[str(folder), ASKED[kind]] for kind, folder in models.items()])
    done = subprocess.run([sys.executable, "-c", LIGHT], input=given, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert said == [predictors[kind].answer([ASKED[kind]]) for kind in models]


@pytest.mark.parametrize("kind", HEADS)
def test_answers_are_those_of_predict(client, models, kind):
    asked = ASKED[kind]
    columns = {"text": "sentence1" if "text_pair" in asked else "sentence", "text_pair": "sentence2"}
    line = asked["text"] if kind == "ner" else json.dumps({columns.get(name, name): text for name, text in asked.items()})
    code, out, err = commands.run("predict", models[kind], "--scores", stdin=line + "\n")
    assert code == 0, err
    (said,) = client(kind).post(asked).json()["predictions"]
    assert said.pop("truncated") is False and said == json.loads(out)


@pytest.mark.parametrize("kind", HEADS)
def test_lists_are_answered_in_their_order(client, kind):
    ask = client(kind, max_batch=4)
    asked = {name: [f"{i} {text}" for i in range(11)] for name, text in ASKED[kind].items()}
    singly = [ask.post({name: texts[i] for name, texts in asked.items()}).json()["predictions"][0] for i in range(11)]
    together = ask.post(asked).json()["predictions"]
    assert len({json.dumps(one) for one in singly}) > 3
    for a, b in zip(together, singly, strict=True):
        assert json.loads(json.dumps(a), parse_float=lambda s: None) == json.loads(json.dumps(b), parse_float=lambda s: None)
        assert numbers(a) == pytest.approx(numbers(b), abs=1e-4)


def test_what_is_cut_off_is_said(client):
    ask = client(max_chars=100)
    short, many, long = ask.post({"text": ["good", "good " * 15, "good " * 60]}).json()["predictions"]
    assert [one["truncated"] for one in (short, many, long)] == [False, False, True]  # 48 pieces fit: 15 do, 100 characters are fewer than 300
    assert client().post({"text": ["good " * 46, "good " * 47]}).json()["predictions"][1]["truncated"] is True
    assert client().post({"text": ["good " * 46, "good " * 47]}).json()["predictions"][0]["truncated"] is False
    pair = client("pairs").post({"text": ["good " * 20, "good " * 40], "text_pair": ["bad " * 20, "bad"]}).json()["predictions"]
    assert [one["truncated"] for one in pair] == [False, False]
    assert client("pairs").post({"text": "good " * 30, "text_pair": "bad " * 30}).json()["predictions"][0]["truncated"] is True


def test_long_texts_of_windows_lose_nothing(client):
    text = "Mary went to Paris. " * 40
    (said,) = client("ner").post({"text": text}).json()["predictions"]
    assert not said["truncated"] and max(span["end"] for span in said["spans"]) > 700
    assert all(text[span["start"]:span["end"]] == span["text"] for span in said["spans"])
    (said,) = client("qa").post({"question": "Where?", "context": text}).json()["predictions"]
    assert not said["truncated"] and text[said["start"]:said["end"]] == said["answer"]
    (said,) = client("qa").post({"question": "where " * 40, "context": text}).json()["predictions"]
    assert said["truncated"]


def test_places_count_characters_also_beyond_the_first_plane(client):
    text = "😀😀 Mary went to 北京。"
    (said,) = client("ner").post({"text": text}).json()["predictions"]
    assert said["spans"] and all(text[span["start"]:span["end"]] == span["text"] for span in said["spans"])


def test_fields_of_models_that_say_little(predictors):
    about = predictors["classification"].about
    assert fields_of(replace(about, inputs=())) == (("text",), ("text_pair",))
    assert fields_of(replace(about, task="nli", inputs=())) == (("text", "text_pair"), ())
    assert fields_of(replace(about, inputs=("sentence1", "sentence2"))) == (("text", "text_pair"), ())


# --- refusals -----------------------------------------------------------------------------------------------------

def refused(answer: httpx.Response, code: str, field: str | None = None) -> str:
    assert answer.status_code == CODES[code][0], answer.text
    said = answer.json()["error"]
    assert said["code"] == code and said.get("field") == field, said
    assert set(answer.json()) == {"error"} and set(said) <= {"code", "message", "field"} and "Traceback" not in answer.text
    return said["message"]


BAD = [  # body, code, field
    (b"\xff{}", "not_utf8", None),
    ('{"text": "é"}'.encode("utf-16"), "not_utf8", None),
    (b"", "not_json", None), (b"{", "not_json", None), (b"text=good", "not_json", None), (b'{"text": NaN}', "not_json", None),
    (b'{"text": ' + b"9" * 5000 + b"}", "not_json", None),
    (b"[" * 100_000 + b"]" * 100_000, "not_json", None), (b'{"text":' * 50_000, "not_json", None),
    (b"null", "wrong_type", None), (b"[]", "wrong_type", None), (b'"text"', "wrong_type", None), (b"3", "wrong_type", None),
    (b"{}", "missing_field", "text"), (b'{"texts": "a"}', "unknown_field", "texts"), (b'{"text": "a", "text_pair": "b"}', "unknown_field", "text_pair"),
    (b'{"text": 3}', "wrong_type", "text"), (b'{"text": true}', "wrong_type", "text"), (b'{"text": null}', "wrong_type", "text"),
    (b'{"text": {"a": "b"}}', "wrong_type", "text"), (b'{"text": ["a", 3]}', "wrong_type", "text[1]"), (b'{"text": [["a"]]}', "wrong_type", "text[0]"),
    (b'{"text": ""}', "empty_text", "text"), (b'{"text": " \\t\\n\\u3000"}', "empty_text", "text"), (b'{"text": []}', "empty_text", "text"),
    (b'{"text": ["a", " "]}', "empty_text", "text[1]"),
    (b'{"text": "\\ud800"}', "invalid_text", "text"), (b'{"text": ["a", "\\udfff b"]}', "invalid_text", "text[1]"),
    (b'{"\\ud800": "a"}', "unknown_field", "\\ud800"),
    (json.dumps({"text": ["a"] * 65}).encode(), "too_many_texts", "text"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "field"), BAD, ids=lambda value: value[:24] if isinstance(value, bytes) else value)
def test_a_bad_body_is_refused_in_words(client, body, code, field):
    message = refused(client().post(body), code, field)
    assert message[0].islower() or message[0] in '\\"' or message.startswith("NaN")
    assert len(message) < 200


def test_lists_that_do_not_belong_together(client):
    ask = client("pairs")
    for body in ({"text": ["a", "b"], "text_pair": ["a"]}, {"text": "a", "text_pair": ["a"]}, {"text": ["a"], "text_pair": "a"}):
        refused(ask.post(body), "different_lengths", "text_pair")
    refused(ask.post({"text": "a"}), "missing_field", "text_pair")
    refused(client("qa").post({"question": "a", "text": "b"}), "unknown_field", "text")


def test_a_body_of_another_type_or_size(client):
    ask = client(max_body=1000)
    refused(ask("POST", "/predict", data={"text": "good"}), "wrong_content_type")
    refused(ask("POST", "/predict", content=b'{"text": "a"}'), "wrong_content_type")
    answer = ask.post({"text": "a" * 1000})
    refused(answer, "body_too_large")
    assert answer.headers["connection"] == "close"
    assert ask("POST", "/predict", content=b'{"text": "a"}', headers={"content-type": "Application/JSON; charset=utf-8"}).status_code == 200

    async def pieces():
        for _ in range(100):
            yield b" " * 100
    refused(ask("POST", "/predict", content=pieces(), headers={"content-type": "application/json"}), "body_too_large")


def test_more_work_than_one_request_may_make(client, predictors, monkeypatch):
    many = {"question": ["Where?"] * 64, "context": ["Mary went to Paris. " * 500] * 64}  # 10,000 characters each
    assert "makes more than 256 windows" in refused(client("qa").post(many), "too_much_work")
    assert "makes more than 300 tokens" in refused(client("qa", max_pieces=300).post({"question": "Where?", "context": "Mary went to Paris. " * 60}), "too_much_work")
    assert "makes more than 2 windows" in refused(client("ner", max_windows=2).post({"text": "Mary went to Paris. " * 60}), "too_much_work")
    assert "makes more than 2 windows" in refused(client(max_windows=2).post({"text": ["a", "b", "c"]}), "too_much_work")
    begin = time.monotonic()
    refused(client("qa").post(many), "too_much_work")
    assert time.monotonic() - begin < 2, "the rest of such a request is not even cut into pieces"
    monkeypatch.setattr(predictors["qa"], "measure", lambda: (0.0, 0.01))
    slow = client("qa", timeout=2.0)
    assert "would take more than 1 s" in refused(slow.post({"question": "Where?", "context": "Mary went to Paris. " * 60}), "too_much_work")
    assert slow.post({"question": "Where?", "context": "Mary went to Paris."}).status_code == 200
    limits = client("qa", max_windows=9, max_pieces=8)("GET", "/model").json()["limits"]
    assert (limits["windows"], limits["pieces"]) == (9, 8)


def test_windows_of_many_rows_are_put_together_rightly(client):
    contexts = ["Mary went to Paris. " * n + "Tom stayed at home." for n in (1, 40, 3, 20)]
    ask = client("qa", max_batch=3)
    one_by_one = [ask.post({"question": "Where?", "context": context}).json()["predictions"][0] for context in contexts]
    together = ask.post({"question": ["Where?"] * 4, "context": contexts}).json()["predictions"]
    assert [one["start"] for one in together] == [one["start"] for one in one_by_one]
    assert numbers(together) == pytest.approx(numbers(one_by_one), abs=1e-4)


def test_large_requests_are_cut_into_pieces_by_one_thread(client):
    ask = client("ner")
    ask.service._big = 8
    refused(ask.post({"text": ["Mary went to Paris. " * 400] * 4}), "queue_full")
    assert ask.post({"text": "Mary went to Paris."}).status_code == 200
    ask.service._big = 0


def test_paths_and_methods(client):
    ask = client()
    refused(ask("GET", "/nothing"), "not_found")
    refused(ask("GET", "/health/"), "not_found")
    refused(ask("GET", "/static/../settings.py"), "not_found")
    answer = ask("GET", "/predict")
    refused(answer, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    refused(ask("DELETE", "/model"), "method_not_allowed")
    assert ask("HEAD", "/health").status_code == 200


def test_a_token_guards_what_costs_or_tells(predictors, monkeypatch):
    monkeypatch.setenv("BERTCOURSE_TOKEN", "sesame")
    predictor = predictors["classification"]
    ask = Client(Service(Settings(str(predictor.folder)), predictor))
    for method, path in (("POST", "/predict"), ("GET", "/model"), ("GET", "/metrics")):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "sesame"}, {"authorization": "Basic sesame"}, {"authorization": "Bearersesame"}):
            answer = ask(method, path, headers=headers)
            refused(answer, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
    for right in ("Bearer sesame", "bearer sesame", "BEARER  sesame"):  # the scheme's name has no case (RFC 9110, 11.1)
        assert ask.post({"text": "a"}, headers={"authorization": right}).status_code == 200
    for path in ("/", "/health", "/ready", "/docs", "/openapi.json"):
        assert ask("GET", path).status_code == 200
    described = ask("GET", "/openapi.json")
    assert "securitySchemes" in described.json()["components"]
    assert not [label for label in predictor.about.labels if f'"{label}"' in described.text], "labels are for those who may see /model"
    ask.close()


@pytest.mark.parametrize("given, token", [("sesame\n", "sesame"), (" sesame\r\n", "sesame"), ("\n", ""), ("a.b~c-1==", "a.b~c-1==")])
def test_a_token_is_read_as_files_have_it(given, token):
    assert read_token({"BERTCOURSE_TOKEN": given}) == token


@pytest.mark.parametrize("given", ["open sesame", "a\tb", "sésame", "a\x00b"])
def test_a_token_that_no_header_can_carry_is_refused(given):
    with pytest.raises(ModelError, match="BERTCOURSE_TOKEN holds a blank"):
        read_token({"BERTCOURSE_TOKEN": given})


def test_a_name_that_was_made_to_point_here_is_refused(client):
    ask = client()
    refused(ask("GET", "/health", headers={"host": "evil.example:8000"}), "bad_request")
    for host in ("localhost", "localhost:8000", "127.0.0.1:9", "[::1]:8000", "[::1]"):
        assert ask("GET", "/health", headers={"host": host}).status_code == 200
    assert client(host="0.0.0.0")("GET", "/health", headers={"host": "service.example"}).status_code == 200


class Slow:
    "A predictor whose model does not answer before it may."

    def __init__(self, predictor: ExportedModel) -> None:
        self.predictor, self.go = predictor, threading.Event()

    def __getattr__(self, name: str):
        return getattr(self.predictor, name)

    def measure(self):
        return 0.03, 0.0  # so slow that nobody is answered at once

    def run(self, inputs):
        self.go.wait(20)
        return self.predictor.run(inputs)


def test_too_late_too_many_and_stopping(predictors):
    slow = Slow(predictors["classification"])
    slow.go.set()
    ask = Client(Service(replace(Settings(str(slow.folder)), timeout=1.0, max_queue=2), slow))
    slow.go.clear()
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(ask.post, {"text": ["a", "b"]}) for _ in range(6)]
        answers = [job.result() for job in jobs]
    late = [answer.status_code for answer in answers].count(503)
    assert late in (1, 2) and [answer.status_code for answer in answers].count(429) == 6 - late  # one with the model, one that waits if it came later
    for answer in answers:
        refused(answer, "queue_full" if answer.status_code == 429 else "timed_out")
        assert int(answer.headers["retry-after"]) >= 1
    slow.go.set()
    assert ask.post({"text": "a"}).status_code == 200
    ask.service.draining = True
    refused(ask("GET", "/ready"), "stopping")
    assert ask.post({"text": "a"}).headers["connection"] == "close"
    ask._do(ask.service.batcher.stop())
    refused(ask.post({"text": "a"}), "stopping")
    ask.loop.call_soon_threadsafe(ask.loop.stop)


def test_a_batch_that_does_not_end_is_no_health(client):
    ask = client()
    ask.service.batcher.busy_since = time.monotonic() - 1000
    refused(ask("GET", "/health"), "not_ready")
    refused(ask("GET", "/ready"), "not_ready")
    ask.service.batcher.busy_since = None
    assert ask("GET", "/health").json() == {"status": "alive"} and ask("GET", "/ready").json() == {"status": "ready"}


def test_faults_of_our_own_say_nothing_outside(predictors, monkeypatch, caplog):
    predictor = predictors["classification"]
    ask = Client(Service(Settings(str(predictor.folder)), predictor))
    secret = "what somebody wrote"

    def fail(*given):
        raise RuntimeError(secret)
    monkeypatch.setattr(ask.service, "_prepare", fail)
    answer = ask.post({"text": secret})
    assert answer.headers["x-request-id"] in refused(answer, "internal_error")
    assert secret not in answer.text and secret not in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr(predictor, "run", lambda inputs: (_ for _ in ()).throw(ModelError("nan", "nan")))
    refused(ask.post({"text": "a"}), "model_failed")
    ask.close()


def test_damaged_weights_are_found_before_anybody_asks(predictors, monkeypatch):
    import numpy as np
    predictor = predictors["classification"]
    monkeypatch.setattr(predictor.session, "outputs_of", lambda rows, size: [{"logits": np.array([np.nan] * 5)} for _ in rows])
    with pytest.raises(ModelError, match="nan"):
        predictor._check()


def test_every_code_has_been_seen():
    source = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_serving*.py"))
    assert not [code for code in CODES if f'"{code}"' not in source]


# --- headers, logs, counts ----------------------------------------------------------------------------------------

def test_headers_of_every_answer(client):
    ask = client()
    for answer in (ask("GET", "/"), ask("GET", "/nothing"), ask.post({"text": "a"}), ask.post(b"{")):
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
        assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"]) and "server" not in answer.headers
    for page in (ask("GET", "/"), ask("GET", "/docs"), ask("GET", "/static/try.js")):
        assert "default-src 'none'" in page.headers["content-security-policy"] and "unsafe" not in page.headers["content-security-policy"]
        assert page.headers["x-frame-options"] == "DENY" and page.headers["referrer-policy"] == "no-referrer"
    assert ask("GET", "/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert ask("GET", "/health", headers={"x-request-id": "a b<script>"}).headers["x-request-id"] != "a b<script>"


def test_logs_are_json_without_the_texts(client, monkeypatch, tmp_path):
    from bertcourse.serving import logs
    log = tmp_path / "log"
    with log.open("wb") as out:
        monkeypatch.setattr(logs, "_writers", [logs.Writer(out.fileno())])
        logs.set_up()
        ask_and_look(client, lambda: logs.writer().flush() and log.read_text(encoding="utf-8"))


def ask_and_look(client, read) -> None:
    "Requests with words that no log may hold."
    ask = client()
    ask.post({"text": ["secret-word", "secret-word"]}, headers={"x-request-id": "one"})
    ask("GET", "/secret-word?text=secret-word")
    ask.post({"text": 3, "secret-word": "secret-word"})
    said = read()
    assert "secret-word" not in said
    first, second, third = (json.loads(line) for line in said.splitlines())
    assert first["event"] == "request" and first["id"] == "one" and first["path"] == "/predict" and first["status"] == 200 and first["texts"] == 2
    assert second["path"] == "unknown" and second["code"] == "not_found" and third["code"] == "unknown_field"
    quiet = client(log="errors")
    quiet.post({"text": "a"})
    assert read() == said


def test_counts(client):
    ask = client()
    ask.post({"text": ["a", "b " * 100]})
    ask.post(b"{")
    ask("GET", "/nothing")
    said = ask("GET", "/metrics")
    assert said.headers["content-type"].startswith("text/plain")
    counts = dict(line.rsplit(" ", 1) for line in said.text.splitlines() if line and line[0] != "#")
    assert float(counts['bertcourse_requests_total{path="/predict",status="200"}']) == 1
    assert float(counts['bertcourse_requests_total{path="unknown",status="404"}']) == 1
    assert float(counts['bertcourse_errors_total{code="not_json"}']) == 1
    assert float(counts["bertcourse_texts_total"]) == 2 and float(counts["bertcourse_texts_truncated_total"]) == 1
    assert float(counts["bertcourse_batch_size_sum"]) == 2 and float(counts["bertcourse_queue_inputs"]) == 0
    assert float(counts["bertcourse_request_seconds_count"]) == 2


def test_the_model_says_what_it_is(client, models):
    about = json.loads((models["classification"] / "bertcourse.json").read_text(encoding="utf-8"))
    said = client()("GET", "/model").json()
    assert re.fullmatch("[0-9a-f]{64}", said["fingerprint"]) and said["labels"] == about["labels"] and said["max_length"] == 48
    assert said["name"] == "classification" and str(models["classification"].parent) not in json.dumps(said)
    assert said["quantisation"] is None and (said["runtime"], said["provider"]) == ("ort", "CPUExecutionProvider")
    assert client("qa")("GET", "/model").json()["fields"] == {"required": ["question", "context"], "optional": []}


def test_the_model_says_that_it_has_8_bits(models, tmp_path):
    source = models["classification"].parent / "checkpoints" / "classification"
    assert commands.run("export", source, "--out", tmp_path / "int8", "--int8", "dynamic", "--quiet")[0] == 0
    ask = Client(Service(Settings(str(tmp_path / "int8")), ExportedModel(tmp_path / "int8")))
    assert ask("GET", "/model").json()["quantisation"] == "dynamic"
    ask.close()


# --- the description ----------------------------------------------------------------------------------------------

def resolved(document: dict, name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


@pytest.mark.parametrize("kind", HEADS)
def test_a_chinese_model_is_described_by_a_chinese_example(models, tmp_path, kind):
    folder = shutil.copytree(models[kind], tmp_path / kind)
    about = json.loads((folder / "bertcourse.json").read_text(encoding="utf-8"))
    (folder / "bertcourse.json").write_text(json.dumps(about | {"lang": "zh"}), encoding="utf-8")
    ask = Client(Service(Settings(str(folder)), ExportedModel(folder)))
    example = ask("GET", "/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert all(re.search("[\u4e00-\u9fff]", text) for text in example.values()) and ask.post(example).status_code == 200
    assert [*example.values()][0] in ask("GET", "/docs").text
    ask.close()


@pytest.mark.parametrize("kind", HEADS)
def test_the_description_is_right(client, kind):
    ask = client(kind)
    document = ask("GET", "/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    predict = document["paths"]["/predict"]["post"]
    example = predict["requestBody"]["content"]["application/json"]["example"]
    answer = ask.post(example)
    assert answer.status_code == 200
    shown = predict["responses"]["200"]["content"]["application/json"]["example"]
    assert numbers(shown) == pytest.approx(numbers(answer.json()), abs=1e-4)
    validator = jsonschema.Draft202012Validator
    for body in (example, {name: [text] * 2 for name, text in example.items()}):
        validator(resolved(document, "Request")).validate(body)
        validator(resolved(document, "Predictions")).validate(ask.post(body).json())
    for body in ({}, {**example, "more": "x"}, dict.fromkeys(example, ""), dict.fromkeys(example, " "), dict.fromkeys(example, 3)):
        assert not validator(resolved(document, "Request")).is_valid(body)
        answer = ask.post(body)
        assert str(answer.status_code) in predict["responses"]
        validator(resolved(document, "Problem")).validate(answer.json())
    for path, name in (("/model", "Model"), ("/health", "Status"), ("/ready", "Status")):
        validator(resolved(document, name)).validate(ask("GET", path).json())
    assert set(document["paths"]) == {"/predict", "/health", "/ready", "/model", "/metrics"}
    assert {status for _, (status, _) in CODES.items()} - {404, 405} <= {int(s) for s in predict["responses"]} | {401}


def test_pages_need_nothing_from_elsewhere(client):
    ask = client()
    for lang in ("zh", "en"):
        page = ask("GET", "/docs", params={"lang": lang}).text
        assert f'lang="{lang}"' in page and bool(commands.HAN.search(page.replace("中文", ""))) == (lang == "zh")
        assert not re.search(r"https?://(?!127\.0\.0\.1)", page) and "<script" not in page and " style=" not in page
        assert all(code in page for code in CODES)
    assert "curl http://localhost:81/predict" in ask("GET", "/docs", headers={"host": "localhost:81"}).text
    away = client(host="0.0.0.0")("GET", "/docs", headers={"host": 'a.example"><script>'}).text
    assert "<script" not in away and "http://127.0.0.1:8000/predict" in away
    assert 'lang="zh"' in ask("GET", "/docs", headers={"accept-language": "zh-CN,zh;q=0.9"}).text
    for path in ("/", "/static/try.js", "/static/style.css"):
        text = ask("GET", path).text
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text) and "innerHTML" not in text and " style=" not in text


def test_no_pickle_anywhere():
    for path in (ROOT / "bertcourse" / "serving").rglob("*.py"):
        assert not re.search(r"\b(pickle|marshal|shelve|joblib|multiprocessing|eval|exec)\b(?!_mode)", path.read_text(encoding="utf-8")
                             .replace("prometheus_client.multiprocess", "").replace("multiprocess_mode", "")), path
