"""The checks of the rendered site that need no browser: a sound site passes, and each planted fault is found."""

import json
import re
import sys
from types import ModuleType

import pytest
import rendered_site
import scripts
from checks.reading import ROOT

from bertcourse.languages import LANGUAGES


@pytest.fixture(scope="module")
def site_checks() -> ModuleType:
    """tools/site_checks.py as a module."""
    return scripts.tool("site_checks")


@pytest.fixture
def docs(tmp_path):
    """The folder of a rendered site."""
    return rendered_site.write(tmp_path)


@pytest.fixture
def check(site_checks, docs, capsys):
    """Check the site without a browser; gives the exit code and what was printed."""

    def run(*arguments: str) -> tuple[int, str]:
        code = site_checks.main([str(docs), "--no-browser", "--settings", str(docs.parent / "settings.toml"), *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_sound_site_passes(check):
    code, said = check()
    assert code == 0 and "0 findings" in said and "left out: console, overflow, axe, switch" in said
    assert check("--strict")[0] == 1, "what was left out counts"


@pytest.mark.parametrize("html, what, where", [
    ('<a href="no.html">x</a>', "link to a missing file", "no.html"),
    ('<a href="../notebooks/a.ipynb" download>x</a>', "link to a missing file", "../notebooks/a.ipynb"),
    ('<a href="#no">x</a>', "link to a missing anchor", "#no"),
    ('<a href="../index.html?q=1#no">x</a>', "link to a missing anchor", "../index.html?q=1#no"),
    ('<a href="/zh/index.html">x</a>', "link out of the site's folder", "/zh/index.html"),
    ('<a href="https://bertcourse.github.io/bertcourse/en/no.html">x</a>', "link to a missing file", "en/no.html"),
    ('<meta property="og:image" content="https://bertcourse.github.io/bertcourse/no.png">', "link to a missing file", "no.png"),
    ('<img alt="" src="no.png">', "missing picture", "no.png"),
    ('<img alt="" srcset="../dot.png 1x, no2.png 2x">', "missing picture", "no2.png"),
    ('<script src="no.js"></script>', "missing picture, script or style sheet", "no.js"),
    ('<link rel="stylesheet" href="no.css">', "missing picture, script or style sheet", "no.css"),
    ('<style>p { background: url(no.svg) }</style>', "missing picture", "no.svg"),
    ('<p style="background: url(\'no.svg\')">x</p>', "missing picture", "no.svg"),
    ('<script src="https://cdn.a.org/x.js"></script>', "request that leaves the site", "https://cdn.a.org/x.js"),
    ('<img alt="" src="//a.org/x.png">', "request that leaves the site", "//a.org/x.png"),
    ('<link rel="preconnect" href="https://a.org">', "request that leaves the site", "https://a.org"),
    ('<style>@import "https://a.org/x.css";</style>', "request that leaves the site", "https://a.org/x.css"),
    ('<section id="only" class="level2"><h2>x</h2></section>', "no such heading in zh", "#only"),
])  # fmt: skip
def test_fault_on_a_page_is_found(check, docs, html, what, where):
    rendered_site.plant(docs / "en/more/a.html", html)
    code, said = check()
    lines = [line for line in said.splitlines() if "en/more/a.html" in line and "heaviest" not in line]
    assert code == 1 and len(lines) == 1 and what in lines[0] and lines[0].endswith(where)


def test_links_that_are_right_pass(check, docs):
    rendered_site.plant(docs / "en/more/a.html", '<a href="">x</a><a href="#">x</a><a href="#top">x</a><a href="../">x</a><a href="../..">x</a>'
                        '<a href="javascript:void(0)">x</a><a name="here"></a><a href="#here">x</a><a href="../index.html#:~:text=x">x</a>'
                        '<a href="https://a.org/no">x</a><img alt="" src="data:image/png;base64,x"><script type="text/x">"<a href=no>"</script>'
                        '<pre>&lt;img src="no.png"&gt;</pre><svg><use href="#one"></use></svg>')  # fmt: skip
    assert check()[0] == 0


def test_faults_of_style_sheets_and_lists_are_found(check, docs):
    (docs / "zh/site_libs/page.css").write_text("@import 'more.css'; a { background: url(no.png) }")
    (docs / "zh/site_libs/more.css").write_text("@font-face { src: url(https://a.org/font.woff) }")
    (docs / "zh/search.json").write_text(json.dumps([{"href": "gone.html#x", "title": "", "section": "", "text": ""}]))
    (docs / "sitemap.xml").write_text("<loc>https://bertcourse.github.io/bertcourse/en/gone.html</loc>")
    (docs / "en/search.json").unlink()
    code, said = check()
    assert code == 1
    for line in (r"zh/site_libs/page.css +missing picture.* no\.png", r"zh/site_libs/more.css +request that leaves.* https://a.org/font.woff",
                 r"zh/search.json +link to a missing file +gone\.html#x", r"sitemap.xml +link to a missing file", r"en/search.json +missing",
                 r"zh/search.json +剪枝 is not on more/a.html"):  # fmt: skip
        assert re.search(line, said), (line, said)


def test_page_without_a_twin_is_found(check, docs):
    (docs / "zh/alone.html").write_text("<title>alone</title>")
    code, said = check()
    assert code == 1 and re.search(r"twins +zh/alone.html +no such page in en", said)


def test_weight_counts_what_few_pages_load(site_checks, docs):
    site_files = sys.modules["site_files"]
    size = site_files.packed_size
    (docs / "en/large.png").write_bytes(b"x" * 900)
    (docs / "en/data.js").write_text("x" * 5000)
    rendered_site.plant(docs / "en/more/a.html", '<img alt="" src="../large.png"><script src="../data.js"></script><a href="../large.png">x</a>')
    site = site_files.Site(docs, site_checks.SITE)
    files = site_files.files_by_page(site)
    weights = site_files.weights(site, files, shared=1)
    page = size(docs / "en/more/a.html")
    assert weights["en/more/a.html"] == page + 900 + size(docs / "en/data.js") and size(docs / "en/data.js") < 100
    assert weights["zh/more/a.html"] == size(docs / "zh/more/a.html"), "both pages of zh load its files"
    assert site_files.weights(site, files, shared=2)["zh/more/a.html"] > 2 * size(docs / "zh/dot.png") + size(docs / "zh/more/a.html")


def test_heavy_page_is_found_unless_it_may_be(check, docs):
    settings = docs.parent / "settings.toml"
    (docs / "en/large.png").write_bytes(b"x" * 30_000)
    rendered_site.plant(docs / "en/more/a.html", '<img alt="" src="../large.png">')
    code, said = check()
    assert code == 1 and re.search(r"weight +en/more/a.html +3\d kB of at most 20", said)
    settings.write_text(rendered_site.SETTINGS.replace("shared = 2", 'shared = 2, heavier = {"en/more/a.html" = 40_000}'), encoding="utf-8")
    assert check()[0] == 0
    settings.write_text(rendered_site.SETTINGS.replace("shared = 2", 'shared = 2, heavier = {"en/more/a.html" = 40_000, "en/index.html" = 30_000}'), encoding="utf-8")
    assert "needs no limit of its own" in check()[1]


def test_finding_on_many_pages_is_one_line(site_checks):
    found = [site_checks.Finding("links", f"en/{i}.html", "link to a missing file", "no.html") for i in range(9)]
    lines = site_checks.table([*found, site_checks.Finding("links", "zh/1.html", "link to a missing file", "other.html")]).splitlines()
    assert len(lines) == 3 and "en/0.html and 8 more" in lines[1] and lines[2].endswith("other.html")


@pytest.mark.parametrize("text, said", [
    (None, "no settings can be read"),
    ("x = ", "no settings can be read"),
    ("samples = []", "switch is missing"),
    (rendered_site.SETTINGS.replace("20_000", "'much'"), "weight.limit must be a whole number"),
    (rendered_site.SETTINGS.replace('lang = "zh", ', ""), "each term needs lang, term and pages"),
])  # fmt: skip
def test_bad_settings_are_exit_code_2(check, docs, text, said):
    settings = docs.parent / "settings.toml"
    settings.unlink()
    if text is not None:
        settings.write_text(text, encoding="utf-8")
    code, printed = check()
    assert code == 2 and said in printed and printed.count("\n") <= 2


def test_bad_folder_is_exit_code_2(site_checks, tmp_path, capsys):
    assert site_checks.main([str(tmp_path / "no")]) == 2 and "no such folder" in capsys.readouterr().err
    assert site_checks.main([str(tmp_path)]) == 2 and "no rendered site" in capsys.readouterr().err
    assert site_checks.main([str(tmp_path), "--axe", str(tmp_path / "no.js")]) == 2 and "no.js" in capsys.readouterr().err


def test_pages_of_the_settings_must_be_there(check, docs):
    (docs.parent / "settings.toml").write_text(rendered_site.SETTINGS.replace('"index.html"', '"no.html"'), encoding="utf-8")
    code, said = check()
    assert code == 1 and re.search(r"settings +zh/no.html +a page is not there", said)


def test_without_a_browser_or_npm_it_is_said(site_checks, docs, monkeypatch):
    settings = site_checks.read_settings(docs.parent / "settings.toml")
    site = site_checks.open_site(docs, site_checks.SITE)
    monkeypatch.setattr(site_checks.site_browser, "find_browser", lambda: None)
    assert site_checks.check_in_browser(site, settings, None, 1)[2][0].startswith("console, overflow, axe, switch, search in the page: no browser")
    with monkeypatch.context() as patch:
        patch.setattr(site_checks.npm_packages.shutil, "which", lambda name: None)
        with pytest.raises(site_checks.npm_packages.Fault, match="npm is not installed"):
            site_checks.axe_script(None)


def test_settings_of_the_course(site_checks):
    """Ten terms a language; their pages are pages of the course."""
    settings = site_checks.read_settings(site_checks.SETTINGS)
    names = {scripts.tool("page_parts").page_address(path.name) for path in (ROOT / "nbs").glob("*.ipynb")}
    for lang in LANGUAGES:
        terms = [term for term in settings["term"] if term["lang"] == lang]
        assert len({term["term"] for term in terms}) >= 10 and {page for term in terms for page in term["pages"]} <= names
    assert {*settings["switch"]} <= names and len(settings["switch"]) >= 3
    assert settings["weight"]["limit"] == 150_000
