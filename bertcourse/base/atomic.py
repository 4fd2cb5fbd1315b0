"""Files that are written whole or not at all, and never over somebody else's."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def digest(data: bytes) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(target: Path, ending: str) -> Path:
    """A hidden name in the same folder that nobody else uses."""
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}.{ending}")


@contextmanager
def _spooled(target: Path, data: bytes) -> Iterator[Path]:
    """`data` in a temporary file beside `target`, safely on disk; gone afterwards unless it was renamed."""
    temporary = _beside(target, "tmp")
    try:
        with temporary.open("xb") as file:  # not mkstemp: the file gets the permissions that the umask says
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can."""
    with suppress(OSError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def create(target: Path, data: bytes) -> bool:
    """Write a new file, whole or not at all. False, and nothing written, if `target` exists. Raises `OSError`."""
    with _spooled(target, data) as temporary:
        try:
            os.link(temporary, target)  # refuses an existing name, in one step
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            if not _rename_to_free_name(temporary, target):
                return False
    _sync_folder(target.parent)
    return True


def _rename_to_free_name(temporary: Path, target: Path) -> bool:
    """`os.rename` that refuses an existing name, where hard links are not to be had."""
    try:
        if os.name != "nt":  # Windows' rename refuses by itself; elsewhere the name is taken first
            target.open("xb").close()
            try:
                os.replace(temporary, target)
            except OSError:
                target.unlink()
                raise
        else:
            os.rename(temporary, target)
    except FileExistsError:
        return False
    return True


def replace(target: Path, data: bytes) -> None:
    """Write a file, new or not, whole or not at all. Raises `OSError`."""
    with _spooled(target, data) as temporary:
        os.replace(temporary, target)
    _sync_folder(target.parent)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A temporary name beside `target`: the file that is written there takes its place when the block ends, and is gone if it fails.

    Raises `OSError`.
    """
    temporary = _beside(target, "partial")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()
    _sync_folder(target.parent)


def replace_untouched(target: Path, data: bytes, expected: str) -> bool:
    """Replace a file whose SHA-256 is `expected`. False, and the file as it was, if it has another.

    An editor may save between the look and the rename, into the very file that is being replaced. A second name for
    that file is therefore kept until its content has been looked at again, and such a save is put back.
    Raises `OSError`.
    """
    with _spooled(target, data) as temporary:
        old = _beside(target, "old")
        try:
            os.link(target, old)
        except OSError:
            old = None  # no hard links here: the window stays open for some microseconds
        if file_digest(target) != expected:
            if old:
                old.unlink()
            return False
        try:
            os.replace(temporary, target)
        except BaseException:
            if old:
                old.unlink()  # `target` is still the same file
            raise
        if old and file_digest(old) != expected:
            if file_digest(target) == digest(data):
                os.replace(old, target)
            else:
                old.unlink()  # saved once more since, into the new file
            return False
        if old:
            old.unlink()
    _sync_folder(target.parent)
    return True
