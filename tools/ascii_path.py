"""Let Python start where the repository's path is not ASCII and the locale is: `python -S tools/ascii_path.py VENV`, after `pip install -e .`.

Python 3.11 and 3.12 read `.pth` files in the encoding of the locale and end before anything is imported if they cannot. So the line
that pip writes, a path, becomes a line of Python that names the same path in ASCII. With -S, Python starts without reading such files.
"""

import sys
from pathlib import Path


def rewrite(file: Path) -> bool:
    """Rewrite one file; True if it was a path that is not ASCII."""
    path = file.read_bytes().decode("utf-8", "surrogateescape").strip()
    if path.isascii() or path.startswith("import "):
        return False
    file.write_bytes(f"import sys; sys.path.append({ascii(path)})\n".encode("ascii"))
    return True


def main(venv: str) -> int:
    """Rewrite what an environment holds of bertcourse; 1 if it holds nothing."""
    found = [file for folder in ("lib/python3.*", "Lib") for file in Path(venv).glob(f"{folder}/site-packages/*bertcourse*.pth")]
    for file in found:
        rewrite(file)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
