"""The student of a distillation: what `--student` names, its shape, and the weights that it starts from."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertcourse.base.errors import UserError
from bertcourse.base.messages import plural
from bertcourse.base.names import MODELS, PREFIX, built_in
from bertcourse.jobs import setup
from bertcourse.models.checkpoint import model_location, model_name

STUDENTS = {"tinybert-4": "TinyBERT-4", "tinybert-6": "TinyBERT-6", "distilbert-6": None}  # of bertcourse.bert.SHAPES
GENERAL = "general"  # a method without a task, see bertcourse.jobs.general
PROJECTIONS = "projections.safetensors"
DISTILBERT = {  # BERT's name of a setting: DistilBERT's
    "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads", "intermediate_size": "hidden_dim",
    "hidden_act": "activation", "hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout",
}
SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
TAKEN_OVER = (*DISTILBERT, "layer_norm_eps", "initializer_range", "type_vocab_size", "classifier_dropout", "vocab_size", "pad_token_id",
              "bos_token_id", "eos_token_id")
ABOUT_FILES = ("model_type", "architectures", "transformers_version", "_name_or_path", "dtype", "torch_dtype")  # of no effect here
FIXED = ("vocab_size", "max_position_embeddings", "type_vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "is_decoder",
         "add_cross_attention", "num_labels")  # beside what all configurations have: not a matter of shape
OF_THE_TASK = ("id2label", "label2id", "num_labels", "problem_type", "architectures")


# --- what is named -------------------------------------------------------------------------------------------------

def is_model(name: str) -> bool:
    """Can it be a model: one of the course, a folder, or a name on the hub? Raises `UserError` for a name that may mean either."""
    path = os.path.expanduser(name)
    on_hub = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not os.path.isdir(os.path.dirname(path))
    return built_in(name) is not None or os.path.isdir(path) or bool(on_hub)


def check_teacher(name: str | None, wanted: str, wanted_zh: str) -> None:
    """Raises `UserError` for a teacher that is there in no form; wanted: what to give instead."""
    if name is not None and not is_model(name):
        raise UserError(f"there is no folder {name}: give a {wanted} model with --teacher",
                        f"没有 {name} 这个文件夹：请用 --teacher 给出{wanted_zh}的模型")


def student_option(student: Any) -> str | None:
    """What was given for the student as a command line has it: settings as JSON. Raises `UserError`."""
    if not isinstance(student, Mapping):
        return None if student is None else str(student)
    try:
        return json.dumps(student, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"student cannot be written as JSON ({error}): give numbers and texts",
                        f"student 无法写成 JSON（{error}）：请给出数和文本") from None


def read_student(text: str) -> str | dict[str, Any]:
    """What `--student` means: a name of `STUDENTS`, a checkpoint (a folder by its absolute path), or settings. Raises `UserError`."""
    path = os.path.expanduser(text)
    if text.removeprefix(PREFIX) not in MODELS and (name := built_in(text, tuple(STUDENTS))):
        return name
    if text.lstrip().startswith("{"):
        return parse_settings(text, "--student")
    if os.path.isfile(path):
        try:
            return parse_settings(Path(path).read_text(encoding="utf-8-sig"), text)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8"
            raise UserError(f"{text} cannot be read ({why}): give a configuration as JSON",
                            f"{text} 无法读取（{why}）：请给出 JSON 格式的配置") from None
    if is_model(text):
        return model_location(text)
    raise UserError(f"--student {text} is no name, file or folder: give {', '.join(STUDENTS)}, a configuration as JSON, or a checkpoint",
                    f"--student {text} 既不是名称，也不是文件或文件夹：请写 {'、'.join(STUDENTS)}、JSON 格式的配置，或一个检查点")


def parse_settings(text: str, source: str) -> dict[str, Any]:
    """A JSON object. source: where it stands, for messages. Raises `UserError`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", None) or "nested too deeply"
        raise UserError(f'{source} is not valid JSON ({why}): write {{"num_hidden_layers": 3}}, for example',
                        f'{source} 不是合法的 JSON（{why}）：请写成 {{"num_hidden_layers": 3}} 这样') from None
    if not isinstance(found, dict):
        raise UserError(f'{source} is not a JSON object: write {{"num_hidden_layers": 3}}, for example',
                        f'{source} 不是 JSON 对象：请写成 {{"num_hidden_layers": 3}} 这样')
    return found


