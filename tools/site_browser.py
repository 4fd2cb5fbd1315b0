"""What is checked in the rendered site with a browser: errors, overflow, accessibility, the switch of languages, the search."""

from __future__ import annotations

import asyncio
import functools
import http.server
import re
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from site_files import Finding, Site

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # fmt: skip
WIDE, NARROW, HEIGHT = 1280, 390, 900  # pixels
SCHEMES = ("light", "dark")
HITS = 5  # a term's page must be among so many
SECONDS = 30  # for a page to load
SERIOUS = {"serious", "critical"}  # as axe-core grades


def find_browser() -> dict[str, str] | None:
    """How playwright starts Chromium: the one on PATH, else its own; None where there is neither."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if program := next(filter(None, map(shutil.which, CHROMIUM)), None):
        return {"executable_path": program}
    with sync_playwright() as playwright:
        return {} if Path(playwright.chromium.executable_path).is_file() else None


# --- a file server, as GitHub Pages is one -------------------------------------------------------------------------


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder below a path; writes no log."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, below: str, **kwargs: Any) -> None:
        self.below = below
        super().__init__(*args, **kwargs)

    def translate_path(self, path: str) -> str:
        """The file for a path; one beside the site is not there."""
        inside = path == self.below or path.startswith(f"{self.below}/")
        return super().translate_path(path[len(self.below) :] if inside else "/not-in-the-site")

    def end_headers(self) -> None:
        """Let the browser keep what pages share."""
        self.send_header("Cache-Control", "max-age=600")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def served(site: Site) -> Iterator[str]:
    """Serve a site on this machine below the path that it is published at; gives its address."""
    below = urlsplit(site.address).path
    handler = functools.partial(Files, directory=str(site.folder), below=below)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{below}"
    finally:
        server.shutdown()
        server.server_close()


# --- a tab that notes what goes wrong ------------------------------------------------------------------------------


@dataclass
class Tab:
    """A tab of the browser; findings are those of the page that it shows."""

    tab: Any
    address: str
    findings: list[Finding]
    loads: dict[str, set[str]]
    page: str = ""
    counts: bool = False  # does what is loaded belong to the page? What loads after a click does not

    def __post_init__(self) -> None:
        self.tab.on("console", lambda message: self.note_message(message.type, message.text))
        self.tab.on("pageerror", lambda error: self.note("console", "script error", str(error)))
        self.tab.on("request", lambda request: self.note_request(request.url))
        self.tab.on("response", lambda answer: answer.status >= 400 and self.note("console", f"failed request: {answer.status}", self.short(answer.url)))
        self.tab.on("requestfailed", lambda request: self.note_failure(request.url, str(request.failure)))

    def note(self, check: str, what: str, where: str) -> None:
        """Note what is wrong with the page."""
        finding = Finding(check, self.page, what, " ".join(where.replace(f"{self.address}/", "").split())[:300])
        if finding not in self.findings:
            self.findings.append(finding)

    def short(self, url: str) -> str:
        """An address without the server's."""
        return unquote(url.removeprefix(f"{self.address}/"))

    def note_message(self, kind: str, text: str) -> None:
        """An error on the console; of failed requests the other events say more."""
        if kind == "error" and not text.startswith("Failed to load resource"):
            self.note("console", "error on the console", text)

    def note_request(self, url: str) -> None:
        """What the page loads, and what it asks of others."""
        inside = url.startswith(f"{self.address}/")
        if inside and self.counts:
            self.loads.setdefault(self.page, set()).add(self.short(url).partition("?")[0])
        if not inside and not url.startswith(("data:", "blob:", "about:")):
            self.note("console", "request that leaves the site", url)

    def note_failure(self, url: str, failure: str) -> None:
        """A request without an answer; what a next page cuts off is none."""
        if url.startswith(self.address) and "ERR_ABORTED" not in failure:
            self.note("console", f"failed request: {failure}", self.short(url))

    async def open(self, page: str, counts: bool = False) -> None:
        """Show a page on a wide screen and wait until its scripts have run."""
        self.page, self.counts = page, counts
        await self.tab.set_viewport_size({"width": WIDE, "height": HEIGHT})
        await self.tab.goto(f"{self.address}/{quote(page)}", wait_until="load")
        await self.settle()

    async def resize(self, width: int) -> None:
        """Show the page at another width."""
        await self.tab.set_viewport_size({"width": width, "height": HEIGHT})
        await self.settle()

    async def settle(self) -> None:
        """Wait for fonts, and for what the page does right after loading."""
        await self.tab.evaluate("document.fonts.ready.then(() => new Promise((done) => setTimeout(() => requestAnimationFrame(done), 60)))")


