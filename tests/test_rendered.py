"""What is done to the rendered site, on a small one."""

import json
import xml.etree.ElementTree as ET

import pytest
import scripts

SITE = "https://a.org/course"


@pytest.fixture(scope="module")
def rendered():
    return scripts.tool("rendered")


@pytest.fixture
def out(tmp_path):
    """Two languages; one page is in Chinese only."""
    for name in ("zh/index.html", "zh/helpers/a.html", "en/index.html", "en/helpers/a.html", "zh/only.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"<html><head><title>{name}</title></head><body></body></html>", encoding="utf-8")
    (tmp_path / "zh/site_libs").mkdir()
    (tmp_path / "zh/site_libs/x.html").write_text("<head></head>")
    return tmp_path


def test_each_page_names_its_twin(rendered, out):
    rendered.add_alternates(out, SITE)
    page = (out / "zh/helpers/a.html").read_text()
    assert f'<link rel="canonical" href="{SITE}/zh/helpers/a.html">' in page and page.count("</head>") == 1
    assert f'<link rel="alternate" hreflang="en" href="{SITE}/en/helpers/a.html">' in page and 'hreflang="zh-Hans"' in page
    assert f'href="{SITE}/en/"' in (out / "zh/index.html").read_text() and 'hreflang="en"' not in (out / "zh/only.html").read_text()
    assert (out / "zh/site_libs/x.html").read_text() == "<head></head>"


def test_canonical_address_is_named_once(rendered, out):
    (out / "en/index.html").write_text('<head><link rel="canonical" href="x"></head>')
    rendered.add_alternates(out, SITE)
    assert (out / "en/index.html").read_text().count("canonical") == 1


def test_map_of_both_languages(rendered, out):
    (out / "zh/sitemap.xml").write_text("<old/>")
    rendered.write_map(out, SITE)
    names = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9", "x": "http://www.w3.org/1999/xhtml"}
    urls = ET.parse(out / "sitemap.xml").getroot().findall("s:url", names)
    assert {url.find("s:loc", names).text for url in urls} == {f"{SITE}/{end}" for end in (
        "zh/", "en/", "zh/helpers/a.html", "en/helpers/a.html", "zh/only.html")}  # fmt: skip
    assert [len(url.findall("x:link", names)) for url in urls if url.find("s:loc", names).text.endswith(("only.html", "en/"))] == [1, 2]
    assert not (out / "zh/sitemap.xml").exists() and f"{SITE}/sitemap.xml" in (out / "robots.txt").read_text()


def test_wrong_address_leads_back(rendered, out):
    rendered.write_not_found(out, SITE)
    page = (out / "404.html").read_text(encoding="utf-8")
    assert f'href="{SITE}/zh/index.html"' in page and f'href="{SITE}/en/index.html"' in page and "noindex" in page


@pytest.mark.parametrize("lang, text, found, absent", [
    ("zh", "本章讲剪枝与量化。", ["pruning", "quantisation", "quantization"], ["剪枝"]),
    ("en", "Here quantisation is measured.", ["quantization"], ["pruning", "量化"]),
    ("en", "An unrelated sentence.", [], ["("]),
    ("en", "quantisation, in American quantization", [], ["(quantization"]),
])  # fmt: skip
def test_sections_are_found_by_other_names(rendered, tmp_path, lang, text, found, absent):
    path = tmp_path / "search.json"
    path.write_text(json.dumps([{"objectID": "a", "title": "t", "section": "s", "text": text}], ensure_ascii=False), encoding="utf-8")
    rendered.add_synonyms(path, lang)
    more = json.loads(path.read_text(encoding="utf-8"))[0]["text"].removeprefix(text)
    assert all(word in more for word in found) and not any(word in more for word in absent)


def test_a_term_leads_to_the_section_about_it(rendered, tmp_path):
    path = tmp_path / "search.json"
    sections = [("api/x.html", "perplexity", "perplexity"), ("a.html#one", "One", "perplexity, perplexity & perplexity"),
                ("b.html#two", "The perplexity of a model", "a word"), ("b.html#three", "Three", "another")]  # fmt: skip
    entries = [{"objectID": href, "href": href, "title": "t", "section": section, "text": text} for href, section, text in sections]
    path.write_text(json.dumps(entries), encoding="utf-8")
    assert rendered.add_terms(path, "en", {"a.html", "b.html"}) == 1
    first, *others = json.loads(path.read_text(encoding="utf-8"))
    assert others == entries and first["href"] == "b.html#two" and first["section"].startswith("perplexity") and len(first["text"]) > 20
    assert rendered.add_terms(path, "en", {"c.html"}) == 0


def test_every_chapter_may_be_led_to(rendered):
    assert {"bert.html", "tinybert.html", "serving.html"} < rendered.CHAPTERS and len(rendered.CHAPTERS) == 10
