"""Check sums of the wheels that the container installs, for its Python on x86_64 and aarch64.

    python tools/image_hashes.py [FILE ...]

FILE (default: deploy/requirements.txt and deploy/build-requirements.txt) has lines such as `numpy==2.4.6`. pip downloads each wheel as
the image would, for both processors, and the file is written anew with a `--hash` for each; comments stay. The container's pip then
takes these wheels and no others (`--require-hashes`). To be run whenever a version in these files changes; a test compares them
with `constraints.txt`. It needs the package index.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "deploy/requirements.txt", ROOT / "deploy/build-requirements.txt")
PROCESSORS = ("x86_64", "aarch64")
TAGS = ("manylinux_2_34", "manylinux_2_31", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux_2_5", "manylinux1")


def python_version() -> str:
    """The Python of deploy/Dockerfile."""
    return re.search(r"python:(3\.\d+)", (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8"))[1]


def wheel(requirement: str, processor: str, folder: Path) -> Path:
    """The wheel that the image's pip would take."""
    platforms = [word for tag in TAGS for word in ("--platform", f"{tag}_{processor}")]
    line = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", python_version(),
            "--implementation", "cp", *platforms, "-d", str(folder), requirement]  # fmt: skip
    subprocess.run(line, check=True)
    (found,) = folder.iterdir()
    return found


def hashes(requirement: str) -> list[str]:
    """sha256 of its wheels, each once: one for all processors if there is no machine code in it."""
    found = []
    for processor in PROCESSORS:
        with tempfile.TemporaryDirectory() as folder:
            found.append(hashlib.sha256(wheel(requirement, processor, Path(folder)).read_bytes()).hexdigest())
    return list(dict.fromkeys(found))


def written(text: str) -> str:
    """The file with the check sums of all its lines."""
    lines = []
    for line in re.sub(r" \\\n\s*--hash=sha256:[0-9a-f]{64}", "", text).splitlines():
        if line and line[0] != "#":
            print(line, flush=True)
            line = " \\\n".join([line, *(f"    --hash=sha256:{digest}" for digest in hashes(line))])
        lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the files."""
    for path in map(Path, sys.argv[1:] or FILES):
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