# --- one page ------------------------------------------------------------------------------------------------------

# Names the innermost element that reaches beyond the page, and its text; what scrolls by itself reaches as far as its box.
OVERFLOW = """() => {
  const root = document.documentElement, wide = Math.max(root.scrollWidth, document.body.scrollWidth);
  if (wide <= root.clientWidth) return null;
  const scrolls = (part) => part !== document.body && getComputedStyle(part).overflowX !== "visible";
  const reach = (part) => { const box = part.getBoundingClientRect(); return Math.max(box.right, scrolls(part) ? 0 : box.left + part.scrollWidth); };
  const widest = (part) => {
    const inside = scrolls(part) ? [] : [...part.children].map((child) => [reach(child), child]).filter(([right]) => right > root.clientWidth + 1);
    return inside.length ? widest(inside.reduce((one, other) => (other[0] > one[0] ? other : one))[1]) : part;
  };
  const found = widest(document.body), id = found.closest("[id]")?.id, text = found.textContent.trim().slice(0, 40);
  const name = found.tagName.toLowerCase() + [...found.classList].slice(0, 2).map((name) => "." + name).join("");
  return `${wide} px at ${root.clientWidth}: ${name}${id ? " in #" + id : ""}${text ? ": " + text : ""}`;
}"""
AXE = """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations.map(({ id, impact, nodes }) =>
  ({ id, impact, count: nodes.length, at: nodes[0].target.flat().join(" "), html: nodes[0].html.slice(0, 600) }))"""
WRITTEN_BY_QUARTO = re.compile(r' data-original-href="[^"]*"')


async def check_overflow(tab: Tab) -> None:
    """The page must not scroll sideways."""
    if wide := await tab.tab.evaluate(OVERFLOW):
        tab.note("overflow", "the page scrolls sideways", wide)


async def visit(tab: Tab, page: str) -> None:
    """A page at both widths."""
    await tab.open(page, counts=True)
    await check_overflow(tab)
    await tab.resize(NARROW)
    await check_overflow(tab)


async def check_accessibility(tab: Tab, page: str, axe: str) -> None:
    """A page must have no serious violation of the rules of axe-core, in both colour schemes and at both widths."""
    found: dict[tuple[str, str], list[str]] = {}
    for scheme in SCHEMES:
        await tab.tab.emulate_media(color_scheme=scheme)
        await tab.open(page)
        await tab.tab.evaluate(axe)
        for width in (WIDE, NARROW):
            await tab.resize(width)
            for what, where in await violations(tab):
                found.setdefault((what, where), []).append(f"{scheme} {width}")
    await tab.tab.emulate_media(color_scheme=SCHEMES[0])
    for (what, where), times in found.items():
        tab.note("axe", what, f"{where} ({', '.join(times)})")


async def violations(tab: Tab) -> list[tuple[str, str]]:
    """The serious violations on the page: the rule, and the first place of each."""
    found = [broken for broken in await tab.tab.evaluate(AXE) if broken["impact"] in SERIOUS]
    for broken in found:
        broken["html"] = WRITTEN_BY_QUARTO.sub("", broken["html"].replace(f"{tab.address}/", ""))[:120]
    return [(f"{broken['id']} ({broken['impact']})", f"{broken['count']}×, first {broken['at']}: {broken['html']}") for broken in found]


