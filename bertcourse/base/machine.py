"""The processor, and what a process is told before PyTorch is imported.

Speed depends on the processor more than on anything else a benchmark can choose, and a name such as "AMD EPYC" does not say
which one it was. So what is measured is stored with vendor, family, model and the instruction sets that matter for BERT.
"""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
GROUPS, CONTROL_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Instruction sets that matrix products of BERT use: FP32 (AVX2, AVX-512), bfloat16, 8-bit integers (VNNI, AMX, i8mm).
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm", "sve")
ADDS_WIDE = ("avx512_vnni", "avx_vnni", "amx_int8")  # of x86: 8-bit products are added in 32 bits
# (vendor, family, models) → microarchitecture. Sources: arch/x86/include/asm/intel-family.h and arch/x86/kernel/cpu/amd.c of Linux.
GENERATIONS = (
    ("GenuineIntel", 6, (85,), "Skylake-SP or Cascade Lake"),
    ("GenuineIntel", 6, (106, 108), "Ice Lake-SP"),
    ("GenuineIntel", 6, (143,), "Sapphire Rapids"),
    ("GenuineIntel", 6, (207,), "Emerald Rapids"),
    ("GenuineIntel", 6, (173, 174), "Granite Rapids"),
    ("AuthenticAMD", 23, (*range(0x30, 0x40), *range(0x60, 0x80)), "Zen 2"),
    ("AuthenticAMD", 25, (*range(0x00, 0x10), *range(0x20, 0x60)), "Zen 3"),
    ("AuthenticAMD", 25, (*range(0x10, 0x20), *range(0x60, 0x80), *range(0xA0, 0xB0)), "Zen 4"),
    ("AuthenticAMD", 26, tuple(range(0x100)), "Zen 5"),
)
SMALL = 256  # up to this hidden size one thread is enough: benchmarks/threads.py


@dataclass(frozen=True)
class Processor:
    """A processor as its operating system describes it. What the system does not tell is None, or an empty string."""

    name: str  # "AMD EPYC"
    vendor: str = ""  # "AuthenticAMD"
    family: int | None = None
    model: int | None = None
    stepping: int | None = None
    generation: str = ""  # "Zen 5", where family and model are known to this module
    flags: tuple[str, ...] = ()  # those of `FLAGS` that it has

    def __str__(self) -> str:
        """Name and generation: "AMD EPYC (Zen 5)"."""
        if self.generation:
            return f"{self.name} ({self.generation})"
        return self.name if self.family is None else f"{self.name} (family {self.family}, model {self.model})"


def processor(cpuinfo: Path = CPUINFO) -> Processor:
    """This machine's processor: from /proc/cpuinfo on Linux, from sysctl on macOS, else its name only."""
    if cpuinfo.exists():
        return parse_cpuinfo(cpuinfo.read_text(encoding="utf-8", errors="replace"))
    if platform.system() == "Darwin":
        return Processor(_sysctl("machdep.cpu.brand_string") or platform.machine(), vendor="Apple")
    return Processor(platform.processor() or platform.machine())


def parse_cpuinfo(text: str) -> Processor:
    """The first processor of Linux' /proc/cpuinfo."""
    first = re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    vendor, family, model = facts.get("vendor_id", ""), _number(facts.get("cpu family")), _number(facts.get("model"))
    name = facts.get("model name") or platform.processor() or platform.machine()
    return Processor(name, vendor, family, model, _number(facts.get("stepping")), generation(vendor, family, model),
                     tuple(flag for flag in FLAGS if flag in flags))  # fmt: skip


def computes_in_bf16(found: Processor | None = None) -> bool:
    """Does the processor multiply bfloat16 matrices by itself? Where it does not, PyTorch does so one number at a time.

    False also where the system does not tell (macOS, Windows).
    """
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set((found or processor()).flags))


