"""The benchmark of threads measures every setting, quiet and busy, and ends what takes too long."""

import json
import subprocess
import sys
import time

import pytest
import scripts


@pytest.fixture(scope="module")
def bench():
    with scripts.loaded("threads") as module:
        yield module


def test_every_setting_is_measured_quiet_and_busy(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "jobs", lambda folder, quick: {"finetune": [sys.executable, "-c", "sum(range(10**6))", "{out}"]})
    file = tmp_path / "found.json"
    assert bench.main(["finetune", "--quick", "--json", str(file), "--busy", "1"]) == 0
    found = json.loads(file.read_text())
    assert found["machine"]["processor"]["name"] and list(found["jobs"]["finetune"]) == ["quiet", "busy"]
    for rows in found["jobs"]["finetune"].values():
        assert len(rows) == 3 and all(row["wall"] >= 0 and not row["ended"] for row in rows.values())


def test_settings_reach_the_job_and_a_limit_ends_it(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    code = f"import os, json; json.dump(dict(os.environ), open({str(tmp_path / 'seen')!r}, 'w'))"
    bench.run([sys.executable, "-c", code], bench.settings(2)["2 threads, passive"], 60)
    seen = json.loads((tmp_path / "seen").read_text())
    assert (seen["OMP_NUM_THREADS"], seen["OMP_WAIT_POLICY"]) == ("2", "PASSIVE") and "GOMP_SPINCOUNT" not in seen
    ended = bench.run([sys.executable, "-c", "import time; time.sleep(60)"], {}, 0.5)
    assert ended["ended"] and ended["wall"] < 20
    with pytest.raises(SystemExit, match="failed: ZeroDivisionError"):
        bench.run([sys.executable, "-c", "1 / 0"], {}, 60)


def test_busy_processes_are_there_and_go(bench):
    import psutil

    def found() -> list[psutil.Process]:
        return [p for p in psutil.Process().children() if bench.BUSY in p.cmdline()]

    with bench.load(2):
        end = time.monotonic() + 30
        while len(found()) < 2 and time.monotonic() < end:  # a new process has its command line a moment later
            time.sleep(0.01)
        busy = found()
        assert len(busy) == 2
    assert not any(p.is_running() for p in busy)


@pytest.mark.parametrize("args, said", [(["wrong"], "'wrong'"), (["--rounds", "0"], "--rounds"), (["--limit", "0"], "--limit")])
def test_bad_input_is_one_sentence(args, said):
    done = subprocess.run([sys.executable, str(scripts.BENCHMARKS / "threads.py"), *args], capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_notebook_is_run_with_the_setting_and_not_with_the_tools_own(bench, tmp_path):
    from checks.planting import code, notebook

    out = tmp_path / "seen"
    cell = code(f"import os\nopen({str(out)!r}, 'w').write(os.environ['OMP_NUM_THREADS'] + os.environ.get('OMP_WAIT_POLICY', 'none'))", id="a")
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook(cell)))
    command = [sys.executable, "-c", bench.RUN_NOTEBOOK, str(tmp_path / "a.ipynb")]
    bench.run(command, bench.settings(5)["5 threads, spinning"], 60)
    assert out.read_text() == "5ACTIVE"
    bench.run(command, bench.settings(5)["1 thread"], 60)
    assert out.read_text() == "1none"
