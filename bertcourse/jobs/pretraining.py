"""Pre-train a BERT on text files of one's own, or on the toy world: `pretrain`.

The run is that of `bertcourse.jobs.folder`; its folder also holds `train` and `dev`, the text as pieces. torch is imported when what
can be checked without it has been.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertcourse.assets import asset
from bertcourse.base.atomic import file_digest
from bertcourse.base.errors import UserError
from bertcourse.base.json_files import finite, read_json, write_json
from bertcourse.base.machine import set_threads
from bertcourse.base.recipe_rules import ABOVE, COUNT, LENGTH, PRECISION
from bertcourse.base.text import shown_name
from bertcourse.jobs import cards
from bertcourse.jobs.corpus_text import (
    SAMPLE,  # fmt: skip
    Survey,
    check_corpus,
    check_disk,
    check_memory,
    check_pieces,
    encode_corpus,
    encode_toy_world,
    load_tokenizer,
    open_pieces,
    survey,
)
from bertcourse.jobs.curves import Panel, draw_curves
from bertcourse.jobs.folder import METRICS, SPEC, WORK, RunFolder, folder_status, remove_leftovers
from bertcourse.jobs.options import SEED, Options, Real, Rule, as_path, command_line, flag_of, option
from bertcourse.jobs.pretrain_scores import EvaluationReport, Scores
from bertcourse.jobs.recipe import RECIPE, different_settings, earlier_recipe, read_recipe, to_toml
from bertcourse.jobs.reporter import Reporter, card_line, is_main_process
from bertcourse.jobs.result import Trained
from bertcourse.jobs.running import Run, run_training, save_interval, training_errors, wait_for_all
from bertcourse.jobs.spec import other_setting, unknown_run
from bertcourse.models.checkpoint import count_parameters, folder_name, new_folder, save_tokenizer, versions

if TYPE_CHECKING:
    from bertcourse.recipes import Recipe

VOCABULARY, DEV_SHARE = 8_000, 0.02


# --- options ------------------------------------------------------------------------------------------------------

@dataclass(kw_only=True)
class PretrainOptions(Options):
    """The options of `pretrain`; None: not given."""

    out: Path | None = None
    corpus: list[Path] | None = None
    encoding: str | None = option(Rule("the name of an encoding", "编码的名称"))
    tokenizer: Path | None = None
    vocab_size: int | None = option(COUNT)
    dev_share: float | None = option(Real(0, 0.5, above=True))
    config: Path | None = None
    threads: int | None = option(COUNT)
    steps: int | None = option(COUNT)
    batch_size: int | None = option(COUNT)
    lr: float | None = option(ABOVE)
    seed: int | None = option(SEED)
    layers: int | None = option(COUNT)
    hidden_size: int | None = option(COUNT)
    heads: int | None = option(COUNT)
    max_length: int | None = option(LENGTH)
    precision: str | None = option(PRECISION)
    resume: bool = False

    def check(self) -> None:
        """Raises `UserError` for what can be said without looking far into a file, before anything heavy is imported."""
        if self.corpus == []:
            raise UserError("the corpus is an empty list: name its files", "语料是空列表：请写出其中的文件")
        if self.vocab_size and self.tokenizer:
            raise UserError("--vocab-size is for a new tokenizer: leave it or --tokenizer out",
                            "--vocab-size 用于新的分词器：请去掉它或 --tokenizer")
        for name in ("vocab_size", "dev_share"):
            if getattr(self, name) and not self.corpus and not self.resume:
                flag = flag_of(name)
                raise UserError(f"{flag} needs text of your own: add --corpus", f"{flag} 要配合自己的文本：请加上 --corpus")
        if self.tokenizer and not any((self.tokenizer / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
            raise UserError(f"{self.tokenizer} has no tokenizer.json or vocab.txt: give the folder of a tokenizer",
                            f"{self.tokenizer} 里没有 tokenizer.json 或 vocab.txt：请给出分词器所在的文件夹")
        if self.config and not self.config.is_file():
            raise UserError(f"there is no file {self.config}: check the name after --config",
                            f"没有 {self.config} 这个文件：请检查 --config 后的文件名")
        files = self.corpus or []
        check_corpus(files, [self.encoding] * len(files))


@dataclass(kw_only=True)
class PretrainSpec:
    """What a pre-training was asked for: kept in `run.json`, so that `--resume` needs no other option."""

    recipe: Recipe
    corpus: list[str]  # absolute paths; none: the toy world
    tokenizer: str | None  # absolute path; None: a new one, or the course's own
    vocab_size: int
    dev_share: float
    command: str  # as a user would type it
    files: list[dict[str, Any]] = field(default_factory=list)  # name, bytes, sha256 of each
    encodings: list[str] = field(default_factory=list)  # of each file of the corpus

    @classmethod
    def of(cls, options: PretrainOptions) -> PretrainSpec:
        """What is asked for now. Raises `UserError`."""
        from bertcourse.pieces import encoding_of
        files = options.corpus or []
        return cls(
            recipe=read_recipe(options), corpus=[str(file.resolve()) for file in files],
            tokenizer=str(options.tokenizer.resolve()) if options.tokenizer else None, vocab_size=options.vocab_size or VOCABULARY,
            dev_share=options.dev_share or DEV_SHARE, command=command_line("pretrain", options, {}),
            encodings=[options.encoding or encoding_of(file)[0] for file in files])

    @classmethod
    def resumed(cls, options: PretrainOptions) -> PretrainSpec:
        """What an unfinished run was asked for, and is now again. Raises `UserError`."""
        was = read_json(options.out / WORK / SPEC)
        try:
            spec = cls(**was | {"recipe": earlier_recipe(was["recipe"])})
        except (KeyError, TypeError, ValueError):
            raise unknown_run(options.out) from None
        compare(options, was)
        return spec

    def write(self, folder: Path) -> None:
        """Into `run.json`, whole or not at all."""
        write_json(folder / SPEC, asdict(self))


def compare(options: PretrainOptions, was: Mapping[str, Any]) -> None:
    """Raises `UserError` when options ask for something else than a run was (`run.json`, or `data` and `recipe` of the metrics)."""
    changed = different_settings(earlier_recipe(was["recipe"]), read_recipe(options, was["recipe"]))
    if options.tokenizer and "tokenizer" in was:
        changed.append(("tokenizer", was["tokenizer"], str(options.tokenizer.resolve())))
    changed += [(name, was[name], value) for name, value in options.given(["vocab_size", "dev_share"]).items() if name in was]
    for name, old, new in changed:
        if old != new:
            raise other_setting(options.out, name, old, new)
    if options.corpus and [file_digest(file) for file in options.corpus] != [file["sha256"] for file in was["files"]]:
        raise other_corpus(options.out)


def other_corpus(out: Path) -> UserError:
    """The sentence for text that is not what it was."""
    return UserError(f"the corpus is not that of the run in {out}: choose another folder with --out",
                     f"语料与 {out} 里的训练所用的不同：请用 --out 换一个文件夹")


def is_finished(metrics: Mapping[str, Any]) -> bool:
    """Are these the metrics of a run of this command?"""
    tables = ("data", "recipe", "dev", "baseline")
    return metrics.get("task") == "pretraining" and all(isinstance(metrics.get(name), dict) for name in tables)


# --- text ---------------------------------------------------------------------------------------------------------

def report_encodings(spec: PretrainSpec, reporter: Reporter) -> None:
    """Say which files are not UTF-8, and how they are read."""
    for file, encoding in zip(spec.corpus, spec.encodings):
        if not encoding.lower().startswith("utf-8"):
            name = shown_name(file)
            reporter.info(f"{name}: read as {encoding.upper()}; --encoding changes it", f"{name}：按 {encoding.upper()} 读取，可用 --encoding 指定")


@dataclass
class Text:
    """The text of a run before it is cut into pieces."""

    survey: Survey
    tokenizer: Any  # None: it is to be trained


def check_text(spec: PretrainSpec, out: Path) -> Text:
    """Check tokenizer, memory, text and disk, before anything is written. Raises `UserError`."""
    files, tokenizer = [Path(file) for file in spec.corpus], None
    if spec.files:  # a run that was killed early
        check_corpus(files, spec.encodings)
    if spec.tokenizer:
        tokenizer = load_tokenizer(Path(spec.tokenizer))
    elif not spec.corpus:
        tokenizer = load_tokenizer(asset("tiny-bert"))
    vocab_size = len(tokenizer) if tokenizer else spec.vocab_size
    check_memory(spec.recipe, vocab_size)
    found = survey(files, 0 if tokenizer else SAMPLE, spec.encodings)
    if spec.files and found.files != spec.files:
        raise other_corpus(out)
    spec.files = found.files
    check_disk(out, spec.recipe, vocab_size, found.pieces)
    return Text(found, tokenizer)


def cut_text(spec: PretrainSpec, text: Text, folder: Path, reporter: Reporter) -> None:
    """Fill the folder of the run: what was asked for, the tokenizer, and the text as pieces. What lay there is removed."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()
    spec.write(folder)
    tokenizer = text.tokenizer
    if tokenizer is None:
        from bertcourse.corpus import train_tokenizer
        reporter.step(f"training a tokenizer of {spec.vocab_size:,} entries", f"正在训练 {spec.vocab_size:,} 项的分词器")
        tokenizer = train_tokenizer(text.survey.sample, spec.vocab_size)
    save_tokenizer(tokenizer, folder / "tokenizer", max(length for length, _ in spec.recipe.lengths))
    ids = tokenizer.get_vocab()
    vocabulary = "".join(piece + "\n" for piece in sorted(ids, key=ids.get))
    (folder / "tokenizer" / "vocab.txt").write_text(vocabulary, encoding="utf-8", newline="\n")
    reporter.step("splitting the text into tokens", "正在把文本切成 token")
    if spec.corpus:
        encode_corpus(spec, tokenizer, folder, text.survey.characters, reporter)
    else:
        encode_toy_world(spec, tokenizer, folder, reporter)


