"""The checks of the rendered site in a browser: a sound site passes, and each planted fault is found."""

import re

import pytest
import rendered_site
import scripts

FAULTS = """<script>console.error("said on purpose"); setTimeout(() => missing_function(), 10); fetch("gone.json"); fetch("late.bin"); new Image().src = "https://a.org/x.png"</script>
<p id="wide" style="width: 600px">wide on a phone</p><div style="overflow-x: auto"><p style="width: 900px">scrolls by itself</p></div>"""
HARD_TO_READ = '<img src="../dot.png" width="20"><p style="color: #aaa; background: #fff">pale</p>'


@pytest.fixture(scope="module")
def site_checks():
    """tools/site_checks.py as a module, where there is a browser."""
    module = scripts.tool("site_checks")
    if module.site_browser.find_browser() is None:
        pytest.skip("no browser")
    return module


@pytest.fixture(scope="module")
def axe(site_checks, tmp_path_factory):
    """The script of axe-core in a file."""
    try:
        text = site_checks.axe_script(None)
    except site_checks.npm_packages.Fault as fault:
        pytest.skip(str(fault))
    path = tmp_path_factory.mktemp("axe") / "axe.min.js"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def check(site_checks, axe, tmp_path, capsys):
    """Check a site; gives the exit code and what was printed."""

    def run() -> tuple[int, str]:
        code = site_checks.main([str(tmp_path / "_docs"), "--settings", str(tmp_path / "settings.toml"), "--axe", str(axe), "--strict"])
        return code, capsys.readouterr().out

    return run


def test_sound_site_passes(check, tmp_path):
    rendered_site.write(tmp_path)
    code, said = check()
    assert code == 0 and "0 findings" in said and "left out" not in said, said


def test_faults_are_found(check, tmp_path):
    docs = rendered_site.write(tmp_path)
    rendered_site.plant(docs / "en/more/a.html", FAULTS)
    rendered_site.plant(docs / "zh/index.html", HARD_TO_READ)
    rendered_site.plant(docs / "zh/more/a.html", '<section id="new" class="level2"><h2>new</h2></section>')
    (docs / "en/more/late.bin").write_bytes(bytes(30_000))
    (docs / "en/search.json").write_text((docs / "en/search.json").read_text().replace("more/a.html", "index.html"))
    (docs / "index.html").write_text((docs / "index.html").read_text().replace('"zh" : "en"', '"en" : "en"'))
    code, said = check()
    lines = [re.sub(" +", " ", line) for line in said.splitlines()]
    assert code == 1
    for wanted in ("console en/more/a.html error on the console said on purpose",
                   "console en/more/a.html script error missing_function is not defined",
                   "console en/more/a.html failed request: 404 en/more/gone.json",
                   "console en/more/a.html request that leaves the site https://a.org/x.png",
                   "overflow en/more/a.html the page scrolls sideways 6.* px at 390: p in #wide: wide on a phone",
                   "axe zh/index.html image-alt (critical) 1×, first .*light 1280, light 390, dark 1280, dark 390",
                   "axe zh/index.html color-contrast (serious) 1×, first .*light 1280, light 390, dark 1280, dark 390",
                   "switch zh/more/a.html lands elsewhere: .* #new",
                   "switch index.html a browser in zh is not led there",
                   "weight en/more/a.html 3.* kB of at most 20",
                   "search en/index.html quantization does not lead to more/a.html found: index.html"):  # fmt: skip
        pattern = re.escape(wanted).replace(r"\.\*", ".*")
        assert any(re.match(pattern, line) for line in lines), (wanted, said)
    assert "1280: " not in "".join(line for line in lines if line.startswith("overflow")), "wide enough on a screen"
