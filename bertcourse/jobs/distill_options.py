"""The options of a distillation, by any method, and what a run keeps of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertcourse.base.errors import UserError
from bertcourse.base.json_files import read_json
from bertcourse.jobs.data import SPLITS, check_files
from bertcourse.jobs.finetuning import check_together
from bertcourse.jobs.folder import SPEC, WORK
from bertcourse.jobs.options import ABOVE, COUNT, SHARE, Choice, FileOptions, Labels, Layers, TrainingOptions, command_line, flag_of, option
from bertcourse.jobs.spec import Spec, check_same, comparable
from bertcourse.jobs.student import GENERAL, check_teacher, read_student
from bertcourse.models.checkpoint import folder_name, model_location, model_name, weights_digest

METHODS: dict[str, dict[str, Any]] = {  # the settings that only some have
    "kd": {"temperature": 2.0, "alpha": 0.5}, "distilbert": {"temperature": 2.0},
    "tinybert": {"temperature": 1.0, "mapping": "uniform", "layer_epochs": None, "layer_steps": None},
}
DEFAULTS: dict[str, Any] = {
    "columns": None, "format": None, "encoding": None, "labels": None, "init_layers": None, "temperature": None, "alpha": None,
    "mapping": None, "layer_epochs": None, "layer_steps": None, "epochs": None, "steps": None, "lr": "auto", "batch_size": 32,
    "warmup": 0.1, "weight_decay": 0.01, "patience": None, "seed": 0, "precision": "auto",
}
FILES = (*SPLITS, "augmented")
NEEDED = ("teacher", "student", "train", "method")  # beside --out; a run that is resumed knows its own


# --- options ------------------------------------------------------------------------------------------------------

@dataclass(kw_only=True)
class DistillOptions(FileOptions, TrainingOptions):
    """The options of `distill`; None: not given."""

    teacher: str | None = None
    student: str | None = None
    train: Path | None = None
    dev: Path | None = None
    test: Path | None = None
    augmented: Path | None = None
    method: str | None = option(Choice(*METHODS, GENERAL))
    out: Path | None = None
    init_layers: str | list[int] | None = option(Layers())
    temperature: float | None = option(ABOVE)
    alpha: float | None = option(SHARE)
    mapping: str | None = option(Choice("uniform", "top", "bottom"))
    layer_epochs: int | None = option(COUNT)
    layer_steps: int | None = option(COUNT)
    labels: list[str] | None = option(Labels())
    resume: bool = False

    def files(self) -> dict[str, Path]:
        """Option: file."""
        return self.given(FILES)

    def check(self) -> None:
        """Raises `UserError` for what can be said before anything heavy is imported."""
        check_together(self)
        if not self.resume:
            self.require("distill", NEEDED)
        if self.method is not None:
            check_method_options(self)
        if self.augmented is not None and self.dev is None and not self.resume:
            raise UserError("--augmented needs --dev: variants of rows held out of --train would be trained on",
                            "--augmented 要配合 --dev：从 --train 里留出的数据，它们的变体会出现在训练里")
        check_files(self.files().values())
        check_teacher(self.teacher, "fine-tuned", "微调过")
        if self.student is not None:
            read_student(self.student)


def check_method_options(options: DistillOptions) -> None:
    """Raises `UserError` for an option that the method does not know."""
    for name in ("temperature", "alpha", "mapping", "layer_epochs", "layer_steps"):
        if getattr(options, name) is not None and name not in METHODS[options.method]:
            flag, methods = flag_of(name), [method for method, own in METHODS.items() if name in own]
            raise UserError(f"{flag} is for --method {' or '.join(methods)}, not for {options.method}: leave it out",
                            f"{flag} 用于 --method {'、'.join(methods)}，不能用于 {options.method}：请去掉它")


@dataclass(kw_only=True)
class DistillSpec(Spec):
    """What a distillation was asked for."""

    teacher: str  # absolute path, or the hub's name
    student: str | dict[str, Any]  # a name of `STUDENTS`, a checkpoint as above, or settings
    method: str
    task: str = ""  # as the files are read; the teacher tells
    fingerprint: str = ""  # of the teacher's weights

    @classmethod
    def of(cls, options: DistillOptions, settings: dict[str, Any]) -> DistillSpec:
        """What is asked for now, with these settings. Raises `UserError`."""
        teacher, student = model_location(options.teacher), read_student(options.student)
        shown = model_name(student) if isinstance(student, str) else options.student
        if isinstance(student, dict) and not shown.lstrip().startswith("{"):  # a file
            shown = folder_name(shown)
        command = command_line("distill", options, {"teacher": model_name(teacher), "student": shown})
        return cls(teacher=teacher, student=student, method=options.method, settings=settings, command=command).add_files(options.files())

    def check_same_teacher(self, model: Any, out: Path) -> None:
        """Raises `UserError` unless the teacher has the weights that the run in `out` began with."""
        found, name = weights_digest(model), model_name(self.teacher)
        if self.fingerprint and found != self.fingerprint:
            raise UserError(f"{name} is not the teacher of the run in {out}: put that back, or choose another folder with --out",
                            f"{name} 不是 {out} 里的训练所用的教师：请放回原来的模型，或用 --out 换一个文件夹")
        self.fingerprint = found


def fill_settings(options: DistillOptions) -> dict[str, Any]:
    """The settings: what the options say, else the defaults of the method."""
    settings = DEFAULTS | METHODS[options.method] | options.given(list(DEFAULTS))
    if settings["steps"] is None and settings["epochs"] is None:
        settings["epochs"] = 3
    if options.method == "tinybert" and settings["layer_steps"] is None and settings["layer_epochs"] is None:
        unit = "epochs" if settings["steps"] is None else "steps"
        settings[f"layer_{unit}"] = 2 * settings[unit]
    return settings


def resumed(options: DistillOptions, names: Iterable[str]) -> DistillSpec:
    """What an unfinished run was asked for, and is now again; names: the settings that its method has. Raises `UserError`."""
    was = read_json(options.out / WORK / SPEC)
    if "settings" in was and "teacher" not in was:
        raise UserError(f"{options.out} holds a run of `bertcourse finetune`: go on with it by that command, or choose another folder",
                        f"{options.out} 里是 `bertcourse finetune` 的训练：请用那个命令继续，或换一个文件夹")
    spec = DistillSpec.read(options.out, names)
    compare(options, vars(spec), names)
    spec.check_unchanged(options.out)
    return spec


def compare(options: DistillOptions, was: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises `UserError` when options ask for something else than a run was (`run.json`, or the metrics); names: of its settings."""
    changed = [("method", was["method"], options.method or was["method"])]
    if options.teacher is not None:
        changed.append(("teacher", *comparable(was["teacher"], model_location(options.teacher))))
    if options.student is not None:
        changed.append(("student", *comparable(was["student"], read_student(options.student))))
    changed += [(name, was["settings"][name], value) for name, value in options.given(list(names)).items()]
    check_same(options.out, changed, options.files(), was["files"])