def overflows(found: Processor) -> bool | None:
    """Can sums of products of 8-bit integers be too large for this processor? None where the system does not tell.

    x86 without VNNI or AMX adds two of them in 16 bits and cuts off what is too large (the instruction vpmaddubsw); ARM does not.
    """
    if set(found.flags) & set(ADDS_WIDE) or "asimd" in found.flags or found.vendor == "Apple":
        return False
    return True if found.flags or found.family is not None else None


def generation(vendor: str, family: int | None, model: int | None) -> str:
    """The microarchitecture's name, or an empty string for one that `GENERATIONS` does not list."""
    for known, its_family, models, name in GENERATIONS:
        if (vendor, family) == (known, its_family) and model in models:
            return name
    return ""


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _sysctl(name: str) -> str:
    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def usable_cores() -> int:
    """Cores that this process may use, which `taskset` or a container (`docker run --cpus 2`) may limit; at least 1.

    A quota of a part of a core counts as a whole one: with `--cpus 1.5` it is 2.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_read_quota(folder) for folder in _group_folders()]
    return max(1, min([count, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def _group_folders() -> list[Path]:
    """Where Linux keeps the limits on this process's CPU time: the folder of its control group, and those above it.

    A container sees its own group as the root; where it is told the host's path instead, folders that are not there count for nothing.
    """
    try:
        lines = GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return []
    folders = []
    for line in lines:  # version 2: "0::/user.slice"; version 1: "4:cpu,cpuacct:/user.slice"
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CONTROL_GROUPS / "cpu" if controllers else CONTROL_GROUPS
        own = root.joinpath(*(part for part in path.split("/") if part not in ("", "..")))
        folders += [own, *(folder for folder in own.parents if folder.is_relative_to(root))]
    return folders


def _read_quota(folder: Path) -> float | None:
    """Cores' worth of time that a control group may use, by the files of version 2 or 1; None where it has no limit."""
    def read(name: str) -> list[str]:
        return (folder / name).read_text(encoding="ascii").split()

    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = read("cpu.max")  # "max 100000" has no number: no limit
        return int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        (quota,), (period,) = read("cpu.cfs_quota_us"), read("cpu.cfs_period_us")
        return int(quota) / int(period) if int(quota) > 0 else None  # -1: no limit
    return None


def describe_machine(**more: Any) -> dict[str, Any]:
    """What every stored measurement says of the machine: the processor, cores, system and Python, and `more`."""
    found = processor()
    facts = asdict(found) | {"flags": list(found.flags)}
    return {"cpu": str(found), "processor": facts, "cores": os.cpu_count(), "usable_cores": usable_cores(),
            "system": platform.system(), "python": platform.python_version(), **more}  # fmt: skip


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep while they wait for work, unless the user has chosen a policy.

    GNU's and Intel's OpenMP libraries let them spin by default. On a machine that does something else, too, the spinning
    threads take the time of the one that all wait for: chapter 5 was stopped after three times as long (`benchmarks/threads.py`).
    Has an effect only before PyTorch is imported.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & environment.keys():
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


def choose_threads(hidden_size: int, cores: int | None = None) -> int:
    """Threads for a BERT of this width: one for a small model, else `cores` (default: those that this process may use).

    A matrix product of a small model is over before more threads could share it: with two that wait passively chapter 5 took longer
    than with one, and with two that spin hardly less, at twice the CPU time.
    """
    return 1 if hidden_size <= SMALL else cores or usable_cores()


def set_threads(hidden_size: int, asked: int | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Set PyTorch's threads for a model of this width, unless the user has: by `asked` or by OMP_NUM_THREADS. Returns their number."""
    import torch

    if asked:
        torch.set_num_threads(asked)
    elif not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & environment.keys():
        torch.set_num_threads(choose_threads(hidden_size))
    return torch.get_num_threads()


@contextmanager
def threads_for(hidden_size: int) -> Iterator[None]:
    """Within, PyTorch has the threads that suit a model of this width, as `set_threads` says; afterwards as many as before."""
    import torch

    before = torch.get_num_threads()
    try:
        set_threads(hidden_size)
        yield
    finally:
        torch.set_num_threads(before)
