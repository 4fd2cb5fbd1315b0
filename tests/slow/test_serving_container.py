"""What the Dockerfile runs, in a clean environment: the pinned list, the wheel without its dependencies, the command."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import scripts

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))
import commands  # noqa: E402
import services  # noqa: E402

HASH = re.compile(r" \\\n\s*--hash=sha256:[0-9a-f]{64}")
HEAVY = ("torch", "transformers", "datasets", "scipy", "huggingface_hub", "matplotlib", "onnx", "pandas")


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    with commands.surroundings():
        yield


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def image_hashes():
    "`tools/image_hashes.py` as a module."
    return scripts.tool("image_hashes")


@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
@pytest.mark.parametrize("name", ["requirements.txt", "build-requirements.txt"])
def test_pip_takes_the_wheels_whose_check_sums_are_listed(tmp_path, name, processor):
    tool = image_hashes()
    platforms = [word for tag in tool.TAGS for word in ("--platform", f"{tag}_{processor}")]
    line = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--require-hashes", "--implementation", "cp",
            "--python-version", tool.python_version(), *platforms, "-d", tmp_path, "-r"]  # fmt: skip
    text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
    subprocess.run([*line, ROOT / "deploy" / name], check=True, capture_output=True)
    assert len([*tmp_path.glob("*.whl")]) == text.count("==")
    wrong = tmp_path / "wrong.txt"
    wrong.write_text(re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", text), encoding="utf-8")
    assert subprocess.run([*line, wrong], capture_output=True).returncode != 0


@pytest.fixture(scope="module")
def slim(tmp_path_factory) -> Path:
    "A virtual environment as the image's."
    folder = tmp_path_factory.mktemp("image")
    dockerfile = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"pip install --no-cache-dir --no-deps --only-binary=:all: --require-hashes -r requirements.txt", dockerfile)  # as below
    listed = (ROOT / "deploy/requirements.txt").read_text(encoding="utf-8")
    if image_hashes().python_version() != f"{sys.version_info[0]}.{sys.version_info[1]}":  # whose wheels are others
        listed = HASH.sub("", listed)
    requirements = folder / "requirements.txt"
    requirements.write_text(listed, encoding="utf-8")
    python = folder / "venv" / "bin" / "python"
    wheels = folder / "wheels"
    for line in ([sys.executable, "-m", "venv", folder / "venv"],
                 [python, "-m", "pip", "install", "-q", "--no-cache-dir", "--no-deps", "--only-binary=:all:", "-r", requirements],
                 [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", wheels, ROOT]):  # fmt: skip
        subprocess.run(line, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-cache-dir", "--no-deps", wheel], check=True, capture_output=True)
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "pip"], check=True, capture_output=True)
    return folder / "venv"


def test_it_serves_without_torch(slim, tmp_path):
    model = services.export(tmp_path, "classification")["classification"]
    for name in HEAVY:
        assert subprocess.run([slim / "bin/python", "-c", f"import {name}"], capture_output=True).returncode == 1
    command = [slim / "bin/bertcourse", "serve", model, "--host", "127.0.0.1", "--port", "0", "--workers", "2"]
    log = tmp_path / "log"
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, cwd=tmp_path, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}, stderr=out)
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"http://\S+", log.read_text(encoding="utf-8"))) or '"ready"' not in log.read_text(encoding="utf-8"):
            assert process.poll() is None and time.monotonic() < end, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        for path in ("", "docs", "model", "metrics", "ready"):
            assert httpx.get(found[0] + path).status_code == 200
        from bertcourse.models.exported import ExportedModel
        said = httpx.post(found[0] + "predict", json={"text": "good"}).json()["predictions"][0]
        assert said.pop("truncated") is False and said == ExportedModel(model).answer([{"text": "good"}])[0]
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_it_is_a_fraction_of_what_training_takes(slim):
    serving, training = (megabytes(next(folder.glob("lib/python*/site-packages"))) for folder in (slim, Path(sys.prefix)))
    print(f"\nserving {serving:,.0f} MB, training {training:,.0f} MB")
    assert serving < 300 and serving < training / 4


def test_a_corrupt_model_ends_it_with_code_2(slim, tmp_path):
    model = services.export(tmp_path, "classification")["classification"]
    (model / "model.onnx").write_bytes(b"nothing")
    done = subprocess.run([slim / "bin/bertcourse", "serve", model], capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "damaged" in done.stderr
