"""The text of a pre-training: looked through, cut into pieces by a tokenizer and checked, before the first step."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bertcourse.base.atomic import file_digest
from bertcourse.base.errors import UserError
from bertcourse.base.text import shown_name
from bertcourse.jobs.reporter import Reporter

SAMPLE = 10_000_000  # characters from which a tokenizer is trained
FEWEST = 4  # documents: two to train on, two held out, so that a stranger can be found for either
DEV_DOCUMENTS = 500  # of the toy world that are held out, of each language


# --- files --------------------------------------------------------------------------------------------------------

def check_corpus(files: Sequence[Path], encodings: Sequence[str | None]) -> None:
    """Read the first lines of each file, which must be a different regular file each. Raises `UserError`.

    encodings: of each file; None: to be guessed.
    """
    from bertcourse.files import check_encoding
    from bertcourse.pieces import encoding_of, read_lines, read_text
    seen: set[Path] = set()
    for file, encoding in zip(files, encodings, strict=True):
        check_encoding(encoding)
        if str(file) == "-" or (file.exists() and not file.is_file() and not file.is_dir()):
            raise UserError(f"{file} can be read only once: save the text in a file first",
                            f"{file} 只能读一遍：请先把文本存成文件")
        with contextlib.closing(read_lines(file, encoding or encoding_of(file)[0])) as lines:
            has_text = any(line.strip() for line in lines)
        if not has_text:
            list(read_text(file))  # says that it is empty
        if file.resolve() in seen:
            raise UserError(f"{file} is given twice: name each file once", f"{file} 出现了两次：每个文件请只写一次")
        seen.add(file.resolve())


@dataclass
class Survey:
    """What a corpus is, after all of it has been read once."""

    files: list[dict[str, Any]]
    characters: int
    pieces: int  # roughly, rather too many
    sample: list[str]


def survey(files: Sequence[Path], sample: int, encodings: Sequence[str | None] = ()) -> Survey:
    """Read everything, so that a fault is found before anything is written; take a sample evenly. Raises `TextError`."""
    from bertcourse.pieces import read_lines
    total = sum(file.stat().st_size * (4 if file.suffix == ".gz" else 1) for file in files)
    kept, taken, characters, pieces = [], 0, 0, 0
    for line in chain.from_iterable(map(read_lines, files, encodings or [None] * len(files))):
        characters += len(line) + 1
        pieces += len(line) // 3 if line.isascii() else len(line)  # English; Chinese, where each character is one
        if line and taken < sample and taken * total <= characters * sample:  # not every nth, which might all be titles
            kept.append(line)
            taken += len(line)
    known = [{"name": shown_name(file), "bytes": file.stat().st_size, "sha256": file_digest(file)} for file in files]
    return Survey(known, characters, pieces, kept)


# --- tokenizers ---------------------------------------------------------------------------------------------------

def load_tokenizer(folder: Path) -> Any:
    """A tokenizer that BERT's inputs can be made with. Raises `UserError`."""
    from transformers import AutoTokenizer, BertTokenizer
    from transformers.utils import logging
    logging.set_verbosity_error()  # what matters is said below
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        else:  # of the days of BERT: AutoTokenizer asks for more
            tokenizer = BertTokenizer.from_pretrained(str(folder), local_files_only=True)
        names = ("pad", "unk", "cls", "sep", "mask")
        absent = [f"[{name.upper()}]" for name in names if getattr(tokenizer, f"{name}_token_id") is None]
        size, last = len(tokenizer), max(tokenizer.get_vocab().values())
    except Exception as error:  # half a dozen libraries' own
        text = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"the tokenizer in {folder} cannot be read ({text}): get it again",
                        f"{folder} 里的分词器读不出来（{text}）：请重新取得") from None
    for wrong, en, zh in [
        (absent, f"has no {', '.join(absent)}", f"缺少 {'、'.join(absent)}"),
        (not tokenizer.is_fast, "is not a fast one (tokenizer.json)", "不是快速分词器（tokenizer.json）"),
        (not absent and tokenizer.pad_token_id != 0, "does not number [PAD] 0, as BERT's do", "的 [PAD] 编号不是 0，与 BERT 不同"),
        (last >= size, f"has {size:,} entries, but numbers up to {last:,}", f"有 {size:,} 项，编号却到 {last:,}"),
    ]:
        if wrong:
            raise UserError(f"the tokenizer in {folder} {en}: choose another, or leave --tokenizer out",
                            f"{folder} 里的分词器{zh}：请换一个，或去掉 --tokenizer")
    return tokenizer


