"""The model in the browser says what PyTorch says, and a reader can use the view."""

import base64
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scripts
import torch
from transformers import AutoModelForPreTraining

from bertcourse.corpus import documents
from bertcourse.inside import numbers
from bertcourse.plots import attention_view
from bertcourse.profiles import load

ROOT = Path(__file__).parents[2]
TEXT, PAIR = "Anna turned on the light in the bedroom.", "Her bag was light."
ODD = ["naïve Café, don't!", "安娜 met 江梅 at 10:30 (twice)…", "A" * 120, "🙂 unknown 龘", "[MASK] sees a ##s"]
PAGE = """<!doctype html><html lang="{lang}"><meta charset="utf-8"><title>view</title><link rel="icon" href="data:,"><meta name="viewport" content="width=device-width, initial-scale=1">
<body style="font: 16px sans-serif; margin: 1em; {colours}"><main><h1>BERT</h1>{view}</main><script type="module" src="live/live.js"></script></body></html>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory, serve_files):
    """The address of a folder with `live/` and pages in both languages."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, ROOT / "tools" / "live.py", folder / "live"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    views = {"en": attention_view(load(), TEXT, PAIR, token="light", live=True).html(),
             "zh": attention_view(load(), "安娜不会打鼓，可是[MASK]会弹吉他。", layer=4, head=3, token="[MASK]", live=True).html()}
    for lang, colours in itertools.product(views, ("light", "dark")):
        style = "" if colours == "light" else "background: #1d1f21; color: #e8e8e8; color-scheme: dark"
        (folder / f"{lang}-{colours}.html").write_text(PAGE.format(lang=lang, view=views[lang], colours=style), encoding="utf-8")
    return serve_files(folder), folder


@pytest.fixture
def open_page(site, browser):
    """Open a page in a context of its own; whatever is said on the console as an error, or asked of another host, fails the test."""
    contexts, faults = [], []

    def opened(name="en-light", width=1000, **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: message.type == "error" and faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: request.url.startswith((site[0], "blob:", "data:")) or faults.append(request.url))
        page.goto(f"{site[0]}/{name}.html")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


def token(page, name: str):
    """The buttons of a token."""
    return page.get_by_role("button", name=re.compile(rf"^{name}\b"))


def start(page):
    """Load the model."""
    page.get_by_role("button", name="Run the model").click()
    page.get_by_text("ms a forward pass").wait_for(timeout=60_000)
    return page


def sentences() -> list[tuple[str, str | None]]:
    """Fifty of both languages, single and in pairs, and odd ones."""
    found: list[tuple[str, str | None]] = [(text, None) for text in ODD]
    for lang, join in (("en", " ".join), ("zh", "".join)):
        for i, document in enumerate(documents(25, seed=3, lang=lang, split="test")):
            first, second, *_ = [join(word.text for word in sentence) for sentence in [*document, *document]]
            found.append((first, second if i % 2 else None))
    return found


@torch.no_grad()
def by_pytorch(model, tokenizer, text, pair) -> dict[str, np.ndarray]:
    encoded = tokenizer(text, pair, return_tensors="pt")
    output = model(**encoded, output_attentions=True, output_hidden_states=True)
    found = model.bert.embeddings
    parts = {"hidden_states": torch.stack(output.hidden_states)[:, 0], "attentions": torch.stack(output.attentions)[:, 0],
             "prediction_logits": output.prediction_logits[0], "seq_relationship_logits": output.seq_relationship_logits[0],
             "word": found.word_embeddings(encoded["input_ids"])[0], "segment": found.token_type_embeddings(encoded["token_type_ids"])[0],
             "position": found.position_embeddings.weight[: encoded["input_ids"].shape[1]]}  # fmt: skip
    return {"ids": encoded["input_ids"][0].numpy()} | {name: part.numpy() for name, part in parts.items()}


BY_BROWSER = """async ([text, pair]) => {
  const model = await bertcourseLive.load();
  const encoded = model.encode(text, pair);
  const output = await model.run(encoded, "fp32");
  const packed = ({ data }) => {  // base64: as JSON a hundred thousand numbers take half a second
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(text);
  };
  return { ids: encoded.ids, ...Object.fromEntries(Object.entries(output).map(([name, tensor]) => [name, packed(tensor)])) };
}"""


def test_the_browser_computes_what_pytorch_computes(open_page):
    page = open_page()
    page.wait_for_function("globalThis.bertcourseLive")
    model, tokenizer = load().model(AutoModelForPreTraining, attn_implementation="eager"), load().tokenizer()
    pairs = sentences()
    assert len(pairs) == 55
    largest = dict.fromkeys(["hidden_states", "attentions", "prediction_logits", "seq_relationship_logits", "word", "position", "segment"], 0.0)
    for text, pair in pairs:
        ours, theirs = by_pytorch(model, tokenizer, text, pair), page.evaluate(BY_BROWSER, [text, pair])
        assert theirs["ids"] == ours["ids"].tolist(), text
        for name in largest:
            found = np.frombuffer(base64.b64decode(theirs[name]), dtype=np.float32)
            largest[name] = max(largest[name], np.abs(ours[name].ravel() - found).max())
    assert 0 < max(largest.values()) < 1e-4, largest  # 0 would be a comparison with itself