def student_name(student: str | Mapping[str, Any]) -> str:
    """What to call a student, without the folders of this machine."""
    return model_name(student) if isinstance(student, str) else json.dumps(student, ensure_ascii=False)


# --- shape ---------------------------------------------------------------------------------------------------------

def name_in_family(family: str, name: str) -> str:
    """What a family calls a setting."""
    return DISTILBERT.get(name, name) if family == "distilbert" else name


def settings_of_family(config: Any, family: str) -> dict[str, Any]:
    """The settings of a configuration as another family has them."""
    from transformers import AutoConfig

    from bertcourse.profiles import skipped_positions
    if family == config.model_type:
        return config.to_dict()
    found = AutoConfig.for_model(family).to_dict()
    for name in TAKEN_OVER:
        source, target = name_in_family(config.model_type, name), name_in_family(family, name)
        if target in found and hasattr(config, source) and (name != "type_vocab_size" or config.type_vocab_size):  # DeBERTa has none
            found[target] = getattr(config, source)
    room = config.max_position_embeddings - skipped_positions(config)
    return found | {"max_position_embeddings": room + skipped_positions(AutoConfig.for_model(family, pad_token_id=found["pad_token_id"]))}


def configuration(wanted: Mapping[str, Any], teacher_config: Any) -> Any:  # of transformers
    """The teacher's configuration with the settings that are wanted. Raises `UserError`."""
    from transformers import AutoConfig, PretrainedConfig

    from bertcourse.profiles import FAMILIES
    family = wanted.get("model_type", teacher_config.model_type)
    if family not in FAMILIES:
        raise UserError(f"--student: there is no model_type {family!r}: write one of {', '.join(FAMILIES)}",
                        f"--student：没有 {family!r} 这种 model_type：请写 {'、'.join(FAMILIES)} 之一")
    settings = settings_of_family(teacher_config, family) | {"num_labels": teacher_config.num_labels}
    fixed = {*FIXED, *PretrainedConfig().to_dict()}
    for name, value in wanted.items():
        if name not in ABOUT_FILES:
            check_setting(name, value, settings, family, fixed)
            settings[name_in_family(family, name)] = value
    check_numbers(settings, family)
    if settings.get("layer_types"):  # ModernBERT: which layers look how far
        settings["layer_types"] = first_layer_types(settings["layer_types"], settings["num_hidden_layers"])
    try:
        config_type = type(AutoConfig.for_model(family))
        return check_buildable(config_type.from_dict({name: value for name, value in settings.items() if name not in OF_THE_TASK}))
    except Exception as error:  # each family has checks of its own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise UserError(f"--student makes no {family} ({lines[-1]}): correct it", f"--student 配不成 {family}（{lines[-1]}）：请改正") from None


def check_setting(name: str, value: Any, settings: Mapping[str, Any], family: str, fixed: Collection[str]) -> None:
    """Raises `UserError` for a setting that the family does not have, or that must be the teacher's (`fixed`)."""
    key = name_in_family(family, name)
    if key not in settings:
        close = difflib.get_close_matches(name, [*settings, *DISTILBERT], 1)
        raise UserError(f"--student: {family} has no setting {name!r}: " + (f"did you mean {close[0]}?" if close else "leave it out"),
                        f"--student：{family} 没有 {name!r} 这个设置：" + (f"是不是 {close[0]}？" if close else "请去掉它"))
    if key in fixed and value != settings[key]:
        raise UserError(f"--student: {name} must be that of the teacher ({settings[key]}), not {value}: leave it out",
                        f"--student：{name} 应与教师相同（{settings[key]}），不能是 {value}：请去掉它")


def check_numbers(settings: Mapping[str, Any], family: str) -> None:
    """Raises `UserError` for a shape that cannot be."""
    values = {name: settings.get(name_in_family(family, name)) for name in SHAPE}
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise UserError(f"--student: {name} must be a whole number from 1 on, not {json.dumps(value)}",
                            f"--student：{name} 应为不小于 1 的整数，不能是 {json.dumps(value)}")
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if width % heads:
        raise UserError(f"--student: {heads} heads do not divide a width of {width} evenly: change num_attention_heads or hidden_size",
                        f"--student：宽度 {width} 不能被 {heads} 个头整除：请改 num_attention_heads 或 hidden_size")


def first_layer_types(types: Sequence[str], count: int) -> list[str] | None:
    """The kinds of a teacher's first layers; None, which is transformers' own choice, for more layers than it has."""
    return list(types[:count]) if count <= len(types) else None