# --- pieces -------------------------------------------------------------------------------------------------------

def hold_out(documents: Iterable[list[str]], share: float, aside: Callable[[list[str]], Any]) -> Iterator[list[str]]:
    """All documents but every so many, which go `aside`; two go aside of however few."""
    every, held, waiting = max(2, round(1 / share)), 0, deque()
    for number, document in enumerate(documents, 1):
        if number % every == 0:
            aside(document)
            held += 1
        else:
            waiting.append(document)
            if len(waiting) > 2:
                yield waiting.popleft()
    for document in waiting:
        if held < 2:
            aside(document)
            held += 1
        else:
            yield document


def encode_corpus(spec: Any, tokenizer: Any, folder: Path, characters: int, reporter: Reporter) -> None:
    """Cut the files into pieces: `train` and `dev` in a folder; none of the two where there are no pieces for it.

    spec: a `PretrainSpec`; characters: of all files. Raises `TextError`.
    """
    from bertcourse.pieces import TextError, encode, read_text

    def cut(documents: Iterable[list[str]], part: str) -> None:
        try:
            encode(documents, tokenizer, folder / part)
        except TextError:  # a ValueError, too: the file has changed since it was surveyed
            raise
        except ValueError:  # no pieces at all, of which `check_pieces` speaks
            pass

    aside = folder / "dev.jsonl"
    with aside.open("w", encoding="utf-8") as file:
        texts = chain.from_iterable(map(read_text, spec.corpus, spec.encodings))
        documents = reporter.watch(texts, characters, lambda document: sum(len(sentence) + 1 for sentence in document), " characters")
        cut(hold_out(documents, spec.dev_share, lambda document: file.write(json.dumps(document) + "\n")), "train")
    with aside.open(encoding="utf-8") as file:
        cut(map(json.loads, file), "dev")
    aside.unlink()


def encode_toy_world(spec: Any, tokenizer: Any, folder: Path, reporter: Reporter) -> None:
    """Cut the toy world's documents into pieces: `train` and, of the validation split, `dev` in a folder."""
    from bertcourse.pieces import toy_pieces
    recipe = spec.recipe
    toy_pieces(tokenizer, DEV_DOCUMENTS, recipe.languages, split="validation", folder=folder / "dev")
    total = recipe.documents * len(recipe.languages)
    toy_pieces(tokenizer, recipe.documents, recipe.languages, folder=folder / "train",
               watch=lambda documents: reporter.watch(documents, total, lambda document: 1, " documents"))


def open_pieces(spec: Any, folder: Path) -> dict[str, Any]:
    """`train` and `dev`, where both are complete, else nothing."""
    from bertcourse.pieces import Pieces
    if not all((folder / part).is_dir() for part in ("train", "dev")):
        return {}
    found = {part: Pieces.open(folder / part) for part in ("train", "dev")}
    for pieces in found.values():  # a run that an earlier version began does not say it in its folders
        pieces.streams = 1 if spec.corpus else len(spec.recipe.languages)
    return found


