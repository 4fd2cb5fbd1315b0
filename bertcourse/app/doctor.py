"""`bertcourse doctor`: can this machine run the course? What is missing for which chapter, and what fixes it?

Imports nothing heavy itself: a process of its own tries the imports, so that a broken installation is a finding and
not a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bertcourse import __version__
from bertcourse.app.needs import ANY, CHAPTERS, Need
from bertcourse.assets import asset
from bertcourse.base.display import json_of, printable
from bertcourse.base.machine import usable_cores
from bertcourse.base.messages import reader_language
from bertcourse.languages import LANGUAGES

EXTRAS = ("", "lab")  # whose version ranges are checked
IMPORT_SECONDS = 180  # for all imports together; a cold disk is slow
REPOSITORY = "https://github.com/bertcourse/bertcourse.git"  # it is on no package index
REINSTALL = f'pip install --force-reinstall --no-deps "bertcourse @ git+{REPOSITORY}"'

# Prints one line before and one after each import, so that a crash of the interpreter is known by its last line.
_PROBE = """
import importlib, json, sys
def tell(**what): print(json.dumps(what), file=real, flush=True)
real, sys.stdout = sys.stdout, sys.stderr
for name in sys.argv[1:]:
    tell(name=name, error="the import ends the interpreter")
    try: importlib.import_module(name)
    except BaseException as error: tell(name=name, error=f"{type(error).__name__}: {error}".splitlines()[0])
    else: tell(name=name, error=None)
torch = sys.modules.get("torch")
if torch is not None and hasattr(torch, "get_num_threads"):
    mps = getattr(torch.backends, "mps", None)
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    tell(device=cuda or ("mps" if mps and mps.is_available() else "cpu"), threads=torch.get_num_threads())
"""


@dataclass
class Problem:
    """Something missing, in both languages, and the command that fixes it ("" where there is none)."""

    en: str
    zh: str
    mend: str = ""


@dataclass
class Package:
    """One distribution the course asks for."""

    name: str
    wanted: str  # version range as in pyproject.toml, "" if any will do
    version: str | None  # None: not installed
    problem: Problem | None = None


@dataclass
class Chapter:
    """One notebook of the course and what keeps it from running."""

    name: str
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Can it run?"""
        return not self.problems


@dataclass
class Health:
    """Everything `doctor` found out."""

    python: str
    bertcourse: str
    profile: str
    device: str | None
    threads: int | None
    cores: int
    memory_mb: int | None  # in all; None where psutil is not installed
    memory_free_mb: int | None
    disk_free_mb: int
    packages: list[Package]
    chapters: list[Chapter]
    problems: list[Problem]  # of no chapter in particular

    @property
    def ok(self) -> bool:
        """Can every chapter run?"""
        return bool(self.chapters) and all(chapter.ok for chapter in self.chapters)


# --- packages -----------------------------------------------------------------------------------------------------

def requirements() -> tuple[dict[str, str], list[Problem]]:
    """What bertcourse[lab] asks for, {name: version range}; where that cannot be known, why."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return {}, [Problem("packaging is not installed: version ranges are not checked",
                            "没有安装 packaging，无法检查版本范围", "pip install packaging")]
    try:
        lines = metadata.requires("bertcourse") or []
    except metadata.PackageNotFoundError:
        return {}, [Problem("bertcourse runs from a folder and is not installed: version ranges are not checked",
                            "bertcourse 没有安装，只是从文件夹里运行：无法检查版本范围", "pip install -e .")]
    parsed = map(Requirement, lines)
    return {r.name: str(r.specifier) for r in parsed
            if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in EXTRAS)}, []


_MODULES = {"scikit-learn": "sklearn", "pyyaml": "yaml", "prometheus-client": "prometheus_client"}  # distributions whose module has another name


def module_of(name: str) -> str:
    """What a distribution is imported as."""
    return _MODULES.get(name, name)


def is_there(name: str) -> bool:
    """Can a distribution's module be found? A folder that an uninstallation left behind does not count."""
    found = find_spec(module_of(name))
    return found is not None and found.origin is not None