# --- the finished folder ------------------------------------------------------------------------------------------

def assemble(spec: PretrainSpec, folder: RunFolder, model: Any, history: Any, scores: Scores, data: Mapping[str, Any]) -> dict[str, Any]:
    """Put all that the finished folder is to hold into `unfinished/model`; returns the metrics. data: what they say of the text."""
    import torch
    recipe, training = spec.recipe, folder.training
    target = new_folder(folder.path / "model", folder.path / "tokenizer",
                        [*training.glob("*.json"), *training.glob("*.safetensors"), training / "history.jsonl"])
    metrics = finite({
        "task": "pretraining", "objective": recipe.task, "dev": history.rows[-1]["dev"], "baseline": scores.baseline(), "test": {},
        "seconds": round(history.seconds, 1), "seed": recipe.seed, "command": spec.command, "steps": history.steps,
        "tokens": history.column("tokens")[1][-1], "parameters": count_parameters(model), "vocab_size": scores.vocab_size,
        "dev_inputs": len(scores.inputs), "threads": torch.get_num_threads(), "versions": versions(), "recipe": asdict(recipe),
        "data": data,
    })
    (target / RECIPE).write_text(to_toml(recipe, toy_world=not spec.corpus), encoding="utf-8")
    (target / "README.md").write_text(card(folder_name(folder.out), metrics), encoding="utf-8")
    draw_history(history, metrics["baseline"], recipe.task, target / "curves.png")
    write_json(target / METRICS, metrics)
    return metrics


