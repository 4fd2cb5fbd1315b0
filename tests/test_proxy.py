"""Behind a proxy, requests to this machine go past it: the proxy would ask itself, or refuse.

Each test has two servers: one that is meant, and a proxy that answers 403 to whatever it is asked.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMPORT = "from bertcourse.services import send_request, wait_until_ready"  # what page 7.5 asks its services with


@contextmanager
def answering(statuses: dict[str, list[int]] | int) -> Iterator[ThreadingHTTPServer]:
    "A server whose answers have these statuses, for each path in turn (the last one for ever); it notes what it was asked."
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("content-length", 0)))
            wanted = statuses if isinstance(statuses, int) else statuses.get(self.path, [404])
            status = wanted if isinstance(wanted, int) else wanted.pop(0) if len(wanted) > 1 else wanted[0]
            body = json.dumps({"status": status}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def url_of(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def proxy() -> Iterator[ThreadingHTTPServer]:
    "A proxy that refuses; at the end nobody must have asked it."
    with answering(403) as server:
        yield server
        assert server.asked == []


def behind(proxy: ThreadingHTTPServer) -> dict[str, str]:
    "The environment of somebody behind that proxy, without exceptions."
    kept = {name: value for name, value in os.environ.items() if name.lower() not in ("no_proxy", "http_proxy", "https_proxy", "all_proxy")}
    return kept | {name: url_of(proxy) for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy")}


def run(proxy: ThreadingHTTPServer, *command: str) -> str:
    "What a command prints behind the proxy."
    done = subprocess.run(command, env=behind(proxy), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def on_the_page(proxy: ThreadingHTTPServer, code: str) -> str:
    "What a line prints after the import of what page 7.5 asks with; `process` is one that runs."
    before = "import json, subprocess, sys\nprocess = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
    return run(proxy, sys.executable, "-c", f"{before}{IMPORT}\ntry:\n{textwrap.indent(code, '    ')}\nfinally: process.kill()")


def test_the_page_asks_the_server_itself(proxy):
    with answering({"/health": [200]}) as server:
        assert on_the_page(proxy, f"print(send_request('{url_of(server)}/health')[0], send_request('{url_of(server)}/none', {{}})[0])") == "200 404\n"


def test_the_page_waits_for_200_and_for_nothing_less(proxy):
    with answering({"/ready": [503, 403, 200]}) as server:
        assert on_the_page(proxy, f"print(wait_until_ready('{url_of(server)}/ready', process))") == "200\n"
        assert len(server.asked) == 3


@pytest.mark.parametrize("there", [True, False])
def test_the_page_does_not_wait_for_ever(proxy, there):
    with answering(503) as server:
        url = url_of(server) if there else "http://127.0.0.1:9"
        code = f"try: wait_until_ready('{url}/ready', process, seconds=0.3)\nexcept TimeoutError as error: print(error)"
        assert on_the_page(proxy, code) == f"{url}/ready: not ready within 0.3 seconds ({503 if there else 'no answer'})\n"


def test_the_page_notices_that_the_server_has_ended(proxy):
    code = "process.kill(); process.wait()\ntry: wait_until_ready('http://127.0.0.1:9', process)\nexcept RuntimeError as error: print(error)"
    assert on_the_page(proxy, code) == "the server has ended\n"


def examples(address: str) -> list[str]:
    "The two examples of a request on `/docs`, as a reader copies them."
    from bertcourse.serving import docs, settings

    said = {"content": {"application/json": {"example": {"text": "it's good"}}}}
    described = {"info": {"title": "t", "description": "d", "version": "1"}, "components": {},
                 "paths": {"/predict": {"post": {"requestBody": said, "responses": {"200": said}, "operationId": "predict", "summary": "s"}}}}
    page = docs.page(described, settings.Settings("folder"), address, "en").decode()
    return [unescape(text) for text in re.findall(r"<pre><code>(.*?)</code></pre>", page, re.DOTALL)][:2]


def test_the_examples_of_docs_ask_this_machine_itself(proxy):
    with answering({"/predict": [200]}) as server:
        curl, python = examples(url_of(server))
        assert json.loads(run(proxy, sys.executable, "-c", python).replace("'", '"')) == {"status": 200}
        if shutil.which("curl"):
            assert json.loads(run(proxy, "bash", "-c", f"{curl} -sS")) == {"status": 200}
        assert "--noproxy '*'" in curl and "'\"'\"'" in curl  # the apostrophe of the text is quoted


def test_the_examples_of_docs_leave_the_proxy_to_others():
    """Another machine may be one that only the proxy reaches."""
    for example in examples("http://models.example:8000"):
        assert "proxy" not in example.lower() and "http://models.example:8000/predict" in example
    for address in ("http://localhost:8000", "http://[::1]:8000"):
        assert all("proxy" in example.lower() for example in examples(address))


def test_the_container_asks_itself(proxy):
    text = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^HEALTHCHECK.*?CMD (\[.*\])$", text, re.MULTILINE)
    python, option, code = json.loads(line)
    assert (python, option) == ("python", "-c")
    with answering({"/health": [200]}) as server:
        here = code.replace("http://127.0.0.1:8000", url_of(server))
        assert here != code
        run(proxy, sys.executable, "-c", here)
        failing = subprocess.run([sys.executable, "-c", here.replace("/health", "/none")], env=behind(proxy), capture_output=True)
        assert failing.returncode == 1


def test_the_benchmark_asks_its_servers_themselves(proxy):
    with answering({"/predict": [200]}) as server:
        port = server.server_address[1]
        code = f"import sys; sys.path[:0] = [{str(ROOT / 'benchmarks')!r}]; import serve; print(serve.answers({port}))"
        assert run(proxy, sys.executable, "-c", code) == "True\n"


def test_tests_ask_their_servers_themselves(proxy):
    """httpx reads the environment; `conftest.py` names the exceptions."""
    code = "import httpx, sys; print(httpx.get(sys.argv[1]).status_code)"
    with answering(200) as server:
        given = behind(proxy) | {name: os.environ[name] for name in ("no_proxy", "NO_PROXY")}
        done = subprocess.run([sys.executable, "-c", code, url_of(server)], env=given, capture_output=True, text=True, timeout=60)
        assert done.stdout == "200\n", done.stderr


PLAIN = re.compile(r"\burlopen\(|\bHTTPConnection\(|\brequests\.(?:get|post)\(|\burlretrieve\(")
ALLOWED = {"bertcourse/serving/docs.py": 1, "tools/install.py": 1}  # an example for another machine; an index, as pip asks it


def test_nothing_else_asks_through_what_the_environment_says():
    files = [path for folder in ("bertcourse", "benchmarks", "deploy", "experiments", "nbs", "tools", "exercises")
             for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".ipynb", ".sh", ".yaml", "") and path.is_file()]
    assert len(files) > 60
    found = {path.relative_to(ROOT).as_posix(): len(PLAIN.findall(path.read_text(encoding="utf-8"))) for path in files}
    assert {name: count for name, count in found.items() if count} == ALLOWED
