"""`/docs`: the OpenAPI description as a page to read, in Chinese or English, with nothing from elsewhere."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import urlsplit

from bertcourse.serving.inputs import CODES
from bertcourse.serving.settings import LOOPBACK, Settings

WORDS = {
    "en": {
        "lead": "{task}, served by bertcourse {version}. The machine-readable description is <a href='/openapi.json'>/openapi.json</a>.",
        "try": "Try it by hand", "other": "<a href='/docs?lang=zh'>中文</a>", "ask": "A request",
        "python": "The same in Python, without any package:", "answer": "The answer: a prediction for each text, in their order", "paths": "Paths",
        "limits": "Limits", "errors": "Errors", "error_lead": "Every error is JSON with a code that does not change and a sentence for people:",
        "texts": "texts in a request", "chars": "characters of a text; the rest is cut off, and <code>truncated</code> is true", "body": "bytes of a request",
        "windows": "windows of a request: a long text of NER and QA is read in several", "pieces": "tokens of all windows of a request",
        "queue": "inputs that wait in a worker; then 429 with Retry-After", "timeout": "seconds until an answer; then 503, and the work is dropped. One request may take half of it",
        "read": "seconds for a request to arrive in", "secret": "With a token: <code>Authorization: Bearer …</code>.",
        "meanings": {code: when for code, (_, when) in CODES.items()}, "what": {},
    },
    "zh": {
        "lead": "{task}，由 bertcourse {version} 提供服务。机器可读的描述见 <a href='/openapi.json'>/openapi.json</a>。",
        "try": "动手试一试", "other": "<a href='/docs?lang=en'>English</a>", "ask": "一次请求",
        "python": "用 Python 调用，不需要任何包：", "answer": "应答：每条文本一个预测，顺序不变", "paths": "路径",
        "limits": "限制", "errors": "错误", "error_lead": "所有错误都是 JSON：一个不会改变的代码，一句给人看的话：",
        "texts": "条文本，每次请求", "chars": "个字符，每条文本；多出的部分会截掉，此时 <code>truncated</code> 为 true", "body": "字节，每次请求",
        "windows": "个窗口，每次请求：NER 与 QA 的长文本分成几个窗口读", "pieces": "个 token，一次请求所有窗口合计",
        "queue": "条输入可在一个进程里排队；再多则返回 429 与 Retry-After", "timeout": "秒之内应答；超时返回 503，并放弃该请求。一次请求最多可占其中一半",
        "read": "秒之内须收到整个请求", "secret": "需要令牌：<code>Authorization: Bearer …</code>。",
        "meanings": {
            "bad_request": "请求不是可读的 HTTP，或只能出现一次的头出现了两次，或 Host 头不是本机；状态码为 431 时：请求行与头超过 64 KiB", "not_utf8": "正文不是 UTF-8", "not_json": "正文不是 JSON",
            "unauthorized": "缺少令牌，或令牌不对", "not_found": "没有这个路径", "method_not_allowed": "该路径要用另一种方法",
            "too_slow": "正文没有按时到达", "body_too_large": "正文字节数超过上限", "wrong_content_type": "Content-Type 不是 application/json",
            "wrong_content_encoding": "正文被压缩，或用别的方式编码过",
            "wrong_type": "值的类型与描述不符", "missing_field": "缺少字段", "unknown_field": "字段对这个模型没有意义",
            "empty_text": "文本为空或只有空白", "invalid_text": "文本里有不成对的代理项", "too_many_texts": "文本条数超过上限",
            "too_much_work": "文本的窗口数或 token 数超过一次请求的上限，或所需时间超过时限的一半",
            "different_lengths": "两个列表长度不同，或其中一个不是列表", "queue_full": "排队已满；Retry-After 给出该等几秒",
            "model_failed": "模型无法作答", "internal_error": "服务自身出错", "timed_out": "应答超时，请求已放弃", "stopping": "服务正在停止",
            "not_ready": "模型还没有加载好，或上一批迟迟没有结束",
        },
        "what": {"predict": "模型对一条或多条文本怎么说", "health": "进程还活着吗？", "ready": "可以把请求发到这里吗？", "model": "服务的是哪个模型",
                 "metrics": "给 Prometheus 的计数"},
    },
}


def indented(value: Any) -> str:
    """JSON for a page."""
    return escape(json.dumps(value, ensure_ascii=False, indent=2))


def request_examples(address: str, example: Any) -> tuple[str, str]:
    """The same request with curl and in Python; a service on the reader's own machine is asked past any proxy, which would ask itself."""
    local = urlsplit(address).hostname in LOOPBACK
    direct = " --noproxy '*'" if local else ""
    curl = f"curl {address}/predict{direct} -H 'Content-Type: application/json' \\\n  -d {shlex.quote(json.dumps(example, ensure_ascii=False))}"
    lines = ["import json, urllib.request", "", f"body = json.dumps({example!r}).encode()", f'url = "{address}/predict"',
             'request = urllib.request.Request(url, body, {"Content-Type": "application/json"})']
    if local:
        lines += ["opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine: past any proxy",
                  "print(json.load(opener.open(request)))"]
    else:
        lines += ["print(json.load(urllib.request.urlopen(request)))"]
    return curl, "\n".join(lines)


