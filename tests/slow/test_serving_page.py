"""The page at `/`, in a real browser: text in, bars, marks and answers out, in both languages, with nothing from elsewhere."""

import re
import sys
from pathlib import Path

import httpx
import pytest

sys.path.append(str(Path(__file__).parents[1]))
import commands  # noqa: E402
import services  # noqa: E402
from services import serve  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    with commands.surroundings():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return services.export(tmp_path_factory.mktemp("served"))


@pytest.fixture
def open_page(browser):
    "`open_page(url, locale)`: a page; at the end nobody else was asked, and the console is empty."
    opened = []

    def make(url: str, locale: str = "en-US", quiet: bool = True):
        page = browser.new_context(locale=locale, viewport={"width": 900, "height": 700}).new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        opened.append((page, said if quiet else [], asked, url))
        return page
    yield make
    for page, said, asked, url in opened:
        assert not said and asked and all(one.startswith((url, "data:")) for one in asked), (said, asked)
        page.context.close()


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_classes_are_bars(models, open_page, screenshots, tmp_path, locale):
    with serve(models["classification"], log=tmp_path / "log") as service:
        page = open_page(service.url, locale)
        page.wait_for_selector("#text")
        page.fill("#text", "the music was good")
        page.click("#go")
        page.wait_for_selector(".bars")
        said = httpx.post(service.url + "predict", json={"text": "the music was good"}).json()["predictions"][0]
        labels = page.locator(".bars .label").all_inner_texts()
        assert labels == sorted(said["scores"], key=said["scores"].get, reverse=True) and labels[0] == page.locator(".label.best").inner_text()
        assert page.locator(".bars .number").first.inner_text() == f"{100 * said['probability']:.1f} %"
        assert page.locator("rect.bar").first.bounding_box()["width"] > page.locator("rect.bar").last.bounding_box()["width"]
        assert bool(commands.HAN.search(page.inner_text("#go"))) == (locale == "zh-CN") and page.evaluate("document.documentElement.lang") == locale[:2]
        page.screenshot(path=screenshots / f"serve-{locale}.png", full_page=True)
        page.click("#switch")
        assert bool(commands.HAN.search(page.inner_text("#go"))) != (locale == "zh-CN") and page.locator(".bars").count() == 1


def test_what_somebody_writes_is_never_html(models, open_page, tmp_path):
    with serve(models["ner"], log=tmp_path / "log") as service:
        page = open_page(service.url)
        page.wait_for_selector("#text")
        page.fill("#text", "<img src=x onerror=alert(1)> 😀 Mary went to <b>Paris</b>.")
        page.click("#go")
        page.wait_for_selector(".shown")
        assert page.locator(".shown img, .shown b").count() == 0
        text = page.evaluate("[...document.querySelector('.shown').cloneNode(true).querySelectorAll('small')].length")
        assert text == page.locator("mark").count() > 0
        marks = [re.sub(r"(PER|LOC|ORG|DATE)$", "", one).strip() for one in page.locator("mark").all_inner_texts()]
        said = httpx.post(service.url + "predict", json={"text": page.input_value("#text")}).json()["predictions"][0]["spans"]
        assert marks == [one["text"] for one in said]  # also behind a character of two UTF-16 units


def test_an_answer_is_marked(models, open_page, tmp_path):
    with serve(models["qa"], log=tmp_path / "log") as service:
        page = open_page(service.url)
        page.wait_for_selector("#context")
        page.click("#go")
        page.wait_for_selector("#answer .note")
        said = httpx.post(service.url + "predict", json={name: page.input_value(f"#{name}") for name in ("question", "context")}).json()["predictions"][0]
        assert page.locator("mark").all_inner_texts() == ([said["answer"]] if said["start"] is not None else [])


def test_a_refusal_is_shown_in_words(models, open_page, tmp_path):
    with serve(models["pairs"], log=tmp_path / "log") as service:
        page = open_page(service.url, quiet=False)  # a browser writes a status of 422 to its console
        page.wait_for_selector("#text_pair")
        page.fill("#text_pair", "  ")
        page.click("#go")
        page.wait_for_selector("#status.bad")
        assert "text_pair is nothing but white space" in page.inner_text("#status") and page.locator("#answer *").count() == 0


def test_a_token_is_asked_for(models, open_page, tmp_path):
    with serve(models["regression"], log=tmp_path / "log", BERTCOURSE_TOKEN="sesame") as service:
        page = open_page(service.url, quiet=False)
        page.wait_for_selector("#secret:not([hidden])")
        page.fill("#token", "sesame")
        page.click("#go")
        page.wait_for_selector(".big")


def test_the_description_is_readable(models, open_page, screenshots, tmp_path):
    with serve(models["classification"], log=tmp_path / "log") as service:
        for lang in ("en", "zh"):
            page = open_page(service.url)
            page.goto(service.url + f"docs?lang={lang}")
            assert page.evaluate("getComputedStyle(document.querySelector('pre')).overflowX") == "auto"  # the style sheet is there
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            page.screenshot(path=screenshots / f"docs-{lang}.png", full_page=True)