def installed_version(name: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def probe(modules: Sequence[str]) -> tuple[dict[str, str | None], dict[str, Any]]:
    """Import modules in a process of their own: {module: error or None}, and what torch says of device and threads."""
    errors: dict[str, str | None] = {}
    machine: dict[str, Any] = {}
    command = [sys.executable, "-c", _PROBE, *modules]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace",
                              timeout=IMPORT_SECONDS, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        output = done.stdout
    except subprocess.TimeoutExpired as late:
        output = (late.stdout or b"").decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
    for line in output.splitlines():
        told = json.loads(line)
        if "name" in told:
            errors[told["name"]] = told["error"]
        else:
            machine = told
    return errors, machine


def _version_problem(name: str, wanted: str, version: str) -> Problem | None:
    """A version outside of its range."""
    from packaging.specifiers import SpecifierSet
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return None
    return Problem(f"{name} is {version}, the course needs {wanted}", f"{name} 的版本是 {version}，课程需要 {wanted}",
                   f'pip install "{name}{wanted}"')


def check_package(name: str, wanted: str, errors: dict[str, str | None]) -> Package:
    """One package: is it there, does it import, is its version one that is known to work?"""
    version = installed_version(name)
    target = f'pip install "{name}{wanted}"'
    if not is_there(name):
        problem = Problem(f"{name} is not installed", f"没有安装 {name}", target)
        return Package(name, wanted, None, problem)
    if error := errors.get(module_of(name)):
        return Package(name, wanted, version, Problem(
            f"{name} is installed but does not import ({error})", f"{name} 已安装，但无法导入（{error}）",
            f'pip install --force-reinstall "{name}{wanted}"'))
    problem = _version_problem(name, wanted, version) if wanted and version else None
    return Package(name, wanted, version, problem)


def check_packages() -> tuple[list[Package], dict[str, Any], list[Problem]]:
    """Every package that the course or one of its chapters asks for; the machine as torch sees it; other problems."""
    wanted, problems = requirements()
    names = dict.fromkeys([*ANY.modules, *wanted, *(m for need in CHAPTERS.values() for m in need.modules)])
    there = [name for name in names if is_there(name) and name != "jupyterlab"]
    errors, machine = probe([module_of(name) for name in there])
    packages = [check_package(name, wanted.get(name, ""), errors) for name in names]
    return packages, machine, problems


# --- the machine and the chapters ---------------------------------------------------------------------------------

def memory() -> tuple[int | None, int | None]:
    """Memory in all and available, in MB of 10^6 bytes; None where psutil is not installed."""
    try:
        import psutil
    except ImportError:
        return None, None
    there = psutil.virtual_memory()
    return there.total // 10**6, there.available // 10**6


def profile_problem(profile: str) -> Problem | None:
    """A profile that names a folder must name one that holds a checkpoint."""
    looks_like_path = profile.startswith((".", "~", os.sep)) or os.sep != "/" and os.sep in profile
    if not looks_like_path or (Path(profile).expanduser() / "config.json").is_file():
        return None
    return Problem(f"BERTCOURSE_PROFILE={profile} is not a folder with a checkpoint (config.json is missing)",
                   f"BERTCOURSE_PROFILE={profile} 不是模型文件夹（缺少 config.json）",
                   "export BERTCOURSE_PROFILE=tiny" if os.name != "nt" else "set BERTCOURSE_PROFILE=tiny")


def missing(need: Need, packages: dict[str, Package], disk_mb: int, memory_mb: int | None) -> Iterator[Problem]:
    """What keeps a chapter with these needs from running."""
    for name in need.modules:
        if problem := packages[name].problem:
            yield problem
    for name in need.assets:
        try:
            asset(name)
        except FileNotFoundError:
            yield Problem(f"the course's file {name} is missing", f"缺少课程文件 {name}", REINSTALL)
    if disk_mb < need.disk_mb:
        yield Problem(f"{disk_mb} MB of disk are free here, {need.disk_mb} MB are needed: make room",
                      f"这里的磁盘只剩 {disk_mb} MB，需要 {need.disk_mb} MB：请腾出空间")
    if memory_mb is not None and memory_mb < need.memory_mb:
        yield Problem(f"{memory_mb} MB of memory are available, {need.memory_mb} MB are needed: close other programs",
                      f"可用内存只有 {memory_mb} MB，需要 {need.memory_mb} MB：请关掉其他程序")


def examine() -> Health:
    """Look at everything. Raises nothing for a broken installation: it is what this is for."""
    packages, machine, problems = check_packages()
    profile = os.environ.get("BERTCOURSE_PROFILE") or "tiny"
    disk_mb = shutil.disk_usage(Path.cwd()).free // 10**6
    memory_mb, free_mb = memory()
    by_name = {package.name: package for package in packages}
    try:
        names = [path.stem for path in sorted(asset("course").glob("[0-9][0-9]_*.ipynb"))]
    except FileNotFoundError:
        names = []
    if not names:
        problems.append(Problem("this installation has no chapters", "这份安装里没有任何章节", REINSTALL))
    common = [problem for problem in [profile_problem(profile)] if problem]
    chapters = [Chapter(name, [*missing(CHAPTERS.get(name, ANY), by_name, disk_mb, free_mb), *common])
                for name in names]
    if (lab := by_name.get("jupyterlab")) and lab.problem:
        problems.append(lab.problem)
    return Health(platform.python_version(), __version__, profile, machine.get("device"), machine.get("threads"),
                  usable_cores(), memory_mb, free_mb, disk_mb, packages, chapters, problems)


# --- the report ---------------------------------------------------------------------------------------------------

def as_json(health: Health) -> str:
    """For machines: the same, with `ok` for the whole and for each chapter."""
    data = {"ok": health.ok} | asdict(health)
    for entry, chapter in zip(data["chapters"], health.chapters, strict=True):
        entry["ok"] = chapter.ok
    return json_of(data, indent=1)


def _gigabytes(megabytes: int | None) -> str:
    return "?" if megabytes is None else f"{megabytes / 1000:.1f} GB"


def _say(problem: Problem, zh: bool) -> str:
    return (problem.zh if zh else problem.en) + (f"  →  {problem.mend}" if problem.mend else "")


def _machine_lines(health: Health, zh: bool) -> list[tuple[str, str]]:
    """Label and value of what is not about a package or a chapter."""
    threads = "?" if health.threads is None else str(health.threads)
    device = health.device or ("未知（torch 无法导入）" if zh else "unknown (torch does not import)")
    free, total = _gigabytes(health.memory_free_mb), _gigabytes(health.memory_mb)
    return [
        ("Python", health.python),
        ("bertcourse", health.bertcourse),
        ("配置" if zh else "profile", health.profile),
        ("设备" if zh else "device", device),
        ("线程" if zh else "threads", f"torch {threads}，{health.cores} 个核" if zh
         else f"{threads} of torch on {health.cores} core{'s' if health.cores > 1 else ''}"),
        ("内存" if zh else "memory", f"共 {total}，可用 {free}" if zh else f"{total}, {free} available"),
        ("磁盘" if zh else "disk", f"此处可用 {_gigabytes(health.disk_free_mb)}" if zh
         else f"{_gigabytes(health.disk_free_mb)} free here"),
    ]


def as_text(health: Health, lang: str) -> str:
    """For people."""
    zh = lang == "zh"
    lines = [f"{label}: {value}" if not zh else f"{label}：{value}" for label, value in _machine_lines(health, zh)]
    versions = [f"{p.name} {p.version or '–'}" for p in health.packages]
    lines.append(("软件包：" if zh else "packages: ") + ", ".join(versions))
    lines += [f"! {_say(problem, zh)}" for problem in health.problems]
    lines.append("")
    for chapter in health.chapters:
        lines.append(f"{'✓' if chapter.ok else '✗'} {chapter.name}")
        lines += [f"    {_say(problem, zh)}" for problem in chapter.problems]
    good = sum(chapter.ok for chapter in health.chapters)
    lines.append(f"{len(health.chapters)} 章中有 {good} 章可以运行。" if zh
                 else f"{good} of {len(health.chapters)} chapters can run.")
    return "\n".join(lines)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--lang", choices=LANGUAGES, help="default: that of your locale")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Examine and report; 1 if a chapter cannot run."""
    lang = args.lang or reader_language()
    if not args.json and sys.stderr.isatty():
        print("正在检查……" if lang == "zh" else "checking …", file=sys.stderr, flush=True)
    health = examine()
    print(as_json(health) if args.json else printable(as_text(health, lang), keep="\n"))
    return 0 if health.ok else 1