def test_the_view_gets_the_same_numbers(open_page):
    page = open_page()
    page.wait_for_function("globalThis.bertcourseLive")
    model, tokenizer = load().model(AutoModelForPreTraining), load().tokenizer()
    for text, pair, word in ((TEXT, PAIR, "light"), ("高兴住在东京。", "安娜很高兴，不过她的妹妹很安静。", "兴"), ("Mary plays the guitar.", None, "plays")):
        ours = numbers.inspect(model, tokenizer, text, pair)
        at = ours["tokens"].index(word)
        ask = "async ([text, pair, at]) => (await bertcourseLive.load()).inspect(text, pair, at, 'fp32')"
        plain, masked = page.evaluate(ask, [text, pair, None]), page.evaluate(ask, [text, pair, at])
        for key in ("tokens", "ids", "segments", "special", "width"):
            assert plain[key] == ours[key], key
        for key, tolerance in (("attention", 6e-4), ("embeddings", 6e-3)):
            flat = [np.concatenate([np.ravel(part) for part in (found[key].values() if key == "embeddings" else found[key])]) for found in (plain, ours)]
            assert np.abs(flat[0] - flat[1]).max() < tolerance
        assert plain["map"]["tokens"] == ours["map"]["tokens"] and plain["map"]["cosines"].keys() == ours["map"]["cosines"].keys()
        assert np.abs(np.array(plain["map"]["points"]) - np.array(ours["map"]["points"])).max() < 0.02
        assert plain["map"]["share"] == pytest.approx(ours["map"]["share"], abs=1e-3)
        assert plain["next"] == pytest.approx(ours["next"], abs=1e-4)
        assert [name for name, _ in masked["predictions"][at]["top"]] == [name for name, _ in ours["predictions"][at]["top"]]
        assert masked["predictions"][at]["probability"] == pytest.approx(ours["predictions"][at]["probability"], abs=1e-4)


def test_what_a_reader_does(open_page, screenshots):
    page = open_page(width=1000)
    size = page.get_by_text("This downloads").text_content()
    assert float(size.split("downloads ")[1].split(" MB")[0]) <= 20
    start(page)
    page.get_by_label("Examples").select_option(label="bank: money, or a river")
    page.get_by_text("Cosine between the two vectors of bank").wait_for()
    page.get_by_label("Examples").select_option(label="a pronoun and a name")
    page.get_by_text("(it was she)").wait_for()
    page.screenshot(path=screenshots / "inside-live.png", full_page=True)
    page.get_by_label("Sentence 1").fill("Ben cannot play the drum, but she can play the guitar.")
    page.locator(".bars").get_by_text("he", exact=True).wait_for()  # the mask has stayed, and the pronoun follows the name
    page.context.set_offline(True)  # everything is there
    page.get_by_label("Sentence 1").fill("Mary ate a piece of cake.")
    token(page, "cake").click()
    page.get_by_text("(it was cake)").wait_for()
    masked = page.get_by_role("button", name=re.compile(r"^\[MASK\] *, cake,"))
    assert masked.get_attribute("aria-pressed") == "true"
    page.get_by_label("INT8").check()
    facts = page.get_by_text("largest difference").text_content()
    assert "INT8" in facts and float(facts.rpartition(": ")[2]) > 0
    page.get_by_label("Sentence 1").fill("a dog and " * 29)
    page.get_by_text("at most 64 are drawn: please shorten it").wait_for()
    page.get_by_label("Sentence 1").fill("")
    page.get_by_text("Write a sentence.").wait_for()
    page.context.set_offline(False)


def test_the_keyboard_is_enough(open_page):
    page = open_page()
    page.get_by_role("button", name="layer 4, head 1").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.get_by_text("layer 4, head 2", exact=True).count() == 1
    page.get_by_role("application", name="Attention weights of layer 4, head 2").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert "layer 4, head 2: [CLS] gives anna the weight" in page.locator(".readout").text_content()
    token(page, "anna").focus()
    page.keyboard.press("Enter")
    page.get_by_text("(it was anna)").wait_for()
    assert page.evaluate("document.querySelector('.bert-view').shadowRoot.activeElement.dataset.key") == "token1"