# --- the switch of languages ---------------------------------------------------------------------------------------

# Scrolls to a heading as a reader would, with room below the page; gives the anchors at the top of the window: its own and
# those of smaller headings right below it.
SCROLL = """(anchor) => {
  document.body.style.paddingBottom = "100vh";
  const section = document.getElementById(anchor);
  section.scrollIntoView({ behavior: "instant" });
  const near = [...section.querySelectorAll("section[id]")].filter((part) => part.getBoundingClientRect().top < innerHeight / 4);
  return [anchor, ...near.map((part) => part.id)];
}"""
LANDED = """(anchor) => {
  const section = document.getElementById(anchor);
  const box = (section?.querySelector("h2, h3, h4, h5, h6") ?? section)?.getBoundingClientRect();
  return box && box.top > -10 && box.top < innerHeight;
}"""


async def check_switch(tab: Tab, page: str, site: Site) -> None:
    """From each second-level heading the switch must lead to the same heading of the twin."""
    lang, _, name = page.partition("/")
    twin = f"{next(other for other in site.languages if other != lang)}/{name}"
    for anchor in [anchor for level, anchor in site.pages[page].sections if level == "level2"]:
        await tab.open(page)
        there = await tab.tab.evaluate(SCROLL, anchor)
        if not await tab.tab.locator(".language-switch").count():
            tab.note("switch", "no switch of languages", "")
            return
        landed = await follow(tab, twin)
        if landed not in there or not await comes_true(tab, LANDED, landed):
            tab.note("switch", f"lands elsewhere: {landed or 'the top'}", f"#{anchor}")


async def follow(tab: Tab, twin: str) -> str:
    """Click the switch, and wait for a page in the other language; the anchor in its address.

    By script, since the header with the switch is hidden while a reader scrolls down.
    """
    folder = twin.partition("/")[0]
    await tab.tab.evaluate("document.querySelector('.language-switch').click()")
    try:
        await tab.tab.wait_for_url(lambda url: tab.short(url).startswith(f"{folder}/"), wait_until="load")
    except Exception as error:  # playwright's own, which is imported only where it is used
        return f"nowhere ({type(error).__name__})"
    path, _, anchor = tab.short(tab.tab.url).partition("#")
    return anchor if path.removesuffix("index.html") == twin.removesuffix("index.html") else path


async def comes_true(tab: Tab, question: str, value: str, seconds: float = 3) -> bool:
    """Does a question get the answer yes soon?"""
    for _ in range(round(seconds / 0.1)):
        if await tab.tab.evaluate(question, value):
            return True
        await asyncio.sleep(0.1)
    return False


async def check_door(tab: Tab, lang: str) -> None:
    """The first page must lead a reader to the language of the browser."""
    await tab.open("index.html")
    if not await comes_true(tab, "(lang) => location.pathname.includes(`/${lang}/`)", lang):
        tab.note("switch", f"a browser in {lang} is not led there", "")


# --- the search ----------------------------------------------------------------------------------------------------

# The addresses of the pages found for a term, null as long as none is; results of the term before are still there for a while.
HITS_OF = """(term) => {
  const links = [...document.querySelectorAll(".search-result-doc a.search-result-link")].map((link) => link.href);
  return links.some((link) => new URL(link).searchParams.get("q") === term) ? links : null;
}"""
NOTHING_AFTER = 5  # seconds with no result


async def check_search(tab: Tab, lang: str, terms: list[dict[str, Any]]) -> None:
    """Each term, typed into the search, must have one of its pages among the first five."""
    await tab.open(f"{lang}/index.html")
    button, entry = tab.tab.locator("#quarto-search .aa-DetachedSearchButton"), tab.tab.locator(".aa-Input").last
    if await button.count():
        await button.click()
    if not await entry.count():
        tab.note("search", "no field to search in", "")
        return
    await entry.fill("a")  # loads the index
    await tab.tab.wait_for_load_state("networkidle")
    for term in terms:
        await entry.fill(term["term"])
        hits = (await hit_pages(tab, term["term"], f"{lang}/"))[:HITS]
        if not {*hits} & {*term["pages"]}:
            tab.note("search", f"{term['term']} does not lead to {' or '.join(term['pages'])}", f"found: {', '.join(hits) or 'nothing'}")


