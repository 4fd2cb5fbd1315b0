"""The recorded benchmarks on the site: every file has its page in both languages, and no sentence outlives the rows that it speaks of."""

import json
import re
import shlex
import shutil
import sys

import pytest
import scripts
import yaml
from checks import language
from checks.reading import ROOT, Cell

LANGUAGES = ("zh", "en")
FOLDER = ROOT / "benchmarks"
NAMES = re.compile(  # digits in words that are no figures
    r"BERT-base|TinyBERT-\d|all-MiniLM-L6-v2|SST-2|sst2|int8|Q?U?(?:INT|FP|Int)\d+|bf16|p50|p99|\d+×\d+|8 位|8-bit|95% (?:区间|interval)|`[^`]*`|\{\w+\}|\]\([^)]*\)"
)


@pytest.fixture(scope="module")
def tool():
    return scripts.tool("benchmark_pages")


@pytest.fixture(scope="module")
def pages(tool):
    return tool.site_pages()


@pytest.fixture
def copy(tmp_path):
    """The recordings, to be damaged."""
    for path in FOLDER.glob("*.json"):
        shutil.copy(path, tmp_path)
    return tmp_path


def change(folder, name, edit):
    """Edit a recording in place."""
    found = json.loads((folder / name).read_text(encoding="utf-8"))
    edit(found)
    (folder / name).write_text(json.dumps(found), encoding="utf-8")


def text_of(page):
    return "\n\n".join("".join(cell["source"]) for cell in page["cells"])


def prose_of(page):
    """Without the pictures."""
    return re.sub(r"```\{=html\}.*?```", "", text_of(page), flags=re.DOTALL)


def pictures(page):
    return re.findall(r"<svg.*?</svg>", text_of(page), re.DOTALL)


# --- what is there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_recording_has_its_page(tool, pages, lang):
    text = "\n".join(prose_of(page) for name, page in pages[lang].items() if name != "index.ipynb")
    for path in FOLDER.glob("*.json"):
        assert f"[{path.name}]({tool.SOURCE}/benchmarks/{path.name})" in text
        assert tool.api.cell(json.loads(path.read_text(encoding="utf-8"))["machine"]["cpu"]) in text
    for name, page in pages[lang].items():
        assert name == "index.ipynb" or (pictures(page) and "```sh\n" in prose_of(page)), name


def test_the_sidebar_and_the_index_lead_to_all_pages(tool, pages):
    config = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    (section,) = [
        entry for entry in config["website"]["sidebar"]["contents"] if isinstance(entry, dict) and "Benchmarks" in entry.get("section", "")
    ]
    assert section["contents"] == [f"benchmarks/{name}" for name in pages["en"]]
    assert "benchmarks/*.ipynb" in config["project"]["render"]
    for lang in LANGUAGES:
        linked = re.findall(r"\]\((\w+\.ipynb)\)", prose_of(pages[lang]["index.ipynb"]))
        assert {*linked} == {*pages[lang]} - {"index.ipynb"} and len(linked) == 2 * (len(pages[lang]) - 1)


def test_both_languages_have_the_same_pages_pictures_and_tables(pages):
    assert pages["zh"].keys() == pages["en"].keys()
    for name, zh in pages["zh"].items():
        en = pages["en"][name]
        assert [cell["id"] for cell in zh["cells"]] == [cell["id"] for cell in en["cells"]], name
        drawn = [[re.sub(r' aria-label="[^"]*"', "", svg) for svg in pictures(page)] for page in (zh, en)]
        assert drawn[0] == drawn[1], name
        shapes = [[line.count("|") for line in prose_of(page).splitlines() if line.startswith("|")] for page in (zh, en)]
        assert shapes[0] == shapes[1], name


def twins(pages):
    """The prose of all pages as the cells of a bilingual notebook."""
    for name, zh in pages["zh"].items():
        for one, other in zip(zh["cells"], pages["en"][name]["cells"], strict=True):
            texts = ["".join(cell["source"]) for cell in (one, other)]
            if "{=html}" not in texts[0] and one["id"] != "title":
                yield from (Cell(f"{name}#{one['id']}", "markdown", of, text) for of, text in zip(LANGUAGES, texts, strict=True))