def describe_data(spec: PretrainSpec, pieces: Mapping[str, Any], unknown: float) -> dict[str, Any]:
    """What the metrics say of the text. unknown: the share of `[UNK]`."""
    sizes = {part: {"documents": len(found), "sentences": len(found.sentences) - 1, "pieces": len(found.ids),
                    "fingerprint": found.fingerprint()} for part, found in pieces.items()}
    return {"files": spec.files, "dev_share": spec.dev_share if spec.corpus else None, "unknown": unknown} | sizes


PAIRS = {"nsp": "下一句预测，准确率 / next sentence, accuracy", "sop": "句序预测，准确率 / sentence order, accuracy"}


def card(name: str, metrics: Mapping[str, Any]) -> str:
    """The model card, in both languages."""
    return cards.render("pretrain.md.j2", name=name, m=metrics, pairs=PAIRS[metrics["objective"]], recipe_file=RECIPE)


def draw_history(history: Any, baseline: Mapping[str, float], task: str, path: Path) -> None:
    """Losses of training and of held-out text; shares of right answers on held-out text."""
    steps, terms = history.column("terms")
    draw_curves([
        Panel("loss of masked words", {"training": (steps, [pair[0] for pair in terms])}, {"held out": history.column("dev.mlm_loss")},
              level=("piece frequencies", baseline["mlm_loss"])),
        Panel("right answers, held out", dots={"masked words": history.column("dev.mlm_accuracy"),
                                               "sentence pairs": history.column(f"dev.{task}_accuracy")}, limits=(0, 1)),
    ], path, 4.2)