def check_buildable(config: Any) -> Any:
    """The same configuration. Raises whatever its family raises where no model of it can be made."""
    import copy

    import torch
    from transformers import AutoModel
    with torch.device("meta"):
        AutoModel.from_config(copy.deepcopy(config))
    return config


def student_configuration(student: str | Mapping[str, Any], teacher_config: Any) -> Any:  # of transformers
    """The configuration of a name of `STUDENTS`, or of settings. Raises `UserError`."""
    if student == "distilbert-6":
        student = {"model_type": "distilbert", "num_hidden_layers": 6}
    elif isinstance(student, str):
        from bertcourse.bert import SHAPES
        shape = SHAPES[STUDENTS[student]].config()
        student = {"model_type": shape.model_type} | {name: getattr(shape, name) for name in SHAPE}
    return configuration(student, teacher_config)


# --- does it fit teacher and method? -------------------------------------------------------------------------------

@dataclass
class StudentPlan:
    """What a student will be made from."""

    config: Any
    profile: Any = None  # its checkpoint; None: random weights, or layers of the teacher


def plan_student(spec: Any, teacher: Any) -> StudentPlan:
    """The student's configuration, checked against the teacher and the method. Raises `UserError`.

    spec: a `bertcourse.jobs.distilling.DistillSpec`; teacher: a `Predictor`.
    """
    teacher_config, chosen = teacher.model.config, spec.settings["init_layers"]
    if isinstance(spec.student, dict) or spec.student in STUDENTS:
        plan = StudentPlan(student_configuration(spec.student, teacher_config))
    else:
        plan = plan_from_checkpoint(spec.student, teacher)
    check_method(spec.method, spec.settings["mapping"], plan.config, teacher_config)
    if isinstance(chosen, list):
        check_init_layers(chosen, plan, teacher_config)
    return plan


def plan_from_checkpoint(student: str, teacher: Any) -> StudentPlan:
    """A student that has been trained before, on the same vocabulary. Raises `UserError`."""
    from bertcourse.profiles import Profile, has_tokenizer, skipped_positions
    from bertcourse.profiles import load as load_profile
    lang, name = teacher.task.lang, model_name(student)
    profile = load_profile(student).only(lang) if student.startswith(PREFIX) else Profile(name, student, (lang,), 0)
    config, teacher_config = profile.teacher_config, teacher.model.config
    folder, vocab = Path(profile.encoder), teacher.task.tokenizer.get_vocab()
    tokenizer = not folder.is_dir() or has_tokenizer(folder)
    if config.vocab_size != teacher_config.vocab_size or tokenizer and profile.tokenizer().get_vocab() != vocab:
        raise UserError(f"{name} has another vocabulary than the teacher ({config.vocab_size:,} entries, {teacher_config.vocab_size:,}): "
                        "give a checkpoint with the teacher's",
                        f"{name} 的词表（{config.vocab_size:,} 项）与教师的（{teacher_config.vocab_size:,} 项）不同："
                        "请给出与教师词表相同的检查点")
    room, longest = config.max_position_embeddings - skipped_positions(config), teacher.task.max_length
    if room < longest:
        raise UserError(f"{name} has {room} positions, the teacher reads up to {longest} tokens: give a checkpoint with more",
                        f"{name} 只有 {room} 个位置，教师最多读 {longest} 个 token：请换一个位置更多的检查点")
    return StudentPlan(config, profile)


def check_method(method: str, mapping: str | None, config: Any, teacher_config: Any) -> None:
    """Raises `UserError` where the method cannot compare the two shapes."""
    width, teacher_width = config.hidden_size, teacher_config.hidden_size
    if method == "distilbert" and width != teacher_width:
        raise UserError(f"--method distilbert compares directions, and the student is {width} wide, the teacher {teacher_width}: "
                        "make it as wide, or take --method kd or tinybert",
                        f"--method distilbert 要比较方向，而学生宽 {width}，教师宽 {teacher_width}：请改成一样宽，或改用 --method kd、tinybert")
    if method in ("tinybert", GENERAL):
        check_attention(method, config, teacher_config)
        check_layers(method, mapping, config.num_hidden_layers, teacher_config.num_hidden_layers)


def or_kd(method: str) -> tuple[str, str]:
    """The other way out of a refusal, in English and Chinese; text has no labels, so there is none for a general distillation."""
    return (", or take --method kd", "，或改用 --method kd") if method == "tinybert" else ("", "")