@pytest.mark.parametrize("check", [language.structure, language.same_numbers, language.english, language.punctuation, language.terms, language.spelling,
                                   language.emphasis], ids=lambda check: check.__name__)  # fmt: skip
def test_the_prose_keeps_to_the_course_s_rules(pages, check):
    assert list(check([*twins(pages)])) == []


def test_pictures_read_on_light_and_dark_pages_and_are_described(pages):
    for lang in LANGUAGES:
        for name, page in pages[lang].items():
            for svg in pictures(page):
                described = re.search(r'<svg role="img" aria-label="([^"]{60,})"', svg)
                assert described and ("点图" in described[1]) == (lang == "zh"), name
                assert 'fill="currentColor"' in svg and not re.search(r"#0{6}|black|#f{6}|http://(?!www\.w3\.org)", svg, re.IGNORECASE), (
                    name
                )
            assert text_of(page).count("<figcaption>") == len(pictures(page)), name


def test_commands_are_those_of_the_scripts(tool):
    for page in tool.texts()["page"]:
        program, *words = shlex.split(page["command"].replace("\\\n", " "))
        if program == "bertcourse":
            written = (FOLDER / page["script"]).read_text(encoding="utf-8")
            assert all(word in written for word in words if word.startswith(("--length", "--batches", "--rounds", "sst2")))
            continue
        script, *rest = words
        with scripts.loaded(script.removeprefix("benchmarks/").removesuffix(".py")) as module:
            parts = getattr(module, "PARTS", {})
            assert not parts or {word for word in rest if word.islower() and "." not in word and not word.startswith("-")} <= {*parts}, (
                page["id"]
            )
            assert "--json" in rest


# --- no figure is typed -------------------------------------------------------------------------------------------


def strings(value):
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in ("command", "chapter", "names", "heads", "id", "files", "script"):
                yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def test_no_figure_is_typed(tool):
    typed = [text.strip()[:60] for text in strings(tool.texts()) if re.search(r"\d", NAMES.sub("", text))]
    assert typed == []
    assert re.search(r"\d", NAMES.sub("", "动态 QInt8 是 FP32 的 7 倍")) and not re.search(
        r"\d", NAMES.sub("", "BERT-base，{share} 的 FP32")
    )


def test_every_value_is_used_and_every_conclusion_has_one(tool):
    for page in tool.texts()["page"]:
        for part in page["section"]:
            places = [{*re.findall(r"\{(\w+)\}", text)} for text in part["says"]]
            assert places[0] == places[1] and places[0], part["id"]


def test_a_changed_row_changes_the_page(tool, copy):
    def faster(found):
        arm = found["parts"]["students"]["arms"]["1×32: TinyBERT-4"]
        arm["per_s"] *= 2
        arm["samples"] = [[amount * 2, wall, cpu] for amount, wall, cpu in arm["samples"]]

    change(copy, "deploy.json", faster)
    (page,) = [page for page in tool.texts()["page"] if page["id"] == "shapes"]
    before, after = (tool.benchmark_page(page, *tool.made_sections(folder)["shapes"], "en") for folder in (FOLDER, copy))
    assert "14.7 to 17.7 times as fast" in text_of(before) and "14.7 to 35.4 times as fast" in text_of(after)
    assert pictures(before)[0] != pictures(after)[0] and pictures(before)[1] == pictures(after)[1]


# --- faults planted -----------------------------------------------------------------------------------------------


def set_at(*keys, to):
    """An edit of one value of a recording; a function is given the value that is there."""

    def edit(found):
        for key in keys[:-1]:
            found = found[key]
        found[keys[-1]] = to(found[keys[-1]]) if callable(to) else to

    return edit


def slower(part, *arms):
    """An edit: these arms take ten times as long."""

    def edit(found):
        for name in arms:
            arm = found["parts"][part]["arms"][name]
            arm |= {"per_s": arm["per_s"] / 10, "per_cpu_s": arm["per_cpu_s"] / 10,
                    "samples": [[amount, 10 * wall, 10 * cpu] for amount, wall, cpu in arm["samples"]]}  # fmt: skip

    return edit


