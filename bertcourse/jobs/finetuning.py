"""Fine-tune a BERT on labelled rows of one's own: `finetune`, and what `distill` shares with it.

The run is that of `bertcourse.jobs.folder`. torch is imported when what can be checked without it has been.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertcourse.base.errors import UserError
from bertcourse.base.json_files import finite, read_json, write_json, write_json_lines
from bertcourse.base.machine import set_threads
from bertcourse.base.messages import plural
from bertcourse.base.names import built_in
from bertcourse.jobs import cards
from bertcourse.jobs.curves import Panel, draw_curves
from bertcourse.jobs.data import (
    SHORTEST,  # fmt: skip
    SPLITS,
    Data,
    build_splits,
    check_files,
    choose_max_length,
    count_unplaced,
    language_of_rows,
    longest_answer,
    model_inputs,
)
from bertcourse.jobs.folder import METRICS, RunFolder, folder_status, remove_leftovers
from bertcourse.jobs.options import (
    COUNT,
    LANGUAGE,
    Choice,
    FileOptions,
    Or,
    Real,
    TrainingOptions,
    Whole,
    as_model,
    as_path,
    command_line,
    option,
)
from bertcourse.jobs.reporter import NUMBERS, EpochReport, Reporter, card_line, format_scores, headline
from bertcourse.jobs.result import Trained
from bertcourse.jobs.rows import Source, as_files
from bertcourse.jobs.running import Run, run_training, save_interval, training_errors
from bertcourse.jobs.setup import (
    DROPOUTS,  # fmt: skip
    check_layerwise,
    choose_precision,
    keep_or_renew_head,
    learning_rate,
    reinitialise_top,
)
from bertcourse.jobs.spec import Spec, check_same, check_seed, comparable, filled
from bertcourse.models.checkpoint import count_parameters, folder_name, model_location, model_name, new_folder, save_tokenizer, versions
from bertcourse.models.kinds import ABOUT, ALIASES, TASKS, base_task, describe, input_columns, shell_example

DEFAULTS: dict[str, Any] = {
    "columns": {}, "format": None, "encoding": None, "lang": "auto", "max_length": "auto", "max_answer_length": None, "epochs": None,
    "steps": None, "lr": "auto", "batch_size": 32, "warmup": 0.1, "weight_decay": 0.01, "patience": None, "seed": 0, "llrd": None,
    "reinit": 0, "adversarial": None, "dropout": None, "precision": "auto",
}
NEEDED = ("task", "train", "model")  # beside --out; a run that is resumed knows its own


# --- options ------------------------------------------------------------------------------------------------------

@dataclass(kw_only=True)
class FinetuneOptions(FileOptions, TrainingOptions):
    """The options of `finetune`; None: not given."""

    task: str | None = option(Choice(*TASKS, *ALIASES))
    train: Path | None = None
    dev: Path | None = None
    test: Path | None = None
    model: str | None = None
    out: Path | None = None
    lang: str | None = option(LANGUAGE)
    max_length: int | str | None = option(Or("auto", Whole(SHORTEST)))
    max_answer_length: int | None = option(COUNT)
    llrd: float | None = option(Real(0, 1, above=True))
    reinit: int | None = option(Whole(0))
    adversarial: str | None = option(Choice("fgm", "pgd"))
    dropout: float | None = option(Real(0, 1, below=True))
    resume: bool = False

    def files(self) -> dict[str, Path]:
        """Option: file."""
        return self.given(list(SPLITS))

    def check(self) -> None:
        """Raises `UserError` for what can be said before anything heavy is imported."""
        check_together(self)
        if not self.resume:
            self.require("finetune", NEEDED)
        check_files(self.files().values())
        if self.model is not None:
            built_in(self.model)
        if self.max_answer_length is not None and self.task not in (None, "qa"):
            raise UserError(f"--max-answer-length is for --task qa, not for {self.task}: leave it out",
                            f"--max-answer-length 用于 --task qa，不能用于 {self.task}：请去掉它")


def check_together(options: Any) -> None:
    """Raises `UserError` for options of a training that exclude each other, and for a seed that there is not."""
    for first, second in (("epochs", "steps"), ("layer_epochs", "layer_steps")):
        if getattr(options, first, None) is not None and getattr(options, second, None) is not None:
            first, second = (f"--{name.replace('_', '-')}" for name in (first, second))
            raise UserError(f"argument {second}: not allowed with argument {first}", f"{second} 不能与 {first} 同时使用：请只写一个")
    check_seed(options.seed)


@dataclass(kw_only=True)
class FinetuneSpec(Spec):
    """What a fine-tuning was asked for."""

    task: str
    model: str  # absolute path, or a profile's or the hub's name

    @classmethod
    def of(cls, options: FinetuneOptions) -> FinetuneSpec:
        """What is asked for now. Raises `UserError`."""
        settings = filled(options, DEFAULTS)
        if settings["steps"] is None and settings["epochs"] is None:
            settings["epochs"] = 3
        location = model_location(options.model)
        shown = command_line("finetune", options, {"model": model_name(location)})
        return cls(task=options.task, model=location, settings=settings, command=shown).add_files(options.files())


def compare(options: FinetuneOptions, was: Mapping[str, Any]) -> None:
    """Raises `UserError` when options ask for something else than a run was (`run.json`, or the metrics)."""
    changed = [(name, was["settings"][name], value) for name, value in options.given(list(DEFAULTS)).items()]
    if options.task is not None:
        changed.append(("task", base_task(was["task"]), base_task(options.task)))
    if options.model is not None:
        changed.append(("model", *comparable(was["model"], model_location(options.model))))
    check_same(options.out, changed, options.files(), was["files"])


def is_finished(metrics: Mapping[str, Any]) -> bool:
    """Are these the metrics of a run of this command?"""
    tables = ("dev", "data", "settings")
    return metrics.get("task") in TASKS and "method" not in metrics and all(isinstance(metrics.get(name), dict) for name in tables)


# --- the model ----------------------------------------------------------------------------------------------------

@dataclass
class Plan:
    """What was chosen where nothing was asked for, and what follows from it."""

    lang: str
    lr: float
    precision: str
    data: Data
    steps: int = 0
    parameters: int = 0
    head: str = ""  # its parts
    inputs: Sequence[Mapping[str, Any]] = ()  # the training rows, encoded
    task: Any = None  # a bertcourse.tasks.Task
    model: Any = None


def read_data(spec: FinetuneSpec, reporter: Reporter) -> Data:
    """Read the files, say what they are, hold out some of the training rows if there is no `--dev`. Raises `UserError`."""
    from bertcourse import files
    named = {SPLITS[option]: path for option, path in spec.paths.items()}
    how = {name: spec.settings[name] for name in ("format", "encoding")}
    return build_splits(spec, files.read_all(spec.task, named, spec.settings["columns"] or None, **how), reporter)


def choose_language(asked_for: str, rows: Any, profile: Any) -> str:
    """`--lang`, or the language of most of the text, where the model knows it."""
    if asked_for != "auto":
        return asked_for
    found = language_of_rows(rows)
    return found if found in profile.languages else profile.languages[0]


def prepare(spec: FinetuneSpec, data: Data, reporter: Reporter) -> Plan:
    """Choose what was left open, and load the model. Raises `UserError`."""
    from transformers.utils import logging

    from bertcourse import profiles
    from bertcourse.tasks import for_words, task_of
    logging.set_verbosity_error()  # what matters is said below
    profile, s, train = profiles.load(spec.model), spec.settings, data.splits["train"]
    lang = choose_language(s["lang"], train, profile)
    tokenizer, config = profile.tokenizer(lang), profile.only(lang).teacher_config
    if base_task(spec.task) == "ner":
        tokenizer = for_words(tokenizer)
    rate = learning_rate(config.hidden_size) if s["lr"] == "auto" else s["lr"]
    plan = Plan(lang, rate, choose_precision(s["precision"], config), data)
    length = choose_max_length(spec, tokenizer, train, reporter)
    plan.task = task_of(base_task(spec.task), train, tokenizer, max_length=length, lang=lang)
    plan.model = make_model(spec, plan, profile, reporter)
    encode_training_rows(spec, plan, reporter)
    plan.steps = count_steps(s, len(plan.inputs))
    how = f" (auto, width {config.hidden_size})" if s["lr"] == "auto" else ""
    reporter.info(f"{plural(plan.steps, 'step')} of {s['batch_size']}, learning rate {plan.lr:g}{how}, precision {plan.precision}, language {lang}",
                  f"{plan.steps:,} 步，每步 {s['batch_size']} 条，学习率 {plan.lr:g}{how.replace('auto, width', '自动，宽度')}，"
                  f"精度 {plan.precision}，语言 {lang}")
    return plan


def encode_training_rows(spec: FinetuneSpec, plan: Plan, reporter: Reporter) -> None:
    """Encode the rows; say which questions are left out, and how long answers may be."""
    encoded, task = plan.task.encode(plan.data.splits["train"]), plan.task
    plan.inputs = model_inputs(encoded)
    if unplaced := count_unplaced(encoded):
        reporter.info(f"{plural(unplaced, 'question')} left out of training: the tokenizer gives no token for the answer",
                      f"有 {unplaced:,} 个问题不参加训练：分词器对它的答案切不出任何 token")
    if task.name == "qa":
        asked_for = spec.settings["max_answer_length"]
        task.max_answer_length = asked_for or longest_answer(encoded)
        reporter.info(f"answers of at most {plural(task.max_answer_length, 'token')}{'' if asked_for else ' (auto)'}",
                      f"答案最多 {task.max_answer_length} 个 token{'' if asked_for else '（自动）'}")


def make_model(spec: FinetuneSpec, plan: Plan, profile: Any, reporter: Reporter) -> Any:
    """The encoder with a head for the task. Says which part is new. Raises `UserError`."""
    from functools import partial

    import torch
    config, dropout, task = profile.only(plan.lang).teacher_config, spec.settings["dropout"], plan.task
    settings = {} if dropout is None else {name: dropout for name in DROPOUTS if hasattr(config, name)}
    if plan.precision == "bf16" and not torch.cuda.is_available():
        settings["attn_implementation"] = "eager"  # measured: a tenth faster than PyTorch's fused attention, on a CPU
    settings |= {"classification": {"problem_type": "single_label_classification"}, "qa": {"num_labels": 2}}.get(task.name, {})
    set_threads(config.hidden_size)
    torch.manual_seed(spec.settings["seed"])
    model = task.model(partial(profile.model, lang=plan.lang, ignore_mismatched_sizes=True), **settings)
    goes_on = keep_or_renew_head(model, config, task)
    parts = {name for name, part in model.named_children() if name != model.base_model_prefix and any(True for _ in part.parameters())}
    plan.head, plan.parameters = ", ".join(sorted(parts)), count_parameters(model)
    reinitialise_top(model, spec.settings["reinit"])
    check_layerwise(model, spec.settings["llrd"])
    en, zh = describe_head(plan.head, model, config, goes_on)
    shape = f"{model.config.num_hidden_layers} × {model.config.hidden_size}"
    reporter.info(f"model {model_name(spec.model)}: {type(model).__name__}, {shape}, {plan.parameters:,} parameters; {en}",
                  f"模型 {model_name(spec.model)}：{type(model).__name__}，{shape}，{plan.parameters:,} 个参数；{zh}")
    return model


def describe_head(head: str, model: Any, config: Any, goes_on: bool) -> tuple[str, str]:
    """Which part of the model is new, in English and Chinese."""
    if goes_on:
        return f"the head ({head}) goes on from the checkpoint's", f"任务头（{head}）接着检查点里的训练"
    before = next(iter(config.architectures or []), "")
    new = head + (", pooler" if any(".pooler." in name for name in model.newly_initialised) else "")
    en, zh = f"newly initialised: {new}", f"新初始化：{new}"
    if "For" in before and "PreTraining" not in before and "MaskedLM" not in before:
        en, zh = f"{en}, in place of the head of {before}", f"{zh}，换下了 {before} 的任务头"
    return en, zh


def count_steps(settings: Mapping[str, Any], rows: int) -> int:
    """Steps in all. Raises `UserError` when the warm-up leaves none of them."""
    steps = settings["steps"] or settings["epochs"] * math.ceil(rows / settings["batch_size"])
    if 1 <= settings["warmup"] >= steps:
        raise UserError(f"--warmup {settings['warmup']:g} leaves nothing of {plural(steps, 'step')}: shorten it",
                        f"共 {steps} 步，--warmup 就要 {settings['warmup']:g} 步：请缩短")
    return steps


# --- training -----------------------------------------------------------------------------------------------------

def train(spec: FinetuneSpec, plan: Plan, folder: RunFolder, reporter: Reporter) -> Any:  # a History
    """Fine-tune, from the newest checkpoint on if there is one. Raises `UserError` for what a user can fix."""
    from accelerate import Accelerator

    from bertcourse.finetuning import FGM, PGD, layerwise
    from bertcourse.training import fit
    plan.model.to(Accelerator().device)  # where it stays for the scores afterwards: `fit` moves a model back to where it was
    s, task, dev, stop = spec.settings, plan.task, plan.data.splits["dev"], folder.stop
    attacks = {"fgm": [FGM], "pgd": [PGD]}.get(s["adversarial"], [])
    optimizer = layerwise(plan.lr, s["llrd"], s["weight_decay"]) if s["llrd"] else None
    settings = {name: s[name] for name in ("epochs", "steps", "warmup", "weight_decay", "batch_size", "patience", "seed")}
    with training_errors(plan.lr, folder.best, stop):
        return fit(plan.model, plan.inputs, dev=model_inputs(task.encode(dev)), metrics=task.metrics(dev), better=task.better, lr=plan.lr,
                   collate=task.collate, precision=plan.precision, optimizer=optimizer, progress=reporter.progress,
                   callbacks=[stop, EpochReport(plan.steps, reporter), *(attack() for attack in attacks)], out=folder.training,
                   resume=True, save_every=save_interval(plan.steps), pause=stop, **settings)


def score_kept_weights(settings: Mapping[str, Any], task: Any, model: Any, data: Data, history: Any) -> tuple[dict, dict]:  # dev, test
    """The scores of the weights that are kept; tunes the threshold of questions without answers before."""
    row = history.best if settings["patience"] and history.best else next(r for r in reversed(history.rows) if "dev" in r)
    dev = {name: value for name, value in row["dev"].items() if name != "terms"}
    if task.name == "qa" and not all(answers["text"] for answers in data.splits["dev"]["answers"]):
        task.tune_threshold(model, data.splits["dev"])
        dev |= task.metrics(data.splits["dev"])(model)
    return dev, task.metrics(data.splits["test"])(model) if "test" in data.splits else {}


# --- the finished folder ------------------------------------------------------------------------------------------

def assemble(spec: FinetuneSpec, plan: Plan, run: RunFolder, history: Any) -> dict[str, Any]:
    """Put all that the finished folder is to hold into `unfinished/model`; returns the metrics."""
    task, data, name = plan.task, plan.data, folder_name(run.out)
    dev, test = score_kept_weights(spec.settings, task, plan.model, data, history)
    folder = new_folder(run.path / "model", run.path / "tokenizer", [*run.training.glob("*.json"), *run.training.glob("*.safetensors")])
    write_json_lines(folder / "history.jsonl", history.rows)
    base, inputs = model_name(spec.model), input_columns(data.splits["train"].column_names)
    about = describe(task, spec.settings["columns"], inputs, model=base) | {"task": base_task(spec.task)}
    write_json(folder / ABOUT, about)
    metrics = finite({
        "task": about["task"], "dev": dev, "test": test, "seconds": round(history.seconds, 1), "seed": spec.settings["seed"],
        "command": spec.command, "steps": history.steps, "best_step": history.best and history.best["step"], "model": base,
        "head": plan.head, "parameters": plan.parameters, "lr": plan.lr, "precision": plan.precision, "lang": plan.lang,
        "max_length": task.max_length, "labels": list(task.labels), "threshold": about["threshold"], "files": spec.files,
        "data": data.as_metrics(), "settings": spec.settings, "versions": versions(),
    })
    card = cards.task_card("finetune.md.j2", name, metrics, task.auto_class.__name__, shell_example(inputs, name),
                           ("lr", "max_length", "precision", "lang"))
    (folder / "README.md").write_text(card, encoding="utf-8")
    draw_history(history, task.better[0], folder / "curves.png")
    write_json(folder / METRICS, metrics)
    return metrics


def draw_history(history: Any, metric: str, path: Path) -> None:
    """Losses, learning rate and the score on the development set."""
    steps, score = history.steps, history.column(f"dev.{metric}")
    draw_curves([
        Panel("loss", {"training": history.column("loss")}, {"dev": history.column("dev.loss")}, steps=steps),
        Panel("learning rate", {"learning rate": history.column("lr")}, steps=steps),
        Panel(f"{metric}, dev", dots={metric: score}, steps=steps, limits=None if metric in NUMBERS else (0, 1)),
    ], path)


def summary(out: Path, metrics: Mapping[str, Any], zh: bool) -> str:
    """What a person wants to know at the end."""
    lines = [f"{part}{'：' if zh else ': '}{format_scores(metrics[part], zh)}" for part in ("dev", "test") if metrics[part]]
    return "\n".join([headline(out, metrics, zh), *lines, card_line(out, zh)])


# --- the run ------------------------------------------------------------------------------------------------------

def run_finetuning(options: FinetuneOptions, reporter: Reporter, sources: Mapping[str, Any] | None = None) -> Trained:
    """Check all, then work. sources: option → what was given for it, where rows in memory stand for a file.

    Raises `UserError`, and `Stopped` when interrupted.
    """
    def work(run: Run) -> dict[str, Any] | None:
        options.check()
        complete = all(getattr(options, name) is not None for name in NEEDED)
        found = folder_status(options.out, options.resume, is_finished, complete)
        if found == "finished":
            metrics = read_json(options.out / METRICS)
            compare(options, metrics)
            remove_leftovers(options.out)
            return metrics
        run.load_libraries()
        spec = resumed(options) if found == "unfinished" else FinetuneSpec.of(options)
        plan = prepare(spec, read_data(spec, reporter), reporter)
        with run.open_folder() as folder:
            return fine_tune_in(folder, spec, plan, reporter, sources or {})

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")  # of scores where all rows, or all guesses, are of one class
        metrics = run_training("finetune", options.out, reporter.zh, work)
    return Trained(options.out, metrics, summary(options.out, metrics, reporter.zh))


def resumed(options: FinetuneOptions) -> FinetuneSpec:
    """What an unfinished run was asked for, and is now again. Raises `UserError`."""
    spec = FinetuneSpec.read(options.out, DEFAULTS)
    compare(options, vars(spec))
    spec.check_unchanged(options.out)
    return spec


def fine_tune_in(folder: RunFolder, spec: FinetuneSpec, plan: Plan, reporter: Reporter, sources: Mapping[str, Any]) -> dict[str, Any] | None:
    """Train and finish the folder; None where the training was interrupted."""
    if folder.main:
        spec.keep_rows(folder.path, sources)
        spec.write(folder.path)
        if not (folder.path / "tokenizer").is_dir():
            save_tokenizer(fresh_tokenizer(spec, plan.lang), folder.path / "tokenizer", plan.task.max_length)
    history = train(spec, plan, folder, reporter)
    if history.paused:
        return None
    metrics = assemble(spec, plan, folder, history) if folder.main else {"steps": history.steps}
    folder.finish()
    return metrics


def fresh_tokenizer(spec: FinetuneSpec, lang: str) -> Any:
    """The model's tokenizer, loaded again: a used one saves its truncation settings."""
    from bertcourse import profiles
    from bertcourse.tasks import for_words
    tokenizer = profiles.load(spec.model).tokenizer(lang)
    return for_words(tokenizer) if base_task(spec.task) == "ner" else tokenizer