def check_pieces(pieces: Mapping[str, Any], tokenizer: Any) -> float:
    """The share of `[UNK]`. Raises `UserError` for a text from which nothing can be learnt."""
    from numpy import diff
    documents = sum(map(len, pieces.values()))
    if not pieces or documents < FEWEST or min(map(len, pieces.values())) < 2:
        raise UserError(f"the corpus has fewer than {FEWEST} documents, too few to find a stranger for next sentence "
                        "prediction: put blank lines between documents, or add text",
                        f"语料不足 {FEWEST} 篇，做下一句预测时找不到别处的句子：请用空行分隔各篇，或添加文本")
    for name, part in pieces.items():
        if not (diff(part.documents[:1_000_000]) > 1).any():
            en, zh = ("", "") if name == "train" else (" held out", "留出的文本里")
            raise UserError(f"no document{en} has two sentences, so there is no next one to predict: put blank lines between "
                            "documents only", f"{zh}没有一篇有两句话，也就没有下一句可预测：请只在两篇之间留空行")
    counts = pieces["train"].counts(len(tokenizer))
    unknown = counts[tokenizer.unk_token_id] / counts.sum()
    if unknown > 0.5:
        raise UserError(f"{unknown:.0%} of the text is [UNK] to this tokenizer: choose one that knows its language, or "
                        "leave --tokenizer out", f"这个分词器把 {unknown:.0%} 的文本都当成 [UNK]：请换一个认识这种语言的，或去掉 --tokenizer")
    return float(unknown)


# --- what the machine must have -----------------------------------------------------------------------------------

def shape_of(recipe: Any, vocab_size: int) -> Any:
    """The model's numbers, as `bertcourse.bert` counts them."""
    from bertcourse.bert import Shape
    return Shape("", recipe.num_layers, recipe.hidden_size, recipe.num_heads, 4 * recipe.hidden_size, vocab_size,
                 positions=max(length for length, _ in recipe.lengths))


def check_memory(recipe: Any, vocab_size: int) -> None:
    """Raises `UserError` if training cannot fit into the memory of this machine."""
    import psutil
    import torch

    from bertcourse.bert import training_memory
    shape = shape_of(recipe, vocab_size)
    need = training_memory(shape, recipe.batch_size, shape.positions)
    activations = need.pop("activations") // (2 if recipe.precision == "bf16" else 1)
    chosen = recipe.batch_size * shape.positions * recipe.masking.rate  # tokens that are scored for every piece
    total = sum(need.values()) + activations + int(2 * 4 * chosen * vocab_size)
    there = psutil.virtual_memory().total
    if torch.cuda.is_available():
        there = torch.cuda.get_device_properties(0).total_memory
    if total > there:
        raise UserError(f"this needs about {total / 1e9:,.1f} GB of memory, there are {there / 1e9:,.1f} GB: choose a smaller "
                        "--batch-size, --max-length, --hidden-size or --layers",
                        f"大约需要 {total / 1e9:,.1f} GB 内存，这里只有 {there / 1e9:,.1f} GB："
                        "请调小 --batch-size、--max-length、--hidden-size 或 --layers")


def check_disk(out: Path, recipe: Any, vocab_size: int, pieces: int) -> None:
    """Raises `UserError` if text as pieces, checkpoints and model cannot fit on the disk. pieces: 0 for the toy world's."""
    wide = 2 if vocab_size <= 1 << 16 else 4
    pieces = pieces or 80 * recipe.documents * len(recipe.languages)
    text = pieces * (2 * wide + 1)  # ids lie there twice for a moment
    model = 4 * shape_of(recipe, vocab_size).total()
    need = text + model * (3 * 3 + 3)  # three checkpoints with Adam's two moments; the best, the last, the one to move
    above = next(path for path in [out.absolute(), *out.absolute().parents] if path.is_dir())
    free = shutil.disk_usage(above).free
    if need > free:
        raise UserError(f"this needs about {need / 1e9:,.1f} GB of disk in {out}, {free / 1e9:,.1f} GB are free: make room, or "
                        "choose another folder with --out",
                        f"{out} 所在磁盘大约需要 {need / 1e9:,.1f} GB，只剩 {free / 1e9:,.1f} GB：请腾出空间，或用 --out 换一个文件夹")