def summary(out: Path, metrics: Mapping[str, Any], zh: bool) -> str:
    """What a person wants to know at the end."""
    dev, base, pairs = metrics["dev"], metrics["baseline"], f"{metrics['objective']}_accuracy"
    words, steps, minutes = "mlm_accuracy", metrics["steps"], metrics["seconds"] / 60
    if zh:
        head = f"{out}：{metrics['parameters']:,} 个参数，{steps:,} 步，{minutes:.1f} 分钟"
        scores = (f"留出文本：掩码词 {dev[words]:.1%}（最常见的 token：{base[words]:.1%}），困惑度 {dev['mlm_perplexity']:,.1f}"
                  f"（{base['mlm_perplexity']:,.1f}），句对 {dev[pairs]:.1%}（{base[pairs]:.1%}）")
    else:
        head = f"{out}: {metrics['parameters']:,} parameters, {steps:,} steps, {minutes:.1f} minutes"
        scores = (f"held out: masked words {dev[words]:.1%} (most frequent piece: {base[words]:.1%}), perplexity "
                  f"{dev['mlm_perplexity']:,.1f} ({base['mlm_perplexity']:,.1f}), sentence pairs {dev[pairs]:.1%} ({base[pairs]:.1%})")
    return "\n".join([head, scores, card_line(out, zh)])


# --- the run ------------------------------------------------------------------------------------------------------

def run_pretraining(options: PretrainOptions, reporter: Reporter) -> Trained:
    """Check all, then work. Raises `UserError`, and `Stopped` when interrupted."""
    def work(run: Run) -> dict[str, Any] | None:
        options.check()
        found = folder_status(options.out, options.resume, is_finished, complete=bool(options.corpus or options.config))
        reporter.step("reading", "正在读取")
        if options.threads:
            os.environ.setdefault("RAYON_NUM_THREADS", str(options.threads))  # the tokenizer's
        if found == "finished":
            metrics = read_json(options.out / METRICS)
            compare(options, metrics["data"] | {"recipe": metrics["recipe"]})
            remove_leftovers(options.out)
            return metrics
        run.load_libraries()
        spec, text = PretrainSpec.resumed(options) if found == "unfinished" else PretrainSpec.of(options), None
        set_threads(spec.recipe.hidden_size, options.threads)
        if is_main_process() and not open_pieces(spec, options.out / WORK):
            report_encodings(spec, reporter)
            text = check_text(spec, options.out)
        with run.open_folder() as folder:
            return pretrain_in(folder, spec, text, reporter)

    metrics = run_training("pretrain", options.out, reporter.zh, work)
    return Trained(options.out, metrics, summary(options.out, metrics, reporter.zh))


