"""Take the screenshots of nbs/teaching.ipynb: `python tools/teaching_pictures.py [FOLDER]`.

Makes a course in each language in a new folder, six invented submissions, grades them in the sandbox, marks one answer by hand in nbgrader's
formgrader, and writes nbs/images/teaching-*.png. It prints the points and the common mistakes, which the page names. Needs bubblewrap,
nbgrader, playwright, Pillow, and Chromium (CHROMIUM names its program).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy: it is this machine
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from gradebooks import solved, write  # noqa: E402

from bertcourse.grading import grade, release  # noqa: E402

PAGE = "02_transformer"
STUDENTS = {"zh": [f"学生{c}" for c in "甲乙丙丁戊己"], "en": [f"student-{c}" for c in "abcdef"]}
HEAD = "import math\n\nimport torch\n\n\n"
NOT_SCALED = HEAD + """def attend_one(q, K, V):
    weights = (K @ q).softmax(-1)
    return weights, weights @ V
"""
SCALED_AFTER = HEAD + """def attention(Q, K, V):
    return (Q @ K.transpose(-2, -1)).softmax(-1) / math.sqrt(Q.shape[-1]) @ V
"""
RAISES = HEAD + """def attention(Q, K, V):
    return (Q @ K / math.sqrt(Q.shape[-1])).softmax(-1) @ V
"""
LOOP = HEAD + """def find_lowest(*arguments):
    while True:
        pass
"""
UNBIASED = HEAD + """def normalise(x, gamma, beta, eps):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * gamma + beta
"""
CHEAT = HEAD + """class Equal(torch.Tensor):
    def __eq__(self, other):
        return True


torch.allclose = torch.testing.assert_close = lambda *arguments, **settings: True


def attend_one(q, K, V):
    return Equal(), Equal()
"""
WRONG = HEAD + """def attention(Q, K, V):
    return Q
