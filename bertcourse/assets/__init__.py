"""Where the course's data lies: in the package, or in a clone beside it.

A wheel carries the notebooks, exercises, recorded experiments, benchmarks and manifests under this folder; in a clone they
lie at the repository's root and are read from there, so that an edit shows at once.
"""

from pathlib import Path

HERE = Path(__file__).parent
_IN_CLONE = {name: name for name in ("exercises", "experiments", "benchmarks", "deploy")} | {"course": "nbs"}


def asset(name: str) -> Path:
    """Path of a data file or folder of the course, e.g. `glossary.toml`, `tiny-bert` or `course`.

    Raises `FileNotFoundError` with one sentence if this installation lacks it.
    """
    places = [HERE / name]
    head, _, rest = name.partition("/")
    if head in _IN_CLONE:
        places.append(HERE.parent.parent / _IN_CLONE[head] / rest)
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(f"{name} is missing from this installation of bertcourse: reinstall it with pip")
