"""Text of any size: cutting it into pieces takes as much memory for ten times the text."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

MEGABYTE = 1 << 20


def measure(file: Path, work: Path, hoards: bool) -> int:
    """Survey a file and cut it into pieces, as the command does; returns this process's peak memory, in bytes."""
    from argparse import Namespace
    from functools import partial

    from bertcourse import pieces
    from bertcourse.assets import asset
    from bertcourse.jobs import corpus_text
    from bertcourse.jobs.reporter import Reporter

    genuine = pieces.read_text
    if hoards:
        pieces.read_text = lambda *args: iter(list(genuine(*args)))
    pieces.encode = partial(pieces.encode, block=1 << 14)  # else buffers, which are small beside a real text, fill up
    tokenizer = corpus_text.load_tokenizer(asset("tiny-bert"))
    text = corpus_text.survey([file], 20_000)
    work.mkdir()
    spec = Namespace(corpus=[file], encodings=["utf-8"], dev_share=0.02)
    corpus_text.encode_corpus(spec, tokenizer, work, text.characters, Reporter(quiet=True))
    assert (work / "train").is_dir() and (work / "dev").is_dir() and sum(map(len, text.sample)) < 100_000
    return highest()


def highest() -> int:
    """This process's peak memory, in bytes. Linux's ru_maxrss would count the parent's, from before the exec."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak(file: Path, work: Path, hoards: bool = False) -> int:
    """The same in a process of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, str(file), str(work), str(int(hoards))]
    return int(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


def write(path: Path, size: int) -> Path:
    """English paragraphs of about so many bytes in all."""
    rng, words = random.Random(0), "the a cat dog Anna Paris sees likes lives in with friend music film red happy".split()
    with path.open("w") as file:
        while file.tell() < size:
            file.write(" ".join(" ".join(rng.choices(words, k=4)) + "." for _ in range(9)) + "\n\n")
    return path


@pytest.mark.skipif(os.name == "nt", reason="no ru_maxrss")
def test_memory_does_not_grow_with_the_text(tmp_path):
    small, large = write(tmp_path / "small", MEGABYTE), write(tmp_path / "large", 10 * MEGABYTE)
    least = peak(small, tmp_path / "a")
    assert peak(large, tmp_path / "b") < least + 10 * MEGABYTE
    assert peak(large, tmp_path / "c", hoards=True) > least + 15 * MEGABYTE  # the measurement would see it


if __name__ == "__main__":
    print(measure(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "1"))
