"""Build the course's site, once per language.

    python tools/site.py [build] [--lang zh|en|both] [--out _docs] [--proc _proc] [--strict] [--no-checks]
    python tools/site.py settings   write nbs/nbdev.yml anew from settings.ini

For each language: nbdev processes the notebooks into `_proc/<lang>`, `_quarto.yml` is written there in that language,
the result is checked, and Quarto renders it into `_docs/<lang>`; without Quarto, all but the rendering is done.
`tools/live.py` builds `_docs/live`, with which the reader's browser runs the model; without npm the pages show stored pictures.
`tools/site_checks.py` checks what was rendered, unless --no-checks.
Exit code 0; 1 where something is wrong (with --strict also where Quarto is missing or checks were left out); 2 for bad input.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import api
import benchmark_pages
import page_parts
import rendered
import site_checks
import yaml
from page_parts import FENCE

from bertcourse.drill import pages as cards
from bertcourse.exercises.loading import load_sheets
from bertcourse.exercises.pages import SOLUTIONS, site_pages
from bertcourse.languages import LANGUAGES

ROOT = Path(__file__).resolve().parents[1]
SITE = rendered.SITE
CJK = re.compile("[\u3400-\u9fff]")
SKIPPED = shutil.ignore_patterns(".*", "__pycache__", "*.pyc")


class Fault(Exception):
    """Something the user can fix; its text is the whole message."""


# --- the configuration, in one language ---------------------------------------------------------------------------


def pick(value, lang: str):
    """Keep one language of every text "中文 | English" in nested data."""
    if isinstance(value, dict):
        return {key: pick(v, lang) for key, v in value.items()}
    if isinstance(value, list):
        return [pick(v, lang) for v in value]
    if isinstance(value, str) and value.count(" | ") == 1 and CJK.search(value.partition(" | ")[0]):
        return value.split(" | ")[LANGUAGES.index(lang)].strip()
    return value


def merged(base: dict, over: dict) -> dict:
    """Nested data of both, `over` winning."""
    result = dict(base)
    for key, value in over.items():
        result[key] = (
            merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
        )
    return result


def configuration(lang: str, folder: Path) -> dict:
    """What Quarto reads for one language: `_quarto.yml` over nbdev's part, both taken from a processed folder."""
    own = yaml.safe_load((folder / "_quarto.yml").read_text(encoding="utf-8"))
    config = {}
    for name in own.pop("metadata-files"):
        config = merged(config, yaml.safe_load((folder / name).read_text(encoding="utf-8")))
    config = merged(config, pick(own, lang))
    config["lang"] = lang
    config["project"].pop("output-dir", None)  # given to `quarto render`
    config["website"]["site-url"] = f"{config['website']['site-url'].rstrip('/')}/{lang}"
    config["website"]["open-graph"] = {"image": f"/images/inside-{lang}.png"}  # from the root of the site, for pages in folders, too
    return config


# --- processing ---------------------------------------------------------------------------------------------------

_PROCESS = """
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
if __name__ == "__main__":  # its workers import this again
    refresh_quarto_yml()
    proc_nbs(force=True, n_workers=WORKERS)
"""


def causes(log: str) -> str:
    """The exceptions of a log with a dozen tracebacks, each with the lines of its message."""
    found, taking = [], False
    for line in log.splitlines():
        started = bool(re.match(r"\s*[\w.]*(?:Error|Exception|Warning|Exit): ", line))
        taking = started or (taking and not re.match(r"\s*(?:Traceback|File |The above|During|\"\"\"|\+|-{5})", line))
        if taking and (line.strip() or not started):
            found.append(line)
    return "\n".join(dict.fromkeys(found)).strip()[-3000:] or log.strip()[-2000:]


def add_cards(pages: Path, lang: str) -> None:
    """Write the pages of cards."""
    (pages / "cards").mkdir()
    for name, notebook in page_parts.anchored({of: cards.site_pages(of) for of in LANGUAGES}, lang).items():
        (pages / "cards" / name).write_text(json.dumps(notebook, ensure_ascii=False, indent=1), encoding="utf-8")


def add_api(pages: Path, lang: str) -> None:
    """Write the reference of the library."""
    (pages / "api").mkdir()
    for name, notebook in api.site_pages(lang).items():
        (pages / "api" / name).write_text(json.dumps(notebook, ensure_ascii=False, indent=1), encoding="utf-8")