CONTRADICTED = [  # a row that is not as the page says → what no longer holds
    ("deploy.json", slower("speed", "1 thread, 8×32: dynamic QInt8"), "dynamic QInt8 is faster than FP32 everywhere"),
    ("deploy-emerald-rapids.json", slower("speed", "1 thread, 8×32: dynamic QInt8"), "dynamic QInt8 is faster than FP32 everywhere"),
    ("deploy.json", set_at("parts", "accuracy", "points lost", "ner", "points", to=0.7), "no task loses more than the goal"),
    ("deploy.json", set_at("parts", "accuracy", "scores", "nli", "p", to=0.01), "no difference is significant"),
    ("deploy.json", slower("tried", "1×32: without SkipLayerNormFusion"), "leaving out the fusion helps"),
    ("deploy.json", set_at("parts", "speed", "ms by operator", "as ONNX Runtime fuses", "SkipLayerNormalization", to=0.1), "the merged operator takes longer"),
    ("deploy-emerald-rapids.json", set_at("parts", "speed", "ms by operator, largest batch", "ONNX Runtime, dynamic QInt8", "DynamicQuantizeMatMul", to=9.0),
     "ONNX Runtime takes longer in the matrix products"),
    ("deploy.json", slower("students", "1×128: DistilBERT"), "half the layers take half the time"),
    ("deploy.json", slower("lengths", "length 64: INT8"), "INT8 is faster at every length and batch"),
    ("deploy.json", slower("settings", "intra-op 2"), "two threads are faster and take more CPU"),
    ("serve.json", set_at("parts", "service", "ratios", "throughput: ours / the model alone", "wall", to=0.95), "the goal of the throughput is missed"),
    ("serve.json", slower("ladder", "+ batches", "the same, one process"), "no padding saves most"),
    ("peers.json", slower("peers", "bertcourse: ONNX Runtime, dynamic INT8"), "ours is cheaper than LitServe"),
    ("fairness.json", lambda found: found["runs"]["BERT-base, INT8, after"]["alone"]["small"].update({"429": 5}), "all small requests are answered after"),
    ("memory.json", set_at("models", "FP32", "2", "replacing", to=9_999.0), "all peaks are within the limit"),
    ("threads.json", set_at("jobs", "finetune", "busy", "2 threads, spinning", "wall", to=20.0), "spinning is the slowest on a busy machine"),
    ("real.json", lambda found: found["dev"]["models"][2]["scores"].update(accuracy=0.5), "no model is less accurate than the first"),
    ("attacks.json", set_at("attacks", "NaN", "tools", "ours", "gained", to=True), "no attack gains a point with ours"),
    ("grade.json", slower("peers", "bertcourse grade"), "a submission takes less time and CPU than nbgrader"),
]  # fmt: skip


@pytest.mark.parametrize("name, edit, said", CONTRADICTED, ids=[said for *_, said in CONTRADICTED])
def test_a_contradicted_conclusion_is_noticed(tool, copy, name, edit, said):
    change(copy, name, edit)
    with pytest.raises(tool.Damaged, match=f"no longer holds that {re.escape(said)}") as raised:
        tool.made_sections(copy)
    assert name in str(raised.value) and "\n" not in str(raised.value)


def test_every_section_is_contradicted_above(tool):
    sections = [part["id"] for page in tool.texts()["page"] for part in page["section"]]
    assert sections == [*dict.fromkeys(sections)] and {*sections} == {*sys.modules[tool.section.__module__].SECTIONS}
    assert len(CONTRADICTED) >= len(sections)


