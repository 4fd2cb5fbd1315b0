"""Check the rendered site, as a reader meets it.

    python tools/site_checks.py [FOLDER] [--no-browser] [--strict] [--axe FILE] [--settings FILE] [--workers N]

Without a browser: every link, anchor, picture and script is there, nothing is loaded from elsewhere (`links`), each page and
heading has its twin in the other language (`twins`), no page is too heavy (`weight`), the index holds the terms (`search`).
In Chromium, from a file server on this machine: no error (`console`), no page scrolls sideways at 1280 and 390 pixels
(`overflow`), no serious violation of axe-core's rules in either colour scheme (`axe`), the switch leads to the same heading
(`switch`), the search leads to the expected pages (`search`). `tools/site_checks.toml` names pages, terms and limits.
One line a finding. Exit code 0; 1 where something is wrong (with --strict also where checks were left out); 2 for bad input.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import npm_packages
import site_browser
import site_files
from rendered import SITE
from site_files import Finding, Site

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = Path(__file__).with_suffix(".toml")
FORM = {"samples": list, "switch": list, "weight": dict, "term": list}
WIDTHS = (8, 44, 52)  # of the table's columns but the last
FOLDED = 3  # a finding on more pages is one line


class Fault(Exception):
    """Bad input; its text is the whole message."""


# --- input ---------------------------------------------------------------------------------------------------------


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of the checks. Raises `Fault` where the file is not one."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Fault(f"{path}: no settings can be read there: {error}") from None
    for name, kind in FORM.items():
        if not isinstance(settings.get(name), kind):
            raise Fault(f"{path}: {name} is missing, or no {'table' if kind is dict else 'list'}")
    if missing := [name for name in ("limit", "shared") if not isinstance(settings["weight"].get(name), int)]:
        raise Fault(f"{path}: weight.{missing[0]} must be a whole number")
    for term in settings["term"]:
        if not (isinstance(term, dict) and {"lang", "term", "pages"} <= term.keys()):
            raise Fault(f"{path}: each term needs lang, term and pages: {term}")
    return settings


def open_site(folder: Path, address: str) -> Site:
    """The site in a folder. Raises `Fault` where there is none."""
    if not folder.is_dir():
        raise Fault(f"{folder}: there is no such folder; `make site` writes one where Quarto is installed")
    site = Site(folder.resolve(), address.rstrip("/"))
    if not site.languages:
        raise Fault(f"{folder}: no rendered site is there, neither zh/index.html nor en/index.html")
    return site


def check_settings(site: Site, settings: dict[str, Any]) -> list[Finding]:
    """Pages that the settings name must be there."""
    named = {page: "a page" for page in [*settings["samples"], *settings["switch"]]}
    named |= {page: f"the page of {term['term']}" for term in settings["term"] for page in term["pages"]}
    wanted = {(lang, page, what) for page, what in named.items() for lang in site.languages}
    return [Finding("settings", f"{lang}/{page}", f"{what} is not there", "") for lang, page, what in sorted(wanted) if f"{lang}/{page}" not in site.pages]


# --- the checks ----------------------------------------------------------------------------------------------------


def axe_script(path: Path | None) -> str:
    """The script of axe-core, from a file or by npm. Raises `npm_packages.Fault` where neither works."""
    if path:
        return path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="bertcourse-axe-") as folder:
        packages = npm_packages.install(Path(folder))
        return (packages / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def check_in_browser(site: Site, settings: dict[str, Any], axe: Path | None, workers: int) -> tuple[list[Finding], dict[str, set[str]], list[str]]:
    """Findings, the files that each page has loaded, and which checks were left out, with the reason."""
    how = site_browser.find_browser()
    if how is None:
        return [], {}, [f"console, overflow, axe, switch, search in the page: no browser ({', '.join(site_browser.CHROMIUM)}), or no playwright"]
    left_out = []
    try:
        script = axe_script(axe)
    except npm_packages.Fault as fault:
        script = None
        left_out.append(f"axe: {str(fault).splitlines()[0]}")
    return *asyncio.run(site_browser.check(site, settings, how, script, workers)), left_out


def check(site: Site, settings: dict[str, Any], *, browser: bool = True, axe: Path | None = None, workers: int = 2) -> tuple[list[Finding], list[str]]:
    """All findings, and which checks were left out. With a browser, the weight counts what scripts load, too."""
    terms = settings["term"]
    found = [*check_settings(site, settings), *site_files.check_links(site), *site_files.check_twins(site), *site_files.check_index(site, terms)]
    files = site_files.files_by_page(site)
    left_out = ["console, overflow, axe, switch, search in the page: --no-browser"]
    if browser:
        more, loads, left_out = check_in_browser(site, settings, axe, workers)
        found += more
        files = {name: paths | {path for path in loads.get(name, ()) if site.exists(path)} for name, paths in files.items()}
    limits = settings["weight"]
    found_weights = site_files.weights(site, files, limits["shared"])
    found += site_files.check_weight(found_weights, limits["limit"], limits.get("heavier", {}))
    heaviest = sorted(found_weights.items(), key=lambda item: -item[1])[:3]
    print(f"{len(site.pages)} pages; the heaviest: {', '.join(f'{name} {size / 1000:.0f} kB' for name, size in heaviest)}", flush=True)
    return found, left_out


# --- the report ----------------------------------------------------------------------------------------------------


def folded(found: list[Finding]) -> list[Finding]:
    """The same finding on many pages becomes one."""
    pages: dict[tuple[str, str, str], list[str]] = {}
    for check_name, page, what, where in dict.fromkeys(found):
        pages.setdefault((check_name, what, where), []).append(page)
    rows = []
    for (check_name, what, where), names in pages.items():
        shown = names if len(names) <= FOLDED else [f"{names[0]} and {len(names) - 1} more"]
        rows += [Finding(check_name, name, what, where) for name in shown]
    return rows


def table(found: list[Finding]) -> str:
    """One line a finding: check, page, what, where."""
    rows = [("check", "page", "what", "where"), *sorted(folded(found))]
    widths = [min(limit, max(len(row[i]) for row in rows)) for i, limit in enumerate(WIDTHS)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows]
    return "\n".join(lines)


def report(found: list[Finding], left_out: list[str], seconds: float) -> None:
    """Print findings and what was left out."""
    if found:
        print(table(found))
    for reason in left_out:
        print(f"left out: {reason}")
    counts = ", ".join(f"{name} {count}" for name, count in sorted(Counter(finding.check for finding in found).items()))
    print(f"{len(found)} findings in {seconds:.0f} s" + (f": {counts}" if counts else ""))


def run(folder: Path, *, strict: bool = False, settings: Path = SETTINGS, address: str = SITE, **options: Any) -> int:
    """Check the site in a folder and report; the exit code."""
    started = time.monotonic()
    try:
        site, read = open_site(folder, address), read_settings(settings)
    except Fault as fault:
        print(fault, file=sys.stderr)
        return 2
    found, left_out = check(site, read, **options)
    report(found, left_out, time.monotonic() - started)
    return int(bool(found) or (strict and bool(left_out)))


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "_docs", help="the rendered site (default: _docs)")
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="only what needs no browser")
    parser.add_argument("--strict", action="store_true", help="fail where checks were left out")
    parser.add_argument("--axe", type=Path, help="axe.min.js (default: npm installs it)")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="pages, terms and limits (default: tools/site_checks.toml)")
    parser.add_argument("--workers", type=int, default=(os.cpu_count() or 1) + 1, help="tabs at a time (default: one more than cores)")
    args = vars(parser.parse_args(argv))
    if args["axe"] and not args["axe"].is_file():
        print(f"{args['axe']}: there is no such file", file=sys.stderr)
        return 2
    return run(args.pop("folder"), **args)


if __name__ == "__main__":
    sys.exit(main())
