"""Nothing is sent, and no id is written, by what runs exported models: the libraries below would, if they were let."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import commands
import pytest
import services

# Notes every name that the process or a library in it asks the resolver for.
RESOLVER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    FILE *file = fopen(getenv("ASKED_NAMES"), "a");
    if (file) { fprintf(file, "%s\n", node ? node : ""); fclose(file); }
    int (*genuine)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    return genuine(node, service, hints, found);
}
"""
LOCAL = {"127.0.0.1", "localhost", "::1", "0.0.0.0", ""}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    "A classifier in ONNX."
    with commands.surroundings():
        return services.export(tmp_path_factory.mktemp("exported"), "classification")["classification"]


@pytest.fixture(scope="module")
def resolver(tmp_path_factory) -> Path:
    "A library to preload."
    if sys.platform != "linux" or not shutil.which("gcc"):
        pytest.skip("needs Linux and gcc, to watch the resolver")
    folder = tmp_path_factory.mktemp("resolver")
    (folder / "resolver.c").write_text(RESOLVER)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(folder / "resolver.so"), str(folder / "resolver.c"), "-ldl"], check=True)
    return folder / "resolver.so"


@pytest.fixture
def watched(resolver, tmp_path):
    "The environment of a new user whose look-ups are noted; the names asked for; the files in the home folder."
    home, names = tmp_path / "home", tmp_path / "names"
    home.mkdir()
    names.touch()
    dropped = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    given = {key: value for key, value in os.environ.items() if key not in dropped}
    given |= {"HOME": str(home), "LD_PRELOAD": str(resolver), "ASKED_NAMES": str(names), "LC_ALL": "C.UTF-8"}

    def found() -> tuple[set[str], list[str]]:
        files = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
        return set(names.read_text().split("\n")) - LOCAL, [name for name in files if "matplotlib" not in name]

    return given, found


def test_the_resolver_is_watched(watched):
    given, found = watched
    code = "import socket\ntry: socket.getaddrinfo('name.invalid', 80)\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", code], env=given, check=True)
    assert found() == ({"name.invalid"}, [])


@pytest.mark.parametrize("command", [
    ["predict", "MODEL", "-"],
    ["predict", "MODEL", "-", "--runtime", "openvino"],
    ["bench", "MODEL", "--lengths", "8", "--batches", "1", "--rounds", "7", "--quiet"],
])  # fmt: skip
def test_a_command_asks_nobody_and_leaves_nothing(watched, exported, command):
    if "openvino" in command:
        pytest.importorskip("openvino")
    given, found = watched
    line = [str(exported) if word == "MODEL" else word for word in command]
    done = subprocess.run([sys.executable, "-m", "bertcourse.app.cli", *line], input="the food was good\n", env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert found() == (set(), [])


def test_a_service_asks_nobody_even_where_the_home_cannot_be_written(watched, exported, tmp_path):
    given, found = watched
    home = tmp_path / "home"
    home.chmod(0o500)
    try:
        environment = {key: given[key] for key in ("HOME", "LD_PRELOAD", "ASKED_NAMES")} | {"ORT_DISABLE_TELEMETRY": "1"}
        with services.serve(exported, log=tmp_path / "log", **environment) as service, service.client() as client:
            assert client.post("/predict", json={"text": "the food was good"}).status_code == 200
            lines = (tmp_path / "log").read_text().splitlines()[1:]
            assert all(json.loads(line) for line in lines), "a line of the log is no JSON"
    finally:
        home.chmod(0o700)
    assert found() == (set(), [])


def test_importing_the_library_is_enough():
    given = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    code = "import bertcourse, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True).stdout == "1\n"
    given["ORT_DISABLE_TELEMETRY"] = "0"
    assert subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True).stdout == "0\n", "the user has the last word"