@pytest.mark.parametrize("name, edit, said", [
    ("memory.json", lambda found: found.pop("machine"), "benchmarks/memory.json does not name the processor"),
    ("memory.json", set_at("machine", "cpu", to=""), "benchmarks/memory.json does not name the processor"),
    ("serve-emerald-rapids.json", lambda found: found.pop("date"), "benchmarks/serve-emerald-rapids.json does not say when"),
    ("peers.json", lambda found: found["parts"].pop("peers"), "benchmarks/peers.json cannot be shown in the section 'peers' (KeyError: 'peers')"),
    ("real.json", set_at("results", to=None), "benchmarks/real.json cannot be shown in the section 'real' (TypeError"),
    ("deploy.json", set_at("parts", "students", "arms", "1×32: BERT-base", "samples", to=[]), "cannot be shown in the section 'students'"),
])  # fmt: skip
def test_a_damaged_recording_is_one_sentence(tool, copy, name, edit, said):
    change(copy, name, edit)
    with pytest.raises(tool.Damaged) as raised:
        tool.made_sections(copy)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_files_that_are_missing_broken_or_unknown(tool, copy):
    (copy / "new.json").write_text("{}", encoding="utf-8")
    with pytest.raises(tool.Damaged, match=r"benchmarks/new\.json has no page: add one to tools/benchmark_pages\.toml"):
        tool.site_pages(copy)
    (copy / "new.json").unlink()
    (copy / "peers.json").write_text('{"parts": ', encoding="utf-8")
    with pytest.raises(tool.Damaged, match=r"benchmarks/peers\.json is not JSON"):
        tool.site_pages(copy)
    (copy / "peers.json").unlink()
    with pytest.raises(tool.Damaged, match=r"benchmarks/peers\.json is missing"):
        tool.site_pages(copy)


def test_words_that_do_not_fit_are_noticed(tool):
    with pytest.raises(tool.Damaged, match="there is no value 'nothing'"):
        tool.filled(["{nothing}", "{nothing}"], {}, "en")
    with pytest.raises(tool.Damaged, match="has no heading '9.9 Nothing'"):
        tool.heading_of("07_1_onnx", "9.9 Nothing", "en")


def test_the_site_says_what_is_wrong(tmp_path, monkeypatch):
    site = scripts.tool("site")

    def damaged(folder, lang):
        raise site.benchmark_pages.Damaged("benchmarks/x.json has no page")

    monkeypatch.setattr(site.benchmark_pages, "write_pages", damaged)
    with pytest.raises(site.Fault, match="benchmarks/x.json has no page"):
        site.add_benchmarks(tmp_path, "en")


# --- the parts ----------------------------------------------------------------------------------------------------


def test_a_ratio_lies_between_its_rounds(tool):
    rows = sys.modules[tool.Damaged.__module__]
    arms = {"a": {"per_s": 4.0, "per_cpu_s": 2.0, "samples": [[4, 1, 2], [4, 0.5, 4], [4, 2, 1]]},
            "b": {"per_s": 2.0, "per_cpu_s": 2.0, "samples": [[2, 1, 1], [2, 1, 1], [2, 1, 1]]}}  # fmt: skip
    assert rows.ratio(arms, "a", "b") == rows.Point(2.0, 1.0, 4.0)
    assert rows.ratio(arms, "a", "b", rows.CPU) == rows.Point(1.0, 0.5, 2.0)
    assert rows.span([0.5, 2.0], ".1f") == ("0.5 到 2.0", "0.5 to 2.0") and rows.short(0.0198) == "0.020"
    with pytest.raises(ValueError):
        rows.ratio(arms | {"b": {"per_s": 2.0, "samples": [[2, 1, 1]]}}, "a", "b")


@pytest.mark.parametrize("low, high", [(0.56, 1.2), (0.9, 3.6), (0.8, 18), (0.01, 1.2), (4, 9_000)])
def test_a_logarithmic_axis_has_a_few_plain_numbers(low, high):
    plots = scripts.tool("benchmark_plots")
    assert 3 <= len(plots.ticks(low, high)) <= 8 and all(low <= tick <= high for tick in plots.ticks(low, high))


def test_chinese_tables_name_what_the_picture_names(tool):
    assert tool.name_in("alone", "zh", frozenset({"alone"})) == "单独（alone）" and tool.name_in("alone", "zh") == "单独"
    assert tool.name_in("2 passages of 2,000 characters", "zh", frozenset({"2 passages of 2,000 characters"})) == "2 段，每段 2,000 个字符"
    assert tool.name_in("alone", "en", frozenset({"alone"})) == "alone"
    assert all(tool.is_number(text) for text in ("1", "0.98", "> 300 / 294", "84%", "2,816", "–", "", "+0.02")) and not tool.is_number(
        "1×32"
    )
