"""The processor is named so that two generations of one vendor differ, and OpenMP's threads wait without spinning."""

import os
import subprocess
import sys

import pytest

from bertcourse.base import machine

EPYC = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: {family}
model\t\t: {model}
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 sse2

processor\t: 1
model name\t: another
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\nCPU implementer\t: 0x41\n"


def test_generations_of_one_name_differ():
    zen4, zen5 = (machine.parse_cpuinfo(EPYC.format(family=family, model=17)) for family in (25, 26))
    assert (str(zen4), str(zen5)) == ("AMD EPYC (Zen 4)", "AMD EPYC (Zen 5)")
    assert zen5.flags == ("avx2", "avx512f", "avx512_bf16", "avx512_vnni") and zen5.stepping == 1
    assert str(machine.parse_cpuinfo(EPYC.format(family=99, model=3))) == "AMD EPYC (family 99, model 3)"


def test_what_the_system_does_not_tell_is_left_out(monkeypatch, tmp_path):
    arm = machine.parse_cpuinfo(ARM)
    assert arm.flags == ("asimd", "bf16", "i8mm") and arm.family is None and str(arm) == arm.name
    monkeypatch.setattr(machine.platform, "system", lambda: "Windows")
    monkeypatch.setattr(machine.platform, "processor", lambda: "Some Processor")
    assert machine.processor(tmp_path / "none") == machine.Processor("Some Processor")


@pytest.mark.parametrize("flags, vendor, expected", [
    ("avx2 avx512f avx512_vnni", "AuthenticAMD", False), ("avx2 avx_vnni", "GenuineIntel", False), ("avx2 avx512f amx_int8", "GenuineIntel", False),
    ("avx2 avx512f", "GenuineIntel", True), ("avx2", "AuthenticAMD", True), ("sse4_1", "GenuineIntel", True),
])  # fmt: skip
def test_which_processors_overflow_in_8_bits(flags, vendor, expected):
    text = f"processor : 0\nvendor_id : {vendor}\ncpu family : 6\nmodel : 85\nmodel name : a processor\nflags : {flags}\n"
    assert machine.overflows(machine.parse_cpuinfo(text)) is expected


def test_other_processors_do_not_overflow_or_do_not_tell():
    assert machine.overflows(machine.parse_cpuinfo(ARM)) is False
    assert machine.overflows(machine.Processor("Apple M3", vendor="Apple")) is False
    assert machine.overflows(machine.Processor("Some Processor")) is None


def test_a_measurement_says_which_machine_it_was():
    found = machine.describe_machine(torch="2.13.0")
    assert {"cpu", "processor", "cores", "usable_cores", "system", "python", "torch"} == found.keys()
    assert {"family", "model", "flags", "vendor", "generation"} <= found["processor"].keys() and found["usable_cores"] >= 1


# --- cores ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def eight_cores(monkeypatch, tmp_path):
    "What the system tells of this process: its affinity, and its control group, whose files a test writes."
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "CONTROL_GROUPS", tmp_path / "fs")

    def usable(groups: str, limits: dict[str, str]) -> int:
        (tmp_path / "cgroup").write_text(groups, encoding="utf-8")
        for name, content in limits.items():
            (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "fs" / name).write_text(content, encoding="ascii")
        return machine.usable_cores()
    return usable


@pytest.mark.parametrize("quota, cores", [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1),
                                          ("1600000 100000", 8), ("nonsense", 8), ("", 8)])
def test_cores_of_a_container(eight_cores, quota, cores):
    assert eight_cores("0::/\n", {"cpu.max": quota + "\n"}) == cores


def test_the_strictest_of_nested_groups_counts(eight_cores):
    assert eight_cores("0::/a.slice/b\n", {}) == 8
    assert eight_cores("0::/a.slice/b\n", {"cpu.max": "max 100000", "a.slice/cpu.max": "300000 100000", "a.slice/b/cpu.max": "max 100000"}) == 3
    assert eight_cores("0::/a.slice/b\n", {"a.slice/b/cpu.max": "100000 100000"}) == 1
    assert eight_cores("0::/../../other\n", {}) == 8


@pytest.mark.parametrize("quota, cores", [("-1", 8), ("250000", 3), ("1000", 1)])
def test_cores_of_a_container_of_the_first_version(eight_cores, quota, cores):
    groups = "5:memory:/docker/1f\n4:cpu,cpuacct:/docker/1f\n3:cpuset:/\n0::/docker/1f\n"
    root, own = "cpu", "cpu/docker/1f"  # in a container the folder of its own group is often not there, and its limits are those of the root
    assert eight_cores(groups, {f"{root}/cpu.cfs_quota_us": quota, f"{root}/cpu.cfs_period_us": "100000"}) == cores
    assert eight_cores(groups, {f"{own}/cpu.cfs_quota_us": "100000", f"{own}/cpu.cfs_period_us": "100000"}) == 1


def test_cores_where_there_are_no_control_groups(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "none")
    monkeypatch.delattr(machine.os, "sched_getaffinity", raising=False)
    for count, cores in ((6, 6), (None, 1)):
        monkeypatch.setattr(machine.os, "cpu_count", lambda count=count: count)
        assert machine.usable_cores() == cores


@pytest.mark.parametrize("given, policy", [
    ({}, "PASSIVE"),
    ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
    ({"GOMP_SPINCOUNT": "1000"}, None),
    ({"KMP_BLOCKTIME": "0"}, None),
])  # fmt: skip
def test_threads_wait_passively_unless_the_user_chose(given, policy):
    environment = dict(given)
    machine.wait_passively(environment)
    assert environment.get("OMP_WAIT_POLICY") == policy


def test_every_command_waits_passively_before_torch_is_there():
    code = "import os, sys\nfrom bertcourse.app import cli\ncli.main([])\n" \
           "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "PASSIVE False"


@pytest.mark.parametrize("hidden, cores, threads", [(128, 1, 1), (128, 2, 1), (128, 16, 1), (256, 8, 1), (768, 8, 8), (768, 1, 1)])
def test_a_small_model_gets_few_threads(hidden, cores, threads):
    assert machine.choose_threads(hidden, cores) == threads


def test_the_user_has_the_last_word(monkeypatch):
    import torch

    before = torch.get_num_threads()
    try:
        monkeypatch.setattr(machine, "usable_cores", lambda: 3)
        assert machine.set_threads(128, None, {}) == 1 and machine.set_threads(768, None, {}) == 3
        assert machine.set_threads(128, None, {"OMP_NUM_THREADS": "3"}) == 3, "left as it was"
        assert machine.set_threads(768, 1, {"OMP_NUM_THREADS": "2"}) == 1
    finally:
        torch.set_num_threads(before)


def test_lab_gives_its_kernels_a_calm_environment(monkeypatch):
    from bertcourse.app import lab

    for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BERTCOURSE_PROFILE", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    made = lab.environment("en", "settings")
    assert made["OMP_WAIT_POLICY"] == "PASSIVE" and made["OMP_NUM_THREADS"] == str(machine.choose_threads(128))
    monkeypatch.setenv("BERTCOURSE_PROFILE", "base")
    assert "OMP_NUM_THREADS" not in lab.environment("en", "settings"), "a large model may have all cores"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    made = lab.environment("en", "settings")
    assert (made["OMP_NUM_THREADS"], made["OMP_WAIT_POLICY"]) == ("7", "ACTIVE")