def add_benchmarks(pages: Path, lang: str) -> None:
    """Write the pages of the recorded benchmarks."""
    try:
        benchmark_pages.write_pages(pages / "benchmarks", lang)
    except benchmark_pages.Damaged as damaged:
        raise Fault(str(damaged)) from damaged


def add_exercises(pages: Path, lang: str) -> None:
    """Write the pages of exercises and of their solutions beside the chapters, and let the chapters link to them."""
    (pages / "exercises").mkdir()
    for sheet in load_sheets():
        for name, notebook in page_parts.anchored({of: site_pages(sheet, of) for of in LANGUAGES}, lang).items():
            (pages / "exercises" / name).write_text(json.dumps(notebook, ensure_ascii=False, indent=1), encoding="utf-8")
    for path in pages.glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("](../exercises/", "](exercises/"), encoding="utf-8")


def downloads_of(folder: Path) -> Path:
    """Where the notebooks to download lie that belong to a processed folder."""
    return folder.parent / "notebooks" / folder.name


def process(lang: str, folder: Path, workers: int = 2) -> Path:
    """Let nbdev process all notebooks in one language into `folder`, and write the configuration there.

    It runs on a copy: nbdev writes into the folder it reads from, and two languages may be built at a time.
    nbdev's own command is not used because it installs Quarto where that is missing.
    """
    with tempfile.TemporaryDirectory(prefix="bertcourse-site-") as stage_name:
        stage = Path(stage_name)
        shutil.copy(ROOT / "settings.ini", stage)
        shutil.copytree(ROOT / "nbs", stage / "nbs", ignore=SKIPPED)  # follows the link to _quarto.yml
        page_parts.add_anchors(stage / "nbs")
        add_exercises(stage / "nbs", lang)
        add_cards(stage / "nbs", lang)
        add_api(stage / "nbs", lang)
        add_benchmarks(stage / "nbs", lang)
        (stage / "bertcourse").symlink_to(ROOT / "bertcourse")
        env = os.environ | {
            "BERTCOURSE_LANG": lang,
            "PYTHONWARNINGS": "ignore",
        }
        done = subprocess.run(
            [sys.executable, "-c", _PROCESS.replace("WORKERS", str(workers))],
            cwd=stage,
            env=env,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Fault(f"nbdev could not process the notebooks ({lang}):\n{causes(done.stderr)}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(stage / "_proc", folder)
    downloads = downloads_of(folder)
    shutil.rmtree(downloads, ignore_errors=True)
    page_parts.complete(folder, downloads, lang)
    text = yaml.safe_dump(configuration(lang, folder), allow_unicode=True, sort_keys=False, width=1000)
    (folder / "_quarto.yml").write_text(text, encoding="utf-8")
    return folder


# --- checking what was processed ----------------------------------------------------------------------------------

CODE = re.compile(r"(`+).+?\1", re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^()\s<>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
HTML_LINK = re.compile(r"<(?:a|img|source|script|link)\b[^>]*?\b(?:href|src)\s*=\s*[\"']([^\"']+)[\"']", re.IGNORECASE)
SCRIPT = re.compile(r"<script\b.*?</script>", re.DOTALL | re.IGNORECASE)
LANG_ELEMENT = re.compile(r"<\w+[^>]*\blang=[\"'](zh|en)[\"']")


def front_matter(notebook: dict) -> dict:
    """Title, description and output file, as nbdev put them into the first cell."""
    first = notebook["cells"][0] if notebook["cells"] else {"cell_type": "", "source": ""}
    text = "".join(first["source"]).strip()
    return yaml.safe_load(text.strip("-")) if first["cell_type"] == "raw" and text.startswith("---") else {}


def anchors(notebook: dict) -> set[str]:
    """The anchors of a page: explicit ones, and those Pandoc makes from headings."""
    found = set()
    for text in texts(notebook):
        found |= set(re.findall(r"\{#([\w:.-]+)", text)) | set(re.findall(r"\bid=[\"']([^\"']+)[\"']", text))
        for title in re.findall(r"^#{1,6}\s+(.+?)(?:\s*\{[^}]*\})?\s*$", FENCE.sub("", text), re.MULTILINE):
            plain = re.sub(r"[^\w\s.-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title))
            found.add(re.sub(r"^[^a-zA-Z\u3400-\u9fff]+", "", re.sub(r"\s+", "-", plain.strip()).lower()))
    return found


def texts(notebook: dict) -> Iterator[str]:
    """Everything on a page that may hold headings, links or pictures."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            yield "".join(cell["source"])
        for output in cell.get("outputs", []):
            for kind in ("text/html", "text/markdown"):
                yield "".join(output.get("data", {}).get(kind, ""))


def links(text: str) -> list[str]:
    """Where a text leads, and the pictures it shows."""
    text = CODE.sub("", FENCE.sub("", SCRIPT.sub("", text)))
    return LINK.findall(text) + HTML_LINK.findall(text)


def sidebar_files(contents: list) -> Iterator[str]:
    """The files a sidebar names, in order."""
    for entry in contents:
        if isinstance(entry, str):
            yield entry
        else:
            yield from ([entry["href"]] if "href" in entry else [])
            yield from sidebar_files(entry.get("contents", []))


def page_faults(folder: Path, path: Path, lang: str) -> Iterator[str]:
    """What is wrong with one processed notebook."""
    name, other = path.relative_to(folder).as_posix(), "en" if lang == "zh" else "zh"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    matter = front_matter(notebook)
    for key in ("title", "description"):
        text = str(matter.get(key, ""))
        if not text:
            yield f"{lang}/{name}: no {key}"
        elif (
            " | " in text
            or (lang == "en" and CJK.search(text))
            or (lang == "zh" and key == "description" and not CJK.search(text))
        ):
            yield f"{lang}/{name}: the {key} is not in {lang} alone: {text!r}"
    for cell in notebook["cells"]:
        source, where = "".join(cell["source"]), f"{lang}/{name}#{cell.get('id')}"
        if cell["cell_type"] == "markdown" and re.match(r"\s*<!--\s*(zh|en)\s*-->", source):
            yield f"{where}: a language marker is left"
        if cell["cell_type"] == "markdown" and (double := re.search(r"^#+ .*\{#[^}]*\}.*\{#[^}]*\}", FENCE.sub("", source), re.MULTILINE)):
            yield f"{where}: a heading has two anchors: {double[0]!r}"
        for output in cell.get("outputs", []):
            found = LANG_ELEMENT.findall("".join(output.get("data", {}).get("text/html", "")))
            if other in found:
                yield f"{where}: an output holds text in {other}"
            if output.get("output_type") == "error" or output.get("name") == "stderr":
                yield f"{where}: an output is an error"
    for text in texts(notebook):
        for target in links(text):
            yield from (f"{lang}/{name}: {fault}" for fault in link_faults(folder, path, target, SITE))


def link_faults(folder: Path, page: Path, target: str, site: str) -> Iterator[str]:
    """What is wrong with one link of a page."""
    if target.startswith(site):
        yield f"a link to the site itself, which has no page there: {target}"
    if re.match(r"[a-z][a-z0-9+.-]*:|//", target):
        return
    file, _, anchor = unquote(target).partition("#")
    aim = (page.parent / file).resolve() if file else page
    if not aim.is_file():
        yield f"a link to what is not there: {target}"
    elif not aim.is_relative_to(folder.resolve()):
        yield f"a link out of the site: {target}"
    elif anchor and aim.suffix == ".ipynb" and anchor not in anchors(json.loads(aim.read_text(encoding="utf-8"))):
        yield f"a link to a heading that is not there: {target}"


def faults(folder: Path, lang: str) -> list[str]:
    """What is wrong with a processed language; Quarto warns of some of it only, and of a missing sidebar file never."""
    config = yaml.safe_load((folder / "_quarto.yml").read_text(encoding="utf-8"))
    pages = sorted(folder.rglob("*.ipynb"))
    found = [fault for path in pages for fault in page_faults(folder, path, lang)]
    names = {p.relative_to(folder).as_posix() for p in pages}
    listed = list(sidebar_files(config["website"]["sidebar"]["contents"]))
    found += [
        f"{lang}: the sidebar of _quarto.yml names {name}, which is not there" for name in listed if name not in names
    ]
    reached = {name for name in names if name.endswith(f"{SOLUTIONS}.ipynb") or name.startswith("api/")}  # from their exercises, from api/index
    found += [f"{lang}: {name} is missing from the sidebar of _quarto.yml" for name in sorted(names - set(listed) - reached)]
    found += [f"{lang}: the sidebar names {name} twice" for name in sorted({n for n in listed if listed.count(n) > 1})]
    rendered = {
        p.relative_to(folder).as_posix() for pattern in config["project"]["render"] for p in folder.glob(pattern)
    }
    found += [f"{lang}: project.render of _quarto.yml leaves out {name}" for name in sorted(names - rendered)]
    html = config["format"]["html"]
    own = [html["css"], *html["include-after-body"], *html["theme"]["light"][1:], *html["theme"]["dark"][1:]]
    for name in [*own, config["website"]["favicon"]]:
        if not (folder / name).is_file():
            found.append(f"{lang}: _quarto.yml names {name}, which is not there")
    outputs = [
        str(Path(n).parent / front_matter(json.loads((folder / n).read_text(encoding="utf-8"))).get("output-file", ""))
        for n in sorted(names)
    ]
    found += [
        f"{lang}: two pages are written to {name}" for name in sorted({o for o in outputs if outputs.count(o) > 1})
    ]
    left = [text for text in strings(config) if " | " in text or (lang == "en" and CJK.search(text))]
    return found + [f"{lang}: _quarto.yml holds text in another language: {text!r}" for text in left]


def strings(value) -> Iterator[str]:
    """Every text in nested data."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


# --- rendering ----------------------------------------------------------------------------------------------------


def warnings_in(log: str) -> list[str]:
    """The lines of Quarto's log that matter: a bad link is a warning there, and the exit code is 0."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", log)
    return [line.strip() for line in plain.splitlines() if re.search(r"\b(?:WARN(?:ING)?|ERROR)\b", line)]


# Quarto puts these on every page with an output in HTML, for widgets; no page of the course has one.
WIDGETS = re.compile(
    r"<script[^>]* src=\"https://[^\"]*/(?:requirejs|jquery)@[^>]*></script>\n?"
    r"|<script[^>]*>\s*define\('jquery'.*?</script>\n?",
    re.DOTALL,
)
TAG = re.compile(r"<(?:script|link|style|img|source|iframe|video|audio|object|embed)\b[^>]*>", re.IGNORECASE)
FROM_ELSEWHERE = re.compile(r"\b(?:src|srcset|href|data)\s*=\s*[\"']?(?:https?:)?//", re.IGNORECASE)
ADDRESS_ONLY = re.compile(r"\brel\s*=\s*[\"']?(?:canonical|alternate)\b", re.IGNORECASE)
STYLE = re.compile(r"<style\b[^>]*>.*?</style>", re.DOTALL | re.IGNORECASE)
STYLE_FROM_ELSEWHERE = re.compile(r"(?:url\(|@import)\s*(?:url\()?[\"']?(?:https?:)?//[^)\"']*")


def keep_offline(out: Path) -> list[str]:
    """Take Quarto's requests to a CDN out of rendered pages, and name what would still be loaded from elsewhere."""
    found = []
    for path in sorted(p for p in out.rglob("*") if p.suffix in (".html", ".css")):
        text = path.read_text(encoding="utf-8")
        loaded = STYLE_FROM_ELSEWHERE.findall(text if path.suffix == ".css" else "".join(STYLE.findall(text)))
        if path.suffix == ".html":
            text = WIDGETS.sub("", text)
            path.write_text(text, encoding="utf-8")
            loaded += [t for t in TAG.findall(text) if FROM_ELSEWHERE.search(t) and not ADDRESS_ONLY.search(t)]
        found += [f"{path.relative_to(out).as_posix()} loads {what[:120]}" for what in loaded]
    return found


def render(folder: Path, out: Path) -> None:
    """Let Quarto render a processed language. Raises `Fault` if it fails, warns, or writes a page that needs a network."""
    done = subprocess.run(
        ["quarto", "render", "--output-dir", os.path.relpath(out, folder), "--no-execute"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    log = done.stdout + done.stderr
    if done.returncode or (lines := warnings_in(log)):
        raise Fault(f"quarto render ({folder.name}): " + (log.strip()[-2000:] if done.returncode else "\n".join(lines)))
    pages = {
        p.relative_to(folder).parent / front_matter(json.loads(p.read_text(encoding="utf-8")))["output-file"]
        for p in sorted(folder.rglob("*.ipynb"))
    }
    if missing := [str(page) for page in sorted(pages) if not (out / page).is_file()]:
        raise Fault(f"quarto render ({folder.name}) wrote no {', '.join(missing)}")
    if elsewhere := keep_offline(out):
        raise Fault(f"{folder.name}: a page must not load anything from elsewhere:\n" + "\n".join(elsewhere))


START = """<!doctype html>
<html lang="zh">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>BERT 课程 | The BERT course</title>
<link rel="icon" type="image/svg+xml" href="en/favicon.svg">
<link rel="alternate" hreflang="zh" href="zh/index.html">
<link rel="alternate" hreflang="en" href="en/index.html">
<script>
  var lang;
  try { lang = localStorage.getItem("bertcourse-lang"); } catch (e) { /* private window */ }
  if (lang !== "zh" && lang !== "en") {
    var wanted = navigator.languages || [navigator.language || "en"];
    var first = wanted.find(function (l) { return /^(zh|en)/i.test(l); });
    lang = first && /^zh/i.test(first) ? "zh" : "en";
  }
  location.replace(lang + "/index.html" + location.hash);
</script>
<style>body { font: 1.3rem/1.8 system-ui, sans-serif; text-align: center; margin: 20vh 1em }</style>
<p><a href="zh/index.html" lang="zh" hreflang="zh">BERT 课程（中文）</a></p>
<p><a href="en/index.html" lang="en" hreflang="en">The BERT course (English)</a></p>
</html>
"""


def build_live(proc: Path) -> bool:
    """The files for the model in the browser, in `proc/live`; False where npm is missing."""
    if not shutil.which("npm"):
        print("npm is not installed: the pages show the model's stored pictures, and cannot run it")
        return False
    shutil.rmtree(proc / "live", ignore_errors=True)
    done = subprocess.run([sys.executable, ROOT / "tools" / "live.py", proc / "live"], check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"the model for the browser could not be built, the pages show its stored pictures:\n{causes(done.stderr)}")
        return False
    print(f"live: {done.stdout.strip().rpartition(': ')[2]}", flush=True)
    return True


def build(langs: list[str], out: Path, proc: Path, strict: bool, checks: bool) -> int:
    """Process, check and, where Quarto is installed, render and check what was rendered; the exit code."""
    found = []
    for lang in langs:
        process(lang, proc / lang)
        found += faults(proc / lang, lang)
        print(f"{lang}: {len(list((proc / lang).rglob('*.ipynb')))} pages processed and checked", flush=True)
    if found:
        raise Fault("\n".join(found))
    live = build_live(proc)
    if not shutil.which("quarto"):
        print("quarto is not installed: the site's last step, rendering, was skipped")
        return int(strict)
    if strict and not live:
        return 1
    for lang in langs:
        shutil.rmtree(out / lang, ignore_errors=True)
        (out / lang).mkdir(parents=True)
        render(proc / lang, out / lang)
        shutil.copytree(downloads_of(proc / lang), out / lang / "notebooks", dirs_exist_ok=True)
        print(f"{lang}: rendered into {os.path.relpath(out / lang)}", flush=True)
    shutil.rmtree(out / "live", ignore_errors=True)
    if live:
        shutil.copytree(proc / "live", out / "live")
    rendered.finish(out, SITE)
    (out / "index.html").write_text(START, encoding="utf-8")
    (out / ".nojekyll").write_text("", encoding="utf-8")  # GitHub Pages would drop folders that start with _
    return site_checks.run(out, strict=strict) if checks else 0


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=["build", "settings"], default="build")
    parser.add_argument("--lang", choices=[*LANGUAGES, "both"], default="both")
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="where the site goes (default: _docs)")
    parser.add_argument(
        "--proc", type=Path, default=ROOT / "_proc", help="where processed notebooks go (default: _proc)"
    )
    parser.add_argument("--strict", action="store_true", help="fail where Quarto is not installed, or checks are left out")
    parser.add_argument("--no-checks", dest="checks", action="store_false", help="do not check the rendered site")
    args = parser.parse_args(argv)
    if args.command == "settings":
        call = [sys.executable, "-c", "from nbdev.quarto import refresh_quarto_yml; refresh_quarto_yml()"]
        return subprocess.run(call, cwd=ROOT, check=False).returncode
    try:
        return build(
            list(LANGUAGES) if args.lang == "both" else [args.lang],
            args.out.resolve(),
            args.proc.resolve(),
            args.strict,
            args.checks,
        )
    except Fault as fault:
        print(fault, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