def finetune(
    task: str | None = None,  # classification, pairs, regression, ner or qa (or sentiment, nli, similarity)
    train: Source | None = None,  # TSV, CSV, JSONL; ner: CoNLL or JSONL, entities or a label a word; qa: SQuAD or JSONL
    *,
    out: str | Path,  # new folder for the model
    model: str | None = None,  # tiny, base, the folder of a checkpoint, or its owner/name on the hub
    dev: Source | None = None,  # scored after each epoch (default: 10% of train)
    test: Source | None = None,  # scored once, at the end
    columns: str | Mapping[str, str] | None = None,  # our name → the file's, or its number: sentence=review,label=3
    format: str | None = None,  # tsv, csv, json, conll or squad (default: what the content is)
    encoding: str | None = None,  # such as gb18030, latin-1 (default: UTF-8, or guessed and said)
    lang: str | None = None,  # en, zh or auto (default: auto, what most of the text is)
    max_length: int | str | None = None,  # tokens (default: auto, what holds 99% of the texts)
    max_answer_length: int | None = None,  # qa: tokens of an answer (default: as in train, 30 at least)
    epochs: int | None = None,  # passes over train (default: 3)
    steps: int | None = None,  # instead of epochs
    lr: float | str | None = None,  # highest learning rate (default: auto, 1e-3 at width 128, 5e-5 at 768, log-linear between)
    batch_size: int | None = None,  # rows of a step, of all processes together (default: 32)
    warmup: float | None = None,  # a share of the steps if below 1, else steps (default: 0.1)
    weight_decay: float | None = None,  # of AdamW (default: 0.01)
    patience: int | None = None,  # epochs without a better score, then stop; the best weights are kept
    seed: int | None = None,  # of weights, batches and dropout (default: 0)
    llrd: float | None = None,  # the learning rate falls by this factor per layer, from the top
    reinit: int | None = None,  # top layers that start from random weights (default: 0)
    adversarial: str | None = None,  # fgm or pgd: adversarial training of the embeddings
    dropout: float | None = None,  # probability (default: that of the checkpoint)
    precision: str | None = None,  # no, bf16 or auto (default: auto, bf16 where the hardware computes in it)
    resume: bool = False,  # go on with a run that Ctrl-C or a crash stopped, to the same weights
    quiet: bool = False,  # say nothing but errors
) -> Trained:
    """Fine-tune a BERT on labelled rows and write a folder with checkpoint, tokenizer, metrics, curves and model card.

    `train`, `dev` and `test` are files, lists of dicts, `datasets.Dataset` or `pandas.DataFrame`. Raises
    `bertcourse.base.errors.UserError` for what a user can fix, `bertcourse.jobs.Stopped` (a `KeyboardInterrupt`) when interrupted;
    `resume=True` goes on.
    """
    arguments = dict(locals())
    with as_files(arguments, list(SPLITS)) as values:
        options = FinetuneOptions.of(values | {"out": as_path(out), "model": as_model(model)})
        return run_finetuning(options, Reporter(quiet), arguments)