def page(described: Mapping[str, Any], settings: Settings, address: str, lang: str) -> bytes:
    """The page; `address` is what the reader reached the service by."""
    words, info, predict = WORDS[lang], described["info"], described["paths"]["/predict"]["post"]
    example, said = (part["content"]["application/json"]["example"] for part in (predict["requestBody"], predict["responses"]["200"]))
    curl, python = request_examples(address, example)
    paths = "".join(
        f"<tr><td><code>{method.upper()} {path}</code></td><td>{escape(words['what'].get(said['operationId'], said['summary']))}</td></tr>"
        for path, methods in described["paths"].items() for method, said in methods.items())
    shown = {"texts": f"{settings.max_texts:,}", "chars": f"{settings.max_chars:,}", "body": f"{settings.max_body:,}",
             "windows": f"{settings.max_windows:,}", "pieces": f"{settings.max_pieces:,}", "queue": f"{settings.max_queue:,}", "timeout": f"{settings.timeout:g}", "read": f"{settings.read_timeout:g}"}
    limits = "".join(f"<tr><td class='number'>{value}</td><td>{words[name]}</td></tr>" for name, value in shown.items())
    errors = "".join(f"<tr><td class='number'>{status}</td><td><code>{code}</code></td><td>{escape(words['meanings'][code])}</td></tr>"
                     for code, (status, _) in CODES.items())
    secret = f"<p>{words['secret']}</p>" if "securitySchemes" in described["components"] else ""
    problem = {"error": {"code": "empty_text", "message": "text is empty: give a text", "field": "text"}}
    return f"""<!doctype html>
<html lang="{lang}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(info["title"])}</title><link rel="stylesheet" href="/static/style.css"><link rel="icon" href="data:,"></head>
<body><main>
<header><h1>{escape(info["title"])}</h1><span>{words["other"]}</span></header>
<p>{words["lead"].format(task=escape(info["description"].partition(",")[0]), version=escape(info["version"]))} <a href="/">{words["try"]}</a></p>
<h2>{words["ask"]}</h2><pre><code>{escape(curl)}</code></pre>{secret}
<p>{words["python"]}</p><pre><code>{escape(python)}</code></pre>
<h2>{words["answer"]}</h2><pre><code>{indented(said)}</code></pre>
<h2>{words["paths"]}</h2><table>{paths}</table>
<h2>{words["limits"]}</h2><table>{limits}</table>
<h2>{words["errors"]}</h2><p>{words["error_lead"]}</p><pre><code>{indented(problem)}</code></pre><table>{errors}</table>
</main></body></html>
""".encode()