"""
TEXTS = {
    "zh": {
        "good": "分数是 64 个乘积之和，方差为 64，标准差为 8。不除的话，softmax 几乎只选一个键，梯度接近 0；除以 $d_k$ 又几乎是平均。"
                "除以 $\\sqrt{d_k}$ 让方差回到 1。前提是分量独立、方差为 1，训练以后不一定成立。",
        "test": "把这个头关掉再测概率，并与关掉其他头比较。第 2 章里影响最大的是第 1 层的一个头。只看了一句话，而且几个头可以互相替代。",
        "short": "因为点积会变大，softmax 会饱和，所以要除以 $\\sqrt{d_k}$。",
        "wrong": "权重大说明模型最注意这个词，所以它就是原因。",
        "comment": "前提是什么？再说说除以 $d_k$ 会怎样。",
    },
    "en": {
        "good": "A score is a sum of 64 products: variance 64, standard deviation 8. Not divided, the softmax picks one key and gradients are close "
                "to 0; divided by $d_k$ it is almost uniform. Dividing by $\\sqrt{d_k}$ brings the variance back to 1. The entries must be "
                "independent with variance 1, which training need not keep.",
        "test": "Switch the head off, measure the probability again, and compare with the other heads switched off. In chapter 2 a head of layer 1 "
                "mattered most. It is one sentence only, and heads can replace each other.",
        "short": "The products get large and the softmax saturates, so we divide by $\\sqrt{d_k}$.",
        "wrong": "The weight is large, so the model looks at this word most, and that is the cause.",
        "comment": "What is assumed? And what if we divide by $d_k$?",
    },
}
PLAN = [  # of each student: answers in place of right ones, exercises left as handed out, texts for the two questions, when
    ({}, (), ("good", "test"), "2027-01-29T10:12:00+00:00"),
    ({"2.1": NOT_SCALED, "2.2": SCALED_AFTER}, (), ("short", "wrong"), "2027-01-30T21:40:00+00:00"),
    ({"2.1": NOT_SCALED, "2.10": UNBIASED}, ("2.12",), ("short", ""), "2027-01-31T16:05:00+00:00"),
    ({"2.1": NOT_SCALED, "2.2": RAISES, "2.11": LOOP}, ("2.6", "2.9", "2.12"), ("", "wrong"), "2027-01-31T23:20:00+00:00"),
    ({"2.2": SCALED_AFTER, "2.10": UNBIASED}, (), ("good", "test"), "2027-02-01T09:30:00+00:00"),
    ({"2.1": CHEAT, "2.2": WRONG}, ("2.4", "2.7", "2.8", "2.9", "2.12"), ("", ""), "2027-01-31T22:00:00+00:00"),
]
FLAT, ON_CHAPTER_1 = 4, 4  # the student whose notebook is a single file; how many have also done chapter 1


# --- submissions --------------------------------------------------------------------------------------------------

def hand_in(submitted: Path, lang: str) -> None:
    """Write what the six students hand in."""
    for number, (student, (answers, left, texts, when)) in enumerate(zip(STUDENTS[lang], PLAN)):
        notebook = solved(PAGE, lang, answers, left)
        for cell in notebook["cells"]:
            for question, text in zip(("answer-2-13", "answer-2-14"), texts):
                if cell["id"].startswith(question) and text:
                    cell["source"] = TEXTS[lang][text].splitlines(keepends=True)
        name = f"{student}_{PAGE}.ipynb" if number == FLAT else f"{student}/{PAGE}/{PAGE}.ipynb"
        files = [write(submitted, name, notebook)]
        if number < ON_CHAPTER_1:
            files.append(write(submitted, f"{student}/01_bert/01_bert.ipynb", solved("01_bert", lang, {}, () if number < 2 else ("1.6", "1.8"))))
        for path in files:
            os.utime(path, (datetime.fromisoformat(when).timestamp(),) * 2)


# --- pictures -----------------------------------------------------------------------------------------------------

@contextmanager
def jupyterlab(course: Path):
    """The address of a JupyterLab in the folder of a course."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--port", str(port), "--ServerApp.token=", "--LabApp.news_url=None"]
    process = subprocess.Popen(command, cwd=course, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://localhost:{port}/formgrader"
    try:
        for _ in range(120):
            try:
                DIRECT.open(f"{address}/api/assignments").close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def save(page, name: str, box: dict[str, float]) -> None:
    """A part of a page as a picture with few colours."""
    from PIL import Image
    path = ROOT / "nbs/images" / name
    page.screenshot(path=path, full_page=True, clip=box)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


def take_pictures(browser, address: str, folder: Path, lang: str) -> None:
    """Mark an answer of the second student, and take the three pictures."""
    student = STUDENTS[lang][1]
    with DIRECT.open(f"{address}/api/submitted_notebooks/{PAGE}/{PAGE}") as answer:
        id = next(one["id"] for one in json.load(answer) if one["student"] == student)
    page = browser.new_page(viewport={"width": 1060, "height": 900}, color_scheme="light", device_scale_factor=1.5)
    page.goto(f"{address}/submissions/{id}/")
    page.wait_for_timeout(3000)
    points, comment = page.locator("input#answer-2-13"), page.locator("textarea").nth(12)
    for place, text in ((points, "1"), (comment, TEXTS[lang]["comment"])):
        place.fill(text)
        place.press("Tab")
        page.wait_for_timeout(1000)
    page.evaluate("document.activeElement.blur()")
    page.add_style_tag(content=".help, #help, .navbar, .fa-question-circle {display: none !important}")
    top = page.evaluate("document.querySelector('input#check-2-12').getBoundingClientRect().top + scrollY") - 14
    bottom = comment.evaluate("element => element.getBoundingClientRect().bottom + scrollY") + 14
    save(page, f"teaching-marking-{lang}.png", {"x": 60, "y": top, "width": 940, "height": bottom - top})
    page.goto(f"{address}/manage_assignments")
    page.wait_for_timeout(3000)
    table = page.locator("table").first.bounding_box()
    save(page, f"teaching-list-{lang}.png", {"x": table["x"] - 8, "y": table["y"] - 4, "width": table["width"] + 16, "height": table["height"] + 12})
    page = browser.new_page(viewport={"width": 860, "height": 900}, color_scheme="light", device_scale_factor=1.5)
    page.goto((folder / "scores-feedback" / student / f"{PAGE}.html").as_uri())
    save(page, f"teaching-feedback-{lang}.png", {"x": 0, "y": 10, "width": 860, "height": 700})


def main() -> None:
    """Everything, in both languages."""
    from playwright.sync_api import sync_playwright
    root = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="bertcourse-teaching-")).resolve()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox", "--disable-gpu"])
        for lang in STUDENTS:
            folder = root / lang
            release(folder / "course", chapters=["1", "2"], lang=lang, due="2027-01-31T23:59:59+00:00")
            hand_in(folder / "course/submitted", lang)
            found = grade(folder / "course/submitted", folder / "scores.csv", course=folder / "course", quiet=True)
            print(found.totals, (folder / "scores-mistakes.csv").read_text(encoding="utf-8-sig"), sep="\n")
            with jupyterlab(folder / "course") as address:
                take_pictures(browser, address, folder, lang)
        browser.close()


if __name__ == "__main__":
    main()