def pretrain_in(folder: RunFolder, spec: PretrainSpec, text: Text | None, reporter: Reporter) -> dict[str, Any] | None:
    """From the text to the finished folder, from wherever an earlier run got to; None where the training was interrupted.

    Of several processes the main one cuts the text into pieces, and the others wait for it.
    """
    if folder.main and not open_pieces(spec, folder.path):
        cut_text(spec, text, folder.path, reporter)
    wait_for_all()
    pieces, recipe = open_pieces(spec, folder.path), spec.recipe
    tokenizer = load_tokenizer(folder.path / "tokenizer")
    unknown = check_pieces(pieces, tokenizer)
    times = recipe.steps * recipe.batch_size * max(length for length, _ in recipe.lengths) / len(pieces["train"].ids)
    reporter.step(f"text: {pieces['train']}; {recipe.steps:,} steps read it up to {times:,.1f} times",
                  f"文本：{pieces['train']}；{recipe.steps:,} 步最多读 {times:,.1f} 遍")
    scores = Scores(recipe, tokenizer, pieces)
    model, history = train(recipe, tokenizer, pieces["train"], scores, folder, reporter)
    if history.paused:
        return None
    metrics = assemble(spec, folder, model, history, scores, describe_data(spec, pieces, unknown)) if folder.main else {}
    del pieces, scores  # Windows removes no file that is mapped
    folder.finish()
    return metrics


def train(recipe: Recipe, tokenizer: Any, pieces: Any, scores: Scores, folder: RunFolder, reporter: Reporter) -> tuple[Any, Any]:
    """The model and its `History`, from the newest checkpoint on if there is one. Raises `UserError` for what a user can fix."""
    from accelerate import Accelerator

    from bertcourse import pretraining
    with training_errors(recipe.lr, folder.best, folder.stop):
        model, history = pretraining.pretrain(
            recipe, tokenizer, pieces, out=folder.training, resume=True, metrics=scores, progress=reporter.progress,
            callbacks=[folder.stop, EvaluationReport(recipe, reporter)], save_every=save_interval(recipe.steps), pause=folder.stop)
    return model.to(Accelerator().device), history  # the last scores need it as much as the training did


def pretrain(
    *,
    out: str | Path,  # new folder for the model
    corpus: str | Path | list[str | Path] | None = None,  # text or its .gz, blank lines between documents (default: toy world)
    encoding: str | None = None,  # of corpus (default: UTF-8, or guessed and said)
    tokenizer: str | Path | None = None,  # its folder (default: a new one for corpus, else the course's own)
    vocab_size: int | None = None,  # entries of a new vocabulary, or more for its characters (default: 8,000)
    dev_share: float | None = None,  # share of corpus that is held out (default: 0.02)
    config: str | Path | None = None,  # recipe (default: that of the course's own model); what follows wins
    threads: int | None = None,  # of the CPU (default: one for a small model, else all)
    steps: int | None = None,  # of training (default: as the recipe says, like all below)
    batch_size: int | None = None,  # pairs of a step, of all processes together
    lr: float | None = None,  # highest learning rate
    seed: int | None = None,  # of weights, pairs, masks and dropout
    layers: int | None = None,  # how many the encoder has
    hidden_size: int | None = None,  # width of the encoder
    heads: int | None = None,  # of attention; they divide the width
    max_length: int | None = None,  # tokens of an input, from 5 on
    precision: str | None = None,  # no or bf16
    resume: bool = False,  # go on with the run in out (with corpus or config: or begin it)
    quiet: bool = False,  # say nothing but errors
) -> Trained:
    """Pre-train a BERT from random weights and write a folder with checkpoint, tokenizer, metrics, curves, recipe and model card.

    Settings of the recipe that are given here win over those of `config`, a TOML file. Raises `bertcourse.base.errors.UserError` for
    what a user can fix, `bertcourse.jobs.Stopped` (a `KeyboardInterrupt`) when interrupted; `resume=True` goes on.
    """
    arguments = dict(locals())
    paths = {name: as_path(arguments[name]) for name in ("out", "tokenizer", "config")}
    files = [corpus] if isinstance(corpus, (str, os.PathLike)) else corpus
    options = PretrainOptions.of(arguments | paths | {"corpus": None if files is None else [as_path(file) for file in files]})
    return run_pretraining(options, Reporter(quiet))
