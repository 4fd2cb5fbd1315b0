"""The JavaScript packages that the site and its tests need, as `tools/live/package-lock.json` pins them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

PACKAGES = Path(__file__).resolve().parent / "live"


class Fault(Exception):
    """Something the user can fix; its text is the whole message."""


def install(folder: Path) -> Path:
    """Install them by npm into a folder; returns the folder that holds them. Raises `Fault` if that fails."""
    npm = shutil.which("npm")
    if npm is None:
        raise Fault("npm is not installed (it comes with Node.js)")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PACKAGES / name, folder)
    done = subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Fault(f"npm could not install the packages of tools/live/package.json:\n{done.stderr.strip()[-1000:]}")
    return folder / "node_modules"