def test_views_with_fewer_parts_and_of_several_outputs(site, open_page):
    """A part may be missing, and each output draws with its own script."""
    views = "".join(attention_view(load(), TEXT, PAIR, parts=parts).html() for parts in (["input", "states"], ["attention"], None))
    (site[1] / "parts.html").write_text(PAGE.format(lang="en", view=views, colours=""), encoding="utf-8")
    page = open_page("parts")
    counts = page.evaluate("[...document.querySelectorAll('.bert-view')].map((view) => view.shadowRoot.querySelectorAll('section').length)")
    assert counts == [2, 1, 5]
    token(page, "bedroom").first.hover()


def test_the_slider_can_be_dragged(open_page):
    page = open_page()
    slider = page.get_by_role("slider", name="layer")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2)
    page.mouse.down()
    for share in (0.75, 0.5, 0.25, 0.02):
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
    page.mouse.up()
    assert slider.input_value() == "0" and page.get_by_text("before layer 1 (the input)").count() >= 1


def test_text_without_words_and_another_example(open_page):
    page = start(open_page())
    assert page.evaluate("document.querySelector('.bert-view').shadowRoot.activeElement.tagName") == "SELECT"
    page.get_by_label("Sentence 1").fill("[SEP]")
    page.get_by_text("Write a sentence.").wait_for()
    page.get_by_label("Examples").select_option(label="a pronoun and a name")
    page.get_by_text("(it was she)").wait_for()
    page.get_by_label("Sentence 1").fill("Anna cannot play the drum.")
    token(page, "drum").wait_for()
    page.get_by_text("Click a token above to mask it.").wait_for()
    page.get_by_label("Examples").select_option(label="a pronoun and a name")  # again
    page.get_by_text("(it was she)").wait_for()


def test_what_was_chosen_before_stays_chosen(open_page):
    page = open_page("zh-light")
    page.get_by_role("button", name="第 2 层第 1 头").click()
    page.get_by_role("button", name="在浏览器里运行").click()
    page.get_by_label("INT8").wait_for(timeout=60_000)
    assert page.get_by_role("button", name="第 2 层第 1 头").get_attribute("aria-pressed") == "true"
    assert page.get_by_label("例句").input_value() == "0"


@pytest.mark.parametrize("name", ["en-light", "en-dark", "zh-light", "zh-dark"])
@pytest.mark.parametrize("width", [1000, 390])
def test_it_fits_on_every_screen(open_page, screenshots, name, width):
    page = open_page(name, width, has_touch=width == 390)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.screenshot(path=screenshots / f"inside-{name}-{width}.png", full_page=True)


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """The script of axe-core, which looks for what keeps people from using a page."""
    packages = scripts.tool("live").install(tmp_path_factory.mktemp("npm"))
    return (packages / "axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["en-light", "zh-dark"])
def test_nothing_keeps_people_from_using_it(open_page, axe, name):
    page = open_page(name)
    violations = "() => axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations.map(({id, nodes}) => [id, nodes[0].html.slice(0, 200)]))"
    page.evaluate(axe)
    assert page.evaluate(violations) == []
    page.get_by_role("button", name="Run the model" if name.startswith("en") else "在浏览器里运行").click()
    page.get_by_label("INT8").check(timeout=60_000)
    assert page.evaluate(violations) == []
    page.evaluate("document.querySelector('.bert-view').shadowRoot.querySelector('.token').textContent = ''")  # planted
    assert [id for id, _ in page.evaluate(violations)] == ["button-name"]


def test_without_webassembly_the_stored_picture_stays(site, browser):
    context = browser.new_context()
    context.add_init_script("delete globalThis.WebAssembly")
    page = context.new_page()
    page.goto(f"{site[0]}/en-light.html")
    page.get_by_text("this browser has no WebAssembly").wait_for()
    assert token(page, "light").first.is_visible() and page.get_by_role("button", name="Run the model").count() == 0
    context.close()


def test_without_scripts_a_table_is_there(site, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site[0]}/en-light.html")
    assert page.get_by_role("table").is_visible() and page.get_by_role("rowheader", name="bedroom").is_visible()
    context.close()


def test_a_file_that_is_missing_is_said(site, browser):
    context = browser.new_context()
    page = context.new_page()
    page.route("**/fp32.bin*", lambda route: route.fulfill(status=404))
    page.goto(f"{site[0]}/en-light.html")
    page.get_by_role("button", name="Run the model").click()
    page.get_by_text("The model could not run (fp32.bin: 404)").wait_for()
    assert token(page, "light").first.is_visible()
    page.unroute("**/fp32.bin*")
    page.get_by_role("button", name="Run the model").click()  # another try
    page.get_by_text("ms a forward pass").wait_for(timeout=60_000)
    context.close()


def test_what_is_downloaded_is_what_the_manifest_says(site):
    folder = site[1] / "live"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for file in manifest["files"].values():
        assert (folder / file["name"]).stat().st_size == file["packed"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20e6
    assert manifest["files"]["int8"]["bytes"] < 0.4 * manifest["files"]["fp32"]["bytes"]