def check_attention(method: str, config: Any, teacher_config: Any) -> None:
    """Raises `UserError` where attention scores are not to be had, or the heads are not as many."""
    from bertcourse.distillation import check_scores
    try:
        check_scores(config, teacher_config)
    except ValueError:
        family = next(one.model_type for one in (teacher_config, config) if one.model_type.startswith("deberta"))
        instead, instead_zh = ("take --method kd", "改用 --method kd") if method == "tinybert" else ("give another teacher", "换一个教师")
        raise UserError(f"--method {method} compares attention scores, which {family} does not show: {instead}",
                        f"--method {method} 要比较注意力分数，而 {family} 不给出它们：请{instead_zh}") from None
    heads, teacher_heads = config.num_attention_heads, teacher_config.num_attention_heads
    if heads != teacher_heads:
        en, zh = or_kd(method)
        raise UserError(f"--method {method} compares head by head, and the student has {heads}, the teacher {teacher_heads}: "
                        f"give it as many{en}",
                        f"--method {method} 逐头比较，而学生有 {heads} 个头，教师有 {teacher_heads} 个：请改成一样多{zh}")


def check_layers(method: str, mapping: str | None, count: int, teacher_count: int) -> None:
    """Raises `UserError` for more layers than the teacher's, and for layers that cannot be spread evenly."""
    if count > teacher_count:
        en, zh = or_kd(method)
        raise UserError(f"the student has {plural(count, 'layer')}, the teacher only {teacher_count}: give it fewer{en}",
                        f"学生有 {count} 层，教师只有 {teacher_count} 层：请减少学生的层数{zh}")
    if mapping == "uniform" and teacher_count % count:
        even = [str(n) for n in range(1, teacher_count + 1) if teacher_count % n == 0]
        raise UserError(f"{count} layers cannot be spread evenly over the teacher's {teacher_count}: take --mapping top or bottom, or "
                        f"{', '.join(even)} layers", f"学生的 {count} 层不能均匀对应教师的 {teacher_count} 层：请用 --mapping top 或 bottom，"
                        f"或把层数改为 {'、'.join(even)}")


def check_init_layers(chosen: Sequence[int], plan: StudentPlan, teacher_config: Any) -> None:
    """Raises `UserError` for layers that the student cannot start from."""
    count, most = plan.config.num_hidden_layers, teacher_config.num_hidden_layers
    if plan.profile is not None:
        raise UserError("--init-layers is for a student without weights of its own: leave it out, or give a name or a configuration",
                        "--init-layers 用于还没有权重的学生：请去掉它，或把 --student 改为名称或配置")
    if len(chosen) != count or max(chosen) > most:
        text = ",".join(map(str, chosen))
        raise UserError(f"--init-layers {text}: the student needs {plural(count, 'layer')}, each a number from 1 to {most}",
                        f"--init-layers {text}：学生需要 {count} 层，每层是 1 到 {most} 之间的数")
    if not have_same_layers(plan.config, teacher_config):
        raise other_layers(plan.config, teacher_config)


def have_same_layers(config: Any, teacher_config: Any) -> bool:
    """Can weights of a layer be the other's? Cut into other heads, they would mean something else."""
    return all(getattr(config, name) == getattr(teacher_config, name) for name in ("hidden_size", "num_attention_heads"))


def other_layers(config: Any, teacher_config: Any) -> UserError:
    """The sentence for layers that cannot be copied."""
    both = (config, teacher_config)
    student, teacher = (f"{one.model_type}, {one.hidden_size} wide, {one.num_attention_heads} heads" for one in both)
    student_zh, teacher_zh = (f"{one.model_type}，宽 {one.hidden_size}，{one.num_attention_heads} 个头" for one in both)
    return UserError(f"--init-layers: layers of the teacher ({teacher}) do not fit the student ({student}): leave it out",
                     f"--init-layers：教师的层（{teacher_zh}）与学生（{student_zh}）形状不合：请去掉它")


# --- weights -------------------------------------------------------------------------------------------------------

@dataclass
class Start:
    """The weights that a student starts from."""

    en: str
    zh: str
    layers: tuple[int, ...] = ()  # of the teacher, that were copied
    copied: tuple[int, int] | None = None  # tensors, of how many
    random: bool = False


@dataclass
class Student:
    """A student before its training."""

    model: Any
    task: Any  # the teacher's, with the student's tokenizer
    start: Start