async def hit_pages(tab: Tab, term: str, folder: str) -> list[str]:
    """The pages that the search shows for a term, in their order."""
    for _ in range(10 * NOTHING_AFTER):
        if urls := await tab.tab.evaluate(HITS_OF, term):
            pages = [re.split("[?#]", tab.short(url))[0].removeprefix(folder) for url in urls]
            return [page or "index.html" for page in dict.fromkeys(pages)]
        await asyncio.sleep(0.1)
    return []


# --- all of it -----------------------------------------------------------------------------------------------------

Job = Callable[["Worker"], Awaitable[None]]


@dataclass
class Worker:
    """Runs jobs one after another, in tabs that keep what pages share."""

    browser: Any
    address: str
    findings: list[Finding]
    loads: dict[str, set[str]]
    tabs: dict[str, Tab] = field(default_factory=dict)

    async def tab(self, locale: str) -> Tab:
        """A tab of a reader's language."""
        if locale not in self.tabs:
            context = await self.browser.new_context(color_scheme=SCHEMES[0], locale=locale, viewport={"width": WIDE, "height": HEIGHT})
            context.set_default_timeout(1000 * SECONDS)
            self.tabs[locale] = Tab(await context.new_page(), self.address, self.findings, self.loads)
        return self.tabs[locale]

    async def work(self, jobs: list[tuple[str, Job]]) -> None:
        """Take jobs until none is left; one that fails is a finding."""
        while jobs:
            page, job = jobs.pop(0)
            try:
                await job(self)
            except Exception as error:  # a page that does not load must not keep the others from being checked
                self.findings.append(Finding("console", page, "could not be checked", str(error).strip().splitlines()[0]))


def make_jobs(site: Site, settings: dict[str, Any], axe: str | None) -> list[tuple[str, Job]]:
    """The longest first: accessibility, the search, the switch, then every page."""
    jobs: list[tuple[str, Job]] = []

    def add(page: str, check: Callable[..., Awaitable[None]], *arguments: Any, locale: str = "en-GB") -> None:
        async def job(worker: Worker) -> None:
            await check(await worker.tab(locale), page, *arguments)

        jobs.append((page, job))

    samples = [page for page in site.pages if page.partition("/")[2] in settings["samples"] or page == "404.html"]
    for page in samples if axe else ():
        add(page, check_accessibility, axe)
    for lang in site.languages:
        add(lang, check_search, [term for term in settings["term"] if term["lang"] == lang])
        if len(site.languages) > 1:
            add(lang, check_door, locale={"zh": "zh-CN", "en": "en-GB"}[lang])
            for page in [f"{lang}/{name}" for name in settings["switch"] if f"{lang}/{name}" in site.pages]:
                add(page, check_switch, site)
    for page in site.pages:
        if page != "index.html":
            add(page, visit)
    return jobs


@asynccontextmanager
async def launched(how: dict[str, str]) -> AsyncIterator[Any]:
    """A browser without a window."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(args=ARGUMENTS, **how)
        try:
            yield browser
        finally:
            await browser.close()


async def check(site: Site, settings: dict[str, Any], how: dict[str, str], axe: str | None, workers: int) -> tuple[list[Finding], dict[str, set[str]]]:
    """All of it; findings, and the files that each page has loaded, besides itself."""
    findings: list[Finding] = []
    loads: dict[str, set[str]] = {}
    jobs = make_jobs(site, settings, axe)
    with served(site) as address:
        async with launched(how) as browser:
            await asyncio.gather(*[Worker(browser, address, findings, loads).work(jobs) for _ in range(workers)])
    return findings, loads