def student_rate(width: int, random: bool) -> float:
    """`--lr auto`: that of `bertcourse finetune`, three times as high from random weights, but at most 3e-3."""
    rate = setup.learning_rate(width)
    return float(f"{min(setup.HIGHEST_RATE, 3 * rate):.2g}") if random else rate


def fresh_tokenizer(spec: Any, teacher: Any, model_inputs: Iterable[str]) -> Any:
    """The teacher's tokenizer, loaded again: a used one saves its truncation settings. It gives what the student takes."""
    from bertcourse import profiles
    from bertcourse.tasks import for_words
    tokenizer = profiles.load(spec.teacher).tokenizer()
    if teacher.kind == "ner":
        tokenizer = for_words(tokenizer)
    tokenizer.model_max_length = teacher.task.max_length
    if "token_type_ids" not in model_inputs and "token_type_ids" in tokenizer.model_input_names:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # else it is not saved
    return tokenizer


def make_student(spec: Any, plan: StudentPlan, teacher: Any, precision: str) -> Student:
    """The student with the teacher's head, and the weights that were asked for. Raises `UserError`."""
    import inspect
    from functools import partial

    import torch

    from bertcourse.distillation import new_model
    config = teacher.model.config
    head = {"id2label": config.id2label, "label2id": config.label2id}
    if precision == "bf16" and not torch.cuda.is_available():
        head["attn_implementation"] = "eager"  # as for `bertcourse finetune`
    loader = new_model(plan.config) if plan.profile is None else partial(plan.profile.model, ignore_mismatched_sizes=True)
    torch.manual_seed(spec.settings["seed"])
    model = teacher.task.model(loader, **head).to(teacher.model.device)
    start = start_weights(spec, plan, model, teacher)
    task = replace(teacher.task, tokenizer=fresh_tokenizer(spec, teacher, inspect.signature(model.forward).parameters))
    if task.name == "qa":
        task.threshold = 0.0  # the student's own comes later
    return Student(model, task, start)


def start_weights(spec: Any, plan: StudentPlan, model: Any, teacher: Any) -> Start:
    """Copy layers of the teacher if there are any to be copied; returns what the weights are. Raises `UserError`."""
    from bertcourse.distillation import copy_layers
    if plan.profile is not None:
        if setup.keep_or_renew_head(model, plan.config, teacher.task):
            return Start("goes on from its checkpoint", "接着检查点训练")
        return Start("starts from its checkpoint, with a new head", "从检查点开始，任务头是新的")
    layers, copied = choose_layers(spec, plan.config, teacher.model.config), None
    if layers:
        try:
            copied = copy_layers(model, teacher.model, layers)
        except ValueError:  # a family whose layers are others
            if isinstance(spec.settings["init_layers"], list):
                raise other_layers(plan.config, teacher.model.config) from None
    if copied is None:
        return Start("starts from random weights", "从随机权重开始", random=True)
    numbers, (count, total), s = [str(layer) for layer in layers], copied, "s" if len(layers) > 1 else ""
    return Start(f"starts from layer{s} {', '.join(numbers)} of the teacher: {count} of {total} tensors copied",
                 f"从教师的第 {'、'.join(numbers)} 层开始：复制了 {total} 个张量中的 {count} 个", layers, copied)


def choose_layers(spec: Any, config: Any, teacher_config: Any) -> tuple[int, ...]:
    """The layers of the teacher that a student without a checkpoint starts from; none: random weights."""
    chosen = spec.settings["init_layers"]
    if isinstance(chosen, list):
        return tuple(chosen)
    count, most = config.num_hidden_layers, teacher_config.num_hidden_layers
    if chosen == "none" or spec.method != "distilbert" or not have_same_layers(config, teacher_config) or most % count:
        return ()
    from bertcourse.distillation import teacher_layers
    return teacher_layers(count, most)


def load_projections(learner: Any, folder: str) -> bool:
    """Let projections that a general distillation trained with a student go on; False where there are none that fit.

    learner: a `bertcourse.tinybert.Intermediate`.
    """
    path = Path(folder) / PROJECTIONS
    if not path.is_file():
        return False
    from safetensors.torch import load_file
    weights, own = load_file(path), learner.state_dict()
    if any(name not in own or own[name].shape != weight.shape for name, weight in weights.items()):
        return False
    learner.load_state_dict(weights, strict=False)
    return True
